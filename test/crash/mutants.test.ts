// mutants.test.ts - deliberate mistakes in the core (HOLDFAST_MUTANT, debug builds only), and which test finds each.
//
// A test that no mistake can break proves nothing. Each mutant is planted alone; what is named beside it must fail, by
// its own judgement and not by a crash of its own. A mutant that survives fails here, and so does one that is in the
// code and not in the table.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { type Fuzzer, fuzz, isBuilt, whyNotBuilt } from "../fuzz/fuzzer.js";
import { seedOf } from "../seed.js";

const root = join(import.meta.dirname, "../../..");

/** Which program finds it: a rig, one named test of a native program, or one test over HTTP. */
type Finder =
  | { rig: "single_step" | "page_versions" }
  | { fuzzer: Fuzzer }
  | { program: string; test: string }
  | { file: string; test: string };

interface Mutant {
  /** What goes wrong in it. */
  bug: string;
  by: Finder;
}

const steps: Finder = { rig: "single_step" };
const cuts: Finder = { rig: "page_versions" };
const native = (program: string, test: string): Finder => ({ program, test });

const mutants: Record<string, Mutant> = {
  // a batch
  apply_before_publish: { bug: "the region is stored to before the record is committed", by: steps },
  publish_before_checksum: { bug: "a record is committed before it is valid", by: steps },
  even_before_last_byte: { bug: "a mapped reader is told `settled` before the last byte", by: steps },
  applied_before_apply: { bug: "a record counts as applied before it is", by: steps },
  apply_before_fdatasync: { bug: "an ordered batch is applied before its record is on the disk", by: cuts },
  no_fdatasync: { bug: "the journal is not synced at all", by: cuts },
  durable_answered_at_once: { bug: "a durable batch is answered before its record is on the disk", by: cuts },
  target_after_sync: {
    bug: "a flush answers what was committed while it synced",
    by: native("store_fault_test", "a durable batch that is committed while a flush syncs"),
  },
  key_not_journaled: {
    bug: "the outcome of an idempotency key is not in the record",
    by: native("store_recovery_test", "B: committed batches that were not applied"),
  },
  outcome_differs: { bug: "the answer that a key keeps is not the one that was given", by: steps },
  overlay_not_read: {
    bug: "a batch is evaluated without the committed ones that wait for their apply",
    by: native("store_test", "an ordered batch is answered at once"),
  },
  fast_overtakes_pending: {
    bug: "a fast batch overtakes an earlier one of its region that waits",
    by: native("store_test", "a batch over regions of several durabilities"),
  },
  watermark_passes_pending: {
    bug: "`applied` passes records that wait",
    by: native("store_test", "a batch over regions of several durabilities"),
  },
  words_stored_bytewise: {
    bug: "words are stored byte by byte",
    by: native("fault_guard_test", "a reader of aligned words never sees half of one"),
  },
  // faults
  sync_error_ignored: {
    bug: "a failed fdatasync of the journal is taken for a good one",
    by: native("store_fault_test", "a journal that can't be made durable"),
  },
  lost_page_not_poisoned: {
    bug: "a page that can't be written is passed over",
    by: native("store_fault_test", "a process that is killed with a faulted region"),
  },
  // checkpoint
  checkpoint_without_data_sync: {
    bug: "ring space is freed before the data is on the disk",
    by: native("store_fault_test", "a data file that can't be made durable faults its region"),
  },
  slot_not_synced: {
    bug: "ring space is reused before the slot that frees it is on the disk",
    by: native("store_fault_test", "a checkpoint that can't be written frees nothing"),
  },
  checkpoint_drops_outcomes: {
    bug: "outcomes leave the ring and go nowhere",
    by: native("store_test", "a key is answered once and replayed"),
  },
  // recovery
  redo_marks_first: { bug: "a record counts as applied before it is redone", by: steps },
  redo_before_journal_sync: {
    bug: "records are redone before they are on the disk",
    by: native("store_recovery_test", "nothing is redone before its record is on the disk"),
  },
  redo_leaves_clean: {
    bug: "what a killed process applied is not synced by the next checkpoint",
    by: native("store_recovery_test", "what a killed process applied is synced by the next checkpoint"),
  },
  tail_not_erased: {
    bug: "a whole record that was never published stays in the ring",
    by: native("store_recovery_test", "a record that was whole but not published at a kill"),
  },
  boot_not_asked: {
    bug: "the words of another boot are believed",
    by: native("store_recovery_test", "F: another boot without an orderly end"),
  },
  unverified_not_marked: {
    bug: "a fast region is not reported after a power cut",
    by: native("store_recovery_test", "F: another boot without an orderly end"),
  },
  opened_stays_clean: {
    bug: "after an orderly end, a start leaves the journal saying so while a fast region is written to",
    by: native("store_recovery_test", "F: a start after an orderly end takes back what that end said"),
  },
  // bytes that nobody made
  length_not_bounded: { bug: "an operation may go beyond its region's end", by: { fuzzer: "batch" } },
  record_crc_not_asked: { bug: "a record is valid whatever its checksum says", by: { fuzzer: "recovery" } },
  // changes of regions, and the standby
  meta_placed_before_publish: { bug: "a region's new meta is in place before its record is committed", by: steps },
  restore_keeps_incarnation: { bug: "older records can be redone into the bytes of a restore", by: steps },
  snapshot_misses_copy_on_write: {
    bug: "a page that a batch changes while it is copied is not saved first",
    by: native("store_snapshots_test", "a batch that lands while pages are copied"),
  },
  snapshot_saves_part_of_page: {
    bug: "of a page that a batch changes in part while it is copied, the rest is not saved",
    by: native("store_snapshots_test", "whatever is stored while it is made"),
  },
  lease_not_asked: {
    bug: "two processes write to one store",
    by: native("store_test", "a store that is in use is refused, or waited for"),
  },
  // the gate
  gate_looks_then_enters: {
    bug: "a section begins between the look at the stop bit and the count",
    by: native("critical_section_test", "a stop finds a section that has begun"),
  },
  gate_refuses_nested: {
    bug: "a nested section is refused in the middle of a batch",
    by: native("critical_section_test", "a stop inside a section waits for its end"),
  },
  gate_forgets_last_out: {
    bug: "nobody ends the process after the last section",
    by: native("critical_section_test", "a stop inside a section waits for its end"),
  },
  // signals
  soft_deadline_cuts: {
    bug: "the soft deadline cuts an open section",
    by: native("signals_test", "a section that is open at the soft deadline"),
  },
  second_signal_cuts: {
    bug: "a second signal cuts an open section",
    by: native("signals_test", "a second signal still waits for the gate"),
  },
  each_signal_hurries: {
    bug: "a signal that came twice cuts the drain short",
    by: native("signals_test", "a second signal ends the wait"),
  },
  frozen_time_counts: {
    bug: "deadlines run on in the freezer",
    by: native("signals_test", "time in the freezer does not count"),
  },
  handler_not_chained: {
    bug: "the handler that was there before hears of no signal",
    by: native("signals_test", "the handler that was there before is called"),
  },
  displaced_stays_displaced: {
    bug: "a displaced handler is not put back",
    by: native("signals_test", "a displaced handler is put back"),
  },
  // the drain
  queue_not_rescued: {
    bug: "connections in the accept queue are reset at a stop",
    by: { file: "stop", test: "connections that wait in the accept queue" },
  },
};

interface Ended {
  lines: string[];
  how: number | string;
}

function run(command: string, args: string[], env: NodeJS.ProcessEnv): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "ignore"],
      timeout: 120_000,
      killSignal: "SIGKILL",
    });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ lines: text.split("\n"), how: code ?? signal ?? "?" }));
  });
}

const programs = join(root, "build/test-native/debug");
const rigRounds = 6;

/** What the finder says against the mutant; undefined when it has found nothing wrong. */
async function verdict(t: Test, name: string, by: Finder): Promise<string | undefined> {
  if ("rig" in by) {
    const mode = by.rig === "single_step" ? "--mutants" : "--controls";
    const seed = seedOf(t);
    // A rig draws what it kills, and a short run may never draw what this mistake needs.
    for (let round = 0; round < rigRounds; round++) {
      const { lines } = await run(join(programs, by.rig), [mode, `--only=${name}`, `--seed=${seed + round}`], {});
      const caught = lines.find((line) => line.startsWith(`caught ${name}`));
      if (caught !== undefined) return caught;
    }
    return undefined;
  }
  if ("fuzzer" in by) {
    const { broken } = await fuzz(by.fuzzer, { seconds: 100, seed: seedOf(t), env: { HOLDFAST_MUTANTS: name } });
    // A limit of time or memory that is reached says nothing of the mistake.
    return broken !== undefined && /^(?:broken: |SUMMARY: \w+Sanitizer|.*: runtime error: )/.test(broken)
      ? broken
      : undefined;
  }
  if ("program" in by) {
    const env = { HOLDFAST_MUTANTS: name, CHECK_ONLY: by.test };
    const { lines, how } = await run(join(programs, by.program), [], env);
    const failed = lines.findIndex((line) => line.startsWith("not ok") && line.includes(by.test));
    return failed >= 0 && how === 1
      ? (lines.slice(0, failed + 1).find((line) => line.startsWith("# /") || line.startsWith("# .")) ?? lines[failed])
      : undefined;
  }
  const env = { HOLDFAST_MUTANTS: name, HOLDFAST_NATIVE: "debug", TAP: "1", TAP_GREP: `/${by.test}/` };
  const { lines } = await run(process.execPath, [join(root, "dist/test/crash", `${by.file}.test.js`)], env);
  return lines.find((line) => line.trimStart().startsWith("not ok") && line.includes(by.test));
}

t.test("every mutant of the code is in the table, and none else", async (t) => {
  const planted = new Set<string>();
  for (const file of readdirSync(join(root, "native")).filter((name) => name.endsWith(".cc"))) {
    const text = readFileSync(join(root, "native", file), "utf8");
    for (const [, name] of text.matchAll(/HOLDFAST_MUTANT\("(\w+)"\)/g)) planted.add(name as string);
  }
  t.same([...planted].sort(), Object.keys(mutants).sort());
});

t.setTimeout(1_200_000);
for (const [name, { bug, by }] of Object.entries(mutants)) {
  const skip = "fuzzer" in by && !isBuilt(by.fuzzer) ? whyNotBuilt : false;
  t.test(`${name}: ${bug}`, { timeout: 400_000, skip }, async (t) => {
    const found = await verdict(t, name, by);
    t.ok(found, "is found");
    t.comment(`${name}: ${found?.trim() ?? "survived"}`);
  });
}
