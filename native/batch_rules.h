// batch_rules.h - what each kind of op is, as one table that decoding and evaluating share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "frame.h"

namespace holdfast {

// The fields that a kind uses; the others must be zero.
inline constexpr uint16_t kOffset = 1, kLength = 2, kA = 4, kB = 8, kData = 16, kType = 32, kRegion2 = 64;
inline constexpr uint16_t kKnown = 128;
inline constexpr uint16_t kReads = 256;     // needs the bytes of a region
inline constexpr uint16_t kWrites = 512;    // leaves images
inline constexpr uint16_t kAligned = 1024;  // its cell must be naturally aligned
inline constexpr uint16_t kInteger = 2048;  // not for floats

struct Rule {
  uint16_t uses = 0;
  uint8_t modes = 1;  // how many there are
  uint8_t flags = 0;  // allowed
};

inline constexpr auto kRules = [] {
  std::array<Rule, 32> rules{};
  const auto set = [&](OpKind kind, int uses, uint8_t modes, uint8_t flags) {
    rules[static_cast<size_t>(kind)] = {static_cast<uint16_t>(uses | kKnown), modes, flags};
  };
  constexpr int kModify = kOffset | kType | kReads | kWrites | kAligned;
  set(OpKind::guard_generation, kA, 6, kOpCondition);
  set(OpKind::guard_value, kOffset | kA | kType | kReads, 6, kOpBigEndian);
  set(OpKind::guard_bytes, kOffset | kData | kReads, 1, 0);
  set(OpKind::guard_digest, kOffset | kLength | kData | kReads, 2, 0);
  set(OpKind::guard_etag, kData, 1, kOpNegate | kOpCondition);
  set(OpKind::read, kOffset | kLength | kReads, 1, 0);
  set(OpKind::write, kOffset | kData | kWrites, 1, 0);
  set(OpKind::fill, kOffset | kLength | kData | kWrites, 1, 0);
  set(OpKind::copy, kOffset | kLength | kA | kRegion2 | kReads | kWrites, 1, 0);
  set(OpKind::load, kOffset | kLength | kType | kReads, 1, kOpBigEndian);
  set(OpKind::store, kOffset | kData | kType | kReads | kWrites, 1, kOpBigEndian);
  set(OpKind::exchange, kModify | kA, 1, kOpBigEndian);
  set(OpKind::add, kModify | kA, 3, kOpBigEndian | kOpNegative);
  set(OpKind::bit_and, kModify | kA | kInteger, 1, kOpBigEndian);
  set(OpKind::bit_or, kModify | kA | kInteger, 1, kOpBigEndian);
  set(OpKind::bit_xor, kModify | kA | kInteger, 1, kOpBigEndian);
  set(OpKind::min, kModify | kA, 1, kOpBigEndian);
  set(OpKind::max, kModify | kA, 1, kOpBigEndian);
  set(OpKind::cas, kModify | kA | kB, 2, kOpBigEndian);
  set(OpKind::append, kModify | kData | kInteger, 1, kOpBigEndian);
  return rules;
}();

inline const Rule& rule_of(OpKind kind) { return kRules[static_cast<size_t>(kind)]; }
inline bool is_guard(OpKind kind) { return kind <= OpKind::guard_etag; }

inline constexpr uint32_t kPatternBytesMax = 4096;
inline constexpr uint32_t kEtagBytes = 24;

inline uint64_t digest_bytes(uint8_t algorithm) {
  return static_cast<Algorithm>(algorithm) == Algorithm::sha256 ? 32 : 4;
}

}  // namespace holdfast
