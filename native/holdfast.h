/* holdfast.h - what another program that maps a region may rely on. C11 and C++; Linux, little-endian; no library.
 *
 * R0  Map regions/NAME/data read-only (or the adopted file) and load naturally aligned words: every aligned 1, 2, 4
 *     or 8 byte word that a write covers wholly is old or new, never mixed (one that it covers in part changes in up to
 *     three steps). The file only shrinks when somebody asks for that with a precondition.
 * R1  Map regions/NAME/control as well: holdfast_read_begin/holdfast_read_retry give consistent snapshots of many
 *     words without a lock. A writer that was killed inside a batch leaves the sequence odd until its successor has
 *     redone the batch: holdfast_read_begin tells HOLDFAST_UNSETTLED after a bounded number of looks, never hangs.
 *
 *     const holdfast_control *control = ...mmap(NULL, 4096, PROT_READ, MAP_SHARED, control_fd, 0);
 *     if (!holdfast_control_valid(control)) ...
 *     uint64_t seen;
 *     do {
 *       if (holdfast_read_begin(control, 1000000, &seen) != HOLDFAST_SETTLED) ...writer is gone, try later
 *       a = holdfast_load64(&words[0]); b = holdfast_load64(&words[1]);
 *     } while (holdfast_read_retry(control, seen));
 *     if (holdfast_removed(control)) ...these are the last bytes of a region that is gone or was restored: map it anew
 *
 * The pattern that the service grew from, for programs that write themselves (single process, no service):
 *     critical_begin(); ...store with holdfast_store64... critical_end();
 * holdfast_term_install() adds a TERM handler that exits at once when no section is open, and otherwise at the end of
 * the last one. Sections nest and may be open in several threads. The exit is _exit(status): exit() inside a signal
 * handler can deadlock. It protects from TERM only; only the service's journal protects from KILL.
 */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOLDFAST_CONTROL_MAGIC UINT64_C(0x314c544346484848) /* "HHHFCTL1" */

/* REMOVED: what is mapped is the region no more, because it was deleted or a snapshot of it was restored, which puts new
 * files into its place. The mapping stays as it is and nobody writes to it again: open the region's files anew. */
enum { HOLDFAST_STATE_OK = 1, HOLDFAST_STATE_FAULTED = 2, HOLDFAST_STATE_REMOVED = 3 };
enum { HOLDFAST_SETTLED = 0, HOLDFAST_UNSETTLED = 1 };

/* One page, mapped read-only by others. Only the service writes it. */
typedef struct holdfast_control {
  uint64_t magic;
  uint32_t version; /* 1 */
  uint32_t state;   /* HOLDFAST_STATE_... */
  uint8_t boot_id[16];
  uint64_t data_device; /* st_dev and st_ino of the data file that this page speaks of */
  uint64_t data_inode;
  uint64_t incarnation;
  uint64_t reserved;
  /* byte 64: 2 x generation when settled, odd while a batch is being applied */
  uint64_t sequence;
  uint64_t length; /* bytes of the region; only grows while anyone may have it mapped */
  uint64_t padding[6];
} holdfast_control;

static inline uint64_t holdfast_load64(const void* word) {
  return __atomic_load_n((const uint64_t*)word, __ATOMIC_RELAXED);
}

static inline void holdfast_store64(void* word, uint64_t value) {
  __atomic_store_n((uint64_t*)word, value, __ATOMIC_RELAXED);
}

static inline int holdfast_control_valid(const holdfast_control* control) {
  return __atomic_load_n(&control->magic, __ATOMIC_ACQUIRE) == HOLDFAST_CONTROL_MAGIC && control->version == 1;
}

static inline uint64_t holdfast_length(const holdfast_control* control) {
  return __atomic_load_n(&control->length, __ATOMIC_ACQUIRE);
}

/* The region's generation; while a batch is being applied, the one before it. */
static inline uint64_t holdfast_generation(const holdfast_control* control) {
  return __atomic_load_n(&control->sequence, __ATOMIC_ACQUIRE) >> 1;
}

/* Nonzero: this page and its data are the region's no more, and never will be again. */
static inline int holdfast_removed(const holdfast_control* control) {
  return __atomic_load_n(&control->state, __ATOMIC_ACQUIRE) == HOLDFAST_STATE_REMOVED;
}

/* Looks at most `looks` times for a settled sequence. */
static inline int holdfast_read_begin(const holdfast_control* control, uint64_t looks, uint64_t* seen) {
  for (uint64_t i = 0; i < looks; i++) {
    *seen = __atomic_load_n(&control->sequence, __ATOMIC_ACQUIRE);
    if ((*seen & 1) == 0) return HOLDFAST_SETTLED;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return HOLDFAST_UNSETTLED;
}

/* Nonzero: a batch landed in between; what was read must be thrown away. */
static inline int holdfast_read_retry(const holdfast_control* control, uint64_t seen) {
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  return __atomic_load_n(&control->sequence, __ATOMIC_RELAXED) != seen;
}

/* ---- the pattern, for a program of one translation unit: define HOLDFAST_PATTERN before including ---- */
#ifdef HOLDFAST_PATTERN

#define HOLDFAST_GATE_STOP (UINT64_C(1) << 63)
/* One word: the stop bit and the number of open sections. Two words could be seen between each other. */
static uint64_t holdfast_gate;
static int holdfast_exit_status = 126;

/* Nonzero: inside. Zero: the process is about to exit; nothing may be written. */
static inline void critical_end(void) {
  if (__atomic_fetch_sub(&holdfast_gate, 1, __ATOMIC_SEQ_CST) == (HOLDFAST_GATE_STOP | 1)) _exit(holdfast_exit_status);
}
static inline int critical_begin(void) {
  uint64_t before = __atomic_fetch_add(&holdfast_gate, 1, __ATOMIC_SEQ_CST);
  /* Inside an outer section of a stopping process the batch goes on: only the outermost entry refuses. */
  if (before == HOLDFAST_GATE_STOP) {
    critical_end();
    return 0;
  }
  return 1;
}
static inline void holdfast_on_term(int signal_number) {
  (void)signal_number;
  uint64_t before = __atomic_fetch_or(&holdfast_gate, HOLDFAST_GATE_STOP, __ATOMIC_SEQ_CST);
  if ((before & ~HOLDFAST_GATE_STOP) == 0) _exit(holdfast_exit_status);
}
/* Returns 0, or -1 with errno. `status` is the exit status of a TERM (the original pattern's is 126). */
static inline int holdfast_term_install(int status) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  holdfast_exit_status = status;
  action.sa_handler = holdfast_on_term;
  action.sa_flags = SA_RESTART;
  sigfillset(&action.sa_mask);
  return sigaction(SIGTERM, &action, NULL);
}

#endif /* HOLDFAST_PATTERN */

#ifdef __cplusplus
}
#endif
#endif
