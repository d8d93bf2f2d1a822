// journal.cc - the redo journal, see journal.h and format.h.
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>

#include "crc32c.h"
#include "failpoint.h"

namespace holdfast {

namespace {

constexpr char kName[] = "journal";
constexpr char kNewName[] = "journal.new";

uint64_t slot_offset(uint32_t region_capacity, uint64_t sequence) {
  return kPageBytes + (sequence & 1) * checkpoint_slot_bytes(region_capacity);
}

std::vector<uint8_t> encode_slot(const Checkpoint& c, uint64_t ring_bytes, uint32_t region_capacity) {
  CheckpointHeader header = {};
  header.magic = kCheckpointMagic;
  header.version = kStoreFormatVersion;
  header.sequence = c.sequence;
  header.lsn = c.lsn;
  header.ring_bytes = ring_bytes;
  header.ring_position = c.position;
  header.salt = c.salt;
  header.chain_seed = c.chain_seed;
  header.region_capacity = region_capacity;
  header.region_count = static_cast<uint32_t>(c.regions.size());
  header.clean = c.clean;
  size_t table = c.regions.size() * sizeof(CheckpointRegion);
  std::vector<uint8_t> bytes(sizeof header + table);
  if (table) memcpy(bytes.data() + sizeof header, c.regions.data(), table);
  header.crc = crc32c_headed(header, std::span<const uint8_t>(bytes).subspan(sizeof header));
  memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

bool decode_slot(std::span<const uint8_t> bytes, uint64_t ring_bytes, uint32_t region_capacity, Checkpoint* c) {
  CheckpointHeader header;
  if (bytes.size() < sizeof header) return false;
  memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kCheckpointMagic || header.version != kStoreFormatVersion || header.ring_bytes != ring_bytes ||
      header.region_capacity != region_capacity || header.region_count > region_capacity ||
      header.ring_position % kRecordAlign != 0 || header.ring_position > kPositionMax)
    return false;
  size_t used = sizeof header + header.region_count * sizeof(CheckpointRegion);
  if (used > bytes.size()) return false;
  if (header.crc != crc32c_headed(header, bytes.first(used).subspan(sizeof header))) return false;
  c->sequence = header.sequence;
  c->lsn = header.lsn;
  c->position = header.ring_position;
  c->salt = header.salt;
  c->chain_seed = header.chain_seed;
  c->clean = header.clean == 1;
  c->regions.resize(header.region_count);
  if (header.region_count)
    memcpy(c->regions.data(), bytes.data() + sizeof header, header.region_count * sizeof(CheckpointRegion));
  return true;
}

}  // namespace

int Journal::create(const File& directory, uint64_t ring_bytes, uint32_t region_capacity, const Checkpoint& first) {
  File file;
  if (int error = remove_file_at(directory, kNewName)) return error;
  if (int error = open_at(directory, kNewName, O_RDWR | O_CREAT | O_EXCL, &file)) return error;
  uint64_t total = journal_ring_offset(region_capacity) + ring_bytes;
  if (int error = allocate_to(file, 0, total)) {
    remove_file_at(directory, kNewName);
    return error;
  }
  // Zeros are written, not only allocated: a block that was never written costs a metadata commit at its first sync.
  std::vector<uint8_t> zeros(uint64_t{4} << 20, 0);
  for (uint64_t at = 0; at < total; at += zeros.size())
    if (int error =
            write_all(file, std::span<const uint8_t>(zeros).first(std::min<uint64_t>(zeros.size(), total - at)), at))
      return error;
  JournalHeader header = {};
  header.magic = kJournalMagic;
  header.version = kStoreFormatVersion;
  header.ring_bytes = ring_bytes;
  header.region_capacity = region_capacity;
  header.crc = crc32c_headed(header);
  if (int error = write_all(file, {reinterpret_cast<const uint8_t*>(&header), sizeof header}, 0)) return error;
  std::vector<uint8_t> slot = encode_slot(first, ring_bytes, region_capacity);
  if (int error = write_all(file, slot, slot_offset(region_capacity, first.sequence))) return error;
  if (int error = sync_all(file)) return error;
  HOLDFAST_FAILPOINT("journal_made");
  if (int error = replace_at(directory, kNewName, kName)) return error;
  return sync_all(directory);
}

int Journal::open(const File& directory) {
  if (int error = open_at(directory, kName, O_RDWR, &file_)) return error;
  if (int error = open_at(directory, kName, O_RDWR, &slots_)) return error;
  FileFacts facts;
  if (int error = file_facts(file_, &facts)) return error;
  JournalHeader header;
  size_t got = 0;
  if (int error = read_some(file_, {reinterpret_cast<uint8_t*>(&header), sizeof header}, 0, false, &got)) return error;
  if (got != sizeof header || header.magic != kJournalMagic || header.version != kStoreFormatVersion ||
      header.crc != crc32c_headed(header) || header.ring_bytes == 0 || header.ring_bytes % kPageBytes != 0 ||
      header.ring_bytes > facts.size || facts.size - header.ring_bytes < journal_ring_offset(header.region_capacity))
    return EBADMSG;
  ring_bytes_ = header.ring_bytes;
  region_capacity_ = header.region_capacity;
  bool found = false;
  slot_damaged_ = false;
  for (uint64_t which = 0; which < 2; which++) {
    std::vector<uint8_t> slot(checkpoint_slot_bytes(region_capacity_));
    if (int error = read_some(file_, slot, slot_offset(region_capacity_, which), false, &got)) return error;
    Checkpoint c;
    if (got != slot.size() || !decode_slot(slot, ring_bytes_, region_capacity_, &c) || (c.sequence & 1) != which) {
      slot_damaged_ = true;
    } else if (!found || c.sequence > checkpoint_.sequence) {
      checkpoint_ = std::move(c);
      found = true;
    }
  }
  if (!found) return EBADMSG;
  return ring_.map_twice(file_, journal_ring_offset(region_capacity_), ring_bytes_);
}

const RecordHeader* Journal::record_at(uint64_t position) const {
  return reinterpret_cast<const RecordHeader*>(ring_.data() + position % ring_bytes_);
}

const RecordHeader* Journal::record_after(const ChainEnd& end, uint64_t salt) const {
  const RecordHeader* r = record_at(end.position);
  if (r->magic != kRecordMagic || r->lsn != end.lsn + 1 || r->salt != salt || r->total_bytes < sizeof *r ||
      r->total_bytes % kRecordAlign != 0 || r->total_bytes > ring_bytes_)
    return nullptr;
  if (record_crc(*r, end.crc) != r->crc && !HOLDFAST_MUTANT("record_crc_not_asked")) return nullptr;
  return record_well_formed(*r) ? r : nullptr;
}

bool Journal::superseded(const ChainEnd& end) const {
  if (!slot_damaged_) return false;
  // What a checkpoint that was being written at a power cut left torn has no record after it.
  for (uint64_t at = end.position; at < checkpoint_.position + ring_bytes_; at += kRecordAlign) {
    const RecordHeader* r = record_at(at);
    if (r->magic == kRecordMagic &&
        static_cast<int32_t>(r->checkpoint - static_cast<uint32_t>(checkpoint_.sequence)) > 0)
      return true;
  }
  return false;
}

void Journal::erase_tail(uint64_t position) { memset(space_at(position), 0, sizeof(RecordHeader)); }

int Journal::write_checkpoint(const Checkpoint& next) const {
  std::vector<uint8_t> slot = encode_slot(next, ring_bytes_, region_capacity_);
  // Only the slot: a sync of the whole file would also write the records of `fast` regions, which nobody waits for, and
  // each page that it cleans costs a fault at its next use.
  if (HOLDFAST_MUTANT("slot_not_synced")) return write_all(slots_, slot, slot_offset(region_capacity_, next.sequence));
  return write_all_synced(slots_, slot, slot_offset(region_capacity_, next.sequence));
}

void Journal::dirty(uint64_t position, uint64_t bytes) {
  for (uint64_t at = position / kPageBytes * kPageBytes; at < position + bytes; at += kPageBytes) {
    volatile uint8_t* byte = ring_.data() + at % ring_bytes_;
    *byte = *byte;
  }
}

void Journal::populate(const std::function<bool()>& stop) {
  constexpr uint64_t kStep = uint64_t{1} << 20;
  for (uint64_t at = 0; at < ring_.size() && !stop(); at += kStep)
    populate_read(ring_.data() + at, std::min<uint64_t>(kStep, ring_.size() - at));
}

}  // namespace holdfast
