// critical_section.cc - see critical_section.h.
#include "critical_section.h"

#include <atomic>

#include "failpoint.h"

namespace holdfast {
namespace {

constexpr uint64_t kStopping = uint64_t{1} << 63;

// All operations are sequentially consistent: begin, end and stop must fall into one order that all threads agree on,
// and on x64 a locked instruction costs the same with any order.
std::atomic<uint64_t> gate{0};
std::atomic<void (*)()> last_out_action{nullptr};

// Sections this thread is inside of. Only the outermost one passes the gate, so that a nested begin after TERM can't
// refuse the second half of something that has begun. initial-exec: the default model of a shared object is a call.
__attribute__((tls_model("initial-exec"))) thread_local uint32_t nested = 0;

void last_out() {
  if (void (*action)() = last_out_action.load()) action();
}

void leave() {
  if (HOLDFAST_MUTANT("gate_forgets_last_out")) {
    gate.fetch_sub(1);
    return;
  }
  if (gate.fetch_sub(1) == (kStopping | 1)) last_out();
}

}  // namespace

bool critical_begin() {
  const bool outermost = nested == 0 || HOLDFAST_MUTANT("gate_refuses_nested");
  if (outermost && HOLDFAST_MUTANT("gate_looks_then_enters")) {
    if (critical_stopping()) return false;
    HOLDFAST_FAILPOINT("gate_looked");
    gate.fetch_add(1);
  } else if (outermost && (gate.fetch_add(1) & kStopping) != 0) {
    leave();
    return false;
  }
  ++nested;
  return true;
}

void critical_begin_promised() {
  if (nested == 0) gate.fetch_add(1);
  ++nested;
}

void critical_end() {
  if (--nested == 0) leave();
}

uint64_t critical_depth() { return gate.load() & ~kStopping; }

bool critical_stopping() { return (gate.load() & kStopping) != 0; }

bool critical_stop() {
  if ((gate.fetch_or(kStopping) & ~kStopping) != 0) return false;
  last_out();
  return true;
}

void critical_on_last_out(void (*action)()) { last_out_action.store(action); }

}  // namespace holdfast
