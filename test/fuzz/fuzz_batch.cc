// fuzz_batch.cc - any bytes as a frame: decoded, evaluated against small regions in memory, and what comes out checked.
//
// For libFuzzer. Prints nothing, and ends with an abort where an invariant is broken.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../native/batch.h"
#include "../native/frames.h"

using namespace holdfast;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "broken: %s\n", what);
  abort();
}

void check_outcome(const Batch& batch, const std::vector<RegionFacts>& facts, const BatchLimits& limits, Code code,
                   const Staging& staging) {
  if (code != Code::ok) {
    require(staging.branch == Branch::none, "a refusal has no branch");
    require(staging.images.empty() && staging.results.empty() && staging.result_data.empty(),
            "a refusal leaves nothing");
    require(staging.failures.empty() == (code == Code::batch_too_large), "a refusal says why");
    return;
  }
  const auto& ops = staging.branch == Branch::ops ? batch.ops : batch.else_ops;
  require(staging.failures.empty() && staging.results.size() == ops.size(), "one result for each op");
  uint64_t image_bytes = 0, data_bytes = 0;
  for (const Image& image : staging.images) {
    require(image.region < facts.size() && image.length != 0, "an image is of a region and not empty");
    const RegionFacts& region = facts[image.region];
    require(image.offset <= region.size && image.length <= region.size - image.offset, "an image is in bounds");
    require(!region.read_only && region.incarnation != 0, "an image's region can be written");
    image_bytes += image.length;
    // The sanitizer looks at each byte.
    volatile uint8_t seen = 0;
    for (uint32_t i = 0; i < image.length; ++i) seen = image.bytes[i];
    (void)seen;
  }
  for (const AnswerResult& result : staging.results) data_bytes += (uint64_t{result.data_bytes} + 7) & ~uint64_t{7};
  require(image_bytes == staging.image_bytes && image_bytes <= limits.batch_bytes_max, "image bytes add up");
  require(data_bytes == staging.result_data.size(), "result data adds up");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static Batch batch;
  static Staging staging;
  BatchLimits limits;
  limits.ops_max = 64;
  limits.guards_max = 16;
  limits.batch_bytes_max = 1 << 16;
  uint64_t limit, actual;
  const Code decoded = decode_batch({bytes, size}, limits, &batch, &limit, &actual);
  if (decoded != Code::ok) {
    require(decoded == Code::malformed_batch || decoded == Code::too_many_ops, "a frame's refusal is one of two");
    require(decoded == Code::too_many_ops ? actual > limit : actual <= size, "a frame's refusal says where");
    return 0;
  }
  // Of different sizes, one read-only, one not there: the last ones, so that one region alone is an ordinary one.
  frames::MemorySource source(batch.regions.size(), 12345);
  std::vector<RegionFacts> facts = source.facts();
  for (size_t i = 0; i < facts.size(); ++i) {
    for (size_t at = 0; at < source[i].size(); ++at) source[i][at] = static_cast<uint8_t>(at * 3 + i);
    if (i == 1) source[i].resize(100);
    facts[i].size = source[i].size();
    facts[i].read_only = i == 2;
    if (i == 3) facts[i] = {};
    if (i == 4) source.faulted = 4;
  }
  const Code code = evaluate_batch(batch, facts, limits, source, &staging);
  require(!source.strayed, "reads are in bounds");
  check_outcome(batch, facts, limits, code, staging);
  return 0;
}
