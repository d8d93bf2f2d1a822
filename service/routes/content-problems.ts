// content-problems.ts - what writers of plain bytes are told alike.
import { Problem } from "../errors.js";
import { type Failure, Refused } from "../store/failure.js";

export function lengthMismatch(what: string, expected: number, actual: number): Problem {
  const failures = [{ code: "length-mismatch", limit: expected, actual }];
  return new Problem("length-mismatch", `${what} has ${expected} bytes, not ${actual}`, { failures });
}

export function notSatisfiable(detail: string, size: number, failures: readonly Failure[] = []): Problem {
  return new Problem("range-not-satisfiable", detail, {
    failures,
    headers: { "content-range": `bytes */${size}` },
  });
}

/**
 * A refused batch of plain writes as its client is told: there is no JSON in the body to point at, and a range beyond the
 * region, whose size `sizeOf` tells, is one of HTTP. `indexed`: the body had parts, which a failure's index names.
 */
export function writeProblem(error: unknown, sizeOf: () => number, indexed: boolean): unknown {
  if (!(error instanceof Refused)) return error;
  const failures = error.failures.map(({ index, op: _o, pointer: _p, ...failure }) => ({
    ...(indexed && index !== undefined && { index }),
    ...failure,
  }));
  if (error.code !== "out_of_bounds") return new Refused(error.code, error.detail, failures, error.committed);
  const ranges = failures.map((failure) => ({ ...failure, code: "range-not-satisfiable" }));
  return notSatisfiable("a range ends beyond the region", sizeOf(), ranges);
}
