// frame.h - the one encoding in which a batch crosses into the core and its answer comes back.
//
// The same bytes are the media type application/vnd.holdfast.batch. A frame is self-contained: it names its
// regions, carries its raw data and says how long to wait. Everything is little-endian, every structure starts at a
// multiple of 8 from the start of the frame, and every length is checked before it is used: a frame may come from
// the network. Nothing here is ever written to disk (format.h is for that).
//
//   FrameHeader | FrameRegion x region_count | FrameOp + data, guard_count times | ... op_count | ... else_count
//
// An answer:
//
//   AnswerHeader | AnswerRegion x region_count | AnswerResult + data, result_count times | AnswerFailure x failure_count
#pragma once

#include <cstdint>

namespace holdfast {

inline constexpr uint32_t kFrameMagic = 0x31424648;   // "HFB1"
inline constexpr uint32_t kAnswerMagic = 0x31414648;  // "HFA1"
inline constexpr uint16_t kFrameVersion = 1;
inline constexpr uint32_t kRegionNameBytesMax = 64;
inline constexpr uint32_t kRegionsPerBatchMax = 64;
inline constexpr uint64_t kGenerationMax = (uint64_t{1} << 53) - 1;

// What an entry of a frame does. 1 to 5 are guards; as an op, a guard is the `assert` of that kind.
#define HOLDFAST_OP_KINDS(X) \
  X(guard_generation, 1)     \
  X(guard_value, 2)          \
  X(guard_bytes, 3)          \
  X(guard_digest, 4)         \
  X(guard_etag, 5)           \
  X(read, 16)                \
  X(write, 17)               \
  X(fill, 18)                \
  X(copy, 19)                \
  X(load, 20)                \
  X(store, 21)               \
  X(exchange, 22)            \
  X(add, 23)                 \
  X(bit_and, 24)             \
  X(bit_or, 25)              \
  X(bit_xor, 26)             \
  X(min, 27)                 \
  X(max, 28)                 \
  X(cas, 29)                 \
  X(append, 30)

enum class OpKind : uint8_t {
#define X(name, number) name = number,
  HOLDFAST_OP_KINDS(X)
#undef X
};

#define HOLDFAST_VALUE_TYPES(X) \
  X(u8, 0) X(u16, 1) X(u32, 2) X(u64, 3) X(i8, 4) X(i16, 5) X(i32, 6) X(i64, 7) X(f32, 8) X(f64, 9)

enum class ValueType : uint8_t {
#define X(name, number) name = number,
  HOLDFAST_VALUE_TYPES(X)
#undef X
};

enum class Compare : uint8_t { eq = 0, lt = 1, le = 2, gt = 3, ge = 4, ne = 5 };
enum class Overflow : uint8_t { fail = 0, wrap = 1, saturate = 2 };
enum class OnMismatch : uint8_t { abort = 0, proceed = 1 };
enum class Algorithm : uint8_t { sha256 = 0, crc32c = 1 };

// How long the answer waits. `region_mode` is the strictest mode of the batch's regions.
enum class Wait : uint8_t { region_mode = 0, fast = 1, ordered = 2, durable = 3 };

inline constexpr uint16_t kFrameDryRun = 1;  // evaluate and answer; write nothing, yield no generation
inline constexpr uint16_t kFrameHasKey = 2;  // key and fingerprint are set

struct FrameHeader {
  uint32_t magic;    // kFrameMagic
  uint16_t version;  // kFrameVersion
  uint16_t flags;    // kFrame...
  Wait wait;
  uint8_t reserved[3];    // 0
  uint16_t region_count;  // 1 to kRegionsPerBatchMax
  uint16_t guard_count;
  uint32_t op_count;
  uint32_t else_count;
  uint8_t key[16];          // hash of the idempotency key and its scope
  uint8_t fingerprint[16];  // hash of the request, to tell a retry from a reuse
  uint64_t frame_bytes;     // of the whole frame, this header included
};
static_assert(sizeof(FrameHeader) == 64);

struct FrameRegion {
  uint16_t name_bytes;
  uint8_t reserved[6];
  char name[kRegionNameBytesMax];  // zero-padded
};
static_assert(sizeof(FrameRegion) == 72);

inline constexpr uint8_t kOpBigEndian = 1;  // the cell is stored most significant byte first
inline constexpr uint8_t kOpNegative = 2;   // add: `a` is the magnitude of a negative number
inline constexpr uint8_t kOpNegate = 4;     // guard_etag: true when nothing matches (If-None-Match)
inline constexpr uint8_t kOpCondition = 8;  // guard_generation / guard_etag that came from a header: its failure
                                            // is generation_mismatch / etag_mismatch instead of guard_failed

// Which field means what, by kind. Cells are raw bits in the low end of a uint64_t: integers sign- or
// zero-extended, f32 its 32 bits, f64 its 64 bits; always in host order, whatever the cell's byte order.
//
//   kind              offset   length        a          b      mode        data
//   guard_generation                         value             Compare
//   guard_value       offset                 value             Compare                 (type)
//   guard_bytes       offset                                               expected bytes
//   guard_digest      offset   length                          Algorithm   expected digest (32 or 4 bytes, crc32c big-endian)
//   guard_etag                                                             n x {incarnation, meta generation, generation} u64;
//                                                                          no data: matches any existing region
//   read              offset   length
//   write             offset                                               bytes
//   fill              offset   length                                      pattern, 1 to 4096 bytes
//   copy              to       length        from                          (region = target, region2 = source)
//   load              offset   count                                                   (type)
//   store             offset   count                                       count cells, already in cell byte order (type)
//   exchange          offset                 value                                     (type)
//   add               offset                 magnitude         Overflow                (type; floats: a = f64 bits)
//   bit_and or xor    offset                 value                                     (integer type)
//   min max           offset                 value                                     (type)
//   cas               offset                 expected   value  OnMismatch              (type)
//   append            cursor                                               bytes       (unsigned integer type of the cursor)
struct FrameOp {
  OpKind kind;
  ValueType type;
  uint8_t flags;  // kOp...
  uint8_t mode;
  uint16_t region;      // index into the frame's regions
  uint16_t region2;     // copy: where the bytes come from
  uint32_t data_bytes;  // that follow, zero-padded to a multiple of 8
  uint32_t reserved;    // 0
  uint64_t offset;
  uint64_t length;
  uint64_t a;
  uint64_t b;
};
static_assert(sizeof(FrameOp) == 48);

enum class Branch : uint8_t { ops = 0, else_ops = 1, none = 2 };

inline constexpr uint8_t kAnswerCommitted = 1;  // a record was published: it will survive
inline constexpr uint8_t kAnswerReplayed = 2;   // the outcome of an earlier request with the same key
inline constexpr uint8_t kAnswerDryRun = 4;

struct AnswerHeader {
  uint32_t magic;  // kAnswerMagic
  uint16_t code;   // Code; not ok: failures say why, results are absent, nothing was written
  Branch branch;
  uint8_t flags;  // kAnswer...
  uint16_t region_count;
  uint16_t reserved;
  uint32_t result_count;
  uint32_t failure_count;
  uint32_t reserved2;
  uint64_t limit;   // of a refusal that concerns the whole batch (batch_too_large ...), else 0
  uint64_t actual;  // likewise
};
static_assert(sizeof(AnswerHeader) == 40);

struct AnswerRegion {
  uint64_t incarnation;  // 0: no such region
  uint64_t meta_generation;
  uint64_t generation;
  uint64_t durable_generation;
  uint64_t size;  // bytes
};
static_assert(sizeof(AnswerRegion) == 40);

inline constexpr uint8_t kResultSwapped = 1;
inline constexpr uint8_t kResultOverflowed = 2;

//   kind                a                 b        data
//   read                bytes read                 the bytes
//   write fill copy     bytes written
//   load                count                      raw cells in cell byte order
//   store               count                      the old cells, likewise
//   exchange add        old               new      (host order bits; kResultOverflowed)
//   bit_* min max       old               new
//   cas                 actual            value    (kResultSwapped)
//   append              at                next     positions in bytes
//   guards (assert)
struct AnswerResult {
  OpKind kind;
  ValueType type;
  uint8_t flags;
  uint8_t reserved;
  uint32_t data_bytes;  // that follow, zero-padded to a multiple of 8
  uint64_t a;
  uint64_t b;
};
static_assert(sizeof(AnswerResult) == 24);

enum class Section : uint8_t { request = 0, guards = 1, ops = 2, else_ops = 3 };
// The member of the operation that is to blame, for a JSON pointer.
enum class Field : uint8_t {
  none = 0,
  offset = 1,
  length = 2,
  value = 3,
  from = 4,
  data = 5,
  type = 6,
  region = 7,
  pattern = 8,
  count = 9,
  equals = 10
};

struct AnswerFailure {
  uint32_t index;  // of the op or guard within its section
  uint16_t code;   // Code
  Section section;
  Field field;
  uint64_t limit;   // what was allowed or expected (bounds: the region's size; a cell: the expected bits)
  uint64_t actual;  // what was found (bounds: the end of the range, saturated; a cell: its bits)
};
static_assert(sizeof(AnswerFailure) == 24);

}  // namespace holdfast
