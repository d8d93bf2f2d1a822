// crc32c.h - CRC-32C (Castagnoli): the checksum of journal records and of the crc32c digests.
//
// The value is the usual one (reflected, inverted before and after): crc32c(0, "123456789", 9) == 0xe3069283.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace holdfast {

// The checksum of what `seed` is the checksum of, followed by these bytes. 0 starts one. Any thread.
uint32_t crc32c(uint32_t seed, const void* from, size_t bytes);

// Of a header that holds its own checksum in `crc`, and of what follows it. The checksum counts as 0.
template <typename Header>
uint32_t crc32c_headed(Header header, std::span<const uint8_t> rest = {}) {
  header.crc = 0;
  return crc32c(crc32c(0, &header, sizeof header), rest.data(), rest.size());
}

// Copies and checksums in one pass over the bytes; the ranges don't overlap. What is checksummed is what was loaded
// for the copy, so the two agree even if `from` changes meanwhile. Not guarded against faults.
uint32_t crc32c_copy(uint32_t seed, void* to, const void* from, size_t bytes);

// crc32c_copy for bytes that are not read again soon: they go past the caches where the processor can do that and `to` is
// aligned to 8. They are in memory, for every thread, when this returns.
uint32_t crc32c_stream(uint32_t seed, void* to, const void* from, size_t bytes);

// The same value without any special instruction: what the fast form falls back on, and is tested against.
uint32_t crc32c_portable(uint32_t seed, const void* from, size_t bytes);

// "sse4.2", "arm64" or "table": what this processor runs. For the status report and the tests.
const char* crc32c_variant();

}  // namespace holdfast
