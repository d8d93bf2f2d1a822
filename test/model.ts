// model.ts - what a batch does to one region, written as plainly as it can be: BigInt arithmetic, one operation after the
// other on a copy. It shares no code with the service.

export type Guard =
  | { kind: "generation"; op: string; value: number }
  | { kind: "value"; offset: number; type: string; endian?: string; op: string; value: number | string }
  | { kind: "bytes"; offset: number; encoding: "hex"; equals: string };

// biome-ignore lint/suspicious/noExplicitAny: operations are as loose here as JSON has them.
export type Op = { op: string; [member: string]: any };

export interface Batch {
  guards?: Guard[];
  ops: Op[];
  elseOps?: Op[];
  dryRun?: boolean;
}

export interface Expected {
  status: number;
  code?: string;
  /** Section, index and code of every failure. */
  failures?: [string, number, string][];
  branch?: string;
  committed?: boolean;
  generation?: number;
  results?: unknown[];
}

class Stop extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
  ) {
    super(code);
  }
}

const sizes: Record<string, number> = { u8: 1, u16: 2, u32: 4, u64: 8, i8: 1, i16: 2, i32: 4, i64: 8, f32: 4, f64: 8 };
export const types = Object.keys(sizes);
export const sizeOf = (type: string): number => sizes[type]!;
const isFloat = (type: string) => type.startsWith("f");
const isSigned = (type: string) => type.startsWith("i");
const widthOf = (type: string) => BigInt(8 * sizeOf(type));
const least = (type: string) => (isSigned(type) ? -(1n << (widthOf(type) - 1n)) : 0n);
const most = (type: string) => (1n << (isSigned(type) ? widthOf(type) - 1n : widthOf(type))) - 1n;
const wrap = (type: string, value: bigint) =>
  isSigned(type) ? BigInt.asIntN(Number(widthOf(type)), value) : BigInt.asUintN(Number(widthOf(type)), value);

type Cell = bigint | number;

export class RegionModel {
  bytes: Uint8Array;
  generation = 0;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }

  run(batch: Batch): Expected {
    const failures: [string, number, string][] = [];
    const check = (section: string, list: readonly object[], of: (entry: never) => string | undefined) => {
      for (const [index, entry] of list.entries()) {
        const code = of(entry as never);
        if (code !== undefined) failures.push([section, index, code]);
      }
    };
    check("guards", batch.guards ?? [], (guard: Guard) => this.checkGuard(guard));
    check("ops", batch.ops, (op: Op) => this.checkOp(op));
    check("elseOps", batch.elseOps ?? [], (op: Op) => this.checkOp(op));
    if (failures.length > 0) return { status: 422, code: failures[0]![2], failures };

    const falseGuards = [...(batch.guards ?? []).entries()].filter(([, guard]) => !this.holds(guard, this.bytes));
    if (falseGuards.length > 0 && batch.elseOps === undefined) {
      const list = falseGuards.map(([index]): [string, number, string] => ["guards", index, "guard-failed"]);
      return { status: 412, code: "guard-failed", failures: list };
    }
    const branch = falseGuards.length > 0 ? "elseOps" : "ops";
    const copy = this.bytes.slice();
    const results: unknown[] = [];
    let writes = false;
    for (const [index, op] of batch[branch]!.entries()) {
      try {
        results.push(this.apply(op, copy));
      } catch (error) {
        if (!(error instanceof Stop)) throw error;
        return { status: error.status, code: error.code, failures: [[branch, index, error.code]] };
      }
      writes ||= this.writes(op, results.at(-1));
    }
    const committed = writes && batch.dryRun !== true;
    if (committed) {
      this.bytes = copy;
      this.generation++;
    }
    return { status: 200, branch, committed, generation: this.generation, results };
  }

  /** Whether the operation leaves bytes to be written, be they the same as before. */
  private writes(op: Op, result: unknown): boolean {
    if (["read", "load", "assert"].includes(op.op)) return false;
    if (op.op === "cas") return (result as { swapped: boolean }).swapped;
    if (["write", "fill", "copy"].includes(op.op)) return (result as { bytes: number }).bytes > 0;
    return true;
  }

  private checkGuard(guard: Guard): string | undefined {
    if (guard.kind === "generation") return undefined;
    return this.outside(guard.offset, guard.kind === "value" ? sizeOf(guard.type) : guard.equals.length / 2);
  }

  private checkOp(op: Op): string | undefined {
    switch (op.op) {
      case "read":
      case "fill":
        return this.outside(op.offset, op.length);
      case "write":
        return this.outside(op.offset, op.data.length / 2);
      case "copy":
        return this.outside(op.to, op.length) ?? this.outside(op.from, op.length);
      case "load":
        return this.outside(op.offset, sizeOf(op.type) * (op.count ?? 1));
      case "store":
        return this.outside(op.offset, sizeOf(op.type) * (op.values?.length ?? 1));
      case "assert":
        return this.checkGuard(op.guard);
      default: {
        const type: string = op.type ?? op.cursorType;
        const offset: number = op.offset ?? op.cursorOffset;
        return offset % sizeOf(type) !== 0 ? "misaligned" : this.outside(offset, sizeOf(type));
      }
    }
  }

  private outside(offset: number, length: number): string | undefined {
    return offset + length > this.bytes.length ? "out-of-bounds" : undefined;
  }

  private holds(guard: Guard, bytes: Uint8Array): boolean {
    if (guard.kind === "bytes") {
      const expected = Buffer.from(guard.equals, "hex");
      return expected.equals(bytes.subarray(guard.offset, guard.offset + expected.length));
    }
    const left = guard.kind === "generation" ? this.generation : load(bytes, guard.offset, guard.type, guard.endian);
    const right = guard.kind === "generation" ? guard.value : parse(guard.type, guard.value);
    switch (guard.op) {
      case "eq":
        return left === right;
      case "ne":
        return left !== right;
      case "lt":
        return left < right;
      case "le":
        return left <= right;
      case "gt":
        return left > right;
      default:
        return left >= right;
    }
  }

  private apply(op: Op, bytes: Uint8Array): unknown {
    switch (op.op) {
      case "read":
        return { data: Buffer.from(bytes.slice(op.offset, op.offset + op.length)).toString("hex") };
      case "write":
        bytes.set(Buffer.from(op.data, "hex"), op.offset);
        return { bytes: op.data.length / 2 };
      case "fill": {
        const pattern = Buffer.from(op.pattern, "hex");
        for (let at = 0; at < op.length; at++) bytes[op.offset + at] = pattern[at % pattern.length]!;
        return { bytes: op.length };
      }
      case "copy":
        bytes.set(bytes.slice(op.from, op.from + op.length), op.to);
        return { bytes: op.length };
      case "load": {
        const cells = [...Array(op.count ?? 1).keys()].map((n) =>
          show(op.type, load(bytes, op.offset + n * sizeOf(op.type), op.type, op.endian)),
        );
        return op.count === undefined ? { value: cells[0] } : { values: cells };
      }
      case "store": {
        const values: (number | string)[] = op.values ?? [op.value];
        const at = (n: number) => op.offset + n * sizeOf(op.type);
        const old = values.map((_, n) => show(op.type, load(bytes, at(n), op.type, op.endian)));
        for (const [n, value] of values.entries()) store(bytes, at(n), op.type, op.endian, parse(op.type, value));
        return { old: op.values === undefined ? old[0] : old };
      }
      case "assert":
        if (!this.holds(op.guard, bytes)) throw new Stop(412, "guard-failed");
        return {};
      case "append": {
        const at = load(bytes, op.cursorOffset, op.cursorType, op.endian) as bigint;
        const data = Buffer.from(op.data, "hex");
        if (at + BigInt(data.length) > BigInt(bytes.length)) throw new Stop(422, "out-of-bounds");
        const next = at + BigInt(data.length);
        if (next > most(op.cursorType)) throw new Stop(409, "overflow");
        bytes.set(data, Number(at));
        store(bytes, op.cursorOffset, op.cursorType, op.endian, next);
        return { at: Number(at), next: Number(next) };
      }
      default:
        return this.modify(op, bytes);
    }
  }

  private modify(op: Op, bytes: Uint8Array): unknown {
    const { type } = op;
    const old = load(bytes, op.offset, type, op.endian);
    const put = (value: Cell) => {
      store(bytes, op.offset, type, op.endian, value);
      return { old: show(type, old), new: show(type, load(bytes, op.offset, type, op.endian)) };
    };
    if (op.op === "add") {
      const { sum, overflowed, bound } = isFloat(type)
        ? addFloats(type, old as number, Number(op.value))
        : addIntegers(type, old as bigint, BigInt(op.value));
      if (!overflowed) return { ...put(sum), overflowed };
      if ((op.overflow ?? "fail") === "fail") throw new Stop(409, "overflow");
      return {
        ...put(op.overflow === "saturate" ? bound : isFloat(type) ? sum : wrap(type, sum as bigint)),
        overflowed,
      };
    }
    const value = parse(type, op.value);
    switch (op.op) {
      case "cas": {
        const swapped = old === parse(type, op.expected);
        if (!swapped && op.onMismatch !== "continue") throw new Stop(409, "cas-mismatch");
        if (swapped) put(value);
        return { swapped, actual: show(type, old) };
      }
      case "exchange":
        return put(value);
      case "min":
        return put(value < old ? value : old);
      case "max":
        return put(value > old ? value : old);
      case "and":
        return put(wrap(type, (old as bigint) & (value as bigint)));
      case "or":
        return put(wrap(type, (old as bigint) | (value as bigint)));
      default:
        return put(wrap(type, (old as bigint) ^ (value as bigint)));
    }
  }
}

function addIntegers(type: string, old: bigint, addend: bigint) {
  const sum = old + addend;
  const bound = sum < least(type) ? least(type) : most(type);
  return { sum, overflowed: sum < least(type) || sum > most(type), bound };
}

function addFloats(type: string, old: number, addend: number) {
  const largest = type === "f32" ? 3.4028234663852886e38 : Number.MAX_VALUE;
  const sum = type === "f32" ? Math.fround(old + addend) : old + addend;
  return { sum, overflowed: !Number.isFinite(sum), bound: sum < 0 ? -largest : largest };
}

function parse(type: string, value: number | string): Cell {
  if (type === "f32") return Math.fround(Number(value));
  return isFloat(type) ? Number(value) : BigInt(value);
}

function show(type: string, cell: Cell): number | string {
  if (type === "u64" || type === "i64") return String(cell);
  const number = Number(cell);
  // JSON has no negative zero.
  return Number.isFinite(number) ? number + 0 : String(number);
}

function load(bytes: Uint8Array, offset: number, type: string, endian = "little"): Cell {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const little = endian === "little";
  if (type === "f32") return view.getFloat32(offset, little);
  if (type === "f64") return view.getFloat64(offset, little);
  let value = 0n;
  for (let n = 0; n < sizeOf(type); n++)
    value |= BigInt(bytes[offset + (little ? n : sizeOf(type) - 1 - n)]!) << BigInt(8 * n);
  return wrap(type, value);
}

function store(bytes: Uint8Array, offset: number, type: string, endian = "little", cell: Cell): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const little = endian === "little";
  if (type === "f32") view.setFloat32(offset, cell as number, little);
  else if (type === "f64") view.setFloat64(offset, cell as number, little);
  else {
    for (let n = 0; n < sizeOf(type); n++) {
      bytes[offset + (little ? n : sizeOf(type) - 1 - n)] = Number(
        BigInt.asUintN(8, (cell as bigint) >> BigInt(8 * n)),
      );
    }
  }
}
