// batch_test.cc - decoding frames, evaluating them, and random batches against a model that does the same the slow way.
#include "../../native/batch.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>

#include "../../native/crc32c.h"
#include "../../native/sha256.h"
#include "check.h"
#include "frames.h"

using namespace holdfast;
using namespace holdfast::frames;

// Every allocation of this program, for the promise that a hot path makes none.
// (Not inlined: the compiler would pair this malloc with a delete and find them mismatched.)
static uint64_t allocations = 0;
__attribute__((noinline)) void* operator new(size_t bytes) {
  ++allocations;
  void* at = malloc(bytes == 0 ? 1 : bytes);
  if (at == nullptr) abort();
  return at;
}
__attribute__((noinline)) void operator delete(void* at) noexcept { free(at); }
__attribute__((noinline)) void operator delete(void* at, size_t) noexcept { free(at); }

namespace {

// A frame through decode and evaluate. What it points into lives as long as it does.
struct Run {
  std::vector<uint8_t> frame;
  Batch batch;
  Staging staging;
  Code code = Code::ok;

  Run(const FrameParts& parts, MemorySource* source, const BatchLimits& limits = {})
      : Run(parts, source, limits, source->facts()) {}
  Run(const FrameParts& parts, MemorySource* source, const BatchLimits& limits, const std::vector<RegionFacts>& facts)
      : frame(make_frame(parts)) {
    uint64_t limit, actual;
    code = decode_batch(frame, limits, &batch, &limit, &actual);
    if (!CHECK_EQ(code, Code::ok)) return;
    code = evaluate_batch(batch, facts, limits, *source, &staging);
    CHECK(!source->strayed);
    const bool committed = code == Code::ok;
    CHECK_EQ(staging.branch == Branch::none, !committed);
    if (committed) {
      CHECK(staging.failures.empty());
      CHECK_EQ(staging.results.size(), (staging.branch == Branch::ops ? batch.ops : batch.else_ops).size());
    } else {
      CHECK(staging.images.empty() && staging.results.empty() && staging.result_data.empty() &&
            staging.image_bytes == 0);
      CHECK_EQ(staging.failures.empty(), code == Code::batch_too_large);
    }
  }

  const AnswerResult& result(size_t index = 0) const { return staging.results.at(index); }
  const AnswerFailure& failure(size_t index = 0) const { return staging.failures.at(index); }
  std::string data(size_t index = 0) const {
    size_t at = 0;
    for (size_t before = 0; before < index; ++before) at += (staging.results[before].data_bytes + 7) & ~size_t{7};
    return {staging.result_data.begin() + static_cast<ptrdiff_t>(at),
            staging.result_data.begin() + static_cast<ptrdiff_t>(at + staging.results[index].data_bytes)};
  }
};

bool failed_with(const AnswerFailure& failure, Section section, uint32_t index, Code code, Field field, uint64_t limit,
                 uint64_t actual) {
  const bool same = CHECK_EQ(failure.section, section) & CHECK_EQ(failure.index, index) &
                    CHECK_EQ(failure.code, static_cast<uint16_t>(code)) & CHECK_EQ(failure.field, field) &
                    CHECK_EQ(failure.limit, limit) & CHECK_EQ(failure.actual, actual);
  return same;
}

constexpr ValueType kAllTypes[] = {ValueType::u8,  ValueType::u16, ValueType::u32, ValueType::u64, ValueType::i8,
                                   ValueType::i16, ValueType::i32, ValueType::i64, ValueType::f32, ValueType::f64};
size_t bytes_of(ValueType type) {
  static const size_t bytes[] = {1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
  return bytes[static_cast<size_t>(type)];
}
bool is_signed(ValueType type) { return type >= ValueType::i8 && type <= ValueType::i64; }
uint64_t most(ValueType type) { return ~uint64_t{0} >> (64 - 8 * bytes_of(type) + is_signed(type)); }
uint64_t least(ValueType type) { return is_signed(type) ? ~most(type) : 0; }

void put(std::vector<uint8_t>* region, size_t at, uint64_t bits, size_t bytes, bool big_endian = false) {
  for (size_t i = 0; i < bytes; ++i) {
    (*region)[at + (big_endian ? bytes - 1 - i : i)] = static_cast<uint8_t>(bits >> (8 * i));
  }
}
uint64_t take(const std::vector<uint8_t>& region, size_t at, size_t bytes, bool big_endian = false) {
  uint64_t bits = 0;
  for (size_t i = 0; i < bytes; ++i) {
    bits |= uint64_t{region[at + (big_endian ? bytes - 1 - i : i)]} << (8 * i);
  }
  return bits;
}

uint64_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
uint64_t bits_of(double value) { return std::bit_cast<uint64_t>(value); }
constexpr float kFloatMax = std::numeric_limits<float>::max();
constexpr double kDoubleMax = std::numeric_limits<double>::max();

// ---- decoding ------------------------------------------------------------------------------------------------------

FrameParts rich_parts() {
  FrameParts parts;
  parts.regions = {"demo", "a.b_c-d"};
  parts.guards = {generation_guard(Compare::ge, 1), value_guard(8, ValueType::i16, Compare::ne, 5).big(),
                  bytes_guard(3, std::string_view("\0\0\0", 3)), etag_guard({7, 3, 41, 1, 1, 1})};
  parts.ops = {write_op(5, "hello"), read_op(0, 16), copy_op(1, 2, 3, 1), cas_op(8, ValueType::u32, 0, 1),
               append_op(64, ValueType::u64, "tail")};
  parts.else_ops = {load_op(16, ValueType::f64, 2)};
  return parts;
}

Code decode(std::span<const uint8_t> frame, uint64_t* actual = nullptr, uint64_t* limit = nullptr,
            const BatchLimits& limits = {}) {
  Batch batch;
  uint64_t ignored_limit, ignored_actual;
  return decode_batch(frame, limits, &batch, limit ? limit : &ignored_limit, actual ? actual : &ignored_actual);
}

void test_decoding() {
  check::test("decode: names", [] {
    for (const char* good : {"a", "0", "ab", "a.b", "a-b_c.d", "a--b",
                             "0123456789012345678901234567890123456789012345678901234567890123"}) {
      check::context = good;
      CHECK(region_name_valid(good));
    }
    for (const char* bad : {"", ".", "..", "a.", ".a", "-a", "a-", "_a", "a..b", "A", "a/b", "a b", "\xc3\xa4",
                            "01234567890123456789012345678901234567890123456789012345678901234"}) {
      check::context = bad;
      CHECK(!region_name_valid(bad));
    }
    CHECK(!region_name_valid(std::string_view("a\0b", 3)));
  });

  check::test("decode: a frame is the same at any address", [] {
    const std::vector<uint8_t> frame = make_frame(rich_parts());
    std::vector<uint8_t> space(frame.size() + 16);
    for (size_t at = 0; at < 16; ++at) {
      memcpy(space.data() + at, frame.data(), frame.size());
      Batch batch;
      uint64_t limit, actual;
      if (!CHECK_EQ(decode_batch({space.data() + at, frame.size()}, {}, &batch, &limit, &actual), Code::ok)) return;
      CHECK(batch.regions == (std::vector<std::string_view>{"demo", "a.b_c-d"}));
      CHECK_EQ(batch.guards.size(), 4u);
      CHECK_EQ(batch.ops.size(), 5u);
      CHECK_EQ(batch.else_ops.size(), 1u);
      CHECK_EQ(batch.ops[0].op.kind, OpKind::write);
      CHECK(memcmp(batch.ops[0].data, "hello", 5) == 0);
      CHECK_EQ(batch.ops[2].op.region2, 1);
      CHECK(memcmp(batch.ops[4].data, "tail", 4) == 0);
      CHECK(batch.reads && !batch.slow);
    }
  });

  check::test("decode: reads and slow are what the batch needs", [] {
    const auto flags_of = [](FrameParts parts) {
      const std::vector<uint8_t> frame = make_frame(parts);
      Batch batch;
      uint64_t limit, actual;
      CHECK_EQ(decode_batch(frame, {}, &batch, &limit, &actual), Code::ok);
      return (batch.reads ? 1 : 0) + (batch.slow ? 2 : 0);
    };
    CHECK_EQ(flags_of({.guards = {generation_guard(Compare::eq, 1), etag_guard({})},
                       .ops = {write_op(0, "x"), fill_op(0, 9, "y")}}),
             0);
    CHECK_EQ(flags_of({.ops = {add_op(0, ValueType::u8, 1)}}), 1);
    CHECK_EQ(flags_of({.guards = {bytes_guard(0, "x")}}), 1);
    CHECK_EQ(flags_of({.ops = {write_op(0, "x")}, .else_ops = {read_op(0, 1)}}), 1);
    CHECK_EQ(flags_of({.guards = {digest_guard(0, 1, Algorithm::crc32c, {1, 2, 3, 4})}}), 3);
  });

  check::test("decode: a frame cut anywhere, or longer than it says, is malformed", [] {
    std::vector<uint8_t> frame = make_frame(rich_parts());
    for (size_t length = 0; length < frame.size(); ++length) {
      check::context = "length " + std::to_string(length);
      // Exactly as many bytes as are looked at: the sanitizer sees one too many.
      const std::vector<uint8_t> cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length));
      CHECK_EQ(decode(cut), Code::malformed_batch);
      std::vector<uint8_t> claims = cut;
      if (length < sizeof(FrameHeader)) continue;
      const uint64_t bytes = length;
      memcpy(claims.data() + offsetof(FrameHeader, frame_bytes), &bytes, 8);
      CHECK_EQ(decode(claims), Code::malformed_batch);
    }
    frame.resize(frame.size() + 8);
    CHECK_EQ(decode(frame), Code::malformed_batch);
    const uint64_t bytes = frame.size();
    memcpy(frame.data() + offsetof(FrameHeader, frame_bytes), &bytes, 8);
    uint64_t actual;
    CHECK_EQ(decode(frame, &actual), Code::malformed_batch);
    CHECK_EQ(actual, bytes - 8);
  });

  check::test("decode: counts are held to the limits before they are believed", [] {
    uint64_t limit, actual;
    const auto counted = [&](size_t field, uint32_t count, size_t bytes) {
      std::vector<uint8_t> frame = make_frame({.ops = {write_op(0, "x")}});
      memcpy(frame.data() + field, &count, bytes);
      return decode(frame, &actual, &limit);
    };
    CHECK_EQ(counted(offsetof(FrameHeader, op_count), 4097, 4), Code::too_many_ops);
    CHECK(limit == 4096 && actual == 4097);
    CHECK_EQ(counted(offsetof(FrameHeader, else_count), UINT32_MAX, 4), Code::too_many_ops);
    CHECK(limit == 4096 && actual == UINT32_MAX);
    CHECK_EQ(counted(offsetof(FrameHeader, guard_count), 257, 2), Code::too_many_ops);
    CHECK(limit == 256 && actual == 257);
    CHECK_EQ(counted(offsetof(FrameHeader, region_count), 65, 2), Code::too_many_ops);
    CHECK(limit == 64 && actual == 65);
    CHECK_EQ(counted(offsetof(FrameHeader, op_count), 4096, 4), Code::malformed_batch);
    CHECK_EQ(counted(offsetof(FrameHeader, region_count), 0, 2), Code::malformed_batch);
    BatchLimits huge;
    huge.ops_max = UINT32_MAX;
    std::vector<uint8_t> frame = make_frame({.ops = {write_op(0, "x")}});
    memset(frame.data() + offsetof(FrameHeader, op_count), 0xff, 4);
    CHECK_EQ(decode(frame, &actual, &limit, huge), Code::malformed_batch);
  });

  check::test("decode: header fields, reserved bytes and padding", [] {
    const auto broken = [](size_t at, uint8_t to) {
      std::vector<uint8_t> frame = make_frame({.ops = {write_op(0, "hello")}});
      frame[at] = to;
      return decode(frame) == Code::malformed_batch;
    };
    CHECK(broken(offsetof(FrameHeader, magic), 0));
    CHECK(broken(offsetof(FrameHeader, version), 2));
    CHECK(broken(offsetof(FrameHeader, flags), 4));
    CHECK(broken(offsetof(FrameHeader, wait), 4));
    CHECK(!broken(offsetof(FrameHeader, wait), 3));
    for (size_t i = 0; i < 3; ++i) CHECK(broken(offsetof(FrameHeader, reserved) + i, 1));
    CHECK(broken(offsetof(FrameHeader, key) + 15, 1));
    CHECK(broken(offsetof(FrameHeader, fingerprint), 1));
    const size_t region = sizeof(FrameHeader), op = region + sizeof(FrameRegion);
    CHECK(broken(region + offsetof(FrameRegion, name_bytes), 3));
    CHECK(broken(region + offsetof(FrameRegion, name_bytes), 65));
    CHECK(broken(region + offsetof(FrameRegion, reserved) + 5, 1));
    CHECK(broken(region + offsetof(FrameRegion, name), 'D'));
    CHECK(broken(region + offsetof(FrameRegion, name) + 63, 'x'));
    CHECK(broken(op + offsetof(FrameOp, reserved), 1));
    CHECK(broken(op + sizeof(FrameOp) + 5, 1));
    CHECK(broken(op + sizeof(FrameOp) + 7, 1));
    CHECK(!broken(op + sizeof(FrameOp) + 4, 1));
    std::vector<uint8_t> frame = make_frame({.ops = {}, .flags = kFrameHasKey | kFrameDryRun, .wait = Wait::durable});
    frame[offsetof(FrameHeader, key)] = 1;
    CHECK_EQ(decode(frame), Code::ok);
    CHECK_EQ(decode(make_frame({.regions = {"a", "b", "a"}})), Code::malformed_batch);
  });

  check::test("decode: fields that a kind has no use for are zero, the others are in range", [] {
    const auto malformed = [](Op op, bool as_guard = false) {
      FrameParts parts;
      (as_guard ? parts.guards : parts.ops) = {std::move(op)};
      return decode(make_frame(parts)) == Code::malformed_batch;
    };
    const auto with = [](Op op, auto change) {
      change(op.op);
      return op;
    };
    const Op samples[] = {read_op(1, 2),
                          write_op(0, "x"),
                          fill_op(0, 1, "x"),
                          copy_op(0, 1, 1),
                          load_op(0, ValueType::u16),
                          store_op(0, ValueType::u8, {1}),
                          modify_op(OpKind::exchange, 0, ValueType::u8, 1),
                          add_op(0, ValueType::u8, 1),
                          modify_op(OpKind::bit_xor, 0, ValueType::u8, 1),
                          modify_op(OpKind::max, 0, ValueType::u8, 1),
                          cas_op(0, ValueType::u8, 0, 1),
                          append_op(0, ValueType::u8, "x"),
                          generation_guard(Compare::eq, 1),
                          value_guard(0, ValueType::u8, Compare::eq, 1),
                          bytes_guard(0, "x"),
                          digest_guard(0, 1, Algorithm::sha256, std::vector<uint8_t>(32)),
                          etag_guard({1, 2, 3})};
    for (const Op& op : samples) {
      check::context = "kind " + std::to_string(static_cast<int>(op.op.kind));
      const bool guard = op.op.kind <= OpKind::guard_etag;
      CHECK(!malformed(op));
      CHECK_EQ(malformed(op, true), !guard);
      CHECK(malformed(with(op, [](FrameOp& o) { o.region = 1; })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.region2 = 1; })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.type = static_cast<ValueType>(10); })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.mode = 6; })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.flags = 16; })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.flags = kOpCondition; })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.kind = static_cast<OpKind>(31); })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.kind = static_cast<OpKind>(0); })));
      CHECK(malformed(with(op, [](FrameOp& o) { o.kind = static_cast<OpKind>(255); })));
    }
    check::context.clear();
    CHECK(malformed(with(read_op(1, 2), [](FrameOp& o) { o.a = 1; })));
    CHECK(malformed(with(read_op(1, 2), [](FrameOp& o) { o.b = 1; })));
    CHECK(malformed(with(read_op(1, 2), [](FrameOp& o) { o.type = ValueType::u16; })));
    CHECK(malformed(with_data(read_op(1, 2), {1})));
    CHECK(malformed(with(write_op(1, "x"), [](FrameOp& o) { o.length = 1; })));
    CHECK(malformed(with(generation_guard(Compare::eq, 1), [](FrameOp& o) { o.offset = 1; }), true));
    CHECK(malformed(with(add_op(0, ValueType::u8, 1), [](FrameOp& o) { o.mode = 3; })));
    CHECK(malformed(with(cas_op(0, ValueType::u8, 0, 1), [](FrameOp& o) { o.mode = 2; })));
    CHECK(malformed(modify_op(OpKind::min, 0, ValueType::u8, 1).flags(kOpNegative)));
    CHECK(malformed(store_op(0, ValueType::u32, {1, 2, 3})));
    CHECK(malformed(etag_guard({1, 2}), true));
    CHECK(!malformed(etag_guard({1, 2, 3}).flags(kOpNegate | kOpCondition), true));
    CHECK(!malformed(generation_guard(Compare::ne, 3).flags(kOpCondition), true));
  });

  check::test("decode: mangled frames are refused or evaluated, never more", [] {
    std::mt19937_64 random(31);
    const std::vector<uint8_t> good = make_frame(rich_parts());
    MemorySource source(2, 5000);
    const std::vector<RegionFacts> facts = source.facts();
    std::vector<uint8_t> frame;
    Batch batch;
    Staging staging;
    uint64_t limit, actual;
    int accepted = 0;
    BatchLimits limits;
    limits.batch_bytes_max = 1 << 16;
    for (int round = 0; round < 300000; ++round) {
      frame = good;
      for (int changes = 1 + static_cast<int>(random() % 3); changes > 0; --changes) {
        uint8_t& byte = frame[random() % frame.size()];
        byte = static_cast<uint8_t>(random() % 2 ? byte ^ 1 << random() % 8 : random() % 40);
      }
      if (decode_batch(frame, limits, &batch, &limit, &actual) != Code::ok) continue;
      ++accepted;
      evaluate_batch(batch, facts, limits, source, &staging);
    }
    printf("# %d accepted\n", accepted);
    CHECK(accepted > 1000);
    CHECK(!source.strayed);
  });
}

// ---- evaluating ----------------------------------------------------------------------------------------------------

void test_writing() {
  check::test("write: images point into the frame, in order, and nothing is read", [] {
    MemorySource source;
    Run run(
        {.ops = {write_op(5, "hello"), write_op(5, ""), write_op(8, "LO"), fill_op(100, 7, "abc"), fill_op(9, 0, "z")}},
        &source);
    CHECK_EQ(run.code, Code::ok);
    CHECK_EQ(source.reads, 0);
    if (!CHECK_EQ(run.staging.images.size(), 3u)) return;
    CHECK_EQ(run.staging.image_bytes, 14u);
    CHECK(run.staging.images[0].bytes >= run.frame.data() &&
          run.staging.images[0].bytes < run.frame.data() + run.frame.size());
    source.apply(run.staging);
    CHECK(memcmp(&source[0][5], "helLO", 5) == 0);
    CHECK(memcmp(&source[0][100], "abcabca\0", 8) == 0);
    CHECK_EQ(run.result(0).a, 5u);
    CHECK_EQ(run.result(1).a, 0u);
    CHECK_EQ(run.result(3).a, 7u);
    CHECK_EQ(run.result(3).kind, OpKind::fill);
  });

  check::test("fill: patterns of every length to many lengths", [] {
    MemorySource source;
    std::mt19937 random(3);
    for (size_t pattern : {1u, 2u, 3u, 7u, 8u, 100u, 4095u, 4096u}) {
      std::string text(pattern, 0);
      for (char& c : text) c = static_cast<char>(random());
      for (size_t length : {size_t{1}, pattern - 1, pattern, pattern + 1, 3 * pattern + 2, size_t{16000}}) {
        check::context = std::to_string(pattern) + " to " + std::to_string(length);
        Run run({.ops = {fill_op(17, length, text)}}, &source);
        source.apply(run.staging);
        bool same = true;
        for (size_t i = 0; i < length; ++i) same &= source[0][17 + i] == static_cast<uint8_t>(text[i % pattern]);
        CHECK(same);
      }
    }
  });

  check::test("write: a batch that only writes allocates nothing once it has run", [] {
    MemorySource source;
    const std::vector<RegionFacts> facts = source.facts();
    const std::vector<uint8_t> frame = make_frame({.guards = {generation_guard(Compare::eq, 41)},
                                                   .ops = {write_op(64, std::string(64, 'x')), write_op(4096, "y")}});
    Batch batch;
    Staging staging;
    uint64_t limit, actual, before = 0;
    for (int round = 0; round < 100; ++round) {
      if (round == 2) before = allocations;
      CHECK_EQ(decode_batch(frame, {}, &batch, &limit, &actual), Code::ok);
      CHECK_EQ(evaluate_batch(batch, facts, {}, source, &staging), Code::ok);
    }
    const uint64_t after = allocations;
    CHECK_EQ(after - before, 0u);
    CHECK_EQ(source.reads, 0);
  });

  check::test("read-modify-write: allocates nothing either once it has run, and a single one reads its cell only", [] {
    MemorySource source;
    const std::vector<RegionFacts> facts = source.facts();
    const std::vector<uint8_t> one = make_frame({.ops = {add_op(8, ValueType::u64, 1)}});
    const std::vector<uint8_t> many =
        make_frame({.ops = {add_op(8, ValueType::u64, 1), add_op(4096, ValueType::u32, 1), read_op(0, 64)}});
    Batch batch;
    Staging staging;
    uint64_t limit, actual, before = 0;
    for (int round = 0; round < 100; ++round) {
      if (round == 2) before = allocations;
      for (const auto* frame : {&one, &many}) {
        source.reads = 0;
        CHECK_EQ(decode_batch(*frame, {}, &batch, &limit, &actual), Code::ok);
        CHECK_EQ(evaluate_batch(batch, facts, {}, source, &staging), Code::ok);
        if (frame == &one) CHECK_EQ(source.reads, 1);
      }
    }
    const uint64_t after = allocations;
    CHECK_EQ(after - before, 0u);
  });
}

void test_refusals() {
  check::test("bounds: every kind, at the edges and where 64 bits would wrap", [] {
    MemorySource source(2, 100);
    put(&source[0], 0, 0, 8);
    constexpr uint64_t kHuge = UINT64_MAX;
    const auto code_of = [&](Op op) { return Run({.regions = {"a", "b"}, .ops = {std::move(op)}}, &source).code; };
    const auto field_of = [&](Op op) {
      Run run({.regions = {"a", "b"}, .ops = {std::move(op)}}, &source);
      CHECK_EQ(run.code, Code::out_of_bounds);
      CHECK_EQ(run.failure().limit, 100u);
      return run.failure().field;
    };
    for (Op good :
         {read_op(0, 100), read_op(100, 0), read_op(99, 1), write_op(95, "hello"), write_op(100, ""),
          fill_op(100, 0, "x"), copy_op(100, 0, 0), copy_op(0, 100, 0), copy_op(90, 0, 10), load_op(92, ValueType::u64),
          load_op(100, ValueType::u64, 0), load_op(4, ValueType::u64, 12), store_op(96, ValueType::u32, {1, 2, 3, 4}),
          add_op(96, ValueType::u32, 1), append_op(0, ValueType::u8, std::string(100, 'x')), bytes_guard(100, ""),
          value_guard(93, ValueType::u32, Compare::eq, 0)}) {
      check::context = "kind " + std::to_string(static_cast<int>(good.op.kind));
      CHECK_EQ(code_of(good), Code::ok);
    }
    check::context.clear();
    CHECK_EQ(field_of(read_op(0, 101)), Field::length);
    CHECK_EQ(field_of(read_op(101, 0)), Field::offset);
    CHECK_EQ(field_of(read_op(kHuge, 1)), Field::offset);
    CHECK_EQ(field_of(read_op(kHuge, kHuge)), Field::offset);
    CHECK_EQ(field_of(read_op(1, kHuge)), Field::length);
    CHECK_EQ(field_of(write_op(96, "hello")), Field::data);
    CHECK_EQ(field_of(write_op(kHuge - 1, "hello")), Field::offset);
    CHECK_EQ(field_of(fill_op(50, kHuge - 49, "x")), Field::length);
    CHECK_EQ(field_of(copy_op(0, 91, 10)), Field::length);
    CHECK_EQ(field_of(copy_op(91, 0, 10)), Field::from);
    CHECK_EQ(field_of(copy_op(kHuge - 3, 0, 10)), Field::from);
    CHECK_EQ(field_of(load_op(93, ValueType::u64)), Field::count);
    CHECK_EQ(field_of(load_op(0, ValueType::u64, uint64_t{1} << 61)), Field::count);
    CHECK_EQ(field_of(load_op(8, ValueType::u16, (uint64_t{1} << 63) + 1)), Field::count);
    CHECK_EQ(field_of(store_op(99, ValueType::u16, {1, 2})), Field::data);
    CHECK_EQ(field_of(add_op(100, ValueType::u8, 1)), Field::offset);
    CHECK_EQ(field_of(add_op(kHuge - 7, ValueType::u64, 1)), Field::offset);
    CHECK_EQ(field_of(cas_op(96, ValueType::u64, 0, 1)), Field::offset);
    CHECK_EQ(field_of(bytes_guard(97, "four")), Field::equals);
    CHECK_EQ(field_of(value_guard(97, ValueType::u32, Compare::eq, 0)), Field::offset);
    CHECK_EQ(field_of(digest_guard(0, 101, Algorithm::crc32c, {1, 2, 3, 4})), Field::length);
    Run run({.ops = {read_op(kHuge, kHuge)}}, &source);
    failed_with(run.failure(), Section::ops, 0, Code::out_of_bounds, Field::offset, 100, kHuge);
  });

  check::test("refusals: every bad op of every section is listed once, the code is the first one's", [] {
    MemorySource source(2, 64);
    std::vector<RegionFacts> facts = source.facts();
    facts[1].read_only = true;
    Run run({.regions = {"a", "b"},
             .guards = {generation_guard(Compare::eq, 0), value_guard(0, ValueType::u8, Compare::eq, 256)},
             .ops = {write_op(0, "fine"), add_op(1, ValueType::u32, 1), read_op(60, 5), write_op(0, "x").in(1),
                     read_op(0, 4).in(1)},
             .else_ops = {modify_op(OpKind::bit_or, 0, ValueType::f32, 0), fill_op(0, 4, ""),
                          fill_op(0, 4, std::string(4097, 'x'))}},
            &source, {}, facts);
    CHECK_EQ(run.code, Code::value_out_of_range);
    if (!CHECK_EQ(run.staging.failures.size(), 7u)) return;
    failed_with(run.failure(0), Section::guards, 1, Code::value_out_of_range, Field::value, 255, 256);
    failed_with(run.failure(1), Section::ops, 1, Code::misaligned, Field::offset, 4, 1);
    failed_with(run.failure(2), Section::ops, 2, Code::out_of_bounds, Field::length, 64, 65);
    failed_with(run.failure(3), Section::ops, 3, Code::region_read_only, Field::region, 0, 0);
    failed_with(run.failure(4), Section::else_ops, 0, Code::validation_failed, Field::type, 0, 0);
    failed_with(run.failure(5), Section::else_ops, 1, Code::validation_failed, Field::pattern, 4096, 0);
    failed_with(run.failure(6), Section::else_ops, 2, Code::validation_failed, Field::pattern, 4096, 4097);
    CHECK_EQ(source.reads, 0);
  });

  check::test("refusals: only read-modify-write wants alignment", [] {
    MemorySource source;
    for (ValueType type : kAllTypes) {
      check::context = "type " + std::to_string(static_cast<int>(type));
      const size_t bytes = bytes_of(type);
      for (uint64_t offset = 0; offset < 8; ++offset) {
        const Code wanted = offset % bytes == 0 ? Code::ok : Code::misaligned;
        CHECK_EQ(Run({.ops = {modify_op(OpKind::exchange, offset, type, 1)}}, &source).code, wanted);
        CHECK_EQ(Run({.ops = {modify_op(OpKind::min, offset, type, 1)}}, &source).code, wanted);
        CHECK_EQ(Run({.ops = {cas_op(offset, type, 1, 1, OnMismatch::proceed)}}, &source).code, wanted);
        CHECK_EQ(Run({.ops = {add_op(offset, type, 0)}}, &source).code, wanted);
        CHECK_EQ(Run({.ops = {load_op(offset, type)}}, &source).code, Code::ok);
        CHECK_EQ(Run({.ops = {store_op(offset, type, std::vector<uint8_t>(bytes))}}, &source).code, Code::ok);
        CHECK_EQ(Run({.guards = {value_guard(offset, type, Compare::eq, 0)}}, &source).code, Code::ok);
        if (type <= ValueType::u64) CHECK_EQ(Run({.ops = {append_op(offset, type, "x")}}, &source).code, wanted);
      }
    }
  });

  check::test("refusals: types that a kind can't have, lengths of a digest", [] {
    MemorySource source;
    for (ValueType type : kAllTypes) {
      check::context = "type " + std::to_string(static_cast<int>(type));
      const bool is_float = type >= ValueType::f32;
      for (OpKind kind : {OpKind::bit_and, OpKind::bit_or, OpKind::bit_xor}) {
        CHECK_EQ(Run({.ops = {modify_op(kind, 0, type, 0)}}, &source).code,
                 is_float ? Code::validation_failed : Code::ok);
      }
      CHECK_EQ(Run({.ops = {append_op(0, type, "")}}, &source).code,
               type <= ValueType::u64 ? Code::ok : Code::validation_failed);
    }
    check::context.clear();
    CHECK_EQ(Run({.guards = {digest_guard(0, 1, Algorithm::sha256, {1, 2, 3, 4})}}, &source).code,
             Code::validation_failed);
    CHECK_EQ(Run({.guards = {digest_guard(0, 1, Algorithm::crc32c, std::vector<uint8_t>(32))}}, &source).code,
             Code::validation_failed);
  });

  check::test("refusals: a value is the extended bits of its type", [] {
    MemorySource source;
    for (ValueType type : kAllTypes) {
      check::context = "type " + std::to_string(static_cast<int>(type));
      const auto code_of = [&](uint64_t bits) {
        return Run({.ops = {modify_op(OpKind::exchange, 0, type, bits)}}, &source).code;
      };
      CHECK_EQ(code_of(most(type)), Code::ok);
      CHECK_EQ(code_of(least(type)), Code::ok);
      if (bytes_of(type) == 8) continue;
      CHECK_EQ(code_of(most(type) + 1), Code::value_out_of_range);
      CHECK_EQ(code_of(least(type) - 1), Code::value_out_of_range);
      CHECK_EQ(Run({.ops = {cas_op(0, type, most(type) + 1, 0)}}, &source).code, Code::value_out_of_range);
      CHECK_EQ(Run({.ops = {cas_op(0, type, 0, most(type) + 1)}}, &source).code, Code::value_out_of_range);
    }
  });

  check::test("refusals: read-only regions can be read, copied from, guarded", [] {
    MemorySource source(2);
    std::vector<RegionFacts> facts = source.facts();
    facts[0].read_only = true;
    const auto code_of = [&](Op op) {
      return Run({.regions = {"a", "b"}, .ops = {std::move(op)}}, &source, {}, facts).code;
    };
    Op copy_out = copy_op(0, 8, 8);
    copy_out.op.region = 1;
    CHECK_EQ(code_of(copy_out), Code::ok);
    CHECK_EQ(code_of(copy_op(0, 8, 8, 1)), Code::region_read_only);
    CHECK_EQ(code_of(read_op(0, 8)), Code::ok);
    CHECK_EQ(code_of(load_op(0, ValueType::u8)), Code::ok);
    CHECK_EQ(code_of(bytes_guard(0, "")), Code::ok);
    for (Op op : {write_op(0, ""), fill_op(0, 1, "x"), store_op(0, ValueType::u8, {1}), add_op(0, ValueType::u8, 1),
                  cas_op(0, ValueType::u8, 1, 1, OnMismatch::proceed), append_op(0, ValueType::u8, "x")}) {
      CHECK_EQ(code_of(op), Code::region_read_only);
    }
  });

  check::test("refusals: a region that doesn't exist", [] {
    MemorySource source(2);
    std::vector<RegionFacts> facts = source.facts();
    facts[1] = {};
    Run run({.regions = {"a", "b"},
             .guards = {etag_guard({}).in(1).flags(kOpNegate)},
             .ops = {copy_op(0, 0, 1, 1), read_op(0, 1).in(1)}},
            &source, {}, facts);
    CHECK_EQ(run.code, Code::region_not_found);
    if (!CHECK_EQ(run.staging.failures.size(), 2u)) return;
    CHECK_EQ(run.failure(0).field, Field::from);
    CHECK_EQ(run.failure(1).field, Field::region);
  });

  check::test("too large: what a branch could write, answer or digest, whichever branch would run", [] {
    MemorySource source(1, 4096);
    BatchLimits limits;
    limits.batch_bytes_max = 1000;
    const auto refused = [&](const FrameParts& parts, uint64_t actual) {
      Run run(parts, &source, limits);
      return CHECK_EQ(run.code, Code::batch_too_large) && CHECK_EQ(run.staging.limit, 1000u) &&
             CHECK_EQ(run.staging.actual, actual);
    };
    CHECK_EQ(Run({.ops = {fill_op(0, 992, "x"), add_op(0, ValueType::u64, 1)}}, &source, limits).code, Code::ok);
    CHECK_EQ(
        Run({.ops = {fill_op(0, 1000, "x"), read_op(0, 1000)}, .else_ops = {fill_op(0, 1000, "x")}}, &source, limits)
            .code,
        Code::ok);
    refused({.ops = {fill_op(0, 999, "x"), add_op(0, ValueType::u16, 1)}}, 1001);
    refused({.ops = {read_op(0, 1), load_op(0, ValueType::u64, 125)}}, 1001);
    refused({.ops = {store_op(0, ValueType::u8, std::vector<uint8_t>(1001))}}, 1001);
    refused({.ops = {copy_op(0, 0, 1004)}}, 1004);
    refused({.ops = {append_op(0, ValueType::u32, std::string(1000, 'x'))}}, 1004);
    refused({.ops = {}, .else_ops = {fill_op(0, 2000, "x")}}, 2000);
    refused({.guards = {digest_guard(0, 600, Algorithm::crc32c, {1, 2, 3, 4})},
             .ops = {digest_guard(0, 401, Algorithm::crc32c, {1, 2, 3, 4})}},
            1001);
    CHECK_EQ(source.reads, 2);
    // Sums beyond 64 bits don't start again at 0.
    std::vector<RegionFacts> facts = source.facts();
    facts[0].size = UINT64_MAX;
    Run run({.ops = {fill_op(0, UINT64_MAX, "x"), fill_op(0, 16, "x")}}, &source, limits, facts);
    CHECK_EQ(run.code, Code::batch_too_large);
    CHECK_EQ(run.staging.actual, UINT64_MAX);
    // An image's length has 32 bits even if the limit doesn't.
    limits.batch_bytes_max = UINT64_MAX;
    Run wide({.ops = {fill_op(0, uint64_t{1} << 32, "x")}}, &source, limits, facts);
    CHECK_EQ(wide.code, Code::batch_too_large);
    CHECK_EQ(wide.staging.limit, UINT32_MAX);
  });

  check::test("region_faulted: from a guard, an op or the second piece of a read", [] {
    MemorySource source(2);
    source.faulted = 1;
    Run guard({.regions = {"a", "b"}, .guards = {bytes_guard(0, "x").in(1)}, .else_ops = {write_op(0, "x")}}, &source);
    CHECK_EQ(guard.code, Code::region_faulted);
    CHECK_EQ(guard.failure().section, Section::guards);
    Run op({.regions = {"a", "b"}, .ops = {write_op(0, "x"), add_op(0, ValueType::u8, 1).in(1)}}, &source);
    CHECK_EQ(op.code, Code::region_faulted);
    CHECK_EQ(op.failure().index, 1u);
    CHECK_EQ(Run({.regions = {"a", "b"}, .ops = {write_op(0, "x").in(1)}}, &source).code, Code::ok);
    CHECK_EQ(Run({.regions = {"a", "b"}, .ops = {write_op(0, "x").in(1), read_op(0, 1)}}, &source).code,
             Code::region_faulted);
    CHECK_EQ(Run({.regions = {"a", "b"}, .ops = {fill_op(0, 4096, "x").in(1), read_op(0, 4096).in(1)}}, &source).code,
             Code::ok);
    CHECK_EQ(Run({.regions = {"a", "b"}, .ops = {fill_op(0, 4096, "x").in(1), read_op(0, 4097).in(1)}}, &source).code,
             Code::region_faulted);
  });
}

void test_cells() {
  check::test("load and store: raw cells at any offset, old ones in the answer", [] {
    MemorySource source;
    for (size_t i = 0; i < 64; ++i) source[0][i] = static_cast<uint8_t>(i);
    Run run({.ops = {load_op(3, ValueType::u16, 3), store_op(5, ValueType::u16, {9, 8, 7, 6}),
                     load_op(4, ValueType::u8, 6).big()}},
            &source);
    CHECK_EQ(run.code, Code::ok);
    CHECK_EQ(run.result(0).a, 3u);
    CHECK_EQ(run.data(0), "\3\4\5\6\7\10");
    CHECK_EQ(run.result(1).a, 2u);
    CHECK_EQ(run.data(1), "\5\6\7\10");
    CHECK_EQ(run.data(2), "\4\11\10\7\6\11");
    source.apply(run.staging);
    CHECK_EQ(take(source[0], 4, 6), 0x090607080904u);
  });

  check::test("exchange, bit ops, min, max: every type, both byte orders", [] {
    MemorySource source;
    std::mt19937_64 random(5);
    for (ValueType type : kAllTypes) {
      if (type >= ValueType::f32) continue;
      const size_t bytes = bytes_of(type);
      const auto canonical = [&](uint64_t bits) {
        const uint64_t low = bits & (~uint64_t{0} >> (64 - 8 * bytes));
        return is_signed(type) && (low >> (8 * bytes - 1)) ? low | ~(~uint64_t{0} >> (64 - 8 * bytes)) : low;
      };
      const auto less = [&](uint64_t left, uint64_t right) {
        return is_signed(type) ? static_cast<int64_t>(left) < static_cast<int64_t>(right) : left < right;
      };
      for (int round = 0; round < 200; ++round) {
        const bool big = round % 2 != 0;
        const uint64_t old = canonical(round < 4 ? most(type) : random()),
                       value = canonical(round < 8 ? least(type) : random());
        for (OpKind kind :
             {OpKind::exchange, OpKind::bit_and, OpKind::bit_or, OpKind::bit_xor, OpKind::min, OpKind::max}) {
          put(&source[0], 16, old, bytes, big);
          Op op = modify_op(kind, 16, type, value);
          if (big) op.big();
          Run run({.ops = {op}}, &source);
          const uint64_t wanted = kind == OpKind::exchange  ? value
                                  : kind == OpKind::bit_and ? old & value
                                  : kind == OpKind::bit_or  ? old | value
                                  : kind == OpKind::bit_xor ? old ^ value
                                  : kind == OpKind::min     ? (less(value, old) ? value : old)
                                                            : (less(value, old) ? old : value);
          check::context =
              "type " + std::to_string(static_cast<int>(type)) + " kind " + std::to_string(static_cast<int>(kind));
          CHECK_EQ(run.result().a, old);
          CHECK_EQ(run.result().b, wanted);
          source.apply(run.staging);
          CHECK_EQ(canonical(take(source[0], 16, bytes, big)), wanted);
        }
      }
    }
  });

  check::test("add: at the bounds of every integer type, by every policy", [] {
    MemorySource source;
    using Wide = __int128;
    for (ValueType type : kAllTypes) {
      if (type >= ValueType::f32) continue;
      const size_t bytes = bytes_of(type);
      const auto wide = [&](uint64_t bits) { return is_signed(type) ? Wide{static_cast<int64_t>(bits)} : Wide{bits}; };
      const uint64_t olds[] = {0, 1, most(type), most(type) - 1, least(type), least(type) + 1, most(type) / 2};
      const uint64_t magnitudes[] = {
          0, 1, 2, 255, 256, most(type), most(type) + 1, uint64_t{1} << 63, (uint64_t{1} << 63) - 1, UINT64_MAX};
      for (uint64_t old : olds) {
        for (uint64_t magnitude : magnitudes) {
          for (bool negative : {false, true}) {
            const Wide sum = wide(old) + (negative ? -Wide{magnitude} : Wide{magnitude});
            const bool over = sum > wide(most(type)) || sum < wide(least(type));
            // What wrapping means, by dividing instead of by cutting bits.
            const Wide modulus = Wide{1} << (8 * bytes);
            Wide wrapped = ((sum % modulus) + modulus) % modulus;
            if (wrapped > wide(most(type))) wrapped -= modulus;
            for (Overflow policy : {Overflow::fail, Overflow::wrap, Overflow::saturate}) {
              check::context = "type " + std::to_string(static_cast<int>(type)) + " old " + std::to_string(old) +
                               (negative ? " - " : " + ") + std::to_string(magnitude) + " policy " +
                               std::to_string(static_cast<int>(policy));
              put(&source[0], 8, old, bytes);
              Op op = add_op(8, type, 0, policy);
              op.op.a = magnitude;
              op.op.flags = negative ? kOpNegative : 0;
              Run run({.ops = {op}}, &source);
              const uint64_t bound = sum < 0 || sum < wide(least(type)) ? least(type) : most(type);
              if (over && policy == Overflow::fail) {
                CHECK_EQ(run.code, Code::overflow);
                failed_with(run.failure(), Section::ops, 0, Code::overflow, Field::value, bound, old);
                continue;
              }
              const uint64_t wanted = !over                      ? static_cast<uint64_t>(sum)
                                      : policy == Overflow::wrap ? static_cast<uint64_t>(wrapped)
                                                                 : bound;
              CHECK_EQ(run.result().a, old);
              CHECK_EQ(run.result().b, wanted);
              CHECK_EQ(run.result().flags, over ? kResultOverflowed : 0);
              source.apply(run.staging);
              CHECK_EQ(take(source[0], 8, bytes), wanted & (~uint64_t{0} >> (64 - 8 * bytes)));
            }
          }
        }
      }
    }
  });

  check::test("add: floats, finite or not", [] {
    MemorySource source;
    const auto add = [&](ValueType type, uint64_t old, double addend, Overflow policy, Code* code = nullptr,
                         uint8_t* flags = nullptr, bool negative = false) {
      put(&source[0], 8, old, bytes_of(type));
      Op op = add_float_op(8, type, addend, policy);
      if (negative) op.op.flags = kOpNegative;
      Run run({.ops = {op}}, &source);
      if (code != nullptr) *code = run.code;
      if (run.code != Code::ok) return run.failure().limit;
      if (flags != nullptr) *flags = run.result().flags;
      CHECK_EQ(run.result().a, old);
      return run.result().b;
    };
    const ValueType f32 = ValueType::f32, f64 = ValueType::f64;
    CHECK_EQ(add(f32, bits_of(1.5f), 0.25, Overflow::fail), bits_of(1.75f));
    CHECK_EQ(add(f32, bits_of(1.5f), 0.25, Overflow::fail, nullptr, nullptr, true), bits_of(1.25f));
    CHECK_EQ(add(f64, bits_of(1.5), -0.25, Overflow::fail), bits_of(1.25));
    CHECK_EQ(add(f32, bits_of(16777216.0f), 0.5, Overflow::fail), bits_of(16777216.0f));
    Code code;
    uint8_t flags;
    CHECK_EQ(add(f64, bits_of(kDoubleMax), kDoubleMax, Overflow::fail, &code), bits_of(kDoubleMax));
    CHECK_EQ(code, Code::overflow);
    CHECK_EQ(add(f32, bits_of(-kFloatMax), -1e300, Overflow::fail, &code), bits_of(-kFloatMax));
    CHECK_EQ(code, Code::overflow);
    CHECK_EQ(add(f64, bits_of(kDoubleMax), kDoubleMax, Overflow::wrap, &code, &flags), bits_of(HUGE_VAL));
    CHECK_EQ(flags, kResultOverflowed);
    CHECK_EQ(add(f64, bits_of(-kDoubleMax), -kDoubleMax, Overflow::saturate, &code, &flags), bits_of(-kDoubleMax));
    CHECK_EQ(flags, kResultOverflowed);
    CHECK_EQ(add(f32, bits_of(kFloatMax), 1e300, Overflow::saturate, &code, &flags), bits_of(kFloatMax));
    CHECK_EQ(flags, kResultOverflowed);
    CHECK(std::isnan(std::bit_cast<double>(add(f64, bits_of(HUGE_VAL), -HUGE_VAL, Overflow::saturate, &code, &flags))));
    CHECK(code == Code::ok && flags == kResultOverflowed);
    add(f32, bits_of(std::numeric_limits<float>::quiet_NaN()), 1, Overflow::fail, &code);
    CHECK_EQ(code, Code::overflow);
  });

  check::test("min, max, cas: floats with NaN and the two zeros", [] {
    MemorySource source;
    const uint64_t nan = bits_of(std::numeric_limits<double>::quiet_NaN());
    const auto becomes = [&](OpKind kind, uint64_t old, uint64_t value) {
      put(&source[0], 8, old, 8);
      return Run({.ops = {modify_op(kind, 8, ValueType::f64, value)}}, &source).result().b;
    };
    CHECK_EQ(becomes(OpKind::min, bits_of(2.0), bits_of(-3.0)), bits_of(-3.0));
    CHECK_EQ(becomes(OpKind::max, bits_of(2.0), bits_of(-3.0)), bits_of(2.0));
    CHECK_EQ(becomes(OpKind::min, nan, bits_of(1.0)), nan);
    CHECK_EQ(becomes(OpKind::max, bits_of(1.0), nan), bits_of(1.0));
    const auto swapped = [&](uint64_t old, uint64_t expected) {
      put(&source[0], 8, old, 8);
      return Run({.ops = {cas_op(8, ValueType::f64, expected, 0, OnMismatch::proceed)}}, &source).result().flags ==
             kResultSwapped;
    };
    CHECK(swapped(nan, nan));
    CHECK(swapped(bits_of(-0.0), bits_of(-0.0)));
    CHECK(!swapped(bits_of(-0.0), bits_of(0.0)));
  });

  check::test("cas: swaps, aborts, goes on", [] {
    MemorySource source;
    put(&source[0], 8, static_cast<uint64_t>(-5), 2, true);
    const uint64_t minus5 = static_cast<uint64_t>(-5), minus6 = static_cast<uint64_t>(-6);
    Run good({.ops = {cas_op(8, ValueType::i16, minus5, minus6).big()}}, &source);
    CHECK(good.result().flags == kResultSwapped && good.result().a == minus5 && good.result().b == minus6);
    source.apply(good.staging);
    CHECK_EQ(take(source[0], 8, 2, true), 0xfffau);
    Run aborted(
        {.ops = {write_op(100, "x"), cas_op(8, ValueType::i16, minus5, 1).big(), cas_op(8, ValueType::i16, 3, 1)}},
        &source);
    CHECK_EQ(aborted.code, Code::cas_mismatch);
    CHECK_EQ(aborted.staging.failures.size(), 1u);
    failed_with(aborted.failure(), Section::ops, 1, Code::cas_mismatch, Field::equals, minus5, minus6);
    Run went_on({.ops = {cas_op(8, ValueType::i16, minus5, 1, OnMismatch::proceed).big()}}, &source);
    CHECK(went_on.code == Code::ok && went_on.result().flags == 0 && went_on.result().a == minus6 &&
          went_on.result().b == 1);
    CHECK(went_on.staging.images.empty());
  });

  check::test("append: one after the other, to the end and not beyond", [] {
    MemorySource source(1, 32);
    put(&source[0], 0, 8, 4, true);
    Run run({.ops = {append_op(0, ValueType::u32, "hello").big(), append_op(0, ValueType::u32, "").big(),
                     append_op(0, ValueType::u32, "world").big()}},
            &source);
    CHECK_EQ(run.code, Code::ok);
    CHECK(run.result(0).a == 8 && run.result(0).b == 13);
    CHECK(run.result(1).a == 13 && run.result(1).b == 13);
    CHECK(run.result(2).a == 13 && run.result(2).b == 18);
    source.apply(run.staging);
    CHECK(memcmp(&source[0][8], "helloworld\0", 11) == 0);
    CHECK_EQ(take(source[0], 0, 4, true), 18u);
    CHECK_EQ(Run({.ops = {append_op(0, ValueType::u32, std::string(14, 'x')).big()}}, &source).code, Code::ok);
    Run beyond({.ops = {append_op(0, ValueType::u32, std::string(15, 'x')).big()}}, &source);
    CHECK_EQ(beyond.code, Code::out_of_bounds);
    failed_with(beyond.failure(), Section::ops, 0, Code::out_of_bounds, Field::data, 32, 33);
    put(&source[0], 0, UINT64_MAX, 8);
    Run wild({.ops = {append_op(0, ValueType::u64, "x")}}, &source);
    failed_with(wild.failure(), Section::ops, 0, Code::out_of_bounds, Field::data, 32, UINT64_MAX);
    MemorySource large(1, 1024);
    large[0][0] = 250;
    CHECK_EQ(Run({.ops = {append_op(0, ValueType::u8, "12345")}}, &large).code, Code::ok);
    Run narrow({.ops = {append_op(0, ValueType::u8, "123456")}}, &large);
    CHECK_EQ(narrow.code, Code::overflow);
    failed_with(narrow.failure(), Section::ops, 0, Code::overflow, Field::offset, 255, 250);
  });
}

void test_guards() {
  check::test("guards: generation and value by every comparison", [] {
    MemorySource source;
    const auto holds = [&](Op guard) {
      Run run({.guards = {std::move(guard)}}, &source);
      CHECK(run.code == Code::ok || run.code == Code::guard_failed);
      return run.code == Code::ok;
    };
    for (int how = 0; how < 6; ++how) {
      const auto wanted = [&](auto left, auto right) {
        return how == 0   ? left == right
               : how == 1 ? left < right
               : how == 2 ? left <= right
               : how == 3 ? left > right
               : how == 4 ? left >= right
                          : left != right;
      };
      const auto compare = static_cast<Compare>(how);
      for (uint64_t value : {40u, 41u, 42u})
        CHECK_EQ(holds(generation_guard(compare, value)), wanted(uint64_t{41}, value));
      for (int64_t cell : {-3, 0, 7}) {
        put(&source[0], 3, static_cast<uint64_t>(cell), 4, true);
        for (int64_t value : {-3, 0, 7}) {
          CHECK_EQ(holds(value_guard(3, ValueType::i32, compare, static_cast<uint64_t>(value)).big()),
                   wanted(cell, value));
          put(&source[0], 20, bits_of(static_cast<float>(cell)), 4);
          CHECK_EQ(holds(value_guard(20, ValueType::f32, compare, bits_of(static_cast<float>(value)))),
                   wanted(cell, value));
        }
        CHECK_EQ(holds(value_guard(3, ValueType::u32, compare, 7).big()),
                 wanted(static_cast<uint32_t>(cell), uint32_t{7}));
      }
      put(&source[0], 20, bits_of(std::nanf("")), 4);
      CHECK_EQ(holds(value_guard(20, ValueType::f32, compare, bits_of(1.0f))), compare == Compare::ne);
    }
  });

  check::test("guards: bytes and digests, long ones too", [] {
    MemorySource source(1, 50000);
    std::mt19937 random(8);
    for (auto& byte : source[0]) byte = static_cast<uint8_t>(random());
    const auto code_of = [&](Op guard) { return Run({.guards = {std::move(guard)}}, &source).code; };
    std::string text(source[0].begin() + 5, source[0].begin() + 45000);
    CHECK_EQ(code_of(bytes_guard(5, text)), Code::ok);
    text[40001] ^= 1;
    Run run({.guards = {bytes_guard(5, text)}}, &source);
    failed_with(run.failure(), Section::guards, 0, Code::guard_failed, Field::equals, 0, 40006);
    for (size_t length : {0u, 1u, 16384u, 16385u, 49990u}) {
      std::vector<uint8_t> digest(32), crc(4);
      Sha256 sha256;
      sha256.update(&source[0][3], length);
      sha256.finish(digest.data());
      const uint32_t value = crc32c(0, &source[0][3], length);
      for (size_t i = 0; i < 4; ++i) crc[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
      CHECK_EQ(code_of(digest_guard(3, length, Algorithm::sha256, digest)), Code::ok);
      CHECK_EQ(code_of(digest_guard(3, length, Algorithm::crc32c, crc)), Code::ok);
      digest[31] ^= 1, crc[3] ^= 1;
      CHECK_EQ(code_of(digest_guard(3, length, Algorithm::sha256, digest)), Code::guard_failed);
      CHECK_EQ(code_of(digest_guard(3, length, Algorithm::crc32c, crc)), Code::guard_failed);
    }
  });

  check::test("guards: entity tags, and what doesn't exist", [] {
    MemorySource source(2);
    std::vector<RegionFacts> facts = source.facts();
    facts[1] = {};
    const auto code_of = [&](Op guard) {
      return Run({.regions = {"a", "b"}, .guards = {std::move(guard)}}, &source, {}, facts).code;
    };
    CHECK_EQ(code_of(etag_guard({7, 3, 41})), Code::ok);
    CHECK_EQ(code_of(etag_guard({1, 1, 1, 7, 3, 41})), Code::ok);
    CHECK_EQ(code_of(etag_guard({7, 3, 40, 7, 2, 41, 6, 3, 41})), Code::guard_failed);
    CHECK_EQ(code_of(etag_guard({})), Code::ok);
    CHECK_EQ(code_of(etag_guard({}).flags(kOpNegate)), Code::guard_failed);
    CHECK_EQ(code_of(etag_guard({7, 3, 41}).flags(kOpNegate)), Code::guard_failed);
    CHECK_EQ(code_of(etag_guard({7, 3, 40}).flags(kOpNegate)), Code::ok);
    CHECK_EQ(code_of(etag_guard({}).in(1)), Code::guard_failed);
    CHECK_EQ(code_of(etag_guard({}).in(1).flags(kOpNegate)), Code::ok);
    CHECK_EQ(code_of(etag_guard({0, 0, 0}).in(1)), Code::guard_failed);
  });

  check::test("guards: every false one is listed, and else-ops run instead if there are any", [] {
    MemorySource source;
    source[0][3] = 9;
    FrameParts parts{.guards = {generation_guard(Compare::eq, 41), value_guard(3, ValueType::u8, Compare::eq, 8),
                                bytes_guard(0, "x"), generation_guard(Compare::lt, 41)},
                     .ops = {write_op(0, "ops")}};
    Run refused(parts, &source);
    CHECK_EQ(refused.code, Code::guard_failed);
    if (!CHECK_EQ(refused.staging.failures.size(), 3u)) return;
    failed_with(refused.failure(0), Section::guards, 1, Code::guard_failed, Field::value, 8, 9);
    failed_with(refused.failure(1), Section::guards, 2, Code::guard_failed, Field::equals, 0, 0);
    failed_with(refused.failure(2), Section::guards, 3, Code::guard_failed, Field::value, 41, 41);
    parts.else_ops = {write_op(0, "else"), read_op(0, 5)};
    Run elsewhere(parts, &source);
    CHECK_EQ(elsewhere.code, Code::ok);
    CHECK_EQ(elsewhere.staging.branch, Branch::else_ops);
    CHECK_EQ(elsewhere.data(1), std::string("else\0", 5));
    parts.else_ops = {write_op(0, "else"), cas_op(8, ValueType::u8, 1, 2)};
    Run failing(parts, &source);
    CHECK_EQ(failing.code, Code::cas_mismatch);
    failed_with(failing.failure(), Section::else_ops, 1, Code::cas_mismatch, Field::equals, 1, 0);
  });

  check::test("guards: a condition of the request outweighs guards and never runs else-ops", [] {
    MemorySource source;
    FrameParts parts{.guards = {bytes_guard(0, "x"), generation_guard(Compare::eq, 40).flags(kOpCondition),
                                etag_guard({1, 2, 3}).flags(kOpCondition)},
                     .ops = {write_op(0, "ops")},
                     .else_ops = {write_op(0, "else")}};
    Run run(parts, &source);
    CHECK_EQ(run.code, Code::generation_mismatch);
    if (!CHECK_EQ(run.staging.failures.size(), 3u)) return;
    CHECK_EQ(run.failure(0).code, static_cast<uint16_t>(Code::guard_failed));
    failed_with(run.failure(1), Section::guards, 1, Code::generation_mismatch, Field::value, 40, 41);
    failed_with(run.failure(2), Section::guards, 2, Code::etag_mismatch, Field::equals, 0, 41);
    parts.guards = {etag_guard({1, 2, 3}).flags(kOpCondition)};
    CHECK_EQ(Run(parts, &source).code, Code::etag_mismatch);
    parts.guards = {etag_guard({7, 3, 41}).flags(kOpCondition), generation_guard(Compare::eq, 41).flags(kOpCondition)};
    CHECK_EQ(Run(parts, &source).staging.branch, Branch::ops);
  });

  check::test("assert: sees what the ops before it did, and undoes them all when false", [] {
    MemorySource source;
    Run good({.ops = {write_op(4094, "abcd"), bytes_guard(4093, std::string_view("\0abcd\0", 6)),
                      value_guard(4096, ValueType::u8, Compare::eq, 'c'), generation_guard(Compare::eq, 41)}},
             &source);
    CHECK_EQ(good.code, Code::ok);
    CHECK_EQ(good.result(1).kind, OpKind::guard_bytes);
    Run bad({.ops = {write_op(4094, "abcd"), bytes_guard(4094, "abxd"), write_op(0, "x")}}, &source);
    CHECK_EQ(bad.code, Code::guard_failed);
    failed_with(bad.failure(), Section::ops, 1, Code::guard_failed, Field::equals, 0, 4096);
    std::vector<uint8_t> digest(32);
    Sha256 sha256;
    sha256.update("abcd", 4);
    sha256.finish(digest.data());
    CHECK_EQ(Run({.ops = {write_op(4094, "abcd"), digest_guard(4094, 4, Algorithm::sha256, digest)}}, &source).code,
             Code::ok);
  });
}

void test_overlapping() {
  check::test("ops see each other: whatever part of a page was written, up to the region's end", [] {
    MemorySource source(1, 8192 + 50);
    for (size_t i = 0; i < source[0].size(); ++i) source[0][i] = static_cast<uint8_t>(i % 251);
    for (uint64_t offset : {0u, 1u, 4095u, 4096u, 8191u, 8192u, 8193u}) {
      for (uint64_t length : {1u, 49u, 50u, 1023u, 1024u, 1025u, 4095u, 4096u, 4097u}) {
        if (offset + length > source[0].size()) continue;
        check::context = std::to_string(offset) + " + " + std::to_string(length);
        Run run({.ops = {fill_op(offset, length, "new"), read_op(0, source[0].size())}}, &source);
        std::string wanted(source[0].begin(), source[0].end());
        for (uint64_t i = 0; i < length; ++i) wanted[offset + i] = "new"[i % 3];
        CHECK(run.data(1) == wanted);
      }
    }
  });

  check::test("copy: overlapping ranges, both ways, as memmove", [] {
    MemorySource source;
    for (size_t i = 0; i < source[0].size(); ++i) source[0][i] = static_cast<uint8_t>(i % 251);
    for (uint64_t from : {0u, 5u, 4090u}) {
      for (uint64_t to : {0u, 3u, 9u, 4096u}) {
        check::context = std::to_string(from) + " to " + std::to_string(to);
        std::vector<uint8_t> wanted = source[0];
        memmove(&wanted[to], &wanted[from], 5000);
        MemorySource after = source;
        Run run({.ops = {copy_op(from, to, 5000)}}, &after);
        after.apply(run.staging);
        CHECK(after[0] == wanted);
      }
    }
  });
}

// ---- against a model -----------------------------------------------------------------------------------------------

// Regions as plain bytes, ops done at once and one after the other. It knows nothing of pages, images or frames.
struct Model {
  std::vector<std::vector<uint8_t>> regions;
  std::vector<std::string> data;  // of each result

  // Does a random op, and returns it.
  Op step(std::mt19937_64& random) {
    const auto below = [&](uint64_t bound) { return random() % bound; };
    const auto region = static_cast<uint16_t>(below(regions.size()));
    std::vector<uint8_t>& bytes = regions[region];
    // Mostly near a page's edge and short: that's where ops meet.
    const uint64_t spread = below(4) == 0 ? bytes.size() : 40;
    const uint64_t length = below(below(8) == 0 ? 9000 : 30);
    const uint64_t offset = std::min(bytes.size(), (below(4) * 4096 + below(spread)) % (bytes.size() + 1));
    const uint64_t fits = std::min<uint64_t>(length, bytes.size() - offset);
    const auto type = static_cast<ValueType>(below(8));
    const size_t cell = bytes_of(type);
    const uint64_t at = std::min(offset, bytes.size() - 8) / cell * cell;
    const bool big = below(2) != 0;
    const uint64_t old = take(bytes, at, cell, big);
    std::string text(fits, 0);
    for (char& c : text) c = static_cast<char>(random());
    data.emplace_back();
    Op op;
    switch (below(7)) {
      case 0:
        data.back().assign(bytes.begin() + static_cast<ptrdiff_t>(offset),
                           bytes.begin() + static_cast<ptrdiff_t>(offset + fits));
        return read_op(offset, fits).in(region);
      case 1:
        memcpy(bytes.data() + offset, text.data(), fits);
        return write_op(offset, text).in(region);
      case 2: {
        const auto from_region = static_cast<uint16_t>(below(regions.size()));
        const std::vector<uint8_t> source = regions[from_region];
        const uint64_t from = below(source.size() - std::min(fits, source.size()) + 1);
        const uint64_t count = std::min<uint64_t>(fits, source.size() - from);
        memcpy(bytes.data() + offset, source.data() + from, count);
        return copy_op(from, offset, count, from_region).in(region);
      }
      case 3: {
        const uint64_t value = below(256);
        put(&bytes, at, old + value, cell, big);
        op = add_op(at, type, static_cast<int64_t>(value), Overflow::wrap);
        break;
      }
      case 4: {
        const uint64_t value = below(128);
        put(&bytes, at, old ^ value, cell, big);
        op = modify_op(OpKind::bit_xor, at, type, value);
        break;
      }
      case 5: {
        const uint64_t value = random() & most(type);
        put(&bytes, at, value, cell, big);
        op = modify_op(OpKind::exchange, at, type, value);
        break;
      }
      default: {
        data.back().assign(bytes.begin() + static_cast<ptrdiff_t>(offset),
                           bytes.begin() + static_cast<ptrdiff_t>(offset + fits));
        memcpy(bytes.data() + offset, text.data(), fits);
        return store_op(offset, ValueType::u8, bytes_of_text(text)).in(region);
      }
    }
    if (big) op.big();
    return op.in(region);
  }
};

void test_model() {
  check::test("model: random batches over three regions leave and answer what one op after the other would", [] {
    const uint32_t seed = check::seed();
    std::mt19937_64 random(seed);
    MemorySource source(3);
    source[1].resize(4096 * 3 + 77);
    source[2].resize(100);
    for (size_t region = 0; region < 3; ++region) {
      for (auto& byte : source[region]) byte = static_cast<uint8_t>(random());
    }
    Staging reused;
    for (int round = 0; round < 3000; ++round) {
      check::context = "seed " + std::to_string(seed) + " round " + std::to_string(round);
      Model model{{source[0], source[1], source[2]}, {}};
      FrameParts parts{.regions = {"a", "b", "c"}};
      const uint64_t count = 1 + random() % (round % 100 == 0 ? 1000 : 20);
      for (uint64_t i = 0; i < count; ++i) parts.ops.push_back(model.step(random));
      Run run(parts, &source);
      if (!CHECK_EQ(run.code, Code::ok)) return;
      for (size_t i = 0; i < count; ++i) {
        if (!CHECK_EQ(run.result(i).data_bytes, model.data[i].size())) return;
      }
      std::string all;
      for (const std::string& data : model.data) {
        all += data;
        all.resize((all.size() + 7) & ~size_t{7});
      }
      CHECK(std::string(run.staging.result_data.begin(), run.staging.result_data.end()) == all);
      // The same in a staging that other batches have used.
      CHECK_EQ(evaluate_batch(run.batch, source.facts(), {}, source, &reused), Code::ok);
      CHECK(reused.result_data == run.staging.result_data);
      source.apply(round % 2 != 0 ? run.staging : reused);
      for (size_t region = 0; region < 3; ++region) {
        if (!CHECK(source[region] == model.regions[region])) return;
      }
    }
  });
}

}  // namespace

int main() {
  test_decoding();
  test_writing();
  test_refusals();
  test_cells();
  test_guards();
  test_overlapping();
  test_model();
  return check::done();
}
