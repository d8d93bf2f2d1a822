// batch_staging.h - the memory behind a Staging, for the evaluation alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "batch.h"

namespace holdfast {

// What an op wrote is laid out for later ops in pieces of this size: small enough that one byte written copies little
// of the region, large enough that a long write is few of them. (16 scattered counters: 1.4 us; in pages of 4 KiB 2.4.)
inline constexpr uint64_t kPieceBytes = 1024;

// Blocks of bytes, and in them the pieces that the batch has written so far (only those that a later op may read).
struct Staging::Arena {
  struct Block {
    std::unique_ptr<uint8_t[]> bytes;
    size_t size;
  };
  std::vector<Block> blocks;
  size_t block = 0, used = 0;  // the block that is being filled, and how far

  // An open hash table from (region, number of the piece) to the piece's copy; key 0 is an empty slot.
  struct Slot {
    uint64_t key;
    uint8_t* piece;
  };
  std::vector<Slot> slots;
  size_t pieces = 0;

  uint8_t* allocate(size_t bytes);
  void reset();

  static uint64_t key_of(uint16_t region, uint64_t piece) {
    static_assert(kRegionsPerBatchMax <= 64, "six bits of the key; a piece's number has 54");
    return (piece << 6 | region) + 1;
  }
  static size_t hash(uint64_t key) { return static_cast<size_t>((key * 0x9e3779b97f4a7c15u) >> 32); }

  // The slot of the key, or the empty one where it belongs. There is always an empty one.
  Slot& slot_of(uint64_t key) {
    size_t at = hash(key) & (slots.size() - 1);
    while (slots[at].key != 0 && slots[at].key != key) at = (at + 1) & (slots.size() - 1);
    return slots[at];
  }

  uint8_t* find(uint16_t region, uint64_t piece) {
    return pieces == 0 ? nullptr : slot_of(key_of(region, piece)).piece;
  }

  // Takes a piece that isn't there yet.
  void insert(uint16_t region, uint64_t piece, uint8_t* copy);
};

}  // namespace holdfast
