// batch-text.ts - what a batch did, as JSON text. `mark`: anything more that the answer's object shall have.
import type { BatchOutcome } from "./store/batches.js";

/** Of a batch on one region. */
export function textOfOne({ committed, branch, tags, results }: BatchOutcome, mark = ""): string {
  const { generation, durableGeneration } = tags[0]!;
  return `{"committed":${committed},"branch":"${branch}","generation":${generation},"durableGeneration":${durableGeneration},"results":${results}${mark}}`;
}

/** Of a batch over several. */
export function textOfMany({ committed, branch, regions, tags, results }: BatchOutcome, mark = ""): string {
  const byRegion = (of: "generation" | "durableGeneration") =>
    JSON.stringify(Object.fromEntries(regions.map((name, i) => [name, tags[i]![of]])));
  return `{"committed":${committed},"branch":"${branch}","generations":${byRegion("generation")},"durableGenerations":${byRegion("durableGeneration")},"results":${results}${mark}}`;
}
