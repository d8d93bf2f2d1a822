// batches.h - random batches for the crash rigs, and an oracle that knows what each does without asking the core.
//
// The oracle interprets operations itself, so a mistake of the core's evaluation shows
// up as a difference and not as agreement between two copies of the same code.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../../native/crc32c.h"
#include "../../native/format.h"
#include "../../native/frame.h"

namespace holdfast::rig {

[[noreturn]] inline void die(const char* what) {
  std::fprintf(stderr, "rig: %s\n", what);
  std::exit(2);
}

// splitmix64: one seed gives the same run everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 to bound - 1.
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  // from to to, both possible.
  uint64_t between(uint64_t from, uint64_t to) { return from + below(to - from + 1); }
  bool chance(unsigned percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

// One region as the oracle knows it.
struct Expected {
  std::string name;
  Durability durability = Durability::durable;
  std::vector<uint8_t> bytes;
  uint64_t generation = 0;
  bool exists = true;
  std::string labels = "{}";
  std::vector<std::vector<uint8_t>> snapshots = {};  // their bytes, by age
  bool sparse = false;                               // its blocks are reserved by the batches that need them
  bool operator==(const Expected&) const = default;
};
using World = std::vector<Expected>;

struct Op {
  FrameOp op{};
  std::vector<uint8_t> data;
};

inline uint64_t cell_bytes(ValueType type) {
  switch (type) {
    case ValueType::u8:
    case ValueType::i8:
      return 1;
    case ValueType::u16:
    case ValueType::i16:
      return 2;
    case ValueType::u32:
    case ValueType::i32:
    case ValueType::f32:
      return 4;
    default:
      return 8;
  }
}

// A range that an operation stores to, in op order.
struct Touched {
  uint32_t region;
  uint64_t offset;
  uint64_t length;
};

class RigBatch {
 public:
  std::vector<Op> guards, ops, else_ops;  // else_ops: in the place of ops when a guard does not hold
  Wait wait = Wait::region_mode;
  uint64_t key = 0;  // 0: none

  void write(uint32_t region, uint64_t offset, std::vector<uint8_t> bytes) {
    Op& op = add(OpKind::write, region, offset);
    op.data = std::move(bytes);
  }
  void fill(uint32_t region, uint64_t offset, uint64_t length, std::vector<uint8_t> pattern) {
    Op& op = add(OpKind::fill, region, offset);
    op.op.length = length;
    op.data = std::move(pattern);
  }
  void copy(uint32_t from_region, uint64_t from, uint32_t region, uint64_t to, uint64_t length) {
    Op& op = add(OpKind::copy, region, to);
    op.op.length = length;
    op.op.a = from;
    op.op.region2 = static_cast<uint16_t>(from_region);
  }
  // A one-cell operation: exchange, add (wrapping), bit_*, min, max. Of signed types the value is sign-extended.
  void cell(OpKind kind, uint32_t region, uint64_t offset, ValueType type, uint64_t value, bool big_endian = false) {
    Op& op = add(kind, region, offset);
    op.op.type = type;
    op.op.a = value;
    op.op.mode = kind == OpKind::add ? static_cast<uint8_t>(Overflow::wrap) : 0;
    op.op.flags = big_endian ? kOpBigEndian : 0;
  }
  // On a float; an addend is a double whatever the cell is.
  void add_float(uint32_t region, uint64_t offset, ValueType type, double value, bool big_endian) {
    cell(OpKind::add, region, offset, type, std::bit_cast<uint64_t>(value), big_endian);
  }
  // Of an unsigned type. `fail`: the batch must not be one that it refuses.
  void add(uint32_t region, uint64_t offset, ValueType type, uint64_t value, Overflow overflow) {
    cell(OpKind::add, region, offset, type, value);
    ops.back().op.mode = static_cast<uint8_t>(overflow);
  }
  // Holds while the cell, of an unsigned type, is `value`.
  void guard(uint32_t region, uint64_t offset, ValueType type, uint64_t value, bool big_endian) {
    cell(OpKind::guard_value, region, offset, type, value, big_endian);
    last_is_guard();
  }
  void guard_generation(uint32_t region, uint64_t generation) {
    add(OpKind::guard_generation, region, 0).op.a = generation;
    last_is_guard();
  }
  void guard_bytes(uint32_t region, uint64_t offset, std::vector<uint8_t> bytes) {
    add(OpKind::guard_bytes, region, offset).data = std::move(bytes);
    last_is_guard();
  }
  // Holds while the CRC-32C of the range is that of these bytes.
  void guard_digest(uint32_t region, uint64_t offset, const std::vector<uint8_t>& bytes) {
    Op& op = add(OpKind::guard_digest, region, offset);
    op.op.length = bytes.size();
    op.data = digest_of(bytes);
    last_is_guard();
    guards.back().op.mode = static_cast<uint8_t>(Algorithm::crc32c);
  }
  // Holds while the region exists, or never.
  void guard_exists(uint32_t region, bool negated) {
    add(OpKind::guard_etag, region, 0).op.flags = negated ? kOpNegate : 0;
    last_is_guard();
  }
  // Moves the operations so far to the other branch: those that follow are for guards that hold.
  void otherwise() { else_ops = std::exchange(ops, {}); }
  // `abort`: the cell must be as expected, else the batch is refused.
  void cas(uint32_t region, uint64_t offset, ValueType type, uint64_t expected, uint64_t value,
           OnMismatch on_mismatch = OnMismatch::proceed) {
    Op& op = add(OpKind::cas, region, offset);
    op.op.type = type;
    op.op.a = expected;
    op.op.b = value;
    op.op.mode = static_cast<uint8_t>(on_mismatch);
  }
  // Cells of a type in a row.
  void store(uint32_t region, uint64_t offset, ValueType type, std::vector<uint8_t> cells) {
    Op& op = add(OpKind::store, region, offset);
    op.op.type = type;
    op.data = std::move(cells);
  }
  // Changes nothing; its result is in the answer, and so in the outcome of a key.
  void read(uint32_t region, uint64_t offset, uint64_t length) {
    Op& op = add(OpKind::read, region, offset);
    op.op.length = length;
  }
  void load(uint32_t region, uint64_t offset, ValueType type, uint64_t count) {
    Op& op = add(OpKind::load, region, offset);
    op.op.type = type;
    op.op.length = count;
  }
  void append(uint32_t region, uint64_t cursor, std::vector<uint8_t> bytes, ValueType type = ValueType::u64) {
    Op& op = add(OpKind::append, region, cursor);
    op.op.type = type;
    op.data = std::move(bytes);
  }

  bool touches(uint32_t region) const {
    for (const Op& op : ops) {
      if (op.op.region == region) return true;
    }
    return false;
  }

  // The frame for the core. Op regions are indices into `world`; the frame names only those that occur.
  std::vector<uint8_t> frame(const World& world) const {
    std::vector<int> index(world.size(), -1);
    std::vector<uint32_t> used;
    const auto use = [&](uint32_t region) {
      if (index[region] < 0) {
        index[region] = static_cast<int>(used.size());
        used.push_back(region);
      }
      return static_cast<uint16_t>(index[region]);
    };
    std::vector<Op> renamed = guards;
    renamed.insert(renamed.end(), ops.begin(), ops.end());
    renamed.insert(renamed.end(), else_ops.begin(), else_ops.end());
    for (Op& op : renamed) {
      const bool copies = op.op.kind == OpKind::copy;
      op.op.region = use(op.op.region);
      op.op.region2 = copies ? use(op.op.region2) : 0;
    }
    std::vector<uint8_t> out;
    const auto put = [&](const void* bytes, size_t length) {
      const auto* from = static_cast<const uint8_t*>(bytes);
      out.insert(out.end(), from, from + length);
      out.resize((out.size() + 7) / 8 * 8);
    };
    FrameHeader header{};
    header.magic = kFrameMagic;
    header.version = kFrameVersion;
    header.wait = wait;
    header.region_count = static_cast<uint16_t>(used.size());
    header.guard_count = static_cast<uint16_t>(guards.size());
    header.op_count = static_cast<uint32_t>(ops.size());
    header.else_count = static_cast<uint32_t>(else_ops.size());
    if (key != 0) {
      header.flags |= kFrameHasKey;
      Random bytes(key);
      for (size_t i = 0; i < 16; i += 8) {
        const uint64_t a = bytes.next(), b = bytes.next();
        std::memcpy(header.key + i, &a, 8);
        std::memcpy(header.fingerprint + i, &b, 8);
      }
    }
    put(&header, sizeof header);
    for (const uint32_t region : used) {
      FrameRegion entry{};
      entry.name_bytes = static_cast<uint16_t>(world[region].name.size());
      std::memcpy(entry.name, world[region].name.data(), world[region].name.size());
      put(&entry, sizeof entry);
    }
    for (Op& op : renamed) {
      op.op.data_bytes = static_cast<uint32_t>(op.data.size());
      put(&op.op, sizeof op.op);
      put(op.data.data(), op.data.size());
    }
    reinterpret_cast<FrameHeader*>(out.data())->frame_bytes = out.size();
    return out;
  }

  // What the batch does to the world; also the ranges it stores to.
  void apply(World* world, std::vector<Touched>* touched = nullptr) const {
    std::vector<bool> wrote(world->size(), false);
    bool hold = true;
    for (const Op& guard : guards) hold = hold && holds(guard, (*world)[guard.op.region]);
    for (const Op& op : hold ? ops : else_ops) {
      std::vector<uint8_t>& bytes = (*world)[op.op.region].bytes;
      uint64_t at = op.op.offset;
      uint64_t length = 0;
      switch (op.op.kind) {
        case OpKind::read:
        case OpKind::load:
          continue;
        case OpKind::write:
        case OpKind::store:
          length = op.data.size();
          std::memcpy(&bytes[at], op.data.data(), length);
          break;
        case OpKind::fill:
          length = op.op.length;
          for (uint64_t i = 0; i < length; ++i) bytes[at + i] = op.data[i % op.data.size()];
          break;
        case OpKind::copy: {
          length = op.op.length;
          const std::vector<uint8_t>& source = (*world)[op.op.region2].bytes;
          const std::vector<uint8_t> taken(&source[op.op.a], &source[op.op.a] + length);
          std::memcpy(&bytes[at], taken.data(), length);
          break;
        }
        case OpKind::append: {
          length = cell_bytes(op.op.type);
          uint64_t cursor = load(bytes, op.op);
          std::memcpy(&bytes[cursor], op.data.data(), op.data.size());
          if (touched != nullptr) touched->push_back({op.op.region, cursor, op.data.size()});
          cursor += op.data.size();
          std::memcpy(&bytes[at], &cursor, length);
          break;
        }
        default: {
          length = cell_bytes(op.op.type);
          uint64_t value = compute(op.op, load(bytes, op.op));
          if (op.op.flags & kOpBigEndian) value = swapped(value, length);
          std::memcpy(&bytes[at], &value, length);
          break;
        }
      }
      wrote[op.op.region] = true;
      if (touched != nullptr) touched->push_back({op.op.region, at, length});
    }
    for (size_t i = 0; i < wrote.size(); ++i) {
      if (wrote[i]) ++(*world)[i].generation;
    }
  }

 private:
  static uint64_t swapped(uint64_t value, uint64_t bytes) { return __builtin_bswap64(value) >> (64 - 8 * bytes); }
  static uint64_t load(const std::vector<uint8_t>& bytes, const FrameOp& op) {
    uint64_t value = 0;
    std::memcpy(&value, &bytes[op.offset], cell_bytes(op.type));
    return op.flags & kOpBigEndian ? swapped(value, cell_bytes(op.type)) : value;
  }
  static uint64_t sign_extended(uint64_t value, uint64_t bytes) {
    const uint64_t shift = 64 - 8 * bytes;
    return static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
  }
  static bool is_signed(ValueType type) { return type >= ValueType::i8 && type <= ValueType::i64; }
  static std::vector<uint8_t> digest_of(const std::vector<uint8_t>& bytes) {
    const uint32_t crc = __builtin_bswap32(crc32c(0, bytes.data(), bytes.size()));
    std::vector<uint8_t> digest(sizeof crc);
    std::memcpy(digest.data(), &crc, sizeof crc);
    return digest;
  }
  static bool holds(const Op& guard, const Expected& region) {
    const FrameOp& op = guard.op;
    const auto range = [&](uint64_t length) {
      const auto from = region.bytes.begin() + static_cast<std::ptrdiff_t>(op.offset);
      return std::vector<uint8_t>(from, from + static_cast<std::ptrdiff_t>(length));
    };
    switch (op.kind) {
      case OpKind::guard_value:
        return load(region.bytes, op) == op.a;
      case OpKind::guard_generation:
        return region.generation == op.a;
      case OpKind::guard_bytes:
        return range(guard.data.size()) == guard.data;
      case OpKind::guard_digest:
        return digest_of(range(op.length)) == guard.data;
      case OpKind::guard_etag:
        return (op.flags & kOpNegate) == 0;
      default:
        die("the oracle does not know this guard");
    }
  }
  static uint64_t compute(const FrameOp& op, uint64_t old) {
    if (op.type == ValueType::f64 || op.type == ValueType::f32) {
      const bool narrow = op.type == ValueType::f32;
      const double was = narrow ? std::bit_cast<float>(static_cast<uint32_t>(old)) : std::bit_cast<double>(old);
      const double value = narrow && op.kind != OpKind::add ? std::bit_cast<float>(static_cast<uint32_t>(op.a))
                                                            : std::bit_cast<double>(op.a);
      double now = value;
      if (op.kind == OpKind::add) now = was + value;
      if (op.kind == OpKind::min) now = std::min(was, value);
      if (op.kind == OpKind::max) now = std::max(was, value);
      return narrow ? std::bit_cast<uint32_t>(static_cast<float>(now)) : std::bit_cast<uint64_t>(now);
    }
    const uint64_t bytes = cell_bytes(op.type);
    if (is_signed(op.type) && (op.kind == OpKind::min || op.kind == OpKind::max)) {
      const auto was = static_cast<int64_t>(sign_extended(old, bytes)), value = static_cast<int64_t>(op.a);
      return static_cast<uint64_t>(op.kind == OpKind::min ? std::min(was, value) : std::max(was, value));
    }
    const uint64_t most = UINT64_MAX >> (64 - 8 * bytes);
    if (op.kind == OpKind::add && static_cast<Overflow>(op.mode) == Overflow::saturate && op.a > most - old)
      return most;
    switch (op.kind) {
      case OpKind::exchange:
        return op.a;
      case OpKind::add:
        return old + op.a;
      case OpKind::bit_and:
        return old & op.a;
      case OpKind::bit_or:
        return old | op.a;
      case OpKind::bit_xor:
        return old ^ op.a;
      case OpKind::min:
        return old < op.a ? old : op.a;
      case OpKind::max:
        return old > op.a ? old : op.a;
      case OpKind::cas:
        return old == op.a ? op.b : old;
      default:
        die("the oracle does not know this operation");
    }
  }

  // The operation that was added last is one: it holds as it says, or the other branch is taken.
  void last_is_guard() {
    guards.push_back(std::move(ops.back()));
    ops.pop_back();
    guards.back().op.mode = static_cast<uint8_t>(Compare::eq);
  }

  Op& add(OpKind kind, uint32_t region, uint64_t offset) {
    Op op;
    op.op.kind = kind;
    op.op.region = static_cast<uint16_t>(region);
    op.op.offset = offset;
    ops.push_back(std::move(op));
    return ops.back();
  }
};

inline std::vector<uint8_t> random_bytes(Random& random, size_t length) {
  std::vector<uint8_t> bytes(length);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next() | 1);  // never 0: differs from a fresh region
  return bytes;
}

}  // namespace holdfast::rig
