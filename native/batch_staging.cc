#include "batch_staging.h"

#include <algorithm>

namespace holdfast {
namespace {

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

uint8_t* Staging::Arena::allocate(size_t bytes) {
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

void Staging::Arena::reset() {
  size_t kept = 0, keep = 0;
  while (keep < blocks.size() && kept + blocks[keep].size <= kKeptBytesMax) kept += blocks[keep++].size;
  blocks.resize(keep);
  block = used = 0;
  if (pieces == 0) return;
  if (slots.size() > kKeptSlotsMax) {
    std::vector<Slot>().swap(slots);
  } else {
    std::fill(slots.begin(), slots.end(), Slot{});
  }
  pieces = 0;
}

void Staging::Arena::insert(uint16_t region, uint64_t piece, uint8_t* copy) {
  if (2 * (pieces + 1) > slots.size()) {
    std::vector<Slot> old(std::max<size_t>(64, 2 * slots.size()));
    old.swap(slots);
    for (const Slot& slot : old) {
      if (slot.key != 0) slot_of(slot.key) = slot;
    }
  }
  const uint64_t key = key_of(region, piece);
  slot_of(key) = {key, copy};
  ++pieces;
}

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

}  // namespace holdfast
