// status.h - every outcome the storage core can report, as one list.
//
// The list is the only place where a code is written down: the addon exports it as a table, the service maps each
// name to one HTTP problem, and a test holds both sides equal. Codes are stable nouns; their numbers are part of
// the answer frame (frame.h) and of journaled outcomes (format.h), so a number is never reused.
#pragma once

#include <cstdint>

namespace holdfast {

#define HOLDFAST_CODES(X)                                                                            \
  X(ok, 0, "done")                                                                                   \
  X(malformed_batch, 1, "the batch frame does not decode")                                           \
  X(validation_failed, 2, "an operation or option is not allowed here")                              \
  X(region_not_found, 3, "no region of this name")                                                   \
  X(region_exists, 4, "a region of this name exists")                                                \
  X(out_of_bounds, 5, "a range ends beyond the region")                                              \
  X(misaligned, 6, "a read-modify-write needs natural alignment")                                    \
  X(value_out_of_range, 7, "a value does not fit its type")                                          \
  X(too_many_ops, 8, "more operations, guards or regions than a batch may have")                     \
  X(batch_too_large, 9, "the batch writes more bytes than one record may hold")                      \
  X(guard_failed, 10, "a guard is false")                                                            \
  X(etag_mismatch, 11, "no entity tag of the condition matches")                                     \
  X(generation_mismatch, 12, "the region is at another generation")                                  \
  X(cas_mismatch, 13, "a compare-and-swap found another value")                                      \
  X(overflow, 14, "an addition left the range of its type")                                          \
  X(region_read_only, 15, "the region is read-only")                                                 \
  X(region_faulted, 16, "the region is faulted: reads may work, writes are refused")                 \
  X(durability_unavailable, 17, "the region or its file system can't give the durability asked for") \
  X(insufficient_storage, 18, "the file system is full")                                             \
  X(overloaded, 19, "the journal is full and its checkpoint did not end in time")                    \
  X(draining, 20, "the process is stopping; nothing was written")                                    \
  X(flush_failed, 21, "the file system could not make the bytes durable")                            \
  X(idempotency_key_reused, 22, "the key was used with another request")                             \
  X(idempotency_in_progress, 23, "a request with this key is still running")                         \
  X(too_many_regions, 24, "the store holds as many regions as it may")                               \
  X(unsupported_file_system, 25, "the file system can't keep the store's promises")                  \
  X(lease_held, 26, "another process holds the store")                                               \
  X(store_corrupt, 27, "the store's files contradict themselves")                                    \
  X(permission_denied, 28, "the process may not read or write the store's files")                    \
  X(io_error, 29, "the file system reported an error")                                               \
  X(precondition_required, 30, "this change needs an explicit condition")                            \
  X(cancelled, 31, "the store was closed before the request could start")                            \
  X(snapshot_not_found, 32, "no snapshot of this id")                                                \
  X(too_many_snapshots, 33, "the region has as many snapshots as it may")                            \
  X(snapshot_in_progress, 34, "a snapshot of the region is being made")                              \
  X(region_adopted, 35, "the region is an operator's own file, which stays in its place")            \
  X(unfinished, 36, "the change is committed, and the next start finishes it")

enum class Code : uint16_t {
#define X(name, number, text) name = number,
  HOLDFAST_CODES(X)
#undef X
};

// The code's name as the service spells it, with underscores ("region_not_found").
const char* code_name(Code code);
// One sentence about the code, without a culprit.
const char* code_text(Code code);

}  // namespace holdfast
