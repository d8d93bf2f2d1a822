// snapshot.cc - what is kept of a snapshot, and its copy. See snapshot.h.
#include "snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "crc32c.h"
#include "failpoint.h"

namespace holdfast {

namespace {

constexpr size_t kNameDigits = 16;

}  // namespace

std::vector<uint8_t> encode_snapshot(const Snapshot& snapshot) {
  const std::vector<uint8_t> meta = encode_meta(snapshot.region);
  SnapshotHeader header = {};
  header.magic = kSnapshotMagic;
  header.version = kStoreFormatVersion;
  header.id = snapshot.id;
  header.generation = snapshot.generation;
  header.created_us = snapshot.created_us;
  header.crc = crc32c_headed(header, meta);
  std::vector<uint8_t> bytes(sizeof header + meta.size());
  memcpy(bytes.data(), &header, sizeof header);
  memcpy(bytes.data() + sizeof header, meta.data(), meta.size());
  return bytes;
}

bool decode_snapshot(std::span<const uint8_t> bytes, Snapshot* snapshot) {
  SnapshotHeader header;
  if (bytes.size() < sizeof header) return false;
  memcpy(&header, bytes.data(), sizeof header);
  const std::span<const uint8_t> meta = bytes.subspan(sizeof header);
  if (header.magic != kSnapshotMagic || header.version != kStoreFormatVersion ||
      header.crc != crc32c_headed(header, meta) || !decode_meta(meta, &snapshot->region))
    return false;
  snapshot->id = header.id;
  snapshot->generation = header.generation;
  snapshot->created_us = header.created_us;
  return true;
}

std::string snapshot_name(uint64_t id) {
  const std::string digits = std::to_string(id);
  return std::string(digits.size() < kNameDigits ? kNameDigits - digits.size() : 0, '0') + digits;
}

std::optional<uint64_t> parse_snapshot_name(std::string_view name) {
  if (name.size() != kNameDigits) return std::nullopt;
  uint64_t id = 0;
  for (const char c : name) {
    if (c < '0' || c > '9') return std::nullopt;
    id = id * 10 + static_cast<uint64_t>(c - '0');
  }
  return id;
}

int write_copy(const File& to, std::span<const uint8_t> bytes, uint64_t offset) {
  if (int injected = HOLDFAST_FAILPOINT("copy_write")) return injected;
  return write_all(to, bytes, offset);
}

int check_reaches(const File& file, uint64_t size) {
  FileFacts facts;
  if (int error = file_facts(file, &facts)) return error;
  return facts.size < size ? EIO : 0;
}

SnapshotCopy::SnapshotCopy(const File& to, uint64_t size)
    : to_(to),
      size_(size),
      error_(truncate_to(to, size)),
      taken_((size + 64ull * kPageBytes - 1) / (64ull * kPageBytes), 0) {}

void SnapshotCopy::save(const Mapping& from, uint64_t offset, uint64_t length) {
  if (error_ || length == 0 || HOLDFAST_MUTANT("snapshot_misses_copy_on_write")) return;
  // Whole pages, whatever the batch stores of them: a page that is taken is never looked at again.
  const uint64_t first = offset / kPageBytes * kPageBytes;
  const uint64_t end = HOLDFAST_MUTANT("snapshot_saves_part_of_page")
                           ? offset + length
                           : (offset + length + kPageBytes - 1) / kPageBytes * kPageBytes;
  for (const auto& [at, bytes] : take(first, end - first)) {
    // From the mapping by a system call: of a file that was cut it says EFAULT, where a load would raise SIGBUS.
    error_ = from.data() ? write_copy(to_, {from.data() + at, bytes}, at) : EFAULT;
    if (error_) return;
  }
}

std::vector<Span64> SnapshotCopy::take(uint64_t offset, uint64_t length) {
  std::vector<Span64> runs;
  const uint64_t end = std::min(size_, offset + length);
  for (uint64_t at = offset; at < end;) {
    const uint64_t page = at / kPageBytes;
    uint64_t& word = taken_[page / 64];
    const bool whole_word = page % 64 == 0 && end - at >= 64 * kPageBytes;
    if (whole_word && word == UINT64_MAX) {
      at += 64 * kPageBytes;
      continue;
    }
    // A whole word at a time where nobody has been: a hole may be as long as the region.
    const uint64_t mask = whole_word && word == 0 ? UINT64_MAX : uint64_t{1} << (page % 64);
    const uint64_t length_here = std::min(end - at, whole_word && word == 0 ? 64 * kPageBytes : uint64_t{kPageBytes});
    if ((word & mask) == 0) {
      word |= mask;
      if (!runs.empty() && runs.back().offset + runs.back().length == at)
        runs.back().length += length_here;
      else
        runs.push_back({at, length_here});
    }
    at += length_here;
  }
  return runs;
}

}  // namespace holdfast
