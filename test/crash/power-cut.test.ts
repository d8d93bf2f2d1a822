// power-cut.test.ts - the power is cut under a store on a real file system; power_cut.cc is the rig.
//
// A longer run: build/test-native/release/power_cut --cuts=N --seed=N (--help)
import t from "tap";
import { runRig } from "./rig.js";

t.setTimeout(600_000);

t.test("cuts on ext4 and xfs", { timeout: 400_000 }, async (t) => {
  await runRig(t, "release", "power_cut");
});

t.test("what breaks the promise is found", { timeout: 200_000 }, async (t) => {
  await runRig(t, "debug", "power_cut", "--controls", "--cuts=400");
});
