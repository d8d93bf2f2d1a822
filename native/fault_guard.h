// fault_guard.h - bounded copies to and from a mapping that a SIGBUS can't kill the process with.
//
// A mapped file that somebody else truncates, a full disk under a hole or an I/O error raises SIGBUS at the
// instruction that touches the page. Inside one of the copies below that becomes `false`; anywhere else the signal
// goes on to whoever handled it before. Nothing here knows regions or locks: what a fault means is the caller's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace holdfast {

// Installs the process's one handler. Idempotent; any thread. When somebody has displaced the handler since, it is
// put back and the displacer becomes the one that foreign faults are passed on to.
void fault_guard_install();
// True while SIGBUS is still handled here. A JavaScript listener for SIGBUS displaces it without a word.
bool fault_guard_is_ours();
// Faults turned into a `false` since the process started.
uint64_t fault_guard_caught();

// The three below: any thread, no allocation, no nesting within one thread. False: a page of the mapping faulted, and
// any part of the range may have been copied. Lengths may be 0.

// Copies out of a mapping with plain loads; `to` is ordinary memory and doesn't overlap.
bool guarded_copy_in(void* to, const void* from_mapping, size_t bytes);
// Copies into a mapping so that every naturally aligned 1, 2, 4 or 8 byte word that lies within the range is seen old
// or new by other threads and processes, never mixed; words are written in ascending order, without a fence. `from`
// is ordinary memory and doesn't overlap. A word that the range covers in part is written as 4, 2 and 1.
bool guarded_store(uint8_t* to_mapping, const uint8_t* from, size_t bytes);
// Makes every page of the range present and writable, without changing a byte (nor losing one that another thread
// stores meanwhile).
bool guarded_touch(volatile uint8_t* mapping, size_t bytes);

}  // namespace holdfast
