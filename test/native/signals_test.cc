// signals_test.cc - the handler and the watchdog in real child processes: how each one ends, and when.
#include "../../native/signals.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "../../native/critical_section.h"
#include "../../native/fault_guard.h"
#include "check.h"

using namespace holdfast;

namespace {

// This machine may be busy: how much later than promised an exit may be seen.
constexpr double kSlackMs = 120;

double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

// A signal ends a usleep() early.
void sleep_ms(int ms) {
  for (const double until = now_ms() + ms; now_ms() < until;) usleep(200);
}

struct End {
  int status = -1;  // exit status, or minus the signal
  double ms = 0;    // from the first signal
  std::string printed;
};

// Runs `body` in a child until it says it is ready, then `nemesis`, then waits for the end.
template <typename Body, typename Nemesis>
End end_of(const Body& body, const Nemesis& nemesis) {
  int ready[2], output[2];
  if (pipe(ready) != 0 || pipe(output) != 0) return {};
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(output[1], STDOUT_FILENO);
    close(output[0]);
    close(output[1]);
    body([&] {
      if (write(ready[1], "r", 1) != 1) _exit(99);
    });
    for (;;) pause();
  }
  // Only the child's end is left: a child that ends early is not waited for.
  close(ready[1]);
  close(output[1]);
  char byte;
  if (read(ready[0], &byte, 1) != 1) return {};
  const double start = now_ms();
  nemesis(child);
  int status = 0;
  waitpid(child, &status, 0);
  End end;
  end.ms = now_ms() - start;
  end.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  char buffer[4096];
  for (ssize_t length; (length = read(output[0], buffer, sizeof buffer)) > 0;) {
    end.printed.append(buffer, static_cast<size_t>(length));
  }
  close(output[0]);
  close(ready[0]);
  return end;
}

void configure(uint32_t soft_ms, uint32_t hard_ms) {
  StopOptions options;
  options.soft_ms = soft_ms;
  options.hard_ms = hard_ms;
  options.blocked_ms = 50;
  options.least = LogLevel::info;
  signals_configure(options);
}

const auto term = [](pid_t child) { kill(child, SIGTERM); };

std::atomic<int> chained_calls{0};
std::atomic<int> told{0};

void check_between(double ms, double from, double to) {
  if (!CHECK(ms >= from && ms <= to)) printf("# %.1f ms, not %.0f to %.0f\n", ms, from, to);
}

}  // namespace

int main() {
  check::test("nobody answers: reported, and 75 at the soft deadline", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(200, 2000);
          signals_code_at_soft(kExitCut);
          ready();
        },
        term);
    CHECK_EQ(end.status, kExitCut);
    check_between(end.ms, 199, 200 + kSlackMs);
    CHECK(end.printed.find("\"event\":\"event_loop_blocked\"") != std::string::npos);
    CHECK(end.printed.find("\"event\":\"gate_empty\"") != std::string::npos);
    CHECK(end.printed.find("\"code\":75") != std::string::npos);
  });

  check::test("a section that is open at the soft deadline is waited for", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(100, 2000);
          signals_code_at_soft(kExitCut);
          critical_begin();
          ready();
          sleep_ms(400);
          critical_end();
        },
        term);
    CHECK_EQ(end.status, kExitCut);
    check_between(end.ms, 350, 400 + kSlackMs);
  });

  check::test("a section that does not end: 70 at the hard deadline", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(100, 300);
          critical_begin();
          ready();
        },
        term);
    CHECK_EQ(end.status, kExitHard);
    check_between(end.ms, 299, 300 + kSlackMs);
  });

  check::test("a second signal ends the wait, one within 50 ms is the same request", [] {
    const auto body = [](auto ready) {
      signals_install();
      configure(600, 3000);
      signals_code_at_soft(kExitCut);
      ready();
    };
    const End hurried = end_of(body, [](pid_t child) {
      kill(child, SIGTERM);
      sleep_ms(150);
      kill(child, SIGINT);
    });
    CHECK_EQ(hurried.status, kExitCut);
    check_between(hurried.ms, 150, 190 + kSlackMs);
    const End twice = end_of(body, [](pid_t child) {
      kill(child, SIGTERM);
      sleep_ms(2);
      kill(child, SIGTERM);
    });
    check_between(twice.ms, 599, 600 + kSlackMs);
  });

  check::test("a second signal still waits for the gate", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(3000, 5000);
          signals_code_at_soft(kExitCut);
          critical_begin();
          ready();
          sleep_ms(400);
          critical_end();
        },
        [](pid_t child) {
          kill(child, SIGTERM);
          sleep_ms(100);
          kill(child, SIGTERM);
        });
    CHECK_EQ(end.status, kExitCut);
    check_between(end.ms, 350, 400 + kSlackMs);
  });

  check::test("time in the freezer does not count", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(400, 900);
          critical_begin();
          ready();
        },
        [](pid_t child) {
          kill(child, SIGTERM);
          sleep_ms(100);
          kill(child, SIGSTOP);
          sleep_ms(1500);
          kill(child, SIGCONT);
        });
    CHECK_EQ(end.status, kExitHard);
    // 900 ms awake and 1,500 frozen; the tick that was frozen counts as 50 ms however long it had lasted before.
    check_between(end.ms, 2340, 2450 + kSlackMs);
  });

  check::test("JavaScript's answer gets a moment at the soft deadline", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(200, 2000);
          signals_code_at_soft(kExitCut);
          signals_on_stop([] { signals_acknowledge(); });
          ready();
          sleep_ms(215);
          signals_exit(3);
        },
        term);
    // On a machine that kept it waiting for longer than the moment, 75 is right; before it was over, 75 is not.
    if (end.status != 3) CHECK_EQ(end.status, kExitCut);
    check_between(end.ms, end.status == 3 ? 200 : 239, 240 + kSlackMs);
    CHECK(end.printed.find("event_loop_blocked") == std::string::npos);
    // And no more than a moment.
    const End endless = end_of(
        [](auto ready) {
          signals_install();
          configure(200, 2000);
          signals_code_at_soft(kExitCut);
          signals_on_stop([] { signals_acknowledge(); });
          ready();
        },
        term);
    CHECK_EQ(endless.status, kExitCut);
    check_between(endless.ms, 239, 240 + kSlackMs);
    CHECK(endless.printed.find("\"reason\":\"soft_deadline\"") != std::string::npos);
  });

  check::test("the handler that was there before is called too; a one-shot one is not", [] {
    const End end = end_of(
        [](auto ready) {
          // As Node leaves SIGTERM: kills the process again.
          struct sigaction one_shot = {};
          one_shot.sa_handler = [](int signal) { raise(signal); };
          one_shot.sa_flags = static_cast<int>(SA_RESETHAND);
          sigaction(SIGTERM, &one_shot, nullptr);
          signals_install();
          // As libuv does, without a look at who was there.
          struct sigaction later = {};
          later.sa_handler = [](int) { ++chained_calls; };
          sigaction(SIGTERM, &later, nullptr);
          signals_install();
          signals_on_stop([] { ++told; });
          ready();
          while (told == 0) sleep_ms(1);
          _exit(chained_calls == 1 && critical_stopping() ? 0 : 1);
        },
        term);
    CHECK_EQ(end.status, 0);
  });

  check::test("a displaced handler is put back within a second and a tick", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          fault_guard_install();
          signals_watch_bus();
          configure(100, 1000);
          signal(SIGTERM, SIG_DFL);
          signal(SIGBUS, SIG_IGN);
          const Dispositions displaced = signals_dispositions();
          if (displaced.term || displaced.bus || !displaced.interrupt) _exit(1);
          sleep_ms(2300);
          const Dispositions repaired = signals_dispositions();
          if (!repaired.term || !repaired.bus || repaired.repaired != 1) _exit(2);
          ready();
        },
        term);
    CHECK_EQ(end.status, 0);
    CHECK(end.printed.find("disposition_repaired") != std::string::npos);
  });

  check::test("a hundred signals from a hundred processes", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(5000, 6000);
          signals_code_at_soft(kExitCut);
          ready();
        },
        [](pid_t child) {
          for (int i = 0; i < 100; ++i) {
            if (fork() == 0) {
              kill(child, i % 2 == 0 ? SIGTERM : SIGINT);
              _exit(0);
            }
            sleep_ms(1);
          }
        });
    CHECK_EQ(end.status, kExitCut);
    check_between(end.ms, 50, 400 + kSlackMs);
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  });

  check::test("exiting waits for a section of another thread, and lets none begin", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          configure(100, 5000);
          std::atomic<bool> inside{false};
          std::thread([&inside] {
            critical_begin();
            inside = true;
            sleep_ms(200);
            critical_end();
            for (;;) pause();
          }).detach();
          while (!inside) sleep_ms(1);
          ready();
          signals_exit(5);
        },
        [](pid_t) {});
    CHECK_EQ(end.status, 5);
    check_between(end.ms, 150, 200 + kSlackMs);
  });

  check::test("at once: a signal ends an idle process with the caller's status", [] {
    const End end = end_of(
        [](auto ready) {
          signals_install();
          signals_exit_at_once(kExitPattern);
          ready();
        },
        term);
    CHECK_EQ(end.status, kExitPattern);
    check_between(end.ms, 0, 50 + kSlackMs);
  });
  return check::done();
}
