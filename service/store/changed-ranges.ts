// changed-ranges.ts - which bytes a committed batch has written, read off its frame and its answer.
//
// It runs for every batch that commits, whether anybody asks for changes or not: numbers in arrays that are reused. Of a
// batch that waits for the disk, only the numbers are kept: its frame's memory is soon another's.
import type { AnswerReader } from "./batch-answer.js";
import { typeBytes } from "./cells.js";
import { align8, frameHeaderBytes, frameOpBytes, frameRegionBytes, opKinds } from "./frame.js";

/** A change with more ranges than this tells of as many that cover them. */
export const changeRangesMax = 16;

/** Above this many, sorting in place by insertion would be slow. */
const insertionMax = 32;

/** What an operation writes is known before it runs, except these. */
const ifSwapped = 1;
const appends = 2;
/** Of an operation in a plan: region, what it depends on, offset, length, bytes of its cell. */
const stepNumbers = 5;
/** In front of the steps: the frame's regions, where the steps of its ops end, where all end, and bytes of its results. */
const planHeadNumbers = 4;

/**
 * What a batch will write if it commits: a step for each op and else-op. What is behind its end is left of an earlier use: to
 * cut an array and let it grow again costs more than the rest.
 */
export type WritePlan = number[];

/** Offset and length of ranges, in pairs. What is behind `count` numbers is left of an earlier use. */
export interface Ranges {
  count: number;
  readonly pairs: number[];
}

export class ChangedRanges {
  private view: DataView = new DataView(new ArrayBuffer(0));
  private readonly lists: Ranges[] = [];

  /** Reads a frame, into `plan` if there is one to be reused. */
  plan(frame: Uint8Array, plan: WritePlan = []): WritePlan {
    if (frame.buffer !== this.view.buffer || frame.byteOffset !== this.view.byteOffset) {
      this.view = new DataView(frame.buffer, frame.byteOffset);
    }
    const { view } = this;
    const regionCount = view.getUint16(12, true);
    let at = frameHeaderBytes + regionCount * frameRegionBytes;
    for (let guards = view.getUint16(14, true); guards > 0; guards--) at = this.next(at);
    const opCount = view.getUint32(16, true);
    const elseCount = view.getUint32(20, true);
    const opsEnd = planHeadNumbers + opCount * stepNumbers;
    const end = opsEnd + elseCount * stepNumbers;
    plan[0] = regionCount;
    plan[1] = opsEnd;
    plan[2] = end;
    plan[3] = 0;
    for (let to = planHeadNumbers; to < end; to += stepNumbers) {
      this.step(at, plan, to);
      at = this.next(at);
    }
    return plan;
  }

  /** Bytes that the answer may have besides a few for each operation. */
  static resultBytes(plan: WritePlan): number {
    return plan[3]!;
  }

  /**
   * What a batch that has committed wrote, by the answer that is open in `answer`. The answer of a batch that committed and
   * failed all the same has no results: then whatever it may have written counts.
   */
  resolve(plan: WritePlan, answer: AnswerReader): void {
    const regionCount = plan[0]!;
    for (let region = 0; region < regionCount; region++) {
      const list = this.lists[region];
      if (list === undefined) this.lists[region] = { count: 0, pairs: [] };
      else list.count = 0;
    }
    const failed = answer.code !== 0;
    const start = !failed && answer.branch === "elseOps" ? plan[1]! : planHeadNumbers;
    const end = !failed && answer.branch === "ops" ? plan[1]! : plan[2]!;
    let result = failed ? 0 : answer.firstResult();
    for (let at = start; at < end; at += stepNumbers) {
      const region = plan[at]!;
      const list = this.lists[region]!;
      const offset = plan[at + 2]!;
      const length = plan[at + 3]!;
      switch (plan[at + 1]) {
        case ifSwapped:
          if (failed || answer.isSwapped(result)) add(list, offset, length);
          break;
        case appends:
          // Where it went is only in the result.
          if (failed) add(list, 0, answer.tag(region).size);
          else add(list, answer.firstNumber(result), length);
          add(list, offset, plan[at + 4]!);
          break;
        default:
          add(list, offset, length);
      }
      if (!failed) result = answer.nextResult(result);
    }
  }

  /** Of one of the frame's regions: by offset and apart from each other. None: nothing of it was written. */
  of(region: number): Ranges {
    const list = this.lists[region]!;
    if (list.count > 2) merge(list);
    return list;
  }

  private next(at: number): number {
    return at + frameOpBytes + align8(this.view.getUint32(at + 8, true));
  }

  private step(at: number, plan: WritePlan, to: number): void {
    const { view } = this;
    let depends = 0;
    let length = 0;
    let cellBytes = 0;
    switch (view.getUint8(at)) {
      case opKinds.read:
        plan[3]! += this.u64(at + 24);
        break;
      case opKinds.load:
        plan[3]! += this.u64(at + 24) * typeBytes[view.getUint8(at + 1)]!;
        break;
      case opKinds.write:
        length = view.getUint32(at + 8, true);
        break;
      case opKinds.store:
        length = view.getUint32(at + 8, true);
        plan[3]! += length;
        break;
      case opKinds.fill:
      case opKinds.copy:
        length = this.u64(at + 24);
        break;
      case opKinds.exchange:
      case opKinds.add:
      case opKinds.bit_and:
      case opKinds.bit_or:
      case opKinds.bit_xor:
      case opKinds.min:
      case opKinds.max:
        length = typeBytes[view.getUint8(at + 1)]!;
        break;
      case opKinds.cas:
        depends = ifSwapped;
        length = typeBytes[view.getUint8(at + 1)]!;
        break;
      case opKinds.append:
        depends = appends;
        length = view.getUint32(at + 8, true);
        cellBytes = typeBytes[view.getUint8(at + 1)]!;
        break;
      default:
        break;
    }
    plan[to] = view.getUint16(at + 4, true);
    plan[to + 1] = depends;
    plan[to + 2] = this.u64(at + 16);
    plan[to + 3] = length;
    plan[to + 4] = cellBytes;
  }

  private u64(at: number): number {
    const high = this.view.getUint32(at + 4, true);
    const low = this.view.getUint32(at, true);
    return high === 0 ? low : high * 2 ** 32 + low;
  }
}

function add(list: Ranges, offset: number, length: number): void {
  if (length === 0) return;
  list.pairs[list.count] = offset;
  list.pairs[list.count + 1] = length;
  list.count += 2;
}

/** Sorts, merges what overlaps or touches, and covers what is left with at most changeRangesMax ranges. */
export function merge(list: Ranges): void {
  const { pairs } = list;
  sort(list);
  let last = 0;
  for (let i = 2; i < list.count; i += 2) {
    const end = pairs[last]! + pairs[last + 1]!;
    if (pairs[i]! <= end) {
      pairs[last + 1] = Math.max(end, pairs[i]! + pairs[i + 1]!) - pairs[last]!;
    } else {
      last += 2;
      pairs[last] = pairs[i]!;
      pairs[last + 1] = pairs[i + 1]!;
    }
  }
  list.count = last + 2;
  const ranges = list.count / 2;
  if (ranges <= changeRangesMax) return;
  for (let group = 0; group < changeRangesMax; group++) {
    const from = 2 * Math.floor((group * ranges) / changeRangesMax);
    const to = 2 * Math.floor(((group + 1) * ranges) / changeRangesMax) - 2;
    const offset = pairs[from]!;
    pairs[2 * group + 1] = pairs[to]! + pairs[to + 1]! - offset;
    pairs[2 * group] = offset;
  }
  list.count = 2 * changeRangesMax;
}

function sort({ pairs, count }: Ranges): void {
  if (count > 2 * insertionMax) {
    const sorted: [number, number][] = [];
    for (let i = 0; i < count; i += 2) sorted.push([pairs[i]!, pairs[i + 1]!]);
    sorted.sort((left, right) => left[0] - right[0]);
    for (const [i, [offset, length]] of sorted.entries()) {
      pairs[2 * i] = offset;
      pairs[2 * i + 1] = length;
    }
    return;
  }
  for (let i = 2; i < count; i += 2) {
    const offset = pairs[i]!;
    if (pairs[i - 2]! <= offset) continue;
    const length = pairs[i + 1]!;
    let to = i;
    for (; to > 0 && pairs[to - 2]! > offset; to -= 2) {
      pairs[to] = pairs[to - 2]!;
      pairs[to + 1] = pairs[to - 1]!;
    }
    pairs[to] = offset;
    pairs[to + 1] = length;
  }
}
