// store.cc - a batch's way from frame to answer; the flusher; the checkpoint. See store.h.
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>
#include <chrono>

#include "crc32c.h"
#include "critical_section.h"
#include "failpoint.h"
#include "fault_guard.h"
#include "record.h"

namespace holdfast {

namespace {

uint64_t padded(uint64_t bytes, uint64_t to) { return (bytes + to - 1) / to * to; }

uint8_t* put(uint8_t* at, const void* from, size_t bytes) {
  if (bytes) memcpy(at, from, bytes);
  return at + bytes;
}

std::vector<uint8_t> build_answer(Code code, uint8_t flags, const Staging& staging,
                                  std::span<const AnswerRegion> regions) {
  AnswerHeader header = {};
  header.magic = kAnswerMagic;
  header.code = static_cast<uint16_t>(code);
  header.branch = code == Code::ok ? staging.branch : Branch::none;
  header.flags = flags;
  header.region_count = static_cast<uint16_t>(regions.size());
  header.result_count = code == Code::ok ? static_cast<uint32_t>(staging.results.size()) : 0;
  header.failure_count = static_cast<uint32_t>(staging.failures.size());
  header.limit = staging.limit;
  header.actual = staging.actual;
  size_t data_bytes = code == Code::ok ? staging.result_data.size() : 0;
  std::vector<uint8_t> answer(sizeof header + regions.size_bytes() + header.result_count * sizeof(AnswerResult) +
                              data_bytes + header.failure_count * sizeof(AnswerFailure));
  uint8_t* at = put(answer.data(), &header, sizeof header);
  at = put(at, regions.data(), regions.size_bytes());
  const uint8_t* data = staging.result_data.data();
  for (uint32_t i = 0; i < header.result_count; i++) {
    const AnswerResult& result = staging.results[i];
    at = put(at, &result, sizeof result);
    uint64_t bytes = padded(result.data_bytes, 8);
    at = put(at, data, bytes);
    data += bytes;
  }
  put(at, staging.failures.data(), header.failure_count * sizeof(AnswerFailure));
  return answer;
}

// The regions' blocks of an answer that was built earlier.
AnswerRegion* answer_regions(std::vector<uint8_t>& answer) {
  return reinterpret_cast<AnswerRegion*>(answer.data() + sizeof(AnswerHeader));
}

// Makes the page cache hold a range of a file. What goes wrong, the read that follows will say.
void read_in(const File& file, uint64_t offset, uint64_t length) {
  std::vector<uint8_t> bytes(std::min<uint64_t>(length, uint64_t{256} << 10));
  for (uint64_t done = 0; done < length; done += bytes.size()) {
    size_t got = 0;
    std::span<uint8_t> part(bytes.data(), std::min<uint64_t>(bytes.size(), length - done));
    if (read_some(file, part, offset + done, false, &got) != 0 || got < part.size()) return;
  }
}

void fail_request(Staging* staging, uint32_t index, Code code, Field field) {
  staging->failures.push_back({index, static_cast<uint16_t>(code), Section::request, field, 0, 0});
}

}  // namespace

// The bytes as they will be once everything committed is applied.
class Store::CommittedSource : public ByteSource {
 public:
  // `wait`: what is not in memory is read from the disk. Otherwise it reads as zeros and is listed in `cold`, and what
  // was evaluated with it is void.
  CommittedSource(const std::vector<std::shared_ptr<Region>>& regions, const Overlay& overlay, bool journal_failed,
                  bool wait)
      : regions_(regions), overlay_(overlay), journal_failed_(journal_failed), wait_(wait) {}

  Code read(uint16_t region, uint64_t offset, uint64_t length, uint8_t* into) override {
    Region& r = *regions_[region];
    // Half a batch may be in it, or bytes that were answered may never be.
    if (r.fault_lsn || (journal_failed_ && r.pending && overlay_.touches(r, offset, length)))
      return Code::region_faulted;
    // A page that was written is in memory. Of any other one, a system call tells without a fault whether it is.
    if (r.populated(offset, length) ? !r.load(offset, length, into) : !read_file(region, offset, length, into)) {
      r.set_fault("a page of the data file can't be read", 0);
      return Code::region_faulted;
    }
    if (r.pending && !HOLDFAST_MUTANT("overlay_not_read")) overlay_.read(r, offset, length, into);
    return Code::ok;
  }

  struct Range {
    uint16_t region;
    uint64_t offset, length;
  };
  std::vector<Range> cold;

 private:
  bool read_file(uint16_t region, uint64_t offset, uint64_t length, uint8_t* into) {
    size_t got = 0;
    int error = read_some(regions_[region]->data(), {into, length}, offset, !wait_, &got);
    if (error != EAGAIN) return error == 0 && got == length;
    cold.push_back({region, offset, length});
    memset(into, 0, length);
    return true;
  }

  const std::vector<std::shared_ptr<Region>>& regions_;
  const Overlay& overlay_;
  const bool journal_failed_, wait_;
};

AnswerRegion Store::answer_region(const Region& region) const {
  return {region.meta.incarnation, region.meta.meta_generation, region.generation, region.durable_generation,
          region.meta.size};
}

bool Store::regions_of(const Batch& batch, std::vector<std::shared_ptr<Region>>* regions, Staging* staging) {
  regions->clear();
  for (size_t i = 0; i < batch.regions.size(); i++) {
    auto it = regions_.find(batch.regions[i]);
    if (it == regions_.end())
      fail_request(staging, static_cast<uint32_t>(i), Code::region_not_found, Field::region);
    else
      regions->push_back(it->second);
  }
  return regions->size() == batch.regions.size();
}

// How a committed batch is handled, from its regions' modes and its own wish.
struct BatchMode {
  Code refused = Code::ok;
  bool synced = false;         // applied only after the journal's fdatasync
  bool answer_at_once = true;  // at publication, not after the flusher
};

static BatchMode batch_mode(Wait wait, const std::vector<Region*>& written) {
  BatchMode mode;
  Durability strictest = Durability::fast;
  bool any_fast = false;
  for (const Region* region : written) {
    strictest = std::max(strictest, region->meta.durability);
    any_fast = any_fast || region->meta.durability == Durability::fast;
    // An earlier record of the region that waits for its sync must be applied first.
    if (region->pending && !HOLDFAST_MUTANT("fast_overtakes_pending")) {
      mode.synced = true;
      if (region->meta.durability == Durability::fast) mode.answer_at_once = false;
    }
  }
  if (wait != Wait::region_mode) {
    if (static_cast<uint32_t>(wait) < static_cast<uint32_t>(strictest)) mode.refused = Code::validation_failed;
    // Unsynced pages of earlier batches could tear: a fast region has no durability to wait for.
    if (wait != Wait::fast && any_fast) mode.refused = Code::durability_unavailable;
  }
  if (strictest != Durability::fast) mode.synced = true;
  if (strictest == Durability::durable || wait == Wait::durable)
    mode.answer_at_once = HOLDFAST_MUTANT("durable_answered_at_once");
  return mode;
}

Store::Progress Store::commit(std::span<const uint8_t> frame, Patience patience, uint64_t ticket,
                              std::vector<uint8_t>* answer) {
  thread_local Batch batch;
  thread_local Staging staging;
  thread_local std::vector<std::shared_ptr<Region>> regions;
  thread_local std::vector<RegionFacts> facts;
  thread_local std::vector<AnswerRegion> blocks;
  thread_local std::vector<Region*> written;
  thread_local std::vector<uint16_t> record_index;
  bool blocking = patience == Patience::may_block;

  staging.reset();
  Code code = decode_batch(frame, options_.batch, &batch, &staging.limit, &staging.actual);
  if (code != Code::ok) {
    *answer = build_answer(code, 0, staging, {});
    return Progress::done;
  }
  if (batch.slow && !blocking) return Progress::would_block;

  struct Release {
    ~Release() { regions.clear(); }
  } release;

  Lock lock(lock_, std::defer_lock);
  if (blocking) {
    lock.lock();
  } else {
    // The flusher holds the lock for microseconds at a time; a change of a region may hold it for long.
    for (int look = 0; !lock.try_lock(); look++)
      if (look == 200) return Progress::would_block;
  }

  auto refuse = [&](Code why) {
    *answer = build_answer(why, 0, staging, blocks);
    return Progress::done;
  };

  for (int attempt = 0;; attempt++) {
    staging.reset();
    blocks.clear();
    facts.clear();
    if (closing_) return refuse(Code::cancelled);
    bool known = regions_of(batch, &regions, &staging);
    for (const auto& region : regions) {
      facts.push_back({region->meta.incarnation, region->meta.meta_generation, region->generation, region->meta.size,
                       (region->meta.flags & kMetaReadOnly) != 0});
      blocks.push_back(answer_region(*region));
    }

    bool has_key = (batch.header.flags & kFrameHasKey) && !(batch.header.flags & kFrameDryRun);
    if (has_key) {
      if (const Outcome* earlier = outcomes_.find(batch.header.key)) {
        staging.failures.clear();
        if (memcmp(earlier->header.fingerprint, batch.header.fingerprint, 16) != 0)
          return refuse(Code::idempotency_key_reused);
        if (!answered(earlier->lsn))
          return refuse(journal_failed_ ? Code::flush_failed : Code::idempotency_in_progress);
        replay(*earlier, answer);
        return Progress::done;
      }
    }
    if (!known) return refuse(Code::region_not_found);

    // One miss of the caches after the other would be most of the time of a batch of scattered cells.
    for (const Entry& entry : batch.ops) regions[entry.op.region]->prefetch(entry.op.offset);
    CommittedSource source(regions, overlay_, journal_failed_, attempt >= 4);
    code = evaluate_batch(batch, facts, options_.batch, source, &staging);
    if (!source.cold.empty()) {
      if (!blocking) return Progress::would_block;
      lock.unlock();
      for (const CommittedSource::Range& range : source.cold)
        read_in(regions[range.region]->data(), range.offset, range.length);
      lock.lock();
      continue;
    }
    // What a durable region has not made durable yet may be looked at, but not told before it is.
    bool observes_unsynced = std::any_of(regions.begin(), regions.end(), [](const auto& region) {
      return region->pending && region->meta.durability == Durability::durable;
    });
    bool dry_run = batch.header.flags & kFrameDryRun;
    if (code != Code::ok || staging.images.empty() || dry_run) {
      uint8_t flags = dry_run ? kAnswerDryRun : 0;
      std::vector<uint8_t> built = build_answer(code, flags, staging, blocks);
      if (observes_unsynced && !journal_failed_) {
        // The last record that needs it: what is newer and fast might be waited for by nobody else.
        waiters_.push_back({pending_.back().lsn, ticket, std::move(built), regions});
        flusher_wake_.notify_one();
        return Progress::waiting;
      }
      *answer = std::move(built);
      return Progress::done;
    }

    // Which regions the record names, in what place.
    written.clear();
    record_index.assign(regions.size(), UINT16_MAX);
    bool cold = false;
    for (const Image& image : staging.images) {
      Region* region = regions[image.region].get();
      if (record_index[image.region] == UINT16_MAX) {
        // Two names of a frame may be the same region.
        auto same = std::find(written.begin(), written.end(), region);
        record_index[image.region] = static_cast<uint16_t>(same - written.begin());
        if (same == written.end()) written.push_back(region);
      }
      cold = cold || !region->populated(image.offset, image.length);
    }
    for (const Region* region : written) {
      if (!region->faulted()) continue;
      uint32_t index = 0;
      while (regions[index].get() != region) index++;
      fail_request(&staging, index, Code::region_faulted, Field::region);
      return refuse(Code::region_faulted);
    }
    BatchMode mode = batch_mode(batch.header.wait, written);
    if (mode.refused != Code::ok) return refuse(mode.refused);
    if (observes_unsynced) {
      mode.synced = true;
      mode.answer_at_once = false;
    }
    if (mode.synced && journal_failed_) return refuse(Code::flush_failed);
    if (mode.synced && changes_waiting_) {
      if (!blocking) return Progress::would_block;
      progress_.wait(lock, [&] { return !changes_waiting_ || closing_; });
      continue;
    }

    uint64_t outcome_bytes = 0;
    size_t answer_bytes = sizeof(AnswerHeader) + blocks.size() * sizeof(AnswerRegion) +
                          staging.results.size() * sizeof(AnswerResult) + staging.result_data.size();
    bool journal_key = has_key && !HOLDFAST_MUTANT("key_not_journaled");
    if (journal_key) outcome_bytes = sizeof(OutcomeHeader) + answer_bytes;
    uint64_t bytes = record_bytes(written.size(), staging.images, 0, outcome_bytes);
    if (bytes > journal_.ring_bytes() / 2) {
      staging.limit = options_.batch.batch_bytes_max;
      staging.actual = bytes;
      return refuse(Code::batch_too_large);
    }

    if (bytes > free_bytes()) {
      if (!blocking) return Progress::would_block;
      if (!wait_for_space(lock, bytes)) return refuse(closing_ ? Code::cancelled : Code::overloaded);
      continue;
    }
    if (cold) {
      if (!blocking) return Progress::would_block;
      struct Range {
        std::shared_ptr<Region> region;
        std::shared_ptr<Mapping> mapping;
        uint64_t population;
        bool sparse;
        uint64_t offset, length;
        Code populated;
      };
      std::vector<Range> ranges;
      for (const Image& image : staging.images) {
        const auto& region = regions[image.region];
        if (!region->populated(image.offset, image.length))
          ranges.push_back({region, region->mapping(), region->population(), (region->meta.flags & kMetaSparse) != 0,
                            image.offset, image.length, Code::ok});
      }
      lock.unlock();
      size_t tried = 0;
      for (Code found = Code::ok; found == Code::ok && tried < ranges.size(); tried++) {
        Range& range = ranges[tried];
        found = range.populated =
            Region::populate(range.region->data(), *range.mapping, range.sparse, range.offset, range.length);
      }
      ranges.resize(tried);
      lock.lock();
      for (const Range& range : ranges) {
        // Resized or cloned meanwhile: whatever was found is not about the pages that it has now.
        if (range.region->population() != range.population) continue;
        if (range.populated == Code::ok) {
          range.region->mark_populated(range.offset, range.length);
          continue;
        }
        if (range.populated == Code::region_faulted)
          range.region->set_fault("the data file was truncated or can't be written", 0);
        return refuse(range.populated);
      }
      // Somebody may have resized the region meanwhile, again and again: give up rather than spin.
      if (attempt == 16) return refuse(Code::overloaded);
      continue;
    }
    auto give_up = [&](Code why) {
      // A copy that no record will lay anything over would outlive the bytes that it was made of.
      if (mode.synced)
        for (const Image& image : staging.images) overlay_.drop(*regions[image.region], image.offset, image.length, 0);
      return refuse(why);
    };
    if (mode.synced) {
      for (const Image& image : staging.images)
        if (!overlay_.prepare(*regions[image.region], image.offset, image.length)) {
          regions[image.region]->set_fault("a page of the data file can't be read", 0);
          return give_up(Code::region_faulted);
        }
    }

    // Nothing can fail from here on but the process, the machine or a page of the mapping.
    if (!critical_begin()) return give_up(Code::draining);
    std::vector<RecordRegion> record_regions;
    for (const Region* region : written) record_regions.push_back({region->meta.incarnation, region->generation + 1});
    for (size_t i = 0; i < regions.size(); i++) {
      if (record_index[i] != UINT16_MAX) blocks[i].generation++;
    }
    std::vector<uint8_t> built = build_answer(Code::ok, kAnswerCommitted, staging, blocks);
    OutcomeHeader outcome = {};
    RecordHeader header = {};
    header.kind = RecordKind::batch;
    header.flags = static_cast<uint16_t>((journal_key ? kRecordHasOutcome : 0) | (mode.synced ? kRecordSynced : 0));
    header.lsn = head_.lsn + 1;
    header.salt = words_->salt;
    header.time_us = now_us();
    header.total_bytes = bytes;
    header.region_count = static_cast<uint32_t>(record_regions.size());
    header.image_count = static_cast<uint32_t>(staging.images.size());
    header.outcome_bytes = static_cast<uint32_t>(outcome_bytes);
    header.checkpoint = static_cast<uint32_t>(journal_.checkpoint().sequence);
    if (has_key) {
      memcpy(outcome.key, batch.header.key, sizeof outcome.key);
      memcpy(outcome.fingerprint, batch.header.fingerprint, sizeof outcome.fingerprint);
      outcome.time_us = header.time_us;
      outcome.answer_bytes = static_cast<uint32_t>(built.size());
    }

    ChainEnd before = head_;
    uint8_t* space = journal_.space_at(before.position);
    if (HOLDFAST_MUTANT("apply_before_publish"))
      for (const Image& image : staging.images) regions[image.region]->store(image.offset, image.bytes, image.length);
    RecordWriter writer(space, header, before.crc);
    writer.regions(record_regions);
    for (const Image& image : staging.images) writer.image(image, record_index[image.region]);
    if (HOLDFAST_MUTANT("outcome_differs")) built.back() ^= 1;
    if (journal_key) writer.outcome(outcome, built);
    if (HOLDFAST_MUTANT("outcome_differs")) built.back() ^= 1;
    uint32_t crc = writer.finish();
    const RecordHeader* record = reinterpret_cast<const RecordHeader*>(space);
    ChainEnd next = {before.lsn + 1, before.position + record->total_bytes, crc};
    if (HOLDFAST_MUTANT("publish_before_checksum")) publish_record(next);
    writer.seal(crc);
    HOLDFAST_FAILPOINT("commit_written");
    publish_record(next);
    HOLDFAST_FAILPOINT("commit_published");

    commits_++;
    for (Region* region : written) {
      region->generation++;
      region->last_lsn = next.lsn;
    }
    if (has_key) outcomes_.add(outcome, built, next.lsn);
    if (!mode.synced) {
      apply_images(record, &staging.images);
      if (pending_.empty() || HOLDFAST_MUTANT("watermark_passes_pending")) advance_applied();
    } else {
      if (HOLDFAST_MUTANT("apply_before_fdatasync")) apply_images(record);
      for (const Image& image : staging.images)
        overlay_.lay(*regions[image.region], image.offset, image.bytes, image.length, next.lsn);
      for (Region* region : written) {
        region->pending++;
        if (mode.answer_at_once) region->acknowledged_lsn = next.lsn;
      }
      if (pending_.empty()) oldest_pending_us_ = monotonic_us();
      pending_.push_back({next.lsn, before, mode.answer_at_once});
      if (!mode.answer_at_once) waiters_.push_back({next.lsn, ticket, std::move(built), regions});
    }
    critical_end();
    HOLDFAST_FAILPOINT("commit_left");

    if (free_bytes() < journal_.ring_bytes() / 2 && !checkpoint_wanted_) {
      checkpoint_wanted_ = true;
      checkpointer_wake_.notify_one();
    }
    if (mode.synced && (pending_.size() == 1 || !mode.answer_at_once)) flusher_wake_.notify_one();
    if (!mode.answer_at_once) return Progress::waiting;
    for (const Region* region : written)
      if (region->faulted() && !mode.synced) {
        // The record is committed and will be redone; the caller must know that it is not visible.
        built = build_answer(Code::region_faulted, kAnswerCommitted, staging, blocks);
        break;
      }
    *answer = std::move(built);
    return Progress::done;
  }
}

// Whether the answer to a committed batch may be told again: it was told, or is about to be.
bool Store::answered(uint64_t lsn) const {
  if (unfinished_ && lsn == unfinished_->lsn + 1) return false;
  auto it = std::lower_bound(pending_.begin(), pending_.end(), lsn,
                             [](const Pending& pending, uint64_t wanted) { return pending.lsn < wanted; });
  return it == pending_.end() || it->lsn != lsn || it->answered;
}

void Store::replay(const Outcome& earlier, std::vector<uint8_t>* answer) const {
  *answer = earlier.answer;
  auto* header = reinterpret_cast<AnswerHeader*>(answer->data());
  header->flags |= kAnswerReplayed;
  AnswerRegion* blocks = answer_regions(*answer);
  for (uint32_t i = 0; i < header->region_count; i++) {
    auto it = by_incarnation_.find(blocks[i].incarnation);
    if (it != by_incarnation_.end())
      blocks[i].durable_generation = std::min(it->second->durable_generation, blocks[i].generation);
  }
}

void Store::publish_record(const ChainEnd& next) {
  head_ = next;
  __atomic_store_n(&words_->committed, next.lsn, __ATOMIC_RELEASE);
}

void Store::advance_applied() {
  applied_end_ = unfinished_                                                       ? *unfinished_
                 : pending_.empty() || HOLDFAST_MUTANT("watermark_passes_pending") ? head_
                                                                                   : pending_.front().before;
  // A record that a faulted region could not take counts as not applied until its redo file has it.
  uint64_t applied = poisoned_lsn_ ? std::min(applied_end_.lsn, poisoned_lsn_ - 1) : applied_end_.lsn;
  __atomic_store_n(&words_->applied, applied, __ATOMIC_RELEASE);
}

// Faults a region whose data may lack the records from `lsn` on.
void Store::poison(Region* region, const std::string& why, uint64_t lsn) {
  region->set_fault(why, lsn);
  find_poisoned();
}

// The data file could not be made durable: the kernel may have dropped any page since its last sync, and tells that once.
// The caller holds both locks.
void Store::poison_after_sync_error(const std::shared_ptr<Region>& region, int error) {
  if (region->meta.durability == Durability::fast) {
    // Checkpoints have not synced it: no record tells all of what may be gone. Where that can't be written down, either, a
    // restart of the machine finds a store that was not closed.
    distrusted_ = true;
    mark_unverified(region);
  }
  poison(region.get(), std::string("the data file could not be made durable: ") + strerror(error),
         journal_.checkpoint().lsn + 1);
}

void Store::find_poisoned() {
  poisoned_lsn_ = 0;
  for (auto& [name, region] : regions_) {
    (void)name;
    if (!region->fault_lsn || region->last_lsn <= region->saved_lsn) continue;
    uint64_t first = std::max(region->fault_lsn, region->saved_lsn + 1);
    if (!poisoned_lsn_ || first < poisoned_lsn_) poisoned_lsn_ = first;
  }
}

// Stores a batch record's images; the same code for a commit, the flusher and a recovery. A region that faults is
// poisoned: its record stays, and a later recovery applies it. False: some region faulted. `staged`: where the same bytes
// are in the caches.
bool Store::apply_images(const RecordHeader* record, const std::vector<Image>* staged) {
  RecordReader reader(record);
  std::array<Region*, kRegionsPerBatchMax> regions = {};
  for (uint32_t i = 0; i < record->region_count && i < regions.size(); i++) {
    auto it = by_incarnation_.find(reader.region(i).incarnation);
    regions[i] = it == by_incarnation_.end() ? nullptr : it->second.get();
    // A recovery leaves alone what its region has.
    if (regions[i] && recovering_ && reader.region(i).generation <= regions[i]->settled_generation)
      regions[i] = nullptr;
    if (regions[i]) regions[i]->sequence_open();
  }
  bool early = HOLDFAST_MUTANT("even_before_last_byte");
  bool whole = true;
  uint32_t next = 0;
  reader.each_image([&](const ImageHeader& image, const uint8_t* bytes) {
    if (staged) bytes = (*staged)[next].bytes;
    if (++next == record->image_count && early)
      for (uint32_t i = 0; i < record->region_count; i++)
        if (regions[i]) regions[i]->sequence_close(reader.region(i).generation);
    Region* region = regions[image.region];
    // A record that is redone may be older than a shrinking that has been applied since.
    if (!region || image.offset >= region->meta.size) return;
    uint64_t length = std::min<uint64_t>(image.length, region->meta.size - image.offset);
    HOLDFAST_FAILPOINT("apply_image");
    if (region->fault_lsn && region->fault_lsn <= record->lsn) return;
    if (region->copy) region->copy->save(*region->mapping(), image.offset, length);
    if (!region->store(image.offset, bytes, length) && !HOLDFAST_MUTANT("lost_page_not_poisoned")) {
      poison(region, "a page of the data file can't be written", record->lsn);
      whole = false;
    }
  });
  for (uint32_t i = 0; i < record->region_count; i++) {
    Region* region = regions[i];
    if (!region || (region->fault_lsn && region->fault_lsn <= record->lsn)) continue;
    region->dirty = true;
    if (!recovering_) region->sequence_close(std::max(region->visible_generation, reader.region(i).generation));
  }
  return whole;
}

void Store::apply_pending(uint64_t target) {
  while (!pending_.empty() && pending_.front().lsn <= target) {
    const RecordHeader* record = journal_.record_at(pending_.front().before.position);
    critical_begin_promised();
    if (HOLDFAST_MUTANT("applied_before_apply")) __atomic_store_n(&words_->applied, record->lsn, __ATOMIC_RELEASE);
    apply_images(record);
    pending_.pop_front();
    advance_applied();
    critical_end();
    RecordReader reader(record);
    for (uint32_t i = 0; i < record->region_count; i++) {
      auto it = by_incarnation_.find(reader.region(i).incarnation);
      if (it == by_incarnation_.end()) continue;
      it->second->pending--;
      if (it->second->meta.durability != Durability::fast) it->second->durable_generation = reader.region(i).generation;
    }
    reader.each_image([&](const ImageHeader& image, const uint8_t*) {
      auto it = by_incarnation_.find(reader.region(image.region).incarnation);
      if (it != by_incarnation_.end()) overlay_.drop(*it->second, image.offset, image.length, record->lsn);
    });
  }
}

void Store::settle(uint64_t target, int sync_error) {
  while (!waiters_.empty() && waiters_.front().lsn <= target) {
    Waiter waiter = std::move(waiters_.front());
    waiters_.pop_front();
    auto* header = reinterpret_cast<AnswerHeader*>(waiter.answer.data());
    AnswerRegion* blocks = answer_regions(waiter.answer);
    bool faulted = false;
    for (size_t i = 0; i < waiter.regions.size(); i++) {
      const Region& region = *waiter.regions[i];
      // Told as of this batch: what followed it is not this answer's.
      blocks[i].durable_generation = std::min(region.durable_generation, blocks[i].generation);
      faulted = faulted || (region.fault_lsn && region.fault_lsn <= waiter.lsn);
    }
    if (sync_error || (faulted && (header->flags & kAnswerCommitted))) {
      Staging nothing;
      std::vector<AnswerRegion> copy(blocks, blocks + waiter.regions.size());
      waiter.answer =
          build_answer(sync_error ? Code::flush_failed : Code::region_faulted, header->flags, nothing, copy);
    }
    settled_.push_back({waiter.ticket, std::move(waiter.answer)});
  }
}

int Store::flush_once(Lock& lock) {
  uint64_t target = head_.lsn;
  lock.unlock();
  HOLDFAST_FAILPOINT("flush_before_sync");
  const auto sync = [&] {
    const int injected = HOLDFAST_FAILPOINT("flush_sync");
    return injected ? injected : journal_.sync();
  };
  int error = HOLDFAST_MUTANT("no_fdatasync") ? 0 : sync();
  if (HOLDFAST_MUTANT("sync_error_ignored")) error = 0;
  HOLDFAST_FAILPOINT("flush_synced");
  lock.lock();
  if (HOLDFAST_MUTANT("target_after_sync")) target = head_.lsn;
  flushes_++;
  if (error) {
    fault_after_sync_error(error);
    settle(UINT64_MAX, error);
  } else {
    durable_ = std::max(durable_, target);
    oldest_pending_us_ = monotonic_us();
    apply_pending(target);
    settle(target, 0);
  }
  progress_.notify_all();
  return error;
}

void Store::fault_after_sync_error(int error) {
  // The kernel has dropped the dirty pages' error and may say success next time: never ask again, never apply.
  journal_failed_ = true;
  for (auto& [name, region] : regions_) {
    (void)name;
    // A fast region with a record in a batch of several modes has batches that will not be applied, too.
    if (region->meta.durability != Durability::fast || region->pending)
      region->set_fault(std::string("the journal could not be made durable: ") + strerror(error), 0);
  }
}

bool Store::flush_step() {
  Lock lock(lock_);
  bool work = !(pending_.empty() && waiters_.empty()) && !journal_failed_;
  if (work) flush_once(lock);
  deliver(lock);
  return work;
}

// Hands out the answers that are ready, without the lock.
void Store::deliver(Lock& lock) {
  if (settled_.empty()) return;
  std::vector<Settled> settled = std::move(settled_);
  settled_.clear();
  lock.unlock();
  if (options_.on_settled) options_.on_settled(std::move(settled));
  lock.lock();
}

void Store::run_flusher() {
  Lock lock(lock_);
  for (;;) {
    auto due = [&] {
      if (closing_) return true;
      if (journal_failed_) return false;
      if (!waiters_.empty()) return true;
      if (pending_.empty()) return false;
      return pending_.front().lsn <= flush_wanted_ ||
             monotonic_us() - oldest_pending_us_ >= options_.flush_interval_ms * 1000ull;
    };
    while (!due()) {
      if (pending_.empty() || journal_failed_)
        flusher_wake_.wait(lock);
      else
        flusher_wake_.wait_for(lock, std::chrono::milliseconds(options_.flush_interval_ms));
    }
    if (closing_) return;
    lock.unlock();
    flush_step();
    lock.lock();
  }
}

// Waits until no record up to `lsn` is pending. False: the store is closing or its journal failed.
bool Store::wait_applied(Lock& lock, uint64_t lsn) {
  while (!closing_ && !journal_failed_ && !pending_.empty() && pending_.front().lsn <= lsn) {
    if (!options_.threads) {
      flush_once(lock);
      deliver(lock);
      continue;
    }
    flush_wanted_ = std::max(flush_wanted_, lsn);
    flusher_wake_.notify_one();
    progress_.wait(lock);
  }
  return !closing_ && !journal_failed_;
}

bool Store::wait_for_space(Lock& lock, uint64_t bytes) {
  if (bytes > journal_.ring_bytes()) return false;
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.full_wait_ms_max);
  while (bytes > free_bytes()) {
    if (!options_.threads) {
      lock.unlock();
      flush_step();
      int error = checkpoint_step();
      lock.lock();
      if (error) return false;
      continue;
    }
    checkpoint_wanted_ = true;
    flush_wanted_ = head_.lsn;
    flusher_wake_.notify_one();
    checkpointer_wake_.notify_one();
    if (progress_.wait_until(lock, deadline) == std::cv_status::timeout && bytes > free_bytes()) return false;
    if (closing_) return false;
  }
  return true;
}

Store::Progress Store::read(const std::string& name, uint64_t offset, uint64_t length, Patience patience, uint8_t* into,
                            Code* code, ReadFacts* facts) {
  bool blocking = patience == Patience::may_block;
  Lock lock(lock_, std::defer_lock);
  if (blocking)
    lock.lock();
  else if (!lock.try_lock())
    return Progress::would_block;
  for (int attempt = 0;; attempt++) {
    auto it = regions_.find(name);
    *code = closing_ ? Code::cancelled : it == regions_.end() ? Code::region_not_found : Code::ok;
    if (*code != Code::ok) return Progress::done;
    std::shared_ptr<Region> region = it->second;
    facts->region = answer_region(*region);
    facts->region.generation = region->visible_generation;
    *code = offset > region->meta.size || length > region->meta.size - offset ? Code::out_of_bounds : Code::ok;
    if (*code != Code::ok) return Progress::done;
    // Half a batch may be in it, or an old page in place of one that could not be written.
    *code = region->fault_lsn ? Code::region_faulted : Code::ok;
    if (*code != Code::ok) return Progress::done;
    // What was answered must be seen by whoever reads it: bring its apply forward.
    if (region->pending && region->acknowledged_lsn >= pending_.front().lsn &&
        overlay_.touches(*region, offset, length)) {
      // It never will be: neither the old bytes nor those that may not last are the answer.
      if (journal_failed_) *code = Code::region_faulted;
      if (journal_failed_) return Progress::done;
      if (!blocking) return Progress::would_block;
      wait_applied(lock, region->acknowledged_lsn);
      continue;
    }
    // Through the page cache with a system call rather than the mapping: no page fault, no SIGBUS, and the kernel
    // says when it would have to wait for the disk.
    size_t got = 0;
    bool last_resort = attempt == 4;
    int error = read_some(region->data(), {into, length}, offset, !last_resort, &got);
    if (error == EAGAIN && !blocking) return Progress::would_block;
    if (error == EAGAIN) {
      // Cold: bring the pages in without the lock, then copy once more in one piece.
      lock.unlock();
      HOLDFAST_FAILPOINT("read_cold");
      error = read_some(region->data(), {into, length}, offset, false, &got);
      lock.lock();
      // A batch that could not be stored as a whole leaves the generation, and a fault.
      if (error == 0 && got == length && region->visible_generation == facts->region.generation && !region->removed &&
          !region->fault_lsn)
        return Progress::done;
      if (error == 0) continue;
    }
    if (error || got < length) {
      if (!region->faulted())
        region->set_fault(error ? std::string("the data file can't be read: ") + strerror(error)
                                : std::string("the data file was truncated by another program"),
                          0);
      *code = Code::region_faulted;
    }
    return Progress::done;
  }
}

Code Store::extents(const std::string& name, uint64_t offset, uint64_t length, size_t most,
                    std::vector<Extent>* extents, ReadFacts* facts) {
  std::shared_ptr<Region> region;
  {
    Lock lock(lock_);
    if (closing_) return Code::cancelled;
    auto it = regions_.find(name);
    if (it == regions_.end()) return Code::region_not_found;
    region = it->second;
    facts->region = answer_region(*region);
    facts->region.generation = region->visible_generation;
    if (offset > region->meta.size || length > region->meta.size - offset) return Code::out_of_bounds;
    if (!region->data().open()) return Code::region_faulted;
  }
  return file_code(list_extents(region->data(), offset, offset + length, most, extents));
}

Code Store::flush(const std::string& name) {
  Lock lock(lock_);
  if (closing_) return Code::cancelled;
  if (!name.empty()) {
    auto it = regions_.find(name);
    if (it == regions_.end()) return Code::region_not_found;
    if (it->second->faulted()) return Code::region_faulted;
  }
  if (!wait_applied(lock, head_.lsn)) return closing_ ? Code::cancelled : Code::flush_failed;
  std::vector<std::pair<std::shared_ptr<Region>, uint64_t>> fast;
  for (auto& [region_name, region] : regions_)
    if ((name.empty() || region_name == name) && region->meta.durability == Durability::fast && !region->faulted())
      fast.emplace_back(region, region->visible_generation);
  lock.unlock();
  if (fast.empty()) return Code::ok;
  // One at a time with the last checkpoint of a closing store: the kernel tells an error of a file to one of them only.
  std::lock_guard<std::mutex> no_checkpoint(checkpoint_lock_);
  Code code = Code::ok;
  for (auto& [region, generation] : fast) {
    int error = sync_data(region->data());
    Lock relock(lock_);
    if (error) {
      poison_after_sync_error(region, error);
      code = Code::flush_failed;
    } else {
      region->durable_generation = std::max(region->durable_generation, generation);
    }
  }
  return code;
}

// Copies the records that a faulted region still needs out of the ring, before the checkpoint frees them.
int Store::save_redo(const std::vector<Faulted>& faulted, uint64_t up_to) {
  for (const auto& [region, fault_lsn, saved_lsn] : faulted) {
    std::vector<uint8_t> saved;
    uint64_t position = journal_.checkpoint().position;
    for (uint64_t lsn = journal_.checkpoint().lsn + 1; lsn <= up_to; lsn++) {
      const RecordHeader* record = journal_.record_at(position);
      position += record->total_bytes;
      if (record->kind != RecordKind::batch || lsn < fault_lsn || lsn <= saved_lsn) continue;
      RecordReader reader(record);
      bool concerned = false;
      for (uint32_t i = 0; i < record->region_count; i++)
        concerned = concerned || reader.region(i).incarnation == region->meta.incarnation;
      if (!concerned) continue;
      size_t at = saved.size();
      const uint8_t* bytes = reinterpret_cast<const uint8_t*>(record);
      saved.insert(saved.end(), bytes, bytes + record->total_bytes);
      auto* copy = reinterpret_cast<RecordHeader*>(saved.data() + at);
      copy->crc = record_crc(*copy, 0);  // stands alone: it has no predecessor here
    }
    if (!saved.empty()) {
      File file;
      FileFacts before;
      if (int error = open_at(region->directory(), "redo", O_RDWR | O_CREAT, &file)) return error;
      if (int error = file_facts(file, &before)) return error;
      int error = append_all(file, saved);
      if (!error) error = sync_all(file);
      if (!error) error = sync_all(region->directory());
      if (error) {
        truncate_to(file, before.size);  // half a record would hide what the next attempt appends
        return error;
      }
    }
    Lock lock(lock_);
    region->saved_lsn = up_to;
  }
  return 0;
}

// The caller holds the lock.
std::vector<Store::Faulted> Store::faulted_regions() const {
  std::vector<Faulted> faulted;
  for (auto& [name, region] : regions_)
    if (region->fault_lsn) faulted.push_back({region, region->fault_lsn, region->saved_lsn});
  return faulted;
}

int Store::checkpoint(bool everything) {
  std::lock_guard<std::mutex> one_at_a_time(checkpoint_lock_);
  Lock lock(lock_);
  checkpoint_wanted_ = false;
  if (journal_failed_) return EIO;
  if (closing_ && !everything) return ECANCELED;  // the lease may be another process's by now
  __atomic_or_fetch(&words_->doing, kDoingCheckpoint, __ATOMIC_RELAXED);
  Checkpoint next = journal_.checkpoint();
  next.sequence++;
  next.lsn = applied_end_.lsn;
  next.position = applied_end_.position;
  next.chain_seed = applied_end_.crc;
  next.clean = closing_ && pending_.empty();
  next.regions.clear();
  std::vector<std::pair<std::shared_ptr<Region>, uint64_t>> dirty;
  for (auto& [name, region] : regions_) {
    (void)name;
    next.regions.push_back({region->meta.incarnation, region->visible_generation});
    // A fast region has no promise beyond the page cache, where its images are: syncing them would only cost.
    if (!region->dirty || (!everything && region->meta.durability == Durability::fast)) continue;
    dirty.emplace_back(region, region->visible_generation);
    region->dirty = false;
  }
  std::vector<uint8_t> outcomes = outcomes_.encode(next.lsn);
  lock.unlock();

  for (auto& [region, generation] : dirty) {
    int error = HOLDFAST_MUTANT("checkpoint_without_data_sync") ? 0 : sync_data(region->data());
    Lock relock(lock_);
    if (error) {
      poison_after_sync_error(region, error);
    } else if (!region->faulted()) {
      region->durable_generation = std::max(region->durable_generation, generation);
    }
  }
  HOLDFAST_FAILPOINT("checkpoint_data_synced");
  lock.lock();
  next.clean = next.clean && !distrusted_;
  std::vector<Faulted> faulted = faulted_regions();
  lock.unlock();
  int error = save_redo(faulted, next.lsn);
  if (!error && !faulted.empty()) {
    // Their redo files have what the ring is about to give up: applied may pass it, and must before the slot does.
    lock.lock();
    find_poisoned();
    advance_applied();
    lock.unlock();
  }
  if (!error && !HOLDFAST_MUTANT("checkpoint_drops_outcomes")) error = outcomes_.save(outcomes, next.lsn);
  if (!error) error = journal_.write_checkpoint(next);
  HOLDFAST_FAILPOINT("checkpoint_done");

  lock.lock();
  if (!error) {
    journal_.adopt_checkpoint(std::move(next));
    checkpoints_++;
  } else {
    for (auto& [region, generation] : dirty) region->dirty = true;
  }
  __atomic_and_fetch(&words_->doing, ~kDoingCheckpoint, __ATOMIC_RELAXED);
  progress_.notify_all();
  return error;
}

void Store::run_checkpointer() {
  Lock lock(lock_);
  while (!closing_) {
    checkpointer_wake_.wait_for(lock, std::chrono::milliseconds(options_.checkpoint_interval_ms),
                                [&] { return closing_ || checkpoint_wanted_; });
    if (closing_) return;
    if (applied_end_.lsn == journal_.checkpoint().lsn) {
      // Nothing new is applied: the ring's end waits for the flusher, which says so when it is done.
      if (checkpoint_wanted_) {
        checkpoint_wanted_ = false;
        flush_wanted_ = head_.lsn;
        flusher_wake_.notify_one();
        progress_.wait_for(lock, std::chrono::milliseconds(10));
      }
      continue;
    }
    lock.unlock();
    if (checkpoint_step() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    lock.lock();
  }
}

std::vector<std::string> Store::names() {
  Lock lock(lock_);
  std::vector<std::string> names;
  for (auto& [name, region] : regions_) names.push_back(name);
  return names;
}

RegionInfo Store::info_of(const Region& region) const {
  return {region.meta, region.generation, region.durable_generation, region.fault};
}

std::optional<RegionInfo> Store::info(const std::string& name) {
  Lock lock(lock_);
  auto it = regions_.find(name);
  if (it == regions_.end()) return std::nullopt;
  return info_of(*it->second);
}

StoreStatus Store::status() {
  Lock lock(lock_);
  StoreStatus s = {};
  s.committed = head_.lsn;
  s.applied = applied_end_.lsn;
  s.durable = durable_;
  s.checkpoint = journal_.checkpoint().lsn;
  s.journal_bytes = journal_.ring_bytes();
  s.journal_used_bytes = head_.position - journal_.checkpoint().position;
  s.commits = commits_;
  s.flushes = flushes_;
  s.checkpoints = checkpoints_;
  s.faults_caught = fault_guard_caught();
  s.idempotency_keys = outcomes_.size();
  s.lease_since_ms = lease_since_ms_;
  s.file_system = file_system_name_;
  s.recovery = report_;
  return s;
}

void Store::close() {
  {
    Lock lock(lock_);
    if (closing_) return;
    closing_ = true;
    flusher_wake_.notify_all();
    checkpointer_wake_.notify_all();
    progress_.notify_all();
  }
  for (std::thread* thread : {&flusher_, &checkpointer_, &populator_})
    if (thread->joinable()) thread->join();
  flush_step();
  checkpoint(true);
  // The lease goes last: whoever takes it next must find everything written.
  Lock lock(lock_);
  words_mapping_.reset();
  lease_.close();
}

Store::~Store() { close(); }

}  // namespace holdfast
