// native/index.ts - the only door from TypeScript to the storage core.
//
// It checks arguments, pairs answers with the requests that wait for them, and gives C++'s numbers their names. It knows
// nothing of HTTP, and no mapping ever passes through it: all bytes are copies.
import { addon } from "./addon.js";

export * from "./lifecycle.js";

export type Durability = "fast" | "ordered" | "durable";
const durabilities: readonly Durability[] = ["fast", "ordered", "durable"];

/** A value when the store had it at hand, a promise when it had to wait for the disk or another thread. */
export type Maybe<T> = T | Promise<T>;

type Constants = Readonly<Record<string, number>>;

/** Every outcome of the core by name (status.h). */
export const codes: Constants = Object.freeze(addon.constants.codes);
/** A sentence for each of them. */
export const sentences: Readonly<Record<string, string>> = Object.freeze(addon.constants.sentences);
/** Kinds of ops and guards in a frame (frame.h). */
export const opKinds: Constants = Object.freeze(addon.constants.opKinds);
/** Cell types in a frame (frame.h). */
export const valueTypes: Constants = Object.freeze(addon.constants.valueTypes);
/** Sizes and limits that are C++'s own. Bytes, or counts. */
export const limits: Constants = Object.freeze(addon.constants.limits);

/** A refusal or failure of the store. `code` is a name of status.h. */
export class StoreError extends Error {
  override name = "StoreError";
  constructor(
    readonly code: string,
    readonly detail: string,
  ) {
    super(`${code}: ${detail}`);
  }
}

export interface StoreOptions {
  dir: string;
  /** The ring; raised to four of the largest batches. */
  journalBytes: number;
  regionsMax: number;
  /** Of a region. */
  snapshotsMax: number;
  /** An ordered batch is durable and visible after at most this. */
  flushIntervalMs: number;
  checkpointIntervalMs: number;
  /** How long a batch waits for ring space before it is refused as `overloaded`. */
  fullWaitMsMax: number;
  batchBytesMax: number;
  batchOpsMax: number;
  batchGuardsMax: number;
  idempotencyKeysMin: number;
  idempotencySecondsMin: number;
  allowAnyFileSystem: boolean;
  /** Wait for the lease that another process holds; otherwise `lease_held`. */
  standby: boolean;
}

export interface RegionInfo {
  name: string;
  /** Unique per creation. */
  incarnation: number;
  size: number;
  durability: Durability;
  sparse: boolean;
  readOnly: boolean;
  /** A JSON object's text. */
  labels: string;
  createdAtMs: number;
  modifiedAtMs: number;
  /** Of the last committed batch. */
  generation: number;
  /** The last one that survives a power cut. */
  durableGeneration: number;
  metaGeneration: number;
  state: "ok" | "faulted";
  fault: string | null;
  integrity: "verified" | "unverified";
  /** The file that an operator named, if the region is one. */
  adoptedPath: string | null;
}

export interface RecoveryReport {
  /** A row of the decision table in recovery.h. */
  row: string;
  sameBoot: boolean;
  clean: boolean;
  /** Records applied again. */
  redone: number;
  ms: number;
  unverified: string[];
  faulted: string[];
  detail: string;
}

export interface StoreStatus {
  /** lsns: how many records were published, applied, made durable, and have left the ring. */
  committed: number;
  applied: number;
  durable: number;
  checkpoint: number;
  journalBytes: number;
  journalUsedBytes: number;
  /** Since the store was opened. */
  commits: number;
  flushes: number;
  checkpoints: number;
  faultsCaught: number;
  idempotencyKeys: number;
  fileSystem: string;
  leaseSinceMs: number;
  recovery: RecoveryReport;
}

export interface Etag {
  incarnation: number;
  metaGeneration: number;
  generation: number;
}

/** What a change of a region depends on, and the key under which its outcome is kept. */
export interface Conditions {
  ifMatch?: Etag[] | "*" | undefined;
  ifNoneMatch?: Etag[] | "*" | undefined;
  ifGeneration?: number | undefined;
  /** 16 bytes each. */
  key?: Uint8Array | undefined;
  fingerprint?: Uint8Array | undefined;
}

export interface ReadResult extends Etag {
  bytes: Buffer;
  durableGeneration: number;
  size: number;
}

/** A range that holds data, or a hole, which reads as zeros and takes no space in it. */
export interface Extent {
  offset: number;
  length: number;
  kind: "data" | "hole";
}

export interface ExtentList extends Etag {
  extents: Extent[];
  durableGeneration: number;
  size: number;
}

/** A part of a region, and how many bytes of it hold data and are in memory. */
export interface Slice {
  offset: number;
  length: number;
  dataBytes: number;
  residentBytes: number;
}

export interface SliceList extends Etag {
  slices: Slice[];
  durableGeneration: number;
  size: number;
}

/** The bytes of a region as they were at one generation. */
export interface Snapshot {
  /** Unique in the store and for ever; greater than that of every earlier one. */
  id: number;
  generation: number;
  size: number;
  createdAtMs: number;
}

export interface SnapshotAnswer {
  /** The outcome of an earlier request with the same key. */
  replayed: boolean;
  snapshot: Snapshot;
}

/** What of a region differs from a snapshot. */
export interface Comparison extends Etag {
  ranges: { offset: number; length: number }[];
  /** Where to go on; the region's size at the end. */
  next: number;
  durableGeneration: number;
  size: number;
}

export interface MetaAnswer {
  /** The outcome of an earlier request with the same key. */
  replayed: boolean;
  created: boolean;
  /** Null after a removal. */
  info: RegionInfo | null;
}

/** A region that is being made from a stream: it exists from commit() on, or never. */
export interface Upload {
  /** Appends. One at a time; the chunk must not change before it resolves. */
  write(chunk: Uint8Array): Promise<void>;
  commit(): Promise<MetaAnswer>;
  abort(): Promise<void>;
}

interface NativeInfo extends Omit<RegionInfo, "durability" | "state" | "integrity"> {
  durability: number;
  unverified: boolean;
}

function named(info: NativeInfo): RegionInfo {
  const { durability, unverified, ...rest } = info;
  return {
    ...rest,
    durability: durabilities[durability - 1] as Durability,
    state: rest.fault === null ? "ok" : "faulted",
    integrity: unverified ? "unverified" : "verified",
  };
}

function numberOf(durability: Durability): number {
  const index = durabilities.indexOf(durability);
  if (index < 0) throw new RangeError(`there is no durability ${String(durability)}`);
  return index + 1;
}

const codeNames = new Map(Object.entries(codes).map(([name, code]) => [code, name]));

/** The name of a code in an answer. */
export const codeName = (code: number): string => codeNames.get(code) ?? "io_error";

// A refusal crosses as {code, detail}: a JavaScript error is made here, where its stack means something.
async function told<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Error) throw error;
    const { code, detail } = error as { code: string; detail: string };
    throw new StoreError(code, detail);
  }
}

interface NativeAnswer extends Omit<MetaAnswer, "info"> {
  info: NativeInfo | null;
}

async function change(promise: Promise<NativeAnswer>): Promise<MetaAnswer> {
  const answer = await told(promise);
  return { ...answer, info: answer.info && named(answer.info) };
}

/** CRC-32C of bytes, as a digest of a region's bytes is. `before`: that of the bytes in front of them. */
export const crc32c = (bytes: Uint8Array, before = 0): number => addon.store.crc32c(bytes, before);

/** Answers of at most this are copied out of a buffer that the addon fills, which costs no allocation on its side. */
const scratchBytes = 64 * 1024;

export class Store {
  readonly #native: object;
  readonly #waiting: Map<number, (answer: Uint8Array) => void>;
  /** Filled by the addon: the last answer that was there at once, and the facts of the last such read. */
  readonly #scratch: Uint8Array;
  readonly #facts: Float64Array;
  #ticket = 0;
  /**
   * The last commit() went to another thread: a batch that is handed over before its answer may overtake it. Batches that
   * only wait for the disk are in order.
   */
  canBeOvertaken = false;

  private constructor(
    native: object,
    waiting: Map<number, (answer: Uint8Array) => void>,
    scratch: Uint8Array,
    facts: Float64Array,
  ) {
    this.#native = native;
    this.#waiting = waiting;
    this.#scratch = scratch;
    this.#facts = facts;
  }

  /**
   * Opens or makes the store in `dir` and recovers it. Waits while another process holds it (and calls `onStandby` once),
   * unless `standby` is false. @throws StoreError
   */
  static async open(options: StoreOptions, onStandby: () => void = () => {}): Promise<Store> {
    const waiting = new Map<number, (answer: Uint8Array) => void>();
    // A group's answers come one behind the other, with each one's ticket and end.
    const settled = (answers: Uint8Array, tickets: Float64Array, ends: Float64Array): void => {
      for (let i = 0, start = 0; i < tickets.length; i++) {
        const ticket = tickets[i] as number;
        const end = ends[i] as number;
        const resolve = waiting.get(ticket);
        waiting.delete(ticket);
        resolve?.(answers.subarray(start, end));
        start = end;
      }
    };
    const scratch = new Uint8Array(scratchBytes);
    const facts = new Float64Array(5);
    const native: object = await told(addon.store.open(options, onStandby, settled, scratch, facts));
    return new Store(native, waiting, scratch, facts);
  }

  /** Sorted. */
  names(): string[] {
    return addon.store.names(this.#native);
  }

  info(name: string): RegionInfo | undefined {
    const info: NativeInfo | undefined = addon.store.info(this.#native, name);
    return info && named(info);
  }

  /**
   * Runs one batch: a frame in, an answer out (frame.h). It never rejects for a refused batch, the answer's code says it. A
   * promise resolves when the batch is as durable as it asked to be. The frame may be reused as soon as this returns; an
   * answer that is there at once is valid until the next call.
   */
  commit(frame: Uint8Array): Maybe<Uint8Array> {
    const ticket = ++this.#ticket;
    const result: number | Uint8Array | undefined | Promise<Uint8Array | undefined> = addon.store.commit(
      this.#native,
      frame,
      ticket,
    );
    this.canBeOvertaken = result instanceof Promise;
    // Not a copy: a small array of its own costs more than the commit of a small batch.
    if (typeof result === "number") return this.#scratch.subarray(0, result);
    if (result instanceof Uint8Array) return result;
    const answer = new Promise<Uint8Array>((resolve) => this.#waiting.set(ticket, resolve));
    if (result === undefined) return answer;
    // On a thread of the pool, which either has the answer or leaves it to the flusher.
    return result.then((now) => {
      if (now === undefined) return answer;
      this.#waiting.delete(ticket);
      return now;
    });
  }

  /**
   * Bytes of one generation, into `bytes` if given, which has their length. @throws StoreError region_not_found,
   * out_of_bounds, region_faulted
   */
  read(name: string, offset: number, length: number, bytes: Buffer = Buffer.allocUnsafe(length)): Maybe<ReadResult> {
    const result: number | Promise<Float64Array> = addon.store.read(this.#native, name, offset, bytes);
    if (typeof result === "number") {
      if (result !== 0) throw new StoreError(codeName(result), sentences[codeName(result)] ?? "");
      return readResult(bytes, this.#facts);
    }
    return told(result).then((facts) => readResult(bytes, facts));
  }

  /**
   * The extents of a range in their order, at most `countMax`. What is allocated without having been written is a hole.
   * @throws StoreError region_not_found, out_of_bounds, region_faulted
   */
  async extents(name: string, offset: number, length: number, countMax: number): Promise<ExtentList> {
    const numbers: Float64Array = await told(addon.store.extents(this.#native, name, offset, length, countMax));
    const extents: Extent[] = [];
    for (let at = 5; at < numbers.length; at += 3) {
      const [from = 0, bytes = 0, data] = numbers.subarray(at, at + 3);
      extents.push({ offset: from, length: bytes, kind: data === 1 ? "data" : "hole" });
    }
    return { ...factsOf(numbers), extents };
  }

  /**
   * Parts of `granularity` bytes (a multiple of 4,096) from the one that holds `offset` on, at most `countMax`, and fewer
   * when the look would take long: at least one, if there is one.
   * @throws StoreError region_not_found, out_of_bounds, region_faulted
   */
  async slices(name: string, offset: number, granularity: number, countMax: number): Promise<SliceList> {
    const numbers: Float64Array = await told(addon.store.slices(this.#native, name, offset, granularity, countMax));
    const slices: Slice[] = [];
    for (let at = 5; at < numbers.length; at += 4) {
      const [from = 0, length = 0, dataBytes = 0, residentBytes = 0] = numbers.subarray(at, at + 4);
      slices.push({ offset: from, length, dataBytes, residentBytes });
    }
    return { ...factsOf(numbers), slices };
  }

  /** Makes a region, or adopts the file at `adoptPath` as one; its size is then at most the file's. @throws StoreError */
  create(
    o: {
      name: string;
      size: number;
      durability: Durability;
      labels: string;
      sparse: boolean;
      adoptPath?: string | undefined;
    } & Conditions,
  ): Promise<MetaAnswer> {
    return change(addon.store.create(this.#native, { ...o, durability: numberOf(o.durability) }));
  }

  /** @throws StoreError; nothing is changed then, except after `unfinished`: the next start finishes the change. */
  update(
    name: string,
    o: {
      size?: number | undefined;
      labels?: string | undefined;
      durability?: Durability | undefined;
      readOnly?: boolean | undefined;
      integrity?: "verified" | undefined;
    } & Conditions,
  ): Promise<MetaAnswer> {
    const durability = o.durability && numberOf(o.durability);
    return change(addon.store.update(this.#native, name, { ...o, durability }));
  }

  /** @throws StoreError */
  remove(name: string, o: Conditions): Promise<MetaAnswer> {
    return change(addon.store.remove(this.#native, name, o));
  }

  /**
   * Makes a snapshot while batches go on; the region keeps its size and files until it is there. @throws StoreError
   * snapshot_in_progress, too_many_snapshots, insufficient_storage, region_faulted
   */
  makeSnapshot(name: string, o: Conditions): Promise<SnapshotAnswer> {
    return told(addon.store.makeSnapshot(this.#native, name, o));
  }

  /** @throws StoreError snapshot_not_found */
  removeSnapshot(name: string, id: number, o: Conditions): Promise<SnapshotAnswer> {
    return told(addon.store.removeSnapshot(this.#native, name, id, o));
  }

  /**
   * Puts the bytes of a snapshot in the place of the region's, as a new incarnation at the next generation. @throws
   * StoreError precondition_required without a condition, region_adopted, snapshot_in_progress, insufficient_storage
   */
  restore(name: string, id: number, o: Conditions): Promise<MetaAnswer> {
    return change(addon.store.restore(this.#native, name, id, o));
  }

  /** By age; undefined: no such region. */
  snapshots(name: string): Snapshot[] | undefined {
    return addon.store.snapshots(this.#native, name);
  }

  snapshot(name: string, id: number): Snapshot | undefined {
    return addon.store.snapshot(this.#native, name, id);
  }

  /** @throws StoreError snapshot_not_found, out_of_bounds */
  async readSnapshot(name: string, id: number, offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    await told(addon.store.readSnapshot(this.#native, name, id, offset, bytes));
    return bytes;
  }

  /**
   * Ranges from `offset` on that differ from a snapshot, at most `countMax`, found by looking at a bounded number of
   * bytes: maybe none, with more to look at. @throws StoreError snapshot_not_found, region_faulted
   */
  async compare(name: string, id: number, offset: number, countMax: number): Promise<Comparison> {
    const numbers: Float64Array = await told(addon.store.compare(this.#native, name, id, offset, countMax));
    const ranges: Comparison["ranges"] = [];
    for (let at = 6; at < numbers.length; at += 2) {
      ranges.push({ offset: numbers[at] as number, length: numbers[at + 1] as number });
    }
    return { ...factsOf(numbers), next: numbers[5] as number, ranges };
  }

  /** @throws StoreError */
  async upload(o: { name: string; durability: Durability; labels: string } & Conditions): Promise<Upload> {
    const begun = { ...o, durability: numberOf(o.durability) };
    const upload: object = await told(addon.store.uploadBegin(this.#native, begun));
    return {
      write: (chunk) => told(addon.store.uploadWrite(upload, chunk)),
      commit: () => change(addon.store.uploadCommit(this.#native, upload)),
      abort: () => told(addon.store.uploadAbort(upload)),
    };
  }

  /** Everything committed so far, in one region or in all, is durable and visible. @throws StoreError flush_failed */
  flush(name = ""): Promise<void> {
    return told(addon.store.flush(this.#native, name));
  }

  status(): StoreStatus {
    return addon.store.status(this.#native);
  }

  /** Flushes, checkpoints, releases the lease. Afterwards everything is refused as `cancelled`. */
  close(): Promise<void> {
    return told(addon.store.close(this.#native));
  }
}

function readResult(bytes: Buffer, facts: Float64Array): ReadResult {
  return { ...factsOf(facts), bytes };
}

function factsOf(facts: Float64Array): Etag & { durableGeneration: number; size: number } {
  return {
    incarnation: facts[0] as number,
    metaGeneration: facts[1] as number,
    generation: facts[2] as number,
    durableGeneration: facts[3] as number,
    size: facts[4] as number,
  };
}
