// model.test.ts - the models of test/model/*.pml, every order of events, by spin; and each mistake must give a
// counterexample.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";

const folder = join(import.meta.dirname, "../../../test/model");
const runFile = promisify(execFile);

interface Model {
  file: string;
  mistakes: string[];
}

const models: Model[] = [
  {
    file: "gate.pml",
    mistakes: [
      "LOOKS_THEN_ENTERS",
      "TWO_STEP_COUNTER",
      "FORGETS_LAST_OUT",
      "HANDLER_NEVER_EXITS",
      "REFUSES_NESTED",
      "PROMISED_IS_NOT_COUNTED",
    ],
  },
  {
    file: "store.pml",
    mistakes: [
      "APPLY_BEFORE_PUBLISH",
      "PUBLISH_BEFORE_RECORD",
      "APPLY_BEFORE_SYNC",
      "ANSWERED_BEFORE_SYNC",
      "NO_SYNC",
      "TARGET_AFTER_SYNC",
      "APPLIED_BEFORE_APPLY",
      "DIRTY_BEFORE_APPLY",
      "REDO_BEFORE_SYNC",
      "REDO_MARKS_FIRST",
      "REDO_LEAVES_CLEAN",
      "TAIL_NOT_ERASED",
      "SALT_KEPT",
      "CUT_RECOVERY_WITHOUT_DATA_SYNC",
      "CHECKPOINT_WITHOUT_DATA_SYNC",
      "SLOT_NOT_SYNCED",
    ],
  },
];

interface Verdict {
  errors: number;
  states: number;
  complete: boolean;
}

async function check(directory: string, model: Model, mistake?: string): Promise<Verdict> {
  const defines = mistake === undefined ? [] : [`-D${mistake}`];
  await runFile("spin", [...defines, "-a", join(folder, model.file)], { cwd: directory });
  // A counterexample is found early; only the whole search is worth an optimizer's time.
  const optimize = mistake === undefined ? "-O2" : "-O0";
  await runFile("gcc", [optimize, "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"], { cwd: directory });
  // -E: that nobody can go on is what the models themselves judge.
  const { stdout } = await runFile(join(directory, "pan"), ["-E", "-m1000000", "-w24"], { cwd: directory });
  return {
    errors: Number(/errors: (\d+)/.exec(stdout)?.[1] ?? Number.NaN),
    states: Number(/(\d+) states, stored/.exec(stdout)?.[1] ?? Number.NaN),
    complete: !/search not completed|max search depth too small|out of memory/i.test(stdout),
  };
}

const spinIsThere = await runFile("spin", ["-V"]).then(
  () => true,
  () => false,
);

t.setTimeout(600_000);
for (const model of models) {
  t.test(model.file, { skip: !spinIsThere && "spin is not installed", timeout: 600_000 }, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), "holdfast-model-"));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const verdict = await check(directory, model);
    t.comment(`${model.file}: ${verdict.states} states, every one reached, ${verdict.errors} violations`);
    t.comment(`figures: ${JSON.stringify({ states: verdict.states, failures: verdict.errors })}`);
    t.match(verdict, { errors: 0, complete: true }, "no order of events breaks a promise");
    t.ok(verdict.states > 1000, "the search went somewhere");
    for (const mistake of model.mistakes) {
      const { errors } = await check(directory, model, mistake);
      t.ok(errors > 0, `${mistake} is found`);
    }
  });
}
