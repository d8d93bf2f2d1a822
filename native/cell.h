// cell.h - typed values in a region: their bytes, their bits, their arithmetic. Pure functions.
//
// A cell's bits are those of frame.h: canonical, in host order, in the low end of a uint64_t.
#pragma once

#include <string.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "frame.h"

namespace holdfast {

static_assert(std::endian::native == std::endian::little, "frames and cells are read as they lie");

inline constexpr uint8_t kTypeBytes[] = {1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
inline constexpr size_t kTypes = sizeof kTypeBytes;

inline size_t bytes_of(ValueType type) { return kTypeBytes[static_cast<size_t>(type)]; }
inline bool is_float(ValueType type) { return type >= ValueType::f32; }
inline bool is_signed(ValueType type) { return type >= ValueType::i8 && type <= ValueType::i64; }

// The canonical bits of a cell whose low bytes are those of `bits`: integers extended, floats as they are.
inline uint64_t extend(ValueType type, uint64_t bits) {
  const int unused = 64 - 8 * static_cast<int>(bytes_of(type));
  if (is_signed(type)) return static_cast<uint64_t>(static_cast<int64_t>(bits << unused) >> unused);
  return bits << unused >> unused;
}

// The greatest value of an integer type; all bits of a float.
inline uint64_t most_of(ValueType type) {
  return ~uint64_t{0} >> (64 - 8 * bytes_of(type) + (is_signed(type) ? 1 : 0));
}

// A cell's 1, 2, 4 or 8 bytes, by copies whose size the compiler knows: a call of memcpy costs as much as a small op.
inline void copy_cell(void* to, const void* from, size_t bytes) {
  switch (bytes) {
    case 1:
      memcpy(to, from, 1);
      break;
    case 2:
      memcpy(to, from, 2);
      break;
    case 4:
      memcpy(to, from, 4);
      break;
    default:
      memcpy(to, from, 8);
  }
}

inline uint64_t load_cell(ValueType type, bool big_endian, const uint8_t* from) {
  uint64_t bits = 0;
  copy_cell(&bits, from, bytes_of(type));
  if (big_endian) bits = __builtin_bswap64(bits) >> (64 - 8 * bytes_of(type));
  return extend(type, bits);
}

inline void store_cell(ValueType type, bool big_endian, uint64_t bits, uint8_t* to) {
  if (big_endian) bits = __builtin_bswap64(bits) >> (64 - 8 * bytes_of(type));
  copy_cell(to, &bits, bytes_of(type));
}

inline double float_of(ValueType type, uint64_t bits) {
  return type == ValueType::f32 ? std::bit_cast<float>(static_cast<uint32_t>(bits)) : std::bit_cast<double>(bits);
}

template <typename Number>
bool holds(Compare how, Number left, Number right) {
  switch (how) {
    case Compare::eq:
      return left == right;
    case Compare::lt:
      return left < right;
    case Compare::le:
      return left <= right;
    case Compare::gt:
      return left > right;
    case Compare::ge:
      return left >= right;
    case Compare::ne:
      return left != right;
  }
  return false;
}

inline bool cells_hold(ValueType type, Compare how, uint64_t left, uint64_t right) {
  if (is_float(type)) return holds(how, float_of(type, left), float_of(type, right));
  if (is_signed(type)) return holds(how, static_cast<int64_t>(left), static_cast<int64_t>(right));
  return holds(how, left, right);
}

struct Sum {
  uint64_t bits;
  bool overflowed;
  uint64_t bound;  // that was passed, when overflowed
};

inline Sum add_floats(ValueType type, uint64_t old, double addend, Overflow policy) {
  // For f32 the conversion rounds, to an infinity beyond the largest one (IEEE 754, which both compilers follow).
  const bool narrow = type == ValueType::f32;
  double sum = float_of(type, old) + addend;
  if (narrow) sum = static_cast<float>(sum);
  const auto bits_of = [&](double value) -> uint64_t {
    return narrow ? std::bit_cast<uint32_t>(static_cast<float>(value)) : std::bit_cast<uint64_t>(value);
  };
  if (std::isfinite(sum)) return {bits_of(sum), false, 0};
  const double largest = narrow ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  const uint64_t bound = bits_of(sum < 0 ? -largest : largest);
  return {policy == Overflow::saturate && !std::isnan(sum) ? bound : bits_of(sum), true, bound};
}

// `old` + or - `magnitude`, in a width where nothing is lost.
inline Sum add_integers(ValueType type, uint64_t old, uint64_t magnitude, bool negative, Overflow policy) {
  using Wide = __int128;
  const int bits = 8 * static_cast<int>(bytes_of(type));
  const Wide least = is_signed(type) ? -(Wide{1} << (bits - 1)) : Wide{0};
  const Wide most = (Wide{1} << (is_signed(type) ? bits - 1 : bits)) - 1;
  const Wide start = is_signed(type) ? Wide{static_cast<int64_t>(old)} : Wide{old};
  const Wide sum = negative ? start - Wide{magnitude} : start + Wide{magnitude};
  if (sum >= least && sum <= most) return {static_cast<uint64_t>(sum), false, 0};
  const auto bound = static_cast<uint64_t>(sum < least ? least : most);
  return {policy == Overflow::saturate ? bound : extend(type, static_cast<uint64_t>(sum)), true, bound};
}

}  // namespace holdfast
