// failure.ts - how the domain says no: a code of the storage core and every culprit.

/** One culprit of a refused request. Codes here are spelled with hyphens, like problems. */
export interface Failure {
  /** Position within its section (guards, ops, elseOps). */
  index?: number;
  /** Name of the operation. */
  op?: string;
  /** JSON pointer into the request's body. */
  pointer?: string;
  code: string;
  detail?: string;
  /** What was allowed or expected. 64-bit values are strings. */
  limit?: number | string;
  /** What was found. */
  actual?: number | string;
}

/** A change that was not made, or (`committed`) one whose answer is missing something that was promised. */
export class Refused extends Error {
  override name = "Refused";
  constructor(
    /** A code of native/status.h. */
    readonly code: string,
    readonly detail: string,
    readonly failures: readonly Failure[],
    readonly committed: boolean,
  ) {
    super(`${code}: ${detail}`);
  }
}
