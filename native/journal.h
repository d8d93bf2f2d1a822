// journal.h - the redo journal: a ring of records that is mapped twice in a row, and two checkpoint slots.
//
// Positions are counted in bytes since the journal was made and taken modulo the ring's size; lsns count records.
// The writer's methods run under the store's lock. Formats: format.h.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "file.h"
#include "format.h"
#include "record.h"
#include "status.h"

namespace holdfast {

struct Checkpoint {
  uint64_t sequence = 0;
  uint64_t lsn = 0;
  uint64_t position = 0;
  uint64_t salt = 0;
  uint32_t chain_seed = 0;
  bool clean = false;
  std::vector<CheckpointRegion> regions;
};

// Where a chain of records goes on.
struct ChainEnd {
  uint64_t lsn = 0;
  uint64_t position = 0;
  uint32_t crc = 0;
};

class Journal {
 public:
  // Makes a zero-filled journal in a temporary file and renames it into place. `directory` is synced. errno value.
  static int create(const File& directory, uint64_t ring_bytes, uint32_t region_capacity, const Checkpoint& first);
  // Opens it. ENOENT: there is none. EBADMSG: no valid checkpoint slot.
  int open(const File& directory);

  const Checkpoint& checkpoint() const { return checkpoint_; }
  uint64_t ring_bytes() const { return ring_bytes_; }
  uint32_t region_capacity() const { return region_capacity_; }
  const File& file() const { return file_; }

  // The record at a position if it is valid as the successor of `end`, else null. Reads the ring through the mapping.
  const RecordHeader* record_after(const ChainEnd& end, uint64_t salt) const;
  // The checkpoint was not the newest: a slot is no checkpoint, and outside of the chain, which ends at `end`, lies a record
  // that knew a newer one. Reads the whole ring; asked after a restart of the machine with a damaged slot only.
  bool superseded(const ChainEnd& end) const;
  // A record that is known to be valid.
  const RecordHeader* record_at(uint64_t position) const;
  // Where a new record of `bytes` would be written. The caller has made sure that there is room.
  uint8_t* space_at(uint64_t position) { return ring_.data() + position % ring_bytes_; }
  // Destroys a whole but unpublished record at the end of the chain: it must not come back in a later recovery.
  void erase_tail(uint64_t position);

  // Writes the slot of next.sequence and makes it durable, not the ring; callable without the store's lock. errno value.
  int write_checkpoint(const Checkpoint& next) const;
  // Makes a written checkpoint the one that counts.
  void adopt_checkpoint(Checkpoint&& next) { checkpoint_ = std::move(next); }
  // fdatasync of everything written so far. Callable without the store's lock.
  int sync() const { return sync_data(file_); }
  // Marks bytes of the ring as changed, so that the next sync writes them even if an earlier one failed on them.
  void dirty(uint64_t position, uint64_t bytes);
  // Reads the ring in, so that no commit waits for the disk. Not for writing: that would make every page dirty, and the
  // next sync would write the whole ring. Slow; any thread; stops when `stop` says so.
  void populate(const std::function<bool()>& stop);

 private:
  File file_;
  // The journal as well, opened apart for the slots: the kernel tells an error of the write-back once to each open file, and
  // one of the ring's pages has to reach the flusher's fdatasync, not the checkpoint.
  File slots_;
  Mapping ring_;
  uint64_t ring_bytes_ = 0;
  uint32_t region_capacity_ = 0;
  Checkpoint checkpoint_;
  bool slot_damaged_ = false;  // one of the slots holds no checkpoint
};

}  // namespace holdfast
