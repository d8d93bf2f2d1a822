/* store.pml - publish, flush, apply, checkpoint and recovery, with kills, and power cuts before which the kernel has
 * written back any of the pages, for every order of events.
 *
 * A batch stores its number into two pages, a and b. Memory (the page cache) survives a kill, the disk a power cut. A
 * record has a header page and a body page; it is valid if both are of the same batch, and the header has the lsn and
 * the salt that are expected. (The chained checksum is a second net under the salt; it is left out here.) The ring has
 * two places. Checked after each recovery, which may itself be killed or cut:
 *   whole       a == b
 *   nothing lost, nothing from nowhere
 *               they are those of the last committed batch, which is at least the last promised one: promised to
 *               survive a kill at publication, to survive a power cut once its journal was synced
 * model.test.ts also runs it with each mistake that is marked with #ifdef, and demands a counterexample.
 */
#define PLACES 2
#ifndef BATCHES
#define BATCHES 3
#endif
#ifndef FAULTS
#define FAULTS 2
#endif

typedef Record {
  byte lsn, id, salt; /* the header page; lsn 0: none */
  byte body           /* the body page: of which batch */
}
typedef Pages {
  Record ring[PLACES];
  byte a, b;
  byte checkpoint, salt /* the newer slot */
}
Pages memory, disk;

/* The words of this boot. A power cut takes them. */
bool words_valid = true;
byte committed, applied;

/* The process: gone with a kill. */
byte life;     /* which one */
byte threads;  /* of this life that have begun; the threads of the last one are gone before its recovery begins */
bool serving = true; /* its recovery is over; the first life finds an empty store */
bool locked;   /* the store's lock: the writer holds it for a whole batch, the flusher not while it syncs */
bool dirty;    /* applied bytes that no sync has covered since the last checkpoint began */
byte freed;    /* the ring may be reused up to this lsn */

/* What an observer outside knows. */
byte ids;                 /* batches begun; each has an id of its own */
byte truth[BATCHES + 1];  /* the id that was committed as this lsn */
byte in_flight;           /* a record that was begun and not published; it may still turn up after a power cut */
byte kill_promise, cut_promise;
byte faults;

#define place(lsn) ((lsn) % PLACES)
#define valid(lsn_) (memory.ring[place(lsn_)].lsn == (lsn_) && memory.ring[place(lsn_)].salt == memory.salt && \
                     memory.ring[place(lsn_)].body == memory.ring[place(lsn_)].id)

inline copy_ring(to, from) {
  to.ring[0].lsn = from.ring[0].lsn; to.ring[0].id = from.ring[0].id;
  to.ring[0].salt = from.ring[0].salt; to.ring[0].body = from.ring[0].body;
  to.ring[1].lsn = from.ring[1].lsn; to.ring[1].id = from.ring[1].id;
  to.ring[1].salt = from.ring[1].salt; to.ring[1].body = from.ring[1].body
}

inline write_header(i) {
  d_step {
    disk.ring[i].lsn = memory.ring[i].lsn;
    disk.ring[i].id = memory.ring[i].id;
    disk.ring[i].salt = memory.ring[i].salt
  }
}
inline write_slot() { d_step { disk.checkpoint = memory.checkpoint; disk.salt = memory.salt } }

/* fdatasync of the whole journal, and of the data. */
inline sync_journal() {
  d_step {
    copy_ring(disk, memory);
    disk.checkpoint = memory.checkpoint;
    disk.salt = memory.salt
  }
}
inline sync_data() { d_step { disk.a = memory.a; disk.b = memory.b } }

inline apply(id_) {
  memory.a = id_;
  memory.b = id_
}

/* ---- a batch ---- */

inline publish(lsn_) {
  d_step {
    committed = lsn_;
    truth[lsn_] = ids;
    in_flight = 0
  }
}

inline commit() {
#ifdef APPLY_BEFORE_PUBLISH
  apply(ids);
#endif
  /* What stood there a pass ago must not be taken for what is half-written now. */
  memory.ring[place(n)].lsn = 0;
#ifdef PUBLISH_BEFORE_RECORD
  publish(n);
#endif
  memory.ring[place(n)].body = ids;
  d_step {
    memory.ring[place(n)].id = ids;
    memory.ring[place(n)].salt = memory.salt;
    memory.ring[place(n)].lsn = n
  }
#ifndef PUBLISH_BEFORE_RECORD
  publish(n);
#endif
#ifdef APPLY_BEFORE_SYNC
  apply(ids);
#endif
  /* The answer of an ordered batch. */
  d_step {
    kill_promise = n;
#ifdef ANSWERED_BEFORE_SYNC
    cut_promise = n;
#endif
    n = 0;
    locked = false
  }
}

/* ---- the flusher: one sync for all that waits, then apply in lsn order ---- */

inline flush() {
  /* Batches are begun and committed meanwhile, before the journal is synced and after. */
#ifndef NO_SYNC
  sync_journal();
#endif
  atomic {
    !locked -> locked = true;
#ifdef TARGET_AFTER_SYNC
    target = committed;
#endif
    cut_promise = target
  }
  do
  :: atomic { applied < target -> n = applied + 1 }
#ifdef APPLIED_BEFORE_APPLY
    applied = n;
#endif
#ifdef DIRTY_BEFORE_APPLY
    dirty = true;
#endif
    apply(memory.ring[place(n)].id);
    /* No checkpoint begins between the bytes, that they are dirty, and that they are applied. */
    d_step {
#ifndef DIRTY_BEFORE_APPLY
      dirty = true;
#endif
      applied = n;
      n = 0
    }
  :: atomic { applied == target -> target = 0; locked = false; break }
  od
}

/* ---- recovery ---- */

/* The words are of this boot: the process was killed, memory is as it was. */
inline recover_from_kill() {
  n = memory.checkpoint + 1;
  do
  :: n <= committed -> assert(valid(n)); n++
  :: else -> break
  od;
#ifndef REDO_BEFORE_SYNC
  sync_journal();
#endif
  do
  :: applied < committed ->
    n = applied + 1;
#ifdef REDO_MARKS_FIRST
    applied = n;
#endif
    apply(memory.ring[place(n)].id);
    applied = n
  :: else -> break
  od;
#ifdef REDO_LEAVES_CLEAN
  dirty = false;
#else
  dirty = committed > memory.checkpoint;
#endif
  /* A whole record that was never published must not turn up after a later power cut. */
#ifndef TAIL_NOT_ERASED
  if
  :: committed + 1 - memory.checkpoint <= PLACES -> memory.ring[place(committed + 1)].lsn = 0
  :: else
  fi;
#endif
  sync_journal()
}

/* Memory is what the disk kept: the longest valid chain is redone, and a new salt begins. */
inline recover_from_cut() {
  n = memory.checkpoint;
  target = 0;
  do
  :: n < BATCHES && n - memory.checkpoint < PLACES && valid(n + 1) ->
    n++;
    target = memory.ring[place(n)].id;
    apply(target)
  :: else -> break
  od;
#ifdef CUT_RECOVERY_WITHOUT_DATA_SYNC
  skip;
#else
  sync_data();
#endif
  d_step {
    memory.checkpoint = n;
#ifndef SALT_KEPT
    memory.salt = memory.salt + 1
#endif
  }
  sync_journal();
  d_step { committed = n; applied = n; dirty = false }
  words_valid = true
}

inline judge() {
  d_step {
    assert(memory.a == memory.b);
    assert(committed >= kill_promise);
    assert(memory.a == truth[committed] || (in_flight != 0 && memory.a == in_flight));
    truth[committed] = memory.a;
    n = committed + 1;
    do
    :: n <= BATCHES -> truth[n] = 0; n++
    :: else -> break
    od;
    kill_promise = committed;
    cut_promise = committed;
    in_flight = 0;
    freed = memory.checkpoint;
    n = 0;
    target = 0;
    serving = true
  }
}

active proctype writer() {
  byte n, target, own;
again:
  atomic { own = life; n = 0; target = 0 }
  {
    threads == 2;
    if
    :: !serving && words_valid -> recover_from_kill(); judge()
    :: !serving && !words_valid -> recover_from_cut(); judge()
    :: serving
    fi;
    do
    :: atomic {
        !locked && committed < BATCHES && committed + 1 - freed <= PLACES -> locked = true;
        n = committed + 1;
        ids++;
        in_flight = ids
      }
      commit()
    od
  } unless { life != own };
  goto again
}

/* Beside the writer, as in the service; so is the checkpointer. */
active proctype flusher() {
  byte n, target, own;
again:
  atomic { own = life; threads++; n = 0; target = 0 }
  {
    do
    :: atomic { serving && !locked && applied < committed -> target = committed }
      flush()
    od
  } unless { life != own };
  goto again
}

active proctype checkpointer() {
  byte to, own;
  bool was_dirty;
again:
  atomic { own = life; threads++; to = 0; was_dirty = false }
  {
    do
    :: atomic {
        serving && freed < applied -> to = applied;
        was_dirty = dirty;
        dirty = false
      }
#ifndef CHECKPOINT_WITHOUT_DATA_SYNC
      if
      :: atomic { was_dirty -> sync_data(); was_dirty = false }
      :: else
      fi;
#endif
      memory.checkpoint = to;
      d_step {
#ifndef SLOT_NOT_SYNCED
        disk.checkpoint = memory.checkpoint;
        disk.salt = memory.salt;
#endif
        freed = to;
        to = 0;
        was_dirty = false
      }
    od
  } unless { life != own };
  goto again
}

/* The kernel may have written back any page before the cut: each is in its last version or as of the last sync. */
#define maybe(what) if :: what :: skip fi

active proctype nemesis() {
  do
  :: atomic { faults < FAULTS -> faults++; life++; serving = false; threads = 0; locked = false; dirty = false; freed = 0 }
  :: atomic {
      faults < FAULTS -> faults++;
      maybe(disk.a = memory.a);
      maybe(disk.b = memory.b);
      maybe(write_header(0));
      maybe(write_header(1));
      maybe(disk.ring[0].body = memory.ring[0].body);
      maybe(disk.ring[1].body = memory.ring[1].body);
      maybe(write_slot());
      life++;
      serving = false;
      threads = 0;
      locked = false;
      dirty = false;
      freed = 0;
      copy_ring(memory, disk);
      memory.a = disk.a;
      memory.b = disk.b;
      memory.checkpoint = disk.checkpoint;
      memory.salt = disk.salt;
      words_valid = false;
      committed = 0;
      applied = 0;
      kill_promise = cut_promise
    }
  :: faults == FAULTS -> break
  od
}
