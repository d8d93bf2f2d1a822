// critical_section.h - the gate: one word that counts open sections and says whether the process is asked to stop.
//
// Bit 63 (T) is set by the signal handler, the other bits count the threads that are inside a section. One word,
// because two (a flag and a counter) can be observed between each other: a thread that saw no flag enters after the
// handler saw no section, and the process exits in the middle of a batch, or the counter never comes back to zero and
// it never exits. test/native/critical_section_test.cc shows both happening to the two-word variant.
#pragma once

#include <cstdint>

namespace holdfast {

// Enters a section. False: the process is stopping; nothing was entered and nothing may be written. Any thread.
// Sections nest: within one that this thread holds already, it always succeeds. A section is left by the thread that
// entered it.
bool critical_begin();
// Enters even while the process is stopping: for work that an earlier section has promised (the flusher's apply).
void critical_begin_promised();
// Leaves a section entered by either call. The last one out of a stopping process calls the last-out action.
void critical_end();
// Threads inside a section.
uint64_t critical_depth();
// True once the process was asked to stop.
bool critical_stopping();
// Sets T. Returns true when no section is open. Async-signal-safe; runs the last-out action in that case.
bool critical_stop();
// What the last one out does, from critical_end() or critical_stop(), on any thread and perhaps inside a signal
// handler: async-signal-safe, and harmless when called again (a refused critical_begin passes through the gate as
// well). Null: nothing.
void critical_on_last_out(void (*action)());

}  // namespace holdfast
