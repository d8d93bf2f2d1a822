// page-versions.test.ts - power cuts without a disk: each page at any version since its last sync; page_versions.cc is
// the rig. What it must find is in mutants.test.ts, but for a disk that lies.
//
// A longer run: build/test-native/release/page_versions --states=N --seed=N (--help)
import t from "tap";
import { runRig } from "./rig.js";

t.setTimeout(400_000);

t.test("every combination of pages is a whole state", { timeout: 300_000 }, async (t) => {
  const lines = await runRig(t, "release", "page_versions", "--states=5000", "--each=4");
  const states = Number(/page_versions: (\d+) different crash states/.exec(lines.join("\n"))?.[1]);
  t.ok(states >= 5_000, `${states} states are enough`);
});

t.test("a disk that lies about its syncs is found", { timeout: 100_000 }, async (t) => {
  await runRig(t, "debug", "page_versions", "--controls", "--only=a disk that lies");
});
