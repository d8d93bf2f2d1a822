// outcomes.h - what was answered to which idempotency key. An outcome travels in its batch's record, so it is exactly
// as durable as the batch; when the checkpoint frees that record, the outcome moves to one of two files first.
// Guarded by the store's lock, except save(), which the checkpoint runs without it on a list that it took under it.
#pragma once

#include <cstring>
#include <deque>
#include <unordered_map>
#include <vector>

#include "file.h"
#include "format.h"

namespace holdfast {

struct OutcomeKey {
  uint8_t bytes[16];
  bool operator==(const OutcomeKey& other) const { return memcmp(bytes, other.bytes, sizeof bytes) == 0; }
};

struct Outcome {
  OutcomeHeader header;
  std::vector<uint8_t> answer;
  uint64_t lsn = 0;  // of its record; 0: read from an outcomes file
};

class Outcomes {
 public:
  // An outcome is kept while it is among the last `keys_min` or younger than `seconds_min`, and all of them, in memory and
  // in the two files, take about twice `bytes_max` at most: beyond that the oldest go early.
  Outcomes(uint64_t keys_min, uint64_t seconds_min, uint64_t bytes_max = uint64_t{256} << 20)
      : keys_min_(keys_min), seconds_min_(seconds_min), bytes_max_(bytes_max) {}

  // Reads both files, oldest first. errno value.
  int open(const File& directory);
  const Outcome* find(const uint8_t key[16]) const;
  // One that open() found already stays as it is.
  void add(const OutcomeHeader& header, std::span<const uint8_t> answer, uint64_t lsn);
  size_t size() const { return table_.size(); }

  // The outcomes of records up to this one that were not saved yet, encoded for save().
  std::vector<uint8_t> encode(uint64_t up_to) const;
  // Appends to the current file and syncs it; starts the other file over when this one alone keeps enough. errno value.
  int save(const std::vector<uint8_t>& encoded, uint64_t up_to);

 private:
  struct Hash {
    size_t operator()(const OutcomeKey& key) const {
      size_t value;
      memcpy(&value, key.bytes, sizeof value);
      return value;
    }
  };
  // Takes a file in: how many outcomes it holds, and in how many bytes. errno value.
  int load(int which, uint64_t* keys, uint64_t* bytes);
  void evict();

  uint64_t keys_min_, seconds_min_, bytes_max_;
  std::unordered_map<OutcomeKey, Outcome, Hash> table_;
  std::deque<std::pair<OutcomeKey, uint64_t>> order_;  // key and time, oldest first
  uint64_t bytes_ = 0;                                 // of the table's outcomes, as a file holds them
  File files_[2];
  int current_ = 0;
  bool synced_ = false;  // what open() found
  uint64_t saved_lsn_ = 0;
  uint64_t current_keys_ = 0, current_bytes_ = 0;
  uint64_t current_since_us_ = 0;  // time of the current file's first outcome
};

}  // namespace holdfast
