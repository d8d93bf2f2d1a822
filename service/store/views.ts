// views.ts - bytes for people to look at.
import { rawCellText, typeBytes, typeNumber, type ValueType } from "./cells.js";

export const textViews = ["hexdump", "hex", "base64", "utf8"] as const;
export type TextView = (typeof textViews)[number];

/** Text of `bytes`, which start at `offset` of their region. */
export function textView(bytes: Buffer, offset: number, as: TextView): string {
  return as === "hexdump" ? hexdump(bytes, offset) : `${bytes.toString(as)}\n`;
}

/** JSON text of an array of cells. Bytes behind the last whole cell are left out. */
export function cellsView(bytes: Buffer, type: ValueType, bigEndian: boolean): string {
  const number = typeNumber(type)!;
  const size = typeBytes[number]!;
  const cells: string[] = [];
  for (let at = 0; at + size <= bytes.length; at += size) cells.push(rawCellText(bytes, at, number, bigEndian));
  return `[${cells.join(",")}]`;
}

const lineBytes = 16;

/** As `hexdump -C` has it, but never folding equal lines: each offset is where it is looked for. */
function hexdump(bytes: Buffer, offset: number): string {
  // Longer offsets would break the columns half-way.
  const digits = Math.max(8, (offset + bytes.length).toString(16).length);
  const position = (at: number) => (offset + at).toString(16).padStart(digits, "0");
  let text = "";
  for (let at = 0; at < bytes.length; at += lineBytes) {
    const line = bytes.subarray(at, at + lineBytes);
    const half = (from: number, to: number) =>
      [...line.subarray(from, to)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const hex = `${half(0, 8).padEnd(23)}  ${half(8, 16).padEnd(23)}`;
    const characters = line.toString("latin1").replace(/[^\x20-\x7e]/g, ".");
    text += `${position(at)}  ${hex}  |${characters}|\n`;
  }
  return `${text}${position(bytes.length)}\n`;
}
