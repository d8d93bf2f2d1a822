// store_open.cc - opening a store: files, lease, recovery. The decision is recovery.h's; here is the doing.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "failpoint.h"
#include "fault_guard.h"
#include "record.h"
#include "store.h"

namespace holdfast {

namespace {

constexpr char kCorruptName[] = "journal.corrupt";  // of the first one that is kept; journal.corrupt-2 and so on follow

Code fail(std::string* detail, int error, const std::string& what) {
  *detail = what + ": " + strerror(error);
  return file_code(error);
}

}  // namespace

Store::Store(StoreOptions options)
    : options_(std::move(options)), outcomes_(options_.idempotency_keys_min, options_.idempotency_seconds_min) {}

Code Store::open(StoreOptions options, std::unique_ptr<Store>* out, std::string* detail) {
  fault_guard_install();
  // At least four of the largest batches, in whole pages: one may be written while another waits for its checkpoint.
  options.journal_bytes = padded_to(std::max(options.journal_bytes, 4 * options.batch.batch_bytes_max), kPageBytes);
  std::unique_ptr<Store> store(new Store(std::move(options)));
  Code code = store->open_files(detail);
  if (code == Code::ok) code = store->open_regions(detail);
  if (code == Code::ok) code = store->recover(detail);
  if (code != Code::ok) {
    store->closing_ = true;  // nothing to flush: what was found stays as it was found
    return code;
  }
  store->start_threads();
  *out = std::move(store);
  return Code::ok;
}

Code Store::open_files(std::string* detail) {
  const std::string& dir = options_.directory;
  if (int error = open_directory(dir, true, &root_)) return fail(detail, error, "can't open the data directory " + dir);
  FileSystem kind = FileSystem::good;
  if (int error = file_system_of(root_, &kind, &file_system_name_))
    return fail(detail, error, "can't examine the file system of " + dir);
  temporary_file_system_ = kind == FileSystem::temporary;
  if (kind == FileSystem::unsupported && !options_.allow_any_file_system) {
    *detail = dir + " is on " + file_system_name_ +
              ", where a mapping and fdatasync may not mean what a store needs; use ext4, xfs, btrfs or tmpfs, or "
              "allow any file system";
    return Code::unsupported_file_system;
  }
  if (int error = open_at(root_, "store.lock", O_RDWR | O_CREAT, &lease_))
    return fail(detail, error, "can't open " + dir + "/store.lock");
  if (int error = lease_try(lease_)) {
    if (error != EAGAIN) return fail(detail, error, "can't lock " + dir + "/store.lock");
    if (!options_.standby) {
      *detail = dir + " is in use by another process; stop that one, or wait as its standby";
      return Code::lease_held;
    }
    if (options_.on_standby) options_.on_standby();
    if (int waited = lease_wait(lease_)) return fail(detail, waited, "can't wait for " + dir + "/store.lock");
  }
  lease_since_ms_ = now_us() / 1000;
  HOLDFAST_FAILPOINT("lease_taken");
  FileFacts facts;
  if (int error = file_facts(lease_, &facts)) return fail(detail, error, "can't examine " + dir + "/store.lock");
  if (facts.size < kPageBytes)
    if (int error = allocate_to(lease_, facts.size, kPageBytes))
      return fail(detail, error, "can't allocate " + dir + "/store.lock");
  if (int error = words_mapping_.map(lease_, 0, kPageBytes))
    return fail(detail, error, "can't map " + dir + "/store.lock");
  words_ = reinterpret_cast<StoreWords*>(words_mapping_.data());

  if (int made = make_directory_at(root_, "regions"); made && made != EEXIST)
    return fail(detail, made, "can't make " + dir + "/regions");
  if (int opened = open_directory_at(root_, "regions", &regions_directory_))
    return fail(detail, opened, "can't open " + dir + "/regions");

  if (int made = make_directory_at(root_, "snapshots"); made && made != EEXIST)
    return fail(detail, made, "can't make " + dir + "/snapshots");
  if (int opened = open_directory_at(root_, "snapshots", &snapshots_directory_))
    return fail(detail, opened, "can't open " + dir + "/snapshots");

  int error = journal_.open(root_);
  if (error == ENOENT) {
    std::vector<std::string> regions;
    if (int listed = list_directory(regions_directory_, &regions))
      return fail(detail, listed, "can't list " + dir + "/regions");
    if (!regions.empty()) {
      // Their generations are in it: begun anew, an entity tag would match bytes that it never stood for.
      *detail = dir + "/journal is missing, but there are regions; restore it, or move " + dir + "/regions away";
      return Code::store_corrupt;
    }
    Checkpoint first;
    first.sequence = 1;
    first.salt = random_u64();
    first.clean = true;
    error = Journal::create(root_, options_.journal_bytes, options_.regions_max, first);
    if (error) return fail(detail, error, "can't make " + dir + "/journal");
    error = journal_.open(root_);
  }
  if (error == EBADMSG) {
    *detail = dir + "/journal has no valid checkpoint; restore " + dir +
              " from a backup, or move all of it away to start anew";
    return Code::store_corrupt;
  }
  if (error) return fail(detail, error, "can't open " + dir + "/journal");
  if (int opened = outcomes_.open(root_)) return fail(detail, opened, "can't open the outcomes files in " + dir);
  return Code::ok;
}

Code Store::open_regions(std::string* detail) {
  std::vector<std::string> names;
  if (int error = list_directory(regions_directory_, &names))
    return fail(detail, error, "can't list " + options_.directory + "/regions");
  for (const std::string& name : names) {
    if (!region_name_valid(name)) continue;
    std::string path = options_.directory + "/regions/" + name;
    File directory;
    if (int error = open_directory_at(regions_directory_, name, &directory))
      return fail(detail, error, "can't open " + path);
    File file;
    std::vector<uint8_t> bytes;
    int error = open_at(directory, "meta", O_RDONLY, &file);
    if (!error) error = read_whole(file, size_t{4} << 20, &bytes);
    if (error) return fail(detail, error, "can't read " + path + "/meta");
    auto region = std::make_shared<Region>();
    if (!decode_meta(bytes, &region->meta) || region->meta.name != name) {
      *detail = path + "/meta does not decode; restore it, or move the region's directory away";
      return Code::store_corrupt;
    }
    if (int opened = region->open(directory, false)) return fail(detail, opened, "can't open the files of " + path);
    // A change that was staged and never published. One that was published is staged anew by its redo.
    if (int removed = remove_file_at(directory, "meta.new"))
      return fail(detail, removed, "can't remove the unfinished " + path + "/meta.new");
    last_incarnation_ = std::max(last_incarnation_, region->meta.incarnation);
    by_incarnation_[region->meta.incarnation] = region;
    regions_[name] = std::move(region);
  }
  return open_snapshots(detail);
}

Code Store::recover(std::string* detail) {
  uint64_t started = monotonic_us();
  __atomic_store_n(&words_->doing, kDoingRecovery, __ATOMIC_RELAXED);
  const std::string& dir = options_.directory;
  uint8_t boot[16];
  FileFacts facts;
  int error = boot_identity(boot);
  if (!error) error = file_facts(journal_.file(), &facts);
  if (error) return fail(detail, error, "can't tell this boot or the journal of " + dir);

  // Walk the chain first: it gives every generation, whatever row it is.
  const Checkpoint checkpoint = journal_.checkpoint();
  for (const CheckpointRegion& entry : checkpoint.regions) {
    auto it = by_incarnation_.find(entry.incarnation);
    if (it != by_incarnation_.end()) it->second->generation = it->second->visible_generation = entry.generation;
  }
  bool same =
      words_->magic == kWordsMagic &&
      (memcmp(words_->boot_id, boot, sizeof boot) == 0 || HOLDFAST_MUTANT("boot_not_asked")) &&
      (options_.assume_same_files || (words_->journal_device == facts.device && words_->journal_inode == facts.inode &&
                                      words_->journal_birth_ns == facts.birth_ns));
  uint64_t committed = __atomic_load_n(&words_->committed, __ATOMIC_ACQUIRE);
  uint64_t applied = __atomic_load_n(&words_->applied, __ATOMIC_ACQUIRE);
  bool same_chain = same && words_->salt == checkpoint.salt;

  std::vector<const RecordHeader*> chain;
  ChainEnd end = {checkpoint.lsn, checkpoint.position, checkpoint.chain_seed};
  // On the same chain, a record that is whole but was not published never was.
  while (!same_chain || end.lsn < committed) {
    if (end.position - checkpoint.position >= journal_.ring_bytes()) break;
    const RecordHeader* record = journal_.record_after(end, checkpoint.salt);
    if (!record || record->total_bytes > journal_.ring_bytes() - (end.position - checkpoint.position)) break;
    chain.push_back(record);
    end = {record->lsn, end.position + record->total_bytes, record->crc};
  }

  RecoveryConditions conditions;
  conditions.same_boot_and_journal = same;
  conditions.same_chain = same_chain;
  conditions.counts_sane = checkpoint.lsn <= applied && applied <= committed;
  conditions.chain_reaches_committed = same_chain ? end.lsn == committed : end.lsn >= committed;
  conditions.all_applied_and_settled =
      committed == applied &&
      std::all_of(regions_.begin(), regions_.end(), [](const auto& entry) { return entry.second->sequence_settled(); });
  conditions.closed_in_order = checkpoint.clean && chain.empty();
  conditions.records_missing = !same && journal_.superseded(end);
  report_.row = decide_recovery(conditions);
  report_.same_boot = same;
  report_.clean = report_.row == RecoveryRow::A || report_.row == RecoveryRow::E;
  head_ = applied_end_ = end;
  durable_ = end.lsn;

  uint64_t gone = 0;  // records, at most
  if (report_.row == RecoveryRow::C) {
    // Since the older checkpoint, at most two rings full were committed: up to the damaged one, and after it.
    const uint64_t gone_max = 2 * journal_.ring_bytes() / kRecordAlign;
    if (!same) committed = end.lsn + gone_max;
    gone = committed > end.lsn ? std::min(committed - end.lsn, gone_max) : 0;
    report_.detail = "the journal ends at record " + std::to_string(end.lsn) +
                     (same ? ", but " + std::to_string(committed) + " were committed"
                           : ", its newest checkpoint is damaged, and there were more");
    std::string name;
    if (int kept = keep_journal(&name)) return fail(detail, kept, "can't keep " + dir + "/journal");
    report_.detail += "; kept as " + name;
    for (auto& [name, region] : regions_)
      if (int marked = mark_unverified(region)) return fail(detail, marked, "can't mark region " + name);
  }
  std::vector<std::string> names;
  if (int listed = list_directory(root_, &names)) return fail(detail, listed, "can't list " + dir);
  if (std::any_of(names.begin(), names.end(), [](const auto& name) { return name.starts_with(kCorruptName); })) {
    // For as long as nobody has looked: a restart makes no batch whole.
    for (auto& [name, region] : regions_) {
      (void)name;
      if (region->faulted() || !(region->meta.flags & kMetaUnverified)) continue;
      region->set_fault("batches of this region may be missing: the journal was corrupt, see journal.corrupt", 0);
      region->doubted = true;
    }
  }

  bool redoing = report_.row == RecoveryRow::B || report_.row == RecoveryRow::D || report_.row == RecoveryRow::F;
  // With every word in order but a sequence left odd there is no telling which record was being applied: all of them.
  uint64_t after = report_.row == RecoveryRow::B && applied != committed ? applied : checkpoint.lsn;
  if (redoing) {
    // First onto the disk: what is applied below must never be ahead of its record there.
    uint64_t bytes = end.position - checkpoint.position;
    journal_.dirty(checkpoint.position, bytes);
    if (int synced = HOLDFAST_MUTANT("redo_before_journal_sync") ? 0 : journal_.sync())
      return fail(detail, synced, "can't make " + dir + "/journal durable");
    HOLDFAST_FAILPOINT("recovery_journal_synced");
  }
  // A mapped reader sees one unsettled region until the last record is redone, not the states in between. A fast region may
  // be settled ahead of an earlier record that was not applied, and be read meanwhile: older batches laid over it, under the
  // sequence that it has again in the end, would look like nothing had happened.
  recovering_ = true;
  for (auto& [name, region] : regions_) {
    (void)name;
    if (report_.row == RecoveryRow::B)
      region->settled_generation = region->generation_left(boot, options_.assume_same_files);
    if (redoing && !region->settled_generation) region->sequence_open();
    redo_saved(region);
  }
  const auto lacked = [&](const RecordHeader* record) {
    RecordReader reader(record);
    for (uint32_t i = 0; i < record->region_count; i++) {
      auto it = by_incarnation_.find(reader.region(i).incarnation);
      if (it != by_incarnation_.end() && it->second->fault_lsn && it->second->fault_lsn <= record->lsn) return true;
    }
    return false;
  };
  bool unbroken = true;  // no region lacks a record so far
  for (const RecordHeader* record : chain) {
    bool again = redoing && record->lsn > after;
    if (HOLDFAST_MUTANT("redo_marks_first") && again) __atomic_store_n(&words_->applied, record->lsn, __ATOMIC_RELEASE);
    if (int failed = redo(record, again))
      return fail(detail, failed, "can't redo record " + std::to_string(record->lsn) + " of " + dir);
    report_.redone += again;
    unbroken = unbroken && !(again && lacked(record));
    // Once a region could not take its record, a start that follows a kill in this one has to offer it again.
    if (again && unbroken && report_.row == RecoveryRow::B && after == applied)
      __atomic_store_n(&words_->applied, record->lsn, __ATOMIC_RELEASE);
    HOLDFAST_FAILPOINT("recovery_record_redone");
  }
  recovering_ = false;
  if (int listed = list_directory(root_, &names)) return fail(detail, listed, "can't list " + dir);
  for (const std::string& name : names)
    if (name.starts_with(".new-") || name.starts_with(".old-"))
      if (int removed = remove_tree_at(root_, name))
        return fail(detail, removed, "can't remove the unfinished " + dir + "/" + name);

  for (auto& [name, region] : regions_) {
    const bool fast = region->meta.durability == Durability::fast;
    // After a kill, what a fast region took since its last sync is in the page cache and nowhere else.
    const bool in_memory_only =
        fast && (report_.row == RecoveryRow::A || report_.row == RecoveryRow::B) && !checkpoint.clean;
    // Somebody may have seen any of the generations that are gone, and holds an entity tag of one.
    if (report_.row == RecoveryRow::C) region->generation = region->visible_generation += gone;
    region->durable_generation = in_memory_only ? 0 : region->visible_generation;
    // Checkpoints pass a fast region by: whatever this process redoes of it, an orderly end has to sync it.
    if (in_memory_only) region->dirty = true;
    if (report_.row == RecoveryRow::F && fast)
      if (int marked = mark_unverified(region)) return fail(detail, marked, "can't mark region " + name);
    if (int cut = region->cut_to_size()) return fail(detail, cut, "can't cut the data file of region " + name);
    if (region->meta.flags & kMetaUnverified) report_.unverified.push_back(name);
    if (region->faulted()) report_.faulted.push_back(name);
    if (int reset = region->reset_control())
      return fail(detail, reset, "can't write the control page of region " + name);
  }

  if (report_.row == RecoveryRow::A || report_.row == RecoveryRow::B) {
    // A record that was whole but unpublished at the kill must not be found by a later recovery.
    find_poisoned();
    advance_applied();
    if (free_bytes() >= kRecordAlign && !HOLDFAST_MUTANT("tail_not_erased")) journal_.erase_tail(end.position);
    error = journal_.sync();
    if (!error && checkpoint.clean) {
      Checkpoint opened = checkpoint;
      opened.sequence++;
      opened.clean = HOLDFAST_MUTANT("opened_stays_clean");
      error = journal_.write_checkpoint(opened);
      if (!error) journal_.adopt_checkpoint(std::move(opened));
    }
  } else {
    if (report_.row == RecoveryRow::C) {
      Checkpoint anew;
      anew.sequence = 1;
      anew.lsn = std::max(end.lsn, committed);
      anew.salt = random_u64();
      // A kill before the next slot must find the generations, and a slot has to have room for all of them.
      for (auto& [name, region] : regions_) {
        (void)name;
        anew.regions.push_back({region->meta.incarnation, region->visible_generation});
      }
      const uint32_t capacity = std::max(options_.regions_max, static_cast<uint32_t>(regions_.size()));
      error = Journal::create(root_, options_.journal_bytes, capacity, anew);
      if (!error) error = journal_.open(root_);
      head_ = applied_end_ = {anew.lsn, 0, 0};
    }
    if (!error) error = fresh_chain();
  }
  if (!error &&
      (journal_.ring_bytes() != options_.journal_bytes || journal_.region_capacity() != options_.regions_max) &&
      report_.faulted.empty() && regions_.size() <= options_.regions_max)
    error = resize_journal();
  if (error) return fail(detail, error, "can't write " + dir + "/journal");
  HOLDFAST_FAILPOINT("recovery_done");
  __atomic_store_n(&words_->doing, uint64_t{0}, __ATOMIC_RELAXED);
  report_.ms = (monotonic_us() - started) / 1000.0;
  return Code::ok;
}

// Gives the journal a second name of its own. Not a rename: without a journal the next start, after a kill here, would find
// nothing wrong. errno value.
int Store::keep_journal(std::string* name) {
  FileFacts journal;
  int error = file_facts(journal_.file(), &journal);
  for (int number = 1; !error; number++) {
    *name = kCorruptName + (number > 1 ? "-" + std::to_string(number) : "");
    error = link_at(root_, "journal", *name);
    if (!error) break;
    if (error != EEXIST) return error;
    // Taken: by an earlier journal, or by this one before a kill.
    File kept;
    FileFacts facts;
    error = open_at(root_, *name, O_RDONLY, &kept);
    if (!error) error = file_facts(kept, &facts);
    if (!error && facts.device == journal.device && facts.inode == journal.inode) break;
  }
  return error ? error : sync_all(root_);
}

int Store::mark_unverified(const std::shared_ptr<Region>& region) {
  if ((region->meta.flags & kMetaUnverified) || HOLDFAST_MUTANT("unverified_not_marked")) return 0;
  RegionMeta marked = region->meta;
  marked.flags |= kMetaUnverified;
  if (int error = write_meta(region->directory(), marked)) return error;
  region->meta = marked;
  return 0;
}

// One record of the chain: what it says of generations and outcomes always, what it does only if `again`. errno value.
int Store::redo(const RecordHeader* record, bool again) {
  RecordReader reader(record);
  if (record->kind == RecordKind::batch) {
    if (again) apply_images(record);
  } else if (again && (record->kind == RecordKind::snapshot || record->kind == RecordKind::forget)) {
    Snapshot snapshot;
    if (decode_snapshot(reader.meta(), &snapshot))
      if (int error = record->kind == RecordKind::snapshot ? apply_snapshot(snapshot) : apply_forget(snapshot))
        return error;
  } else if (again) {
    RegionMeta meta;
    if (decode_meta(reader.meta(), &meta)) {
      auto it = by_incarnation_.find(meta.incarnation);
      std::shared_ptr<Region> region = it == by_incarnation_.end() ? nullptr : it->second;
      int error = 0;
      if ((record->kind == RecordKind::create || record->kind == RecordKind::replace) && !region)
        error = apply_create(meta, record->region_count ? reader.region(record->region_count - 1).generation : 0);
      else if (record->kind == RecordKind::meta && region && region->meta.meta_generation < meta.meta_generation)
        error = apply_meta(region, meta, false);
      else if (record->kind == RecordKind::remove && region)
        error = apply_remove(region);
      if (error) return error;
    }
  }
  for (uint32_t i = 0; i < record->region_count; i++) {
    RecordRegion named = reader.region(i);
    auto it = by_incarnation_.find(named.incarnation);
    if (it == by_incarnation_.end()) continue;
    Region& region = *it->second;
    region.generation = std::max(region.generation, named.generation);
    if (!region.fault_lsn || record->lsn < region.fault_lsn) region.visible_generation = region.generation;
    region.last_lsn = record->lsn;
    // Whoever applied it, this process now or a killed one before: no checkpoint has synced its bytes.
    region.dirty = !HOLDFAST_MUTANT("redo_leaves_clean");
    if (record->kind == RecordKind::meta) region.resized_lsn = record->lsn;
  }
  std::span<const uint8_t> answer;
  if (const OutcomeHeader* outcome = reader.outcome(&answer)) outcomes_.add(*outcome, answer, record->lsn);
  return 0;
}

// Redoes what a faulted region could not take in an earlier life.
void Store::redo_saved(const std::shared_ptr<Region>& region) {
  if (!exists_at(region->directory(), "redo")) return;
  File file;
  std::vector<uint8_t> bytes;
  int error = open_at(region->directory(), "redo", O_RDWR, &file);
  if (!error) error = read_whole(file, size_t{1} << 32, &bytes);
  if (error) bytes.clear();  // what could not be read is no half record, to be cut off
  size_t at = 0;
  uint64_t first = 0, last = 0;
  const uint64_t freed = journal_.checkpoint().lsn;
  // All of them, also behind a failure: what they say of lsns and generations holds.
  while (at + sizeof(RecordHeader) <= bytes.size()) {
    const auto* record = reinterpret_cast<const RecordHeader*>(bytes.data() + at);
    if (record->magic != kRecordMagic || record->total_bytes < sizeof *record ||
        record->total_bytes % kRecordAlign != 0 || record->total_bytes > bytes.size() - at ||
        record_crc(*record, 0) != record->crc || !record_well_formed(*record))
      break;
    if (!first) first = record->lsn;
    last = record->lsn;
    RecordReader reader(record);
    // The other regions of the record took it at the time.
    reader.each_image([&](const ImageHeader& image, const uint8_t* from) {
      if (reader.region(image.region).incarnation != region->meta.incarnation || image.offset >= region->meta.size)
        return;
      uint64_t length = std::min<uint64_t>(image.length, region->meta.size - image.offset);
      if (!error && !region->store(image.offset, from, length)) error = EIO;
    });
    for (uint32_t i = 0; i < record->region_count; i++) {
      if (reader.region(i).incarnation != region->meta.incarnation) continue;
      region->generation = std::max(region->generation, reader.region(i).generation);
      if (!error) region->visible_generation = region->generation;
    }
    at += record->total_bytes;
    report_.redone += !error;
  }
  // Half a record at the end is what a kill left of an append, and the ring still has it whole. What the ring has given up is
  // nowhere else.
  bool damaged = false;
  for (size_t rest = at; rest + sizeof(RecordHeader) <= bytes.size(); rest += kRecordAlign) {
    const auto* record = reinterpret_cast<const RecordHeader*>(bytes.data() + rest);
    damaged = damaged || (record->magic == kRecordMagic && record->lsn > last && record->lsn <= freed);
  }
  if (damaged && !error) error = EBADMSG;
  if (!error) error = sync_data(region->data());
  if (!error) error = remove_file_at(region->directory(), "redo");
  // Or a power cut could bring it back, when the ring has given up the newer records of the same bytes.
  if (!error) error = sync_all(region->directory());
  if (error) {
    // Half a record would hide what is appended next.
    if (at < bytes.size() && !damaged) truncate_to(file, at);
    // Whatever the file says, or would if it could be read: the data lacks batches.
    region->set_fault(
        std::string("earlier batches could not be redone: ") + (damaged ? "the redo file is damaged" : strerror(error)),
        first ? first : 1);
    region->last_lsn = last;
    region->saved_lsn = std::max(last, freed);
  }
}

// Everything up to head_ is applied: makes that durable and starts a chain that no older record can continue.
int Store::fresh_chain() {
  for (auto& [name, region] : regions_) {
    (void)name;
    if (region->faulted()) continue;
    if (int error = sync_data(region->data())) poison_after_sync_error(region, error);
  }
  Checkpoint next = journal_.checkpoint();
  next.regions.clear();
  for (auto& [name, region] : regions_) {
    (void)name;
    next.regions.push_back({region->meta.incarnation, region->visible_generation});
  }
  if (int error = save_redo(faulted_regions(), head_.lsn)) return error;
  if (int error = outcomes_.save(outcomes_.encode(head_.lsn), head_.lsn)) return error;
  next.sequence++;
  next.lsn = head_.lsn;
  next.position = head_.position;
  next.chain_seed = head_.crc;
  next.salt = random_u64();
  next.clean = false;
  if (int error = journal_.write_checkpoint(next)) return error;
  HOLDFAST_FAILPOINT("recovery_checkpoint");
  journal_.adopt_checkpoint(std::move(next));
  return write_words();
}

// Says in the words that they speak of this boot, this journal and this chain.
int Store::write_words() {
  StoreWords words = {};
  FileFacts facts;
  if (int error = boot_identity(words.boot_id)) return error;
  if (int error = file_facts(journal_.file(), &facts)) return error;
  // A kill between these stores leaves words that match nothing: without the magic they are another boot's.
  __atomic_store_n(&words_->magic, uint64_t{0}, __ATOMIC_SEQ_CST);
  memcpy(words_->boot_id, words.boot_id, sizeof words.boot_id);
  words_->journal_device = facts.device;
  words_->journal_inode = facts.inode;
  words_->journal_birth_ns = facts.birth_ns;
  words_->salt = journal_.checkpoint().salt;
  __atomic_store_n(&words_->committed, head_.lsn, __ATOMIC_RELEASE);
  __atomic_store_n(&words_->applied, head_.lsn, __ATOMIC_RELEASE);
  __atomic_store_n(&words_->magic, kWordsMagic, __ATOMIC_RELEASE);
  return 0;
}

// Another size was asked for: an empty journal of that size replaces the one whose records are all applied.
int Store::resize_journal() {
  if (int error = checkpoint(true)) return error;
  Checkpoint first = journal_.checkpoint();
  first.position = 0;
  first.salt = random_u64();
  first.clean = true;
  if (int error = Journal::create(root_, options_.journal_bytes, options_.regions_max, first)) return error;
  journal_ = Journal();
  if (int error = journal_.open(root_)) return error;
  head_ = applied_end_ = {first.lsn, 0, first.chain_seed};
  first.sequence++;
  first.clean = false;
  if (int error = journal_.write_checkpoint(first)) return error;
  journal_.adopt_checkpoint(std::move(first));
  return write_words();
}

void Store::start_threads() {
  if (!options_.threads) return;
  flusher_ = std::thread([this] { run_flusher(); });
  checkpointer_ = std::thread([this] { run_checkpointer(); });
  populator_ = std::thread([this] {
    journal_.populate([this] {
      Lock lock(lock_);
      return closing_;
    });
  });
}

}  // namespace holdfast
