// check.h - what the small test programs in C++ print: TAP, one point for each named test.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cstdint>
#include <random>
#include <string>
#include <type_traits>

namespace check {

inline int points = 0;
inline int failed_points = 0;
inline int failures_here = 0;  // in the test that runs
inline std::string context;    // told with a failure: the seed or the case of a loop

template <typename T>
std::string text(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (std::is_arithmetic_v<T>) {
    return std::to_string(value);
  } else {
    return std::string(value);
  }
}

inline bool fail(const char* file, int line, const std::string& what) {
  // A loop that fails everywhere would bury its first failure.
  if (++failures_here <= 10) {
    fprintf(stdout, "# %s:%d: %s%s%s\n", file, line, what.c_str(), context.empty() ? "" : " in ", context.c_str());
  }
  return false;
}

// What a randomized test draws its choices from: HOLDFAST_SEED, which repeats a run, or a number of this run's own.
inline uint32_t seed() {
  const char* given = getenv("HOLDFAST_SEED");
  const uint32_t seed = given != nullptr ? static_cast<uint32_t>(strtoul(given, nullptr, 10)) : std::random_device()();
  printf("# seed %u (HOLDFAST_SEED=%u repeats it)\n", seed, seed);
  return seed;
}

template <typename Body>
void test(const char* name, const Body& body) {
  // For a test that has to fail: mutants.test.ts runs it alone, in a core with a mistake in it.
  const char* only = getenv("CHECK_ONLY");
  if (only != nullptr && strstr(name, only) == nullptr) return;
  failures_here = 0;
  context.clear();
  body();
  ++points;
  if (failures_here != 0) ++failed_points;
  printf("%s %d - %s\n", failures_here == 0 ? "ok" : "not ok", points, name);
  fflush(stdout);
}

// A test that this machine can't run.
inline void skip(const char* name, const char* why) {
  printf("ok %d - %s # SKIP %s\n", ++points, name, why);
  fflush(stdout);
}

// Prints the plan; what main() returns.
inline int done() {
  printf("1..%d\n", points);
  return failed_points == 0 && points > 0 ? 0 : 1;
}

}  // namespace check

// Both yield whether it held, so that a test can stop early.
#define CHECK(condition) ((condition) ? true : ::check::fail(__FILE__, __LINE__, "not true: " #condition))
#define CHECK_EQ(found, wanted)                                                                                \
  ([&](const auto& found_, const auto& wanted_) {                                                              \
    return found_ == wanted_ ? true                                                                            \
                             : ::check::fail(__FILE__, __LINE__,                                               \
                                             std::string(#found) + " is " + ::check::text(found_) + ", not " + \
                                                 ::check::text(wanted_));                                      \
  }((found), (wanted)))
