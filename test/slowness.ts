// slowness.ts - for limits of time: a test that fails because the machine does something else says nothing.
import { execFileSync } from "node:child_process";

/** What an empty program takes to start and end where nothing else runs; seldom less. */
const emptyProgramMs = 60;

/** How many times slower than at rest this machine is now; at least 1. */
export function slowness(): number {
  const times = Array.from({ length: 5 }, () => {
    const since = performance.now();
    execFileSync(process.execPath, ["-e", "0"]);
    return performance.now() - since;
  }).sort((a, b) => a - b);
  return Math.max(1, (times[2] as number) / emptyProgramMs);
}
