// node-step.test.ts - a service, Node and all, is killed at every machine instruction of what its store does for batches
// over HTTP; node_step.cc is the rig. The code of the addon is the one that ships, as Node has loaded it.
//
//   npm run proofs -- node-step           hundreds of thousands of points, their figures into test/proofs.json
//   node dist/test/crash/node-step.test.js [--points=N]
import { parseArgs } from "node:util";
import t, { type Test } from "tap";
import { ServiceProcess } from "../service-process.js";
import { runRig } from "./rig.js";

const { values } = parseArgs({ options: { points: { type: "string" } }, strict: false });
const points = Number(values.points ?? 100_000);
// Small, because all of it is copied for each judgement.
const flags = ["--journal-bytes=64KiB", "--batch-bytes-max=8KiB", "--regions-max=8", "--checkpoint-interval-ms=100"];

async function serviceFor(t: Test, env: NodeJS.ProcessEnv): Promise<{ service: ServiceProcess; args: string[] }> {
  const service = await ServiceProcess.ready({ flags, env });
  t.teardown(() => service.remove());
  const args = [`--pid=${service.child.pid}`, `--port=${service.port}`, `--store=${service.dir}`];
  return { service, args };
}

t.setTimeout(2_000_000);

t.test("every instruction of a store inside of Node", { timeout: 1_900_000 }, async (t) => {
  const { service, args } = await serviceFor(t, { HOLDFAST_NATIVE: "release" });
  const lines = await runRig(t, "release", "node_step", ...args, `--points=${points}`);
  if (lines.some((line) => line.startsWith("SKIP"))) return;
  const judged = Number(/node_step: (\d+) kill points/.exec(lines.join("\n"))?.[1]);
  t.ok(judged >= points, `${judged} points are enough`);
  t.equal((await service.stop()).code, 0, "the service outlives it, and ends well");
});

t.test("a mistake of the store inside of Node is found", { timeout: 200_000 }, async (t) => {
  for (const mutant of ["apply_before_publish", "publish_before_checksum"]) {
    const { args } = await serviceFor(t, { HOLDFAST_NATIVE: "debug", HOLDFAST_MUTANTS: mutant });
    await runRig(t, "release", "node_step", ...args, `--mutant=${mutant}`, "--points=400000");
  }
});
