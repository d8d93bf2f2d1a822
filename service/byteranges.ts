// byteranges.ts - byte-range patches, as draft-ietf-httpapi-patch-byterange-03 ("Byte Range PATCH") has them: a body in one
// of three media types -> parts, each a place in a region and the bytes that go there.
//
// There is one grammar a media type, written as a generator that yields what it has found, and nothing when it needs more of
// the body. So the same code reads a body that is there whole, without copying it, and one that is still arriving; and of the
// latter it keeps no more than a part's fields or a boundary's length. Whatever the bytes are, the outcome is a Problem.
import { Problem } from "./errors.js";
import type { Failure } from "./store/failure.js";
import { parseItem } from "./structured-fields.js";

export const patchTypes = ["message/byterange", "multipart/byteranges", "application/byteranges"] as const;
type PatchType = (typeof patchTypes)[number];
/** As the header Accept-Patch has it (RFC 5789). */
export const acceptPatch = patchTypes.join(", ");

/** All fields of one part together. */
const fieldsBytesMax = 8192;

export type PatchEvent =
  /** A part begins that writes at `offset`. `length`: known from its fields. `size`: the complete length that it names. */
  | { kind: "write"; index: number; offset: number; length: number | undefined; size: number | undefined }
  /** A part that is nothing but a new size in bytes. */
  | { kind: "resize"; index: number; size: number }
  /** More bytes of the part that began last; never more than its length. They are the caller's, but not a copy. */
  | { kind: "bytes"; bytes: Buffer }
  /** Its last byte was there. */
  | { kind: "end" }
  /** This part can't be done. Further parts may follow; bytes of this one don't, except those that came before. */
  | { kind: "failure"; failure: Failure };

/**
 * Reads one patch: push() what there is of the body, then take events until there is none; finish() when that was all.
 * The body's grammar is broken: next() throws the Problem, and nothing more can be read.
 */
export class PatchReader {
  private readonly input = new Input();
  private readonly grammar: Grammar;
  private index = -1;
  /** What the fields say of the part that is being read, and how much of it there was. */
  private expected: number | undefined;
  private actual = 0;
  private failed = false;

  /** @throws Problem unsupported-media-type, header-invalid */
  constructor(
    contentType: string | undefined,
    private readonly partsMax: number,
  ) {
    const type = patchTypeOf(contentType);
    if (type === undefined) throw unsupported(contentType);
    if (type === "multipart/byteranges") this.grammar = multipart(this.input, boundaryOf(contentType!));
    else this.grammar = type === "message/byterange" ? message(this.input) : binary(this.input);
  }

  /** The bytes must stay as they are for as long as events about them are used. */
  push(chunk: Buffer): void {
    this.input.push(chunk);
  }

  finish(): void {
    this.input.over = true;
  }

  /** Undefined: it needs more, or, after finish(), that was the last one. @throws Problem malformed-byterange, too-many-ops */
  next(): PatchEvent | undefined {
    for (;;) {
      const { done, value: found } = this.grammar.next();
      if (done === true || found === undefined) return undefined;
      const event = this.take(found);
      if (event !== undefined) return event;
    }
  }

  private take(found: Found): PatchEvent | undefined {
    if (found.kind === "fields") {
      if (++this.index === this.partsMax) throw tooManyParts(this.partsMax);
      this.actual = 0;
      const target = targetOf(found.fields, this.index);
      this.failed = target.kind === "failure";
      this.expected = target.kind === "write" ? target.length : 0;
      return target;
    }
    if (found.kind === "bytes") {
      const before = this.actual;
      this.actual += found.bytes.length;
      if (this.failed) return undefined;
      const room = this.expected === undefined ? found.bytes.length : this.expected - before;
      return room <= 0 ? undefined : { kind: "bytes", bytes: found.bytes.subarray(0, room) };
    }
    if (this.failed) return undefined;
    if (this.expected === undefined || this.expected === this.actual) return { kind: "end" };
    const failure = {
      index: this.index,
      code: "malformed-byterange",
      detail: "the part's bytes are not as many as its fields say",
      limit: this.expected,
      actual: this.actual,
    };
    return { kind: "failure", failure };
  }
}

/** The media type of a patch; undefined for any other. */
export function patchTypeOf(contentType: string | undefined): PatchType | undefined {
  const [type] = (contentType ?? "")
    .trim()
    .toLowerCase()
    .split(/[ \t]*;/, 1);
  return patchTypes.find((known) => known === type);
}

export function unsupported(contentType: string | undefined): Problem {
  return new Problem(
    "unsupported-media-type",
    `send ${acceptPatch}, not ${contentType ?? "a body without Content-Type"}`,
    { headers: { "accept-patch": acceptPatch } },
  );
}

/** RFC 2046, 5.1.1: up to 70 characters, the last of which is no space. */
function boundaryOf(contentType: string): string {
  const match = /;[ \t]*boundary=(?:"([^"]*)"|([^\s";,]+))/i.exec(contentType);
  const boundary = match?.[1] ?? match?.[2] ?? "";
  if (/^[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]$/.test(boundary)) return boundary;
  throw new Problem("header-invalid", "Content-Type must name a boundary of 1 to 70 characters");
}

// ---- what a part's fields mean -------------------------------------------------------------------------------------

type Fields = ReadonlyMap<string, string>;
type Target = Extract<PatchEvent, { kind: "write" | "resize" | "failure" }>;

/** Other fields than these say nothing about the write and are ignored, as the draft wants it. */
function targetOf(fields: Fields, index: number): Target {
  const fail = (code: string, detail: string, more: Partial<Failure> = {}): Target => ({
    kind: "failure",
    failure: { index, code, detail, ...more },
  });
  const range = fields.get("content-range");
  const offset = fields.get("content-offset");
  const announced = fields.get("content-length");
  if (range === undefined && offset === undefined) {
    return fail("byterange-missing", "the part has neither Content-Range nor Content-Offset");
  }
  if (range !== undefined && offset !== undefined) {
    return fail("malformed-byterange", "the part has both Content-Range and Content-Offset");
  }
  const target = range === undefined ? offsetOf(offset!, index) : rangeOf(range, index);
  if (typeof target === "string") return fail("malformed-byterange", target);
  if (target === undefined) return fail("byterange-missing", "the unit of the part's range is not bytes");
  if (announced === undefined) return target;
  const length = /^\d{1,15}$/.test(announced) ? Number(announced) : undefined;
  if (length === undefined) return fail("malformed-byterange", "Content-Length must be a whole number");
  const limit = target.kind === "write" ? target.length : 0;
  if (limit === undefined) return { ...target, length } as Target;
  if (limit === length) return target;
  return fail("malformed-byterange", "Content-Length is not what Content-Range says", { limit, actual: length });
}

/** Text: what is wrong with it. Undefined: a unit that is not known here. */
function rangeOf(value: string, index: number): Target | string | undefined {
  const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) +(?:(\d{1,16})-(\d{1,16})|\*)\/(?:(\d{1,16})|\*)$/.exec(value);
  if (match === null) return "Content-Range must be bytes FIRST-LAST/*, bytes FIRST-LAST/SIZE or bytes */SIZE";
  if (match[1]!.toLowerCase() !== "bytes") return undefined;
  const size = match[4] === undefined ? undefined : Number(match[4]);
  if (match[2] === undefined) {
    return size === undefined ? "Content-Range names neither a range nor a size" : { kind: "resize", index, size };
  }
  const first = Number(match[2]);
  const last = Number(match[3]);
  if (last < first) return "Content-Range ends before it begins";
  if (!Number.isSafeInteger(last)) return "Content-Range ends beyond 2^53 - 1";
  if (size !== undefined && size <= last) return "Content-Range ends beyond the size that it names";
  return { kind: "write", index, offset: first, length: last - first + 1, size };
}

/** Likewise. */
function offsetOf(value: string, index: number): Target | string | undefined {
  const parsed = parseItem(value);
  if (parsed?.item.kind !== "integer" || parsed.item.value < 0) return "Content-Offset must be a whole number";
  const unit = parsed.parameters.get("unit");
  if (unit !== undefined && (unit.kind === "string" || unit.kind === "token" ? unit.value : "") !== "bytes") {
    return undefined;
  }
  const complete = parsed.parameters.get("complete-length");
  if (complete !== undefined && (complete.kind !== "integer" || complete.value < 0)) {
    return "complete-length must be a whole number";
  }
  return { kind: "write", index, offset: parsed.item.value, length: undefined, size: complete?.value as number };
}

// ---- grammars ------------------------------------------------------------------------------------------------------

type Found = { kind: "fields"; fields: Fields } | { kind: "bytes"; bytes: Buffer } | { kind: "end" };
/** Undefined: more of the body is needed. */
type Grammar = Generator<Found | undefined, void, void>;
type Reading<T> = Generator<undefined, T, void>;

/** What has arrived of a body and was not read yet. */
class Input {
  private bytes: Buffer = Buffer.alloc(0);
  private at = 0;

  constructor(
    bytes?: Buffer,
    /** Nothing more will come. */
    public over = false,
  ) {
    if (bytes !== undefined) this.bytes = bytes;
  }

  push(chunk: Buffer): void {
    this.bytes = this.left === 0 ? chunk : Buffer.concat([this.bytes.subarray(this.at), chunk]);
    this.at = 0;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  /** Position of `what` counted from here; -1: not in what has arrived. */
  find(what: Buffer | number, from = 0): number {
    const found = this.bytes.indexOf(what, this.at + from);
    return found === -1 ? -1 : found - this.at;
  }

  startsWith(what: Buffer): boolean {
    return this.left >= what.length && this.bytes.compare(what, 0, what.length, this.at, this.at + what.length) === 0;
  }

  /** How many of the last bytes may be the beginning of a delimiter. Only its first one is a carriage return. */
  begun(delimiter: Buffer): number {
    const tail = this.bytes.subarray(Math.max(this.at, this.bytes.length - delimiter.length + 1));
    const from = tail.lastIndexOf(carriageReturn);
    if (from === -1) return 0;
    const length = tail.length - from;
    return tail.compare(delimiter, 0, length, from) === 0 ? length : 0;
  }

  take(count: number): Buffer {
    const taken = this.bytes.subarray(this.at, this.at + count);
    this.at += taken.length;
    return taken;
  }

  /** A variable-length integer (RFC 9000, 16): its first two bits tell how many bytes it has. Undefined: they are not here yet. */
  integer(): number | undefined {
    const first = this.bytes[this.at];
    if (first === undefined) return undefined;
    const length = 1 << (first >> 6);
    if (length > this.left) return undefined;
    let value = first & 0x3f;
    for (let i = 1; i < length; i++) value = value * 256 + this.bytes[this.at + i]!;
    this.at += length;
    if (!Number.isSafeInteger(value)) throw malformed("a length is above 2^53 - 1");
    return value;
  }

  /** Waits until something has come. @throws Problem when nothing will */
  *more(inside: string): Reading<void> {
    if (this.over) throw malformed(`the body ends inside ${inside}`);
    yield;
  }

  *need(count: number, inside: string): Reading<void> {
    while (this.left < count) yield* this.more(inside);
  }

  /** True at the end of the body. */
  *ended(): Reading<boolean> {
    while (this.left === 0) {
      if (this.over) return true;
      yield;
    }
    return false;
  }
}

/** `message/byterange`: fields, an empty line, and everything after it is the part's. */
function* message(input: Input): Grammar {
  yield { kind: "fields", fields: yield* textFields(input) };
  while (!(yield* input.ended())) yield { kind: "bytes", bytes: input.take(input.left) };
  yield { kind: "end" };
}

/** `multipart/byteranges` (RFC 2046, 5.1.1). */
function* multipart(input: Input, boundary: string): Grammar {
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  // What comes before the first delimiter is not meant for us.
  yield* bytesUntil(input, delimiter, false);
  while (yield* anotherPart(input)) {
    const fields = yield* textFields(input);
    yield { kind: "fields", fields };
    // Content-Length, if it is there, says where the part ends: then its bytes may contain the boundary.
    const length = /^\d{1,15}$/.exec(fields.get("content-length") ?? "");
    if (length !== null) yield* bytesOf(input, Number(length[0]));
    const exact = length !== null && Number(length[0]) > 0;
    if (exact) {
      yield* input.need(delimiter.length, "a boundary");
      if (!input.startsWith(delimiter)) throw malformed("no boundary where the part's Content-Length ends");
    }
    yield* bytesUntil(input, delimiter, true);
    yield { kind: "end" };
  }
  // And so is what comes after the last one.
  while (!(yield* input.ended())) input.take(input.left);
}

/** After a delimiter: two hyphens close the body, a line's end begins a part. */
function* anotherPart(input: Input): Reading<boolean> {
  yield* input.need(2, "a boundary");
  if (input.startsWith(hyphens)) return false;
  if ((yield* line(input, 128)).trim() !== "") throw malformed("a boundary is followed by other text");
  return true;
}

/** Takes everything up to the delimiter, and the delimiter. `kept`: it is a part's. */
function* bytesUntil(input: Input, delimiter: Buffer, kept: boolean): Grammar {
  // The line end in front of a delimiter may be that of the fields: a part without bytes, or the body's begin.
  const short = delimiter.subarray(2);
  while (input.left < short.length && !input.over) yield;
  if (input.startsWith(short)) {
    input.take(short.length);
    return;
  }
  for (;;) {
    const found = input.find(delimiter);
    const count = found === -1 ? input.left - input.begun(delimiter) : found;
    if (count > 0) {
      const bytes = input.take(count);
      if (kept) yield { kind: "bytes", bytes };
    }
    if (found !== -1) {
      input.take(delimiter.length);
      return;
    }
    yield* input.more("a part, before the closing boundary");
  }
}

/** `application/byteranges`: as message/bhttp (RFC 9292), each length before what it is the length of. */
function* binary(input: Input): Grammar {
  while (!(yield* input.ended())) {
    const framing = yield* integer(input);
    if (framing !== knownLength && framing !== indeterminateLength) {
      throw malformed(`a framing indicator must be 8 or 10, not ${framing}`);
    }
    const known = framing === knownLength;
    yield { kind: "fields", fields: yield* known ? knownFields(input) : indeterminateFields(input) };
    if (known) {
      yield* bytesOf(input, yield* integer(input));
    } else {
      // A generator each would be most of the time of content in many small chunks.
      for (;;) {
        const length = input.integer() ?? (yield* integer(input));
        if (length === 0) break;
        if (length <= input.left) yield { kind: "bytes", bytes: input.take(length) };
        else yield* bytesOf(input, length);
      }
    }
    yield { kind: "end" };
  }
}

const knownLength = 8;
const indeterminateLength = 10;

function* knownFields(input: Input): Reading<Fields> {
  const length = yield* integer(input);
  if (length > fieldsBytesMax) throw tooLong();
  yield* input.need(length, "a part's fields");
  const section = new Input(input.take(length), true);
  const fields = new Map<string, string>();
  while (section.left > 0) yield* binaryField(section, yield* integer(section), fields);
  return fields;
}

function* indeterminateFields(input: Input): Reading<Fields> {
  const fields = new Map<string, string>();
  let total = 0;
  for (let length = yield* integer(input); length > 0; length = yield* integer(input)) {
    total += yield* binaryField(input, length, fields);
    if (total > fieldsBytesMax) throw tooLong();
  }
  return fields;
}

/** Returns how long it was. */
function* binaryField(input: Input, nameLength: number, fields: Map<string, string>): Reading<number> {
  if (nameLength > fieldsBytesMax) throw tooLong();
  yield* input.need(nameLength, "a field");
  const name = input.take(nameLength).toString("latin1");
  const valueLength = yield* integer(input);
  if (valueLength > fieldsBytesMax) throw tooLong();
  yield* input.need(valueLength, "a field");
  addField(fields, name, input.take(valueLength).toString("latin1"));
  return nameLength + valueLength;
}

function* integer(input: Input): Reading<number> {
  for (;;) {
    const value = input.integer();
    if (value !== undefined) return value;
    yield* input.more("a length");
  }
}

function* bytesOf(input: Input, length: number): Grammar {
  for (let left = length; left > 0; ) {
    if (input.left === 0) yield* input.more("a part");
    const bytes = input.take(Math.min(left, input.left));
    left -= bytes.length;
    if (bytes.length > 0) yield { kind: "bytes", bytes };
  }
}

/** Field lines up to an empty one. */
function* textFields(input: Input): Reading<Fields> {
  const fields = new Map<string, string>();
  for (let room = fieldsBytesMax; ; ) {
    const text = yield* line(input, room);
    if (text === "") return fields;
    room -= text.length + 1;
    const colon = text.indexOf(":");
    if (colon === -1) throw malformed("a line of a part's fields has no colon");
    addField(fields, text.slice(0, colon), text.slice(colon + 1));
  }
}

/** One line without its end. As RFC 9112 (2.2) allows, a line feed alone ends it, too: that is what people type. */
function* line(input: Input, bytesMax: number): Reading<string> {
  for (let from = 0; ; ) {
    const end = input.find(lineFeed, from);
    if (end > bytesMax || (end === -1 && input.left > bytesMax)) throw tooLong();
    if (end !== -1) {
      const text = input.take(end + 1).toString("latin1", 0, end);
      return text.endsWith("\r") ? text.slice(0, -1) : text;
    }
    from = input.left;
    yield* input.more("a part's fields");
  }
}

function addField(fields: Map<string, string>, name: string, value: string): void {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name))
    throw malformed("a field's name has a character that names can't have");
  if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) throw malformed("a field's value has a control character");
  const key = name.toLowerCase();
  const before = fields.get(key);
  // Those that count here are no lists, so that a second one makes the value invalid.
  fields.set(key, before === undefined ? value.trim() : `${before}, ${value.trim()}`);
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const hyphens = Buffer.from("--");

function malformed(detail: string): Problem {
  return new Problem("malformed-byterange", detail);
}

function tooLong(): Problem {
  return malformed(`the fields of a part may have ${fieldsBytesMax} bytes`);
}

function tooManyParts(limit: number): Problem {
  const failures = [{ index: limit, code: "too-many-ops", limit }];
  return new Problem("too-many-ops", `a patch may have ${limit} parts`, { failures });
}
