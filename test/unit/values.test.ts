// Values that cross a border: entity tags, ranges, headers, cells, cursors, keys.
import fc from "fast-check";
import t from "tap";
import {
  idempotencyKeyText,
  parseContentRange,
  parseRange,
  prefersStrict,
  writeConditions,
} from "../../service/headers.js";
import { Log } from "../../service/log.js";
import {
  bits,
  cellValue,
  parseAddend,
  parseCell,
  rawCellText,
  typeBytes,
  valueTypes,
  writeRawCell,
} from "../../service/store/cells.js";
import { etagMatches, formatEtag, parseEtags } from "../../service/store/etags.js";
import { idempotencyKey } from "../../service/store/idempotency.js";
import { mergeSpans, resolveRange } from "../../service/store/ranges.js";
import { isRegionName } from "../../service/store/region-name.js";
import { parseCursor } from "../../service/store/regions.js";
import { seedOf } from "../seed.js";

const tag = { incarnation: 7, metaGeneration: 1, generation: 42 };

t.test("entity tags", async (t) => {
  t.equal(formatEtag(tag), '"7.1.42"');
  const parse = (text: string, strong = true) => parseEtags(text, { strong });
  t.same(parse('"7.1.42"'), [tag]);
  t.same(parse(' "7.1.42" , "a,b" ,W/"7.1.43"'), [tag]);
  t.same(parse('W/"7.1.42"', false), [tag]);
  t.equal(parse(" * "), "*");
  t.same(parse('"other"'), []);
  for (const bad of ["", "7.1.42", '"open', '"a" "b"', "*,*", 'w/"x"', '"a";']) t.equal(parse(bad), undefined, bad);
  t.equal(etagMatches("*", tag), true);
  t.equal(etagMatches([], tag), false);
  t.equal(etagMatches([{ ...tag, incarnation: 8 }], tag), false);
  t.equal(etagMatches([{ ...tag, incarnation: 8 }, tag], tag), true);
});

t.test("conditions of a change", async (t) => {
  t.equal(writeConditions({}), undefined);
  t.same(writeConditions({ "if-match": '"7.1.42"', "region-if-generation": " 41 " }), {
    ifMatch: [tag],
    ifNoneMatch: undefined,
    ifGeneration: 41,
  });
  t.match(writeConditions({ "if-none-match": '"foreign"' }), { ifNoneMatch: undefined });
  t.match(writeConditions({ "if-match": '"foreign"' }), { ifMatch: [] });
  for (const bad of ["-1", "1.5", "x", "", "9007199254740992"]) {
    t.throws(() => writeConditions({ "region-if-generation": bad }), { code: "header-invalid" }, bad);
  }
});

t.test("headers that are parsed by hand", async (t) => {
  t.equal(idempotencyKeyText({}), undefined);
  t.equal(idempotencyKeyText({ "idempotency-key": '"a \\"b\\" \\\\"' }), 'a "b" \\');
  t.equal(prefersStrict({ prefer: "handling=strict" }), true);
  t.equal(prefersStrict({ prefer: 'wait=10; x, Handling = "strict"' }), true);
  for (const prefer of ["handling=lenient", "mishandling=strict", "handling=strictly", ""])
    t.equal(prefersStrict({ prefer }), false, prefer);
  t.same(parseRange("bytes=0-1, -5, 7-"), [{ first: 0, last: 1 }, { last: 5 }, { first: 7 }]);
  t.equal(parseRange(undefined), undefined);
  t.equal(parseRange("pages=1-2"), undefined);
  for (const bad of ["bytes=a-b", "bytes=2-1", "bytes=1", "bytes=--1", "bytes=-"]) t.same(parseRange(bad), [], bad);
  t.same(parseContentRange("bytes 5-9/*"), { offset: 5, length: 5, size: undefined });
  t.same(parseContentRange("BYTES 5-9/10"), { offset: 5, length: 5, size: 10 });
});

t.test("ranges cover exactly what was asked for", async (t) => {
  const spec = fc.oneof(
    fc.record({ first: fc.nat(60), more: fc.nat(30) }).map(({ first, more }) => ({ first, last: first + more })),
    fc.record({ first: fc.nat(60) }),
    fc.record({ last: fc.nat(60) }),
  );
  fc.assert(
    fc.property(fc.array(spec, { maxLength: 8 }), fc.integer({ min: 1, max: 50 }), (specs, size) => {
      const expected = new Set<number>();
      for (const { first, last } of specs as { first?: number; last?: number }[]) {
        for (let at = 0; at < size; at++) {
          if (first === undefined ? at >= size - (last ?? 0) : at >= first && at <= (last ?? size)) expected.add(at);
        }
      }
      const spans = mergeSpans(specs.flatMap((one) => resolveRange(one, size) ?? []));
      const covered = spans.flatMap(({ offset, length }) => [...Array(length).keys()].map((at) => offset + at));
      t.equal(new Set(covered).size, covered.length);
      t.same(new Set(covered), expected);
      const sorted = [...spans].sort((a, b) => a.offset - b.offset);
      for (const [index, span] of sorted.slice(1).entries())
        t.ok(span.offset > sorted[index]!.offset + sorted[index]!.length);
    }),
    { numRuns: 200, seed: seedOf(t) },
  );
});

const limits: Record<string, [bigint, bigint]> = {
  u8: [0n, 255n],
  u16: [0n, 65535n],
  u32: [0n, 2n ** 32n - 1n],
  u64: [0n, 2n ** 64n - 1n],
  i8: [-128n, 127n],
  i16: [-32768n, 32767n],
  i32: [-(2n ** 31n), 2n ** 31n - 1n],
  i64: [-(2n ** 63n), 2n ** 63n - 1n],
};

t.test("integers of every type come back as they were", async (t) => {
  const seed = seedOf(t);
  for (const [name, [least, most]] of Object.entries(limits)) {
    const type = valueTypes.indexOf(name as "u8");
    const size = typeBytes[type]!;
    fc.assert(
      fc.property(fc.bigInt({ min: least, max: most }), fc.boolean(), (value, bigEndian) => {
        t.equal(parseCell(String(value), type), "ok");
        const { low, high } = bits;
        t.equal(BigInt.asUintN(64, (BigInt(high) << 32n) | BigInt(low)), BigInt.asUintN(64, value), "canonical bits");
        t.equal(String(cellValue(low, high, type)), String(value));
        const bytes = new Uint8Array(size + 1);
        writeRawCell(bytes, 1, type, bigEndian);
        t.equal(rawCellText(bytes, 1, type, bigEndian).replaceAll('"', ""), String(value));
        const view = new DataView(bytes.buffer);
        if (size === 8) t.equal(view.getBigUint64(1, !bigEndian), BigInt.asUintN(64, value));
        if (value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER)
          t.equal(parseCell(Number(value), type), "ok");
      }),
      {
        numRuns: 50,
        seed,
        examples: [
          [least, true],
          [most, false],
          [0n < least ? least : 0n, true],
        ],
      },
    );
    t.equal(parseCell(String(least - 1n), type), "out-of-range", name);
    t.equal(parseCell(String(most + 1n), type), "out-of-range", name);
  }
  for (const bad of [1.5, 2 ** 53, Number.NaN, "1.0", "0x10", "", " 1", "1e3", null, undefined, true, {}, []]) {
    t.equal(parseCell(bad, 3), "invalid", String(bad));
  }
});

t.test("floats and addends", async (t) => {
  const back = (value: unknown, type: number) => {
    t.equal(parseCell(value, type), "ok", String(value));
    return cellValue(bits.low, bits.high, type);
  };
  for (const value of [0, -0.5, 1e308, "NaN", "Infinity", "-Infinity", 5e-324]) t.equal(back(value, 9), value);
  t.equal(back("1.25", 9), 1.25);
  t.equal(back(0.1, 8), Math.fround(0.1));
  t.equal(parseCell(1e39, 8), "out-of-range");
  t.equal(parseCell("1e999", 9), "out-of-range");
  for (const bad of ["nan", "inf", "", "1.", ".5", "0x1", null]) t.equal(parseCell(bad, 9), "invalid", String(bad));
  t.equal(parseAddend("-18446744073709551615", 0), "ok");
  t.same({ ...bits }, { low: 0xffffffff, high: 0xffffffff, negative: true });
  t.equal(parseAddend("18446744073709551616", 3), "out-of-range");
  t.equal(parseAddend(-1.5, 8), "ok");
  t.equal(bits.negative, false, "a float carries its own sign");
});

t.test("names, cursors and keys", async (t) => {
  for (const good of ["a", "a1", "a.b-c_d", "x".repeat(64)]) t.ok(isRegionName(good), good);
  for (const bad of ["", ".a", "a.", "a..b", "A", "a/b", "a\n", "x".repeat(65), "ü"]) t.notOk(isRegionName(bad), bad);
  for (const bad of ["", "x", "YWZ0ZXI6", "YWZ0ZXI6YQ=="])
    t.equal(parseCursor(bad) === undefined || bad === "YWZ0ZXI6", true, bad);
  const key = (...args: Parameters<typeof idempotencyKey>) => Buffer.from(idempotencyKey(...args).key).toString("hex");
  t.equal(key("POST", "/a", "k", ["x"]), key("POST", "/a", "k", ["y"]), "the body is not part of the key");
  t.not(key("POST", "/a", "k", []), key("PUT", "/a", "k", []));
  t.not(key("POST", "/a", "bk", []), key("POST", "/ab", "k", []));
  const print = (...parts: string[]) =>
    Buffer.from(idempotencyKey("POST", "/a", "k", parts).fingerprint).toString("hex");
  t.not(print("ab", "c"), print("a", "bc"));
  t.equal(idempotencyKey("POST", "/a", "k", []).key.length, 16);
});

t.test("the log has one object a line, and never throws", async (t) => {
  let text = "";
  const log = new Log("info", (lines) => {
    text += lines;
  });
  log.debug({ a: 1 }, "too much");
  log.info("plain");
  log.warn({ event: "x" }, "with members");
  log.error({ err: new Error("boom") }, "with an error");
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  log.error(circular, "circular");
  log.request({ status: 200 });
  log.fatal(new TypeError("bare"));
  const lines = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.match(lines, [
    { level: "info", message: "plain" },
    { level: "warn", message: "with members", event: "x" },
    { level: "error", err: { message: "boom" } },
    { level: "error", message: "circular" },
    { level: "info", message: "request", status: 200 },
    { level: "fatal", err: { name: "TypeError" } },
  ]);
  t.equal(lines.length, 6);
});
