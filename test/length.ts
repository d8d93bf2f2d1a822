// length.ts - how long a randomized test goes on: as a part of `npm test` for as long as it says itself, as a program of its
// own for as long as its --runs=N says, without a limit of time.
import { parseArgs } from "node:util";
import t from "tap";

/** How many times the test is to draw: `usual`, or the number of the process's `--runs=N`. */
export function runsOr(usual: number): number {
  const { values } = parseArgs({ options: { runs: { type: "string" } }, strict: false });
  if (values.runs === undefined) return usual;
  const runs = Number(values.runs);
  if (!Number.isSafeInteger(runs) || runs < 1) throw new Error(`--runs takes a number above 0, not "${values.runs}"`);
  t.setTimeout(0);
  return runs;
}
