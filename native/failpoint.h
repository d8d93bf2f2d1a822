// failpoint.h - marked places at which a test can stop, delay or fail the process, and switches that break the
// protocol on purpose so that a test can prove it would notice.
//
// Compiled in with -DHOLDFAST_DEBUG=1 only. A release build has neither the code nor the names.
//
//   HOLDFAST_FAILPOINTS="sync_data=eio@2,commit_published=kill@100,apply_image=sleep:50"
//   HOLDFAST_MUTANTS="apply_before_publish"
//
// A fail point is NAME=ACTION, or NAME=ACTION@N (only the Nth hit), or NAME=ACTION@N+ (the Nth and all later ones).
// Actions: kill, term, stop, abort, sleep:MS, exit:CODE, and eio, enospc, errno:NUMBER, which make the expression
// HOLDFAST_FAILPOINT(name) yield that errno for the caller to fail with; it yields 0 in every other case.
// A list that can't be parsed ends the process (status 78): a fail point that silently does nothing would make its
// test pass for the wrong reason.
#pragma once

namespace holdfast {

#if defined(HOLDFAST_DEBUG) && HOLDFAST_DEBUG

namespace failpoint {
// Set while anything is armed, so that a place which nobody asks about costs one load.
extern bool any_point;
extern bool any_mutant;
// Counts the hit, acts, and returns the errno to fail with or 0. Any thread.
int hit(const char* name);
bool mutant_on(const char* name);
// Replaces what the environment or an earlier call said: "" disarms, null leaves that list as it is. Not while another
// thread is inside the core.
void arm(const char* points, const char* mutants);
}  // namespace failpoint

#define HOLDFAST_FAILPOINT(name) (::holdfast::failpoint::any_point ? ::holdfast::failpoint::hit(name) : 0)
#define HOLDFAST_MUTANT(name) (::holdfast::failpoint::any_mutant && ::holdfast::failpoint::mutant_on(name))

#else

namespace failpoint {
constexpr int none() { return 0; }
constexpr bool off() { return false; }
}  // namespace failpoint

#define HOLDFAST_FAILPOINT(name) (::holdfast::failpoint::none())
#define HOLDFAST_MUTANT(name) (::holdfast::failpoint::off())

#endif

}  // namespace holdfast
