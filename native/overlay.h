// overlay.h - the bytes that are committed but not applied yet, page by page, so that a batch is evaluated against
// what its region will be. Guarded by the store's lock.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "region.h"

namespace holdfast {

class Overlay {
 public:
  // Makes sure that every page of the range has a copy. False: the region's file can't be read.
  bool prepare(const Region& region, uint64_t offset, uint64_t length);
  // Lays bytes over prepared pages, as of record `lsn`.
  void lay(const Region& region, uint64_t offset, const uint8_t* bytes, uint64_t length, uint64_t lsn);
  // Drops the pages of the range that no record after `lsn` has touched.
  void drop(const Region& region, uint64_t offset, uint64_t length, uint64_t lsn);
  // Replaces what of `into` (bytes offset.. of the region) has a copy. True if anything had.
  bool read(const Region& region, uint64_t offset, uint64_t length, uint8_t* into) const;
  bool touches(const Region& region, uint64_t offset, uint64_t length) const;

 private:
  struct Page {
    uint64_t lsn = 0;
    std::array<uint8_t, kPageBytes> bytes;
  };
  struct Key {
    uint64_t incarnation, page;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      return k.incarnation * 0x9E3779B97F4A7C15ull ^ k.page * 0xC2B2AE3D27D4EB4Full;
    }
  };
  // Pages that are not in use: memory that was just given back is in the caches, and costs no page fault.
  static constexpr size_t kSpareMax = 1024;

  std::unordered_map<Key, std::unique_ptr<Page>, KeyHash> pages_;
  std::vector<std::unique_ptr<Page>> spare_;

  // Calls visit(page number, offset in page, offset in range, bytes) for each page of the range.
  template <typename Visit>
  static void each_page(uint64_t offset, uint64_t length, Visit visit) {
    for (uint64_t done = 0; done < length;) {
      uint64_t at = offset + done;
      uint64_t part = std::min<uint64_t>(kPageBytes - at % kPageBytes, length - done);
      visit(at / kPageBytes, at % kPageBytes, done, part);
      done += part;
    }
  }
};

}  // namespace holdfast
