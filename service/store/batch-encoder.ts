// batch-encoder.ts - a batch as JSON -> one frame for the storage core. It checks the shape and the values of every
// guard and op in the same pass and names each bad one; bounds, alignment and guards are the core's to judge.
//
// A schema validator before it would walk the same members a second time and could name only the first culprit of a
// union. The schemas of the API describe the same rules; a property test holds the two equal.
import { bits, isFloat, type Parsed, parseAddend, parseCell, typeBytes, typeNumber, writeRawCell } from "./cells.js";
import type { Etag, EtagCondition } from "./etags.js";
import type { Failure } from "./failure.js";
import {
  algorithms,
  compares,
  etagBytes,
  FrameWriter,
  frameDryRun,
  mismatches,
  opBigEndian,
  opCondition,
  opKinds,
  opNegate,
  opNegative,
  overflows,
  patternBytesMax,
  regionsPerBatchMax,
  waits,
} from "./frame.js";
import { isRegionName } from "./region-name.js";

export type Section = "guards" | "ops" | "elseOps";
type Members = Readonly<Record<string, unknown>>;

export interface EncoderLimits {
  opsMax: number;
  guardsMax: number;
}

/** What came with the request besides its body. */
export interface BatchConditions {
  ifMatch?: EtagCondition | undefined;
  ifNoneMatch?: EtagCondition | undefined;
  ifGeneration?: number | undefined;
}

/** Bytes that replace those at `offset`. */
export interface PlainWrite {
  offset: number;
  bytes: Uint8Array;
}

export interface IdempotencyKey {
  /** 16 bytes each. */
  key: Uint8Array;
  fingerprint: Uint8Array;
}

const batchMembers = new Set(["guards", "ops", "elseOps", "durability", "dryRun"]);
const none: readonly unknown[] = [];

/** One frame at a time; its memory is reused, so a frame must not be in use when the next one is begun. */
export class BatchEncoder {
  private readonly writer = new FrameWriter();
  /** Every bad guard and op of the last batch, in their order. */
  failures: Failure[] = [];
  /** Names in the order of the frame's regions; the path's own first. */
  regions: string[] = [];
  /** Guards that stand for conditions of the request's headers, in front of the batch's own. */
  conditionCount = 0;

  // The entry that is being encoded.
  private section: Section = "ops";
  private index = 0;
  private name: string | undefined;
  private inGuard = false;
  private members: Members = {};
  private readonly seen: string[] = [];
  private seenCount = 0;
  private bad = false;
  /** The request's path names the region, so its entries don't. */
  private fixedRegion = false;
  /** The batch's regions by name; undefined where there is only that one. */
  private numbers: Map<string, number> | undefined;
  /** Positions that a second attempt leaves out. */
  private left: Record<Section, Set<number>> | undefined;

  constructor(private readonly limits: EncoderLimits) {}

  /**
   * Encodes a parsed body. Undefined: `failures` says why. `region` is the one of the request's path; without it each
   * guard and op names its own.
   */
  encode(
    body: unknown,
    region: string | undefined,
    conditions: BatchConditions | undefined,
    key: IdempotencyKey | undefined,
  ): Uint8Array | undefined {
    if (this.failures.length > 0) this.failures = [];
    this.left = undefined;
    return this.run(body, region, conditions, key, false);
  }

  /**
   * After a failed encode() of the same arguments: only what is well-formed, as a dry run, so that the core can name
   * what is wrong with the rest. `kept` tells the position in the body of each position in the frame. Undefined: nothing
   * is left to ask about.
   */
  encodeRest(
    body: unknown,
    region: string | undefined,
  ): { frame: Uint8Array; kept: Record<Section, number[]> } | undefined {
    const failures = this.failures;
    const left = { guards: new Set<number>(), ops: new Set<number>(), elseOps: new Set<number>() };
    for (const { pointer = "", index } of failures) {
      const section = pointer.split("/")[1];
      if (index === undefined || (section !== "guards" && section !== "ops" && section !== "elseOps")) return undefined;
      left[section].add(index);
    }
    this.left = left;
    this.failures = [];
    const frame = this.run(body, region, undefined, undefined, true);
    this.failures = failures;
    if (frame === undefined) return undefined;
    const kept = (section: Section) => {
      const list = (body as Members)[section];
      return Array.isArray(list) ? [...list.keys()].filter((index) => !left[section].has(index)) : [];
    };
    return { frame, kept: { guards: kept("guards"), ops: kept("ops"), elseOps: kept("elseOps") } };
  }

  /** Writes of plain bytes, in their order. */
  encodeWrites(
    region: string,
    writes: readonly PlainWrite[],
    wait: (typeof waits)[number],
    conditions: BatchConditions | undefined,
    key: IdempotencyKey | undefined,
  ): Uint8Array {
    this.beginPlain(region);
    this.conditionCount = conditions === undefined ? 0 : this.conditions(conditions);
    for (const { offset, bytes } of writes) {
      const at = this.writer.entry(opKinds.write, 0, 0, 0, 0, 0);
      this.writer.offset(at, offset);
      this.writer.room(bytes.length);
      this.writer.bytes.set(bytes, this.writer.length);
      this.writer.data(at, bytes.length);
    }
    const count = writes.length;
    return this.writer.finish(1, this.conditionCount, count, 0, waits.indexOf(wait), 0, key?.key, key?.fingerprint);
  }

  /** Reads of one generation. */
  encodeReads(region: string, ranges: readonly { offset: number; length: number }[]): Uint8Array {
    this.beginPlain(region);
    this.conditionCount = 0;
    for (const { offset, length } of ranges) {
      const at = this.writer.entry(opKinds.read, 0, 0, 0, 0, 0);
      this.writer.offset(at, offset);
      this.writer.extent(at, length);
    }
    return this.writer.finish(1, 0, ranges.length, 0, 0, 0, undefined, undefined);
  }

  private beginPlain(region: string) {
    this.regions = [region];
    this.writer.begin(1);
    this.writer.region(0, region);
  }

  private run(
    body: unknown,
    region: string | undefined,
    conditions: BatchConditions | undefined,
    key: IdempotencyKey | undefined,
    dryRun: boolean,
  ): Uint8Array | undefined {
    if (!isObject(body)) return this.refuse("", "must be an object");
    const { guards, ops, elseOps, durability } = body;
    for (const member in body) {
      if (!batchMembers.has(member)) this.refuse(`/${member}`, "is not a member of a batch");
    }
    if (ops === undefined) this.refuse("/ops", "is missing");
    if (body.dryRun !== undefined && typeof body.dryRun !== "boolean") this.refuse("/dryRun", "must be a boolean");
    let wait = 0;
    if (durability !== undefined) {
      wait = typeof durability === "string" ? waits.indexOf(durability as (typeof waits)[number]) : -1;
      if (wait < 1) this.refuse("/durability", "must be fast, ordered or durable");
    }
    // Conditions of the headers are guards to the core, and count as such.
    const conditionCount = conditions === undefined ? 0 : Object.values(conditions).filter(Boolean).length;
    const guardList = this.list(guards, "guards", 0, this.limits.guardsMax - conditionCount);
    const opList = this.list(ops, "ops", 0, this.limits.opsMax);
    const elseList = this.list(elseOps, "elseOps", elseOps === undefined ? 0 : 1, this.limits.opsMax);
    if (this.failures.length > 0) return undefined;

    this.collectRegions(region, guardList, opList, elseList);
    if (this.failures.length > 0) return undefined;
    this.writer.begin(this.regions.length);
    for (let i = 0; i < this.regions.length; i++) this.writer.region(i, this.regions[i]!);
    this.conditionCount = conditions === undefined ? 0 : this.conditions(conditions);
    const guardCount = this.conditionCount + this.entries(guardList, "guards");
    const opCount = this.entries(opList, "ops");
    const elseCount = this.entries(elseList, "elseOps");
    if (this.failures.length > 0) return undefined;
    const flags = dryRun || body.dryRun === true ? frameDryRun : 0;
    return this.writer.finish(
      this.regions.length,
      guardCount,
      opCount,
      elseCount,
      wait,
      flags,
      key?.key,
      key?.fingerprint,
    );
  }

  private list(value: unknown, member: Section, min: number, max: number): readonly unknown[] {
    if (value === undefined) return none;
    if (!Array.isArray(value)) {
      this.refuse(`/${member}`, "must be an array");
      return none;
    }
    if (value.length < min) this.refuse(`/${member}`, "must not be empty");
    if (value.length > max) {
      this.failures.push({ pointer: `/${member}`, code: "too-many-ops", limit: max, actual: value.length });
    }
    return value;
  }

  private collectRegions(
    region: string | undefined,
    guards: readonly unknown[],
    ops: readonly unknown[],
    elseOps: readonly unknown[],
  ): void {
    const regions: string[] = region === undefined ? [] : [region];
    this.regions = regions;
    this.fixedRegion = region !== undefined;
    this.numbers = undefined;
    if (region !== undefined && !ops.some(isCopy) && !elseOps.some(isCopy)) return;
    let numbers: Map<string, number> | undefined;
    const add = (name: unknown) => {
      if (typeof name !== "string" || !isRegionName(name)) return;
      numbers ??= new Map(region === undefined ? [] : [[region, 0]]);
      if (numbers.has(name)) return;
      numbers.set(name, regions.length);
      regions.push(name);
    };
    for (const list of [ops, elseOps]) {
      for (let i = 0; i < list.length; i++) {
        const op = list[i] as Members | null;
        // The path's region is the only one unless a copy comes from elsewhere.
        if (!isObject(op) || (region !== undefined && op.op !== "copy")) continue;
        if (region === undefined) {
          add(op.region);
          if (isObject(op.guard)) add((op.guard as Members).region);
        }
        add(op.fromRegion);
      }
    }
    if (region === undefined) for (const guard of guards) if (isObject(guard)) add(guard.region);
    this.numbers = numbers;
    if (regions.length > regionsPerBatchMax) {
      const detail = "a batch may name at most this many regions";
      this.failures.push({
        pointer: "",
        code: "too-many-ops",
        detail,
        limit: regionsPerBatchMax,
        actual: regions.length,
      });
    } else if (regions.length === 0) {
      this.refuse("/ops", "must name at least one region");
    }
  }

  private conditions({ ifMatch, ifNoneMatch, ifGeneration }: BatchConditions): number {
    let count = 0;
    if (ifMatch !== undefined) {
      this.etags(ifMatch, opCondition);
      count++;
    }
    if (ifNoneMatch !== undefined) {
      this.etags(ifNoneMatch, opCondition | opNegate);
      count++;
    }
    if (ifGeneration !== undefined) {
      const at = this.writer.entry(opKinds.guard_generation, 0, opCondition, 0, 0, 0);
      this.writer.number(at + 32, ifGeneration);
      count++;
    }
    return count;
  }

  private etags(condition: EtagCondition, flags: number) {
    const at = this.writer.entry(opKinds.guard_etag, 0, flags, 0, 0, 0);
    if (condition === "*") return;
    // No data would mean "any": a list in which nothing can match is one tag that no region has.
    const tags: readonly Etag[] =
      condition.length === 0 ? [{ incarnation: 0, metaGeneration: 0, generation: 0 }] : condition;
    let to = this.writer.room(tags.length * etagBytes);
    for (const tag of tags) {
      this.writer.number(to, tag.incarnation);
      this.writer.number(to + 8, tag.metaGeneration);
      this.writer.number(to + 16, tag.generation);
      to += etagBytes;
    }
    this.writer.data(at, tags.length * etagBytes);
  }

  private entries(list: readonly unknown[], section: Section): number {
    this.section = section;
    const left = this.left?.[section];
    let count = 0;
    for (let index = 0; index < list.length; index++) {
      if (left?.has(index)) continue;
      const entry = list[index];
      const start = this.writer.length;
      this.index = index;
      this.bad = false;
      this.inGuard = false;
      this.seenCount = 0;
      if (!isObject(entry)) {
        this.name = undefined;
        this.fail("", "must be an object");
      } else {
        this.members = entry;
        if (section === "guards") {
          this.name = undefined;
          this.guard();
        } else {
          this.op();
        }
        if (!this.bad) this.checkMembers();
      }
      if (this.bad) this.writer.rewind(start);
      count++;
    }
    return count;
  }

  private op() {
    const op = this.take("op");
    this.name = typeof op === "string" ? op : undefined;
    switch (op) {
      case "read":
        return this.read();
      case "write":
        return this.write();
      case "fill":
        return this.fill();
      case "copy":
        return this.copy();
      case "load":
        return this.load();
      case "store":
        return this.store();
      case "exchange":
        return this.modify(opKinds.exchange, true);
      case "and":
        return this.modify(opKinds.bit_and, false);
      case "or":
        return this.modify(opKinds.bit_or, false);
      case "xor":
        return this.modify(opKinds.bit_xor, false);
      case "min":
        return this.modify(opKinds.min, true);
      case "max":
        return this.modify(opKinds.max, true);
      case "add":
        return this.add();
      case "cas":
        return this.cas();
      case "append":
        return this.append();
      case "assert": {
        const guard = this.take("guard");
        if (!isObject(guard)) return this.fail("guard", "must be a guard");
        this.checkMembers();
        if (this.bad) return;
        this.members = guard;
        this.inGuard = true;
        this.seenCount = 0;
        return this.guard();
      }
      default:
        return this.fail("op", "must be the name of an operation");
    }
  }

  private guard() {
    const region = this.region();
    switch (this.take("kind")) {
      case "generation": {
        const mode = this.choice("op", compares, undefined);
        const value = this.integer("value");
        if (this.bad) return;
        const at = this.writer.entry(opKinds.guard_generation, 0, 0, mode, region, 0);
        return this.writer.number(at + 32, value);
      }
      case "value": {
        const offset = this.integer("offset");
        const type = this.type("type");
        const flags = this.endian();
        const mode = this.choice("op", compares, undefined);
        this.cell("value", type);
        if (this.bad) return;
        const at = this.writer.entry(opKinds.guard_value, type, flags, mode, region, 0);
        this.writer.offset(at, offset);
        return this.writer.a(at, bits.low, bits.high);
      }
      case "bytes": {
        const offset = this.integer("offset");
        if (this.bad) return;
        const at = this.writer.entry(opKinds.guard_bytes, 0, 0, 0, region, 0);
        this.writer.offset(at, offset);
        return this.bytes(at, "equals", this.encoding());
      }
      case "digest": {
        const offset = this.integer("offset");
        const length = this.integer("length");
        const mode = this.choice("algorithm", algorithms, undefined);
        if (this.bad) return;
        const at = this.writer.entry(opKinds.guard_digest, 0, 0, mode, region, 0);
        this.writer.offset(at, offset);
        this.writer.extent(at, length);
        return this.bytes(at, "equals", this.choice("encoding", encodings, 1));
      }
      default:
        return this.fail("kind", "must be generation, value, bytes or digest");
    }
  }

  private read() {
    const region = this.region();
    const offset = this.integer("offset");
    const length = this.integer("length");
    this.encoding();
    if (this.bad) return;
    const at = this.writer.entry(opKinds.read, 0, 0, 0, region, 0);
    this.writer.offset(at, offset);
    this.writer.extent(at, length);
  }

  private write() {
    const region = this.region();
    const offset = this.integer("offset");
    const encoding = this.encoding();
    if (this.bad) return;
    const at = this.writer.entry(opKinds.write, 0, 0, 0, region, 0);
    this.writer.offset(at, offset);
    this.bytes(at, "data", encoding);
  }

  private fill() {
    const region = this.region();
    const offset = this.integer("offset");
    const length = this.integer("length");
    if (this.bad) return;
    const at = this.writer.entry(opKinds.fill, 0, 0, 0, region, 0);
    this.writer.offset(at, offset);
    this.writer.extent(at, length);
    const start = this.writer.length;
    this.bytes(at, "pattern", 1);
    if (this.bad) return;
    const pattern = this.members.pattern as string;
    if (this.writer.length === start) this.fail("pattern", "must not be empty");
    else if (pattern.length > 2 * patternBytesMax) this.fail("pattern", `may have at most ${patternBytesMax} bytes`);
  }

  private copy() {
    const region = this.region();
    const from = this.integer("from");
    const to = this.integer("to");
    const length = this.integer("length");
    const fromRegion =
      this.members.fromRegion === undefined ? region : this.regionOf(this.take("fromRegion"), "fromRegion");
    if (this.bad) return;
    const at = this.writer.entry(opKinds.copy, 0, 0, 0, region, fromRegion);
    this.writer.offset(at, to);
    this.writer.extent(at, length);
    this.writer.number(at + 32, from);
  }

  private load() {
    const region = this.region();
    const offset = this.integer("offset");
    const type = this.type("type");
    const flags = this.endian();
    const count = this.members.count === undefined ? 1 : this.integer("count");
    if (!this.bad && count === 0) this.fail("count", "must be at least 1");
    if (this.bad) return;
    const at = this.writer.entry(opKinds.load, type, flags, 0, region, 0);
    this.writer.offset(at, offset);
    this.writer.extent(at, count);
  }

  private store() {
    const region = this.region();
    const offset = this.integer("offset");
    const type = this.type("type");
    const flags = this.endian();
    if (this.bad) return;
    const at = this.writer.entry(opKinds.store, type, flags, 0, region, 0);
    this.writer.offset(at, offset);
    const size = typeBytes[type]!;
    if (this.members.values === undefined) {
      this.cell("value", type);
      if (this.bad) return;
      const to = this.writer.room(size);
      writeRawCell(this.writer.bytes, to, type, flags !== 0);
      return this.writer.data(at, size);
    }
    const values = this.take("values");
    if (!Array.isArray(values) || values.length === 0) return this.fail("values", "must be an array of numbers");
    const to = this.writer.room(values.length * size);
    for (let i = 0; i < values.length; i++) {
      this.parsed(parseCell(values[i], type), `values/${i}`, values[i]);
      if (this.bad) return;
      writeRawCell(this.writer.bytes, to + i * size, type, flags !== 0);
    }
    this.writer.data(at, values.length * size);
  }

  private modify(kind: number, floats: boolean) {
    const region = this.region();
    const offset = this.integer("offset");
    const type = this.type("type");
    const flags = this.endian();
    if (!this.bad && !floats && isFloat(type)) this.fail("type", "must be an integer type");
    this.cell("value", type);
    if (this.bad) return;
    const at = this.writer.entry(kind, type, flags, 0, region, 0);
    this.writer.offset(at, offset);
    this.writer.a(at, bits.low, bits.high);
  }

  private add() {
    const region = this.region();
    const offset = this.integer("offset");
    const type = this.type("type");
    const flags = this.endian();
    const mode = this.choice("overflow", overflows, 0);
    if (this.bad) return;
    const value = this.take("value");
    this.parsed(parseAddend(value, type), "value", value);
    if (this.bad) return;
    const at = this.writer.entry(opKinds.add, type, flags | (bits.negative ? opNegative : 0), mode, region, 0);
    this.writer.offset(at, offset);
    this.writer.a(at, bits.low, bits.high);
  }

  private cas() {
    const region = this.region();
    const offset = this.integer("offset");
    const type = this.type("type");
    const flags = this.endian();
    const mode = this.choice("onMismatch", mismatches, 0);
    this.cell("expected", type);
    const { low, high } = bits;
    this.cell("value", type);
    if (this.bad) return;
    const at = this.writer.entry(opKinds.cas, type, flags, mode, region, 0);
    this.writer.offset(at, offset);
    this.writer.a(at, low, high);
    this.writer.b(at, bits.low, bits.high);
  }

  private append() {
    const region = this.region();
    const offset = this.integer("cursorOffset");
    const type = this.members.cursorType === undefined ? 3 : this.type("cursorType");
    const flags = this.endian();
    if (!this.bad && type > 3) this.fail("cursorType", "must be u8, u16, u32 or u64");
    const encoding = this.encoding();
    if (this.bad) return;
    const at = this.writer.entry(opKinds.append, type, flags, 0, region, 0);
    this.writer.offset(at, offset);
    this.bytes(at, "data", encoding);
  }

  // ---- members -----------------------------------------------------------------------------------------------------

  private take(member: string): unknown {
    const value = this.members[member];
    if (value !== undefined) this.seen[this.seenCount++] = member;
    return value;
  }

  /** Every member that is there must have been asked for. */
  private checkMembers() {
    let count = 0;
    for (const _ in this.members) count++;
    if (count === this.seenCount) return;
    const known = this.seen.slice(0, this.seenCount);
    const unknown = Object.keys(this.members).find((member) => !known.includes(member));
    this.fail(unknown!, "is not a member of this operation");
  }

  private integer(member: string): number {
    const value = this.take(member);
    if (typeof value === "number" && value >= 0 && Number.isSafeInteger(value)) return value;
    this.fail(member, value === undefined ? "is missing" : "must be a whole number from 0 to 2^53 - 1");
    return 0;
  }

  private choice(member: string, choices: readonly string[], fallback: number | undefined): number {
    const value = this.take(member);
    if (value === undefined && fallback !== undefined) return fallback;
    const index = typeof value === "string" ? choices.indexOf(value) : -1;
    if (index < 0) this.fail(member, `must be one of ${choices.join(", ")}`);
    return index;
  }

  private endian(): number {
    return this.members.endian === undefined ? 0 : this.choice("endian", endians, 0) * opBigEndian;
  }

  private encoding(): number {
    return this.members.encoding === undefined ? 0 : this.choice("encoding", encodings, 0);
  }

  private type(member: string): number {
    const type = typeNumber(this.take(member));
    if (type !== undefined) return type;
    this.fail(member, "must be one of u8, u16, u32, u64, i8, i16, i32, i64, f32, f64");
    return 0;
  }

  private cell(member: string, type: number) {
    const value = this.take(member);
    if (!this.bad) this.parsed(parseCell(value, type), member, value);
  }

  private parsed(outcome: Parsed, member: string, value: unknown) {
    if (outcome === "ok") return;
    if (outcome === "out-of-range") this.fail(member, "does not fit its type", "value-out-of-range");
    else
      this.fail(
        member,
        value === undefined ? "is missing" : "must be a number: a safe integer, or its digits in a string",
      );
  }

  private region(): number {
    return this.fixedRegion ? 0 : this.regionOf(this.take("region"), "region");
  }

  private regionOf(name: unknown, member: string): number {
    const index = typeof name === "string" ? this.numbers?.get(name) : undefined;
    if (index === undefined) this.fail(member, name === undefined ? "is missing" : "must be a region's name");
    return index ?? 0;
  }

  /** Appends what a member encodes as the entry's data. */
  private bytes(entry: number, member: string, encoding: number) {
    const text = this.take(member);
    if (this.bad) return;
    if (typeof text !== "string") return this.fail(member, text === undefined ? "is missing" : "must be a string");
    const size = text.length;
    const { writer } = this;
    if (encoding === base64) {
      const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
      const expected = (size >> 2) * 3 - padding;
      const to = writer.room((size >> 2) * 3 + 3);
      // Node decodes what it can: only the count tells whether that was all.
      if (size % 4 !== 0 || writer.bytes.write(text, to, "base64") !== expected)
        return this.fail(member, "must be base64");
      return writer.data(entry, expected);
    }
    if (encoding === hex) {
      const to = writer.room(size >> 1);
      if (size % 2 !== 0 || writer.bytes.write(text, to, "hex") !== size >> 1)
        return this.fail(member, "must be hex digits, two a byte");
      return writer.data(entry, size >> 1);
    }
    const to = writer.room(size * 3);
    writer.data(entry, writer.bytes.write(text, to, "utf8"));
  }

  // ---- failures ----------------------------------------------------------------------------------------------------

  /** One a guard or op: its first. */
  private fail(member: string, detail: string, code = "validation-failed") {
    if (this.bad) return;
    this.bad = true;
    const path = `/${this.section}/${this.index}${this.inGuard ? "/guard" : ""}`;
    const failure: Failure = { index: this.index, pointer: member === "" ? path : `${path}/${member}`, code, detail };
    if (this.name !== undefined) failure.op = this.name;
    this.failures.push(failure);
  }

  private refuse(pointer: string, detail: string): undefined {
    this.failures.push({ pointer, code: "validation-failed", detail });
  }
}

export const encodings = ["base64", "hex", "utf8"] as const;
const endians = ["little", "big"] as const;
const base64 = 0;
const hex = 1;

const isCopy = (op: unknown) => isObject(op) && op.op === "copy";

function isObject(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
