// store_snapshots.cc - snapshots of regions: made while batches go on, read, compared, restored, removed.
//
//   make     quiet, under the lock: generation noted, blocks shared (one system call) or copying begun
//            without it: pages copied, synced as .new-ID
//            quiet again: record `snapshot`, renamed into place
//   restore  without the lock: .new-INCARNATION made from the snapshot, synced
//            quiet: its meta, record `replace`, regions/NAME -> .old-..., .new-... -> regions/NAME
//
// A restored region has an incarnation of its own, so no older record of the ring can ever be redone into its bytes.
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

Code fail(std::string* detail, int error, const std::string& what) {
  *detail = what + ": " + strerror(error);
  return file_code(error);
}

// How much of two files one comparison looks at: fractions of a second.
constexpr uint64_t kCompareBytesMax = uint64_t{256} << 20;

uint64_t whole_pages(uint64_t bytes) { return padded_to(bytes, kPageBytes); }

}  // namespace

// A directory `.new-...` and what is in it; gone with its owner unless a record may want it.
class Store::Staged {
 public:
  Staged(const File& root, uint64_t number) : root_(root), name_(new_name(number)) {}
  ~Staged() {
    if (!published) remove_tree_at(root_, name_);
  }
  Staged(const Staged&) = delete;
  int make() {
    if (int error = make_directory_at(root_, name_)) return error;
    if (int error = open_directory_at(root_, name_, &directory)) return error;
    return open_at(directory, "data", O_RDWR | O_CREAT | O_EXCL, &data);
  }

  File directory, data;
  bool published = false;

 private:
  const File& root_;
  const std::string name_;
};

// ---- making ----

Code Store::may_snapshot(const Region& region, std::string* detail) const {
  if (region.faulted()) {
    *detail = region.fault;
    return Code::region_faulted;
  }
  auto has = snapshots_.find(region.meta.name);
  if (has == snapshots_.end() || has->second.size() < options_.snapshots_max) return Code::ok;
  *detail = "the region has " + std::to_string(has->second.size()) + " snapshots, as many as it may";
  return Code::too_many_snapshots;
}

Code Store::make_snapshot(const std::string& name, const Conditions& conditions, MetaResult* result,
                          std::string* detail) {
  std::shared_ptr<Region> region;
  Snapshot snapshot;
  {
    Lock lock(lock_);
    Code code = Code::ok;
    if (closing_) return Code::cancelled;
    if (replay(conditions, result, &code)) return code;
    code = find_region(name, conditions, &region, detail);
    if (code == Code::ok && region->snapshotting) code = Code::snapshot_in_progress;
    if (code == Code::ok) code = may_snapshot(*region, detail);
    if (code != Code::ok) return code;
    snapshot.id = new_incarnation();
    region->snapshotting = true;
  }
  struct Release {
    ~Release() {
      Lock lock(store->lock_);
      region->snapshotting = false;
    }
    Store* store;
    Region* region;
  } release{this, region.get()};

  const std::string what = "can't make a snapshot of region " + name;
  Staged staged(root_, snapshot.id);
  if (int error = staged.make()) return fail(detail, error, what);
  Code code = take_bytes(name, region, conditions, staged.data, &snapshot, detail);
  if (code != Code::ok) return code;
  const std::vector<uint8_t> encoded = encode_snapshot(snapshot);
  int error = sync_all(staged.data);
  if (!error) {
    File meta;
    error = open_at(staged.directory, "meta", O_RDWR | O_CREAT | O_EXCL, &meta);
    if (!error) error = write_copy(meta, encoded, 0);
    if (!error) error = sync_all(meta);
  }
  if (!error) error = sync_all(staged.directory);
  if (!error) error = sync_all(root_);
  if (error) return fail(detail, error, what);
  HOLDFAST_FAILPOINT("snapshot_synced");

  Lock lock(lock_);
  for (;;) {
    if (closing_) return Code::cancelled;
    if (replay(conditions, result, &code)) return code;
    // The conditions held at its generation; the region may have gone on since.
    if (region->removed) return Code::region_not_found;
    const uint64_t bytes = change_bytes(1, encoded.size(), conditions);
    if (quiet(bytes)) break;
    code = become_quiet(lock, bytes);
    if (code != Code::ok) return code;
  }
  const ChainEnd before = head_;
  const RecordRegion named[] = {{region->meta.incarnation, region->generation}};
  code = publish_change(RecordKind::snapshot, named, encoded, conditions, detail);
  staged.published = head_.lsn != before.lsn;
  if (code != Code::ok) return code;
  if (int failed = apply_snapshot(snapshot))
    return leave_unfinished(before, failed, "can't put the snapshot of region " + name + " into place", detail);
  advance_applied();
  result->created = true;
  result->snapshot = std::move(snapshot);
  return Code::ok;
}

// Fills `to` with the region's bytes of one moment, at which the conditions hold, and notes what was true then.
Code Store::take_bytes(const std::string& name, const std::shared_ptr<Region>& region, const Conditions& conditions,
                       const File& to, Snapshot* snapshot, std::string* detail) {
  const std::string what = "can't copy region " + name;
  const int probed = probe_clone(region->data(), to);
  if (probed && probed != ENOTSUP) return fail(detail, probed, what);
  // Cloning waits for what is dirty: what is written without the lock need not be waited for under it.
  if (!probed) write_back(region->data());
  std::optional<SnapshotCopy> copy;
  Lock lock(lock_);
  for (;;) {
    if (closing_) return Code::cancelled;
    if (region->removed) return Code::region_not_found;
    Code code = check(region, conditions, detail);
    if (code == Code::ok) code = may_snapshot(*region, detail);
    if (code != Code::ok) return code;
    if (quiet(0)) break;
    if (const Code waited = become_quiet(lock, 0); waited != Code::ok) return waited;
  }
  snapshot->region = region->meta;
  snapshot->generation = region->generation;
  snapshot->created_us = now_us();
  if (!probed) {
    // Before, not after: of a clone that fails some blocks may be shared.
    region->blocks_shared();
    if (int error = clone_file(region->data(), to)) return fail(detail, error, what);
    lock.unlock();
    // An adopted file may be longer than its region.
    if (int error = truncate_to(to, snapshot->region.size)) return fail(detail, error, what);
    return Code::ok;
  }
  copy.emplace(to, snapshot->region.size);
  region->copy = &*copy;
  lock.unlock();
  HOLDFAST_FAILPOINT("snapshot_begun");
  int error = 0;
  Code code = copy_pages(region, to, snapshot->region.size, &*copy, &error);
  lock.lock();
  region->copy = nullptr;
  // Of a batch that could not save a page.
  if (code == Code::ok && !error) error = copy->error();
  if (!error) return code;
  if (error == EIO || error == EFAULT) {
    *detail = "the data file can't be read";
    return Code::region_faulted;
  }
  return fail(detail, error, what);
}

// Whether a copy has to end early. The caller holds the lock.
Code Store::copy_code(const Region& region) const {
  if (closing_) return Code::cancelled;
  if (critical_stopping()) return Code::draining;
  return region.removed ? Code::region_not_found : Code::ok;
}

// Copies every page that no batch saves first. Bytes are read before their pages are taken, see snapshot.h. On ok `error`
// is an errno value of a read or a write.
Code Store::copy_pages(const std::shared_ptr<Region>& region, const File& to, uint64_t size, SnapshotCopy* copy,
                       int* error) {
  auto buffer = std::make_unique_for_overwrite<uint8_t[]>(std::min(size, kCopyBytes));
  for (uint64_t at = 0; at < size;) {
    std::vector<Extent> extents;
    *error = list_extents(region->data(), at, size, 1, &extents);
    if (*error) return Code::ok;
    const Extent& extent = extents[0];
    uint64_t length = extent.data                             ? std::min(whole_pages(extent.length), kCopyBytes)
                      : extent.offset + extent.length == size ? extent.length
                                                              : extent.length / kPageBytes * kPageBytes;
    // Blocks may be smaller than pages: a page that is in part a hole is data.
    const bool data = extent.data || length == 0;
    if (length == 0) length = kPageBytes;
    length = std::min(length, size - at);
    size_t got = 0;
    if (data) *error = read_some(region->data(), {buffer.get(), length}, at, false, &got);
    if (*error) return Code::ok;
    if (data && got < length) {
      *error = EIO;
      return Code::ok;
    }
    HOLDFAST_FAILPOINT("snapshot_read");
    std::vector<Span64> taken;
    {
      Lock lock(lock_);
      // Without space, too: a batch that found none saves no page from then on.
      const Code code = copy_code(*region);
      *error = copy->error();
      if (code != Code::ok || *error) return code;
      taken = copy->take(at, length);
    }
    for (const Span64& span : taken) {
      if (!data) break;
      *error = write_copy(to, {buffer.get() + (span.offset - at), span.length}, span.offset);
      if (*error) return Code::ok;
    }
    at += length;
  }
  *error = check_reaches(region->data(), size);
  return Code::ok;
}

// Renames the made files into place. For a commit and for a recovery.
int Store::apply_snapshot(const Snapshot& snapshot) {
  const std::string from = new_name(snapshot.id);
  // Put into place before; it may have been removed since.
  if (!exists_at(root_, from)) return 0;
  const std::string directory = "snapshots/" + snapshot.region.name;
  const int made = make_directory_at(root_, directory);
  if (made && made != EEXIST) return made;
  if (!made)
    if (int error = sync_all(snapshots_directory_)) return error;
  File parent;
  if (int error = open_directory_at(root_, directory, &parent)) return error;
  if (int error = rename_at(root_, from, directory + "/" + snapshot_name(snapshot.id))) return error;
  HOLDFAST_FAILPOINT("snapshot_renamed");
  if (int error = sync_all(parent)) return error;
  if (int error = sync_all(root_)) return error;
  last_incarnation_ = std::max(last_incarnation_, snapshot.id);
  snapshots_[snapshot.region.name][snapshot.id] = snapshot;
  return 0;
}

// ---- removing ----

Code Store::find_snapshot(const std::string& name, uint64_t id, Snapshot* found) const {
  if (!regions_.contains(name)) return Code::region_not_found;
  auto of = snapshots_.find(name);
  if (of == snapshots_.end() || !of->second.contains(id)) return Code::snapshot_not_found;
  *found = of->second.at(id);
  return Code::ok;
}

Code Store::remove_snapshot(const std::string& name, uint64_t id, const Conditions& conditions, MetaResult* result,
                            std::string* detail) {
  {
    Lock lock(lock_);
    Code code = Code::ok;
    Snapshot snapshot;
    std::vector<uint8_t> encoded;
    for (;;) {
      if (closing_) return Code::cancelled;
      if (replay(conditions, result, &code)) return code;
      code = find_snapshot(name, id, &snapshot);
      if (code != Code::ok) return code;
      encoded = encode_snapshot(snapshot);
      const uint64_t bytes = change_bytes(1, encoded.size(), conditions);
      if (quiet(bytes)) break;
      code = become_quiet(lock, bytes);
      if (code != Code::ok) return code;
    }
    const ChainEnd before = head_;
    const Region& region = *regions_.at(name);
    const RecordRegion named[] = {{region.meta.incarnation, region.generation}};
    code = publish_change(RecordKind::forget, named, encoded, conditions, detail);
    if (code != Code::ok) return code;
    if (int error = apply_forget(snapshot))
      return leave_unfinished(before, error, "can't remove a snapshot of region " + name, detail);
    advance_applied();
    result->removed = true;
    result->snapshot = std::move(snapshot);
  }
  const int error = remove_tree_at(root_, old_name(id));
  if (!error) return Code::ok;
  fail(detail, error, "the snapshot is gone, but its files can't be unlinked; the next start will");
  return Code::unfinished;
}

int Store::apply_forget(const Snapshot& snapshot) {
  const std::string& name = snapshot.region.name;
  File parent;
  int error = open_directory_at(snapshots_directory_, name, &parent);
  if (error == ENOENT) return 0;  // the region was removed since
  if (error) return error;
  if (exists_at(parent, snapshot_name(snapshot.id))) {
    error = rename_at(root_, "snapshots/" + name + "/" + snapshot_name(snapshot.id), old_name(snapshot.id));
    if (error) return error;
    HOLDFAST_FAILPOINT("forget_renamed");
    if (int synced = sync_all(parent)) return synced;
    if (int synced = sync_all(root_)) return synced;
  }
  if (auto of = snapshots_.find(name); of != snapshots_.end()) of->second.erase(snapshot.id);
  return 0;
}

// ---- restoring ----

Code Store::may_restore(const Region& region, const Conditions& conditions, std::string* detail) const {
  if (!conditions.if_match && !conditions.if_generation) {
    *detail = "restoring a snapshot loses what was written since: say If-Match";
    return Code::precondition_required;
  }
  if (region.meta.flags & kMetaAdopted) {
    *detail = "the region is an operator's own file, which stays in its place: write the snapshot's bytes into it";
    return Code::region_adopted;
  }
  if (region.meta.flags & kMetaReadOnly) return Code::region_read_only;
  return region.snapshotting ? Code::snapshot_in_progress : Code::ok;
}

Code Store::restore(const std::string& name, uint64_t id, const Conditions& conditions, MetaResult* result,
                    std::string* detail) {
  Snapshot snapshot;
  RegionMeta meta;
  std::vector<uint8_t> encoded;
  uint64_t incarnation = 0;
  const auto look = [&](std::shared_ptr<Region>* region) {
    if (closing_) return Code::cancelled;
    const Code code = find_region(name, conditions, region, detail);
    return code == Code::ok ? may_restore(**region, conditions, detail) : code;
  };
  std::shared_ptr<Region> region;
  {
    Lock lock(lock_);
    Code code = Code::ok;
    if (closing_) return Code::cancelled;
    if (replay(conditions, result, &code)) return code;
    code = look(&region);
    if (code != Code::ok) return code;
    code = find_snapshot(name, id, &snapshot);
    if (code != Code::ok) return code;
    meta = region->meta;
    incarnation = HOLDFAST_MUTANT("restore_keeps_incarnation") ? meta.incarnation : new_incarnation();
  }

  // Everything that takes time or space comes before the commit point.
  const std::string what = "can't restore region " + name;
  const uint64_t size = snapshot.region.size;
  Staged staged(root_, incarnation);
  File from;
  int error = staged.make();
  if (!error) error = open_snapshot(name, id, &from);
  if (error == ENOENT) return Code::snapshot_not_found;
  Code stopped = Code::ok;
  if (!error)
    error = copy_file(from, staged.data, size, [&] {
      Lock lock(lock_);
      stopped = copy_code(*region);
      return stopped != Code::ok;
    });
  if (stopped != Code::ok) return stopped;
  // Blocks behind every byte, or a batch could find the disk full.
  if (!error && !(meta.flags & kMetaSparse)) error = allocate_range(staged.data, 0, size);
  if (!error) error = sync_all(staged.data);
  File control;
  if (!error) error = open_at(staged.directory, "control", O_RDWR | O_CREAT | O_EXCL, &control);
  if (!error) error = allocate_to(control, 0, kPageBytes);
  if (!error) error = sync_all(control);
  if (!error) error = sync_all(root_);
  if (error) return fail(detail, error, what);
  HOLDFAST_FAILPOINT("restore_prepared");

  Lock lock(lock_);
  for (;;) {
    Code code = Code::ok;
    if (replay(conditions, result, &code)) return code;
    code = look(&region);
    if (code != Code::ok) return code;
    meta = region->meta;
    meta.incarnation = incarnation;
    meta.size = size;
    // Whether the bytes can be trusted goes with them; everything else is the region's own, as it is now.
    meta.flags = (meta.flags & ~kMetaUnverified) | (snapshot.region.flags & kMetaUnverified);
    meta.meta_generation++;
    meta.modified_us = now_us();
    encoded = encode_meta(meta);
    const uint64_t bytes = change_bytes(2, encoded.size(), conditions);
    if (quiet(bytes)) break;
    code = become_quiet(lock, bytes);
    if (code != Code::ok) return code;
  }
  error = write_meta(staged.directory, meta);
  if (error) return fail(detail, error, what);
  const ChainEnd before = head_;
  const uint64_t generation = region->generation + 1;
  const RecordRegion named[] = {{region->meta.incarnation, region->generation}, {incarnation, generation}};
  const Code code = publish_change(RecordKind::replace, named, encoded, conditions, detail);
  staged.published = head_.lsn != before.lsn;  // from here on a recovery may want the files
  if (code != Code::ok) return code;
  if (int failed = apply_create(meta, generation)) {
    region->set_fault(std::string("a snapshot could not be restored: ") + strerror(failed), 0);
    return leave_unfinished(before, failed, "can't put the restored region " + name + " into place", detail);
  }
  advance_applied();
  result->info = info_of(*by_incarnation_.at(incarnation));
  lock.unlock();
  // The blocks go without the lock: a large file takes its time.
  const uint64_t old = region->meta.incarnation;
  region.reset();
  error = remove_tree_at(root_, old_name(old));
  if (!error) return Code::ok;
  fail(detail, error, "region " + name + " is restored, but its old files can't be unlinked; the next start will");
  return Code::unfinished;
}

// ---- looking ----

Code Store::open_snapshots(std::string* detail) {
  const std::string all = options_.directory + "/snapshots";
  std::vector<std::string> names;
  if (int error = list_directory(snapshots_directory_, &names)) return fail(detail, error, "can't list " + all);
  for (const std::string& name : names) {
    if (!region_name_valid(name)) continue;
    File parent;
    std::vector<std::string> ids;
    int error = open_directory_at(snapshots_directory_, name, &parent);
    if (!error) error = list_directory(parent, &ids);
    if (error) return fail(detail, error, "can't list " + all + "/" + name);
    for (const std::string& id : ids) {
      const std::string path = all + "/" + name + "/" + id;
      const std::optional<uint64_t> number = parse_snapshot_name(id);
      if (!number) continue;
      File file;
      std::vector<uint8_t> bytes;
      error = open_at(parent, id + "/meta", O_RDONLY, &file);
      if (!error) error = read_whole(file, size_t{4} << 20, &bytes);
      if (error) return fail(detail, error, "can't read " + path + "/meta");
      Snapshot snapshot;
      if (!decode_snapshot(bytes, &snapshot) || snapshot.id != *number || snapshot.region.name != name) {
        *detail = path + "/meta does not decode; restore it, or move the snapshot's directory away";
        return Code::store_corrupt;
      }
      last_incarnation_ = std::max(last_incarnation_, snapshot.id);
      snapshots_[name][snapshot.id] = std::move(snapshot);
    }
  }
  return Code::ok;
}

Code Store::snapshots(const std::string& name, std::vector<Snapshot>* list) {
  Lock lock(lock_);
  if (!regions_.contains(name)) return Code::region_not_found;
  auto of = snapshots_.find(name);
  if (of == snapshots_.end()) return Code::ok;
  for (const auto& [id, snapshot] : of->second) list->push_back(snapshot);
  return Code::ok;
}

std::optional<Snapshot> Store::snapshot(const std::string& name, uint64_t id) {
  Lock lock(lock_);
  Snapshot found;
  return find_snapshot(name, id, &found) == Code::ok ? std::optional(std::move(found)) : std::nullopt;
}

int Store::open_snapshot(const std::string& name, uint64_t id, File* data) const {
  return open_at(snapshots_directory_, name + "/" + snapshot_name(id) + "/data", O_RDONLY, data);
}

Code Store::read_snapshot(const std::string& name, uint64_t id, uint64_t offset, uint64_t length, uint8_t* into) {
  Snapshot snapshot;
  {
    Lock lock(lock_);
    if (closing_) return Code::cancelled;
    const Code code = find_snapshot(name, id, &snapshot);
    if (code != Code::ok) return code;
  }
  if (offset > snapshot.region.size || length > snapshot.region.size - offset) return Code::out_of_bounds;
  File data;
  int error = open_snapshot(name, id, &data);
  if (error == ENOENT) return Code::snapshot_not_found;  // removed since
  size_t got = 0;
  if (!error) error = read_some(data, {into, length}, offset, false, &got);
  return error ? file_code(error) : got == length ? Code::ok : Code::io_error;
}

Code Store::compare(const std::string& name, uint64_t id, uint64_t offset, size_t most, std::vector<Span64>* ranges,
                    uint64_t* next, ReadFacts* facts) {
  Snapshot snapshot;
  std::shared_ptr<Region> region;
  {
    Lock lock(lock_);
    if (closing_) return Code::cancelled;
    const Code code = find_snapshot(name, id, &snapshot);
    if (code != Code::ok) return code;
    region = regions_.at(name);
    if (region->fault_lsn || !region->data().open()) return Code::region_faulted;
    facts->region = answer_region(*region);
    facts->region.generation = region->visible_generation;
  }
  File data;
  if (int error = open_snapshot(name, id, &data)) return error == ENOENT ? Code::snapshot_not_found : file_code(error);
  const uint64_t size = facts->region.size, common = std::min(size, snapshot.region.size);
  const auto differs = [&](uint64_t at, uint64_t length) {
    if (!ranges->empty() && ranges->back().offset + ranges->back().length == at)
      ranges->back().length += length;
    else
      ranges->push_back({at, length});
  };
  auto mine = std::make_unique_for_overwrite<uint8_t[]>(kCopyBytes);
  auto its = std::make_unique_for_overwrite<uint8_t[]>(kCopyBytes);
  uint64_t at = offset, looked = 0;
  while (at < common && looked < kCompareBytesMax) {
    std::vector<Extent> holes[2];
    int error = list_extents(region->data(), at, common, 1, &holes[0]);
    if (!error) error = list_extents(data, at, common, 1, &holes[1]);
    if (error) return file_code(error);
    uint64_t same = holes[0][0].data || holes[1][0].data ? 0 : std::min(holes[0][0].length, holes[1][0].length);
    if (at + same < common) same = same / kPageBytes * kPageBytes;
    at += same;
    if (same) continue;
    const uint64_t length = std::min(common - at, kCopyBytes);
    size_t got = 0;
    error = read_some(region->data(), {mine.get(), length}, at, false, &got);
    if (!error && got < length) return Code::region_faulted;
    if (!error) error = read_some(data, {its.get(), length}, at, false, &got);
    if (!error && got < length) error = EIO;
    if (error) return file_code(error);
    for (uint64_t in = 0; in < length; in += kPageBytes) {
      const uint64_t bytes = std::min<uint64_t>(kPageBytes, length - in);
      if (memcmp(mine.get() + in, its.get() + in, bytes) == 0) continue;
      const bool joins = !ranges->empty() && ranges->back().offset + ranges->back().length == at + in;
      if (ranges->size() == most && !joins) {
        *next = at + in;
        return Code::ok;
      }
      differs(at + in, bytes);
    }
    at += length;
    looked += length;
  }
  // Cut by a resize since, or by somebody else.
  if (int error = check_reaches(region->data(), std::min(at, common)))
    return error == EIO ? Code::region_faulted : file_code(error);
  if (at >= common && at < size) {
    const bool joins = !ranges->empty() && ranges->back().offset + ranges->back().length == at;
    if (joins || ranges->size() < most) {
      differs(at, size - at);
      at = size;
    }
  }
  *next = at;
  return Code::ok;
}

}  // namespace holdfast
