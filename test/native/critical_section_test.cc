// critical_section_test.cc - threads in sections, a TERM at any moment: no section is cut and the process always ends.
//
// The same trial is run with the gate and with two obvious ways to write it that are wrong. Those must be caught: the
// first is what the pattern's original did, the second looks repaired.
#include "../../native/critical_section.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <random>
#include <thread>

#include "../../native/failpoint.h"
#include "../../native/signals.h"
#include "check.h"

using namespace holdfast;

namespace {

constexpr int kThreads = 3;
constexpr int kStatus = 7;  // what the last one out exits with

// A pair for each thread, on a line of its own, shared with the process that judges. Equal between sections.
struct Pair {
  alignas(64) std::atomic<uint64_t> first, second;
};
struct Board {
  Pair pairs[kThreads];
  std::atomic<uint32_t> started;
};

// Both words change inside a section, with something in between for an exit to fall into.
void store_pair(Pair& pair, uint64_t value) {
  pair.first.store(value, std::memory_order_relaxed);
  for (int i = 0; i < 100; ++i) asm volatile("");  // a delay that the optimizer leaves in
  pair.second.store(value, std::memory_order_relaxed);
}

// ---- the three ways ----

struct OneWord {
  static void prepare() {
    signals_install();
    signals_exit_at_once(kStatus);
  }
  static bool begin() { return critical_begin(); }
  static void end() { critical_end(); }
};

// A plain counter and a plain flag: increments of several threads get lost.
struct TwoCounters {
  static inline volatile int sections = 0, pending = 0;
  static void on_term(int) {
    if (sections == 0) _exit(kStatus);
    pending = 1;
  }
  static void prepare() { signal(SIGTERM, on_term); }
  static bool begin() {
    sections = sections + 1;
    return true;
  }
  static void end() {
    sections = sections - 1;
    if (sections == 0 && pending) _exit(kStatus);
  }
};

// Two atomics: between the look at the flag and the increment the handler sees nobody inside.
struct TwoAtomics {
  static inline std::atomic<int> sections{0}, pending{0};
  static void on_term(int) {
    pending = 1;
    if (sections == 0) _exit(kStatus);
  }
  static void prepare() { signal(SIGTERM, on_term); }
  static bool begin() {
    if (pending) return false;
    ++sections;
    return true;
  }
  static void end() {
    if (--sections == 0 && pending) _exit(kStatus);
  }
};

template <typename Gate>
[[noreturn]] void work(Board* board) {
  Gate::prepare();
  for (int i = 0; i < kThreads; ++i) {
    std::thread([board, i] {
      board->started.fetch_add(1);
      for (uint64_t value = 1;; ++value) {
        if (!Gate::begin()) {
          // Refused for good: the process is about to end.
          for (;;) pause();
        }
        store_pair(board->pairs[i], value);
        Gate::end();
      }
    }).detach();
  }
  for (;;) pause();
}

struct Tally {
  int trials = 0, torn = 0, hung = 0, other = 0;
};

// `patience_ms`: how long after the signal a process that still runs is taken to hang.
template <typename Gate>
void trial(std::mt19937& random, int patience_ms, Tally* tally) {
  void* shared = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* board = new (shared) Board{};
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) work<Gate>(board);
  while (board->started.load() < kThreads) usleep(100);
  usleep(std::uniform_int_distribution<useconds_t>(0, 1500)(random));
  kill(child, SIGTERM);
  int status = 0;
  pid_t ended = 0;
  for (int waited = 0; waited < patience_ms * 10 && ended == 0; ++waited) {
    ended = waitpid(child, &status, WNOHANG);
    if (ended == 0) usleep(100);
  }
  if (ended == 0) {
    ++tally->hung;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
  } else {
    bool torn = false;
    for (const Pair& pair : board->pairs) torn |= pair.first.load() != pair.second.load();
    if (torn) ++tally->torn;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != kStatus) ++tally->other;
  }
  ++tally->trials;
  munmap(shared, sizeof(Board));
}

void print(const char* what, const Tally& tally) {
  printf("# %s: %d stops, %d torn, %d hung, %d ended otherwise\n", what, tally.trials, tally.torn, tally.hung,
         tally.other);
}

template <typename Gate>
Tally until_caught(std::mt19937& random) {
  Tally tally;
  while (tally.trials < 3000 && tally.torn + tally.hung < 3) trial<Gate>(random, 250, &tally);
  return tally;
}

}  // namespace

int main() {
  std::mt19937 random(check::seed());

  check::test("600 stops with three threads in sections: none torn, none hangs", [&] {
    Tally tally;
    while (tally.trials < 600) trial<OneWord>(random, 5000, &tally);
    print("one word", tally);
    CHECK_EQ(tally.torn, 0);
    CHECK_EQ(tally.hung, 0);
    CHECK_EQ(tally.other, 0);
  });

  check::test("the same test catches two plain counters", [&] {
    const Tally tally = until_caught<TwoCounters>(random);
    print("two counters", tally);
    CHECK(tally.torn + tally.hung > 0);
  });

  check::test("the same test catches two atomics", [&] {
    const Tally tally = until_caught<TwoAtomics>(random);
    print("two atomics", tally);
    CHECK(tally.torn + tally.hung > 0);
  });

  check::test("a stop finds a section that has begun, or refuses it", [] {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG
      // Where a look and the count are two steps, the stop comes between them.
      failpoint::arm("gate_looked=sleep:200", nullptr);
#endif
      bool begun = false;
      std::thread thread([&] { begun = critical_begin(); });
      usleep(50000);
      const bool nobody_inside = critical_stop();
      thread.join();
      _exit(begun && nobody_inside ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  });

  // From here on this process's own gate is used; stopping can't be undone, so in this order.
  static int outs = 0;
  critical_on_last_out([] { ++outs; });

  check::test("sections nest within a thread and count once", [] {
    CHECK(critical_begin());
    CHECK(critical_begin());
    CHECK_EQ(critical_depth(), 1u);
    critical_end();
    CHECK_EQ(critical_depth(), 1u);
    critical_end();
    CHECK_EQ(critical_depth(), 0u);
    CHECK(!critical_stopping());
    CHECK_EQ(outs, 0);
  });

  check::test("a stop inside a section waits for its end, and lets it nest", [] {
    CHECK(critical_begin());
    CHECK(!critical_stop());
    CHECK(critical_stopping());
    CHECK(critical_begin());
    critical_end();
    CHECK_EQ(outs, 0);
    critical_end();
    CHECK_EQ(outs, 1);
  });

  check::test("after the stop a section is refused, a promised one is not", [] {
    CHECK(!critical_begin());
    CHECK_EQ(critical_depth(), 0u);
    critical_begin_promised();
    CHECK_EQ(critical_depth(), 1u);
    CHECK(critical_begin());
    critical_end();
    const int before = outs;
    critical_end();
    CHECK_EQ(outs, before + 1);
    CHECK(critical_stop());
  });
  return check::done();
}
