// failpoint.cc - reads the lists of fail points and mutants, and acts on a hit. Empty in a release build.
#include "failpoint.h"

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace holdfast::failpoint {

bool any_point = false;
bool any_mutant = false;

namespace {

enum class Action { kill, term, stop, abort, sleep, exit, fail };

struct Point {
  char name[64];
  Action action;
  int argument;  // sleep: milliseconds, exit: status, fail: errno
  unsigned long first;
  bool later_too;
  std::atomic<unsigned long> hits;
};

constexpr int kPointsMax = 16;
constexpr int kMutantsMax = 8;
// Plain arrays: they must be usable before any constructor of another file has run.
Point points[kPointsMax];
int point_count = 0;
char mutants[kMutantsMax][64];
int mutant_count = 0;

[[noreturn]] void refuse(std::string_view item) {
  fprintf(stderr, "holdfast: can't understand the fail point or mutant \"%.*s\"\n", static_cast<int>(item.size()),
          item.data());
  _exit(78);
}

unsigned long number(std::string_view text, std::string_view item) {
  if (text.empty() || text.size() > 9) refuse(item);
  unsigned long value = 0;
  for (char c : text) {
    if (c < '0' || c > '9') refuse(item);
    value = value * 10 + static_cast<unsigned long>(c - '0');
  }
  return value;
}

void copy_name(char (&into)[64], std::string_view name, std::string_view item) {
  if (name.empty() || name.size() >= sizeof into) refuse(item);
  memcpy(into, name.data(), name.size());
  into[name.size()] = 0;
}

void add_point(std::string_view item) {
  const size_t equals = item.find('=');
  if (equals == std::string_view::npos || point_count == kPointsMax) refuse(item);
  Point& point = points[point_count];
  copy_name(point.name, item.substr(0, equals), item);
  std::string_view action = item.substr(equals + 1);
  point.first = 1;
  point.later_too = true;
  point.argument = 0;
  point.hits.store(0, std::memory_order_relaxed);
  if (const size_t at = action.find('@'); at != std::string_view::npos) {
    std::string_view nth = action.substr(at + 1);
    action = action.substr(0, at);
    point.later_too = !nth.empty() && nth.back() == '+';
    if (point.later_too) nth.remove_suffix(1);
    point.first = number(nth, item);
    if (point.first == 0) refuse(item);
  }
  const auto with_number = [&](std::string_view prefix) {
    if (!action.starts_with(prefix)) return false;
    point.argument = static_cast<int>(number(action.substr(prefix.size()), item));
    return true;
  };
  if (action == "kill") {
    point.action = Action::kill;
  } else if (action == "term") {
    point.action = Action::term;
  } else if (action == "stop") {
    point.action = Action::stop;
  } else if (action == "abort") {
    point.action = Action::abort;
  } else if (with_number("sleep:")) {
    point.action = Action::sleep;
  } else if (with_number("exit:")) {
    point.action = Action::exit;
  } else if (action == "eio" || action == "enospc") {
    point.action = Action::fail;
    point.argument = action == "eio" ? EIO : ENOSPC;
  } else if (with_number("errno:")) {
    point.action = Action::fail;
  } else {
    refuse(item);
  }
  ++point_count;
}

void add_mutant(std::string_view item) {
  if (mutant_count == kMutantsMax) refuse(item);
  copy_name(mutants[mutant_count++], item, item);
}

void each_item(const char* list, void (*add)(std::string_view)) {
  std::string_view rest = list;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    add(rest.substr(0, comma));
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
  }
}

// Runs when the program or the addon is loaded, before any thread of ours exists.
__attribute__((constructor)) void arm_from_environment() {
  arm(getenv("HOLDFAST_FAILPOINTS"), getenv("HOLDFAST_MUTANTS"));
}

int act(const Point& point) {
  switch (point.action) {
    case Action::kill:
      kill(getpid(), SIGKILL);
      return 0;
    case Action::term:
      kill(getpid(), SIGTERM);
      return 0;
    case Action::stop:
      kill(getpid(), SIGSTOP);
      return 0;
    case Action::abort:
      ::abort();
    case Action::sleep: {
      timespec left{point.argument / 1000, (point.argument % 1000) * 1'000'000L};
      while (nanosleep(&left, &left) != 0 && errno == EINTR) {
      }
      return 0;
    }
    case Action::exit:
      _exit(point.argument);
    case Action::fail:
      return point.argument;
  }
  return 0;
}

}  // namespace

int hit(const char* name) {
  int error = 0;
  for (int i = 0; i < point_count; ++i) {
    Point& point = points[i];
    if (strcmp(point.name, name) != 0) continue;
    const unsigned long hits = point.hits.fetch_add(1, std::memory_order_relaxed) + 1;
    if (hits == point.first || (point.later_too && hits > point.first)) {
      if (const int of_this = act(point); of_this != 0) error = of_this;
    }
  }
  return error;
}

bool mutant_on(const char* name) {
  for (int i = 0; i < mutant_count; ++i) {
    if (strcmp(mutants[i], name) == 0) return true;
  }
  return false;
}

void arm(const char* point_list, const char* mutant_list) {
  if (point_list != nullptr) {
    point_count = 0;
    each_item(point_list, add_point);
  }
  if (mutant_list != nullptr) {
    mutant_count = 0;
    each_item(mutant_list, add_mutant);
  }
  any_point = point_count > 0;
  any_mutant = mutant_count > 0;
}

}  // namespace holdfast::failpoint

#endif
