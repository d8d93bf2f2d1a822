// store.h - the store: regions over one journal. The whole life of a batch is Store::commit.
//
//   commit    decode, evaluate -> record into the ring -> committed = L -> applied at once (fast)
//                                                                       \-> pending: flusher syncs, applies, answers
//   flusher   one fdatasync of the journal for everything pending, then apply in lsn order, then the answers
//   checkpoint  fdatasync of what was applied (not of `fast` regions), then the other slot, then the ring's space is free
//
// Invariants: checkpoint <= applied <= committed; a record that waits for its sync is applied after it; records of one
// region are applied in lsn order. Locks: lock_ guards everything but what says otherwise; checkpoint_lock_ is taken
// before it and serialises checkpoints. Disk is never waited for under lock_, except by changes of regions themselves.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "batch.h"
#include "journal.h"
#include "outcomes.h"
#include "overlay.h"
#include "recovery.h"
#include "region.h"
#include "snapshot.h"

namespace holdfast {

// The answer to a batch that was not answered at once.
struct Settled {
  uint64_t ticket;
  std::vector<uint8_t> answer;
};

struct StoreOptions {
  std::string directory;
  uint64_t journal_bytes = uint64_t{64} << 20;  // of the ring; at least four of the largest batches
  uint32_t regions_max = 1024;
  uint32_t snapshots_max = 64;             // of a region
  uint32_t flush_interval_ms = 50;         // an ordered batch is on disk and visible after at most this
  uint32_t checkpoint_interval_ms = 5000;  // or when half of the ring is used
  uint32_t full_wait_ms_max = 1000;        // how long a batch waits for ring space
  uint64_t idempotency_keys_min = 10000;
  uint64_t idempotency_seconds_min = 600;
  BatchLimits batch;
  bool allow_any_file_system = false;
  bool standby = true;               // wait for the lease instead of giving up
  bool threads = true;               // false: the caller runs flush_step and checkpoint_step itself
  bool assume_same_files = false;    // tests: copies of a store's files are taken for the files themselves
  std::function<void()> on_standby;  // the lease is held by another process; now waiting
  std::function<void(std::vector<Settled>&&)> on_settled;  // from the flusher's thread
};

struct RecoveryReport {
  RecoveryRow row = RecoveryRow::A;
  bool same_boot = true;
  bool clean = true;
  uint64_t redone = 0;  // records
  double ms = 0;
  std::vector<std::string> unverified, faulted;
  std::string detail;
};

struct StoreStatus {
  uint64_t committed, applied, durable, checkpoint;
  uint64_t journal_bytes, journal_used_bytes;
  uint64_t commits, flushes, checkpoints, faults_caught, idempotency_keys;
  uint64_t lease_since_ms;
  std::string file_system;
  RecoveryReport recovery;
};

struct RegionInfo {
  RegionMeta meta;
  uint64_t generation = 0, durable_generation = 0;
  std::string fault;
};

struct Etag {
  uint64_t incarnation, meta_generation, generation;
};

// What a change of a region itself (not of its bytes) depends on.
struct Conditions {
  bool if_match = false, if_match_any = false;  // any: `*`
  bool if_none_match = false, if_none_match_any = false;
  std::vector<Etag> match, none_match;
  std::optional<uint64_t> if_generation;
  bool has_key = false;
  uint8_t key[16] = {};
  uint8_t fingerprint[16] = {};
};

struct MetaChange {
  std::optional<uint64_t> size;
  std::optional<std::string> labels;
  std::optional<Durability> durability;
  std::optional<bool> read_only;
  bool verified = false;  // a person says that an unverified region is fine
};

struct MetaResult {
  bool replayed = false;
  bool created = false;
  bool removed = false;
  RegionInfo info;
  Snapshot snapshot;  // of a change of snapshots, in the place of `info`
};

// Names in the store's directory of what is being made, and of what is being removed; by incarnation, or id of a snapshot.
inline std::string new_name(uint64_t number) { return ".new-" + std::to_string(number); }
inline std::string old_name(uint64_t number) { return ".old-" + std::to_string(number); }

// A region that is being made from a stream; not part of the store until Store::publish.
class NewRegion {
 public:
  ~NewRegion();
  // Appends to the data file. Any one thread at a time. errno value.
  int append(std::span<const uint8_t> bytes);

 private:
  friend class Store;
  std::shared_ptr<Region> region;
  File root;
  std::string directory_name;
  File data;
  uint64_t size = 0;
  bool published = false;
};

class Store {
 public:
  // Opens or makes the store, waits for the lease if asked to, recovers. Blocks. On failure `detail` says what and how to mend it.
  static Code open(StoreOptions options, std::unique_ptr<Store>* out, std::string* detail);
  ~Store();

  enum class Patience { never_block, may_block };
  enum class Progress {
    done,         // the answer is there
    waiting,      // committed or bound to an earlier commit; on_settled brings the answer
    would_block,  // nothing happened; call again with may_block from a thread that may wait
  };
  // Runs one batch. Any thread. With never_block no lock, disk or long evaluation is waited for.
  Progress commit(std::span<const uint8_t> frame, Patience patience, uint64_t ticket, std::vector<uint8_t>* answer);

  struct ReadFacts {
    AnswerRegion region;
  };
  // Copies `length` bytes of one generation. Progress::waiting never occurs.
  Progress read(const std::string& name, uint64_t offset, uint64_t length, Patience patience, uint8_t* into, Code* code,
                ReadFacts* facts);

  // Extents of [offset, offset + length), at most `most` (see file.h). Blocks for the disk. Bytes that were answered and not
  // applied yet may be in a hole still.
  Code extents(const std::string& name, uint64_t offset, uint64_t length, size_t most, std::vector<Extent>* extents,
               ReadFacts* facts);

  // A part of a region, and how many bytes of it hold data (as an extent does) and are in memory.
  struct Slice {
    uint64_t offset, length, data_bytes, resident_bytes;
  };
  // Slices that begin at multiples of `granularity` (a multiple of kPageBytes) and are as long, but for the region's last, in
  // their order from the one that holds `offset` on, at most `most`. Looks at a bounded number of bytes and extents and ends
  // with the slice in which it has seen as many: at least one if there is one, so `granularity` bounds the time. Blocks for
  // the disk. region_not_found, region_faulted, out_of_bounds.
  Code slices(const std::string& name, uint64_t offset, uint64_t granularity, size_t most, std::vector<Slice>* slices,
              ReadFacts* facts);

  std::vector<std::string> names();
  std::optional<RegionInfo> info(const std::string& name);
  StoreStatus status();

  // Changes of regions. All block, from any thread that may. `detail` explains a refusal.
  Code create(const RegionMeta& meta, const Conditions& conditions, MetaResult* result, std::string* detail);
  Code update(const std::string& name, const MetaChange& change, const Conditions& conditions, MetaResult* result,
              std::string* detail);
  Code remove(const std::string& name, const Conditions& conditions, MetaResult* result, std::string* detail);
  // `out` stays null when the key was used before: `result` then has what was answered.
  Code begin_upload(const RegionMeta& meta, const Conditions& conditions, std::unique_ptr<NewRegion>* out,
                    MetaResult* result, std::string* detail);
  Code publish(std::unique_ptr<NewRegion> made, const Conditions& conditions, MetaResult* result, std::string* detail);

  // Makes a snapshot of the region as it is when nothing waits to be applied. Batches go on while its pages are copied; the
  // region's size and files stay until it is there. Refuses a second one at a time as snapshot_in_progress.
  Code make_snapshot(const std::string& name, const Conditions& conditions, MetaResult* result, std::string* detail);
  Code remove_snapshot(const std::string& name, uint64_t id, const Conditions& conditions, MetaResult* result,
                       std::string* detail);
  // Puts the bytes of a snapshot in the place of the region's: a new incarnation at the next generation. Needs a condition.
  Code restore(const std::string& name, uint64_t id, const Conditions& conditions, MetaResult* result,
               std::string* detail);
  // By age. region_not_found.
  Code snapshots(const std::string& name, std::vector<Snapshot>* list);
  std::optional<Snapshot> snapshot(const std::string& name, uint64_t id);
  // Reads `length` bytes of a snapshot. Blocks for the disk. snapshot_not_found, out_of_bounds.
  Code read_snapshot(const std::string& name, uint64_t id, uint64_t offset, uint64_t length, uint8_t* into);
  // Ranges from `offset` on in which the region's bytes differ from a snapshot's, in whole pages, at most `most`; what only
  // the region has differs. `next` is where to go on: the region's size at the end. Looks at a bounded number of bytes,
  // maybe without finding any difference. `facts` are as of before the look. Blocks for the disk.
  Code compare(const std::string& name, uint64_t id, uint64_t offset, size_t most, std::vector<Span64>* ranges,
               uint64_t* next, ReadFacts* facts);

  // Makes everything committed so far durable and visible. Blocks. Empty name: all regions.
  Code flush(const std::string& name);

  // One round of the flusher: false when there was nothing to do.
  bool flush_step();
  // One checkpoint. errno value.
  int checkpoint_step() { return checkpoint(false); }

  // Flushes, checkpoints and stops. Everything after it answers `cancelled`. Idempotent; blocks.
  void close();

 private:
  struct Pending {
    uint64_t lsn;
    ChainEnd before;  // where the record starts, and its seed
    bool answered;    // at its publication
  };
  struct Waiter {
    uint64_t lsn;  // answered when everything up to it is durable and applied
    uint64_t ticket;
    std::vector<uint8_t> answer;
    std::vector<std::shared_ptr<Region>> regions;
  };
  // A region that lacks records, as of a look under the lock.
  struct Faulted {
    std::shared_ptr<Region> region;
    uint64_t fault_lsn, saved_lsn;
  };
  using Lock = std::unique_lock<std::mutex>;
  class CommittedSource;

  explicit Store(StoreOptions options);

  // store_open.cc
  Code open_files(std::string* detail);
  Code open_regions(std::string* detail);
  Code recover(std::string* detail);
  int redo(const RecordHeader* record, bool again);
  int keep_journal(std::string* name);
  int mark_unverified(const std::shared_ptr<Region>& region);
  void redo_saved(const std::shared_ptr<Region>& region);
  int fresh_chain();
  int write_words();
  int resize_journal();
  void start_threads();

  // store.cc
  bool regions_of(const Batch& batch, std::vector<std::shared_ptr<Region>>* regions, Staging* staging);
  void publish_record(const ChainEnd& next);
  bool apply_images(const RecordHeader* record, const std::vector<Image>* staged = nullptr);
  void apply_pending(uint64_t target);
  void advance_applied();
  void poison(Region* region, const std::string& why, uint64_t lsn);
  void poison_after_sync_error(const std::shared_ptr<Region>& region, int error);
  void find_poisoned();
  void settle(uint64_t target, int sync_error);
  // `everything`: the data of `fast` regions is made durable as well, for an orderly end.
  int checkpoint(bool everything);
  bool wait_for_space(Lock& lock, uint64_t bytes);
  bool wait_applied(Lock& lock, uint64_t lsn);
  bool answered(uint64_t lsn) const;
  void replay(const Outcome& earlier, std::vector<uint8_t>* answer) const;
  uint64_t free_bytes() const { return journal_.ring_bytes() - (head_.position - journal_.checkpoint().position); }
  AnswerRegion answer_region(const Region& region) const;
  void deliver(Lock& lock);
  int flush_once(Lock& lock);
  void fault_after_sync_error(int error);
  std::vector<Faulted> faulted_regions() const;
  int save_redo(const std::vector<Faulted>& faulted, uint64_t up_to);
  void run_flusher();
  void run_checkpointer();

  // store_regions.cc
  Code check(const std::shared_ptr<Region>& region, const Conditions& conditions, std::string* detail) const;
  Code find_region(const std::string& name, const Conditions& conditions, std::shared_ptr<Region>* found,
                   std::string* detail) const;
  Code may_create(const std::string& name, const Conditions& conditions, std::string* detail) const;
  bool replay(const Conditions& conditions, MetaResult* result, Code* code);
  Code begin(const RegionMeta& wanted, const Conditions& conditions, bool stream, std::unique_ptr<NewRegion>* out,
             MetaResult* result, std::string* detail);
  uint32_t regions_max() const { return std::min(options_.regions_max, journal_.region_capacity()); }
  static uint64_t change_bytes(size_t regions, size_t payload_bytes, const Conditions& conditions);
  bool quiet(uint64_t bytes) const {
    return pending_.empty() && bytes <= free_bytes() && !unfinished_ && !journal_failed_;
  }
  Code become_quiet(Lock& lock, uint64_t bytes);
  Code publish_change(RecordKind kind, std::span<const RecordRegion> named, std::span<const uint8_t> payload,
                      const Conditions& conditions, std::string* detail);
  Code leave_unfinished(const ChainEnd& before, int error, const std::string& what, std::string* detail);
  int apply_create(const RegionMeta& meta, uint64_t generation);
  int apply_meta(const std::shared_ptr<Region>& region, const RegionMeta& meta, bool staged);
  int apply_remove(const std::shared_ptr<Region>& region);
  void drop_region(const std::shared_ptr<Region>& region);
  Code make_files(const RegionMeta& meta, bool stream, std::unique_ptr<NewRegion>* out, std::string* detail);
  int write_meta(const File& directory, const RegionMeta& meta);
  int stage_meta(const File& directory, const RegionMeta& meta);
  int place_meta(const File& directory);
  uint64_t new_incarnation();
  RegionInfo info_of(const Region& region) const;

  // store_snapshots.cc
  class Staged;
  Code may_snapshot(const Region& region, std::string* detail) const;
  Code may_restore(const Region& region, const Conditions& conditions, std::string* detail) const;
  Code find_snapshot(const std::string& name, uint64_t id, Snapshot* found) const;
  Code take_bytes(const std::string& name, const std::shared_ptr<Region>& region, const Conditions& conditions,
                  const File& to, Snapshot* snapshot, std::string* detail);
  Code copy_pages(const std::shared_ptr<Region>& region, const File& to, uint64_t size, SnapshotCopy* copy, int* error);
  Code copy_code(const Region& region) const;
  int open_snapshot(const std::string& name, uint64_t id, File* data) const;
  int apply_snapshot(const Snapshot& snapshot);
  int apply_forget(const Snapshot& snapshot);
  Code open_snapshots(std::string* detail);

  StoreOptions options_;
  File root_, regions_directory_, snapshots_directory_, lease_;
  Mapping words_mapping_;
  StoreWords* words_ = nullptr;
  Journal journal_;
  std::string file_system_name_;
  bool temporary_file_system_ = false;
  uint64_t lease_since_ms_ = 0;
  RecoveryReport report_;

  std::mutex checkpoint_lock_;
  mutable std::mutex lock_;
  std::condition_variable flusher_wake_, checkpointer_wake_, progress_;
  std::map<std::string, std::shared_ptr<Region>, std::less<>> regions_;
  std::map<uint64_t, std::shared_ptr<Region>> by_incarnation_;
  std::map<std::string, std::map<uint64_t, Snapshot>, std::less<>> snapshots_;  // by the region's name, by id
  ChainEnd head_;                                                               // the last committed record
  ChainEnd applied_end_;  // the last of the unbroken run of applied ones
  uint64_t durable_ = 0;  // records up to it are on disk
  Overlay overlay_;
  Outcomes outcomes_;
  std::deque<Pending> pending_;
  std::deque<Waiter> waiters_;
  std::vector<Settled> settled_;  // filled under the lock, handed out after it
  uint64_t flush_wanted_ = 0;     // flush at once up to this lsn
  uint64_t oldest_pending_us_ = 0;
  bool checkpoint_wanted_ = false;
  uint32_t changes_waiting_ = 0;        // changes of regions that wait for pending_ to run empty
  std::optional<ChainEnd> unfinished_;  // before a change that could not be applied; no checkpoint passes it
  uint64_t poisoned_lsn_ = 0;           // the first record that a faulted region needs and no redo file has; 0: none
  bool distrusted_ = false;             // a fast region may lack what no record has: the store is not closed in order
  bool journal_failed_ = false;         // an fdatasync of the journal failed: only fast regions go on
  bool recovering_ = false;             // images are applied without settling their region
  bool closing_ = false;
  uint64_t last_incarnation_ = 0;
  uint64_t commits_ = 0, flushes_ = 0, checkpoints_ = 0;
  std::thread flusher_, checkpointer_, populator_;
};

}  // namespace holdfast
