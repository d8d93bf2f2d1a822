// page-versions.test.ts - power cuts without a disk: each page at any version since its last sync; page_versions.cc is
// the rig. The mistakes that nothing else finds are in mutants.test.ts.
//
// A longer run: build/test-native/release/page_versions --states=N --seed=N (--help)
import t from "tap";
import { runRig } from "./rig.js";

t.setTimeout(900_000);

t.test("every combination of pages is a whole state", { timeout: 300_000 }, async (t) => {
  const lines = await runRig(t, "release", "page_versions", "--states=5000", "--each=4");
  const states = Number(/page_versions: (\d+) different crash states/.exec(lines.join("\n"))?.[1]);
  t.ok(states >= 5_000, `${states} states are enough`);
});

// Beside those that other tests find, too.
for (const control of [
  "a disk that lies",
  "checkpoint_without_data_sync",
  "redo_before_journal_sync",
  "unverified_not_marked",
]) {
  t.test(`${control}: is found`, { timeout: 200_000 }, async (t) => {
    await runRig(t, "debug", "page_versions", "--controls", `--only=${control}`, "--states=60000");
  });
}
