// record.h - a record's bytes in order: written once, read by the commit, the flusher and recovery. See format.h.
#pragma once

#include <string.h>

#include <span>
#include <vector>

#include "batch.h"
#include "crc32c.h"
#include "format.h"

namespace holdfast {

inline uint64_t padded_to(uint64_t bytes, uint64_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

// Bytes that a record takes in the ring.
inline uint64_t record_bytes(size_t regions, const std::vector<Image>& images, uint64_t meta_bytes,
                             uint64_t outcome_bytes) {
  uint64_t bytes = sizeof(RecordHeader) + regions * sizeof(RecordRegion) + padded_to(meta_bytes, 8) + outcome_bytes;
  for (const Image& image : images) bytes += sizeof(ImageHeader) + padded_to(image.length, 8);
  return padded_to(bytes, kRecordAlign);
}

// The crc that a record has when its predecessor's is `seed`. Reads total_bytes.
inline uint32_t record_crc(const RecordHeader& record, uint32_t seed) {
  RecordHeader header = record;
  header.crc = 0;
  return crc32c(crc32c(seed, &header, sizeof header), &record + 1, record.total_bytes - sizeof header);
}

// Whether the parts that the header and the image headers announce lie inside the record. Reads total_bytes, which is at
// least a header. RecordReader takes it for granted.
inline bool record_well_formed(const RecordHeader& record) {
  const auto* start = reinterpret_cast<const uint8_t*>(&record);
  uint64_t at = sizeof record;
  const auto take = [&](uint64_t bytes) {
    if (bytes > record.total_bytes - at) return false;
    at += bytes;
    return true;
  };
  if (record.region_count > kRegionsPerBatchMax || !take(record.region_count * sizeof(RecordRegion))) return false;
  for (uint32_t i = 0; i < record.image_count; i++) {
    ImageHeader image;
    const uint64_t header_at = at;
    if (!take(sizeof image)) return false;
    memcpy(&image, start + header_at, sizeof image);
    if (image.region >= record.region_count || !take(padded_to(image.length, 8))) return false;
  }
  if (!take(padded_to(record.meta_bytes, 8))) return false;
  if (!(record.flags & kRecordHasOutcome)) return true;
  OutcomeHeader outcome;
  const uint64_t outcome_at = at;
  if (!take(sizeof outcome)) return false;
  memcpy(&outcome, start + outcome_at, sizeof outcome);
  return take(outcome.answer_bytes);
}

// Writes one record into ring memory. The parts come in the order of the methods; finish() gives the checksum and
// seal() makes the record valid.
class RecordWriter {
 public:
  // `header` is complete but for its checksum. `seed`: the predecessor's crc.
  RecordWriter(uint8_t* space, const RecordHeader& header, uint32_t seed)
      : start_(space), at_(space + sizeof(RecordHeader)), summed_(at_), header_(header) {
    header_.magic = kRecordMagic;
    header_.crc = 0;
    crc_ = crc32c(seed, &header_, sizeof header_);
    // A reader of the ring must not take the half-written record for the one that stood here a pass ago.
    memset(space, 0, sizeof(RecordHeader));
  }

  void regions(std::span<const RecordRegion> regions) { put(regions.data(), regions.size_bytes()); }
  void image(const Image& image, uint16_t region) {
    ImageHeader header = {image.offset, image.length, region, 0};
    put(&header, sizeof header);
    put(image.bytes, image.length);
    pad(8);
  }
  void meta(std::span<const uint8_t> bytes) {
    put(bytes.data(), bytes.size());
    pad(8);
  }
  void outcome(const OutcomeHeader& outcome, std::span<const uint8_t> answer) {
    put(&outcome, sizeof outcome);
    put(answer.data(), answer.size());
  }
  uint32_t finish() {
    pad(kRecordAlign);
    sum();
    memcpy(start_, &header_, sizeof header_);
    return crc_;
  }
  void seal(uint32_t crc) { reinterpret_cast<RecordHeader*>(start_)->crc = crc; }

 private:
  // From here on, copying and summing in one pass beats two: the ring is seldom in the cache.
  static constexpr size_t kFusedBytesMin = 1024;
  // From here on, the bytes of a record that is applied from where they came would only push others out of the caches.
  static constexpr size_t kStreamedBytesMin = 16 << 10;

  void sum() {
    crc_ = crc32c(crc_, summed_, static_cast<size_t>(at_ - summed_));
    summed_ = at_;
  }
  void put(const void* from, size_t bytes) {
    if (bytes >= kFusedBytesMin) {
      sum();
      const bool streamed = bytes >= kStreamedBytesMin && !(header_.flags & kRecordSynced);
      crc_ = streamed ? crc32c_stream(crc_, at_, from, bytes) : crc32c_copy(crc_, at_, from, bytes);
      summed_ = at_ + bytes;
    } else if (bytes) {
      memcpy(at_, from, bytes);
    }
    at_ += bytes;
  }
  void pad(uint64_t multiple) {
    uint64_t over = static_cast<uint64_t>(at_ - start_) % multiple;
    if (over == 0) return;
    memset(at_, 0, multiple - over);
    at_ += multiple - over;
  }

  uint8_t* start_;
  uint8_t* at_;
  uint8_t* summed_;  // everything before it is in crc_
  RecordHeader header_;
  uint32_t crc_;
};

// Reads a valid, and so well-formed, record.
class RecordReader {
 public:
  explicit RecordReader(const RecordHeader* record) : record_(record) {}

  RecordRegion region(uint32_t i) const { return regions()[i]; }
  template <typename Visit>
  void each_image(Visit visit) const {
    const uint8_t* at = images();
    for (uint32_t i = 0; i < record_->image_count; i++) {
      ImageHeader image;
      memcpy(&image, at, sizeof image);
      at += sizeof image;
      visit(image, at);
      at += padded_to(image.length, 8);
    }
  }
  std::span<const uint8_t> meta() const {
    return {images(), record_->meta_bytes};  // a record has images or a meta
  }
  // Null when the record has none. `answer` lies behind the header.
  const OutcomeHeader* outcome(std::span<const uint8_t>* answer) const {
    if (!(record_->flags & kRecordHasOutcome)) return nullptr;
    const uint8_t* at = images();
    each_image([&](const ImageHeader& image, const uint8_t* bytes) { at = bytes + padded_to(image.length, 8); });
    at += padded_to(record_->meta_bytes, 8);
    const auto* header = reinterpret_cast<const OutcomeHeader*>(at);
    *answer = {at + sizeof *header, header->answer_bytes};
    return header;
  }

 private:
  const RecordRegion* regions() const { return reinterpret_cast<const RecordRegion*>(record_ + 1); }
  const uint8_t* images() const { return reinterpret_cast<const uint8_t*>(regions() + record_->region_count); }

  const RecordHeader* record_;
};

}  // namespace holdfast
