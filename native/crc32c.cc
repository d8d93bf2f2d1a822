// crc32c.cc - three streams through the processor's CRC instruction, joined by carry-less multiplication.
//
// The instruction takes 8 bytes a cycle but answers after 3, so one chain of it uses a third of what is there. A block
// is therefore cut in three equal parts whose checksums run side by side. Checksums are polynomials modulo P: putting
// n bytes behind a checksum multiplies it by x^(8n), so the parts are joined by one multiplication each, with a
// constant that depends on the parts' length alone (kShift).
#include "crc32c.h"

#include <string.h>

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace holdfast {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected: bit 31 is the coefficient of x^0

// The portable form: 8 bytes at a time, each with a table of its own (row n: a byte followed by n zero bytes).
constexpr auto kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t row = 1; row < 8; ++row) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[row - 1][byte];
      tables[row][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}();

// What becomes of the words that are summed: nothing, a copy, or a copy that goes past the caches (of whole words to
// aligned places only).
enum class Copy { none, cached, streamed };

// The word at `at`, and a copy of it in `to` (null unless copied).
template <Copy copy, typename Word>
inline Word take(uint8_t* to, const uint8_t* from, size_t at) {
  Word word;
  memcpy(&word, from + at, sizeof word);
#if defined(__x86_64__)
  if constexpr (copy == Copy::streamed && sizeof word == 8) {
    _mm_stream_si64(reinterpret_cast<long long*>(to + at), static_cast<long long>(word));
    return word;
  }
#endif
  if constexpr (copy != Copy::none) memcpy(to + at, &word, sizeof word);
  return word;
}

template <Copy copy>
uint32_t run_table(uint32_t crc, uint8_t* to, const uint8_t* from, size_t bytes) {
  for (; bytes >= 8; from += 8, bytes -= 8) {
    const uint64_t word = take<copy, uint64_t>(to, from, 0) ^ crc;
    crc = 0;
    for (int byte = 0; byte < 8; ++byte) crc ^= kTables[7 - byte][(word >> (8 * byte)) & 0xff];
    if constexpr (copy != Copy::none) to += 8;
  }
  for (; bytes != 0; ++from, --bytes) {
    crc = (crc >> 8) ^ kTables[0][(crc ^ take<copy, uint8_t>(to, from, 0)) & 0xff];
    if constexpr (copy != Copy::none) ++to;
  }
  return crc;
}

#if defined(__x86_64__) || defined(__aarch64__)

#if defined(__x86_64__)
#define HOLDFAST_CRC_TARGET __attribute__((target("sse4.2,pclmul")))
constexpr const char* kFast = "sse4.2";
inline bool fast_usable() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }
HOLDFAST_CRC_TARGET inline uint64_t step8(uint64_t crc, uint64_t word) { return _mm_crc32_u64(crc, word); }
HOLDFAST_CRC_TARGET inline uint32_t step4(uint32_t crc, uint32_t word) { return _mm_crc32_u32(crc, word); }
HOLDFAST_CRC_TARGET inline uint32_t step2(uint32_t crc, uint16_t word) { return _mm_crc32_u16(crc, word); }
HOLDFAST_CRC_TARGET inline uint32_t step1(uint32_t crc, uint8_t word) { return _mm_crc32_u8(crc, word); }
HOLDFAST_CRC_TARGET inline uint64_t multiply(uint64_t crc, uint32_t by) {
  const __m128i product =
      _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(crc)), _mm_cvtsi32_si128(static_cast<int>(by)), 0);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
}
#else
#define HOLDFAST_CRC_TARGET __attribute__((target("+crc+crypto")))
constexpr const char* kFast = "arm64";
inline bool fast_usable() {
  constexpr unsigned long kPmull = 1UL << 4, kCrc32 = 1UL << 7;  // HWCAP_PMULL, HWCAP_CRC32
  static const bool usable = (getauxval(AT_HWCAP) & (kPmull | kCrc32)) == (kPmull | kCrc32);
  return usable;
}
HOLDFAST_CRC_TARGET inline uint64_t step8(uint64_t crc, uint64_t word) {
  return __crc32cd(static_cast<uint32_t>(crc), word);
}
HOLDFAST_CRC_TARGET inline uint32_t step4(uint32_t crc, uint32_t word) { return __crc32cw(crc, word); }
HOLDFAST_CRC_TARGET inline uint32_t step2(uint32_t crc, uint16_t word) { return __crc32ch(crc, word); }
HOLDFAST_CRC_TARGET inline uint32_t step1(uint32_t crc, uint8_t word) { return __crc32cb(crc, word); }
HOLDFAST_CRC_TARGET inline uint64_t multiply(uint64_t crc, uint32_t by) {
  return static_cast<uint64_t>(
      vreinterpretq_u64_p128(vmull_p64(static_cast<poly64_t>(crc), static_cast<poly64_t>(by)))[0]);
}
#endif

// Words of 8 bytes in each of the three parts of one block, at most: longer parts gain nothing (joining costs some 3 %
// of a block of this size) and would lie in more than one page.
constexpr size_t kPartWordsMax = 128;
// Below this many bytes a single chain is faster.
constexpr size_t kThreeBytesMin = 144;

// kShift[n] takes a checksum past 8n bytes: the 64-bit product of two reflected 32-bit polynomials stands one place
// low and the instruction itself multiplies by x^32, so it is x^(64n - 33) modulo P.
constexpr auto kShift = [] {
  std::array<uint32_t, 2 * kPartWordsMax + 1> shift{};
  uint32_t power = 1;  // x^31, for n = 1
  for (size_t n = 1; n < shift.size(); ++n) {
    shift[n] = power;
    for (int bit = 0; bit < 64; ++bit) power = (power >> 1) ^ ((power & 1) ? kPolynomial : 0);
  }
  return shift;
}();

template <Copy copy>
HOLDFAST_CRC_TARGET uint32_t run_fast(uint32_t seed, uint8_t* to, const uint8_t* from, size_t bytes) {
  uint64_t crc = seed;
  while (bytes >= kThreeBytesMin) {
    size_t words = bytes / 24;
    if (words > kPartWordsMax) words = kPartWordsMax;
    const size_t part = words * 8;
    uint64_t second = 0, third = 0;
    for (size_t at = 0; at < part; at += 8) {
      crc = step8(crc, take<copy, uint64_t>(to, from, at));
      second = step8(second, take<copy, uint64_t>(to, from, part + at));
      third = step8(third, take<copy, uint64_t>(to, from, 2 * part + at));
    }
    crc = step8(0, multiply(crc, kShift[2 * words]) ^ multiply(second, kShift[words])) ^ third;
    from += 3 * part, bytes -= 3 * part;
    if constexpr (copy != Copy::none) to += 3 * part;
  }
  for (; bytes >= 8; from += 8, bytes -= 8) {
    crc = step8(crc, take<copy, uint64_t>(to, from, 0));
    if constexpr (copy != Copy::none) to += 8;
  }
  auto rest = static_cast<uint32_t>(crc);
  size_t at = 0;
  if (bytes & 4) rest = step4(rest, take<copy, uint32_t>(to, from, 0)), at = 4;
  if (bytes & 2) rest = step2(rest, take<copy, uint16_t>(to, from, at)), at += 2;
  if (bytes & 1) rest = step1(rest, take<copy, uint8_t>(to, from, at));
  return rest;
}

template <Copy copy>
inline uint32_t run(uint32_t crc, uint8_t* to, const uint8_t* from, size_t bytes) {
  return fast_usable() ? run_fast<copy>(crc, to, from, bytes) : run_table<copy>(crc, to, from, bytes);
}
#else
constexpr const char* kFast = "table";
inline bool fast_usable() { return false; }
template <Copy copy>
inline uint32_t run(uint32_t crc, uint8_t* to, const uint8_t* from, size_t bytes) {
  return run_table<copy>(crc, to, from, bytes);
}
#endif

}  // namespace

uint32_t crc32c(uint32_t seed, const void* from, size_t bytes) {
  return ~run<Copy::none>(~seed, nullptr, static_cast<const uint8_t*>(from), bytes);
}

uint32_t crc32c_copy(uint32_t seed, void* to, const void* from, size_t bytes) {
  return ~run<Copy::cached>(~seed, static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from), bytes);
}

uint32_t crc32c_stream(uint32_t seed, void* to, const void* from, size_t bytes) {
#if defined(__x86_64__)
  if (reinterpret_cast<uintptr_t>(to) % 8 == 0) {
    const uint32_t crc =
        ~run<Copy::streamed>(~seed, static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from), bytes);
    // Such stores are ordered by nothing else.
    _mm_sfence();
    return crc;
  }
#endif
  return crc32c_copy(seed, to, from, bytes);
}

uint32_t crc32c_portable(uint32_t seed, const void* from, size_t bytes) {
  return ~run_table<Copy::none>(~seed, nullptr, static_cast<const uint8_t*>(from), bytes);
}

const char* crc32c_variant() { return fast_usable() ? kFast : "table"; }

}  // namespace holdfast
