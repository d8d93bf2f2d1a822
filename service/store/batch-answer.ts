// batch-answer.ts - an answer frame -> the text of its JSON, or every failure with a pointer into the batch.
//
// The text is put together here rather than by a serializer: results are many, small and of known shapes, and this is
// on the path of every batch.

import { type CellValue, cellText, cellValue, rawCellText, typeBytes, typeNumber } from "./cells.js";
import type { Etag } from "./etags.js";
import type { Failure } from "./failure.js";
import {
  align8,
  answerCommitted,
  answerFailureBytes,
  answerHeaderBytes,
  answerMagic,
  answerRegionBytes,
  answerReplayed,
  answerResultBytes,
  opKinds,
  resultOverflowed,
  resultSwapped,
} from "./frame.js";

type Members = Readonly<Record<string, unknown>>;
interface Body {
  guards?: readonly Members[];
  ops?: readonly Members[];
  elseOps?: readonly Members[];
}

const sections = ["request", "guards", "ops", "elseOps"] as const;
const fields = [undefined, "offset", "length", "value", "from", "data", "type", "region", "pattern", "count", "equals"];

/** What a batch left of one of its regions. */
export interface RegionTag extends Etag {
  durableGeneration: number;
  size: number;
}

/** Reads one answer at a time, in place: it must stay as it is until the last question about it. */
export class AnswerReader {
  private bytes: Uint8Array = new Uint8Array();
  private view = new DataView(this.bytes.buffer);

  open(bytes: Uint8Array): void {
    // Most answers come in the same memory.
    if (bytes.buffer !== this.view.buffer || bytes.byteOffset !== this.view.byteOffset) {
      this.view = new DataView(bytes.buffer, bytes.byteOffset);
    }
    this.bytes = bytes;
    if (this.u32(0) !== answerMagic) throw new Error("the storage core's answer is not a frame");
  }

  /** Number of a code in native/status.h; 0: done. */
  get code(): number {
    return this.view.getUint16(4, true);
  }
  get committed(): boolean {
    return (this.bytes[7]! & answerCommitted) !== 0;
  }
  get replayed(): boolean {
    return (this.bytes[7]! & answerReplayed) !== 0;
  }
  get limit(): number {
    return this.u64(24);
  }
  get actual(): number {
    return this.u64(32);
  }
  tag(region: number): RegionTag {
    const at = answerHeaderBytes + region * answerRegionBytes;
    return {
      incarnation: this.u64(at),
      metaGeneration: this.u64(at + 8),
      generation: this.u64(at + 16),
      durableGeneration: this.u64(at + 24),
      size: this.u64(at + 32),
    };
  }

  private u32(at: number): number {
    return this.view.getUint32(at, true);
  }
  /** Generations, sizes and counts stay below 2^53. */
  private u64(at: number): number {
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32;
  }

  /** Positions of results in the answer, for who walks along them. */
  firstResult(): number {
    return answerHeaderBytes + this.view.getUint16(8, true) * answerRegionBytes;
  }
  nextResult(at: number): number {
    return at + answerResultBytes + align8(this.u32(at + 4));
  }
  isSwapped(result: number): boolean {
    return (this.bytes[result + 2]! & resultSwapped) !== 0;
  }
  /** A result's first number: where an append went. */
  firstNumber(result: number): number {
    return this.u64(result + 8);
  }

  /** The name of the branch that ran. */
  get branch(): "ops" | "elseOps" {
    return this.bytes[6] === 1 ? "elseOps" : "ops";
  }

  /** Only when `code` is 0. `body` is the batch that was sent: it says how results are to be written. */
  results(body: Body): string {
    const count = this.u32(12);
    const ops = body[this.branch]!;
    let at = this.firstResult();
    let text = "[";
    for (let i = 0; i < count; i++) {
      if (i > 0) text += ",";
      text += this.result(at, ops[i]!);
      at = this.nextResult(at);
    }
    return `${text}]`;
  }

  /** A copy of each result's bytes. */
  parts(): Buffer[] {
    const parts: Buffer[] = [];
    let at = this.firstResult();
    for (let count = this.u32(12); count > 0; count--) {
      const start = at + answerResultBytes;
      const length = this.u32(at + 4);
      parts.push(Buffer.from(this.slice(start, start + length)));
      at = start + align8(length);
    }
    return parts;
  }

  private slice(start: number, end: number): Buffer {
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, end - start);
  }

  private result(at: number, op: Members): string {
    const type = this.bytes[at + 1]!;
    const flags = this.bytes[at + 2]!;
    switch (this.bytes[at]) {
      case opKinds.read:
        return `{"data":${this.data(at, op)}}`;
      case opKinds.write:
      case opKinds.fill:
      case opKinds.copy:
        return `{"bytes":${this.u64(at + 8)}}`;
      case opKinds.load:
        return op.count === undefined
          ? `{"value":${this.cells(at, op, type)}}`
          : `{"values":[${this.cells(at, op, type)}]}`;
      case opKinds.store:
        return op.values === undefined
          ? `{"old":${this.cells(at, op, type)}}`
          : `{"old":[${this.cells(at, op, type)}]}`;
      case opKinds.add:
        return `{"old":${this.cell(at + 8, type)},"new":${this.cell(at + 16, type)},"overflowed":${(flags & resultOverflowed) !== 0}}`;
      case opKinds.exchange:
      case opKinds.bit_and:
      case opKinds.bit_or:
      case opKinds.bit_xor:
      case opKinds.min:
      case opKinds.max:
        return `{"old":${this.cell(at + 8, type)},"new":${this.cell(at + 16, type)}}`;
      case opKinds.cas:
        return `{"swapped":${(flags & resultSwapped) !== 0},"actual":${this.cell(at + 8, type)}}`;
      case opKinds.append:
        return `{"at":${this.u64(at + 8)},"next":${this.u64(at + 16)}}`;
      default:
        return "{}";
    }
  }

  private cell(at: number, type: number): string {
    return cellText(this.u32(at), this.u32(at + 4), type);
  }

  private data(at: number, op: Members): string {
    const start = at + answerResultBytes;
    const end = start + this.u32(at + 4);
    const bytes = this.slice(start, end);
    // Only utf8 can hold what JSON has to escape.
    if (op.encoding === "utf8") return JSON.stringify(bytes.toString("utf8"));
    return `"${bytes.toString(op.encoding === "hex" ? "hex" : "base64")}"`;
  }

  private cells(at: number, op: Members, type: number): string {
    const start = at + answerResultBytes;
    const end = start + this.u32(at + 4);
    const size = typeBytes[type]!;
    const bigEndian = op.endian === "big";
    let text = rawCellText(this.bytes, start, type, bigEndian);
    for (let cell = start + size; cell < end; cell += size)
      text += `,${rawCellText(this.bytes, cell, type, bigEndian)}`;
    return text;
  }

  /**
   * Only when `code` is not 0. `conditionCount` guards in front of the batch's own came from the request's headers;
   * `kept` tells the position in the body of each position in the frame where they differ; `names` spells the codes.
   */
  failures(
    body: Body,
    regions: readonly string[],
    conditionCount: number,
    names: (code: number) => string,
    kept?: Record<"guards" | "ops" | "elseOps", readonly number[]>,
  ): Failure[] {
    let at = this.firstResult();
    const resultCount = this.u32(12);
    for (let i = 0; i < resultCount; i++) at = this.nextResult(at);
    const failures: Failure[] = [];
    const failureCount = this.u32(16);
    for (let i = 0; i < failureCount; i++, at += answerFailureBytes) {
      const code = names(this.view.getUint16(at + 4, true));
      const section = sections[this.bytes[at + 6]!]!;
      const position = this.u32(at);
      if (section === "request") {
        const region = regions[position];
        failures.push(region === undefined ? { code } : { code, detail: `region ${region}` });
        continue;
      }
      const inFrame = section === "guards" ? position - conditionCount : position;
      if (inFrame < 0) {
        // An entity tag is three numbers; of a generation both are told, as for a read.
        const expected = code === "generation-mismatch" ? { limit: this.u64(at + 8) } : {};
        failures.push({ code, ...expected, actual: this.u64(at + 16) });
        continue;
      }
      const index = kept?.[section][inFrame] ?? inFrame;
      // Frames of plain bytes have no body to look the operation up in.
      failures.push(this.failure(at, code, section, index, body[section]?.[index] ?? {}));
    }
    return failures;
  }

  private failure(at: number, code: string, section: string, index: number, entry: Members): Failure {
    const isAssert = entry.op === "assert";
    const what = isAssert ? (entry.guard as Members) : entry;
    const member = memberOf(fields[this.bytes[at + 7]!], what);
    const pointer = `/${section}/${index}${isAssert ? "/guard" : ""}${member === undefined ? "" : `/${member}`}`;
    const failure: Failure = { index, pointer, code };
    if (section !== "guards" && typeof entry.op === "string") failure.op = entry.op;
    const limit = this.quantity(at + 8, code, what);
    const actual = this.quantity(at + 16, code, what);
    // Two zeros are how the core says that there is nothing to tell.
    if (limit !== 0 || actual !== 0) {
      failure.limit = limit;
      failure.actual = actual;
    }
    return failure;
  }

  /** A cell where cells were compared, else a number of bytes, a position or a generation. */
  private quantity(at: number, code: string, entry: Members): CellValue {
    const low = this.u32(at);
    const high = this.u32(at + 4);
    const type = typeNumber(entry.type ?? entry.cursorType);
    const comparesCells =
      code === "cas-mismatch" || code === "overflow" || code === "guard-failed" || code === "value-out-of-range";
    if (comparesCells && type !== undefined && (entry.kind === undefined || entry.kind === "value")) {
      return cellValue(low, high, type);
    }
    return high < 2 ** 21 ? high * 2 ** 32 + low : cellValue(low, high, 3);
  }
}

/** The core has one word for a field; the API's word depends on the operation. */
function memberOf(field: string | undefined, entry: Members): string | undefined {
  switch (field) {
    case "offset":
      return entry.op === "append" ? "cursorOffset" : entry.op === "copy" ? "to" : "offset";
    case "type":
      return entry.op === "append" ? "cursorType" : "type";
    case "equals":
      return entry.op === "cas" ? "expected" : "equals";
    case "data":
      return entry.op === "store" ? (entry.values === undefined ? "value" : "values") : "data";
    case "region":
      return entry.region === undefined ? undefined : "region";
    default:
      return field;
  }
}
