// arbitraries.ts - random batches for one region. Integers and bytes live in its first half, floats in its second, so
// that no operation reads a NaN whose payload JavaScript would not keep.
import fc from "fast-check";
import { type Batch, type Guard, type Op, sizeOf, types } from "./model.js";

export const regionBytes = 96;
const floatsAt = 64;

const optional = <T>(name: string, arbitrary: fc.Arbitrary<T>) =>
  fc.oneof(
    { arbitrary: fc.constant({}), weight: 2 },
    { arbitrary: arbitrary.map((value) => ({ [name]: value })), weight: 1 },
  );
const hex = (maxLength: number, minLength = 0) =>
  fc.uint8Array({ minLength, maxLength }).map((bytes) => Buffer.from(bytes).toString("hex"));

/** Mostly where it fits, sometimes where it does not. */
const bytesAt = fc.oneof(
  { arbitrary: fc.nat(floatsAt - 16), weight: 20 },
  { arbitrary: fc.integer({ min: regionBytes - 4, max: regionBytes + 8 }), weight: 1 },
  { arbitrary: fc.constant(Number.MAX_SAFE_INTEGER - 100), weight: 1 },
);
const lengthArbitrary = fc.nat(12);

const integer = (type: string) => {
  const bits = BigInt(8 * sizeOf(type));
  const range = type.startsWith("i")
    ? { min: -(1n << (bits - 1n)), max: (1n << (bits - 1n)) - 1n }
    : { min: 0n, max: (1n << bits) - 1n };
  const near = fc.oneof(
    fc.bigInt(range),
    fc.constantFrom(range.min, range.max, 0n, 1n).filter((n) => n >= range.min),
  );
  return near.map((value) =>
    value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) && value % 2n === 0n
      ? Number(value)
      : String(value),
  );
};
const float = (type: string) =>
  type === "f32"
    ? fc.float({ noNaN: true, noDefaultInfinity: true })
    : fc.double({ noNaN: true, noDefaultInfinity: true });

interface CellArbitraries {
  type: string;
  offset: fc.Arbitrary<number>;
  value: fc.Arbitrary<number | string>;
  addend: fc.Arbitrary<number | string>;
}

const cell = fc.constantFrom(...types).map((type): CellArbitraries => {
  const size = sizeOf(type);
  const isFloat = type.startsWith("f");
  const aligned = fc.nat(7).map((n) => (isFloat ? floatsAt + (n % (32 / size)) * size : n * size));
  return {
    type,
    offset: isFloat
      ? aligned
      : fc.oneof(
          { arbitrary: aligned, weight: 12 },
          { arbitrary: fc.nat(40), weight: 2 },
          { arbitrary: fc.constant(regionBytes), weight: 1 },
        ),
    value: isFloat ? float(type) : integer(type),
    addend: isFloat
      ? fc.oneof(float("f64"), fc.constantFrom(1, -0.5))
      : fc.oneof(fc.constantFrom(1, -1, "-1", 100, -300), integer("i64"), integer("u64")),
  };
});

const endian = optional("endian", fc.constantFrom("little", "big"));

const cellOp: fc.Arbitrary<Op> = cell.chain(({ type, offset, value, addend }) => {
  const at = fc.record({ offset, type: fc.constant(type) });
  const of = (op: string, ...parts: fc.Arbitrary<object>[]) =>
    fc.tuple(at, endian, ...parts).map((all) => Object.assign({ op }, ...all) as Op);
  const one = value.map((v) => ({ value: v }));
  const modify = ["exchange", "min", "max", ...(type.startsWith("f") ? [] : ["and", "or", "xor"])].map((op) =>
    of(op, one),
  );
  return fc.oneof(
    of("load", optional("count", fc.integer({ min: 1, max: 3 }))),
    of(
      "store",
      fc.oneof(
        one,
        fc.array(value, { minLength: 1, maxLength: 3 }).map((values) => ({ values })),
      ),
    ),
    of(
      "add",
      addend.map((v) => ({ value: v })),
      optional("overflow", fc.constantFrom("fail", "wrap", "saturate")),
    ),
    of(
      "cas",
      one,
      fc.oneof(value, fc.constant(0)).map((expected) => ({ expected })),
      optional("onMismatch", fc.constantFrom("abort", "continue")),
    ),
    ...modify,
  );
});

const guard: fc.Arbitrary<Guard> = fc.oneof(
  fc.record({
    kind: fc.constant("generation" as const),
    op: fc.constantFrom("eq", "ne", "lt", "le", "gt", "ge"),
    value: fc.nat(20),
  }),
  cell.chain(({ type, offset, value }) =>
    fc.record({
      kind: fc.constant("value" as const),
      offset,
      type: fc.constant(type),
      op: fc.constantFrom("eq", "ne", "lt", "le", "gt", "ge"),
      value: fc.oneof(value, fc.constant(0)),
    }),
  ),
  fc.record({
    kind: fc.constant("bytes" as const),
    offset: bytesAt,
    encoding: fc.constant("hex" as const),
    equals: fc.oneof(hex(3), fc.constant("0000")),
  }),
);

const byteOp: fc.Arbitrary<Op> = fc.oneof(
  fc.record({ op: fc.constant("read"), offset: bytesAt, length: lengthArbitrary, encoding: fc.constant("hex") }),
  fc.record({ op: fc.constant("write"), offset: bytesAt, data: hex(12), encoding: fc.constant("hex") }),
  fc.record({ op: fc.constant("fill"), offset: bytesAt, length: lengthArbitrary, pattern: hex(3, 1) }),
  fc.record({ op: fc.constant("copy"), from: bytesAt, to: bytesAt, length: lengthArbitrary }),
  fc.record({
    op: fc.constant("append"),
    cursorOffset: fc.oneof(fc.constantFrom(0, 8), fc.nat(16)),
    cursorType: fc.constantFrom("u8", "u16", "u64"),
    data: hex(4),
    encoding: fc.constant("hex"),
  }),
  // A cursor that is where an append can go.
  fc.record({ op: fc.constant("store"), offset: fc.constantFrom(0, 8), type: fc.constant("u64"), value: fc.nat(40) }),
  guard.map((one) => ({ op: "assert", guard: one })),
);

const op = fc.oneof(cellOp, byteOp);

/** As JSON has it: what a client can send. */
export const batch: fc.Arbitrary<Batch> = fc
  .tuple(
    optional("guards", fc.array(guard, { maxLength: 3 })),
    fc.record({ ops: fc.array(op, { maxLength: 6 }) }),
    optional("elseOps", fc.array(op, { minLength: 1, maxLength: 3 })),
    optional("dryRun", fc.boolean()),
  )
  .map((parts) => JSON.parse(JSON.stringify(Object.assign({}, ...parts))) as Batch);
