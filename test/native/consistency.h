// consistency.h - the full check of a store's directory: every invariant that can be seen from outside, by the formats
// of format.h and holdfast.h alone. No store may be open on the directory; nothing is written.
//
// What is held against each other: the two checkpoint slots, the words, the chain of records, each region's meta,
// control page and data, the outcomes files, and the names that may lie around. The last bytes that the chain's applied
// records gave to each place of a region must be the bytes that are there.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../../native/batch.h"
#include "../../native/crc32c.h"
#include "../../native/file.h"
#include "../../native/format.h"
#include "../../native/holdfast.h"
#include "../../native/record.h"
#include "../../native/region.h"
#include "../../native/snapshot.h"

namespace holdfast::consistency {

// How the store's last process ended; what is left is held to it.
enum class Ended {
  closed,         // in order: all is applied, durable and settled
  closed_a_copy,  // so did the one that ran on this copy of a directory, whose words may still name the original
  killed,         // at any instruction: what is unfinished must be what a recovery can finish
};

class Checker {
 public:
  Checker(std::string directory, Ended ended) : path_(std::move(directory)), ended_(ended) {}

  // What is wrong, one sentence each. Empty: nothing is.
  std::vector<std::string> run() {
    if (open_directory(path_, false, &root_) != 0) return {path_ + " can't be opened"};
    check_names();
    if (read_journal()) {
      read_words();
      walk();
      check_regions();
      check_snapshots();
      check_outcomes();
    }
    return std::move(problems_);
  }

  uint64_t records() const { return chain_.size(); }
  size_t regions() const { return found_.size(); }

 private:
  struct Slot {
    CheckpointHeader header;
    std::map<uint64_t, uint64_t> generations;  // by incarnation
  };
  struct Found {
    RegionMeta meta;
    std::string path;
    std::optional<holdfast_control> control;
    std::vector<uint8_t> redo;
  };
  using Bytes = std::vector<uint8_t>;

  void problem(const std::string& what) {
    if (problems_.size() < 40) problems_.push_back(what);
  }
  bool demand(bool holds, const std::string& what) {
    if (!holds) problem(what);
    return holds;
  }
  static std::string text(uint64_t number) { return std::to_string(number); }

  bool read(const std::string& name, Bytes* bytes) {
    File file;
    if (open_at(root_, name, O_RDONLY, &file) != 0) return false;
    return read_whole(file, size_t{1} << 34, bytes) == 0;
  }

  void check_names() {
    static const std::set<std::string> known = {"store.lock", "journal",    "regions",
                                                "snapshots",  "outcomes.0", "outcomes.1"};
    std::vector<std::string> names;
    list_directory(root_, &names);
    for (const std::string& name : names) {
      // An unfinished creation or removal, or a journal that was being made: the next open takes them away.
      const bool unfinished = name.starts_with(".new-") || name.starts_with(".old-") || name == "journal.new";
      if (known.contains(name) || name.starts_with("journal.corrupt") || (unfinished && killed())) continue;
      problem(name + " does not belong here");
    }
  }

  bool read_journal() {
    std::vector<std::string> regions;
    File directory;
    const bool there = read("journal", &journal_);
    // Killed before there was anything.
    if (!there && killed() &&
        (open_at(root_, "regions", O_RDONLY | O_DIRECTORY, &directory) != 0 ||
         (list_directory(directory, &regions) == 0 && regions.empty())))
      return false;
    if (!demand(there, "the journal can't be read")) return false;
    JournalHeader header;
    if (!demand(journal_.size() >= kPageBytes, "the journal is short")) return false;
    memcpy(&header, journal_.data(), sizeof header);
    const uint32_t crc = header.crc;
    header.crc = 0;
    if (!demand(header.magic == kJournalMagic && header.version == kStoreFormatVersion &&
                    crc == crc32c(0, &header, sizeof header),
                "the journal's header is not valid"))
      return false;
    capacity_ = header.region_capacity;
    ring_bytes_ = header.ring_bytes;
    const uint64_t slot_bytes = checkpoint_slot_bytes(capacity_);
    ring_offset_ = journal_ring_offset(capacity_);
    if (!demand(ring_bytes_ > 0 && ring_bytes_ % kPageBytes == 0 && journal_.size() == ring_offset_ + ring_bytes_,
                "the journal's size is not what its header says"))
      return false;

    std::optional<Slot> slots[2];
    for (int i = 0; i < 2; i++) slots[i] = read_slot(journal_.data() + kPageBytes + i * slot_bytes, i);
    demand(slots[0] && slots[1], "a checkpoint slot is not valid");
    if (!slots[0] && !slots[1]) return false;
    const int newer = !slots[0] ? 1 : !slots[1] ? 0 : slots[0]->header.sequence > slots[1]->header.sequence ? 0 : 1;
    slot_ = *slots[newer];
    if (slots[0] && slots[1]) {
      const CheckpointHeader& older = slots[1 - newer]->header;
      demand(older.sequence + 1 == slot_.header.sequence,
             "the slots' sequences are " + text(older.sequence) + " and " + text(slot_.header.sequence));
      demand(older.lsn <= slot_.header.lsn, "the newer slot has the lower lsn");
      if (older.salt == slot_.header.salt)
        demand(older.ring_position <= slot_.header.ring_position &&
                   slot_.header.ring_position - older.ring_position <= ring_bytes_,
               "the slots' positions are not those of one ring");
    }
    return true;
  }

  std::optional<Slot> read_slot(const uint8_t* at, int which) {
    Slot slot;
    memcpy(&slot.header, at, sizeof slot.header);
    CheckpointHeader& h = slot.header;
    if (h.magic != kCheckpointMagic || h.version != kStoreFormatVersion || h.ring_bytes != ring_bytes_ ||
        h.region_capacity != capacity_ || h.region_count > capacity_ ||
        (h.sequence & 1) != static_cast<uint64_t>(which))
      return std::nullopt;
    const size_t used = sizeof h + h.region_count * sizeof(CheckpointRegion);
    Bytes copy(at, at + used);
    memset(copy.data() + offsetof(CheckpointHeader, crc), 0, sizeof h.crc);
    if (crc32c(0, copy.data(), used) != h.crc) return std::nullopt;
    demand(h.ring_position % kRecordAlign == 0, "a slot's position is not aligned");
    for (uint32_t i = 0; i < h.region_count; i++) {
      CheckpointRegion entry;
      memcpy(&entry, at + sizeof h + i * sizeof entry, sizeof entry);
      demand(slot.generations.emplace(entry.incarnation, entry.generation).second, "a slot names an incarnation twice");
    }
    return slot;
  }

  void read_words() {
    Bytes lock;
    if (!demand(read("store.lock", &lock) && lock.size() >= kPageBytes, "store.lock can't be read")) return;
    StoreWords words;
    memcpy(&words, lock.data(), sizeof words);
    uint8_t boot[16];
    FileFacts facts;
    File journal;
    if (boot_identity(boot) != 0 || open_at(root_, "journal", O_RDONLY, &journal) != 0 ||
        file_facts(journal, &facts) != 0)
      return;
    const bool same = words.magic == kWordsMagic && memcmp(words.boot_id, boot, sizeof boot) == 0 &&
                      words.journal_inode == facts.inode && words.journal_device == facts.device &&
                      words.journal_birth_ns == facts.birth_ns && words.salt == slot_.header.salt;
    if (!same) {
      // A copy, another boot, or a kill in the middle of an opening: the chain alone says what happened.
      demand(ended_ != Ended::closed, "the words are not of this boot, journal and chain");
      return;
    }
    words_ = words;
    demand(slot_.header.lsn <= words.applied,
           "applied " + text(words.applied) + " is behind checkpoint " + text(slot_.header.lsn));
    demand(words.applied <= words.committed,
           "applied " + text(words.applied) + " is ahead of committed " + text(words.committed));
    if (!killed()) {
      demand(slot_.header.clean == 1, "the checkpoint does not say that the store was closed");
      demand(words.applied == words.committed && slot_.header.lsn == words.committed,
             "closed with records that no checkpoint covers");
    }
  }

  const uint8_t* ring(uint64_t position) const { return &unrolled_[position % ring_bytes_]; }

  void walk() {
    // Twice in a row, as the store maps it.
    unrolled_.assign(journal_.begin() + static_cast<ptrdiff_t>(ring_offset_), journal_.end());
    unrolled_.insert(unrolled_.end(), journal_.begin() + static_cast<ptrdiff_t>(ring_offset_), journal_.end());
    generations_ = slot_.generations;
    uint64_t lsn = slot_.header.lsn, position = slot_.header.ring_position;
    uint32_t seed = slot_.header.chain_seed;
    while (position - slot_.header.ring_position < ring_bytes_ && (!words_ || lsn < words_->committed)) {
      const auto* record = reinterpret_cast<const RecordHeader*>(ring(position));
      if (record->magic != kRecordMagic || record->lsn != lsn + 1 || record->salt != slot_.header.salt ||
          record->total_bytes < sizeof *record || record->total_bytes % kRecordAlign != 0 ||
          record->total_bytes > ring_bytes_ - (position - slot_.header.ring_position) ||
          record_crc(*record, seed) != record->crc)
        break;
      if (!check_record(record)) break;
      chain_.push_back(record);
      lsn++;
      position += record->total_bytes;
      seed = record->crc;
    }
    if (words_)
      demand(lsn == words_->committed,
             "the chain ends at record " + text(lsn) + ", committed is " + text(words_->committed));
  }

  // A valid record's inside: every count and length accounts for every byte of it.
  bool check_record(const RecordHeader* record) {
    const std::string name = "record " + text(record->lsn);
    const uint8_t* at = reinterpret_cast<const uint8_t*>(record + 1);
    const uint8_t* end = reinterpret_cast<const uint8_t*>(record) + record->total_bytes;
    const auto left = [&] { return static_cast<uint64_t>(end - at); };
    const bool batch = record->kind == RecordKind::batch;
    bool good =
        demand(record->kind >= RecordKind::batch && record->kind <= RecordKind::forget, name + " is of no kind");
    good &= demand(record->region_count >= 1 && record->region_count <= kRegionsPerBatchMax,
                   name + " names no or too many regions");
    good &= demand((record->flags & ~(kRecordHasOutcome | kRecordSynced)) == 0 &&
                       static_cast<int32_t>(record->checkpoint - static_cast<uint32_t>(slot_.header.sequence)) <= 0,
                   name + " has unknown flags");
    good &= demand(
        batch ? record->image_count > 0 && record->meta_bytes == 0 : record->image_count == 0 && record->meta_bytes > 0,
        name + " has what its kind has not");
    good &= demand(batch || (record->flags & kRecordSynced), name + " changes a region without a sync");
    if (!good || !demand(left() >= record->region_count * sizeof(RecordRegion), name + " is too short")) return false;
    demand(batch || record->region_count == (record->kind == RecordKind::replace ? 2 : 1),
           name + " names another number of regions than its kind does");
    uint64_t replaced = 0;
    for (uint32_t i = 0; i < record->region_count; i++, at += sizeof(RecordRegion)) {
      RecordRegion region;
      memcpy(&region, at, sizeof region);
      auto known = generations_.find(region.incarnation);
      if (record->kind == RecordKind::create) {
        demand(known == generations_.end() && region.generation == 0, name + " creates what was there");
        generations_[region.incarnation] = 0;
        continue;
      }
      if (record->kind == RecordKind::replace && i == 1) {
        demand(known == generations_.end() && region.generation == replaced + 1,
               name + " replaces a region by one that was there, or at another generation than the next");
        generations_[region.incarnation] = region.generation;
        continue;
      }
      if (!demand(known != generations_.end(), name + " names an unknown region")) continue;
      const uint64_t step = region.generation - known->second;
      // The checkpoint may know a generation ahead of its lsn: a fast record is applied before one that waits for a sync.
      const auto slot = slot_.generations.find(region.incarnation);
      const bool ahead = slot != slot_.generations.end() && region.generation <= slot->second;
      demand(ahead || (batch ? step == 1 : step <= 1),
             name + " takes a region from generation " + text(known->second) + " to " + text(region.generation));
      known->second = std::max(known->second, region.generation);
      replaced = known->second;
      if (record->kind == RecordKind::remove || record->kind == RecordKind::replace) generations_.erase(known);
    }
    for (uint32_t i = 0; i < record->image_count; i++) {
      ImageHeader image;
      if (!demand(left() >= sizeof image, name + " ends in an image's header")) return false;
      memcpy(&image, at, sizeof image);
      at += sizeof image;
      if (!demand(image.region < record->region_count && image.length > 0 && left() >= padded_to(image.length, 8),
                  name + " has an image that does not fit"))
        return false;
      at += padded_to(image.length, 8);
    }
    if (!demand(left() >= padded_to(record->meta_bytes, 8), name + " ends in its meta")) return false;
    RegionMeta meta;
    Snapshot snapshot;
    const bool of_snapshot = record->kind == RecordKind::snapshot || record->kind == RecordKind::forget;
    if (of_snapshot)
      demand(decode_snapshot({at, record->meta_bytes}, &snapshot), name + " has a snapshot that does not decode");
    else if (!batch)
      demand(decode_meta({at, record->meta_bytes}, &meta), name + " has a meta that does not decode");
    at += padded_to(record->meta_bytes, 8);
    if (!demand(left() >= record->outcome_bytes, name + " ends in its outcome")) return false;
    if (record->flags & kRecordHasOutcome) {
      OutcomeHeader outcome;
      if (!demand(record->outcome_bytes >= sizeof outcome, name + " has half an outcome")) return false;
      memcpy(&outcome, at, sizeof outcome);
      demand(outcome.answer_bytes == record->outcome_bytes - sizeof outcome,
             name + " has an outcome of another length");
    } else {
      demand(record->outcome_bytes == 0, name + " has an outcome that no flag announces");
    }
    at += record->outcome_bytes;
    demand(left() < kRecordAlign && std::all_of(at, end, [](uint8_t byte) { return byte == 0; }),
           name + " is not padded with zeros");
    return true;
  }

  void check_regions() {
    File directory;
    std::vector<std::string> names;
    if (!demand(open_at(root_, "regions", O_RDONLY | O_DIRECTORY, &directory) == 0 &&
                    list_directory(directory, &names) == 0,
                "regions can't be listed"))
      return;
    for (const std::string& name : names) read_region(name);
    demand(found_.size() <= capacity_, "more regions than a checkpoint has room for");
    // The records that the data must show.
    const uint64_t applied = words_ ? words_->applied : killed() ? slot_.header.lsn : UINT64_MAX;
    std::map<uint64_t, std::map<uint64_t, uint8_t>> expected;  // by incarnation, by offset
    std::map<uint64_t, bool> unfinished;                       // a record after `applied` may have begun to change it
    for (const RecordHeader* record : chain_) {
      RecordReader reader(record);
      if (record->lsn > applied)
        for (uint32_t i = 0; i < record->region_count; i++) unfinished[reader.region(i).incarnation] = true;
      reader.each_image([&](const ImageHeader& image, const uint8_t* bytes) {
        auto& places = expected[reader.region(image.region).incarnation];
        for (uint32_t i = 0; i < image.length; i++) places[image.offset + i] = bytes[i];
      });
    }
    for (const auto& [incarnation, region] : found_)
      check_region(region, unfinished[incarnation], expected[incarnation]);
    if (!killed())
      for (const auto& [incarnation, generation] : slot_.generations)
        demand(found_.contains(incarnation), "the checkpoint knows a region that is not there");
  }

  void read_region(const std::string& name) {
    const std::string path = "regions/" + name;
    if (!demand(region_name_valid(name), path + " is no region's name")) return;
    static const std::set<std::string> known = {"data", "control", "meta", "redo"};
    File directory;
    std::vector<std::string> names;
    if (!demand(open_at(root_, path, O_RDONLY | O_DIRECTORY, &directory) == 0 && list_directory(directory, &names) == 0,
                path + " can't be listed"))
      return;
    for (const std::string& file : names)
      if (!known.contains(file) && !(file == "meta.new" && killed()))
        problem(path + "/" + file + " does not belong here");
    Found found;
    Bytes bytes;
    if (!demand(read(path + "/meta", &bytes) && decode_meta(bytes, &found.meta), path + "/meta does not decode"))
      return;
    demand(found.meta.name == name, path + "/meta is another region's");
    demand(found.meta.size > 0 && found.meta.meta_generation > 0, path + "/meta has a size or generation of 0");
    demand(((found.meta.flags & kMetaAdopted) != 0) == !found.meta.path.empty(),
           path + "/meta has a path without being adopted, or the reverse");
    found.path = path;
    if (read(path + "/control", &bytes) && bytes.size() >= sizeof(holdfast_control)) {
      found.control.emplace();
      memcpy(&*found.control, bytes.data(), sizeof(holdfast_control));
    }
    read(path + "/redo", &found.redo);
    const uint64_t incarnation = found.meta.incarnation;
    demand(found_.emplace(incarnation, std::move(found)).second, path + " has the incarnation of another region");
  }

  void check_region(const Found& region, bool unfinished, const std::map<uint64_t, uint8_t>& expected) {
    const std::string& path = region.path;
    auto generation = generations_.find(region.meta.incarnation);
    // Between the rename that removes or creates a region and its record's neighbours only a kill can have fallen.
    if (!demand(generation != generations_.end() || killed(), path + " is in no checkpoint and in no record")) return;
    File data;
    FileFacts facts;
    if (region.meta.flags & kMetaAdopted) {
      data = File(::open(region.meta.path.c_str(), O_RDONLY | O_CLOEXEC));
    } else {
      open_at(root_, path + "/data", O_RDONLY, &data);
    }
    const bool there = data.open() && file_facts(data, &facts) == 0;
    if (!demand(region.control.has_value(), path + "/control is missing or short")) return;
    const holdfast_control& control = *region.control;
    const bool faulted = control.state == HOLDFAST_STATE_FAULTED;
    if (!demand(there || faulted, path + " has no data file")) return;
    if (!faulted) {
      demand(facts.size >= region.meta.size, path + "/data is shorter than the region");
      if (!killed() && !(region.meta.flags & kMetaAdopted))
        demand(facts.size == region.meta.size,
               path + "/data is " + text(facts.size) + " bytes long, the region " + text(region.meta.size));
      demand(region.redo.empty(), path + " is not faulted but has a redo file");
    }
    check_redo(region);
    // The control page may be another boot's, or not written yet.
    if (!words_ || (unfinished && control.magic == 0)) return;
    if (!demand(control.magic == HOLDFAST_CONTROL_MAGIC && control.version == 1, path + "/control is no control page"))
      return;
    // Told before the renames: only a kill can have fallen between.
    const bool retired = control.state == HOLDFAST_STATE_REMOVED && unfinished;
    demand(control.state == HOLDFAST_STATE_OK || faulted || retired, path + "/control has no known state");
    demand(control.incarnation == region.meta.incarnation, path + "/control speaks of another incarnation");
    if (there)
      demand(control.data_device == facts.device && control.data_inode == facts.inode,
             path + "/control speaks of another data file");
    if (faulted || unfinished) return;
    demand(control.length == region.meta.size, path + "/control says " + text(control.length) + " bytes");
    if (!killed()) demand((control.sequence & 1) == 0, path + " is not settled");
    if ((control.sequence & 1) == 0 && generation != generations_.end())
      demand(control.sequence == generation->second * 2, path + "/control is at generation " +
                                                             text(control.sequence / 2) + ", the chain at " +
                                                             text(generation->second));
    if (control.sequence & 1) return;
    Bytes bytes;
    if (expected.empty() || read_whole(data, size_t{1} << 34, &bytes) != 0) return;
    for (const auto& [offset, byte] : expected) {
      // A record may be older than a shrinking.
      if (offset >= region.meta.size || offset >= bytes.size()) break;
      if (!demand(bytes[offset] == byte, path + "/data differs at " + text(offset) + " from what the records say"))
        break;
    }
  }

  void check_snapshots() {
    File directory;
    std::vector<std::string> regions;
    if (!demand(open_at(root_, "snapshots", O_RDONLY | O_DIRECTORY, &directory) == 0 &&
                    list_directory(directory, &regions) == 0,
                "snapshots can't be listed"))
      return;
    for (const std::string& name : regions) {
      demand(killed() || std::any_of(found_.begin(), found_.end(),
                                     [&](const auto& found) { return found.second.meta.name == name; }),
             "snapshots/" + name + " are of no region");
      File parent;
      std::vector<std::string> ids;
      if (!demand(open_directory_at(directory, name, &parent) == 0 && list_directory(parent, &ids) == 0,
                  "snapshots/" + name + " can't be listed"))
        continue;
      for (const std::string& id : ids) check_snapshot(name, id);
    }
  }

  // Whole from the moment it has its name: nothing in it is ever unfinished.
  void check_snapshot(const std::string& region, const std::string& id) {
    const std::string path = "snapshots/" + region + "/" + id;
    File directory, data;
    FileFacts facts;
    std::vector<std::string> files;
    const bool listed = open_directory_at(root_, path, &directory) == 0 && list_directory(directory, &files) == 0;
    demand(listed && files == std::vector<std::string>{"data", "meta"}, path + " has other files than its two");
    Bytes bytes;
    Snapshot snapshot;
    if (!demand(read(path + "/meta", &bytes) && decode_snapshot(bytes, &snapshot), path + "/meta does not decode"))
      return;
    demand(snapshot_name(snapshot.id) == id && snapshot.region.name == region, path + "/meta is another one's");
    demand(open_at(root_, path + "/data", O_RDONLY, &data) == 0 && file_facts(data, &facts) == 0 &&
               facts.size == snapshot.region.size,
           path + "/data is not as long as the region was");
  }

  void check_redo(const Found& region) {
    uint64_t last = 0;
    for (size_t at = 0; at + sizeof(RecordHeader) <= region.redo.size();) {
      // Aligned, as a record is in the ring.
      Bytes copy(region.redo.begin() + static_cast<ptrdiff_t>(at), region.redo.end());
      const auto* record = reinterpret_cast<const RecordHeader*>(copy.data());
      const bool good =
          record->magic == kRecordMagic && record->total_bytes <= copy.size() && record_crc(*record, 0) == record->crc;
      // Half a record at the end is what a kill left of an append; the ring still has the whole one.
      if (!good) {
        demand(killed(), region.path + "/redo does not end with a whole record");
        return;
      }
      demand(record->lsn > last, region.path + "/redo is not in order");
      last = record->lsn;
      at += record->total_bytes;
    }
  }

  void check_outcomes() {
    for (const char* name : {"outcomes.0", "outcomes.1"}) {
      Bytes bytes;
      if (!demand(read(name, &bytes), std::string(name) + " can't be read")) continue;
      size_t at = 0;
      uint64_t before = 0;
      while (at + sizeof(OutcomeHeader) <= bytes.size()) {
        OutcomeHeader header;
        memcpy(&header, bytes.data() + at, sizeof header);
        const uint32_t crc = header.crc;
        header.crc = 0;
        if (header.answer_bytes > bytes.size() - at - sizeof header ||
            crc != crc32c(crc32c(0, &header, sizeof header), bytes.data() + at + sizeof header, header.answer_bytes))
          break;
        demand(header.time_us >= before, std::string(name) + " is not in the order of time");
        before = header.time_us;
        at += sizeof header + header.answer_bytes;
      }
      demand(at == bytes.size() || killed(), std::string(name) + " does not end with a whole outcome");
    }
  }

  const std::string path_;
  const Ended ended_;
  bool killed() const { return ended_ == Ended::killed; }
  std::vector<std::string> problems_;
  File root_;
  Bytes journal_, unrolled_;
  uint32_t capacity_ = 0;
  uint64_t ring_bytes_ = 0, ring_offset_ = 0;
  Slot slot_;
  std::optional<StoreWords> words_;  // when they are of this boot, journal and chain
  std::vector<const RecordHeader*> chain_;
  std::map<uint64_t, uint64_t> generations_;  // by incarnation, after the chain
  std::map<uint64_t, Found> found_;           // by incarnation
};

}  // namespace holdfast::consistency
