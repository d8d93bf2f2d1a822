// frames.h - for tests: frames written entry by entry, and regions in memory to evaluate them against.
#pragma once

#include <string.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../native/batch.h"

namespace holdfast::frames {

// One entry and its data. The named constructors below fill what their kind uses.
struct Op {
  FrameOp op = {};
  std::vector<uint8_t> data;

  Op& in(uint16_t region) { return op.region = region, *this; }
  Op& flags(uint8_t flags) { return op.flags = flags, *this; }
  Op& big() { return op.flags |= kOpBigEndian, *this; }
};

inline std::vector<uint8_t> bytes_of_text(std::string_view text) { return {text.begin(), text.end()}; }

inline Op make_op(OpKind kind, uint64_t offset = 0, uint64_t length = 0, uint64_t a = 0, uint64_t b = 0,
                  uint8_t mode = 0, ValueType type = ValueType::u8) {
  Op made;
  made.op.kind = kind;
  made.op.offset = offset;
  made.op.length = length;
  made.op.a = a;
  made.op.b = b;
  made.op.mode = mode;
  made.op.type = type;
  return made;
}
inline Op with_data(Op made, std::vector<uint8_t> data) {
  made.data = std::move(data);
  return made;
}

inline Op read_op(uint64_t offset, uint64_t length) { return make_op(OpKind::read, offset, length); }
inline Op write_op(uint64_t offset, std::string_view text) {
  return with_data(make_op(OpKind::write, offset), bytes_of_text(text));
}
inline Op fill_op(uint64_t offset, uint64_t length, std::string_view pattern) {
  return with_data(make_op(OpKind::fill, offset, length), bytes_of_text(pattern));
}
inline Op copy_op(uint64_t from, uint64_t to, uint64_t length, uint16_t from_region = 0) {
  Op made = make_op(OpKind::copy, to, length, from);
  made.op.region2 = from_region;
  return made;
}
inline Op load_op(uint64_t offset, ValueType type, uint64_t count = 1) {
  return make_op(OpKind::load, offset, count, 0, 0, 0, type);
}
inline Op store_op(uint64_t offset, ValueType type, std::vector<uint8_t> cells) {
  return with_data(make_op(OpKind::store, offset, 0, 0, 0, 0, type), std::move(cells));
}
// exchange, bit_*, min, max
inline Op modify_op(OpKind kind, uint64_t offset, ValueType type, uint64_t value) {
  return make_op(kind, offset, 0, value, 0, 0, type);
}
inline Op add_op(uint64_t offset, ValueType type, int64_t value, Overflow policy = Overflow::fail) {
  Op made = make_op(OpKind::add, offset, 0, value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value), 0,
                    static_cast<uint8_t>(policy), type);
  if (value < 0) made.op.flags = kOpNegative;
  return made;
}
inline Op add_float_op(uint64_t offset, ValueType type, double value, Overflow policy = Overflow::fail) {
  return make_op(OpKind::add, offset, 0, std::bit_cast<uint64_t>(value), 0, static_cast<uint8_t>(policy), type);
}
inline Op cas_op(uint64_t offset, ValueType type, uint64_t expected, uint64_t value,
                 OnMismatch mode = OnMismatch::abort) {
  return make_op(OpKind::cas, offset, 0, expected, value, static_cast<uint8_t>(mode), type);
}
inline Op append_op(uint64_t cursor, ValueType type, std::string_view text) {
  return with_data(make_op(OpKind::append, cursor, 0, 0, 0, 0, type), bytes_of_text(text));
}
inline Op generation_guard(Compare how, uint64_t value) {
  return make_op(OpKind::guard_generation, 0, 0, value, 0, static_cast<uint8_t>(how));
}
inline Op value_guard(uint64_t offset, ValueType type, Compare how, uint64_t value) {
  return make_op(OpKind::guard_value, offset, 0, value, 0, static_cast<uint8_t>(how), type);
}
inline Op bytes_guard(uint64_t offset, std::string_view text) {
  return with_data(make_op(OpKind::guard_bytes, offset), bytes_of_text(text));
}
inline Op digest_guard(uint64_t offset, uint64_t length, Algorithm algorithm, std::vector<uint8_t> digest) {
  return with_data(make_op(OpKind::guard_digest, offset, length, 0, 0, static_cast<uint8_t>(algorithm)),
                   std::move(digest));
}
inline Op etag_guard(std::initializer_list<uint64_t> words) {
  std::vector<uint8_t> data(words.size() * 8);
  if (!data.empty()) memcpy(data.data(), words.begin(), data.size());
  return with_data(make_op(OpKind::guard_etag), std::move(data));
}

struct FrameParts {
  std::vector<std::string> regions = {"demo"};
  std::vector<Op> guards = {}, ops = {}, else_ops = {};
  uint16_t flags = 0;
  Wait wait = Wait::region_mode;
};

inline FrameParts parts_of(std::vector<std::string> regions, std::vector<Op> ops) {
  FrameParts parts;
  parts.regions = std::move(regions);
  parts.ops = std::move(ops);
  return parts;
}

inline std::vector<uint8_t> make_frame(const FrameParts& parts) {
  std::vector<uint8_t> frame;
  const auto put = [&](const void* from, size_t bytes) {
    const auto* at = static_cast<const uint8_t*>(from);
    frame.insert(frame.end(), at, at + bytes);
  };
  FrameHeader header = {};
  header.magic = kFrameMagic;
  header.version = kFrameVersion;
  header.flags = parts.flags;
  header.wait = parts.wait;
  header.region_count = static_cast<uint16_t>(parts.regions.size());
  header.guard_count = static_cast<uint16_t>(parts.guards.size());
  header.op_count = static_cast<uint32_t>(parts.ops.size());
  header.else_count = static_cast<uint32_t>(parts.else_ops.size());
  put(&header, sizeof header);
  for (const std::string& name : parts.regions) {
    FrameRegion region = {};
    region.name_bytes = static_cast<uint16_t>(name.size());
    memcpy(region.name, name.data(), std::min<size_t>(name.size(), sizeof region.name));
    put(&region, sizeof region);
  }
  for (const auto* section : {&parts.guards, &parts.ops, &parts.else_ops}) {
    for (const Op& entry : *section) {
      FrameOp op = entry.op;
      op.data_bytes = static_cast<uint32_t>(entry.data.size());
      put(&op, sizeof op);
      put(entry.data.data(), entry.data.size());
      frame.resize((frame.size() + 7) & ~size_t{7});
    }
  }
  const uint64_t frame_bytes = frame.size();
  memcpy(frame.data() + offsetof(FrameHeader, frame_bytes), &frame_bytes, sizeof frame_bytes);
  return frame;
}

// A frame with an idempotency key and a fingerprint of sixteen equal bytes each.
inline std::vector<uint8_t> keyed(FrameParts parts, uint8_t key, uint8_t fingerprint = 1) {
  parts.flags |= kFrameHasKey;
  std::vector<uint8_t> frame = make_frame(parts);
  memset(frame.data() + offsetof(FrameHeader, key), key, sizeof FrameHeader::key);
  memset(frame.data() + offsetof(FrameHeader, fingerprint), fingerprint, sizeof FrameHeader::fingerprint);
  return frame;
}

// Regions in memory. A read outside of one is a mistake of the evaluation, and `strayed` says so.
class MemorySource : public ByteSource {
 public:
  explicit MemorySource(size_t regions = 1, size_t bytes = 16384) : regions_(regions, std::vector<uint8_t>(bytes)) {}

  std::vector<uint8_t>& operator[](size_t region) { return regions_[region]; }
  size_t size() const { return regions_.size(); }

  std::vector<RegionFacts> facts() const {
    std::vector<RegionFacts> all;
    for (const auto& region : regions_) all.push_back({7, 3, 41, region.size(), false});
    return all;
  }

  Code read(uint16_t region, uint64_t offset, uint64_t length, uint8_t* into) override {
    ++reads;
    if (region == faulted) return Code::region_faulted;
    if (region >= regions_.size() || offset > regions_[region].size() || length > regions_[region].size() - offset) {
      strayed = true;
      return Code::region_faulted;
    }
    if (length != 0) memcpy(into, regions_[region].data() + offset, length);
    return Code::ok;
  }

  // What committing does.
  void apply(const Staging& staging) {
    for (const Image& image : staging.images) memcpy(&regions_[image.region][image.offset], image.bytes, image.length);
  }

  bool strayed = false;
  int faulted = -1;
  int reads = 0;

 private:
  std::vector<std::vector<uint8_t>> regions_;
};

}  // namespace holdfast::frames
