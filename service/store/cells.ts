// cells.ts - typed cells: JSON values <-> the bits that frames carry.
//
// 64-bit integers are strings on output, because a JSON number is a double to most readers, and strings or safe
// integers on input. Floats that JSON can't write (NaN, Infinity) are strings both ways.

export const valueTypes = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64"] as const;
export type ValueType = (typeof valueTypes)[number];
/** A cell as JSON has it. */
export type CellValue = number | string;

const u64 = 3;
const i8 = 4;
const i64 = 7;
const f32 = 8;
const f64 = 9;
/** Bytes of a cell, by type. */
export const typeBytes = [1, 2, 4, 8, 1, 2, 4, 8, 4, 8] as const;
const least = [0, 0, 0, 0, -(2 ** 7), -(2 ** 15), -(2 ** 31), -(2n ** 63n)] as const;
const most = [
  2 ** 8 - 1,
  2 ** 16 - 1,
  2 ** 32 - 1,
  2n ** 64n - 1n,
  2 ** 7 - 1,
  2 ** 15 - 1,
  2 ** 31 - 1,
  2n ** 63n - 1n,
] as const;

const types = new Map<unknown, number>(valueTypes.map((name, number) => [name, number]));
/** The number that frames use for a type; undefined for anything that is not a type's name. */
export const typeNumber = (name: unknown): number | undefined => types.get(name);
export const isFloat = (type: number) => type >= f32;
const isSigned = (type: number) => type >= i8 && type <= i64;
const is64 = (type: number) => type === u64 || type === i64;

/** `invalid`: not a number at all, or one that a double has rounded already. */
export type Parsed = "ok" | "invalid" | "out-of-range";

const doubles = new Float64Array(1);
const doubleWords = new Uint32Array(doubles.buffer);
const floats = new Float32Array(1);
const floatWords = new Uint32Array(floats.buffer);
const wide = new BigUint64Array(1);
const wideWords = new Uint32Array(wide.buffer);

/** The result of the last parse: 64 bits in two words, and the sign of an addend. */
export const bits = { low: 0, high: 0, negative: false };

/** Parses a value that has to fit `type`; the cell's canonical bits (sign-extended integers) are left in `bits`. */
export function parseCell(value: unknown, type: number): Parsed {
  if (isFloat(type)) return parseFloatCell(value, type);
  const integer = parseInteger(value);
  if (integer === undefined) return "invalid";
  if (integer < least[type]! || integer > most[type]!) return "out-of-range";
  setInteger(integer);
  return "ok";
}

/** Parses what is added to a cell: for integers a magnitude of up to 64 bits and a sign, for floats a double. */
export function parseAddend(value: unknown, type: number): Parsed {
  bits.negative = false;
  if (isFloat(type)) return parseFloatCell(value, f64);
  const integer = parseInteger(value);
  if (integer === undefined) return "invalid";
  const magnitude = integer < 0 ? -integer : integer;
  if (magnitude > most[u64]) return "out-of-range";
  setInteger(magnitude);
  bits.negative = integer < 0;
  return "ok";
}

function parseFloatCell(value: unknown, type: number): Parsed {
  let number: number;
  if (typeof value === "number") number = value;
  else if (typeof value === "string" && /^(?:NaN|-?Infinity|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)$/.test(value))
    number = Number(value);
  else return "invalid";
  if (type === f32) {
    floats[0] = number;
    if (!Number.isFinite(floats[0]) && Number.isFinite(number)) return "out-of-range";
    bits.low = floatWords[0]!;
    bits.high = 0;
  } else {
    // A decimal beyond the largest double has become an infinity that nobody asked for.
    if (typeof value === "string" && !Number.isFinite(number) && /\d/.test(value)) return "out-of-range";
    doubles[0] = number;
    bits.low = doubleWords[0]!;
    bits.high = doubleWords[1]!;
  }
  return "ok";
}

function parseInteger(value: unknown): number | bigint | undefined {
  if (typeof value === "number") return Number.isSafeInteger(value) ? value : undefined;
  if (typeof value !== "string" || !/^-?\d{1,40}$/.test(value)) return undefined;
  return value.length <= 15 ? Number(value) : BigInt(value);
}

function setInteger(integer: number | bigint): void {
  if (typeof integer === "bigint") {
    wide[0] = integer;
    bits.low = wideWords[0]!;
    bits.high = wideWords[1]!;
  } else {
    bits.low = integer >>> 0;
    bits.high = Math.floor(integer / 2 ** 32) >>> 0;
  }
}

/** The canonical bits of a cell as JSON text (a number, or a string in quotes). */
export function cellText(low: number, high: number, type: number): string {
  const value = cellValue(low, high, type);
  return typeof value === "number" ? `${value}` : `"${value}"`;
}

export function cellValue(low: number, high: number, type: number): CellValue {
  if (type === f32 || type === f64) {
    const number = type === f32 ? floatOf(low) : doubleOf(low, high);
    return Number.isFinite(number) ? number : String(number);
  }
  if (!is64(type)) return isSigned(type) ? low | 0 : low >>> 0;
  if (type === u64) return high < 2 ** 21 ? `${high * 2 ** 32 + low}` : `${bigOf(low, high)}`;
  const signedHigh = high | 0;
  return signedHigh >= -(2 ** 20) && signedHigh < 2 ** 20
    ? `${signedHigh * 2 ** 32 + low}`
    : `${BigInt.asIntN(64, bigOf(low, high))}`;
}

function floatOf(low: number): number {
  floatWords[0] = low;
  return floats[0]!;
}

function doubleOf(low: number, high: number): number {
  doubleWords[0] = low;
  doubleWords[1] = high;
  return doubles[0]!;
}

function bigOf(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}

/** Reads one cell out of raw bytes, as JSON text. `at` need not be aligned. */
export function rawCellText(bytes: Uint8Array, at: number, type: number, bigEndian: boolean): string {
  let low = 0;
  let high = 0;
  const size = typeBytes[type]!;
  for (let i = 0; i < size; i++) {
    const byte = bytes[bigEndian ? at + size - 1 - i : at + i]!;
    if (i < 4) low |= byte << (8 * i);
    else high |= byte << (8 * (i - 4));
  }
  if (size < 4 && isSigned(type)) low = (low << (32 - 8 * size)) >> (32 - 8 * size);
  return cellText(low >>> 0, high >>> 0, type);
}

/** Writes the low bytes of `bits` as a cell in its own byte order. */
export function writeRawCell(bytes: Uint8Array, at: number, type: number, bigEndian: boolean): void {
  const size = typeBytes[type]!;
  for (let i = 0; i < size; i++) {
    bytes[bigEndian ? at + size - 1 - i : at + i] = (i < 4 ? bits.low >>> (8 * i) : bits.high >>> (8 * (i - 4))) & 0xff;
  }
}
