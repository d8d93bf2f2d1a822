// batches.ts - runs batches: JSON or plain writes and reads in, outcomes out. Everything that changes or compares bytes
// goes through here, so that one request is one frame and one critical section.
import { codeName, codes, type Maybe, type RegionInfo, type Store, sentences } from "../../native/index.js";
import { AnswerReader, type RegionTag } from "./batch-answer.js";
import {
  type BatchConditions,
  BatchEncoder,
  type EncoderLimits,
  type IdempotencyKey,
  type PlainWrite,
  type Section,
} from "./batch-encoder.js";
import type { ChangeFeed } from "./change-feed.js";
import { ChangedRanges, type WritePlan } from "./changed-ranges.js";
import { type Failure, Refused } from "./failure.js";
import { frameRegions, namesOnly, refusalAnswer } from "./frame.js";

/** How long an answer waits: `region` for as long as the strictest of the batch's regions asks. */
export type Wait = "region" | "fast" | "ordered" | "durable";

/** A batch that was done. */
export interface BatchOutcome {
  readonly committed: boolean;
  /** The outcome of an earlier batch with the same key. */
  readonly replayed: boolean;
  readonly branch: "ops" | "elseOps";
  readonly regions: readonly string[];
  /** What it left of each of them. */
  readonly tags: readonly RegionTag[];
  /** JSON text of the results' array. */
  readonly results: string;
}

/** Encoders that are kept. More than one are at work at once only where a faulty batch is explained. */
const idleMax = 4;

/** What an answer says by number: the frame's regions, and how many guards in front came from the request's headers. */
type FrameNames = Pick<BatchEncoder, "regions" | "conditionCount">;

const spelled = new Map<number, string>();

/** A code of the core as failures spell it. */
function spell(code: number): string {
  let name = spelled.get(code);
  if (name === undefined) {
    name = codeName(code).replaceAll("_", "-");
    spelled.set(code, name);
  }
  return name;
}

/** What commits: what a trace stands in for. */
export type BatchRunner = Pick<Batches, "run" | "write" | "runFrame">;

export class Batches {
  private readonly idle: BatchEncoder[] = [];
  private readonly answer = new AnswerReader();
  private readonly ranges = new ChangedRanges();
  /** Of the batch that is answered at once. */
  private readonly writes: WritePlan = [];
  /** Of the last batch whose answer is a promise: how long that answer may be, about. In bytes. */
  waitingBytes = 0;

  /** Everything that commits is noted in `feed`. */
  constructor(
    private readonly limits: EncoderLimits,
    private readonly feed: ChangeFeed,
  ) {}

  /**
   * Runs a batch as the API has it. `region` is the one of the request's path, if it has one; its name must be valid.
   * @throws Refused
   */
  run(
    store: Store,
    body: unknown,
    region: string | undefined,
    conditions?: BatchConditions,
    key?: IdempotencyKey,
  ): Maybe<BatchOutcome> {
    const encoder = this.idle.pop() ?? new BatchEncoder(this.limits);
    const frame = encoder.encode(body, region, conditions, key);
    if (frame === undefined) return this.explain(store, encoder, body, region);
    return this.commit(store, encoder, frame, body as object);
  }

  /** Replaces bytes, all of them in one batch; a failure's index is that of the write. @throws Refused */
  write(
    store: Store,
    region: string,
    writes: readonly PlainWrite[],
    wait: Wait,
    conditions: BatchConditions | undefined,
    key: IdempotencyKey | undefined,
  ): Maybe<BatchOutcome> {
    const encoder = this.idle.pop() ?? new BatchEncoder(this.limits);
    const frame = encoder.encodeWrites(region, writes, wait, conditions, key);
    return this.commit(store, encoder, frame, undefined);
  }

  /**
   * The answer to an earlier write of this region under the same key, if there was one: for a retry that the region, as it is
   * now, would not take. @throws Refused idempotency_key_reused, idempotency_in_progress
   */
  async earlier(store: Store, region: string, key: IdempotencyKey): Promise<BatchOutcome | undefined> {
    try {
      // The core looks for the key before anything else, and no region gets as far as this generation.
      return await this.write(store, region, [], "region", { ifGeneration: Number.MAX_SAFE_INTEGER }, key);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.code === "generation_mismatch" || error.code === "region_not_found") return undefined;
      throw error;
    }
  }

  /**
   * Runs a frame of native/frame.h as a client sent it, and gives the core's answer as it is, a refusal included. `region`:
   * the only one that it may name. An answer that is there at once is valid until the next call.
   */
  runFrame(store: Store, frame: Uint8Array, region: string | undefined): Maybe<Uint8Array> {
    if (region !== undefined && !namesOnly(frame, region)) return refuseFrame("validation_failed");
    const regions = region === undefined ? frameRegions(frame) : [region];
    this.expect(store, regions);
    const answered = store.commit(frame);
    if (answered instanceof Promise) {
      // Only what is well-formed waits.
      const writes = this.planOfWaiting(frame);
      return answered.then((answer) => {
        this.answer.open(answer);
        this.note(store, regions, writes);
        return answer;
      });
    }
    this.answer.open(answered);
    if (this.answer.committed) this.note(store, regions, this.ranges.plan(frame, this.writes));
    return answered;
  }

  /** Reads several ranges of one generation; together at most what a batch may return. @throws Refused */
  async read(
    store: Store,
    region: string,
    ranges: readonly { offset: number; length: number }[],
  ): Promise<{ tag: RegionTag; parts: Buffer[] }> {
    const encoder = this.idle.pop() ?? new BatchEncoder(this.limits);
    const answered = store.commit(encoder.encodeReads(region, ranges));
    const names = this.release(encoder);
    this.answer.open(answered instanceof Promise ? await answered : answered);
    this.check(names, undefined);
    return { tag: this.answer.tag(0), parts: this.answer.parts() };
  }

  private commit(
    store: Store,
    encoder: BatchEncoder,
    frame: Uint8Array,
    body: object | undefined,
  ): Maybe<BatchOutcome> {
    this.expect(store, encoder.regions);
    const answered = store.commit(frame);
    // The core has taken what it needs, also of a batch that waits: the encoder is free for the next one.
    const names = this.release(encoder);
    if (answered instanceof Promise) {
      const writes = this.planOfWaiting(frame);
      return answered.then((answer) => {
        this.answer.open(answer);
        this.note(store, names.regions, writes);
        return this.finish(store, names, body);
      });
    }
    this.answer.open(answered);
    if (this.answer.committed) this.note(store, names.regions, this.ranges.plan(frame, this.writes));
    return this.finish(store, names, body);
  }

  private expect(store: Store, regions: readonly string[]): void {
    for (const name of regions) this.feed.expect(name, store);
  }

  private planOfWaiting(frame: Uint8Array): WritePlan {
    const writes = this.ranges.plan(frame);
    this.waitingBytes = ChangedRanges.resultBytes(writes) + frame.length;
    return writes;
  }

  /** Tells the feed of what the batch has changed, if it has, by the answer that is open. */
  private note(store: Store, regions: readonly string[], writes: WritePlan): void {
    const { answer, ranges } = this;
    // A retry's answer is about a change that was noted when it was made.
    if (!answer.committed || answer.replayed) return;
    ranges.resolve(writes, answer);
    for (let i = 0; i < regions.length; i++) {
      const name = regions[i]!;
      const of = ranges.of(i);
      if (of.count > 0) this.feed.note(name, answer.tag(i), "batch", of, store);
    }
  }

  /** Everything is taken out of the answer here: the next one may come in the same memory. */
  private finish(store: Store, names: FrameNames, body: object | undefined): BatchOutcome {
    const { regions } = names;
    this.check(names, body);
    const { answer } = this;
    const { replayed } = answer;
    const tags: RegionTag[] = [];
    for (let i = 0; i < regions.length; i++) {
      const tag = answer.tag(i);
      tags.push(replayed ? refreshed(tag, store.info(regions[i]!)) : tag);
    }
    const results = body === undefined ? "" : answer.results(body);
    return { committed: answer.committed, replayed, branch: answer.branch, regions, tags, results };
  }

  /** @throws Refused when the open answer says no */
  private check({ regions, conditionCount }: FrameNames, body: object | undefined): void {
    if (this.answer.code !== 0) {
      throw refusal(this.answer, this.answer.failures(body ?? {}, regions, conditionCount, spell));
    }
  }

  /** The core is asked about what can be encoded, so that the answer lists every bad operation and not only ours. */
  private async explain(
    store: Store,
    encoder: BatchEncoder,
    body: unknown,
    region: string | undefined,
  ): Promise<never> {
    let { failures } = encoder;
    const rest = encoder.encodeRest(body, region);
    if (rest !== undefined) {
      const answered = store.commit(rest.frame);
      const { answer } = this;
      // One that is there must be read at once: the next commit's is written over it.
      answer.open(answered instanceof Promise ? await answered : answered);
      const more = answer.code === 0 ? [] : answer.failures(body as object, encoder.regions, 0, spell, rest.kept);
      failures = [...failures, ...more.filter((failure) => isInvalid(failure))].sort(inOrder);
    }
    this.release(encoder);
    const code = failures[0]!.code.replaceAll("-", "_");
    throw new Refused(code, sentences[code] ?? "", failures, false);
  }

  /** Lets the encoder go. Returns what is needed to read the answer to its frame. */
  private release(encoder: BatchEncoder): FrameNames {
    const { regions, conditionCount } = encoder;
    if (this.idle.length < idleMax) this.idle.push(encoder);
    return { regions, conditionCount };
  }
}

/** The answer to a frame that does not get as far as the core. `code`: a name of native/status.h. */
export function refuseFrame(code: string): Uint8Array {
  return refusalAnswer(codes[code]!);
}

/** The outcome was journaled before it was durable: tells what is durable of it now. */
function refreshed(tag: RegionTag, info: RegionInfo | undefined): RegionTag {
  if (info === undefined || info.incarnation !== tag.incarnation) return tag;
  const durableGeneration = Math.max(tag.durableGeneration, Math.min(info.durableGeneration, tag.generation));
  return { ...tag, durableGeneration };
}

function refusal(answer: AnswerReader, failures: Failure[]): Refused {
  const code = codeName(answer.code);
  if (failures.length === 0 && (answer.limit !== 0 || answer.actual !== 0)) {
    failures.push({ code: spell(answer.code), limit: answer.limit, actual: answer.actual });
  }
  if (code === "durability_unavailable") failures = [{ pointer: "/durability", code: "durability-unavailable" }];
  // The only thing that a well-formed frame can ask for and not have.
  if (code === "validation_failed" && failures.length === 0) {
    failures = [{ pointer: "/durability", code: "validation-failed", detail: "is less than a region's own" }];
  }
  const where = failures.length === 1 && failures[0]!.detail !== undefined ? ` (${failures[0]!.detail})` : "";
  return new Refused(code, `${sentences[code]}${where}`, failures, answer.committed);
}

/** Left out operations can make others fail at run time; only what is wrong in itself is told. */
const isInvalid = ({ index, code }: Failure) =>
  index !== undefined &&
  (code === "out-of-bounds" || code === "misaligned" || code === "value-out-of-range" || code === "validation-failed");

const sectionOrder: readonly (Section | undefined)[] = [undefined, "guards", "ops", "elseOps"];

function inOrder(left: Failure, right: Failure): number {
  const section = ({ pointer }: Failure) => sectionOrder.indexOf(pointer?.split("/")[1] as Section | undefined);
  return section(left) - section(right) || (left.index ?? 0) - (right.index ?? 0);
}
