// batch.h - from a frame to physical byte images: decode, check bounds, evaluate guards and ops in order.
//
// Nothing here writes to a mapping, a file or a journal: an evaluation only reads through a ByteSource and leaves
// images in a Staging. What comes out is final, so redoing it is idempotent whatever the operations were.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "frame.h"
#include "status.h"

namespace holdfast {

struct BatchLimits {
  uint32_t ops_max = 4096;  // ops, and separately else-ops
  uint32_t guards_max = 256;
  // Of one batch, each on its own: the bytes it may write, the result data of its answer, the bytes its digests read.
  uint64_t batch_bytes_max = uint64_t{8} << 20;
};

// A decoded frame: pointers into the frame's bytes, which must outlive it. Reused from batch to batch.
struct Entry {
  FrameOp op;
  const uint8_t* data;
};
struct Batch {
  FrameHeader header = {};  // a copy: a frame may start at any address, so no structure is read in place
  std::vector<std::string_view> regions;
  std::vector<Entry> guards, ops, else_ops;
  bool reads = false;  // some op or guard needs the bytes of a region (so staged images must be seen by later ops)
  bool slow = false;   // may take long whatever its size (digest guards): never on a thread that must not block
};

// Decodes and checks everything that needs no region: lengths, counts, kinds, types, modes, flags, region indices,
// name syntax (no name twice); reserved bytes, padding and fields that the kind has no use for are zero, so that they
// can get a meaning later. Survives any bytes, at any address.
// Errors: too_many_ops (`limit` and `actual` are set); malformed_batch (`actual` is the offset in the frame of the
// structure that is wrong, `limit` 0). A faulty frame leaves the batch in a state that may only be decoded into again.
Code decode_batch(std::span<const uint8_t> frame, const BatchLimits& limits, Batch* batch, uint64_t* limit,
                  uint64_t* actual);

// `^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$` without "..".
bool region_name_valid(std::string_view name);

// What an evaluation may know of one region. Filled by the store, under its lock.
struct RegionFacts {
  uint64_t incarnation = 0;
  uint64_t meta_generation = 0;
  uint64_t generation = 0;  // committed, not only visible
  uint64_t size = 0;        // bytes
  bool read_only = false;
};

// Where an evaluation reads from: the regions as they will be once everything committed so far is applied.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Copies `length` bytes at `offset` (in bounds) of the batch's region `region`. Errors: region_faulted.
  virtual Code read(uint16_t region, uint64_t offset, uint64_t length, uint8_t* into) = 0;
};

// One physical write. `bytes` lives in the frame or in the staging's arena.
struct Image {
  uint64_t offset;
  const uint8_t* bytes;
  uint32_t length;
  uint16_t region;
};

// What an evaluation leaves behind. Reused from batch to batch so that a hot path allocates nothing (a burst gives its
// memory back at the next reset). One thread at a time.
class Staging {
 public:
  std::vector<Image> images;          // in op order; later ones win where they overlap
  std::vector<AnswerResult> results;  // one for each op of the branch
  std::vector<uint8_t> result_data;   // the results' data, each padded to a multiple of 8, in order
  std::vector<AnswerFailure> failures;
  uint64_t image_bytes = 0;  // sum of the images' lengths
  Branch branch = Branch::ops;
  uint64_t limit = 0, actual = 0;  // of a refusal that concerns the whole batch

  // Memory that stays where it is until reset().
  uint8_t* allocate(size_t bytes);  // aligned to 16
  void reset();
  ~Staging();
  Staging();

 private:
  friend class Evaluation;
  struct Arena;
  std::unique_ptr<Arena> arena_;
};

// Evaluates the batch into `staging`, which it resets first. `facts` has one entry for each of the batch's regions.
//
// ok: branch, results and images are set. No images: the batch only read (or an unmatched cas, or empty writes).
// Anything else: branch is none, failures say why, and there are neither images nor results. In this order:
//
//   1. What no other content could cure, in guards, ops and else-ops alike, all of it listed; the code is the first
//      one's: region_not_found (incarnation 0), validation_failed, value_out_of_range, misaligned, out_of_bounds,
//      region_read_only.
//   2. batch_too_large: what either branch could write, answer or digest is over the limit. `limit` and `actual` are
//      set, there are no failures.
//   3. generation_mismatch, etag_mismatch: a condition (kOpCondition) is false. Else-ops don't run then.
//   4. region_faulted: a guard's bytes could not be read.
//   5. guard_failed: a guard is false and there are no else-ops. Whatever 3 to 5 found is listed together.
//   6. What running the ops found, which ends it: cas_mismatch, overflow, guard_failed (an assert), out_of_bounds (an
//      append), region_faulted.
//
// What is not obvious about a kind:
//
//   - add on floats: f32 adds in double and rounds once; a sum that isn't finite overflows; `saturate` keeps a NaN.
//   - min, max on floats: a NaN on either side leaves the cell as it is.
//   - cas compares bits: for floats, 0.0 isn't -0.0 and a NaN equals itself.
//   - append: a cursor that the next position doesn't fit into is an overflow.
//
// `limit` and `actual` of a failure: bounds, the region's size and the range's end (saturated); misaligned, the
// alignment and the offset; a cell or generation, the expected and the found one; overflow, the bound that was passed
// and the old cell; value_out_of_range and wrong lengths, what is allowed and what came; guard_bytes, 0 and the offset
// in the region of the first byte that differs. Field::equals is also cas's `expected`, Field::offset also copy's
// target and append's cursor.
Code evaluate_batch(const Batch& batch, std::span<const RegionFacts> facts, const BatchLimits& limits,
                    ByteSource& source, Staging* staging);

}  // namespace holdfast
