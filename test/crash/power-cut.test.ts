// power-cut.test.ts - the power is cut under a store on a real file system; power_cut.cc is the rig.
//
// A longer run: build/test-native/release/power_cut --cuts=20000 (--help)
import t from "tap";
import { runRig } from "./rig.js";

t.setTimeout(1_500_000);

const cuts = 1000;

// Side by side: each waits for its disk more than it computes.
t.test("file systems", { jobs: 2, timeout: 900_000 }, async (t) => {
  for (const fileSystem of ["ext4", "xfs"]) {
    t.test(`${cuts} cuts on ${fileSystem}`, { timeout: 900_000 }, async (t) => {
      await runRig(t, "release", "power_cut", `--cuts=${cuts}`, `--file-systems=${fileSystem}`);
    });
  }
});

t.test("what breaks the promise is found", { timeout: 200_000 }, async (t) => {
  await runRig(t, "debug", "power_cut", "--controls", "--cuts=400");
});
