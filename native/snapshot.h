// snapshot.h - a region's bytes as they were at one generation: what is told of them, and the copy that is being made.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "file.h"
#include "region.h"

namespace holdfast {

struct Snapshot {
  uint64_t id = 0;  // unique in the store and for ever; microseconds since 1970, made unique, like an incarnation
  uint64_t generation = 0;
  uint64_t created_us = 0;
  RegionMeta region;  // as it was then
};

// What snapshots/REGION/ID/meta and the records about a snapshot hold.
std::vector<uint8_t> encode_snapshot(const Snapshot& snapshot);
// False: not a valid one. The bytes may come from a record or a file.
bool decode_snapshot(std::span<const uint8_t> bytes, Snapshot* snapshot);

// The id as a name: 16 digits, so that names sort by age.
std::string snapshot_name(uint64_t id);
std::optional<uint64_t> parse_snapshot_name(std::string_view name);

// A range of bytes.
struct Span64 {
  uint64_t offset, length;
};

// The bytes of a region on their way into a file while batches go on. Pages change hands under the store's lock: whoever
// takes one first, the copier or a batch that is about to store to it, writes it as it was. The copier reads before it
// takes: a page that is still there to be taken had not been stored to when it was read.
class SnapshotCopy {
 public:
  // `to` is an empty file; it becomes `size` bytes long. errno value in error().
  SnapshotCopy(const File& to, uint64_t size);
  // Under the store's lock, before a batch stores to the range: saves what nobody has taken.
  void save(const Mapping& from, uint64_t offset, uint64_t length);
  // Under the store's lock: takes what nobody has taken of a range of whole pages; the last one may reach beyond the end.
  std::vector<Span64> take(uint64_t offset, uint64_t length);
  // Under the store's lock: of the first save() that failed. Nothing is saved from then on.
  int error() const { return error_; }

 private:
  const File& to_;
  const uint64_t size_;
  int error_ = 0;
  std::vector<uint64_t> taken_;  // one bit per page
};

// Writes bytes into a snapshot or a region that is being restored. errno value.
int write_copy(const File& to, std::span<const uint8_t> bytes, uint64_t offset);

// EIO when the file is shorter than `size`: what is behind its end looks like a hole. To be asked after reading.
int check_reaches(const File& file, uint64_t size);

// Copies `size` bytes, with holes where `from` has them, by sharing blocks where the file system can. `stop` is asked now
// and then. errno value: ECANCELED when it said so, EIO when `from` is shorter.
template <typename Stop>
int copy_file(const File& from, const File& to, uint64_t size, Stop stop);

// The unit in which whole files are read: big enough to cost nothing, small enough to hold little memory.
inline constexpr uint64_t kCopyBytes = uint64_t{1} << 20;

template <typename Stop>
int copy_file(const File& from, const File& to, uint64_t size, Stop stop) {
  const int cloned = clone_file(from, to);
  if (cloned != ENOTSUP) return cloned ? cloned : truncate_to(to, size);
  if (int error = truncate_to(to, size)) return error;
  auto buffer = std::make_unique_for_overwrite<uint8_t[]>(std::min(size, kCopyBytes));
  for (uint64_t at = 0; at < size;) {
    if (stop()) return ECANCELED;
    std::vector<Extent> extents;
    if (int error = list_extents(from, at, size, 1, &extents)) return error;
    if (!extents[0].data) {
      at += extents[0].length;
      continue;
    }
    const std::span<uint8_t> bytes(buffer.get(), std::min(extents[0].length, kCopyBytes));
    size_t got = 0;
    if (int error = read_some(from, bytes, at, false, &got)) return error;
    if (got < bytes.size()) return EIO;
    if (int error = write_copy(to, bytes, at)) return error;
    at += got;
  }
  return check_reaches(from, size);
}

}  // namespace holdfast
