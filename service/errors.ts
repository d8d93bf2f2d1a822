// errors.ts - every problem that a client can be told: the only place where a code of the storage core meets an HTTP
// status. A body is always application/problem+json; what the process knows beyond it (stacks, paths) is only logged.
//
// A code is a stable noun and never changes its status. openapi/problems.md is this table as a document; a test holds
// it, native/status.h and the OpenAPI document equal to it, in both directions.
import { StoreError } from "../native/index.js";
import type { Failure } from "./store/failure.js";
import { Refused } from "./store/failure.js";

interface Kind {
  status: number;
  title: string;
  /** True when the same request may succeed later without being changed. */
  retryable: boolean;
  about: string;
}

const kinds = {
  "malformed-json": kind(400, "The body is not JSON", "The body does not parse; `detail` says where."),
  "malformed-byterange": kind(
    400,
    "The byte range body is malformed",
    "A part's headers or lengths contradict its bytes.",
  ),
  "malformed-request": kind(
    400,
    "The request is not HTTP",
    "The request line, a header or the framing of the body does not parse.",
  ),
  "header-invalid": kind(400, "A header can't be understood", "`detail` names the header and what it may be."),
  "digest-mismatch": kind(
    400,
    "The bytes do not match their digest",
    "Nothing was written: the body's digest differs from Content-Digest.",
  ),
  "cursor-invalid": kind(
    400,
    "The cursor is not one of ours",
    "Cursors come from `nextCursor` and are not to be made up.",
  ),
  "query-param-invalid": kind(400, "A query parameter is not allowed", "`failures` lists each of them."),
  unauthenticated: kind(401, "A token is needed", "Send `Authorization: Bearer TOKEN`."),
  forbidden: kind(403, "The token may not do this", "The token is for reading only."),
  "route-not-found": kind(404, "There is nothing here", "GET / lists what there is."),
  "region-not-found": kind(404, "No region of this name", "It was never created, or was deleted."),
  "snapshot-not-found": kind(404, "No snapshot of this id", "It was never made, or was deleted."),
  "method-not-allowed": kind(405, "The method is not allowed here", "`Allow` lists those that are."),
  "request-timeout": kind(408, "The request took too long to arrive", "The connection was closed.", {
    retryable: true,
  }),
  "region-exists": kind(409, "A region of this name exists", "Nothing was changed."),
  "cas-mismatch": kind(
    409,
    "A compare-and-swap found another value",
    "Nothing was changed; `failures` tells what each one found.",
  ),
  overflow: kind(
    409,
    "An addition left the range of its type",
    "Nothing was changed; `overflow` can be `wrap` or `saturate`.",
  ),
  "idempotency-in-progress": kind(409, "A request with this key is still running", "Retry to get its answer.", {
    retryable: true,
  }),
  "read-not-atomic": kind(
    409,
    "The range is too long to be read at one point in time",
    "Ask for less, or leave out `Prefer: handling=strict`.",
  ),
  "region-read-only": kind(409, "The region is read-only", "PATCH it with `readOnly: false` to write."),
  "region-adopted": kind(
    409,
    "The region is an operator's own file",
    "The file stays in its place: write the snapshot's bytes into it.",
  ),
  "snapshot-in-progress": kind(
    409,
    "A snapshot of the region is being made",
    "Until it is there, the region keeps its size and its files.",
    { retryable: true },
  ),
  "generation-compacted": kind(410, "That generation is no longer remembered", "Start again from the current one."),
  "etag-mismatch": kind(
    412,
    "The entity tag does not match",
    "The region changed since it was read, or the condition can't hold.",
  ),
  "generation-mismatch": kind(412, "The region is at another generation", "`failures` tells which."),
  "guard-failed": kind(412, "A guard is false", "Nothing was changed; `failures` lists each false guard."),
  "body-too-large": kind(413, "The body is too large", "`failures` tells the limit."),
  "batch-too-large": kind(
    413,
    "The batch is too large",
    "It writes, returns or digests more bytes than one batch may; `failures` tells the limit.",
  ),
  "uri-too-long": kind(414, "The URI is too long", "No URI of this service is longer than a few hundred characters."),
  "unsupported-media-type": kind(415, "The media type is not supported here", "`detail` names those that are."),
  "range-not-satisfiable": kind(416, "The range is not in the region", "`Content-Range` tells the region's size."),
  "validation-failed": kind(422, "The request is not valid", "`failures` lists every culprit."),
  "out-of-bounds": kind(422, "A range ends beyond the region", "`failures` lists every such operation."),
  misaligned: kind(
    422,
    "An offset is not a multiple of its type's size",
    "Read-modify-write operations need natural alignment.",
  ),
  "value-out-of-range": kind(422, "A value does not fit its type", "`failures` lists every such operation."),
  "byterange-missing": kind(422, "A part names no range", "Every part needs a Content-Range."),
  "length-mismatch": kind(
    422,
    "The body is not as long as what it replaces",
    "`failures` tells both lengths in bytes.",
  ),
  "idempotency-key-reused": kind(
    422,
    "The idempotency key was used for another request",
    "A new request needs a new key.",
  ),
  "too-many-ops": kind(422, "Too many operations", "`failures` tells the limit."),
  "precondition-required": kind(428, "This change needs a condition", "Send If-Match with the region's entity tag."),
  "rate-limited": kind(429, "Too many requests", "Slow down; `Retry-After` says by how much.", { retryable: true }),
  "headers-too-large": kind(431, "The headers are too large", "All headers together may have 16 KiB."),
  internal: kind(500, "Something went wrong here", "It was logged under `requestId`."),
  starting: kind(503, "The service is starting", "It recovers the store first.", { retryable: true }),
  standby: kind(
    503,
    "The service is a standby",
    "Another process writes the store; this one takes over when it ends.",
    { retryable: true },
  ),
  draining: kind(
    503,
    "The service is stopping",
    "Nothing was written; another instance or the next run takes the request.",
    { retryable: true },
  ),
  overloaded: kind(503, "The journal is full", "Its checkpoint did not end in time; nothing was written.", {
    retryable: true,
  }),
  "region-faulted": kind(
    503,
    "The region is faulted",
    "Its file could not be read or written; the region's `fault` says why.",
    { retryable: true },
  ),
  "flush-failed": kind(
    503,
    "The file system could not make the bytes durable",
    "The affected regions are faulted until the next start.",
    { retryable: true },
  ),
  "insufficient-storage": kind(
    507,
    "There is no room",
    "The file system is full, the store has as many regions as it may, or the region as many snapshots.",
    { retryable: true },
  ),
} satisfies Record<string, Kind>;

export type ProblemCode = keyof typeof kinds;
export const problemKinds: Readonly<Record<ProblemCode, Kind>> = kinds;
export const problemCodes = Object.keys(kinds) as ProblemCode[];

/**
 * What each code of the storage core becomes. Those that only an opening store or a defect of this service can cause
 * are `internal`.
 */
export const problemOfStoreCode: Readonly<Record<string, ProblemCode>> = {
  malformed_batch: "internal",
  validation_failed: "validation-failed",
  region_not_found: "region-not-found",
  region_exists: "region-exists",
  out_of_bounds: "out-of-bounds",
  misaligned: "misaligned",
  value_out_of_range: "value-out-of-range",
  too_many_ops: "too-many-ops",
  batch_too_large: "batch-too-large",
  guard_failed: "guard-failed",
  etag_mismatch: "etag-mismatch",
  generation_mismatch: "generation-mismatch",
  cas_mismatch: "cas-mismatch",
  overflow: "overflow",
  region_read_only: "region-read-only",
  region_faulted: "region-faulted",
  // The choice of a durability that can't be had is an invalid member of the request.
  durability_unavailable: "validation-failed",
  insufficient_storage: "insufficient-storage",
  overloaded: "overloaded",
  draining: "draining",
  flush_failed: "flush-failed",
  idempotency_key_reused: "idempotency-key-reused",
  idempotency_in_progress: "idempotency-in-progress",
  too_many_regions: "insufficient-storage",
  unsupported_file_system: "internal",
  lease_held: "internal",
  store_corrupt: "internal",
  permission_denied: "internal",
  io_error: "internal",
  precondition_required: "precondition-required",
  cancelled: "draining",
  snapshot_not_found: "snapshot-not-found",
  too_many_snapshots: "insufficient-storage",
  snapshot_in_progress: "snapshot-in-progress",
  region_adopted: "region-adopted",
  unfinished: "flush-failed",
};

export interface ProblemOptions {
  failures?: readonly Failure[];
  headers?: Readonly<Record<string, string>>;
  /** True when the request took effect all the same (bytes that are visible but could not be made durable). */
  committed?: boolean;
}

/** Thrown anywhere below a route; the error handler turns it into the answer. */
export class Problem extends Error {
  override name = "Problem";
  readonly kind: Kind;
  readonly failures: readonly Failure[];
  readonly headers: Readonly<Record<string, string>>;
  readonly committed: boolean;

  constructor(
    readonly code: ProblemCode,
    readonly detail: string = problemKinds[code].about,
    options: ProblemOptions = {},
  ) {
    super(`${code}: ${detail}`);
    this.kind = problemKinds[code];
    this.failures = options.failures ?? [];
    this.committed = options.committed ?? false;
    this.headers = withRetryAfter(code, options.headers ?? {});
  }
}

export interface ProblemBody {
  type: string;
  title: string;
  status: number;
  detail: string;
  instance: string;
  code: ProblemCode;
  requestId: string;
  retryable: boolean;
  committed: boolean;
  failures: readonly Failure[];
}

/** `instance` is the path of the request that failed. */
export function problemBody(problem: Problem, instance: string, requestId: string): ProblemBody {
  return {
    type: `/problems/${problem.code}`,
    title: problem.kind.title,
    status: problem.kind.status,
    detail: problem.detail,
    instance,
    code: problem.code,
    requestId,
    retryable: problem.kind.retryable,
    committed: problem.committed,
    failures: problem.failures,
  };
}

/**
 * What to tell a client about anything that was thrown. Undefined for what nobody foresaw: that is `internal` and worth
 * a log line, which alone has the core's own words, since they may name paths.
 */
export function toProblem(error: unknown): Problem | undefined {
  if (error instanceof Problem) return error;
  if (error instanceof Refused) {
    const code = problemOfStoreCode[error.code] ?? "internal";
    if (code === "internal") return undefined;
    return new Problem(code, error.detail, { failures: error.failures, committed: error.committed });
  }
  if (error instanceof StoreError) {
    const code = problemOfStoreCode[error.code] ?? "internal";
    if (code === "internal") return undefined;
    const failures =
      error.code === "durability_unavailable" ? [{ pointer: "/durability", code: "durability-unavailable" }] : [];
    const committed = error.code === "unfinished";
    return new Problem(code, error.detail === "" ? undefined : error.detail, { failures, committed });
  }
  return undefined;
}

function kind(status: number, title: string, about: string, { retryable = false } = {}): Kind {
  return { status, title, retryable, about };
}

function withRetryAfter(
  code: ProblemCode,
  headers: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const { status } = problemKinds[code];
  return status === 503 || code === "idempotency-in-progress" || code === "snapshot-in-progress"
    ? { "retry-after": "1", ...headers }
    : headers;
}
