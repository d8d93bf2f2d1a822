#include "batch.h"

#include <string.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "crc32c.h"
#include "sha256.h"

namespace holdfast {

static_assert(std::endian::native == std::endian::little, "frames and cells are read as they lie");

namespace {

// ---- what each kind is -------------------------------------------------------------------------------------------

// The fields that a kind uses; the others must be zero.
constexpr uint16_t kOffset = 1, kLength = 2, kA = 4, kB = 8, kData = 16, kType = 32, kRegion2 = 64;
constexpr uint16_t kKnown = 128;
constexpr uint16_t kReads = 256;     // needs the bytes of a region
constexpr uint16_t kWrites = 512;    // leaves images
constexpr uint16_t kAligned = 1024;  // its cell must be naturally aligned
constexpr uint16_t kInteger = 2048;  // not for floats

struct Rule {
  uint16_t uses = 0;
  uint8_t modes = 1;  // how many there are
  uint8_t flags = 0;  // allowed
};

constexpr auto kRules = [] {
  std::array<Rule, 32> rules{};
  const auto set = [&](OpKind kind, int uses, uint8_t modes, uint8_t flags) {
    rules[static_cast<size_t>(kind)] = {static_cast<uint16_t>(uses | kKnown), modes, flags};
  };
  constexpr int kModify = kOffset | kType | kReads | kWrites | kAligned;
  set(OpKind::guard_generation, kA, 6, kOpCondition);
  set(OpKind::guard_value, kOffset | kA | kType | kReads, 6, kOpBigEndian);
  set(OpKind::guard_bytes, kOffset | kData | kReads, 1, 0);
  set(OpKind::guard_digest, kOffset | kLength | kData | kReads, 2, 0);
  set(OpKind::guard_etag, kData, 1, kOpNegate | kOpCondition);
  set(OpKind::read, kOffset | kLength | kReads, 1, 0);
  set(OpKind::write, kOffset | kData | kWrites, 1, 0);
  set(OpKind::fill, kOffset | kLength | kData | kWrites, 1, 0);
  set(OpKind::copy, kOffset | kLength | kA | kRegion2 | kReads | kWrites, 1, 0);
  set(OpKind::load, kOffset | kLength | kType | kReads, 1, kOpBigEndian);
  set(OpKind::store, kOffset | kData | kType | kReads | kWrites, 1, kOpBigEndian);
  set(OpKind::exchange, kModify | kA, 1, kOpBigEndian);
  set(OpKind::add, kModify | kA, 3, kOpBigEndian | kOpNegative);
  set(OpKind::bit_and, kModify | kA | kInteger, 1, kOpBigEndian);
  set(OpKind::bit_or, kModify | kA | kInteger, 1, kOpBigEndian);
  set(OpKind::bit_xor, kModify | kA | kInteger, 1, kOpBigEndian);
  set(OpKind::min, kModify | kA, 1, kOpBigEndian);
  set(OpKind::max, kModify | kA, 1, kOpBigEndian);
  set(OpKind::cas, kModify | kA | kB, 2, kOpBigEndian);
  set(OpKind::append, kModify | kData | kInteger, 1, kOpBigEndian);
  return rules;
}();

const Rule& rule_of(OpKind kind) { return kRules[static_cast<size_t>(kind)]; }
bool is_guard(OpKind kind) { return kind <= OpKind::guard_etag; }

constexpr uint32_t kPatternBytesMax = 4096;
constexpr uint32_t kEtagBytes = 24;

uint64_t digest_bytes(uint8_t algorithm) { return static_cast<Algorithm>(algorithm) == Algorithm::sha256 ? 32 : 4; }

// ---- cells -------------------------------------------------------------------------------------------------------

constexpr uint8_t kTypeBytes[] = {1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
constexpr size_t kTypes = sizeof kTypeBytes;

size_t bytes_of(ValueType type) { return kTypeBytes[static_cast<size_t>(type)]; }
bool is_float(ValueType type) { return type >= ValueType::f32; }
bool is_signed(ValueType type) { return type >= ValueType::i8 && type <= ValueType::i64; }

// The canonical bits of a cell whose low bytes are those of `bits`: integers sign- or zero-extended, floats as they
// are.
uint64_t extend(ValueType type, uint64_t bits) {
  const int unused = 64 - 8 * static_cast<int>(bytes_of(type));
  if (is_signed(type)) return static_cast<uint64_t>(static_cast<int64_t>(bits << unused) >> unused);
  return bits << unused >> unused;
}

// The greatest value of an integer type; all bits of a float.
uint64_t most_of(ValueType type) { return ~uint64_t{0} >> (64 - 8 * bytes_of(type) + (is_signed(type) ? 1 : 0)); }

uint64_t load_cell(ValueType type, bool big_endian, const uint8_t* from) {
  uint64_t bits = 0;
  memcpy(&bits, from, bytes_of(type));
  if (big_endian) bits = __builtin_bswap64(bits) >> (64 - 8 * bytes_of(type));
  return extend(type, bits);
}

void store_cell(ValueType type, bool big_endian, uint64_t bits, uint8_t* to) {
  if (big_endian) bits = __builtin_bswap64(bits) >> (64 - 8 * bytes_of(type));
  memcpy(to, &bits, bytes_of(type));
}

double float_of(ValueType type, uint64_t bits) {
  return type == ValueType::f32 ? std::bit_cast<float>(static_cast<uint32_t>(bits)) : std::bit_cast<double>(bits);
}

template <typename Number>
bool holds(Compare how, Number left, Number right) {
  switch (how) {
    case Compare::eq:
      return left == right;
    case Compare::lt:
      return left < right;
    case Compare::le:
      return left <= right;
    case Compare::gt:
      return left > right;
    case Compare::ge:
      return left >= right;
    case Compare::ne:
      return left != right;
  }
  return false;
}

bool cells_hold(ValueType type, Compare how, uint64_t left, uint64_t right) {
  if (is_float(type)) return holds(how, float_of(type, left), float_of(type, right));
  if (is_signed(type)) return holds(how, static_cast<int64_t>(left), static_cast<int64_t>(right));
  return holds(how, left, right);
}

struct Sum {
  uint64_t bits;
  bool overflowed;
  uint64_t bound;  // that was passed, when overflowed
};

Sum add_floats(ValueType type, uint64_t old, double addend, Overflow policy) {
  // For f32 the conversion rounds, to an infinity beyond the largest one (IEEE 754, which both compilers follow).
  const bool narrow = type == ValueType::f32;
  double sum = float_of(type, old) + addend;
  if (narrow) sum = static_cast<float>(sum);
  const auto bits_of = [&](double value) -> uint64_t {
    return narrow ? std::bit_cast<uint32_t>(static_cast<float>(value)) : std::bit_cast<uint64_t>(value);
  };
  if (std::isfinite(sum)) return {bits_of(sum), false, 0};
  const double largest = narrow ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  const uint64_t bound = bits_of(sum < 0 ? -largest : largest);
  return {policy == Overflow::saturate && !std::isnan(sum) ? bound : bits_of(sum), true, bound};
}

// `old` + or - `magnitude`, in a width where nothing is lost.
Sum add_integers(ValueType type, uint64_t old, uint64_t magnitude, bool negative, Overflow policy) {
  using Wide = __int128;
  const int bits = 8 * static_cast<int>(bytes_of(type));
  const Wide least = is_signed(type) ? -(Wide{1} << (bits - 1)) : Wide{0};
  const Wide most = (Wide{1} << (is_signed(type) ? bits - 1 : bits)) - 1;
  const Wide start = is_signed(type) ? Wide{static_cast<int64_t>(old)} : Wide{old};
  const Wide sum = negative ? start - Wide{magnitude} : start + Wide{magnitude};
  if (sum >= least && sum <= most) return {static_cast<uint64_t>(sum), false, 0};
  const auto bound = static_cast<uint64_t>(sum < least ? least : most);
  return {policy == Overflow::saturate ? bound : extend(type, static_cast<uint64_t>(sum)), true, bound};
}

// ---- decoding ----------------------------------------------------------------------------------------------------

bool all_zero(const void* from, size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(from);
  uint8_t seen = 0;
  for (size_t i = 0; i < bytes; ++i) seen |= at[i];
  return seen == 0;
}

bool entry_well_formed(const FrameOp& op, bool as_guard, size_t region_count) {
  if (static_cast<size_t>(op.kind) >= kRules.size()) return false;
  const Rule& rule = rule_of(op.kind);
  const uint16_t uses = rule.uses;
  if (!(uses & kKnown) || (as_guard && !is_guard(op.kind))) return false;
  uint64_t unused = op.reserved;
  if (!(uses & kOffset)) unused |= op.offset;
  if (!(uses & kLength)) unused |= op.length;
  if (!(uses & kA)) unused |= op.a;
  if (!(uses & kB)) unused |= op.b;
  if (!(uses & kData)) unused |= op.data_bytes;
  if (!(uses & kType)) unused |= static_cast<uint8_t>(op.type);
  if (!(uses & kRegion2)) unused |= op.region2;
  // A condition comes from a header, so it can't stand among the ops.
  unused |= op.flags & ~(as_guard ? rule.flags : rule.flags & ~kOpCondition);
  if (unused != 0 || op.mode >= rule.modes || static_cast<size_t>(op.type) >= kTypes) return false;
  if (op.region >= region_count || op.region2 >= region_count) return false;
  if (op.kind == OpKind::store) return op.data_bytes % bytes_of(op.type) == 0;
  if (op.kind == OpKind::guard_etag) return op.data_bytes % kEtagBytes == 0;
  return true;
}

// Takes `count` entries from `*at` on. False: the structure at `*at` is wrong.
bool decode_entries(std::span<const uint8_t> frame, uint64_t* at, uint32_t count, bool as_guards, Batch* batch,
                    std::vector<Entry>* entries) {
  // Before room is made for them: a count is a claim.
  if (count > (frame.size() - *at) / sizeof(FrameOp)) return false;
  entries->resize(count);
  for (Entry& entry : *entries) {
    const uint64_t left = frame.size() - *at;
    if (left < sizeof(FrameOp)) return false;
    FrameOp& op = entry.op;
    memcpy(&op, frame.data() + *at, sizeof op);
    if (!entry_well_formed(op, as_guards, batch->regions.size())) return false;
    const uint64_t padded = (uint64_t{op.data_bytes} + 7) & ~uint64_t{7};
    if (padded > left - sizeof op) return false;
    entry.data = frame.data() + *at + sizeof op;
    if (!all_zero(entry.data + op.data_bytes, padded - op.data_bytes)) return false;
    *at += sizeof op + padded;
    batch->reads |= (rule_of(op.kind).uses & kReads) != 0;
    batch->slow |= op.kind == OpKind::guard_digest;
  }
  return true;
}

bool decode_regions(std::span<const uint8_t> frame, uint64_t* at, Batch* batch) {
  if (batch->header.region_count > (frame.size() - *at) / sizeof(FrameRegion)) return false;
  for (int i = 0; i < batch->header.region_count; ++i, *at += sizeof(FrameRegion)) {
    const uint8_t* region = frame.data() + *at;
    uint16_t name_bytes;
    memcpy(&name_bytes, region + offsetof(FrameRegion, name_bytes), sizeof name_bytes);
    if (name_bytes > kRegionNameBytesMax) return false;
    const uint8_t* name = region + offsetof(FrameRegion, name);
    const std::string_view view(reinterpret_cast<const char*>(name), name_bytes);
    if (!region_name_valid(view) || !all_zero(name + name_bytes, kRegionNameBytesMax - name_bytes)) return false;
    if (!all_zero(region + offsetof(FrameRegion, reserved), sizeof(FrameRegion::reserved))) return false;
    // Two indices of one region would each see their own writes only.
    if (std::find(batch->regions.begin(), batch->regions.end(), view) != batch->regions.end()) return false;
    batch->regions.push_back(view);
  }
  return true;
}

bool header_well_formed(const FrameHeader& header, size_t frame_bytes) {
  return header.magic == kFrameMagic && header.version == kFrameVersion && header.frame_bytes == frame_bytes &&
         (header.flags & ~(kFrameDryRun | kFrameHasKey)) == 0 && header.wait <= Wait::durable &&
         all_zero(header.reserved, sizeof header.reserved) && header.region_count != 0 &&
         ((header.flags & kFrameHasKey) ||
          (all_zero(header.key, sizeof header.key) && all_zero(header.fingerprint, sizeof header.fingerprint)));
}

}  // namespace

bool region_name_valid(std::string_view name) {
  const auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (name.empty() || name.size() > kRegionNameBytesMax) return false;
  if (!alphanumeric(name.front()) || !alphanumeric(name.back())) return false;
  char before = 0;
  for (const char c : name) {
    if (!alphanumeric(c) && c != '.' && c != '_' && c != '-') return false;
    if (c == '.' && before == '.') return false;
    before = c;
  }
  return true;
}

Code decode_batch(std::span<const uint8_t> frame, const BatchLimits& limits, Batch* batch, uint64_t* limit,
                  uint64_t* actual) {
  *limit = *actual = 0;
  batch->regions.clear();
  batch->guards.clear(), batch->ops.clear(), batch->else_ops.clear();
  batch->reads = batch->slow = false;
  if (frame.size() < sizeof(FrameHeader)) return Code::malformed_batch;
  memcpy(&batch->header, frame.data(), sizeof(FrameHeader));
  const FrameHeader& header = batch->header;
  if (!header_well_formed(header, frame.size())) return Code::malformed_batch;
  const struct {
    uint64_t count, max;
  } counts[] = {{header.region_count, kRegionsPerBatchMax},
                {header.guard_count, limits.guards_max},
                {header.op_count, limits.ops_max},
                {header.else_count, limits.ops_max}};
  for (const auto& [count, max] : counts) {
    if (count <= max) continue;
    *limit = max, *actual = count;
    return Code::too_many_ops;
  }
  uint64_t at = sizeof(FrameHeader);
  if (decode_regions(frame, &at, batch) &&
      decode_entries(frame, &at, header.guard_count, true, batch, &batch->guards) &&
      decode_entries(frame, &at, header.op_count, false, batch, &batch->ops) &&
      decode_entries(frame, &at, header.else_count, false, batch, &batch->else_ops) && at == frame.size()) {
    return Code::ok;
  }
  *actual = at;
  return Code::malformed_batch;
}

// ---- the staging's memory ----------------------------------------------------------------------------------------

namespace {

constexpr uint64_t kPageBytes = 4096;
// What a staging keeps from batch to batch: more than the common batch needs, little enough for one on every thread.
constexpr size_t kKeptBytesMax = size_t{1} << 20;
constexpr size_t kBlockBytes = size_t{64} << 10;
constexpr size_t kKeptSlotsMax = 1024;

template <typename Item>
void empty(std::vector<Item>* items) {
  if (items->capacity() * sizeof(Item) > kKeptBytesMax) {
    std::vector<Item>().swap(*items);
  } else {
    items->clear();
  }
}

}  // namespace

// Blocks of bytes, and in them the pages that the batch has written so far (only those that a later op may read).
struct Staging::Arena {
  struct Block {
    std::unique_ptr<uint8_t[]> bytes;
    size_t size;
  };
  std::vector<Block> blocks;
  size_t block = 0, used = 0;  // the block that is being filled, and how far

  // An open hash table from (region, page number) to the page's copy; key 0 is an empty slot.
  struct Slot {
    uint64_t key;
    uint8_t* page;
  };
  std::vector<Slot> slots;
  size_t pages = 0;

  uint8_t* allocate(size_t bytes) {
    bytes = (bytes + 15) & ~size_t{15};
    for (; block < blocks.size(); ++block, used = 0) {
      if (bytes > blocks[block].size - used) continue;
      uint8_t* at = blocks[block].bytes.get() + used;
      used += bytes;
      return at;
    }
    const size_t size = std::max(bytes, kBlockBytes);
    blocks.push_back({std::make_unique_for_overwrite<uint8_t[]>(size), size});
    used = bytes;
    return blocks.back().bytes.get();
  }

  void reset() {
    size_t kept = 0, keep = 0;
    while (keep < blocks.size() && kept + blocks[keep].size <= kKeptBytesMax) kept += blocks[keep++].size;
    blocks.resize(keep);
    block = used = 0;
    if (pages == 0) return;
    if (slots.size() > kKeptSlotsMax) {
      std::vector<Slot>().swap(slots);
    } else {
      std::fill(slots.begin(), slots.end(), Slot{});
    }
    pages = 0;
  }

  static uint64_t key_of(uint16_t region, uint64_t page) {
    static_assert(kRegionsPerBatchMax <= 64, "six bits of the key; a page number has 52");
    return (page << 6 | region) + 1;
  }
  static size_t hash(uint64_t key) { return static_cast<size_t>((key * 0x9e3779b97f4a7c15u) >> 32); }

  // The slot of the key, or the empty one where it belongs. There is always an empty one.
  Slot& slot_of(uint64_t key) {
    size_t at = hash(key) & (slots.size() - 1);
    while (slots[at].key != 0 && slots[at].key != key) at = (at + 1) & (slots.size() - 1);
    return slots[at];
  }

  uint8_t* find(uint16_t region, uint64_t page) { return pages == 0 ? nullptr : slot_of(key_of(region, page)).page; }

  void insert(uint16_t region, uint64_t page, uint8_t* copy) {
    if (2 * (pages + 1) > slots.size()) {
      std::vector<Slot> old(std::max<size_t>(64, 2 * slots.size()));
      old.swap(slots);
      for (const Slot& slot : old) {
        if (slot.key != 0) slot_of(slot.key) = slot;
      }
    }
    const uint64_t key = key_of(region, page);
    slot_of(key) = {key, copy};
    ++pages;
  }
};

Staging::Staging() : arena_(std::make_unique<Arena>()) {}
Staging::~Staging() = default;

uint8_t* Staging::allocate(size_t bytes) { return arena_->allocate(bytes); }

void Staging::reset() {
  empty(&images);
  empty(&results);
  empty(&result_data);
  empty(&failures);
  image_bytes = limit = actual = 0;
  branch = Branch::ops;
  arena_->reset();
}

// ---- evaluation --------------------------------------------------------------------------------------------------

class Evaluation {
 public:
  Evaluation(const Batch& batch, std::span<const RegionFacts> facts, const BatchLimits& limits, ByteSource& source,
             Staging* staging)
      : batch_(batch), facts_(facts), limits_(limits), source_(source), staging_(*staging) {}

  Code run();

 private:
  // What a branch will cost, known before it runs.
  struct Totals {
    uint64_t image_bytes = 0, result_bytes = 0, digest_bytes = 0;  // saturated
    uint32_t readers_end = 0;                                      // the index after the last op that reads
  };

  void check(const std::vector<Entry>& entries, Section section, Totals* totals);
  Code check_fields(const FrameOp& op, AnswerFailure* failure) const;
  bool too_large(uint64_t bytes);
  Code run_guards();
  Code run_ops(const std::vector<Entry>& ops, Section section, const Totals& totals);
  Code run_op(const Entry& entry, AnswerResult* result, AnswerFailure* failure);
  Code run_modify(const FrameOp& op, AnswerResult* result, AnswerFailure* failure);
  Code run_append(const Entry& entry, AnswerResult* result, AnswerFailure* failure);
  Code test_guard(const Entry& entry, AnswerFailure* failure);
  Code test_bytes(const Entry& entry, AnswerFailure* failure);
  Code test_digest(const Entry& entry, AnswerFailure* failure);
  bool etag_matches(const Entry& entry) const;
  Code read(uint16_t region, uint64_t offset, uint64_t length, uint8_t* into);
  Code write(uint16_t region, uint64_t offset, const uint8_t* bytes, uint64_t length);
  Code write_pages(uint16_t region, uint64_t offset, const uint8_t* bytes, uint64_t length);
  uint8_t* result_room(AnswerResult* result, uint64_t bytes);
  void report(Code code, Section section, size_t index, AnswerFailure failure);
  Code refuse(Code code);

  const Batch& batch_;
  const std::span<const RegionFacts> facts_;
  const BatchLimits& limits_;
  ByteSource& source_;
  Staging& staging_;
  bool read_later_ = false;  // some op after the one that runs reads
};

namespace {

void blame(AnswerFailure* failure, Field field, uint64_t limit = 0, uint64_t actual = 0) {
  failure->field = field;
  failure->limit = limit;
  failure->actual = actual;
}

uint64_t add_saturated(uint64_t left, uint64_t right) {
  uint64_t sum;
  return __builtin_add_overflow(left, right, &sum) ? UINT64_MAX : sum;
}

uint64_t multiply_saturated(uint64_t left, uint64_t right) {
  uint64_t product;
  return __builtin_mul_overflow(left, right, &product) ? UINT64_MAX : product;
}

bool inside(uint64_t size, uint64_t offset, uint64_t length) { return offset <= size && length <= size - offset; }

// The bytes of a region that an op names with its offset: how many, and which field says so.
struct Extent {
  uint64_t length;
  Field field;
};

Extent extent_of(const FrameOp& op) {
  switch (op.kind) {
    case OpKind::guard_generation:
    case OpKind::guard_etag:
      return {0, Field::none};
    case OpKind::guard_bytes:
      return {op.data_bytes, Field::equals};
    case OpKind::write:
    case OpKind::store:
      return {op.data_bytes, Field::data};
    case OpKind::read:
    case OpKind::fill:
    case OpKind::copy:
    case OpKind::guard_digest:
      return {op.length, Field::length};
    case OpKind::load:
      return {multiply_saturated(op.length, bytes_of(op.type)), Field::count};
    default:  // one cell
      return {bytes_of(op.type), Field::offset};
  }
}

}  // namespace

void Evaluation::report(Code code, Section section, size_t index, AnswerFailure failure) {
  failure.index = static_cast<uint32_t>(index);
  failure.code = static_cast<uint16_t>(code);
  failure.section = section;
  staging_.failures.push_back(failure);
}

Code Evaluation::refuse(Code code) {
  staging_.images.clear();
  staging_.results.clear();
  staging_.result_data.clear();
  staging_.image_bytes = 0;
  staging_.branch = Branch::none;
  return code;
}

// What can be said about an op without reading a byte. The first objection is enough: one failure an op.
Code Evaluation::check_fields(const FrameOp& op, AnswerFailure* failure) const {
  const RegionFacts& facts = facts_[op.region];
  const uint16_t uses = rule_of(op.kind).uses;
  if (facts.incarnation == 0 && op.kind != OpKind::guard_etag) {
    blame(failure, Field::region);
    return Code::region_not_found;
  }
  if (uses & kType) {
    if ((uses & kInteger) && is_float(op.type)) {
      blame(failure, Field::type);
      return Code::validation_failed;
    }
    if (op.kind == OpKind::append && is_signed(op.type)) {
      blame(failure, Field::type);
      return Code::validation_failed;
    }
    // An addend has a width of its own: a magnitude, or a double.
    if ((uses & kA) && op.kind != OpKind::add) {
      const Field field = op.kind == OpKind::cas ? Field::equals : Field::value;
      if (extend(op.type, op.a) != op.a) {
        blame(failure, field, most_of(op.type), op.a);
        return Code::value_out_of_range;
      }
      if (extend(op.type, op.b) != op.b) {
        blame(failure, Field::value, most_of(op.type), op.b);
        return Code::value_out_of_range;
      }
    }
  }
  if (op.kind == OpKind::fill && (op.data_bytes == 0 || op.data_bytes > kPatternBytesMax)) {
    blame(failure, Field::pattern, kPatternBytesMax, op.data_bytes);
    return Code::validation_failed;
  }
  if (op.kind == OpKind::guard_digest && op.data_bytes != digest_bytes(op.mode)) {
    blame(failure, Field::equals, digest_bytes(op.mode), op.data_bytes);
    return Code::validation_failed;
  }
  if ((uses & kAligned) && op.offset % bytes_of(op.type) != 0) {
    blame(failure, Field::offset, bytes_of(op.type), op.offset);
    return Code::misaligned;
  }
  if (uses & kOffset) {
    const Extent extent = extent_of(op);
    if (!inside(facts.size, op.offset, extent.length)) {
      blame(failure, op.offset > facts.size ? Field::offset : extent.field, facts.size,
            add_saturated(op.offset, extent.length));
      return Code::out_of_bounds;
    }
  }
  if (op.kind == OpKind::copy) {
    const RegionFacts& from = facts_[op.region2];
    if (from.incarnation == 0) {
      blame(failure, Field::from);
      return Code::region_not_found;
    }
    if (!inside(from.size, op.a, op.length)) {
      blame(failure, Field::from, from.size, add_saturated(op.a, op.length));
      return Code::out_of_bounds;
    }
  }
  if ((uses & kWrites) && facts.read_only) {
    blame(failure, Field::region);
    return Code::region_read_only;
  }
  return Code::ok;
}

void Evaluation::check(const std::vector<Entry>& entries, Section section, Totals* totals) {
  for (size_t index = 0; index < entries.size(); ++index) {
    const FrameOp& op = entries[index].op;
    AnswerFailure failure = {};
    if (const Code code = check_fields(op, &failure); code != Code::ok) {
      report(code, section, index, failure);
      continue;
    }
    const uint16_t uses = rule_of(op.kind).uses;
    if (uses & kReads) totals->readers_end = static_cast<uint32_t>(index) + 1;
    const uint64_t length = extent_of(op).length;
    if (uses & kWrites) {
      const uint64_t data = op.kind == OpKind::append ? op.data_bytes : 0;
      totals->image_bytes = add_saturated(totals->image_bytes, add_saturated(length, data));
    }
    if (op.kind == OpKind::read || op.kind == OpKind::load || op.kind == OpKind::store) {
      totals->result_bytes = add_saturated(totals->result_bytes, length);
    } else if (op.kind == OpKind::guard_digest) {
      totals->digest_bytes = add_saturated(totals->digest_bytes, length);
    }
  }
}

bool Evaluation::too_large(uint64_t bytes) {
  // An image's length has 32 bits, whatever the limit is set to.
  const uint64_t limit = std::min<uint64_t>(limits_.batch_bytes_max, UINT32_MAX);
  if (bytes <= limit) return false;
  staging_.limit = limit;
  staging_.actual = bytes;
  return true;
}

Code Evaluation::run() {
  staging_.reset();
  Totals guards, ops, else_ops;
  check(batch_.guards, Section::guards, &guards);
  check(batch_.ops, Section::ops, &ops);
  check(batch_.else_ops, Section::else_ops, &else_ops);
  if (!staging_.failures.empty()) return refuse(static_cast<Code>(staging_.failures.front().code));
  for (const Totals* branch : {&ops, &else_ops}) {
    if (too_large(branch->image_bytes) || too_large(branch->result_bytes) ||
        too_large(add_saturated(guards.digest_bytes, branch->digest_bytes))) {
      return refuse(Code::batch_too_large);
    }
  }
  if (const Code code = run_guards(); code != Code::ok) {
    if (code != Code::guard_failed || batch_.else_ops.empty()) return refuse(code);
    staging_.failures.clear();
    staging_.branch = Branch::else_ops;
    return run_ops(batch_.else_ops, Section::else_ops, else_ops);
  }
  return run_ops(batch_.ops, Section::ops, ops);
}

// All of them, since each false one is listed. Ops have not run, so all see the same bytes.
Code Evaluation::run_guards() {
  Code worst = Code::ok;
  const auto rank = [](Code code) {
    return code == Code::ok ? 0 : code == Code::guard_failed ? 1 : code == Code::region_faulted ? 2 : 3;
  };
  for (size_t index = 0; index < batch_.guards.size(); ++index) {
    const Entry& entry = batch_.guards[index];
    AnswerFailure failure = {};
    Code code = test_guard(entry, &failure);
    if (code == Code::ok) continue;
    if (code == Code::guard_failed && (entry.op.flags & kOpCondition)) {
      code = entry.op.kind == OpKind::guard_etag ? Code::etag_mismatch : Code::generation_mismatch;
    }
    report(code, Section::guards, index, failure);
    if (rank(code) > rank(worst)) worst = code;
  }
  return worst;
}

Code Evaluation::run_ops(const std::vector<Entry>& ops, Section section, const Totals& totals) {
  if (totals.result_bytes != 0) staging_.result_data.reserve(totals.result_bytes + 8 * ops.size());
  for (size_t index = 0; index < ops.size(); ++index) {
    const Entry& entry = ops[index];
    AnswerResult result = {};
    result.kind = entry.op.kind;
    result.type = entry.op.type;
    AnswerFailure failure = {};
    read_later_ = index + 1 < totals.readers_end;
    if (const Code code = run_op(entry, &result, &failure); code != Code::ok) {
      report(code, section, index, failure);
      return refuse(code);
    }
    staging_.results.push_back(result);
  }
  return Code::ok;
}

Code Evaluation::run_op(const Entry& entry, AnswerResult* result, AnswerFailure* failure) {
  const FrameOp& op = entry.op;
  switch (op.kind) {
    case OpKind::guard_generation:
    case OpKind::guard_value:
    case OpKind::guard_bytes:
    case OpKind::guard_digest:
    case OpKind::guard_etag:
      return test_guard(entry, failure);
    case OpKind::read:
      result->a = op.length;
      return read(op.region, op.offset, op.length, result_room(result, op.length));
    case OpKind::write:
      result->a = op.data_bytes;
      return write(op.region, op.offset, entry.data, op.data_bytes);
    case OpKind::fill: {
      result->a = op.length;
      uint8_t* bytes = staging_.allocate(op.length);
      const uint64_t first = std::min<uint64_t>(op.length, op.data_bytes);
      memcpy(bytes, entry.data, first);
      // Doubling what is there: each copy is a whole number of patterns long, but for the last.
      for (uint64_t done = first; done < op.length;) {
        const uint64_t part = std::min(done, op.length - done);
        memcpy(bytes + done, bytes, part);
        done += part;
      }
      return write(op.region, op.offset, bytes, op.length);
    }
    case OpKind::copy: {
      result->a = op.length;
      uint8_t* bytes = staging_.allocate(op.length);
      if (const Code code = read(op.region2, op.a, op.length, bytes); code != Code::ok) return code;
      return write(op.region, op.offset, bytes, op.length);
    }
    case OpKind::load:
      result->a = op.length;
      return read(op.region, op.offset, extent_of(op).length, result_room(result, extent_of(op).length));
    case OpKind::store: {
      result->a = op.data_bytes / bytes_of(op.type);
      uint8_t* old = result_room(result, op.data_bytes);
      if (const Code code = read(op.region, op.offset, op.data_bytes, old); code != Code::ok) return code;
      return write(op.region, op.offset, entry.data, op.data_bytes);
    }
    case OpKind::append:
      return run_append(entry, result, failure);
    default:
      return run_modify(op, result, failure);
  }
}

// The ops on one cell: read it, work out what it becomes, write it.
Code Evaluation::run_modify(const FrameOp& op, AnswerResult* result, AnswerFailure* failure) {
  const bool big_endian = (op.flags & kOpBigEndian) != 0;
  const size_t bytes = bytes_of(op.type);
  uint8_t raw[8];
  if (const Code code = read(op.region, op.offset, bytes, raw); code != Code::ok) return code;
  const uint64_t old = load_cell(op.type, big_endian, raw);
  uint64_t fresh = op.a;
  switch (op.kind) {
    case OpKind::add: {
      const auto policy = static_cast<Overflow>(op.mode);
      const bool negative = (op.flags & kOpNegative) != 0;
      const double addend = std::bit_cast<double>(op.a);
      const Sum sum = is_float(op.type) ? add_floats(op.type, old, negative ? -addend : addend, policy)
                                        : add_integers(op.type, old, op.a, negative, policy);
      if (sum.overflowed && policy == Overflow::fail) {
        blame(failure, Field::value, sum.bound, old);
        return Code::overflow;
      }
      if (sum.overflowed) result->flags = kResultOverflowed;
      fresh = sum.bits;
      break;
    }
    case OpKind::bit_and:
      fresh = old & op.a;
      break;
    case OpKind::bit_or:
      fresh = old | op.a;
      break;
    case OpKind::bit_xor:
      fresh = old ^ op.a;
      break;
    case OpKind::min:
      fresh = cells_hold(op.type, Compare::lt, op.a, old) ? op.a : old;
      break;
    case OpKind::max:
      fresh = cells_hold(op.type, Compare::gt, op.a, old) ? op.a : old;
      break;
    case OpKind::cas:
      result->a = old;
      result->b = op.b;
      if (old != op.a) {
        if (static_cast<OnMismatch>(op.mode) == OnMismatch::proceed) return Code::ok;
        blame(failure, Field::equals, op.a, old);
        return Code::cas_mismatch;
      }
      result->flags = kResultSwapped;
      fresh = op.b;
      break;
    default:  // exchange
      break;
  }
  result->a = old;
  result->b = fresh;
  uint8_t* cell = staging_.allocate(bytes);
  store_cell(op.type, big_endian, fresh, cell);
  return write(op.region, op.offset, cell, bytes);
}

Code Evaluation::run_append(const Entry& entry, AnswerResult* result, AnswerFailure* failure) {
  const FrameOp& op = entry.op;
  const bool big_endian = (op.flags & kOpBigEndian) != 0;
  const size_t bytes = bytes_of(op.type);
  uint8_t raw[8];
  if (const Code code = read(op.region, op.offset, bytes, raw); code != Code::ok) return code;
  const uint64_t at = load_cell(op.type, big_endian, raw);
  const uint64_t size = facts_[op.region].size;
  if (!inside(size, at, op.data_bytes)) {
    blame(failure, Field::data, size, add_saturated(at, op.data_bytes));
    return Code::out_of_bounds;
  }
  const uint64_t next = at + op.data_bytes;
  if (extend(op.type, next) != next) {
    blame(failure, Field::offset, most_of(op.type), at);
    return Code::overflow;
  }
  result->a = at;
  result->b = next;
  if (const Code code = write(op.region, at, entry.data, op.data_bytes); code != Code::ok) return code;
  uint8_t* cell = staging_.allocate(bytes);
  store_cell(op.type, big_endian, next, cell);
  return write(op.region, op.offset, cell, bytes);
}

// ok, guard_failed, or what reading it found.
Code Evaluation::test_guard(const Entry& entry, AnswerFailure* failure) {
  const FrameOp& op = entry.op;
  const auto how = static_cast<Compare>(op.mode);
  switch (op.kind) {
    case OpKind::guard_generation: {
      const uint64_t generation = facts_[op.region].generation;
      if (holds(how, generation, op.a)) return Code::ok;
      blame(failure, Field::value, op.a, generation);
      return Code::guard_failed;
    }
    case OpKind::guard_value: {
      uint8_t raw[8];
      if (const Code code = read(op.region, op.offset, bytes_of(op.type), raw); code != Code::ok) return code;
      const uint64_t found = load_cell(op.type, (op.flags & kOpBigEndian) != 0, raw);
      if (cells_hold(op.type, how, found, op.a)) return Code::ok;
      blame(failure, Field::value, op.a, found);
      return Code::guard_failed;
    }
    case OpKind::guard_bytes:
      return test_bytes(entry, failure);
    case OpKind::guard_digest:
      return test_digest(entry, failure);
    default:
      if (etag_matches(entry) != ((op.flags & kOpNegate) != 0)) return Code::ok;
      blame(failure, Field::equals, 0, facts_[op.region].generation);
      return Code::guard_failed;
  }
}

Code Evaluation::test_bytes(const Entry& entry, AnswerFailure* failure) {
  uint8_t found[kPageBytes];
  for (uint64_t done = 0; done < entry.op.data_bytes;) {
    const uint64_t part = std::min<uint64_t>(sizeof found, entry.op.data_bytes - done);
    if (const Code code = read(entry.op.region, entry.op.offset + done, part, found); code != Code::ok) return code;
    if (memcmp(found, entry.data + done, part) != 0) {
      const uint8_t* differs = std::mismatch(found, found + part, entry.data + done).first;
      blame(failure, Field::equals, 0, entry.op.offset + done + static_cast<uint64_t>(differs - found));
      return Code::guard_failed;
    }
    done += part;
  }
  return Code::ok;
}

Code Evaluation::test_digest(const Entry& entry, AnswerFailure* failure) {
  const FrameOp& op = entry.op;
  uint8_t bytes[4 * kPageBytes], digest[kSha256Bytes];
  Sha256 sha256;
  uint32_t crc = 0;
  const bool is_sha256 = static_cast<Algorithm>(op.mode) == Algorithm::sha256;
  for (uint64_t done = 0; done < op.length;) {
    const uint64_t part = std::min<uint64_t>(sizeof bytes, op.length - done);
    if (const Code code = read(op.region, op.offset + done, part, bytes); code != Code::ok) return code;
    if (is_sha256) {
      sha256.update(bytes, part);
    } else {
      crc = crc32c(crc, bytes, part);
    }
    done += part;
  }
  if (is_sha256) {
    sha256.finish(digest);
  } else {
    crc = __builtin_bswap32(crc);
    memcpy(digest, &crc, sizeof crc);
  }
  if (memcmp(digest, entry.data, op.data_bytes) == 0) return Code::ok;
  blame(failure, Field::equals);
  return Code::guard_failed;
}

bool Evaluation::etag_matches(const Entry& entry) const {
  const RegionFacts& facts = facts_[entry.op.region];
  if (facts.incarnation == 0) return false;
  if (entry.op.data_bytes == 0) return true;
  const uint64_t current[] = {facts.incarnation, facts.meta_generation, facts.generation};
  static_assert(sizeof current == kEtagBytes);
  for (uint32_t at = 0; at < entry.op.data_bytes; at += kEtagBytes) {
    if (memcmp(entry.data + at, current, kEtagBytes) == 0) return true;
  }
  return false;
}

// Room for a result's data, which goes behind what is there. Valid until the next call.
uint8_t* Evaluation::result_room(AnswerResult* result, uint64_t bytes) {
  std::vector<uint8_t>& data = staging_.result_data;
  const size_t at = data.size();
  data.resize(at + ((bytes + 7) & ~uint64_t{7}));
  result->data_bytes = static_cast<uint32_t>(bytes);
  return data.data() + at;
}

// The bytes as the ops so far have left them.
Code Evaluation::read(uint16_t region, uint64_t offset, uint64_t length, uint8_t* into) {
  Staging::Arena& arena = *staging_.arena_;
  if (length == 0) return Code::ok;
  if (arena.pages == 0) return source_.read(region, offset, length, into);
  // Stretches of pages that nothing was written to are read in one piece.
  uint64_t pending = 0;
  for (uint64_t done = 0; done < length;) {
    const uint64_t in_page = (offset + done) % kPageBytes;
    const uint64_t part = std::min(kPageBytes - in_page, length - done);
    if (const uint8_t* page = arena.find(region, (offset + done) / kPageBytes)) {
      if (pending != 0) {
        const Code code = source_.read(region, offset + done - pending, pending, into + done - pending);
        if (code != Code::ok) return code;
      }
      pending = 0;
      memcpy(into + done, page + in_page, part);
    } else {
      pending += part;
    }
    done += part;
  }
  return pending == 0 ? Code::ok : source_.read(region, offset + length - pending, pending, into + length - pending);
}

// `bytes` stay where they are: in the frame or in the staging.
Code Evaluation::write(uint16_t region, uint64_t offset, const uint8_t* bytes, uint64_t length) {
  if (length == 0) return Code::ok;
  staging_.images.push_back({offset, bytes, static_cast<uint32_t>(length), region});
  staging_.image_bytes += length;
  return read_later_ ? write_pages(region, offset, bytes, length) : Code::ok;
}

Code Evaluation::write_pages(uint16_t region, uint64_t offset, const uint8_t* bytes, uint64_t length) {
  Staging::Arena& arena = *staging_.arena_;
  for (uint64_t done = 0; done < length;) {
    const uint64_t number = (offset + done) / kPageBytes, in_page = (offset + done) % kPageBytes;
    const uint64_t part = std::min(kPageBytes - in_page, length - done);
    uint8_t* page = arena.find(region, number);
    if (page == nullptr) {
      page = arena.allocate(kPageBytes);
      const uint64_t there = std::min(kPageBytes, facts_[region].size - number * kPageBytes);
      if (part < there) {
        const Code code = source_.read(region, number * kPageBytes, there, page);
        if (code != Code::ok) return code;
      }
      arena.insert(region, number, page);
    }
    memcpy(page + in_page, bytes + done, part);
    done += part;
  }
  return Code::ok;
}

Code evaluate_batch(const Batch& batch, std::span<const RegionFacts> facts, const BatchLimits& limits,
                    ByteSource& source, Staging* staging) {
  return Evaluation(batch, facts, limits, source, staging).run();
}

}  // namespace holdfast
