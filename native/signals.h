// signals.h - SIGTERM and SIGINT, answered on time whatever JavaScript is doing.
//
// A handler that notes the request, closes the gate (critical_section.h) and wakes a thread; a watchdog thread that
// tells JavaScript, and ends the process when JavaScript doesn't. Nothing here knows HTTP: what is drained, and
// how, is the service's. It never re-kills the process and never calls exit(), which waits for other threads.
//
//   signal -> handler: note, set T, wake, chain -> watchdog: tell() -> JavaScript: signals_acknowledge() ...
//   signals_exit()
//                                                     |  no answer in 250 ms: logs event_loop_blocked
//                                                     |  soft deadline, or a second signal: exits when the gate is
//                                                     empty '  hard deadline: exits 70 whatever the gate says
//
// Times are milliseconds since the first signal, less the time for which the whole process was frozen.
#pragma once

#include <cstdint>
#include <string>

namespace holdfast {

inline constexpr int kExitClean = 0;
inline constexpr int kExitHard = 70;      // hard deadline with a section open; recovery decides it
inline constexpr int kExitCut = 75;       // requests were cut, no batch was
inline constexpr int kExitPattern = 126;  // the original pattern's own; Docker uses it for "can't be executed" as well

enum class LogLevel { info, warn, error, silent };

struct StopOptions {
  uint32_t soft_ms = 600;
  uint32_t hard_ms = 8000;
  uint32_t blocked_ms = 250;          // JavaScript that hasn't acknowledged by then is reported as blocked
  LogLevel least = LogLevel::silent;  // of the watchdog's JSON lines on standard output
};

// What has happened since the handler was installed. `at_ms` are since the first signal; -1: not yet.
struct StopView {
  uint32_t signals = 0;     // caught, of either kind
  int first_signal = 0;     // 0: none
  int64_t sender = 0;       // process id of the first one's sender; 0 when the kernel sent it (a terminal's ^C)
  double elapsed_ms = 0;    // since the first signal, frozen time excluded
  double frozen_ms = 0;     // stopped by the freezer or SIGSTOP meanwhile
  double told_at_ms = -1;   // JavaScript acknowledged
  double empty_at_ms = -1;  // the gate was empty for the first time
  bool hurry = false;       // a second signal came, or signals_hurry()
};

struct Dispositions {
  bool term = false, interrupt = false, bus = false;  // still handled here
  uint32_t repaired = 0;                              // times the watchdog found one displaced and chained in again
};

// Installs the handlers and starts the watchdog. Called again, it puts the handlers in front of whoever displaced them
// and chains to that one. Any thread; idempotent.
void signals_install();
// Before the first call the defaults hold. Any thread, any time.
void signals_configure(const StopOptions& options);
// `tell` is called on the watchdog thread after each signal. Null: nobody.
void signals_on_stop(void (*tell)());
// The watchdog also keeps SIGBUS with the fault guard from now on.
void signals_watch_bus();

// The same as receiving `signal` once, for a caller that learned of it in another way. Ignored when the handler has
// seen one already.
void signals_request_stop(int signal);
// JavaScript has heard of the first signal and is draining.
void signals_acknowledge();
// The same as a second signal.
void signals_hurry();
// What the watchdog exits with at the soft deadline; 0 until somebody is being served, then 75, then 0 again once
// everybody was answered.
void signals_code_at_soft(int code);
// A file of the store that the watchdog replaces (write, rename) with one line of JSON before it ends the process.
// Empty: none.
void signals_record_path(const std::string& path);

// Puts displaced handlers back, as the watchdog does each second. Any thread.
void signals_repair();

StopView signals_view();
Dispositions signals_dispositions();

// Ends the process with _exit() once no section is open or the hard deadline has passed (then 70); sections can't
// begin any more. Any thread that is outside of a section.
[[noreturn]] void signals_exit(int code);
// From now on a signal ends the process at once if no section is open, else at the end of the last one, with this
// status; JavaScript isn't told. Also when a signal has come before. A negative code takes it back. Requires
// signals_install().
void signals_exit_at_once(int code);

}  // namespace holdfast
