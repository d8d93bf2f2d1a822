// batch_decode.cc - bytes from anywhere to a Batch, or the reason why not.
#include <string.h>

#include <algorithm>
#include <cstddef>

#include "batch.h"
#include "batch_rules.h"
#include "cell.h"

namespace holdfast {
namespace {

bool all_zero(const void* from, size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(from);
  uint64_t seen = 0, word;
  for (; bytes >= 8; at += 8, bytes -= 8) {
    memcpy(&word, at, 8);
    seen |= word;
  }
  for (; bytes != 0; ++at, --bytes) seen |= *at;
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

}  // namespace holdfast
