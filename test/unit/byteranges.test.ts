// The reader of byte-range patches: however a body is cut on its way, the same comes out; whatever it is, a Problem at worst.
import fc from "fast-check";
import t from "tap";
import { type PatchEvent, PatchReader, patchTypeOf, patchTypes } from "../../service/byteranges.js";
import { Problem } from "../../service/errors.js";
import { type Body, binary, message, multipart, type Part } from "../byteranges.js";
import { seedOf } from "../seed.js";

/** Events as a list in which the bytes of a part are one. A Problem ends it. */
function read({ type, body }: Body, cuts: readonly number[]): unknown[] {
  const reader = new PatchReader(type, 20);
  const seen: unknown[] = [];
  let bytes: Buffer[] = [];
  const take = () => {
    for (let event: PatchEvent | undefined = reader.next(); event !== undefined; event = reader.next()) {
      if (event.kind === "bytes") bytes.push(Buffer.from(event.bytes));
      else {
        if (bytes.length > 0) seen.push(Buffer.concat(bytes).toString("hex"));
        bytes = [];
        seen.push(event);
      }
    }
  };
  try {
    let from = 0;
    for (const cut of [...cuts.map((one) => one % (body.length + 1)).sort((a, b) => a - b), body.length]) {
      // A copy, as from a socket: what is kept must not depend on the whole.
      reader.push(Buffer.from(body.subarray(from, cut)));
      from = cut;
      take();
    }
    reader.finish();
    take();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (bytes.length > 0) seen.push(Buffer.concat(bytes).toString("hex"));
    seen.push([error.code, error.detail]);
  }
  return seen;
}

const part: fc.Arbitrary<Part> = fc
  .tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.nat(1000), fc.boolean(), fc.boolean())
  .map(([bytes, offset, counted, open]) => ({
    ...(open ? {} : { range: `bytes ${offset}-${offset + bytes.length - 1}/*` }),
    fields: {
      ...(open && { "Content-Offset": String(offset) }),
      ...(counted && { "Content-Length": String(bytes.length) }),
    },
    bytes: Buffer.from(bytes),
  }));
const cuts = fc.array(fc.nat(2000), { maxLength: 12 });

t.test("what was written is read, however it is cut", async (t) => {
  const seed = seedOf(t);
  const property = fc.property(
    fc.array(part, { minLength: 1, maxLength: 4 }),
    cuts,
    fc.integer({ min: 1, max: 50 }),
    (parts, at, size) => {
      const expected = (list: readonly Part[]) =>
        list.flatMap(({ range, fields, bytes }, index) => {
          const offset = Number(fields?.["Content-Offset"] ?? /\d+/.exec(range!)![0]);
          const length = range === undefined && fields?.["Content-Length"] === undefined ? undefined : bytes.length;
          return [
            { kind: "write", index, offset, length, size: undefined },
            Buffer.from(bytes).toString("hex"),
            { kind: "end" },
          ];
        });
      for (const [body, list] of [
        [message(parts[0]!), parts.slice(0, 1)],
        [multipart(parts, "a boundary that random bytes don't have"), parts],
        [binary(parts), parts],
        [binary(parts, size), parts],
      ] as const) {
        const quoted = { ...body, type: body.type.replace(/boundary=(.*)/, 'boundary="$1"') };
        const found = read(quoted, at);
        if (JSON.stringify(found) !== JSON.stringify(expected(list))) {
          throw new Error(`${body.type}: ${JSON.stringify(found)} is not ${JSON.stringify(expected(list))}`);
        }
      }
    },
  );
  fc.assert(property, { numRuns: 300, seed });
  t.pass("in every media type");
});

t.test("any bytes are events or a problem, and the same in one piece as in many", async (t) => {
  const seed = seedOf(t);
  const word = fc.constantFrom(
    "\r\n",
    "\r\n--b",
    "--b--",
    "--b",
    "Content-Range: bytes 0-3/*",
    "content-length: 2",
    "\r\n\r\n",
    "\b",
    "\n",
  );
  const bytes = fc
    .array(
      fc.oneof(
        word.map((text) => Buffer.from(text)),
        fc.uint8Array({ maxLength: 20 }).map((raw) => Buffer.from(raw)),
      ),
      { maxLength: 12 },
    )
    .map((all) => Buffer.concat(all));
  const type = fc.constantFrom("message/byterange", "multipart/byteranges; boundary=b", "application/byteranges");
  fc.assert(
    fc.property(type, bytes, cuts, (type, body, at) => {
      const whole = JSON.stringify(read({ type, body }, []));
      const pieces = JSON.stringify(read({ type, body }, at));
      if (whole !== pieces) throw new Error(`${whole} is not ${pieces}`);
    }),
    { numRuns: 2000, seed },
  );
  t.pass("2000 bodies");
});

t.test("a body that is cut byte by byte costs no more than its length", async (t) => {
  const parts = [...Array(15)].map((_, at) => ({ range: `bytes ${at}-${at}/*`, bytes: "x" }));
  for (const body of [multipart(parts), binary(parts), binary(parts, 1)]) {
    const everywhere = [...Array(body.body.length).keys()];
    t.same(read(body, everywhere), read(body, []), body.type);
  }
});

t.test("media types", async (t) => {
  for (const type of patchTypes) t.equal(patchTypeOf(` ${type.toUpperCase()} ; x=y`), type);
  for (const type of [undefined, "", "message/byteranges", "application/json"]) t.equal(patchTypeOf(type), undefined);
});
