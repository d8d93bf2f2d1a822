// region.cc - one region, see region.h.
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>

#include "batch.h"
#include "crc32c.h"
#include "failpoint.h"
#include "fault_guard.h"

namespace holdfast {

namespace {

void append_text(std::vector<uint8_t>* bytes, const std::string& text) {
  bytes->insert(bytes->end(), text.begin(), text.end());
}

}  // namespace

std::vector<uint8_t> encode_meta(const RegionMeta& meta) {
  MetaHeader header = {};
  header.magic = kMetaMagic;
  header.version = kStoreFormatVersion;
  header.incarnation = meta.incarnation;
  header.meta_generation = meta.meta_generation;
  header.size = meta.size;
  header.created_us = meta.created_us;
  header.modified_us = meta.modified_us;
  header.durability = static_cast<uint32_t>(meta.durability);
  header.flags = meta.flags;
  header.name_bytes = static_cast<uint32_t>(meta.name.size());
  header.labels_bytes = static_cast<uint32_t>(meta.labels.size());
  header.path_bytes = static_cast<uint32_t>(meta.path.size());
  std::vector<uint8_t> bytes(sizeof header);
  append_text(&bytes, meta.name);
  append_text(&bytes, meta.labels);
  append_text(&bytes, meta.path);
  header.crc = crc32c_headed(header, std::span<const uint8_t>(bytes).subspan(sizeof header));
  memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

bool decode_meta(std::span<const uint8_t> bytes, RegionMeta* meta) {
  MetaHeader header;
  if (bytes.size() < sizeof header) return false;
  memcpy(&header, bytes.data(), sizeof header);
  std::span<const uint8_t> strings = bytes.subspan(sizeof header);
  if (header.magic != kMetaMagic || header.version != kStoreFormatVersion ||
      uint64_t{header.name_bytes} + header.labels_bytes + header.path_bytes != strings.size() ||
      header.size > kRegionBytesMax || header.crc != crc32c_headed(header, strings) ||
      !durability_known(static_cast<Durability>(header.durability)))
    return false;
  const char* text = reinterpret_cast<const char*>(strings.data());
  meta->name.assign(text, header.name_bytes);
  meta->labels.assign(text + header.name_bytes, header.labels_bytes);
  meta->path.assign(text + header.name_bytes + header.labels_bytes, header.path_bytes);
  meta->incarnation = header.incarnation;
  meta->meta_generation = header.meta_generation;
  meta->size = header.size;
  meta->created_us = header.created_us;
  meta->modified_us = header.modified_us;
  meta->durability = static_cast<Durability>(header.durability);
  meta->flags = header.flags;
  // It becomes a part of paths.
  return region_name_valid(meta->name);
}

int Region::map_data() {
  auto mapping = std::make_shared<Mapping>();
  if (!data_.open()) {
    // Nothing is mapped: every load and store fails, as if the file had been cut to nothing.
    mapping_ = std::move(mapping);
    return 0;
  }
  uint64_t length = (meta.size + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (int error = mapping->map(data_, 0, length)) return error;
  mapping_ = std::move(mapping);
  populated_.resize((length / kPageBytes + 63) / 64, 0);
  return 0;
}

int Region::open(const File& directory, bool creating) {
  if (int error = open_directory_at(directory, ".", &directory_)) return error;
  const bool adopted = meta.flags & kMetaAdopted;
  FileFacts facts;
  if (int error = open_data(creating, &facts)) {
    // An adopted file may be on a disk that is not there today. The other regions are, and this one's records are kept.
    if (!adopted || creating) return error;
    data_.close();
    set_fault(meta.path + " can't be opened: " + strerror(error), 0);
  }
  if (creating && facts.size < meta.size) {
    if (adopted) return EINVAL;
    int error = (meta.flags & kMetaSparse) ? truncate_to(data_, meta.size) : allocate_to(data_, facts.size, meta.size);
    if (error) return error;
    facts.size = meta.size;
  }
  if (int error = open_at(directory_, "control", O_RDWR | O_CREAT, &control_file_)) return error;
  FileFacts control_facts;
  if (int error = file_facts(control_file_, &control_facts)) return error;
  if (control_facts.size < kPageBytes)
    if (int error = allocate_to(control_file_, control_facts.size, kPageBytes)) return error;
  if (int error = control_mapping_.map(control_file_, 0, kPageBytes)) return error;
  if (int error = map_data()) return error;
  if (data_.open() && facts.size < meta.size) set_fault("the data file is shorter than the region", 0);
  return 0;
}

int Region::open_data(bool creating, FileFacts* facts) {
  if (meta.flags & kMetaAdopted) {
    // The operator named this path; links in it are theirs to use.
    int fd = ::open(meta.path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) return errno;
    data_ = File(fd);
  } else if (int error = open_at(directory_, "data", O_RDWR | (creating ? O_CREAT : 0), &data_)) {
    return error;
  }
  if (int error = file_facts(data_, facts)) return error;
  return facts->regular ? 0 : EINVAL;
}

int Region::reset_control() {
  FileFacts facts;
  if (data_.open())
    if (int error = file_facts(data_, &facts)) return error;
  holdfast_control page = {};
  page.version = 1;
  page.state = faulted() ? HOLDFAST_STATE_FAULTED : HOLDFAST_STATE_OK;
  if (int error = boot_identity(page.boot_id)) return error;
  page.data_device = facts.device;
  page.data_inode = facts.inode;
  page.incarnation = meta.incarnation;
  // A mapped reader may hold this page already: the words it loops on stay words, the magic comes last.
  holdfast_control* c = control();
  c->version = page.version;
  __atomic_store_n(&c->state, page.state, __ATOMIC_RELAXED);
  memcpy(c->boot_id, page.boot_id, sizeof page.boot_id);
  c->data_device = page.data_device;
  c->data_inode = page.data_inode;
  c->incarnation = page.incarnation;
  __atomic_store_n(&c->length, meta.size, __ATOMIC_RELEASE);
  __atomic_store_n(&c->sequence, visible_generation * 2 + (fault_lsn ? 1 : 0), __ATOMIC_RELEASE);
  __atomic_store_n(&c->magic, HOLDFAST_CONTROL_MAGIC, __ATOMIC_RELEASE);
  return 0;
}

int Region::cut_to_size() { return (meta.flags & kMetaAdopted) ? 0 : cut_data(); }

// Only ever cut: a file that somebody else cut shorter still must not look whole again.
int Region::cut_data() {
  FileFacts facts;
  if (int error = data_.open() ? file_facts(data_, &facts) : 0) return error;
  return facts.size > meta.size ? truncate_to(data_, meta.size) : 0;
}

int Region::resized(uint64_t old_size) {
  // A reader learns the shorter length before bytes go, and the longer one after they are there.
  if (meta.size < old_size) {
    __atomic_store_n(&control()->length, meta.size, __ATOMIC_RELEASE);
    if (int error = cut_data()) return error;
  }
  forget_populated();
  if (int error = map_data()) return error;
  __atomic_store_n(&control()->length, meta.size, __ATOMIC_RELEASE);
  return 0;
}

void Region::forget_populated() {
  std::fill(populated_.begin(), populated_.end(), 0);
  ++population_;
}

bool Region::populated(uint64_t offset, uint64_t length) const {
  if (length == 0) return true;
  if (!mapping_->data()) return false;
  // A size that could not be mapped has pages that nothing is known of.
  for (uint64_t page = offset / kPageBytes; page <= (offset + length - 1) / kPageBytes; page++)
    if (page / 64 >= populated_.size() || !(populated_[page / 64] >> (page % 64) & 1)) return false;
  return true;
}

void Region::mark_populated(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  for (uint64_t page = offset / kPageBytes; page <= (offset + length - 1) / kPageBytes && page / 64 < populated_.size();
       page++)
    populated_[page / 64] |= uint64_t{1} << (page % 64);
}

Code Region::populate(const File& data, const Mapping& mapping, bool sparse, uint64_t offset, uint64_t length) {
  if (length == 0) return Code::ok;
  uint64_t first = offset / kPageBytes * kPageBytes;
  uint64_t end = (offset + length + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (end > mapping.size()) return Code::region_faulted;
  // Blocks first: a hole on a full disk says ENOSPC here and SIGBUS there. A file that somebody cut must not grow back.
  if (sparse) {
    int error = allocate_inside(data, offset, length);
    if (error == ENOSPC || error == EDQUOT) return Code::insufficient_storage;
  }
  int error = populate_write(mapping.data() + first, end - first);
  if (error == 0) return Code::ok;
  if (error == EINVAL)  // a kernel before 5.14
    return guarded_touch(mapping.data() + first, end - first) ? Code::ok : Code::region_faulted;
  FileFacts facts;
  if (file_facts(data, &facts) == 0 && facts.size >= offset + length && allocate_inside(data, offset, length) == ENOSPC)
    return Code::insufficient_storage;
  return Code::region_faulted;
}

bool Region::load(uint64_t offset, uint64_t length, uint8_t* into) const {
  if (!mapping_->data()) return false;
  return guarded_copy_in(into, mapping_->data() + offset, length);
}

void Region::sequence_open() {
  __atomic_store_n(&control()->sequence, visible_generation * 2 + 1, __ATOMIC_RELAXED);
  // Orders the odd sequence before every store of the batch, for readers that see one of those.
  __atomic_thread_fence(__ATOMIC_RELEASE);
}

void Region::sequence_close(uint64_t generation) {
  visible_generation = generation;
  __atomic_store_n(&control()->sequence, generation * 2, __ATOMIC_RELEASE);
}

bool Region::sequence_settled() const { return (__atomic_load_n(&control()->sequence, __ATOMIC_ACQUIRE) & 1) == 0; }

uint64_t Region::generation_left(const uint8_t boot_id[16], bool same_files) const {
  const holdfast_control* c = control();
  FileFacts facts;
  if (c->magic != HOLDFAST_CONTROL_MAGIC || memcmp(c->boot_id, boot_id, sizeof c->boot_id) != 0 ||
      c->incarnation != meta.incarnation || !sequence_settled() || !data_.open() || file_facts(data_, &facts) != 0)
    return 0;
  if (!same_files && (c->data_device != facts.device || c->data_inode != facts.inode)) return 0;
  return holdfast_generation(c);
}

bool Region::store(uint64_t offset, const uint8_t* bytes, uint64_t length) {
  if (!mapping_->data()) return false;
  return guarded_store(mapping_->data() + offset, bytes, length);
}

void Region::set_fault(const std::string& why, uint64_t lsn) {
  if (fault.empty() || doubted) fault = why;
  doubted = false;
  if (lsn && (fault_lsn == 0 || lsn < fault_lsn)) fault_lsn = lsn;
  if (!control_mapping_.data()) return;
  if (lsn) sequence_open();
  __atomic_store_n(&control()->state, HOLDFAST_STATE_FAULTED, __ATOMIC_RELEASE);
}

void Region::retire() {
  if (control_mapping_.data()) __atomic_store_n(&control()->state, HOLDFAST_STATE_REMOVED, __ATOMIC_RELEASE);
}

void Region::lift_doubt() {
  if (!doubted) return;
  doubted = false;
  fault.clear();
  __atomic_store_n(&control()->state, HOLDFAST_STATE_OK, __ATOMIC_RELEASE);
}

}  // namespace holdfast
