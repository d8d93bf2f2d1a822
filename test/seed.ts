// seed.ts - what a randomized test draws its choices from: HOLDFAST_SEED if that is set, so that a run can be repeated,
// else a number of this process's own. The test says which it was.
import type { Test } from "tap";

/** Below it, a seed is a seed to fast-check and to every rig. */
const seedsMax = 2 ** 31;

function drawn(): number {
  const given = process.env.HOLDFAST_SEED;
  if (given === undefined) return Number(process.hrtime.bigint() % BigInt(seedsMax));
  if (!/^\d{1,10}$/.test(given) || Number(given) >= seedsMax)
    throw new Error(`HOLDFAST_SEED must be a whole number below ${seedsMax}, not "${given}"`);
  return Number(given);
}

const seed = drawn();

/** The process's seed, from 0 to below 2^31; noted in the test's record. */
export function seedOf(t: Test): number {
  t.comment(`seed ${seed} (HOLDFAST_SEED=${seed} repeats it)`);
  return seed;
}
