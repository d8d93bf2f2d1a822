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

/** What a batch will write if it commits: its number of regions and of `ops`, and a step for each op and else-op. */
export type WritePlan = number[];

export class ChangedRanges {
  private view: DataView = new DataView(new ArrayBuffer(0));
  private readonly lists: number[][] = [];

  /** Reads a frame, into `plan` if there is one to be reused. */
  plan(frame: Uint8Array, plan: WritePlan = []): WritePlan {
    if (frame.buffer !== this.view.buffer || frame.byteOffset !== this.view.byteOffset) {
      this.view = new DataView(frame.buffer, frame.byteOffset);
    }
    const { view } = this;
    const regionCount = view.getUint16(12, true);
    const guardCount = view.getUint16(14, true);
    const opCount = view.getUint32(16, true);
    const count = opCount + view.getUint32(20, true);
    plan.length = 0;
    plan.push(regionCount, opCount);
    let at = frameHeaderBytes + regionCount * frameRegionBytes;
    for (let i = 0; i < guardCount; i++) at = this.next(at);
    for (let i = 0; i < count; i++) {
      this.step(at, plan);
      at = this.next(at);
    }
    return plan;
  }

  /**
   * What a batch that has committed wrote, by the answer that is open in `answer`. The answer of a batch that committed and
   * failed all the same has no results: then whatever it may have written counts.
   */
  resolve(plan: WritePlan, answer: AnswerReader): void {
    const regionCount = plan[0]!;
    for (let region = 0; region < regionCount; region++) {
      const list = this.lists[region];
      if (list === undefined) this.lists[region] = [];
      else list.length = 0;
    }
    const opsEnd = 2 + plan[1]! * stepNumbers;
    const failed = answer.code !== 0;
    const start = !failed && answer.branch === "elseOps" ? opsEnd : 2;
    const end = !failed && answer.branch === "ops" ? opsEnd : plan.length;
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

  /**
   * Offset and length of each range of one of the frame's regions, in pairs, by offset and apart from each other. Empty:
   * nothing of it was written. Valid until the next resolve().
   */
  of(region: number): readonly number[] {
    const list = this.lists[region]!;
    if (list.length > 2) merge(list);
    return list;
  }

  private next(at: number): number {
    return at + frameOpBytes + align8(this.view.getUint32(at + 8, true));
  }

  private step(at: number, plan: WritePlan): void {
    const { view } = this;
    const region = view.getUint16(at + 4, true);
    const offset = this.u64(at + 16);
    switch (view.getUint8(at)) {
      case opKinds.write:
      case opKinds.store:
        plan.push(region, 0, offset, view.getUint32(at + 8, true), 0);
        break;
      case opKinds.fill:
      case opKinds.copy:
        plan.push(region, 0, offset, this.u64(at + 24), 0);
        break;
      case opKinds.exchange:
      case opKinds.add:
      case opKinds.bit_and:
      case opKinds.bit_or:
      case opKinds.bit_xor:
      case opKinds.min:
      case opKinds.max:
        plan.push(region, 0, offset, this.cellBytes(at), 0);
        break;
      case opKinds.cas:
        plan.push(region, ifSwapped, offset, this.cellBytes(at), 0);
        break;
      case opKinds.append:
        plan.push(region, appends, offset, view.getUint32(at + 8, true), this.cellBytes(at));
        break;
      default:
        plan.push(region, 0, 0, 0, 0);
    }
  }

  private cellBytes(at: number): number {
    return typeBytes[this.view.getUint8(at + 1)]!;
  }

  private u64(at: number): number {
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32;
  }
}

function add(list: number[], offset: number, length: number): void {
  if (length > 0) list.push(offset, length);
}

/** Sorts, merges what overlaps or touches, and covers what is left with at most changeRangesMax ranges. */
export function merge(list: number[]): void {
  sort(list);
  let last = 0;
  for (let i = 2; i < list.length; i += 2) {
    const end = list[last]! + list[last + 1]!;
    if (list[i]! <= end) {
      list[last + 1] = Math.max(end, list[i]! + list[i + 1]!) - list[last]!;
    } else {
      last += 2;
      list[last] = list[i]!;
      list[last + 1] = list[i + 1]!;
    }
  }
  list.length = last + 2;
  const count = list.length / 2;
  if (count <= changeRangesMax) return;
  for (let group = 0; group < changeRangesMax; group++) {
    const from = 2 * Math.floor((group * count) / changeRangesMax);
    const to = 2 * Math.floor(((group + 1) * count) / changeRangesMax) - 2;
    const offset = list[from]!;
    list[2 * group + 1] = list[to]! + list[to + 1]! - offset;
    list[2 * group] = offset;
  }
  list.length = 2 * changeRangesMax;
}

function sort(list: number[]): void {
  if (list.length > 2 * insertionMax) {
    const pairs: [number, number][] = [];
    for (let i = 0; i < list.length; i += 2) pairs.push([list[i]!, list[i + 1]!]);
    pairs.sort((left, right) => left[0] - right[0]);
    for (const [i, [offset, length]] of pairs.entries()) {
      list[2 * i] = offset;
      list[2 * i + 1] = length;
    }
    return;
  }
  for (let i = 2; i < list.length; i += 2) {
    const offset = list[i]!;
    const length = list[i + 1]!;
    let to = i;
    for (; to > 0 && list[to - 2]! > offset; to -= 2) {
      list[to] = list[to - 2]!;
      list[to + 1] = list[to - 1]!;
    }
    list[to] = offset;
    list[to + 1] = length;
  }
}
