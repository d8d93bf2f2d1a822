/* gate.pml - the gate of native/critical_section.cc, for every interleaving of its atomic operations.
 *
 * One word holds the stop bit and the number of open sections; each step below changes it at once, as a fetch_add,
 * fetch_sub or fetch_or does. Threads run nested sections, a flusher runs one that an earlier section promised, a signal
 * comes at any moment. Exiting stops everything. Checked:
 *   no exit cuts a section, nor an apply that began before the stop
 *   no section is cut in half     a nested begin is never refused
 *   nothing hangs                 when nobody can go on, the process has exited
 * model.test.ts also runs it with each mistake that is marked with #ifdef, and demands a counterexample.
 */
#define THREADS 2
#define SECTIONS 2 /* of each thread, until it would rest */

bool stopping; /* the word: bit 63 ... */
byte sections; /* ... and the rest */
byte inside;   /* threads between begin and end, as they see it */
byte promised; /* applies that sections have left to the flusher */
bool applying; /* one of them began before the stop */
byte resting;  /* threads that are done */
bool exited;

inline exit_process() {
  atomic {
    assert(inside == 0 && !applying);
    exited = true;
  }
}

/* critical_end, and the way out of a refused begin: fetch_sub, then the last-out action. */
inline leave(last) {
#ifdef FORGETS_LAST_OUT
  sections--;
#else
  d_step {
    sections--;
    last = stopping && sections == 0;
  }
  if
  :: last -> exit_process()
  :: else
  fi
#endif
}

/* What critical_begin of an outermost section does: fetch_add, then a look at what was there. */
inline enter(refused, last) {
#ifdef LOOKS_THEN_ENTERS
  refused = stopping;
  if
  :: refused
  :: else -> sections++
  fi
#else
#ifdef TWO_STEP_COUNTER
  refused = stopping;
  if
  :: refused
  :: else -> read = sections; sections = read + 1
  fi
#else
  d_step {
    refused = stopping;
    sections++;
  }
  if
  :: refused -> leave(last)
  :: else
  fi
#endif
#endif
}

/* critical_begin and critical_end: the thread's own depth tells which section is its outermost. */
inline begin(depth, refused, last) {
  if
  :: depth == 0 -> enter(refused, last)
#ifdef REFUSES_NESTED
  :: else -> enter(refused, last)
#else
  :: else
#endif
  fi;
  if
  :: refused
  :: else -> depth++
  fi
}
inline end(depth, last) {
  depth--;
  if
#ifdef TWO_STEP_COUNTER
  :: depth == 0 ->
    read = sections;
    sections = read - 1;
    if
    :: stopping && sections == 0 -> exit_process()
    :: else
    fi
#else
  :: depth == 0 -> leave(last)
#endif
  :: else
  fi
}

active [THREADS] proctype thread() provided (!exited) {
  byte turn, depth;
  bool refused, last;
#ifdef TWO_STEP_COUNTER
  byte read;
#endif
  do
  :: turn == SECTIONS -> break
  :: else ->
    turn++;
    begin(depth, refused, last);
    if
    :: refused -> break
    :: else
    fi;
    inside++;
    /* Half of the work is done: a nested section must not be refused the other half, nor its end be the last one out. */
    begin(depth, refused, last);
    assert(!refused);
    end(depth, last);
    promised++;
    inside--;
    end(depth, last)
  od;
  resting++
}

/* critical_begin_promised: enters also when the process is stopping. An apply that begins after the last section has
 * left may be cut, as by a kill: its record is committed, and the next start redoes it. */
active proctype flusher() provided (!exited) {
  bool last;
  do
  :: atomic { promised > 0 -> promised = 0 };
    d_step {
#ifndef PROMISED_IS_NOT_COUNTED
      sections++;
#endif
      applying = !stopping
    }
    applying = false;
#ifndef PROMISED_IS_NOT_COUNTED
    leave(last)
#endif
  :: resting == THREADS && promised == 0 -> break
  od
}

/* critical_stop, on any thread. */
active proctype signal_handler() provided (!exited) {
  bool idle;
  d_step {
    stopping = true;
    idle = sections == 0;
  }
#ifndef HANDLER_NEVER_EXITS
  if
  :: idle -> exit_process()
  :: else
  fi
#endif
}

active proctype observer() {
  timeout -> assert(exited)
}
