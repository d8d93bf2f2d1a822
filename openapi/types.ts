// Generated from openapi.json by "npm run openapi". Not to be edited.

/**
 * A number of the cell's type. 64-bit integers are strings in answers; in requests strings or integers up to 2^53 - 1. NaN and infinities are strings.
 */
export type CellValue = number | string;
/**
 * What one operation did; its members depend on the operation.
 */
export type OpResult =
  | ReadResult
  | WriteResult
  | LoadResult
  | LoadManyResult
  | StoreResult
  | ExchangeResult
  | AddResult
  | CasResult
  | AppendResult
  | AssertResult;
/**
 * A condition on the bytes as they are before the batch. All guards see one consistent view.
 */
export type Guard = GuardGeneration | GuardValue | GuardBytes | GuardDigest;
/**
 * One operation. They run in order and see each other; all land or none.
 */
export type Op =
  | OpRead
  | OpWrite
  | OpFill
  | OpCopy
  | OpLoad
  | OpStore
  | OpExchange
  | OpAdd
  | OpAnd
  | OpOr
  | OpXor
  | OpMin
  | OpMax
  | OpCas
  | OpAppend
  | OpAssert;
/**
 * Writes one cell, or several in a row.
 */
export type OpStore = {
  /**
   * The operation.
   */
  op: "store";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value?: CellValue;
  /**
   * Cells in a row.
   *
   * @minItems 1
   * @maxItems 1048576
   */
  values?: CellValue[];
} & OpStore1;
export type OpStore1 =
  | {
      value: CellValue;
    }
  | {
      /**
       * @maxItems 1048576
       */
      values: CellValue[];
    };
/**
 * A condition on the bytes as they are before the batch. All guards see one consistent view.
 */
export type MultiGuard = MultiGuardGeneration | MultiGuardValue | MultiGuardBytes | MultiGuardDigest;
/**
 * One operation. They run in order and see each other; all land or none.
 */
export type MultiOp =
  | MultiOpRead
  | MultiOpWrite
  | MultiOpFill
  | MultiOpCopy
  | MultiOpLoad
  | MultiOpStore
  | MultiOpExchange
  | MultiOpAdd
  | MultiOpAnd
  | MultiOpOr
  | MultiOpXor
  | MultiOpMin
  | MultiOpMax
  | MultiOpCas
  | MultiOpAppend
  | MultiOpAssert;
/**
 * Writes one cell, or several in a row.
 */
export type MultiOpStore = {
  /**
   * The operation.
   */
  op: "store";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value?: CellValue;
  /**
   * Cells in a row.
   *
   * @minItems 1
   * @maxItems 1048576
   */
  values?: CellValue[];
} & MultiOpStore1;
export type MultiOpStore1 =
  | {
      value: CellValue;
    }
  | {
      /**
       * @maxItems 1048576
       */
      values: CellValue[];
    };

/**
 * What each operation is asked with, and what it answers when it succeeds.
 */
export interface Operations {
  /**
   * List regions
   */
  listRegions: {
    query?: {
      /**
       * Regions a page.
       */
      limit?: number;
      /**
       * `nextCursor` of the page before.
       */
      cursor?: string;
      /**
       * Only names that begin with this.
       */
      prefix?: string;
    };
    answer: RegionPage;
  };
  /**
   * Create a region
   */
  createRegion: {
    headers?: {
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: RegionCreate;
    answer: Region;
  };
  /**
   * Look at a region
   */
  getRegion: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
    };
    answer: Region;
  };
  /**
   * Delete a region
   */
  deleteRegion: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
    };
    answer: undefined;
  };
  /**
   * Change a region
   */
  updateRegion: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: RegionPatch;
    answer: Region;
  };
  /**
   * Make a region durable
   */
  flushRegion: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    answer: Flush;
  };
  /**
   * Size of a region's bytes
   */
  headContent: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Of a snapshot of the region, in place of what it holds now.
       */
      snapshot?: string;
      /**
       * Suggest to save the bytes as a file.
       */
      download?: "1";
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Send the digest of what is sent: sha-256, sha-512 or crc32c.
       */
      "want-content-digest"?: string;
      /**
       * Send the digest of the whole region.
       */
      "want-repr-digest"?: string;
    };
    answer: undefined;
  };
  /**
   * Read a region's bytes
   */
  getContent: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Of a snapshot of the region, in place of what it holds now.
       */
      snapshot?: string;
      /**
       * Suggest to save the bytes as a file.
       */
      download?: "1";
    };
    headers?: {
      /**
       * Which bytes.
       */
      range?: string;
      /**
       * Ignore Range unless this is the entity tag.
       */
      "if-range"?: string;
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * `handling=strict`: 409 rather than a read that is not of one point in time.
       */
      prefer?: string;
      /**
       * Send the digest of what is sent: sha-256, sha-512 or crc32c.
       */
      "want-content-digest"?: string;
      /**
       * Send the digest of the whole region.
       */
      "want-repr-digest"?: string;
    };
    answer: Buffer;
  };
  /**
   * What can be done with bytes
   */
  contentOptions: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    answer: undefined;
  };
  /**
   * Write a region's bytes
   */
  putContent: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Of a region that is created (`durable` if left out); for one that exists, wait for more than its own.
       */
      durability?: "fast" | "ordered" | "durable";
    };
    headers?: {
      /**
       * Which bytes to replace; without it all of them.
       */
      "content-range"?: string;
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * `*`: create the region from the body.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: Buffer | string;
    answer: Region | undefined;
  };
  /**
   * Write ranges of a region's bytes
   */
  patchContent: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Wait for more than the region's own.
       */
      durability?: "fast" | "ordered" | "durable";
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
      /**
       * `transaction=atomic`: all parts land together, as they do anyway. `transaction=persist`: they land as they come.
       */
      prefer?: string;
    };
    body: string;
    answer: undefined;
  };
  /**
   * Digest of bytes
   */
  digestRegion: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Where to begin.
       */
      offset?: number;
      /**
       * Bytes; up to the region's end if left out.
       */
      length?: number;
      /**
       * Of the digest.
       */
      algorithm?: "sha-256" | "crc32c";
    };
    answer: Digest;
  };
  /**
   * List data and holes
   */
  listExtents: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Where to begin.
       */
      offset?: number;
      /**
       * Extents a page.
       */
      limit?: number;
      /**
       * Ranges that changed after this generation, or that differ from a snapshot (`snapshot:ID`), in place of data and holes.
       */
      since?: number | string;
      /**
       * Slices of so many bytes, and how much of each holds data and is in memory, in place of data and holes.
       */
      granularity?: number;
    };
    answer: ExtentPage;
  };
  /**
   * List snapshots
   */
  listSnapshots: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    answer: SnapshotList;
  };
  /**
   * Make a snapshot
   */
  createSnapshot: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
    };
    answer: Snapshot;
  };
  /**
   * Look at a snapshot
   */
  getSnapshot: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
      /**
       * Id of the snapshot; of two, the greater one is the later.
       */
      snapshot: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
    };
    answer: Snapshot;
  };
  /**
   * Delete a snapshot
   */
  deleteSnapshot: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
      /**
       * Id of the snapshot; of two, the greater one is the later.
       */
      snapshot: string;
    };
    headers?: {
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
    };
    answer: undefined;
  };
  /**
   * Restore a snapshot
   */
  restoreSnapshot: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
      /**
       * Id of the snapshot; of two, the greater one is the later.
       */
      snapshot: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
    };
    answer: Region;
  };
  /**
   * Load a cell
   */
  loadCell: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
      /**
       * Position of the cell in bytes.
       */
      offset: number;
    };
    query?: {
      /**
       * Type of the cell.
       */
      type?: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
      /**
       * Its byte order.
       */
      endian?: "little" | "big";
    };
    answer: Cell;
  };
  /**
   * Store a cell
   */
  storeCell: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
      /**
       * Position of the cell in bytes.
       */
      offset: number;
    };
    query?: {
      /**
       * Type of the cell.
       */
      type?: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
      /**
       * Its byte order.
       */
      endian?: "little" | "big";
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: CellStore;
    answer: CellChange;
  };
  /**
   * Modify a cell
   */
  modifyCell: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
      /**
       * Position of the cell in bytes.
       */
      offset: number;
    };
    query?: {
      /**
       * Type of the cell.
       */
      type?: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
      /**
       * Its byte order.
       */
      endian?: "little" | "big";
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: CellOp;
    answer: CellChange;
  };
  /**
   * Look at bytes
   */
  viewRegion: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Where to begin.
       */
      offset?: number;
      /**
       * Bytes; 256, or what there is, if left out.
       */
      length?: number;
      /**
       * How to show them.
       */
      as?:
        | "hexdump"
        | "hex"
        | "base64"
        | "utf8"
        | "u8"
        | "u16"
        | "u32"
        | "u64"
        | "i8"
        | "i16"
        | "i32"
        | "i64"
        | "f32"
        | "f64";
      /**
       * Byte order of cells.
       */
      endian?: "little" | "big";
    };
    answer: string | CellsView;
  };
  /**
   * What has changed
   */
  listChanges: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    query?: {
      /**
       * Changes after this generation. Left out: from the oldest that is remembered; in an event stream from now on.
       */
      since?: number;
      /**
       * Changes a page.
       */
      limit?: number;
      /**
       * Seconds to wait for a change when there is none yet.
       */
      wait?: number;
    };
    headers?: {
      /**
       * Of an event stream: the id of the last event that was read, or its generation.
       */
      "last-event-id"?: string;
    };
    answer: ChangePage;
  };
  /**
   * What this is
   */
  getService: {
    answer: Service;
  };
  /**
   * Limits and capabilities
   */
  getLimits: {
    answer: Limits;
  };
  /**
   * State of the process and its store
   */
  getStatus: {
    answer: Status;
  };
  /**
   * Is it alive
   */
  getLiveness: {
    answer: Health;
  };
  /**
   * Can it be sent requests
   */
  getReadiness: {
    answer: Health;
  };
  /**
   * Metrics
   */
  getMetrics: {
    answer: string;
  };
  /**
   * What is running
   */
  getVersion: {
    answer: Version;
  };
  /**
   * Every problem
   */
  listProblems: {
    answer: ProblemList;
  };
  /**
   * A problem
   */
  getProblem: {
    path: {
      /**
       * Code of the problem.
       */
      code:
        | "malformed-json"
        | "malformed-byterange"
        | "malformed-request"
        | "header-invalid"
        | "digest-mismatch"
        | "cursor-invalid"
        | "query-param-invalid"
        | "unauthenticated"
        | "forbidden"
        | "route-not-found"
        | "region-not-found"
        | "snapshot-not-found"
        | "method-not-allowed"
        | "request-timeout"
        | "region-exists"
        | "cas-mismatch"
        | "overflow"
        | "idempotency-in-progress"
        | "read-not-atomic"
        | "region-read-only"
        | "region-adopted"
        | "snapshot-in-progress"
        | "generation-compacted"
        | "etag-mismatch"
        | "generation-mismatch"
        | "guard-failed"
        | "body-too-large"
        | "batch-too-large"
        | "uri-too-long"
        | "unsupported-media-type"
        | "range-not-satisfiable"
        | "validation-failed"
        | "out-of-bounds"
        | "misaligned"
        | "value-out-of-range"
        | "byterange-missing"
        | "length-mismatch"
        | "idempotency-key-reused"
        | "too-many-ops"
        | "precondition-required"
        | "rate-limited"
        | "headers-too-large"
        | "internal"
        | "starting"
        | "standby"
        | "draining"
        | "overloaded"
        | "region-faulted"
        | "flush-failed"
        | "insufficient-storage";
    };
    answer: ProblemKind;
  };
  /**
   * This document
   */
  getOpenapi: {
    answer: {
      [k: string]: unknown;
    };
  };
  /**
   * Commit a batch
   */
  commitBatch: {
    path: {
      /**
       * Name of the region. Never contains `..`.
       */
      region: string;
    };
    headers?: {
      /**
       * Only if the region's entity tag is one of these.
       */
      "if-match"?: string;
      /**
       * Only if the region's entity tag is none of these.
       */
      "if-none-match"?: string;
      /**
       * Only if the region is at this generation.
       */
      "region-if-generation"?: number;
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: Batch;
    answer: BatchAnswer;
  };
  /**
   * Commit a batch over several regions
   */
  commitMultiBatch: {
    headers?: {
      /**
       * Makes a retry exact: the same key and request get the first one's answer.
       */
      "idempotency-key"?: string;
      /**
       * Refuse the body unless this is its digest (RFC 9530).
       */
      "content-digest"?: string;
    };
    body: MultiBatch;
    answer: MultiBatchAnswer;
  };
}
/**
 * A page of regions.
 */
export interface RegionPage {
  /**
   * By name.
   *
   * @maxItems 1000
   */
  items: Region[];
  /**
   * The next page's `cursor`; null at the end.
   */
  nextCursor: string | null;
}
/**
 * A named mapped file.
 */
export interface Region {
  /**
   * Name of the region. Never contains `..`.
   */
  name: string;
  /**
   * Bytes. At most `regionBytesMax` of GET /v1/limits.
   */
  size: number;
  /**
   * What an acknowledged batch survives. `fast`: any kill of the service. `ordered`: that, and whole after a power cut, which may lose the last flush interval. `durable`: both.
   */
  durability: "fast" | "ordered" | "durable";
  /**
   * No space is reserved: a batch may find the file system full (507).
   */
  sparse: boolean;
  /**
   * Writes are refused.
   */
  readOnly: boolean;
  /**
   * Your own notes about the region.
   */
  labels: {
    [k: string]: string;
  };
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
  /**
   * Changes of the region itself.
   */
  metaGeneration: number;
  /**
   * The region's entity tag, for If-Match.
   */
  etag: string;
  /**
   * A faulted region refuses writes; reads may work.
   */
  state: "ok" | "faulted";
  /**
   * Why it is faulted.
   */
  fault: string | null;
  /**
   * `unverified`: a `fast` region that lived through an unclean restart of the machine, or could not be synced.
   */
  integrity: "verified" | "unverified";
  /**
   * An operator's own file, mapped in place.
   */
  adopted: boolean;
  /**
   * When it was created.
   */
  createdAt: string;
  /**
   * When the region itself was last changed.
   */
  modifiedAt: string;
}
/**
 * A region to create. Its bytes are zero.
 */
export interface RegionCreate {
  /**
   * Name of the region. Never contains `..`.
   */
  name: string;
  /**
   * Bytes. At most `regionBytesMax` of GET /v1/limits.
   */
  size: number;
  /**
   * What an acknowledged batch survives. `fast`: any kill of the service. `ordered`: that, and whole after a power cut, which may lose the last flush interval. `durable`: both.
   */
  durability?: "fast" | "ordered" | "durable";
  /**
   * Your own notes about the region.
   */
  labels?: {
    [k: string]: string;
  };
  /**
   * No space is reserved: a batch may find the file system full (507).
   */
  sparse?: boolean;
}
/**
 * A merge patch (RFC 7396): what is left out stays.
 */
export interface RegionPatch {
  /**
   * New size in bytes. Shrinking needs If-Match: it can't be undone.
   */
  size?: number;
  /**
   * Labels to set; null takes one away, or all of them.
   */
  labels?: {
    [k: string]: string | null;
  } | null;
  /**
   * What an acknowledged batch survives. `fast`: any kill of the service. `ordered`: that, and whole after a power cut, which may lose the last flush interval. `durable`: both.
   */
  durability?: "fast" | "ordered" | "durable";
  /**
   * Writes are refused while it is true.
   */
  readOnly?: boolean;
  /**
   * Says that somebody has looked at an `unverified` region and found it good.
   */
  integrity?: "verified";
}
/**
 * How much survives a power cut now.
 */
export interface Flush {
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
}
/**
 * The digest of a range, and the generation that it is of.
 */
export interface Digest {
  /**
   * Of the digest.
   */
  algorithm: "sha-256" | "crc32c";
  /**
   * Position of the first byte.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * In hex; CRC-32C with its most significant byte first. A guard of the kind `digest` takes it as it is.
   */
  digest: string;
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
}
/**
 * A page of extents.
 */
export interface ExtentPage {
  /**
   * By offset.
   *
   * @maxItems 1000
   */
  items: Extent[];
  /**
   * The next page's `offset`; null at the end.
   */
  nextOffset: number | null;
  /**
   * Bytes. At most `regionBytesMax` of GET /v1/limits.
   */
  size: number;
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
}
/**
 * A range that is all data, all hole, or has changed; or a slice of the region with both and its shares.
 */
export interface Extent {
  /**
   * Position of the first byte.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * A hole reads as zeros.
   */
  kind: "data" | "hole" | "changed" | "slice";
  /**
   * Of a slice: how many of its bytes hold data.
   */
  dataBytes?: number;
  /**
   * Of a slice: how many of its bytes are in memory, in the kernel's page cache.
   */
  residentBytes?: number;
}
/**
 * The snapshots of a region.
 */
export interface SnapshotList {
  /**
   * By age, the oldest first.
   *
   * @maxItems 1024
   */
  items: Snapshot[];
}
/**
 * The bytes of a region as they were at one generation.
 */
export interface Snapshot {
  /**
   * Id of the snapshot; of two, the greater one is the later.
   */
  id: string;
  /**
   * The region's generation that it is of.
   */
  generation: number;
  /**
   * Bytes. At most `regionBytesMax` of GET /v1/limits.
   */
  size: number;
  /**
   * Entity tag of its bytes. They never change.
   */
  etag: string;
  /**
   * When its bytes were the region's.
   */
  createdAt: string;
}
/**
 * A cell's value, and the generation that it is of.
 */
export interface Cell {
  value: CellValue;
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
}
/**
 * What a cell shall hold.
 */
export interface CellStore {
  value: CellValue;
  /**
   * Wait for more than the region's own durability.
   */
  durability?: "fast" | "ordered" | "durable";
}
/**
 * What an operation on a cell did.
 */
export interface CellChange {
  /**
   * Something was written, and it will survive. False for a dry run and for a batch that only reads.
   */
  committed: boolean;
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
  result: OpResult;
}
export interface ReadResult {
  /**
   * The bytes, in the operation's encoding.
   */
  data: string;
}
export interface WriteResult {
  /**
   * Bytes that were written.
   */
  bytes: number;
}
export interface LoadResult {
  value: CellValue;
}
export interface LoadManyResult {
  /**
   * Cells in a row.
   *
   * @maxItems 16777216
   */
  values: CellValue[];
}
export interface StoreResult {
  /**
   * What was there.
   */
  old: CellValue | CellValue[];
}
export interface ExchangeResult {
  old: CellValue;
  new: CellValue;
}
export interface AddResult {
  old: CellValue;
  new: CellValue;
  /**
   * The sum left the type's range.
   */
  overflowed: boolean;
}
export interface CasResult {
  /**
   * The cell was written.
   */
  swapped: boolean;
  actual: CellValue;
}
export interface AppendResult {
  /**
   * Where the bytes went.
   */
  at: number;
  /**
   * The cursor after them.
   */
  next: number;
}
export interface AssertResult {}
/**
 * One operation on a cell, as in a batch, without its place.
 */
export interface CellOp {
  /**
   * The operation.
   */
  op: "exchange" | "add" | "and" | "or" | "xor" | "min" | "max" | "cas";
  value: CellValue;
  /**
   * Of `add`.
   */
  overflow?: "fail" | "wrap" | "saturate";
  expected?: CellValue;
  /**
   * Of `cas`.
   */
  onMismatch?: "abort" | "continue";
  /**
   * Wait for more than the region's own durability.
   */
  durability?: "fast" | "ordered" | "durable";
}
/**
 * Cells in a row.
 */
export interface CellsView {
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian: "little" | "big";
  /**
   * Cells in a row.
   *
   * @maxItems 16777216
   */
  values: CellValue[];
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
}
/**
 * Changes of a region.
 */
export interface ChangePage {
  /**
   * In order, without a gap.
   *
   * @maxItems 1000
   */
  items: Change[];
  /**
   * `since` of the next request.
   */
  next: number;
  /**
   * The least `since` that is not 410.
   */
  oldest: number;
}
/**
 * A change of a region.
 */
export interface Change {
  /**
   * The generation that it made.
   */
  generation: number;
  /**
   * When it was answered.
   */
  at: string;
  /**
   * What it was.
   */
  kind: "batch" | "resize" | "restore";
  /**
   * Bytes that were written, that a resize added or took away, or that a restore may have changed: by offset and apart from each other. Of a batch of more ranges, fewer that cover them.
   *
   * @maxItems 16
   */
  ranges: {
    /**
     * Position in bytes.
     */
    offset: number;
    /**
     * Bytes.
     */
    length: number;
  }[];
  /**
   * It survives a power cut by now.
   */
  durable: boolean;
}
/**
 * What this is and where everything is.
 */
export interface Service {
  /**
   * The service.
   */
  name: string;
  /**
   * Its version.
   */
  version: string;
  /**
   * What it does.
   */
  description: string;
  links: {
    /**
     * Path.
     */
    regions: string;
    /**
     * Path.
     */
    batches: string;
    /**
     * Path.
     */
    limits: string;
    /**
     * Path.
     */
    status: string;
    /**
     * Path.
     */
    docs: string;
    /**
     * Path.
     */
    console: string;
    /**
     * Path.
     */
    openapi: string;
    /**
     * Path.
     */
    problems: string;
    /**
     * Path.
     */
    health: string;
    /**
     * Path.
     */
    metrics: string;
  };
}
/**
 * Every limit and capability of this server.
 */
export interface Limits {
  /**
   * Regions.
   */
  regionsMax: number;
  /**
   * Snapshots of a region.
   */
  snapshotsMax: number;
  /**
   * Size of a region.
   */
  regionBytesMax: number;
  /**
   * Length of a region's name.
   */
  regionNameBytesMax: number;
  /**
   * Labels of a region.
   */
  regionLabelsMax: number;
  /**
   * Operations of a batch, and as many in `elseOps`.
   */
  batchOpsMax: number;
  /**
   * Guards of a batch, conditions of headers among them.
   */
  batchGuardsMax: number;
  /**
   * Regions of a batch.
   */
  batchRegionsMax: number;
  /**
   * Bytes that a batch writes, and as many that it returns.
   */
  batchBytesMax: number;
  /**
   * Length of a batch's JSON.
   */
  batchBodyBytesMax: number;
  /**
   * Length of a byte-range patch that lands at once.
   */
  patchBodyBytesMax: number;
  /**
   * Pattern of a fill.
   */
  patternBytesMax: number;
  /**
   * Ranges of a GET.
   */
  rangesMax: number;
  /**
   * Bytes that are read at one point in time.
   */
  readBytesMax: number;
  /**
   * Bytes of a view.
   */
  viewBytesMax: number;
  /**
   * Changes of a region that are remembered.
   */
  changesKeptMax: number;
  /**
   * Ranges of a change; more are told as fewer that cover them.
   */
  changeRangesMax: number;
  /**
   * Event streams that are open at once.
   */
  eventStreamsMax: number;
  /**
   * Idempotency keys that are remembered at least.
   */
  idempotencyKeysMin: number;
  /**
   * For how many seconds at least.
   */
  idempotencySecondsMin: number;
  /**
   * Requests a second of a client; 0: as many as it likes.
   */
  rateLimit: number;
  /**
   * Requests of a client at once.
   */
  rateLimitBurst: number;
  /**
   * Durabilities that regions may have.
   *
   * @maxItems 3
   */
  durabilities: ("fast" | "ordered" | "durable")[];
  /**
   * Types of cells.
   *
   * @maxItems 16
   */
  types: string[];
  /**
   * Operations.
   *
   * @maxItems 32
   */
  ops: string[];
  /**
   * Guards.
   *
   * @maxItems 16
   */
  guards: string[];
}
/**
 * How the process and its store are.
 */
export interface Status {
  /**
   * Where the process is in its life.
   */
  state: "starting" | "standby" | "ready" | "lameduck" | "draining" | "forced" | "stopped";
  /**
   * Since when.
   */
  since: string;
  /**
   * Requests that were let in and are not answered to the end.
   */
  inFlight: number;
  /**
   * Batches inside a critical section.
   */
  gateDepth: number;
  /**
   * Connections, signals, the drain under way, how the last run ended.
   */
  lifecycle: {
    /**
     * Connections.
     */
    connections?: {
      /**
       * All.
       */
      open: number;
      /**
       * Those with a request on them.
       */
      active: number;
    };
    /**
     * Signals.
     */
    signals?: {
      /**
       * TERM and INT so far.
       */
      caught: number;
      /**
       * Who handles the signals.
       */
      dispositions: {
        /**
         * TERM is handled here.
         */
        term: boolean;
        /**
         * INT is handled here.
         */
        interrupt: boolean;
        /**
         * BUS is handled here.
         */
        bus: boolean;
        /**
         * Handlers that were displaced and put back.
         */
        repaired: number;
      };
    };
    /**
     * The stop that is under way.
     */
    drain?: {
      /**
       * Since the first signal.
       */
      elapsedMs: number;
      /**
       * Requests that were answered.
       */
      answered: number;
      /**
       * Requests that were answered 503.
       */
      refused: number;
      /**
       * Connections that were ended with a request open on them.
       */
      cut: number;
      /**
       * Requests whose client went away.
       */
      aborted: number;
    } | null;
    /**
     * How the last run ended; null for the first one.
     */
    previousRun?: {
      /**
       * `killed`: it could not say more.
       */
      state: "ended" | "killed";
      /**
       * When it started, in milliseconds since 1970, if it was killed.
       */
      startedAtMs?: number;
      /**
       * When it ended, in milliseconds since 1970.
       */
      endedAtMs?: number;
      /**
       * What ended it.
       */
      signal?: "SIGTERM" | "SIGINT" | null;
      /**
       * Its exit code.
       */
      code?: number;
      /**
       * How it came to that.
       */
      reason?: string;
      /**
       * From the first signal to the end.
       */
      drainMs?: number;
      /**
       * What became of the last requests.
       */
      outcomes?: {
        /**
         * Requests that were answered.
         */
        answered: number;
        /**
         * Requests that were answered 503.
         */
        refused: number;
        /**
         * Connections that were ended with a request open on them.
         */
        cut: number;
        /**
         * Requests whose client went away.
         */
        aborted: number;
      };
    } | null;
  };
  /**
   * The store; empty until it is open.
   */
  store: {
    /**
     * Regions.
     */
    regions?: number;
    journal?: {
      /**
       * Size of the journal.
       */
      bytes: number;
      /**
       * Of those not yet freed by a checkpoint.
       */
      usedBytes: number;
      /**
       * Last committed record.
       */
      committed: number;
      /**
       * Last applied record.
       */
      applied: number;
      /**
       * Last record that survives a power cut.
       */
      durable: number;
      /**
       * Last record that has left the journal.
       */
      checkpoint: number;
    };
    counters?: {
      /**
       * Batches since the start.
       */
      commits: number;
      /**
       * Flushes since the start.
       */
      flushes: number;
      /**
       * Checkpoints since the start.
       */
      checkpoints: number;
      /**
       * Faults that became errors since the start.
       */
      faultsCaught: number;
      /**
       * Outcomes that are remembered.
       */
      idempotencyKeys: number;
    };
    lease?: {
      /**
       * Since when this process is the writer.
       */
      since: string;
      /**
       * Where the store is.
       */
      fileSystem: string;
    };
    /**
     * What the last start found, and did about it.
     */
    recovery?: {
      /**
       * What was found.
       */
      row: string;
      /**
       * The machine was not restarted since.
       */
      sameBoot: boolean;
      /**
       * The last run closed the store.
       */
      clean: boolean;
      /**
       * Records of the journal that were applied again.
       */
      redone: number;
      /**
       * How long it took.
       */
      ms: number;
      /**
       * Regions that are unverified since.
       *
       * @maxItems 65536
       */
      unverified: string[];
      /**
       * Regions that could not be mended.
       *
       * @maxItems 65536
       */
      faulted: string[];
      /**
       * The same in words.
       */
      detail: string;
    };
  };
}
/**
 * It answers.
 */
export interface Health {
  /**
   * Where the process is in its life.
   */
  state: "starting" | "standby" | "ready" | "lameduck" | "draining" | "forced" | "stopped";
}
/**
 * What is running.
 */
export interface Version {
  /**
   * The service.
   */
  name: string;
  /**
   * Its version.
   */
  version: string;
  /**
   * Version of Node.js.
   */
  node: string;
}
/**
 * Every problem that a request can meet.
 */
export interface ProblemList {
  /**
   * By status.
   *
   * @maxItems 100
   */
  items: ProblemKind[];
}
/**
 * A problem that a request can meet.
 */
export interface ProblemKind {
  /**
   * What went wrong, as a stable word.
   */
  code:
    | "malformed-json"
    | "malformed-byterange"
    | "malformed-request"
    | "header-invalid"
    | "digest-mismatch"
    | "cursor-invalid"
    | "query-param-invalid"
    | "unauthenticated"
    | "forbidden"
    | "route-not-found"
    | "region-not-found"
    | "snapshot-not-found"
    | "method-not-allowed"
    | "request-timeout"
    | "region-exists"
    | "cas-mismatch"
    | "overflow"
    | "idempotency-in-progress"
    | "read-not-atomic"
    | "region-read-only"
    | "region-adopted"
    | "snapshot-in-progress"
    | "generation-compacted"
    | "etag-mismatch"
    | "generation-mismatch"
    | "guard-failed"
    | "body-too-large"
    | "batch-too-large"
    | "uri-too-long"
    | "unsupported-media-type"
    | "range-not-satisfiable"
    | "validation-failed"
    | "out-of-bounds"
    | "misaligned"
    | "value-out-of-range"
    | "byterange-missing"
    | "length-mismatch"
    | "idempotency-key-reused"
    | "too-many-ops"
    | "precondition-required"
    | "rate-limited"
    | "headers-too-large"
    | "internal"
    | "starting"
    | "standby"
    | "draining"
    | "overloaded"
    | "region-faulted"
    | "flush-failed"
    | "insufficient-storage";
  /**
   * HTTP status.
   */
  status: number;
  /**
   * In words.
   */
  title: string;
  /**
   * The same request may succeed later.
   */
  retryable: boolean;
  /**
   * What to do about it.
   */
  description: string;
}
/**
 * Operations that land together or not at all.
 */
export interface Batch {
  /**
   * All must hold, or `elseOps` run; without those nothing does (412).
   *
   * @minItems 0
   * @maxItems 65535
   */
  guards?: Guard[];
  /**
   * What is done.
   *
   * @minItems 0
   * @maxItems 65535
   */
  ops: Op[];
  /**
   * What is done when a guard is false.
   *
   * @minItems 1
   * @maxItems 65535
   */
  elseOps?: Op[];
  /**
   * Wait for more than the region's own durability before answering. Less is refused.
   */
  durability?: "fast" | "ordered" | "durable";
  /**
   * Answer as if, and change nothing.
   */
  dryRun?: boolean;
}
/**
 * Compares the region's generation.
 */
export interface GuardGeneration {
  /**
   * The guard.
   */
  kind: "generation";
  /**
   * How.
   */
  op: "eq" | "lt" | "le" | "gt" | "ge" | "ne";
  /**
   * The generation to compare with.
   */
  value: number;
}
/**
 * Compares a cell: true when `cell op value`.
 */
export interface GuardValue {
  /**
   * The guard.
   */
  kind: "value";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  /**
   * How.
   */
  op: "eq" | "lt" | "le" | "gt" | "ge" | "ne";
  value: CellValue;
}
/**
 * Compares bytes.
 */
export interface GuardBytes {
  /**
   * The guard.
   */
  kind: "bytes";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
  /**
   * The bytes, in `encoding`.
   */
  equals: string;
}
/**
 * Compares the digest of a range.
 */
export interface GuardDigest {
  /**
   * The guard.
   */
  kind: "digest";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * Of the digest.
   */
  algorithm: "sha-256" | "crc32c";
  /**
   * How `equals` is written.
   */
  encoding?: "base64" | "hex" | "utf8";
  /**
   * The digest; CRC-32C with its most significant byte first.
   */
  equals: string;
}
/**
 * Reads bytes.
 */
export interface OpRead {
  /**
   * The operation.
   */
  op: "read";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
}
/**
 * Writes bytes.
 */
export interface OpWrite {
  /**
   * The operation.
   */
  op: "write";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes, in `encoding`.
   */
  data: string;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
}
/**
 * Repeats a pattern.
 */
export interface OpFill {
  /**
   * The operation.
   */
  op: "fill";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * Bytes in hex.
   */
  pattern: string;
}
/**
 * Copies bytes, as memmove does where they overlap.
 */
export interface OpCopy {
  /**
   * The operation.
   */
  op: "copy";
  /**
   * Where they come from.
   */
  from: number;
  /**
   * Where they go.
   */
  to: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * The region that they come from, if it is another one.
   */
  fromRegion?: string;
}
/**
 * Reads cells.
 */
export interface OpLoad {
  /**
   * The operation.
   */
  op: "load";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  /**
   * How many; without it one, as `value`.
   */
  count?: number;
}
/**
 * Writes a cell and tells what it held.
 */
export interface OpExchange {
  /**
   * The operation.
   */
  op: "exchange";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Adds to a cell.
 */
export interface OpAdd {
  /**
   * The operation.
   */
  op: "add";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
  /**
   * What happens beyond the type's range. `fail` changes nothing (409).
   */
  overflow?: "fail" | "wrap" | "saturate";
}
/**
 * Bitwise and.
 */
export interface OpAnd {
  /**
   * The operation.
   */
  op: "and";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Bitwise or.
 */
export interface OpOr {
  /**
   * The operation.
   */
  op: "or";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Bitwise exclusive or.
 */
export interface OpXor {
  /**
   * The operation.
   */
  op: "xor";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Keeps the lesser value.
 */
export interface OpMin {
  /**
   * The operation.
   */
  op: "min";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Keeps the greater value.
 */
export interface OpMax {
  /**
   * The operation.
   */
  op: "max";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Writes a cell only if it holds what is expected.
 */
export interface OpCas {
  /**
   * The operation.
   */
  op: "cas";
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  expected: CellValue;
  value: CellValue;
  /**
   * `abort` changes nothing (409).
   */
  onMismatch?: "abort" | "continue";
}
/**
 * Writes at the offset that a cell holds, and advances it.
 */
export interface OpAppend {
  /**
   * The operation.
   */
  op: "append";
  /**
   * Position of the cursor's cell.
   */
  cursorOffset: number;
  /**
   * Type of the cursor.
   */
  cursorType?: "u8" | "u16" | "u32" | "u64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  /**
   * Bytes, in `encoding`.
   */
  data: string;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
}
/**
 * A guard that is evaluated at this point of the sequence; false changes nothing (412).
 */
export interface OpAssert {
  /**
   * The operation.
   */
  op: "assert";
  guard: Guard;
}
/**
 * What a batch did.
 */
export interface BatchAnswer {
  /**
   * Something was written, and it will survive. False for a dry run and for a batch that only reads.
   */
  committed: boolean;
  /**
   * Which operations ran.
   */
  branch: "ops" | "elseOps";
  /**
   * Batches that the region has taken. A new region is at 0.
   */
  generation: number;
  /**
   * The last generation that survives a power cut.
   */
  durableGeneration: number;
  /**
   * One for each operation that ran, in order.
   *
   * @maxItems 65535
   */
  results: OpResult[];
}
/**
 * Operations over several regions that land together or not at all.
 */
export interface MultiBatch {
  /**
   * All must hold, or `elseOps` run; without those nothing does (412).
   *
   * @minItems 0
   * @maxItems 65535
   */
  guards?: MultiGuard[];
  /**
   * What is done.
   *
   * @minItems 0
   * @maxItems 65535
   */
  ops: MultiOp[];
  /**
   * What is done when a guard is false.
   *
   * @minItems 1
   * @maxItems 65535
   */
  elseOps?: MultiOp[];
  /**
   * Wait for more than the region's own durability before answering. Less is refused.
   */
  durability?: "fast" | "ordered" | "durable";
  /**
   * Answer as if, and change nothing.
   */
  dryRun?: boolean;
}
/**
 * Compares the region's generation.
 */
export interface MultiGuardGeneration {
  /**
   * The guard.
   */
  kind: "generation";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * How.
   */
  op: "eq" | "lt" | "le" | "gt" | "ge" | "ne";
  /**
   * The generation to compare with.
   */
  value: number;
}
/**
 * Compares a cell: true when `cell op value`.
 */
export interface MultiGuardValue {
  /**
   * The guard.
   */
  kind: "value";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  /**
   * How.
   */
  op: "eq" | "lt" | "le" | "gt" | "ge" | "ne";
  value: CellValue;
}
/**
 * Compares bytes.
 */
export interface MultiGuardBytes {
  /**
   * The guard.
   */
  kind: "bytes";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
  /**
   * The bytes, in `encoding`.
   */
  equals: string;
}
/**
 * Compares the digest of a range.
 */
export interface MultiGuardDigest {
  /**
   * The guard.
   */
  kind: "digest";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * Of the digest.
   */
  algorithm: "sha-256" | "crc32c";
  /**
   * How `equals` is written.
   */
  encoding?: "base64" | "hex" | "utf8";
  /**
   * The digest; CRC-32C with its most significant byte first.
   */
  equals: string;
}
/**
 * Reads bytes.
 */
export interface MultiOpRead {
  /**
   * The operation.
   */
  op: "read";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
}
/**
 * Writes bytes.
 */
export interface MultiOpWrite {
  /**
   * The operation.
   */
  op: "write";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes, in `encoding`.
   */
  data: string;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
}
/**
 * Repeats a pattern.
 */
export interface MultiOpFill {
  /**
   * The operation.
   */
  op: "fill";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * Bytes in hex.
   */
  pattern: string;
}
/**
 * Copies bytes, as memmove does where they overlap.
 */
export interface MultiOpCopy {
  /**
   * The operation.
   */
  op: "copy";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Where they come from.
   */
  from: number;
  /**
   * Where they go.
   */
  to: number;
  /**
   * Bytes.
   */
  length: number;
  /**
   * The region that they come from, if it is another one.
   */
  fromRegion?: string;
}
/**
 * Reads cells.
 */
export interface MultiOpLoad {
  /**
   * The operation.
   */
  op: "load";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  /**
   * How many; without it one, as `value`.
   */
  count?: number;
}
/**
 * Writes a cell and tells what it held.
 */
export interface MultiOpExchange {
  /**
   * The operation.
   */
  op: "exchange";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Adds to a cell.
 */
export interface MultiOpAdd {
  /**
   * The operation.
   */
  op: "add";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
  /**
   * What happens beyond the type's range. `fail` changes nothing (409).
   */
  overflow?: "fail" | "wrap" | "saturate";
}
/**
 * Bitwise and.
 */
export interface MultiOpAnd {
  /**
   * The operation.
   */
  op: "and";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Bitwise or.
 */
export interface MultiOpOr {
  /**
   * The operation.
   */
  op: "or";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Bitwise exclusive or.
 */
export interface MultiOpXor {
  /**
   * The operation.
   */
  op: "xor";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Keeps the lesser value.
 */
export interface MultiOpMin {
  /**
   * The operation.
   */
  op: "min";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Keeps the greater value.
 */
export interface MultiOpMax {
  /**
   * The operation.
   */
  op: "max";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  value: CellValue;
}
/**
 * Writes a cell only if it holds what is expected.
 */
export interface MultiOpCas {
  /**
   * The operation.
   */
  op: "cas";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position in bytes.
   */
  offset: number;
  /**
   * Type of the cell.
   */
  type: "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f32" | "f64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  expected: CellValue;
  value: CellValue;
  /**
   * `abort` changes nothing (409).
   */
  onMismatch?: "abort" | "continue";
}
/**
 * Writes at the offset that a cell holds, and advances it.
 */
export interface MultiOpAppend {
  /**
   * The operation.
   */
  op: "append";
  /**
   * Name of the region. Never contains `..`.
   */
  region: string;
  /**
   * Position of the cursor's cell.
   */
  cursorOffset: number;
  /**
   * Type of the cursor.
   */
  cursorType?: "u8" | "u16" | "u32" | "u64";
  /**
   * Byte order of the cell.
   */
  endian?: "little" | "big";
  /**
   * Bytes, in `encoding`.
   */
  data: string;
  /**
   * How bytes are written in JSON.
   */
  encoding?: "base64" | "hex" | "utf8";
}
/**
 * A guard that is evaluated at this point of the sequence; false changes nothing (412).
 */
export interface MultiOpAssert {
  /**
   * The operation.
   */
  op: "assert";
  guard: MultiGuard;
}
/**
 * What a batch over several regions did.
 */
export interface MultiBatchAnswer {
  /**
   * Something was written, and it will survive. False for a dry run and for a batch that only reads.
   */
  committed: boolean;
  /**
   * Which operations ran.
   */
  branch: "ops" | "elseOps";
  /**
   * By region.
   */
  generations: {
    /**
     * Batches that the region has taken. A new region is at 0.
     */
    [k: string]: number;
  };
  /**
   * By region.
   */
  durableGenerations: {
    /**
     * The last generation that survives a power cut.
     */
    [k: string]: number;
  };
  /**
   * One for each operation that ran, in order.
   *
   * @maxItems 65535
   */
  results: OpResult[];
}
/**
 * One culprit of a refused request.
 */
export interface Failure {
  /**
   * Position in `guards`, `ops` or `elseOps`, or among the parts of a patch.
   */
  index?: number;
  /**
   * The operation.
   */
  op?: string;
  /**
   * JSON pointer into the request's body.
   */
  pointer?: string;
  /**
   * What is wrong with it.
   */
  code: string;
  /**
   * The same in words.
   */
  detail?: string;
  /**
   * What was allowed or expected.
   */
  limit?: number | string;
  /**
   * What was found.
   */
  actual?: number | string;
}
/**
 * What went wrong (RFC 9457).
 */
export interface Problem {
  /**
   * A page about the code, on this server.
   */
  type: string;
  /**
   * The code in words.
   */
  title: string;
  /**
   * HTTP status.
   */
  status: number;
  /**
   * About this very request.
   */
  detail: string;
  /**
   * The request's path.
   */
  instance: string;
  /**
   * What went wrong, as a stable word.
   */
  code:
    | "malformed-json"
    | "malformed-byterange"
    | "malformed-request"
    | "header-invalid"
    | "digest-mismatch"
    | "cursor-invalid"
    | "query-param-invalid"
    | "unauthenticated"
    | "forbidden"
    | "route-not-found"
    | "region-not-found"
    | "snapshot-not-found"
    | "method-not-allowed"
    | "request-timeout"
    | "region-exists"
    | "cas-mismatch"
    | "overflow"
    | "idempotency-in-progress"
    | "read-not-atomic"
    | "region-read-only"
    | "region-adopted"
    | "snapshot-in-progress"
    | "generation-compacted"
    | "etag-mismatch"
    | "generation-mismatch"
    | "guard-failed"
    | "body-too-large"
    | "batch-too-large"
    | "uri-too-long"
    | "unsupported-media-type"
    | "range-not-satisfiable"
    | "validation-failed"
    | "out-of-bounds"
    | "misaligned"
    | "value-out-of-range"
    | "byterange-missing"
    | "length-mismatch"
    | "idempotency-key-reused"
    | "too-many-ops"
    | "precondition-required"
    | "rate-limited"
    | "headers-too-large"
    | "internal"
    | "starting"
    | "standby"
    | "draining"
    | "overloaded"
    | "region-faulted"
    | "flush-failed"
    | "insufficient-storage";
  /**
   * As in the header Request-Id and in the log.
   */
  requestId: string;
  /**
   * The same request may succeed later.
   */
  retryable: boolean;
  /**
   * The request took effect all the same.
   */
  committed: boolean;
  /**
   * Every culprit, in order.
   *
   * @maxItems 131072
   */
  failures: Failure[];
}

/** How each operation is sent; a keyed one takes an Idempotency-Key. */
export const operations: Record<
  keyof Operations,
  { method: string; path: string; mediaType: string | undefined; keyed: boolean }
> = {
  listRegions: { method: "GET", path: "/v1/regions", mediaType: undefined, keyed: false },
  createRegion: { method: "POST", path: "/v1/regions", mediaType: "application/json", keyed: true },
  getRegion: { method: "GET", path: "/v1/regions/{region}", mediaType: undefined, keyed: false },
  deleteRegion: { method: "DELETE", path: "/v1/regions/{region}", mediaType: undefined, keyed: true },
  updateRegion: { method: "PATCH", path: "/v1/regions/{region}", mediaType: "application/merge-patch+json", keyed: true },
  flushRegion: { method: "POST", path: "/v1/regions/{region}/flushes", mediaType: undefined, keyed: false },
  headContent: { method: "HEAD", path: "/v1/regions/{region}/content", mediaType: undefined, keyed: false },
  getContent: { method: "GET", path: "/v1/regions/{region}/content", mediaType: undefined, keyed: false },
  contentOptions: { method: "OPTIONS", path: "/v1/regions/{region}/content", mediaType: undefined, keyed: false },
  putContent: { method: "PUT", path: "/v1/regions/{region}/content", mediaType: "application/octet-stream", keyed: true },
  patchContent: { method: "PATCH", path: "/v1/regions/{region}/content", mediaType: "message/byterange", keyed: true },
  digestRegion: { method: "GET", path: "/v1/regions/{region}/digest", mediaType: undefined, keyed: false },
  listExtents: { method: "GET", path: "/v1/regions/{region}/extents", mediaType: undefined, keyed: false },
  listSnapshots: { method: "GET", path: "/v1/regions/{region}/snapshots", mediaType: undefined, keyed: false },
  createSnapshot: { method: "POST", path: "/v1/regions/{region}/snapshots", mediaType: undefined, keyed: true },
  getSnapshot: { method: "GET", path: "/v1/regions/{region}/snapshots/{snapshot}", mediaType: undefined, keyed: false },
  deleteSnapshot: { method: "DELETE", path: "/v1/regions/{region}/snapshots/{snapshot}", mediaType: undefined, keyed: true },
  restoreSnapshot: { method: "POST", path: "/v1/regions/{region}/snapshots/{snapshot}/restores", mediaType: undefined, keyed: true },
  loadCell: { method: "GET", path: "/v1/regions/{region}/cells/{offset}", mediaType: undefined, keyed: false },
  storeCell: { method: "PUT", path: "/v1/regions/{region}/cells/{offset}", mediaType: "application/json", keyed: true },
  modifyCell: { method: "POST", path: "/v1/regions/{region}/cells/{offset}", mediaType: "application/json", keyed: true },
  viewRegion: { method: "GET", path: "/v1/regions/{region}/view", mediaType: undefined, keyed: false },
  listChanges: { method: "GET", path: "/v1/regions/{region}/changes", mediaType: undefined, keyed: false },
  getService: { method: "GET", path: "/", mediaType: undefined, keyed: false },
  getLimits: { method: "GET", path: "/v1/limits", mediaType: undefined, keyed: false },
  getStatus: { method: "GET", path: "/v1/status", mediaType: undefined, keyed: false },
  getLiveness: { method: "GET", path: "/livez", mediaType: undefined, keyed: false },
  getReadiness: { method: "GET", path: "/readyz", mediaType: undefined, keyed: false },
  getMetrics: { method: "GET", path: "/metrics", mediaType: undefined, keyed: false },
  getVersion: { method: "GET", path: "/version", mediaType: undefined, keyed: false },
  listProblems: { method: "GET", path: "/problems", mediaType: undefined, keyed: false },
  getProblem: { method: "GET", path: "/problems/{code}", mediaType: undefined, keyed: false },
  getOpenapi: { method: "GET", path: "/openapi.json", mediaType: undefined, keyed: false },
  commitBatch: { method: "POST", path: "/v1/regions/{region}/batches", mediaType: "application/json", keyed: true },
  commitMultiBatch: { method: "POST", path: "/v1/batches", mediaType: "application/json", keyed: true },
};
