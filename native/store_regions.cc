// store_regions.cc - changes of regions themselves: create, update, remove. Each is a record of its own, made durable
// before it is applied whatever the region's mode, while no batch waits to be applied.
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>

#include "critical_section.h"
#include "failpoint.h"
#include "record.h"
#include "store.h"

namespace holdfast {

namespace {

// What decode_meta would refuse must never be written.
bool meta_valid(const RegionMeta& meta, std::string* detail) {
  if (meta.size > kRegionBytesMax) *detail = "a region has at most " + std::to_string(kRegionBytesMax) + " bytes";
  if (!durability_known(meta.durability)) *detail = "there is no such durability";
  return meta.size <= kRegionBytesMax && durability_known(meta.durability);
}

Code fail(std::string* detail, int error, const std::string& what) {
  *detail = what + ": " + strerror(error);
  return file_code(error);
}

// Of a change's outcome: the kind, padding and two generations. The meta follows.
constexpr size_t kChangeAnswerBytes = 24;

std::string old_snapshots_name(uint64_t incarnation) { return old_name(incarnation) + "-snapshots"; }

bool any_match(const std::vector<Etag>& etags, const Region& region) {
  return std::any_of(etags.begin(), etags.end(), [&](const Etag& etag) {
    return etag.incarnation == region.meta.incarnation && etag.meta_generation == region.meta.meta_generation &&
           etag.generation == region.generation;
  });
}

}  // namespace

NewRegion::~NewRegion() {
  if (!published && !directory_name.empty()) {
    region.reset();
    remove_tree_at(root, directory_name);
  }
}

int NewRegion::append(std::span<const uint8_t> bytes) {
  if (int error = write_all(region->data().open() ? region->data() : data, bytes, size)) return error;
  size += bytes.size();
  return 0;
}

Code Store::check(const std::shared_ptr<Region>& region, const Conditions& c, std::string* detail) const {
  // RFC 9110, 13.2.2: If-Match first, then If-None-Match; the number twin last.
  if (c.if_match && !(region && (c.if_match_any || any_match(c.match, *region)))) {
    *detail = "no entity tag of If-Match is the region's";
    return Code::etag_mismatch;
  }
  if (c.if_none_match && region && (c.if_none_match_any || any_match(c.none_match, *region))) {
    *detail = "an entity tag of If-None-Match is the region's";
    return Code::etag_mismatch;
  }
  if (c.if_generation && !(region && region->generation == *c.if_generation)) {
    *detail = region ? "the region is at generation " + std::to_string(region->generation) : "there is no such region";
    return Code::generation_mismatch;
  }
  return Code::ok;
}

// The region that a change is about, if its conditions hold. The caller holds the lock.
Code Store::find_region(const std::string& name, const Conditions& conditions, std::shared_ptr<Region>* found,
                        std::string* detail) const {
  auto it = regions_.find(name);
  if (it == regions_.end()) return conditions.if_match ? Code::etag_mismatch : Code::region_not_found;
  *found = it->second;
  return check(it->second, conditions, detail);
}

bool Store::replay(const Conditions& c, MetaResult* result, Code* code) {
  if (!c.has_key) return false;
  const Outcome* earlier = outcomes_.find(c.key);
  if (!earlier) return false;
  if (memcmp(earlier->header.fingerprint, c.fingerprint, sizeof c.fingerprint) != 0) {
    *code = Code::idempotency_key_reused;
  } else if (!answered(earlier->lsn)) {
    *code = Code::idempotency_in_progress;
  } else {
    // The outcome of a change is one byte for its kind, the generations and the meta as it was then.
    RegionInfo& info = result->info;
    std::span<const uint8_t> answer = earlier->answer;
    *code = Code::store_corrupt;
    if (answer.size() < kChangeAnswerBytes) return true;
    RecordKind kind = static_cast<RecordKind>(answer[0]);
    memcpy(&info.generation, answer.data() + 8, 8);
    memcpy(&info.durable_generation, answer.data() + 16, 8);
    answer = answer.subspan(kChangeAnswerBytes);
    const bool of_snapshot = kind == RecordKind::snapshot || kind == RecordKind::forget;
    if (of_snapshot ? !decode_snapshot(answer, &result->snapshot) : !decode_meta(answer, &info.meta)) return true;
    result->replayed = true;
    result->created = kind == RecordKind::create || kind == RecordKind::snapshot;
    result->removed = kind == RecordKind::remove || kind == RecordKind::forget;
    *code = Code::ok;
  }
  return true;
}

uint64_t Store::new_incarnation() {
  last_incarnation_ = std::max(last_incarnation_ + 1, now_us());
  return last_incarnation_;
}

// Bytes of the record that publish_change() writes.
uint64_t Store::change_bytes(size_t regions, size_t payload_bytes, const Conditions& conditions) {
  const uint64_t outcome = conditions.has_key ? sizeof(OutcomeHeader) + kChangeAnswerBytes + payload_bytes : 0;
  return record_bytes(regions, {}, payload_bytes, outcome);
}

// Waits until nothing is pending and the ring has room for a record of `bytes`; then the caller may change regions, for
// as long as it keeps the lock. The lock is let go meanwhile: on ok, look at everything again.
Code Store::become_quiet(Lock& lock, uint64_t bytes) {
  changes_waiting_++;  // batches that would have to wait for a sync stand back, or there would always be another one
  Code code = Code::ok;
  while (code == Code::ok && !quiet(bytes)) {
    if (unfinished_)  // maybe only since this began: another change was waiting, too
      code = Code::flush_failed;
    else if (!wait_applied(lock, head_.lsn))
      code = closing_ ? Code::cancelled : Code::flush_failed;
    else if (bytes > free_bytes() && !wait_for_space(lock, bytes))
      code = closing_ ? Code::cancelled : Code::overloaded;
  }
  changes_waiting_--;
  progress_.notify_all();
  return code;
}

// Publishes and syncs a record about a region or a snapshot, `payload`. The outcome tells the generation of the last of the
// regions that it names. The store is quiet(change_bytes()), and the caller applies on ok. On an error, head_ tells whether
// the record was published all the same: then a recovery will take it up.
Code Store::publish_change(RecordKind kind, std::span<const RecordRegion> named, std::span<const uint8_t> payload,
                           const Conditions& conditions, std::string* detail) {
  std::vector<uint8_t> answer;
  OutcomeHeader outcome = {};
  if (conditions.has_key) {
    answer.resize(kChangeAnswerBytes);
    answer[0] = static_cast<uint8_t>(kind);
    memcpy(answer.data() + 8, &named.back().generation, 8);
    memcpy(answer.data() + 16, &named.back().generation, 8);
    answer.insert(answer.end(), payload.begin(), payload.end());
    memcpy(outcome.key, conditions.key, sizeof outcome.key);
    memcpy(outcome.fingerprint, conditions.fingerprint, sizeof outcome.fingerprint);
    outcome.answer_bytes = static_cast<uint32_t>(answer.size());
  }
  if (!critical_begin()) return Code::draining;
  RecordHeader header = {};
  header.kind = kind;
  header.flags = static_cast<uint16_t>(kRecordSynced | (conditions.has_key ? kRecordHasOutcome : 0));
  header.lsn = head_.lsn + 1;
  header.salt = words_->salt;
  header.time_us = outcome.time_us = now_us();
  header.total_bytes = change_bytes(named.size(), payload.size(), conditions);
  header.region_count = static_cast<uint32_t>(named.size());
  header.meta_bytes = static_cast<uint32_t>(payload.size());
  header.outcome_bytes = static_cast<uint32_t>(conditions.has_key ? sizeof outcome + answer.size() : 0);
  header.checkpoint = static_cast<uint32_t>(journal_.checkpoint().sequence);
  const ChainEnd before = head_;
  uint8_t* space = journal_.space_at(before.position);
  RecordWriter writer(space, header, before.crc);
  writer.regions(named);
  writer.meta(payload);
  if (conditions.has_key) writer.outcome(outcome, answer);
  uint32_t crc = writer.finish();
  writer.seal(crc);
  publish_record({before.lsn + 1, before.position + reinterpret_cast<const RecordHeader*>(space)->total_bytes, crc});
  HOLDFAST_FAILPOINT("change_published");
  commits_++;
  if (conditions.has_key) outcomes_.add(outcome, answer, head_.lsn);
  int error = journal_.sync();
  flushes_++;
  critical_end();
  if (error) {
    fault_after_sync_error(error);
    if (kind == RecordKind::meta || kind == RecordKind::replace || kind == RecordKind::remove)
      // The next start would do the change to what the region takes from now on, a fast one as well.
      by_incarnation_.at(named[0].incarnation)
          ->set_fault(std::string("a change of the region could not be made durable: ") + strerror(error), 0);
    return leave_unfinished(before, error, "the journal could not be made durable; if the machine lives until then",
                            detail);
  }
  durable_ = head_.lsn;
  HOLDFAST_FAILPOINT("change_synced");
  return Code::ok;
}

// A change that is committed but could not be applied: the next opening redoes it, so no checkpoint may pass it, and no
// other change may come after it.
Code Store::leave_unfinished(const ChainEnd& before, int error, const std::string& what, std::string* detail) {
  unfinished_ = before;
  advance_applied();
  fail(detail, error, what + "; the next start will");
  return Code::unfinished;
}

int Store::write_meta(const File& directory, const RegionMeta& meta) {
  if (int error = stage_meta(directory, meta)) return error;
  return place_meta(directory);
}

int Store::stage_meta(const File& directory, const RegionMeta& meta) {
  File file;
  if (int error = open_at(directory, "meta.new", O_RDWR | O_CREAT | O_TRUNC, &file)) return error;
  if (int error = write_all(file, encode_meta(meta), 0)) return error;
  return sync_all(file);
}

int Store::place_meta(const File& directory) {
  if (int error = replace_at(directory, "meta.new", "meta")) return error;
  return sync_all(directory);
}

// Makes .new-INCARNATION with everything a region has; `stream`: the data comes later, by append.
Code Store::make_files(const RegionMeta& meta, bool stream, std::unique_ptr<NewRegion>* out, std::string* detail) {
  auto made = std::make_unique<NewRegion>();
  made->directory_name = new_name(meta.incarnation);
  made->region = std::make_shared<Region>();
  made->region->meta = meta;
  std::string what = "can't make region " + meta.name;
  if (int error = open_directory_at(root_, ".", &made->root)) return fail(detail, error, what);
  if (int error = make_directory_at(root_, made->directory_name)) return fail(detail, error, what);
  File directory;
  int error = open_directory_at(root_, made->directory_name, &directory);
  if (!error && stream) error = open_at(directory, "data", O_RDWR | O_CREAT | O_EXCL, &made->data);
  if (!error && !stream) error = made->region->open(directory, true);
  if (!error && !stream) error = sync_all(made->region->data());
  FileSystem kind = FileSystem::good;
  std::string file_system;
  if (!error && (meta.flags & kMetaAdopted)) error = file_system_of(made->region->data(), &kind, &file_system);
  if (!error && kind == FileSystem::unsupported && !options_.allow_any_file_system) {
    *detail = meta.path + " is on " + file_system + ", where a mapping and fdatasync may not mean what a region needs";
    return Code::unsupported_file_system;
  }
  if (!error && !stream) error = write_meta(directory, meta);
  if (error) {
    if ((meta.flags & kMetaAdopted) && error != ENOSPC) what = "can't adopt " + meta.path;
    return fail(detail, error, what);
  }
  *out = std::move(made);
  return Code::ok;
}

Code Store::create(const RegionMeta& wanted, const Conditions& conditions, MetaResult* result, std::string* detail) {
  std::unique_ptr<NewRegion> made;
  Code code = begin(wanted, conditions, false, &made, result, detail);
  if (code != Code::ok || result->replayed) return code;
  return publish(std::move(made), conditions, result, detail);
}

Code Store::begin_upload(const RegionMeta& wanted, const Conditions& conditions, std::unique_ptr<NewRegion>* out,
                         MetaResult* result, std::string* detail) {
  return begin(wanted, conditions, true, out, result, detail);
}

// Whether a region of this name may be made now. The caller holds the lock.
Code Store::may_create(const std::string& name, const Conditions& conditions, std::string* detail) const {
  auto it = regions_.find(name);
  const Code code = check(it == regions_.end() ? nullptr : it->second, conditions, detail);
  if (code != Code::ok) return code;
  if (it != regions_.end()) return Code::region_exists;
  return regions_.size() < regions_max() ? Code::ok : Code::too_many_regions;
}

Code Store::begin(const RegionMeta& wanted, const Conditions& conditions, bool stream, std::unique_ptr<NewRegion>* out,
                  MetaResult* result, std::string* detail) {
  RegionMeta meta = wanted;
  {
    Lock lock(lock_);
    Code code = Code::ok;
    if (closing_) return Code::cancelled;
    if (replay(conditions, result, &code)) return code;
    code = may_create(meta.name, conditions, detail);
    if (code != Code::ok) return code;
    meta.incarnation = new_incarnation();
  }
  if (!region_name_valid(meta.name) || !meta_valid(meta, detail)) return Code::validation_failed;
  if (temporary_file_system_ && meta.durability == Durability::durable) {
    *detail = "the store is on " + file_system_name_ + ", which forgets everything with the machine";
    return Code::durability_unavailable;
  }
  meta.meta_generation = 1;
  meta.created_us = meta.modified_us = now_us();
  return make_files(meta, stream, out, detail);
}

Code Store::publish(std::unique_ptr<NewRegion> made, const Conditions& conditions, MetaResult* result,
                    std::string* detail) {
  RegionMeta meta = made->region->meta;
  if (made->data.open()) {
    // A streamed one: its size is known only now.
    if (made->size == 0) {
      *detail = "a region has at least one byte";
      return Code::validation_failed;
    }
    meta.size = made->size;
    if (!meta_valid(meta, detail)) return Code::validation_failed;
    File directory;
    int error = sync_all(made->data);
    made->data.close();
    if (!error) error = open_directory_at(root_, made->directory_name, &directory);
    auto region = std::make_shared<Region>();
    region->meta = meta;
    if (!error) error = region->open(directory, false);
    if (!error) error = write_meta(directory, meta);
    if (error) return fail(detail, error, "can't make region " + meta.name);
    made->region = std::move(region);
  }
  if (int error = sync_all(root_)) return fail(detail, error, "can't make region " + meta.name);

  const std::vector<uint8_t> encoded = encode_meta(meta);
  Lock lock(lock_);
  Code code = Code::ok;
  for (;;) {
    if (closing_) return Code::cancelled;
    if (replay(conditions, result, &code)) return code;
    // Asked again: another request may have made it meanwhile.
    code = may_create(meta.name, conditions, detail);
    if (code != Code::ok) return code;
    uint64_t bytes = change_bytes(1, encoded.size(), conditions);
    if (quiet(bytes)) break;
    code = become_quiet(lock, bytes);
    if (code != Code::ok) return code;
  }
  ChainEnd before = head_;
  const RecordRegion named[] = {{meta.incarnation, 0}};
  code = publish_change(RecordKind::create, named, encoded, conditions, detail);
  made->published = head_.lsn != before.lsn;  // from here on a recovery may want the files
  if (code != Code::ok) return code;
  if (int error = apply_create(meta, 0))
    return leave_unfinished(before, error, "can't put region " + meta.name + " into place", detail);
  advance_applied();
  result->created = true;
  result->info = info_of(*by_incarnation_.at(meta.incarnation));
  return Code::ok;
}

// Renames the made files into place, in that of a region which is being replaced, and opens them. For a commit and for a
// recovery.
int Store::apply_create(const RegionMeta& meta, uint64_t generation) {
  std::string from = new_name(meta.incarnation);
  // Put into place before, and removed since by a record that follows. What has the name now is another region.
  if (!exists_at(root_, from)) return 0;
  if (auto it = regions_.find(meta.name); it != regions_.end()) {
    const std::shared_ptr<Region> old = it->second;
    old->retire();
    if (int error = rename_at(root_, "regions/" + meta.name, old_name(old->meta.incarnation))) return error;
    HOLDFAST_FAILPOINT("replace_old_renamed");
    drop_region(old);
  }
  if (int error = rename_at(root_, from, "regions/" + meta.name)) return error;
  if (int error = sync_all(regions_directory_)) return error;
  if (int error = sync_all(root_)) return error;
  HOLDFAST_FAILPOINT("create_renamed");
  File directory;
  if (int error = open_directory_at(regions_directory_, meta.name, &directory)) return error;
  auto region = std::make_shared<Region>();
  region->meta = meta;
  region->generation = region->visible_generation = region->durable_generation = generation;
  if (int error = region->open(directory, false)) return error;
  if (int error = region->reset_control()) return error;
  last_incarnation_ = std::max(last_incarnation_, meta.incarnation);
  by_incarnation_[meta.incarnation] = region;
  regions_[meta.name] = std::move(region);
  return 0;
}

Code Store::update(const std::string& name, const MetaChange& change, const Conditions& conditions, MetaResult* result,
                   std::string* detail) {
  std::unique_lock<std::mutex> no_checkpoint(checkpoint_lock_, std::defer_lock);
  Lock lock(lock_);
  std::shared_ptr<Region> region;
  RegionMeta meta;
  std::vector<uint8_t> encoded;
  bool resized = false, crosses_fast = false;
  for (;;) {
    Code code = Code::ok;
    if (closing_) return Code::cancelled;
    if (replay(conditions, result, &code)) return code;
    code = find_region(name, conditions, &region, detail);
    if (code != Code::ok) return code;

    meta = region->meta;
    if (change.size) meta.size = *change.size;
    if (change.labels) meta.labels = *change.labels;
    if (change.durability) meta.durability = *change.durability;
    if (!meta_valid(meta, detail)) return Code::validation_failed;
    if (change.read_only) meta.flags = *change.read_only ? meta.flags | kMetaReadOnly : meta.flags & ~kMetaReadOnly;
    if (change.verified) meta.flags &= ~kMetaUnverified;
    meta.meta_generation++;
    meta.modified_us = now_us();
    resized = meta.size != region->meta.size;
    crosses_fast = (region->meta.durability == Durability::fast) != (meta.durability == Durability::fast);
    if ((resized || crosses_fast) && region->faulted()) return Code::region_faulted;
    if (resized && region->snapshotting) return Code::snapshot_in_progress;
    if (resized && (region->meta.flags & kMetaReadOnly) && (meta.flags & kMetaReadOnly)) return Code::region_read_only;
    if (meta.size < region->meta.size && !conditions.if_match && !conditions.if_generation) {
      *detail = "shrinking from " + std::to_string(region->meta.size) + " to " + std::to_string(meta.size) +
                " bytes loses data: say If-Match";
      return Code::precondition_required;
    }
    if (temporary_file_system_ && meta.durability == Durability::durable &&
        region->meta.durability != Durability::durable) {
      *detail = "the store is on " + file_system_name_ + ", which forgets everything with the machine";
      return Code::durability_unavailable;
    }
    if (resized && region->resized_lsn > journal_.checkpoint().lsn) {
      // A redo of older batches must never meet two changes of size: the earlier one leaves the ring first.
      if (no_checkpoint.owns_lock()) no_checkpoint.unlock();
      lock.unlock();
      if (int error = checkpoint_step()) return error == ECANCELED ? Code::cancelled : Code::flush_failed;
      lock.lock();
      continue;
    }
    encoded = encode_meta(meta);
    uint64_t bytes = change_bytes(1, encoded.size(), conditions);
    if (quiet(bytes)) {
      // A sync of the data that fails needs the records since the checkpoint: none may be written meanwhile that frees them.
      if (!(resized || crosses_fast) || no_checkpoint.owns_lock() || no_checkpoint.try_lock()) break;
      changes_waiting_++;
      lock.unlock();
      no_checkpoint.lock();
      lock.lock();
      changes_waiting_--;
      progress_.notify_all();
      continue;
    }
    // To wait for space is to wait for a checkpoint.
    if (no_checkpoint.owns_lock()) no_checkpoint.unlock();
    code = become_quiet(lock, bytes);
    if (code != Code::ok) return code;
  }

  if (crosses_fast) {
    // What was written without a sync must not tear under a promise that begins now; and what was promised so far must be on
    // the disk before checkpoints pass over the region.
    if (int error = sync_data(region->data())) {
      poison_after_sync_error(region, error);
      return Code::flush_failed;
    }
  }
  // Everything that needs space is done before the commit point: a full disk refuses the change, it doesn't break it.
  uint64_t grown_from = meta.size;
  int error = 0;
  if (meta.size > region->meta.size) {
    // An adopted file may be longer than its region; that much of it stays as it is.
    FileFacts facts;
    error = file_facts(region->data(), &facts);
    grown_from = (meta.flags & kMetaAdopted) ? std::max(facts.size, region->meta.size) : region->meta.size;
    if (!error && meta.size > grown_from)
      error = (meta.flags & kMetaSparse) ? truncate_to(region->data(), meta.size)
                                         : allocate_to(region->data(), grown_from, meta.size);
    if (const int unsynced = error ? 0 : sync_all(region->data())) {
      // It may be of a page that was stored to long ago; the next checkpoint's sync would say that all is well.
      if (meta.size > grown_from) truncate_to(region->data(), grown_from);
      poison_after_sync_error(region, unsynced);
      return Code::flush_failed;
    }
  }
  if (!error) error = stage_meta(region->directory(), meta);
  if (!error && HOLDFAST_MUTANT("meta_placed_before_publish")) {
    error = place_meta(region->directory());
    if (!error) error = stage_meta(region->directory(), meta);
  }
  ChainEnd before = head_;
  uint64_t generation = region->generation + (resized ? 1 : 0);
  const RecordRegion named[] = {{meta.incarnation, generation}};
  Code code = error ? fail(detail, error,
                           resized ? "can't resize region " + name + " to " + std::to_string(meta.size) + " bytes"
                                   : "can't change region " + name)
                    : publish_change(RecordKind::meta, named, encoded, conditions, detail);
  if (head_.lsn == before.lsn) {
    if (meta.size > grown_from) truncate_to(region->data(), grown_from);
    remove_file_at(region->directory(), "meta.new");
  }
  if (code != Code::ok) return code;
  error = apply_meta(region, meta, true);
  region->generation = generation;
  if (error) {
    region->set_fault(std::string("a change of the region could not be finished: ") + strerror(error), 0);
    return leave_unfinished(before, error, "can't finish the change of region " + name, detail);
  }
  if (resized) {
    region->sequence_close(generation);
    region->resized_lsn = head_.lsn;
  }
  if (meta.durability != Durability::fast) region->durable_generation = generation;
  if (change.verified) region->lift_doubt();
  advance_applied();
  result->info = info_of(*region);
  return Code::ok;
}

// `staged`: the new meta file waits to be renamed.
int Store::apply_meta(const std::shared_ptr<Region>& region, const RegionMeta& meta, bool staged) {
  uint64_t old_size = region->meta.size;
  if (int error = staged ? place_meta(region->directory()) : write_meta(region->directory(), meta)) return error;
  HOLDFAST_FAILPOINT("meta_replaced");
  region->meta = meta;
  return meta.size == old_size ? 0 : region->resized(old_size);
}

Code Store::remove(const std::string& name, const Conditions& conditions, MetaResult* result, std::string* detail) {
  std::shared_ptr<Region> region;
  {
    Lock lock(lock_);
    Code code = Code::ok;
    std::vector<uint8_t> encoded;
    for (;;) {
      if (closing_) return Code::cancelled;
      if (replay(conditions, result, &code)) return code;
      code = find_region(name, conditions, &region, detail);
      if (code != Code::ok) return code;
      encoded = encode_meta(region->meta);
      uint64_t bytes = change_bytes(1, encoded.size(), conditions);
      if (quiet(bytes)) break;
      code = become_quiet(lock, bytes);
      if (code != Code::ok) return code;
    }
    ChainEnd before = head_;
    const RecordRegion named[] = {{region->meta.incarnation, region->generation}};
    code = publish_change(RecordKind::remove, named, encoded, conditions, detail);
    if (code != Code::ok) return code;
    if (int error = apply_remove(region)) {
      region->set_fault(std::string("the region could not be removed: ") + strerror(error), 0);
      return leave_unfinished(before, error, "can't remove region " + name, detail);
    }
    advance_applied();
    result->removed = true;
  }
  // The blocks go without the lock: a large file takes its time.
  int error = remove_tree_at(root_, old_name(region->meta.incarnation));
  if (!error) error = remove_tree_at(root_, old_snapshots_name(region->meta.incarnation));
  if (!error) return Code::ok;
  fail(detail, error, "region " + name + " is gone, but its files can't be unlinked; the next start will");
  return Code::unfinished;
}

int Store::apply_remove(const std::shared_ptr<Region>& region) {
  const std::string& name = region->meta.name;
  region->retire();
  // The snapshots first, and onto the disk: a redo looks for the region, and a successor of its name must have none.
  if (exists_at(snapshots_directory_, name)) {
    if (int error = rename_at(root_, "snapshots/" + name, old_snapshots_name(region->meta.incarnation))) return error;
    HOLDFAST_FAILPOINT("remove_snapshots_renamed");
    if (int error = sync_all(snapshots_directory_)) return error;
    if (int error = sync_all(root_)) return error;
  }
  snapshots_.erase(name);
  if (int error = rename_at(root_, "regions/" + name, old_name(region->meta.incarnation))) return error;
  HOLDFAST_FAILPOINT("remove_renamed");
  if (int error = sync_all(regions_directory_)) return error;
  if (int error = sync_all(root_)) return error;
  drop_region(region);
  return 0;
}

void Store::drop_region(const std::shared_ptr<Region>& region) {
  region->removed = true;
  by_incarnation_.erase(region->meta.incarnation);
  regions_.erase(region->meta.name);
  // A record that only this region lacked is missed by nobody any more.
  find_poisoned();
}

}  // namespace holdfast
