// Byte-range PATCH, held against draft-ietf-httpapi-patch-byterange-03 ("Byte Range PATCH", A. Wright, July 2025): every
// example of the draft first, by the section that it is in, then what this service makes of the draft's choices.
import { createHash } from "node:crypto";
import { request } from "node:http";
import type { AddressInfo } from "node:net";
import fc from "fast-check";
import type { Test } from "tap";
import { type Body, binary, integer, message, multipart, type Part } from "../byteranges.js";
import { type Fixture, storeTest } from "../fixture.js";
import { seedOf } from "../seed.js";

const path = "/v1/regions/demo/content";

const patch = (f: Fixture, { type, body }: Body, headers: Record<string, string> = {}, query = "") =>
  f.call("PATCH", `${path}${query}`, { body, headers: { "content-type": type, ...headers } });
const bytesOf = async (f: Fixture) => (await f.get(path)).bytes;

/** A region with these bytes. */
async function holding(f: Fixture, bytes: Buffer | string): Promise<Buffer> {
  const body = Buffer.from(bytes);
  const { status } = await f.call("PUT", path, { body, headers: { "if-none-match": "*" } });
  if (status !== 201) throw new Error("the region was not created");
  return body;
}

/** Puts parts into a copy, as a patch does. */
function applied(to: Buffer, ...parts: [number, Buffer | string][]): Buffer {
  const copy = Buffer.from(to);
  for (const [offset, bytes] of parts) Buffer.from(bytes).copy(copy, offset);
  return copy;
}

function pattern(length: number, seed = 0): Buffer {
  return Buffer.from(Array.from({ length }, (_, at) => (at * 31 + (at >> 8) * 7 + seed) & 0xff));
}

// ---- the draft's examples ------------------------------------------------------------------------------------------

storeTest("section 2: four bytes into a document of digits", async (t, f) => {
  await holding(f, "0123456789\r\n");
  const { status, text, headers } = await patch(f, {
    type: "message/byterange",
    body: Buffer.from("Content-Range: bytes 2-5/12\r\n\r\nwxyz"),
  });
  t.equal(status, 204);
  t.equal(text, "");
  t.equal(headers["region-generation"], "1");
  t.equal((await bytesOf(f)).toString(), "01wxyz6789\r\n");
});

storeTest("section 2.1: with a complete length, without, and nothing but one", async (t, f) => {
  await holding(f, Buffer.alloc(12));
  t.equal((await patch(f, message({ range: "bytes 0-11/12", bytes: "abcdefghijkl" }))).status, 204);
  t.equal((await patch(f, message({ range: "bytes 0-11/*", bytes: "ABCDEFGHIJKL" }))).status, 204);
  t.equal((await bytesOf(f)).toString(), "ABCDEFGHIJKL");
  t.equal((await patch(f, message({ range: "bytes */1000", bytes: "" }))).status, 204);
  const grown = await bytesOf(f);
  t.equal(grown.length, 1000);
  t.equal(grown.toString("latin1", 0, 12), "ABCDEFGHIJKL");
  t.ok(
    grown.subarray(12).every((byte) => byte === 0),
    "space that nobody wrote to is zero",
  );
});

storeTest("section 2.2: Content-Length must be that of the range", async (t, f) => {
  await holding(f, "0123456789");
  const right = message({ range: "bytes 2-5/10", fields: { "Content-Length": "4" }, bytes: "wxyz" });
  t.equal((await patch(f, right)).status, 204);
  for (const length of ["3", "5", "four", "-4"]) {
    const wrong = message({ range: "bytes 2-5/10", fields: { "Content-Length": length }, bytes: "WXYZ" });
    t.match(
      (await patch(f, wrong)).json,
      { status: 400, code: "malformed-byterange", failures: [{ index: 0 }] },
      length,
    );
  }
  t.equal((await bytesOf(f)).toString(), "01wxyz6789");
});

storeTest("section 2.3: Content-Offset, when the end is not known", async (t, f) => {
  await holding(f, "0123456789");
  for (const value of [
    "2",
    "2;unit=bytes",
    '2;unit="bytes"',
    "2;complete-length=10",
    "2; unit=bytes;complete-length=10",
  ]) {
    t.equal((await patch(f, message({ fields: { "Content-Offset": value }, bytes: "wxyz" }))).status, 204, value);
    t.equal((await bytesOf(f)).toString(), "01wxyz6789");
  }
  const long = message({ fields: { "Content-Offset": "8", "Content-Length": "3" }, bytes: "abc" });
  t.match((await patch(f, long)).json, { status: 416, failures: [{ index: 0, limit: 10, actual: 11 }] });
  for (const [value, code] of [
    ["2;unit=lines", "byterange-missing"],
    ["two", "malformed-byterange"],
    ["-2", "malformed-byterange"],
    ["2.5", "malformed-byterange"],
    ["2;complete-length=x", "malformed-byterange"],
    ["2;complete-length=11", "length-mismatch"],
    ["", "malformed-byterange"],
  ] as const) {
    t.equal((await patch(f, message({ fields: { "Content-Offset": value }, bytes: "w" }))).json.code, code, value);
  }
});

const draftMultipart = [
  "--THIS_STRING_SEPARATES",
  "Content-Range: bytes 2-6/25",
  "Content-Type: text/plain",
  "",
  "23456",
  "--THIS_STRING_SEPARATES",
  "Content-Range: bytes 17-21/25",
  "Content-Type: text/plain",
  "",
  "78901",
  "--THIS_STRING_SEPARATES--",
].join("\r\n");

storeTest("section 3.1: two ranges of a multipart body, as one change", async (t, f) => {
  const before = await holding(f, Buffer.alloc(25, "."));
  const body = { type: "multipart/byteranges; boundary=THIS_STRING_SEPARATES", body: Buffer.from(draftMultipart) };
  const stale = await patch(f, body, { "if-match": '"xyzzy"', "if-unmodified-since": "Sat, 29 Oct 1994 19:43:31 GMT" });
  t.match(stale.json, { status: 412, code: "etag-mismatch" });
  const etag = (await f.get(path)).headers.etag!;
  const done = await patch(f, body, { "if-match": etag });
  t.equal(done.status, 204);
  t.equal(done.headers["region-generation"], "1", "two ranges are one generation");
  t.ok((await bytesOf(f)).equals(applied(before, [2, "23456"], [17, "78901"])));
});

storeTest("section 3.2: 200 bytes in the middle of a document of 600", async (t, f) => {
  const before = await holding(f, pattern(600));
  const bytes = pattern(200, 99);
  const one = message({ range: "bytes 100-299/600", fields: { "Content-Type": "text/plain" }, bytes });
  t.equal((await patch(f, one, { "if-match": (await f.get(path)).headers.etag! })).status, 204);
  t.ok((await bytesOf(f)).equals(applied(before, [100, bytes])));
});

storeTest("section 3.2.1: unknown fields are ignored, and a message is a multipart body with a frame", async (t, f) => {
  await holding(f, "0123456789");
  const part = { range: "bytes 2-5/10", fields: { "X-Whatever": "is: this", Range: "bytes=0-1" }, bytes: "wxyz" };
  const { body } = message(part);
  t.equal((await patch(f, message(part))).status, 204);
  t.equal((await bytesOf(f)).toString(), "01wxyz6789");
  // "prepending a dash-boundary and CRLF, and appending a close-delimiter"
  const framed = Buffer.concat([Buffer.from("--b\r\n"), body, Buffer.from("\r\n--b--")]);
  const before = (await f.get(path)).headers["region-generation"];
  t.equal((await patch(f, { type: 'multipart/byteranges; boundary="b"', body: framed })).status, 204);
  t.equal((await f.get(path)).headers["region-generation"], String(Number(before) + 1));
  t.equal((await bytesOf(f)).toString(), "01wxyz6789");
});

storeTest("section 3.3: the binary form, of known and of indeterminate length", async (t, f) => {
  const before = await holding(f, Buffer.alloc(25, "."));
  const parts = [
    { range: "bytes 2-6/25", fields: { "Content-Type": "text/plain" }, bytes: "23456" },
    { range: "bytes 17-21/25", bytes: "78901" },
  ];
  const after = applied(before, [2, "23456"], [17, "78901"]);
  for (const body of [binary(parts), binary(parts, 2), binary(parts, 100)]) {
    const clean = await patch(f, message({ range: "bytes 0-24/25", bytes: before }));
    const done = await patch(f, body);
    t.equal(done.status, 204, done.text);
    t.equal(Number(done.headers["region-generation"]), Number(clean.headers["region-generation"]) + 1);
    t.ok((await bytesOf(f)).equals(after));
  }
  const mixed = Buffer.concat([binary([parts[0]!]).body, binary([parts[1]!], 3).body]);
  t.equal((await patch(f, { type: "application/byteranges", body: mixed })).status, 204, "one form after the other");
  // A length may be written longer than it has to be.
  const long = Buffer.from([0x40, 8, 0x80, 0, 0, 21, 0x0e]);
  const field = Buffer.concat([Buffer.from("content-offset"), Buffer.from([0x40, 4]), Buffer.from("0020")]);
  const body = Buffer.concat([long, field, Buffer.from([0xc0, 0, 0, 0, 0, 0, 0, 1]), Buffer.from("!")]);
  t.equal((await patch(f, { type: "application/byteranges", body })).status, 204);
  t.equal((await bytesOf(f))[20], "!".charCodeAt(0));
});

storeTest("section 4: Prefer: transaction", async (t, f) => {
  await holding(f, "0123456789");
  const body = message({ range: "bytes 2-5/10", bytes: "wxyz" });
  for (const prefer of ["transaction=atomic", "transaction=persist"]) {
    const done = await patch(f, body, { prefer: `respond-async, ${prefer}` });
    t.equal(done.status, 204);
    t.equal(done.headers["preference-applied"], prefer);
  }
  for (const prefer of ["respond-async", "transaction=maybe"]) {
    t.notOk((await patch(f, body, { prefer })).headers["preference-applied"], prefer);
  }
  t.notOk((await patch(f, body)).headers["preference-applied"]);
});

storeTest("section 5.1: 600 bytes, 200 at a time", async (t, f) => {
  const whole = pattern(600);
  const segment = (first: number) =>
    message({
      range: `bytes ${first}-${first + 199}/600`,
      fields: { "Content-Type": "text/plain", "Content-Length": "200" },
      bytes: whole.subarray(first, first + 200),
    });
  t.match((await patch(f, segment(0), { "if-none-match": "*" })).json, { status: 404, code: "region-not-found" });
  await f.region("demo", 600);
  t.match((await patch(f, segment(0), { "if-none-match": "*" })).json, { status: 412, code: "etag-mismatch" });
  for (const first of [0, 200, 400]) t.equal((await patch(f, segment(first))).status, 204);
  t.ok((await bytesOf(f)).equals(whole));
});

// ---- together ------------------------------------------------------------------------------------------------------

storeTest("all parts or none", async (t, f) => {
  const before = await holding(f, pattern(100));
  const beyond = await patch(
    f,
    multipart([
      { range: "bytes 0-4/*", bytes: "Hello" },
      { range: "bytes 96-100/*", bytes: "World" },
      { range: "bytes 200-200/*", bytes: "!" },
    ]),
  );
  t.match(beyond.json, { status: 416, code: "range-not-satisfiable", committed: false });
  t.equal(beyond.headers["content-range"], "bytes */100");
  t.same(beyond.json.failures, [
    { index: 1, code: "range-not-satisfiable", limit: 100, actual: 101 },
    { index: 2, code: "range-not-satisfiable", limit: 100, actual: 201 },
  ]);
  const several = await patch(
    f,
    multipart([
      { fields: {}, bytes: "a" },
      { range: "bytes 0-4/*", bytes: "Hell" },
      { range: "bytes 0-4/*", bytes: "Hello" },
      { range: "lines 0-4/*", bytes: "Hello" },
      { range: "bytes 4-0/*", bytes: "Hello" },
      { range: "bytes 0-0/*", fields: { "Content-Offset": "0" }, bytes: "!" },
    ]),
  );
  t.match(several.json, { status: 422, code: "byterange-missing" });
  t.same(
    several.json.failures.map(({ index, code }: { index: number; code: string }) => [index, code]),
    [
      [0, "byterange-missing"],
      [1, "malformed-byterange"],
      [3, "byterange-missing"],
      [4, "malformed-byterange"],
      [5, "malformed-byterange"],
    ],
    "every culprit, by its part",
  );
  t.match((await patch(f, message({ range: "bytes 0-4/101", bytes: "Hello" }))).json, {
    status: 422,
    code: "length-mismatch",
    failures: [{ index: 0, limit: 100, actual: 101 }],
  });
  for (const body of [multipart([]), binary([])]) {
    t.match((await patch(f, body)).json, { status: 422, code: "byterange-missing", failures: [] });
  }
  t.ok((await bytesOf(f)).equals(before));
  t.equal((await f.get("/v1/regions/demo")).json.generation, 0);
});

storeTest("parts land in their order, and may be empty", async (t, f) => {
  await holding(f, "0123456789");
  const parts: Part[] = [
    { range: "bytes 0-3/*", bytes: "aaaa" },
    { range: "bytes 2-5/*", bytes: "bbbb" },
    { fields: { "Content-Offset": "7" }, bytes: "" },
  ];
  for (const body of [multipart(parts), binary(parts), binary(parts, 1)]) {
    t.equal((await patch(f, body)).status, 204);
    t.equal((await bytesOf(f)).toString(), "aabbbb6789");
  }
});

storeTest("bytes that look like a boundary", async (t, f) => {
  await holding(f, Buffer.alloc(64));
  const tricky = "\r\n--\r\n--THIS_STRING_SEPARATE\r\n\r\n-";
  const range = `bytes 0-${tricky.length - 1}/*`;
  t.equal((await patch(f, multipart([{ range, bytes: tricky }]))).status, 204);
  t.equal((await bytesOf(f)).toString("latin1", 0, tricky.length), tricky);
  const inside = "a\r\n--THIS_STRING_SEPARATES--\r\nb";
  const fields = { "Content-Length": String(inside.length) };
  const counted = multipart([{ range: `bytes 0-${inside.length - 1}/*`, fields, bytes: inside }]);
  t.equal((await patch(f, counted)).status, 204, "Content-Length says where the part ends");
  t.equal((await bytesOf(f)).toString("latin1", 0, inside.length), inside);
  const uncounted = multipart([{ range: `bytes 0-${inside.length - 1}/*`, bytes: inside }]);
  t.equal((await patch(f, uncounted)).json.code, "malformed-byterange");
  const framed = `not for us\r\n${multipart([{ range: "bytes 0-0/*", bytes: "!" }]).body.toString()}nor this`;
  t.equal((await patch(f, { ...multipart([]), body: Buffer.from(framed) })).status, 204, "preamble and epilogue");
});

storeTest("lines that end with a line feed alone", async (t, f) => {
  await holding(f, "0123456789");
  t.equal(
    (await patch(f, { type: "message/byterange", body: Buffer.from("Content-Range: bytes 2-5/*\n\nwxyz") })).status,
    204,
  );
  t.equal((await bytesOf(f)).toString(), "01wxyz6789");
});

storeTest("bodies that do not parse", async (t, f) => {
  const before = await holding(f, "0123456789");
  const text = (type: string, ...bodies: string[]) => bodies.map((body): Body => ({ type, body: Buffer.from(body) }));
  const range = "Content-Range: bytes 0-0/*\r\n";
  const bodies = [
    ...text("message/byterange", "", range, "no colon\r\n\r\na", `${range}: x\r\n\r\na`, `${range}a b: x\r\n\r\na`),
    ...text(
      "message/byterange",
      `${range}${range}\r\na`,
      `${range}x: \u0001\r\n\r\na`,
      `x: ${"y".repeat(9000)}\r\n\r\na`,
    ),
    ...text("message/byterange", "Content-Range: bytes */*\r\n\r\n", "Content-Range: bytes */20\r\n\r\na"),
    ...text("message/byterange", "Content-Range: bytes 0-9/5\r\n\r\n0123456789", "Content-Range: 0-0/*\r\n\r\na"),
    ...text("message/byterange", "Content-Range: bytes 9007199254740990-9007199254740992/*\r\n\r\nabc"),
    ...text("multipart/byteranges; boundary=b", "", "--b", `--b\r\n${range}\r\na`, `--b\r\n${range}\r\na\r\n--b`),
    ...text("multipart/byteranges; boundary=b", `--b x\r\n${range}\r\na\r\n--b--`, "no boundary at all"),
    ...text("multipart/byteranges; boundary=b", `--b\r\n${range}Content-Length: 3\r\n\r\na\r\n--b--`),
    ...text(
      "application/byteranges",
      "\u0008",
      "\u0009",
      "\u0008\u0005",
      "\u000a\u0001a\u0001b\u0000",
      "\u0008\u0000\u0001",
    ),
    { type: "application/byteranges", body: Buffer.concat([integer(8), integer(10_000)]) },
    { type: "application/byteranges", body: Buffer.from([8, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) },
  ];
  for (const body of bodies) {
    const { json } = await patch(f, body);
    t.match(json, { status: 400, code: "malformed-byterange", committed: false }, JSON.stringify(body.body.toString()));
  }
  for (const type of [
    "multipart/byteranges",
    "multipart/byteranges; boundary=",
    `multipart/byteranges; boundary=${"x".repeat(71)}`,
  ]) {
    t.match((await patch(f, { type, body: Buffer.from("--b--") })).json, { status: 400, code: "header-invalid" }, type);
  }
  t.ok((await bytesOf(f)).equals(before));
});

storeTest("other media types", async (t, f) => {
  await holding(f, "0123456789");
  for (const type of ["application/octet-stream", "application/json", "message/byteranges", "text/plain"]) {
    const { json, headers } = await patch(f, { type, body: Buffer.from("{}") });
    t.match(json, { status: 415, code: "unsupported-media-type" }, type);
    t.equal(headers["accept-patch"], "message/byterange, multipart/byteranges, application/byteranges");
  }
  t.equal((await f.call("PATCH", path)).status, 415);
  const { type, body } = message({ range: "bytes 0-0/*", bytes: "!" });
  t.equal((await patch(f, { type: `${type.toUpperCase()}; charset=utf-8`, body })).status, 204);
});

storeTest("a new size", async (t, f) => {
  await holding(f, "0123456789");
  const etag = (await f.get(path)).headers.etag!;
  const resize = (size: number) => message({ range: `bytes */${size}`, bytes: "" });
  t.match((await patch(f, resize(5))).json, { status: 428, code: "precondition-required" });
  const shrunk = await patch(f, resize(5), { "if-match": etag });
  t.equal(shrunk.status, 204);
  t.equal((await bytesOf(f)).toString(), "01234");
  t.equal((await f.get(path)).headers.etag, shrunk.headers.etag);
  t.equal((await patch(f, resize(8), { "if-match": etag })).json.code, "etag-mismatch");
  for (const size of [0, 2 ** 45]) {
    const { json } = await patch(f, resize(size));
    t.match(json, { status: 422, code: "validation-failed", failures: [{ index: 0, actual: size }] });
  }
  const mixed = await patch(
    f,
    multipart([
      { range: "bytes 0-0/*", bytes: "!" },
      { range: "bytes */20", bytes: "" },
    ]),
  );
  t.match(mixed.json, { status: 422, code: "validation-failed", failures: [{ index: 1 }] });
  t.equal((await bytesOf(f)).toString(), "01234");
  t.equal((await patch(f, binary([{ range: "bytes */7", bytes: "" }]))).status, 204);
  t.equal((await bytesOf(f)).toString("latin1"), "01234\0\0");
});

storeTest("conditions, keys, durability and digests are those of a PUT", async (t, f) => {
  await f.region("demo", 10, { durability: "ordered" });
  const body = message({ range: "bytes 2-5/10", bytes: "wxyz" });
  const etag = (await f.get(path)).headers.etag!;
  t.equal((await patch(f, body, { "region-if-generation": "1" })).json.code, "generation-mismatch");
  const keyed = { "idempotency-key": "one", "if-match": etag };
  const first = await patch(f, body, keyed, "?durability=durable");
  t.equal(first.status, 204);
  t.equal(first.headers["region-durable-generation"], "1");
  const again = await patch(f, body, keyed, "?durability=durable");
  t.equal(again.status, 204);
  t.equal(again.headers["idempotency-replayed"], "?1");
  t.equal(again.headers.etag, first.headers.etag);
  const other = await patch(f, message({ range: "bytes 2-5/10", bytes: "WXYZ" }), keyed, "?durability=durable");
  t.match(other.json, { status: 422, code: "idempotency-key-reused" });
  t.match((await patch(f, body, {}, "?durability=fast")).json, { status: 422, code: "validation-failed" });
  t.equal((await patch(f, body, {}, "?durability=never")).json.code, "query-param-invalid");
  const misfit = message({ range: "bytes 2-5/11", bytes: "wxyz" });
  t.equal((await patch(f, misfit, { "if-match": etag })).json.code, "etag-mismatch", "a condition is told first");

  const digest = (bytes: Buffer) => `sha-256=:${createHash("sha256").update(bytes).digest("base64")}:`;
  t.equal((await patch(f, body, { "content-digest": digest(body.body) })).status, 204);
  const wrong = await patch(f, body, { "content-digest": digest(Buffer.from("another")) });
  t.match(wrong.json, { status: 400, code: "digest-mismatch", committed: false });

  const resize = message({ range: "bytes */20", bytes: "" });
  // The region has another size now, and the first answer is still the answer.
  await f.call("PATCH", "/v1/regions/demo", { body: { size: 12 } });
  const late = await patch(f, body, keyed, "?durability=durable");
  t.equal(late.headers["idempotency-replayed"], "?1");
  t.equal(late.headers.etag, first.headers.etag);
  t.equal((await patch(f, body, { "idempotency-key": "three" })).json.code, "length-mismatch");
  const grown = await patch(f, resize, { "idempotency-key": "two" });
  const regrown = await patch(f, resize, { "idempotency-key": "two" });
  t.equal(regrown.headers["idempotency-replayed"], "?1");
  t.equal(regrown.headers.etag, grown.headers.etag);
  t.equal(
    (await f.call("PATCH", "/v1/regions/nope/content", { body: body.body, headers: { "content-type": body.type } }))
      .status,
    404,
  );
  await f.call("PATCH", "/v1/regions/demo", { body: { readOnly: true } });
  const any = message({ range: "bytes 2-5/*", bytes: "wxyz" });
  t.equal((await patch(f, any)).json.code, "region-read-only");
});

storeTest("a patch that lands at once may be as long as a batch", async (t, f) => {
  await f.region("demo", 300_000);
  const most = pattern(256 * 1024);
  t.equal((await patch(f, message({ range: `bytes 0-${most.length - 1}/*`, bytes: most }))).status, 204);
  const over = pattern(256 * 1024 + 1);
  t.match((await patch(f, message({ range: `bytes 0-${over.length - 1}/*`, bytes: over }))).json, {
    status: 413,
    code: "batch-too-large",
    failures: [{ limit: 256 * 1024, actual: over.length }],
  });
  const { json: limits } = await f.get("/v1/limits");
  const long = { type: "message/byterange", body: Buffer.alloc(limits.patchBodyBytesMax + 1) };
  t.match((await patch(f, long)).json, {
    status: 413,
    code: "body-too-large",
    failures: [{ limit: limits.patchBodyBytesMax }],
  });
});

storeTest("content in very many pieces does not keep others waiting", async (t, f) => {
  // Read in one go it took seconds, and a gigabyte of small buffers.
  const bytes = pattern(250_000);
  await f.region("demo", bytes.length);
  const body = binary([{ fields: { "Content-Offset": "0" }, bytes }], 1);
  let told = "";
  let waited = true;
  // On a busy machine a pause can be anybody's; one attempt without is enough.
  for (let attempt = 0; waited && attempt < 5; attempt++) {
    let longest = 0;
    const started = performance.now();
    let last = started;
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 1);
    const { status } = await patch(f, body);
    clearInterval(timer);
    const took = performance.now() - started;
    t.equal(status, 204);
    waited = longest > took / 2;
    told = `the longest pause was ${Math.round(longest)} of ${Math.round(took)} ms`;
  }
  t.notOk(waited, told);
  t.ok((await bytesOf(f)).equals(bytes));
});

storeTest(
  "the parts of a patch are counted",
  async (t, f) => {
    await holding(f, "0123456789");
    const parts = [..."abcde"].map((bytes, at) => ({ range: `bytes ${at}-${at}/*`, bytes }));
    t.equal((await patch(f, multipart(parts.slice(0, 4)))).status, 204);
    for (const body of [multipart(parts), binary(parts)]) {
      t.match((await patch(f, body)).json, { status: 422, code: "too-many-ops", failures: [{ index: 4, limit: 4 }] });
    }
    t.equal((await bytesOf(f)).toString(), "abcd456789");
  },
  "--batch-ops-max=4",
);

// ---- as it comes ---------------------------------------------------------------------------------------------------

const persist = { prefer: "transaction=persist" };

storeTest("a body of any length lands batch by batch", async (t, f) => {
  await f.region("demo", 1_000_000);
  const bytes = pattern(900_000);
  for (const body of [
    message({ range: "bytes 50000-949999/1000000", bytes }),
    message({ fields: { "Content-Offset": "50000" }, bytes }),
    binary([{ range: "bytes 50000-949999/1000000", bytes }], 10_000),
    multipart([
      { range: "bytes 50000-449999/*", bytes: bytes.subarray(0, 400_000) },
      { range: "bytes 450000-949999/*", bytes: bytes.subarray(400_000) },
    ]),
  ]) {
    await f.batch("demo", {
      ops: [4, 3, 2, 1, 0].map((n) => ({ op: "fill", offset: n * 200_000, length: 50_000, pattern: "00" })),
    });
    const { json: before } = await f.get("/v1/regions/demo");
    const done = await patch(f, body, persist);
    t.equal(done.status, 204, done.text);
    t.equal(done.headers["preference-applied"], "transaction=persist");
    t.ok(Number(done.headers["region-generation"]) >= before.generation + 4, "several batches");
    t.ok((await bytesOf(f)).equals(applied(Buffer.alloc(1_000_000), [50_000, bytes])));
  }
});

storeTest("what came before the mistake stays, and is told", async (t, f) => {
  await holding(f, Buffer.alloc(100, "."));
  const beyond = await patch(
    f,
    multipart([
      { range: "bytes 0-4/*", bytes: "Hello" },
      { range: "bytes 96-100/*", bytes: "World" },
    ]),
    persist,
  );
  t.match(beyond.json, { status: 416, committed: true, failures: [{ index: 1, limit: 100, actual: 101 }] });
  t.match(beyond.json.detail, /5 bytes in front of that have landed/);
  const short = await patch(f, message({ range: "bytes 10-19/*", bytes: "World" }), persist);
  t.match(short.json, {
    status: 400,
    code: "malformed-byterange",
    committed: true,
    failures: [{ limit: 10, actual: 5 }],
  });
  const long = await patch(f, message({ range: "bytes 20-21/*", bytes: "World" }), persist);
  t.match(long.json, { status: 400, committed: true, failures: [{ limit: 2, actual: 5 }] });
  const broken = multipart([{ range: "bytes 30-34/*", bytes: "Hello" }]).body.subarray(0, -8);
  t.match((await patch(f, { ...multipart([]), body: broken }, persist)).json, { status: 400, committed: true });
  const none = await patch(f, message({ range: "bytes 96-100/*", bytes: "World" }), persist);
  t.match(none.json, { status: 416, committed: false });
  const expected = applied(Buffer.alloc(100, "."), [0, "Hello"], [10, "World"], [20, "Wo"], [30, "Hello"]);
  t.equal((await bytesOf(f)).toString(), expected.toString());
  t.equal((await patch(f, message({ fields: { "Content-Offset": "3" }, bytes: "" }), persist)).status, 204);
  t.equal((await patch(f, message({ range: "bytes 0-0/101", bytes: "!" }), persist)).json.code, "length-mismatch");
});

storeTest("a size first, then its bytes", async (t, f) => {
  await holding(f, "0123456789");
  const etag = (await f.get(path)).headers.etag!;
  const body = multipart([
    { range: "bytes */4", bytes: "" },
    { range: "bytes 2-3/4", bytes: "!!" },
    { range: "bytes */6", bytes: "" },
    { range: "bytes 4-5/6", bytes: "??" },
  ]);
  t.equal((await patch(f, body, persist)).json.code, "precondition-required");
  const done = await patch(f, body, { ...persist, "if-match": etag });
  t.equal(done.status, 204, done.text);
  t.equal((await bytesOf(f)).toString(), "01!!??");
  t.equal((await f.get(path)).headers.etag, done.headers.etag);
  t.equal((await patch(f, body, { ...persist, "if-match": etag })).json.code, "etag-mismatch");
});

storeTest("what must be known first is not landed as it comes", async (t, f) => {
  await holding(f, "0123456789");
  const body = message({ range: "bytes 2-5/*", bytes: "wxyz" });
  const digest = `sha-256=:${createHash("sha256").update("another").digest("base64")}:`;
  const wrong = await patch(f, body, { ...persist, "content-digest": digest });
  t.match(wrong.json, { status: 400, code: "digest-mismatch", committed: false });
  const keyed = await patch(f, body, { ...persist, "idempotency-key": "one" });
  t.equal(keyed.status, 204);
  t.notOk(keyed.headers["preference-applied"]);
  t.equal((await patch(f, body, { ...persist, "idempotency-key": "one" })).headers["idempotency-replayed"], "?1");
});

storeTest("an upload that breaks off leaves what came, or nothing", async (t, f) => {
  await f.region("demo", 1_000_000);
  await f.app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = f.app.server.address() as AddressInfo;
  const { type, body } = message({ range: "bytes 0-899999/*", bytes: Buffer.alloc(900_000, "x") });
  const breakOff = async (headers: Record<string, string> = {}) => {
    await new Promise<void>((resolve) => {
      const all = { "content-type": type, "content-length": String(body.length), ...headers };
      const sending = request({ port, method: "PATCH", path, headers: all });
      sending.on("error", () => resolve());
      sending.write(body.subarray(0, 600_000), () => setTimeout(() => sending.destroy(), 50));
    });
    while (f.lifecycle.admitted > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    // What had come is still being written when its connection is gone.
    await new Promise((resolve) => setTimeout(resolve, 100));
    return (await bytesOf(f)).findLastIndex((byte) => byte !== 0) + 1;
  };
  t.equal(await breakOff(), 0, "atomic");
  const landed = await breakOff(persist);
  t.ok(landed >= 256 * 1024 && landed < 600_000, `${landed} bytes landed`);
  t.ok((await bytesOf(f)).subarray(0, landed).every((byte) => byte === "x".charCodeAt(0)));
});

storeTest("a refused upload is told so over its own connection", async (t, f) => {
  await f.region("demo", 100_000);
  await f.app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = f.app.server.address() as AddressInfo;
  const status = await new Promise<number | undefined>((resolve, reject) => {
    const headers = { "content-type": "application/byteranges", connection: "close", ...persist };
    const sending = request({ port, method: "PATCH", path, headers }, (answer) => {
      resolve(answer.statusCode);
      answer.resume();
      sending.end();
    });
    sending.on("error", reject);
    sending.write(Buffer.from("\u0009 and so on"));
  });
  t.equal(status, 400, "before the body has come to its end");
});

// ---- anything at all -----------------------------------------------------------------------------------------------

const types = ["message/byterange", "multipart/byteranges; boundary=b", "application/byteranges"];
/** Bytes of which some are of a patch. */
const anything = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 12 }).map((bytes) => Buffer.from(bytes)),
      fc
        .constantFrom(
          "--b",
          "--b--",
          "\r\n",
          "\r\n\r\n",
          "Content-Range: ",
          "bytes ",
          "0-3/*",
          "*/8",
          "Content-Offset: 1",
          ":",
          "\b",
        )
        .map((text) => Buffer.from(text)),
      fc.constantFrom("bytes 0-3/*", "bytes */4").map((range) => binary([{ range, bytes: "abcd" }]).body),
      fc.constant(multipart([{ range: "bytes 1-2/*", bytes: "xy" }], "b").body),
    ),
    { maxLength: 8 },
  )
  .map((pieces) => Buffer.concat(pieces));

async function neverBreaks(t: Test, f: Fixture, headers: Record<string, string>): Promise<void> {
  await f.region("demo", 16, { durability: "fast" });
  const seen: Record<string, number> = {};
  const seed = seedOf(t);
  let before = await bytesOf(f);
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...types), anything, async (type, body) => {
      const { status, json } = await patch(f, { type, body }, headers);
      seen[status] = (seen[status] ?? 0) + 1;
      const after = await bytesOf(f);
      const wrote = status === 204 || json.committed === true;
      if (status >= 500) throw new Error(`${status} for ${JSON.stringify(body.toString("latin1"))}`);
      if (!wrote && !after.equals(before)) throw new Error("a refused patch has written");
      before = after;
    }),
    { numRuns: 200, seed },
  );
  t.comment(`answers by status: ${JSON.stringify(seen)}`);
  for (const status of [204, 400]) t.ok((seen[status] ?? 0) > 0, `${status} was met`);
}

storeTest("no body breaks the parser, or writes when it is refused", (t, f) => neverBreaks(t, f, {}));
storeTest("nor one that lands as it comes", (t, f) => neverBreaks(t, f, persist));

storeTest("the document's examples run as they stand", async (t, f) => {
  await f.region("demo", 4096);
  const { json: document } = await f.get("/openapi.json");
  const { content } = document.paths["/v1/regions/{region}/content"].patch.requestBody;
  t.equal(Object.keys(content).length, 3);
  for (const [type, { example }] of Object.entries<{ example: string }>(content)) {
    const done = await patch(f, { type, body: Buffer.from(example, "latin1") });
    t.equal(done.status, 204, `${type}: ${done.text}`);
  }
  const written = await bytesOf(f);
  t.equal(written.toString("latin1", 0, 5), "Hello");
  t.equal(written.toString("latin1", 64, 69), "World");
});
