// single-step.test.ts - a store is killed at every machine instruction of what it does; single_step.cc is the rig. What it
// must find is in mutants.test.ts.
//
// A longer run: build/test-native/release/single_step --points=N --seed=N (--help)
import t from "tap";
import { runRig } from "./rig.js";

t.setTimeout(800_000);

t.test("every instruction of the code that ships", { timeout: 500_000 }, async (t) => {
  const lines = await runRig(t, "release", "single_step");
  const points = Number(/single_step: (\d+) kill points/.exec(lines.join("\n"))?.[1]);
  t.ok(points >= 1_000_000, `${points} kill points are enough`);
});
