// signals.cc - see signals.h for the picture.
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <mutex>

#include "critical_section.h"
#include "failpoint.h"
#include "fault_guard.h"

namespace holdfast {
namespace {

constexpr int64_t kMs = 1'000'000;  // ns
constexpr int64_t kTickNs = 50 * kMs;
constexpr int64_t kIdleTickNs = 1000 * kMs;
// A tick of 50 ms that took longer than this was no delay of the scheduler: the process was frozen (docker pause).
constexpr int64_t kFreezeNs = 500 * kMs;
// How long JavaScript, when it answers, may exceed a deadline with its own cut before the watchdog exits in its place.
constexpr int64_t kGraceNs = 40 * kMs;
// A signal so soon after the first is the same request: npm forwards to its child the TERM or ^C that the whole process
// group already got.
constexpr int64_t kSameRequestNs = 50 * kMs;
constexpr int kSignals[] = {SIGTERM, SIGINT};

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// Written by the handler, so plain lock-free atomics. Zero: not yet.
std::atomic<uint32_t> signals_caught{0};
std::atomic<int> first_signal{0};
std::atomic<int64_t> first_sender{0};
std::atomic<int64_t> first_at{0};
std::atomic<int64_t> hurry_at{0};
std::atomic<int64_t> empty_at{0};
std::atomic<int64_t> told_at{0};
std::atomic<int> at_once_code{-1};
std::atomic<int> soft_code{kExitClean};
std::atomic<void (*)()> tell_javascript{nullptr};
std::atomic<bool> bus_watched{false};
std::atomic<uint32_t> repaired{0};
static_assert(std::atomic<int64_t>::is_always_lock_free, "the handler uses them");

// Posted by the handler and by the last one out of the gate; waited for by the watchdog alone.
sem_t wake;

// Guards installation and `chained` slots' reuse.
std::mutex install_mutex;
bool installed = false;
// Who handled each signal before us. The handler reads the published pointer; an installer fills the other slot first.
struct sigaction chain_slots[2][2];
std::atomic<const struct sigaction*> chained[2] = {nullptr, nullptr};

// Guards what follows: it is read and written by the watchdog and by JavaScript's thread, never by a handler.
std::mutex state_mutex;
StopOptions options;
std::string record_path;
int64_t last_tick = 0;  // 0: no signal yet
int64_t frozen_ns = 0;

int slot_of(int signal) { return signal == SIGTERM ? 0 : 1; }

// ---- in the handler: async-signal-safe only ----

void note_request(int64_t at) {
  const bool same_request = at - first_at.load() < kSameRequestNs && !HOLDFAST_MUTANT("each_signal_hurries");
  if (hurry_at.load() == 0 && !same_request) hurry_at.store(at);
}

// Returns true for the first request of all.
bool note_signal(int signal, int64_t sender) {
  const int64_t at = now_ns();
  signals_caught.fetch_add(1);
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, signal)) {
    // Zero when another thread is between its two stores: then this one came at the same moment.
    if (first_at.load() != 0) note_request(at);
    return false;
  }
  first_sender.store(sender);
  first_at.store(at);
  return true;
}

void last_out() {
  const int code = at_once_code.load();
  if (code >= 0) _exit(code);
  int64_t never = 0;
  empty_at.compare_exchange_strong(never, now_ns());
  sem_post(&wake);
}

void on_signal(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool first = note_signal(signal, info->si_code <= 0 ? info->si_pid : 0);
  if (!first && HOLDFAST_MUTANT("second_signal_cuts")) _exit(kExitCut);
  critical_stop();
  sem_post(&wake);
  // errno is restored before chaining too: the next handler may have relied on seeing the interrupted code's.
  errno = saved_errno;
  const struct sigaction* next = chained[slot_of(signal)].load(std::memory_order_acquire);
  if (next != nullptr && !HOLDFAST_MUTANT("handler_not_chained")) {
    if (next->sa_flags & SA_SIGINFO) {
      next->sa_sigaction(signal, info, context);
    } else {
      next->sa_handler(signal);
    }
  }
  errno = saved_errno;
}

// ---- installation ----

bool handled_here(int signal) {
  struct sigaction current;
  return sigaction(signal, nullptr, &current) == 0 && (current.sa_flags & SA_SIGINFO) &&
         current.sa_sigaction == on_signal;
}

// Only a permanent handler is worth calling. Node's own at this place is a one-shot (SA_RESETHAND) that restores the
// terminal and kills the process again: what all of this is there to avoid.
bool worth_chaining(const struct sigaction& action) {
  if (action.sa_flags & SA_RESETHAND) return false;
  return (action.sa_flags & SA_SIGINFO) || (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
}

// install_mutex is held.
void chain_in(int signal) {
  if (handled_here(signal)) return;
  const int slot = slot_of(signal);
  const struct sigaction* in_use = chained[slot].load();
  struct sigaction* free_slot = &chain_slots[slot][in_use == &chain_slots[slot][0] ? 1 : 0];
  sigaction(signal, nullptr, free_slot);
  // Published before ours is in place: from its first call the chain is complete.
  if (worth_chaining(*free_slot)) chained[slot].store(free_slot, std::memory_order_release);
  struct sigaction ours = {};
  ours.sa_sigaction = on_signal;
  // All signals are held back inside: libuv's handler, which comes next, takes a lock that a second signal on this
  // thread would wait for for ever.
  sigfillset(&ours.sa_mask);
  ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigaction(signal, &ours, nullptr);
}

// ---- the watchdog ----

// Writes without ever waiting: a reader of our output that has stopped reading must not stop the exit.
void write_line(const char* text, size_t length) {
  struct stat st;
  if (fstat(STDOUT_FILENO, &st) != 0) return;
  if (S_ISSOCK(st.st_mode)) {
    if (send(STDOUT_FILENO, text, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return;
  } else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
    // O_NONBLOCK belongs to the open file, which other processes share; so it is opened once more.
    const int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, text, length) < 0) {
    }
    close(fd);
  } else if (write(STDOUT_FILENO, text, length) < 0) {
    return;
  }
}

// One line in the shape of the service's log (service/log.ts). `members` is JSON without braces. state_mutex isn't
// held.
void log_line(LogLevel level, const char* event, const char* message, const char* members) {
  {
    std::lock_guard lock(state_mutex);
    if (level < options.least) return;
  }
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  tm utc;
  gmtime_r(&t.tv_sec, &utc);
  char time[32];
  strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
  const char* name = level == LogLevel::info ? "info" : level == LogLevel::warn ? "warn" : "error";
  char line[640];
  const int length =
      snprintf(line, sizeof line, "{\"level\":\"%s\",\"time\":\"%s.%03dZ\",\"message\":\"%s\",\"event\":\"%s\"%s%s}\n",
               name, time, static_cast<int>(t.tv_nsec / kMs), message, event, *members == '\0' ? "" : ",", members);
  if (length > 0 && static_cast<size_t>(length) < sizeof line) write_line(line, static_cast<size_t>(length));
}

// state_mutex is held. Whoever comes first after a gap, watchdog or JavaScript, finds that both were frozen.
void tick(int64_t now) {
  const int64_t at = first_at.load();
  if (at == 0) return;
  if (last_tick == 0) last_tick = at;
  if (now - last_tick > kFreezeNs && !HOLDFAST_MUTANT("frozen_time_counts")) frozen_ns += now - last_tick - kTickNs;
  last_tick = std::max(now, last_tick);
}

int64_t elapsed_ns(int64_t now) {
  std::lock_guard lock(state_mutex);
  tick(now);
  const int64_t at = first_at.load();
  return at == 0 ? 0 : now - at - frozen_ns;
}

struct Record {
  char path[4096];
  char text[512];
  sem_t done;
};

void* write_record(void* argument) {
  auto* record = static_cast<Record*>(argument);
  // Not the name that JavaScript uses: at the hard deadline both may write, and each must put a whole one in place.
  char fresh[4120];
  snprintf(fresh, sizeof fresh, "%s.watchdog", record->path);
  const int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
  if (fd >= 0) {
    const size_t length = strlen(record->text);
    const bool whole = write(fd, record->text, length) == static_cast<ssize_t>(length);
    close(fd);
    if (whole) rename(fresh, record->path);
  }
  sem_post(&record->done);
  return nullptr;
}

// On a thread of its own and for 20 ms at most: a file system that hangs must not hold the exit.
void leave_record(int code, const char* reason, int64_t elapsed) {
  static Record record;
  {
    std::lock_guard lock(state_mutex);
    if (record_path.empty() || record_path.size() >= sizeof record.path) return;
    memcpy(record.path, record_path.c_str(), record_path.size() + 1);
  }
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  snprintf(record.text, sizeof record.text,
           "{\"state\":\"ended\",\"endedAtMs\":%" PRId64
           ",\"signal\":\"%s\",\"code\":%d,\"reason\":\"%s\",\"drainMs\":%.1f}\n",
           int64_t{t.tv_sec} * 1000 + t.tv_nsec / kMs, first_signal.load() == SIGINT ? "SIGINT" : "SIGTERM", code,
           reason, static_cast<double>(elapsed) / kMs);
  sem_init(&record.done, 0, 0);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, write_record, &record) != 0) return;
  pthread_detach(thread);
  timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 20 * kMs;
  if (until.tv_nsec >= 1'000'000'000) {
    until.tv_nsec -= 1'000'000'000;
    until.tv_sec += 1;
  }
  sem_timedwait(&record.done, &until);
}

[[noreturn]] void end_process(int code, const char* reason, int64_t elapsed) {
  char members[160];
  snprintf(members, sizeof members, "\"code\":%d,\"reason\":\"%s\",\"ms\":%.1f,\"gate\":%" PRIu64, code, reason,
           static_cast<double>(elapsed) / kMs, critical_depth());
  log_line(code == kExitClean ? LogLevel::info : LogLevel::error, "exit", "ended by the watchdog", members);
  leave_record(code, reason, elapsed);
  _exit(code);
}

void wait_for_wake(int64_t ns) {
  timespec until;
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
  clock_gettime(CLOCK_MONOTONIC, &until);
#else
  clock_gettime(CLOCK_REALTIME, &until);
#endif
  const int64_t at = until.tv_nsec + ns;
  until.tv_sec += at / 1'000'000'000;
  until.tv_nsec = at % 1'000'000'000;
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
  sem_clockwait(&wake, CLOCK_MONOTONIC, &until);
#else
  sem_timedwait(&wake, &until);
#endif
}

void* watchdog(void*) {
  uint32_t told = 0;
  bool blocked_logged = false, empty_logged = false;
  int64_t checked_at = now_ns();
  for (;;) {
    const bool stopping = first_at.load() != 0;
    StopOptions now_options;
    {
      std::lock_guard lock(state_mutex);
      now_options = options;
    }
    int64_t wait = kIdleTickNs;
    if (stopping) {
      // To the next deadline, if it is nearer than a tick.
      const int64_t elapsed = elapsed_ns(now_ns());
      wait = kTickNs;
      for (const int64_t deadline :
           {int64_t{now_options.blocked_ms} * kMs, int64_t{now_options.soft_ms} * kMs,
            int64_t{now_options.soft_ms} * kMs + kGraceNs, int64_t{now_options.hard_ms} * kMs}) {
        if (deadline > elapsed) wait = std::min(wait, deadline - elapsed);
      }
      if (hurry_at.load() != 0) wait = std::min(wait, kGraceNs / 4);
    }
    wait_for_wake(wait);

    const int64_t now = now_ns();
    if (now - checked_at >= kIdleTickNs) {
      checked_at = now;
      signals_repair();
    }
    const int64_t at = first_at.load();
    if (at == 0) continue;
    const int64_t elapsed = elapsed_ns(now);

    if (const uint32_t caught = signals_caught.load(); caught != told) {
      told = caught;
      if (void (*tell)() = tell_javascript.load()) tell();
    }
    if (const int64_t emptied = empty_at.load(); emptied != 0 && !empty_logged) {
      empty_logged = true;
      char members[64];
      snprintf(members, sizeof members, "\"ms\":%.3f", static_cast<double>(emptied - at) / kMs);
      log_line(LogLevel::info, "gate_empty", "no critical section is open", members);
    }
    const bool answers = told_at.load() != 0;
    if (!answers && !blocked_logged && elapsed >= int64_t{now_options.blocked_ms} * kMs) {
      blocked_logged = true;
      char members[96];
      snprintf(members, sizeof members, "\"ms\":%.1f,\"gate\":%" PRIu64, static_cast<double>(elapsed) / kMs,
               critical_depth());
      log_line(LogLevel::warn, "event_loop_blocked", "JavaScript has not answered the signal yet", members);
    }
    int64_t soft = int64_t{now_options.soft_ms} * kMs + (answers ? kGraceNs : 0);
    const int64_t hurried = hurry_at.load();
    // JavaScript gets a moment to cut what is open by itself, if it is alive.
    if (hurried != 0) soft = std::min(soft, elapsed - (now - hurried) + kGraceNs);
    if (elapsed >= soft && (critical_depth() == 0 || HOLDFAST_MUTANT("soft_deadline_cuts"))) {
      end_process(soft_code.load(), answers ? "soft_deadline" : "event_loop_blocked", elapsed);
    }
    if (elapsed >= int64_t{now_options.hard_ms} * kMs) {
      // Looked at once more: a section that ended in this very moment is not a batch cut.
      if (critical_depth() == 0) end_process(soft_code.load(), "hard_deadline", elapsed);
      end_process(kExitHard, "hard_deadline", elapsed);
    }
  }
}

}  // namespace

void signals_install() {
  std::lock_guard lock(install_mutex);
  if (!installed) {
    sem_init(&wake, 0, 0);
    critical_on_last_out(last_out);
  }
  for (const int signal : kSignals) chain_in(signal);
  if (installed) return;
  installed = true;
  // The watchdog takes no signal itself, so that a handler never interrupts it while it holds a lock.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, watchdog, nullptr) == 0) pthread_detach(thread);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void signals_configure(const StopOptions& wanted) {
  std::lock_guard lock(state_mutex);
  options = wanted;
}

void signals_on_stop(void (*tell)()) { tell_javascript.store(tell); }

void signals_watch_bus() { bus_watched.store(true); }

void signals_request_stop(int signal) {
  if (first_signal.load() != 0) return;
  note_signal(signal, 0);
  critical_stop();
  sem_post(&wake);
}

void signals_acknowledge() {
  int64_t never = 0;
  told_at.compare_exchange_strong(never, now_ns());
}

void signals_hurry() {
  int64_t never = 0;
  hurry_at.compare_exchange_strong(never, now_ns());
  sem_post(&wake);
}

void signals_code_at_soft(int code) { soft_code.store(code); }

void signals_record_path(const std::string& path) {
  std::lock_guard lock(state_mutex);
  record_path = path;
}

void signals_repair() {
  bool found = false;
  {
    std::lock_guard lock(install_mutex);
    for (const int signal : kSignals) {
      if (handled_here(signal) || HOLDFAST_MUTANT("displaced_stays_displaced")) continue;
      chain_in(signal);
      found = true;
    }
    if (bus_watched.load() && !fault_guard_is_ours()) {
      fault_guard_install();
      found = true;
    }
  }
  if (!found) return;
  repaired.fetch_add(1);
  log_line(LogLevel::warn, "disposition_repaired", "another handler had displaced ours: chained in again", "");
}

StopView signals_view() {
  StopView view;
  const int64_t now = now_ns();
  const int64_t at = first_at.load();
  view.signals = signals_caught.load();
  view.first_signal = first_signal.load();
  view.sender = first_sender.load();
  if (at == 0) return view;
  view.elapsed_ms = static_cast<double>(elapsed_ns(now)) / kMs;
  {
    std::lock_guard lock(state_mutex);
    view.frozen_ms = static_cast<double>(frozen_ns) / kMs;
  }
  if (const int64_t told = told_at.load()) view.told_at_ms = static_cast<double>(told - at) / kMs;
  if (const int64_t emptied = empty_at.load()) view.empty_at_ms = static_cast<double>(emptied - at) / kMs;
  view.hurry = hurry_at.load() != 0;
  return view;
}

Dispositions signals_dispositions() {
  Dispositions now;
  now.term = handled_here(SIGTERM);
  now.interrupt = handled_here(SIGINT);
  now.bus = fault_guard_is_ours();
  now.repaired = repaired.load();
  return now;
}

void signals_exit(int code) {
  // Whoever ends the process from here on, the watchdog or the last one out, ends it with this status.
  soft_code.store(code);
  if (at_once_code.load() >= 0) at_once_code.store(code);
  critical_stop();
  const int64_t began = now_ns();
  int64_t hard;
  {
    std::lock_guard lock(state_mutex);
    hard = int64_t{options.hard_ms} * kMs;
  }
  while (critical_depth() != 0) {
    const bool asked = first_at.load() != 0;
    if ((asked ? elapsed_ns(now_ns()) : now_ns() - began) >= hard) _exit(kExitHard);
    poll(nullptr, 0, 1);
  }
  _exit(code);
}

void signals_exit_at_once(int code) {
  at_once_code.store(code);
  // A signal that came before this call has found nobody to act on it.
  if (code >= 0 && critical_stopping() && critical_depth() == 0) _exit(code);
}

}  // namespace holdfast
