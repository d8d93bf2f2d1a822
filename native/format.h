// format.h - every byte that a store keeps on disk; enough to write a reader from.
//
//   store.lock             the lease (an OFD lock on byte 0) and one page of words that mean something within one boot
//   journal                two checkpoint slots, then the redo ring
//   outcomes.0, outcomes.1 idempotency outcomes that have left the ring, as records of the same shape
//   regions/NAME/meta      MetaHeader and its strings; replaced by rename, never written in place
//   regions/NAME/control   ControlPage (holdfast.h): words for programs that map `data`; rebuilt at each open
//   regions/NAME/data      the user's bytes and nothing else (absent for an adopted file)
//   regions/NAME/redo      records of a faulted region that have left the ring; absent when there are none
//   snapshots/NAME/ID/meta SnapshotHeader and the region's meta as of then; written once
//   snapshots/NAME/ID/data the region's bytes as of then, with holes where they are zero
//   .new-NUMBER/           a region (by its incarnation) or a snapshot (by its id) that is being made; renamed into place by
//                          its create, replace or snapshot record
//   .old-NUMBER/           a region, a snapshot, or (.old-NUMBER-snapshots) those of a region, being removed
//
// All integers are little-endian. Volatile words (store.lock, control) never share a page with durable ones: the
// kernel may write either at any time, and only the durable ones are ever waited for.
//
// A record is valid if and only if: its magic, lsn (the one after its predecessor's) and salt (the checkpoint's) are
// as expected; its length is a positive multiple of 64 that the ring can hold; its crc equals crc32c over header (crc
// field zero) and payload, seeded with the predecessor's crc (the checkpoint's seed for the first one); and all the parts
// that it announces lie inside its length.
#pragma once

#include <cstdint>

namespace holdfast {

inline constexpr uint32_t kPageBytes = 4096;
inline constexpr uint32_t kStoreFormatVersion = 1;

// ---- journal ---------------------------------------------------------------------------------------------------

inline constexpr uint64_t kJournalMagic = 0x314c4e524a464848;     // "HHFJRNL1"
inline constexpr uint64_t kCheckpointMagic = 0x3154504b43464848;  // "HHFCKPT1"
inline constexpr uint32_t kRecordMagic = 0x44524648;              // "HFRD"
inline constexpr uint32_t kRecordAlign = 64;
// What no journal reaches in centuries: beyond it, sums of positions and lengths could wrap.
inline constexpr uint64_t kPositionMax = uint64_t{1} << 62;

// The first page; written once. Then slot 0, slot 1, the ring.
struct JournalHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t crc;  // crc32c with this field zero
  uint64_t ring_bytes;
  uint32_t region_capacity;  // entries that a slot has room for
  uint32_t reserved;
};
static_assert(sizeof(JournalHeader) == 32);

// One slot: this header, then region_capacity CheckpointRegions, padded to whole pages. Slots alternate by sequence.
struct CheckpointHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t crc;              // crc32c of the slot's used bytes with this field zero
  uint64_t sequence;         // the valid slot with the higher one counts
  uint64_t lsn;              // everything up to it is in the data files
  uint64_t ring_bytes;       // size of the ring
  uint64_t ring_position;    // where record lsn + 1 starts, modulo ring_bytes
  uint64_t salt;             // of the records that follow
  uint32_t chain_seed;       // crc of record lsn
  uint32_t region_capacity;  // entries a slot has room for
  uint32_t region_count;     // entries in use
  uint32_t clean;            // 1: closed in order, nothing follows
};
static_assert(sizeof(CheckpointHeader) == 72);

struct CheckpointRegion {
  uint64_t incarnation;
  uint64_t generation;  // as of the checkpoint's lsn
};
static_assert(sizeof(CheckpointRegion) == 16);

constexpr uint64_t checkpoint_slot_bytes(uint32_t region_capacity) {
  uint64_t used = sizeof(CheckpointHeader) + uint64_t{region_capacity} * sizeof(CheckpointRegion);
  return (used + kPageBytes - 1) / kPageBytes * kPageBytes;
}

// Where the ring starts: at a multiple of the largest unit in which a page cache writes a file back. Syncing a slot would
// otherwise write-protect some of the ring as well, and each of its pages would fault at its next use.
inline constexpr uint64_t kRingAlign = uint64_t{2} << 20;
constexpr uint64_t journal_ring_offset(uint32_t region_capacity) {
  return (kPageBytes + 2 * checkpoint_slot_bytes(region_capacity) + kRingAlign - 1) / kRingAlign * kRingAlign;
}

enum class RecordKind : uint16_t {
  batch = 1,   // BatchPayload
  create = 2,  // MetaPayload: rename .new-INCARNATION into place
  meta = 3,    // MetaPayload: replace the region's meta; its size may change with it
  remove = 4,  // MetaPayload: rename to .old-INCARNATION and unlink, and its snapshots with it
  replace =
      5,  // MetaPayload: as create, in the place of the region that has the name; names that one, then the new one
  snapshot = 6,  // SnapshotPayload: rename .new-ID to snapshots/NAME/ID
  forget = 7,    // SnapshotPayload: rename snapshots/NAME/ID to .old-ID and unlink
};

inline constexpr uint16_t kRecordHasOutcome = 1;  // the payload ends in OutcomeHeader and the answer frame
inline constexpr uint16_t kRecordSynced = 2;      // was, or will be, fdatasync'ed before it is applied

struct RecordHeader {
  uint32_t magic;
  uint32_t crc;
  uint64_t lsn;
  uint64_t salt;
  uint64_t total_bytes;  // header and payload, padded with zeros to a multiple of kRecordAlign
  uint64_t time_us;      // since 1970, of the commit
  RecordKind kind;
  uint16_t flags;          // kRecord...
  uint32_t region_count;   // RecordRegions that follow
  uint32_t image_count;    // ImageHeaders that follow those (batch)
  uint32_t meta_bytes;     // of the encoded meta or snapshot that follows (all but batch)
  uint32_t outcome_bytes;  // of OutcomeHeader and answer that follow, before padding
  uint32_t checkpoint;     // the sequence of the checkpoint that counted at the commit, modulo 2^32
};
static_assert(sizeof(RecordHeader) == 64);

struct RecordRegion {
  uint64_t incarnation;
  uint64_t generation;  // that this record gives the region
};
static_assert(sizeof(RecordRegion) == 16);

// Followed by `length` bytes, zero-padded to a multiple of 8.
struct ImageHeader {
  uint64_t offset;
  uint32_t length;
  uint16_t region;  // index into the record's regions
  uint16_t reserved;
};
static_assert(sizeof(ImageHeader) == 16);

struct OutcomeHeader {
  uint8_t key[16];
  uint8_t fingerprint[16];
  uint64_t time_us;
  uint32_t answer_bytes;
  uint32_t crc;  // in an outcomes file: crc32c of this header (crc zero) and the answer; in a record: 0
};
static_assert(sizeof(OutcomeHeader) == 48);

// ---- store.lock ------------------------------------------------------------------------------------------------

inline constexpr uint64_t kWordsMagic = 0x3153445257464848;  // "HHFWRDS1"

inline constexpr uint64_t kDoingRecovery = 1;
inline constexpr uint64_t kDoingCheckpoint = 2;

// Within one boot: invariant checkpoint <= applied <= committed, each written with release order by the lease's holder.
struct StoreWords {
  uint64_t magic;
  uint8_t boot_id[16];
  uint64_t journal_device;
  uint64_t journal_inode;
  uint64_t journal_birth_ns;
  uint64_t salt;                   // of the chain that committed and applied count in
  uint64_t doing;                  // kDoing...: nothing is decided by it, it tells whoever looks at a killed store
  alignas(64) uint64_t committed;  // THE commit point: everything up to it happened
  alignas(64) uint64_t applied;    // everything up to it is in the mappings
};
static_assert(sizeof(StoreWords) == 192);

// ---- regions/NAME/meta -----------------------------------------------------------------------------------------

inline constexpr uint64_t kMetaMagic = 0x3141544d46484848;  // "HHHFMTA1"

inline constexpr uint32_t kMetaReadOnly = 1;
inline constexpr uint32_t kMetaSparse = 2;
inline constexpr uint32_t kMetaAdopted = 4;     // the data file is elsewhere, at `path`
inline constexpr uint32_t kMetaUnverified = 8;  // a fast region after an unclean restart or a failed sync

// Nobody can make a larger region: a file that tells of one is damaged, and the map of its pages would fill the memory.
inline constexpr uint64_t kRegionBytesMax = uint64_t{1} << 40;

// Followed by name, labels (JSON text) and path (adopted only), unpadded.
struct MetaHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t crc;  // crc32c of header (crc zero) and strings
  uint64_t incarnation;
  uint64_t meta_generation;
  uint64_t size;  // bytes of the region
  uint64_t created_us;
  uint64_t modified_us;
  uint32_t durability;  // Durability
  uint32_t flags;       // kMeta...
  uint32_t name_bytes;
  uint32_t labels_bytes;
  uint32_t path_bytes;
  uint32_t reserved;
};
static_assert(sizeof(MetaHeader) == 80);

// ---- snapshots/NAME/ID/meta ------------------------------------------------------------------------------------

inline constexpr uint64_t kSnapshotMagic = 0x31504e5346464848;  // "HHFFSNP1"

// Followed by the region's MetaHeader and strings as of then.
struct SnapshotHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t crc;  // crc32c of header (crc zero) and what follows
  uint64_t id;
  uint64_t generation;
  uint64_t created_us;
  uint64_t reserved;
};
static_assert(sizeof(SnapshotHeader) == 48);

enum class Durability : uint32_t { fast = 1, ordered = 2, durable = 3 };
constexpr bool durability_known(Durability durability) {
  return durability >= Durability::fast && durability <= Durability::durable;
}

}  // namespace holdfast
