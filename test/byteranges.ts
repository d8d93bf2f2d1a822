// byteranges.ts - byte-range patches as a client writes them: parts -> bodies in each of the three media types.

export interface Part {
  /** Content-Range, unless `fields` has everything. */
  range?: string;
  fields?: Record<string, string>;
  bytes: Buffer | string;
}

export interface Body {
  type: string;
  body: Buffer;
}

const fieldsOf = ({ range, fields }: Part): [string, string][] => [
  ...(range === undefined ? [] : [["Content-Range", range] as [string, string]]),
  ...Object.entries(fields ?? {}),
];

const lines = (part: Part) =>
  `${fieldsOf(part)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")}\r\n`;

export function message(part: Part): Body {
  return { type: "message/byterange", body: Buffer.concat([Buffer.from(lines(part)), Buffer.from(part.bytes)]) };
}

export function multipart(parts: readonly Part[], boundary = "THIS_STRING_SEPARATES"): Body {
  const pieces = parts.flatMap((part) => [
    Buffer.from(`--${boundary}\r\n${lines(part)}`),
    Buffer.from(part.bytes),
    Buffer.from("\r\n"),
  ]);
  return {
    type: `multipart/byteranges; boundary=${boundary}`,
    body: Buffer.concat([...pieces, Buffer.from(`--${boundary}--\r\n`)]),
  };
}

/** `pieces`: content of unknown length goes in chunks of this many bytes; without it lengths are known. */
export function binary(parts: readonly Part[], pieces?: number): Body {
  const body = parts.flatMap((part) => {
    const fields = fieldsOf(part).map(([name, value]) => Buffer.concat([text(name.toLowerCase()), text(value)]));
    const bytes = Buffer.from(part.bytes);
    if (pieces === undefined) {
      const section = Buffer.concat(fields);
      return [integer(8), integer(section.length), section, integer(bytes.length), bytes];
    }
    const chunks = [];
    for (let at = 0; at < bytes.length; at += pieces) {
      const chunk = bytes.subarray(at, at + pieces);
      chunks.push(integer(chunk.length), chunk);
    }
    return [integer(10), ...fields, integer(0), ...chunks, integer(0)];
  });
  return { type: "application/byteranges", body: Buffer.concat(body) };
}

const text = (value: string) => Buffer.concat([integer(value.length), Buffer.from(value, "latin1")]);

/** RFC 9000, 16. */
export function integer(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  if (value < 2 ** 6) return bytes.subarray(7);
  const [length, prefix] = value < 2 ** 14 ? [2, 0x40] : value < 2 ** 30 ? [4, 0x80] : [8, 0xc0];
  const short = bytes.subarray(8 - length);
  short[0] = short[0]! | prefix;
  return short;
}
