// batch.cc - evaluating: what each op reads, answers and leaves as images.
#include "batch.h"

#include <string.h>

#include <algorithm>
#include <bit>

#include "batch_rules.h"
#include "batch_staging.h"
#include "cell.h"
#include "crc32c.h"
#include "failpoint.h"
#include "sha256.h"

namespace holdfast {

namespace {

// How much of a region is compared or digested at a time.
constexpr size_t kReadBytes = 16384;

}  // namespace

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
  Code write_pieces(uint16_t region, uint64_t offset, const uint8_t* bytes, uint64_t length);
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

bool inside(uint64_t size, uint64_t offset, uint64_t length) {
  if (HOLDFAST_MUTANT("length_not_bounded")) return offset <= size;
  return offset <= size && length <= size - offset;
}

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
  uint8_t found[kReadBytes];
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
  uint8_t bytes[kReadBytes], digest[kSha256Bytes];
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
  if (arena.pieces == 0) return source_.read(region, offset, length, into);
  // Neighbouring pieces that nothing was written to are read in one go.
  uint64_t pending = 0;
  for (uint64_t done = 0; done < length;) {
    const uint64_t in_piece = (offset + done) % kPieceBytes;
    const uint64_t part = std::min(kPieceBytes - in_piece, length - done);
    if (const uint8_t* piece = arena.find(region, (offset + done) / kPieceBytes)) {
      if (pending != 0) {
        const Code code = source_.read(region, offset + done - pending, pending, into + done - pending);
        if (code != Code::ok) return code;
      }
      pending = 0;
      memcpy(into + done, piece + in_piece, part);
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
  return read_later_ ? write_pieces(region, offset, bytes, length) : Code::ok;
}

Code Evaluation::write_pieces(uint16_t region, uint64_t offset, const uint8_t* bytes, uint64_t length) {
  Staging::Arena& arena = *staging_.arena_;
  for (uint64_t done = 0; done < length;) {
    const uint64_t number = (offset + done) / kPieceBytes, in_piece = (offset + done) % kPieceBytes;
    const uint64_t part = std::min(kPieceBytes - in_piece, length - done);
    uint8_t* piece = arena.find(region, number);
    if (piece == nullptr) {
      piece = arena.allocate(kPieceBytes);
      const uint64_t there = std::min(kPieceBytes, facts_[region].size - number * kPieceBytes);
      if (part < there) {
        const Code code = source_.read(region, number * kPieceBytes, there, piece);
        if (code != Code::ok) return code;
      }
      arena.insert(region, number, piece);
    }
    memcpy(piece + in_piece, bytes + done, part);
    done += part;
  }
  return Code::ok;
}

Code evaluate_batch(const Batch& batch, std::span<const RegionFacts> facts, const BatchLimits& limits,
                    ByteSource& source, Staging* staging) {
  return Evaluation(batch, facts, limits, source, staging).run();
}

}  // namespace holdfast
