// region.h - one region: its files, its mapping and what is known of it. Knows nothing of the journal or of HTTP.
//
// Every field is guarded by the store's lock unless it says otherwise. A Region outlives its removal for as long as
// a reader holds it (std::shared_ptr), and a mapping outlives a resize for the same reason.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "file.h"
#include "format.h"
#include "holdfast.h"
#include "status.h"

namespace holdfast {

// What regions/NAME/meta says.
struct RegionMeta {
  std::string name;
  std::string labels = "{}";  // JSON text, opaque here
  std::string path;           // of the data file, when adopted
  uint64_t incarnation = 0;   // unique per creation; microseconds since 1970, made unique
  uint64_t meta_generation = 0;
  uint64_t size = 0;  // bytes
  uint64_t created_us = 0;
  uint64_t modified_us = 0;
  Durability durability = Durability::durable;
  uint32_t flags = 0;  // kMeta...
};

std::vector<uint8_t> encode_meta(const RegionMeta& meta);
// False: not a valid meta. The bytes may come from a record or a file.
bool decode_meta(std::span<const uint8_t> bytes, RegionMeta* meta);

class SnapshotCopy;

class Region {
 public:
  RegionMeta meta;
  uint64_t generation = 0;          // of the last committed batch
  uint64_t visible_generation = 0;  // of the last applied one
  uint64_t durable_generation = 0;  // of the last one that survives a power cut
  uint64_t settled_generation = 0;  // of the last one that a killed process left whole, during a recovery; 0: not known
  uint64_t acknowledged_lsn = 0;    // the last record whose batch was answered before it was applied
  uint32_t pending = 0;             // committed records that wait to be applied
  bool dirty = false;               // applied images that no fdatasync has covered since the last checkpoint began
  bool removed = false;
  std::string fault;             // empty: fine. Otherwise why writes are refused.
  bool doubted = false;          // that is all: nothing is known to be wrong, and a person may lift the fault
  uint64_t fault_lsn = 0;        // the first record that may be missing from the data; 0: none is
  uint64_t saved_lsn = 0;        // records up to it are in the redo file
  uint64_t last_lsn = 0;         // the last record that names the region
  uint64_t resized_lsn = 0;      // the last record that may have changed its size
  bool snapshotting = false;     // a snapshot is being made: the size stays, and so do the files
  SnapshotCopy* copy = nullptr;  // of that snapshot, while pages are copied: asked before each store

  // Opens (`creating`: makes) the files of the region in `directory`. The data file must be at least meta.size long: a
  // shorter one, or an adopted one that is not there, leaves the region faulted, not unopened. Returns an errno value.
  int open(const File& directory, bool creating);
  // Shrinks the file, or takes in its growth, with mapping and control, after meta has changed. Returns an errno value.
  int resized(uint64_t old_size);
  // Cuts what a change of size that a kill ended left behind the region's last byte; an adopted file may have more.
  // Returns an errno value.
  int cut_to_size();

  bool faulted() const { return !fault.empty(); }
  const File& data() const { return data_; }
  const File& directory() const { return directory_; }
  std::shared_ptr<Mapping> mapping() const { return mapping_; }

  // True when every page of the range was populated before, so that storing needs neither the disk nor new blocks.
  bool populated(uint64_t offset, uint64_t length) const;
  // Makes the pages of the range present, writable and backed by blocks. May wait for the disk: call it without the
  // store's lock, then mark_populated() under it. Errors: insufficient_storage, region_faulted.
  static Code populate(const File& data, const Mapping& mapping, bool sparse, uint64_t offset, uint64_t length);
  void mark_populated(uint64_t offset, uint64_t length);
  // Another file shares the blocks from now on: a page needs one of its own before it can be stored to.
  void blocks_shared() { forget_populated(); }
  // Changes whenever all that is known of populated pages is forgotten: what populate() found before is then not about the
  // pages of now.
  uint64_t population() const { return population_; }

  // Copies out of the mapping, in bounds. False: the file was truncated or can't be read.
  bool load(uint64_t offset, uint64_t length, uint8_t* into) const;
  // Has the processor fetch the bytes at `offset`, which may lie anywhere, while other work goes on. Never faults.
  void prefetch(uint64_t offset) const {
    if (offset < meta.size && mapping_->data()) __builtin_prefetch(mapping_->data() + offset, 1);
  }

  // The writer's half of the sequence lock in the control page.
  void sequence_open();                      // odd: readers wait
  void sequence_close(uint64_t generation);  // even: 2 x generation
  bool sequence_settled() const;
  // The generation that a process of this boot left settled for mapped readers; 0 if it left a batch half applied or the
  // control page is not this boot's. `same_files`: the page is taken for that of these files.
  uint64_t generation_left(const uint8_t boot_id[16], bool same_files) const;
  // Word-wise stores into the mapping between the two. False: SIGBUS; any part may be written.
  bool store(uint64_t offset, const uint8_t* bytes, uint64_t length);

  // `lsn`: the first record that may be missing from the data, if any may. Then the sequence stays odd, so that neither a
  // mapped reader nor a later opening takes the data for whole.
  void set_fault(const std::string& why, uint64_t lsn);
  // Takes back a fault that was a doubt only.
  void lift_doubt();
  // Tells whoever maps the files that they are the region's no more. A fault that follows takes it back.
  void retire();
  // Writes the control page anew for this boot and file.
  int reset_control();

 private:
  File directory_, data_, control_file_;
  std::shared_ptr<Mapping> mapping_;
  Mapping control_mapping_;
  std::vector<uint64_t> populated_;  // one bit per page
  uint64_t population_ = 0;

  holdfast_control* control() const { return reinterpret_cast<holdfast_control*>(control_mapping_.data()); }
  int open_data(bool creating, FileFacts* facts);
  int map_data();
  int cut_data();
  void forget_populated();
};

}  // namespace holdfast
