// store_slices.cc - how much of each part of a region holds data and is in memory. Reads no byte of it, and brings none in.
#include <algorithm>

#include "store.h"

namespace holdfast {

namespace {

// How much one call looks at: about 0.1 s where nothing is in memory, which takes the kernel longest.
constexpr uint64_t kSliceBytesMax = uint64_t{4} << 30;
constexpr uint64_t kSliceExtentsMax = 65536;

}  // namespace

Code Store::slices(const std::string& name, uint64_t offset, uint64_t granularity, size_t most,
                   std::vector<Slice>* slices, ReadFacts* facts) {
  std::shared_ptr<Region> region;
  std::shared_ptr<Mapping> mapping;  // of this size, whatever a resize does meanwhile
  {
    Lock lock(lock_);
    if (closing_) return Code::cancelled;
    auto it = regions_.find(name);
    if (it == regions_.end()) return Code::region_not_found;
    region = it->second;
    mapping = region->mapping();
    facts->region = answer_region(*region);
    facts->region.generation = region->visible_generation;
    if (offset > region->meta.size) return Code::out_of_bounds;
    if (!region->data().open()) return Code::region_faulted;
  }
  const uint64_t size = facts->region.size;
  if (offset == size) return Code::ok;
  const uint64_t first = offset - offset % granularity;
  uint64_t extents_seen = 0;
  for (uint64_t at = first; at < size && slices->size() < most;) {
    Slice slice = {at, std::min(granularity, size - at), 0, 0};
    if (int error = resident_bytes(*mapping, at, slice.length, &slice.resident_bytes)) return file_code(error);
    for (const uint64_t end = at + slice.length; at < end;) {
      std::vector<Extent> extents;
      if (int error = list_extents(region->data(), at, end, 64, &extents)) return file_code(error);
      for (const Extent& extent : extents)
        if (extent.data) slice.data_bytes += extent.length;
      extents_seen += extents.size();
      at = extents.back().offset + extents.back().length;
    }
    slices->push_back(slice);
    if (at - first >= kSliceBytesMax || extents_seen >= kSliceExtentsMax) break;
  }
  return Code::ok;
}

}  // namespace holdfast
