// Plain bytes: ranges and conditions of RFC 9110, whole and partial writes, creation by upload.
import { createHash } from "node:crypto";
import { request } from "node:http";
import type { AddressInfo } from "node:net";
import { type Fixture, storeTest } from "../fixture.js";

const path = "/v1/regions/demo/content";

/** Bytes that tell where they are from. */
function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + (at >> 8) * 7) & 0xff;
  return bytes;
}

const put = (f: Fixture, body: Buffer | string, headers: Record<string, string> = {}, query = "") =>
  f.call("PUT", `${path}${query}`, { body, headers: { "content-type": "application/octet-stream", ...headers } });
const upload = (f: Fixture, body: Buffer | string, headers: Record<string, string> = {}, query = "") =>
  put(f, body, { "if-none-match": "*", ...headers }, query);

storeTest("single ranges", async (t, f) => {
  const bytes = pattern(1000);
  t.equal((await upload(f, bytes)).status, 201);
  const cases: [string, number, number][] = [
    ["bytes=0-0", 0, 0],
    ["bytes=0-99", 0, 99],
    ["bytes=990-", 990, 999],
    ["bytes=-10", 990, 999],
    ["bytes=-5000", 0, 999],
    ["bytes=990-2000", 990, 999],
    ["bytes=0-999", 0, 999],
    ["BYTES=5-6", 5, 6],
    ["bytes= 5-6 ,", 5, 6],
    ["bytes=5-6,7-9", 5, 9],
    ["bytes=5-6,2000-3000", 5, 6],
  ];
  for (const [range, first, last] of cases) {
    const { status, headers, bytes: body } = await f.get(path, { range });
    t.equal(status, 206, range);
    t.equal(headers["content-range"], `bytes ${first}-${last}/1000`, range);
    t.equal(headers["content-length"], String(last - first + 1));
    t.equal(headers["content-type"], "application/octet-stream");
    t.equal(headers["accept-ranges"], "bytes");
    t.ok(body.equals(bytes.subarray(first, last + 1)), range);
  }
});

storeTest("ranges that can't be satisfied, and those to ignore", async (t, f) => {
  await upload(f, pattern(1000));
  for (const range of [
    "bytes=1000-",
    "bytes=1000-2000",
    "bytes=-0",
    "bytes=9-5",
    "bytes=x",
    "bytes=1-2-3",
    "bytes=,",
  ]) {
    const { status, headers, json } = await f.get(path, { range });
    t.match({ status, code: json.code }, { status: 416, code: "range-not-satisfiable" }, range);
    t.equal(headers["content-range"], "bytes */1000");
  }
  for (const range of ["lines=1-2", "nonsense"]) t.equal((await f.get(path, { range })).status, 200, range);
});

storeTest("several ranges come as parts of one generation", async (t, f) => {
  const bytes = pattern(1000);
  await upload(f, bytes);
  const { status, headers, text, bytes: body } = await f.get(path, { range: "bytes=500-509,0-4,2-9,-3" });
  t.equal(status, 206);
  const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(headers["content-type"]!)![1]!;
  t.equal(headers["content-length"], String(body.length));
  t.notOk(headers["content-range"]);
  const parts = body.toString("latin1").split(`--${boundary}`).slice(1, -1);
  t.ok(text.endsWith(`--${boundary}--\r\n`));
  const seen = parts.map((part) => {
    const [head, ...rest] = part.split("\r\n\r\n");
    const range = /Content-Range: bytes (\d+)-(\d+)\/1000/.exec(head!)!;
    t.match(head, /Content-Type: application\/octet-stream/);
    const data = Buffer.from(rest.join("\r\n\r\n").slice(0, -2), "latin1");
    t.ok(data.equals(bytes.subarray(Number(range[1]), Number(range[2]) + 1)));
    return `${range[1]}-${range[2]}`;
  });
  t.same(seen, ["500-509", "0-9", "997-999"], "merged where they overlap, in the order they were asked for");
  const many = [...Array(65).keys()].map((number) => `${number * 10}-${number * 10}`).join(",");
  t.equal((await f.get(path, { range: `bytes=${many}` })).status, 416);
});

storeTest("If-Match, If-None-Match and If-Range, in that order", async (t, f) => {
  await upload(f, pattern(100));
  const etag = (await f.get(path)).headers.etag!;
  const status = async (headers: Record<string, string>) => (await f.get(path, headers)).status;
  t.equal(await status({ "if-match": etag }), 200);
  t.equal(await status({ "if-match": "*" }), 200);
  t.equal(await status({ "if-match": '"1.1.1"' }), 412);
  t.equal(await status({ "if-match": `W/${etag}` }), 412, "weak tags never match strongly");
  t.equal(await status({ "if-none-match": etag }), 304);
  t.equal(await status({ "if-none-match": `W/${etag}` }), 304);
  t.equal(await status({ "if-none-match": "*" }), 304);
  t.equal(await status({ "if-none-match": '"other", "1.2.3"' }), 200);
  t.equal(await status({ "if-match": '"1.1.1"', "if-none-match": etag }), 412, "If-Match is first");
  t.equal(await status({ "if-none-match": etag, range: "bytes=0-1" }), 304, "If-None-Match before Range");
  t.equal(await status({ "if-range": etag, range: "bytes=0-1" }), 206);
  t.equal(await status({ "if-range": '"1.1.1"', range: "bytes=0-1" }), 200);
  t.equal(await status({ "if-range": `W/${etag}`, range: "bytes=0-1" }), 200);
  t.equal(
    await status({ "if-range": '"1.1.1"', range: "bytes=9999-" }),
    200,
    "an ignored range can't be out of the region",
  );
  const unchanged = await f.get(path, { "if-none-match": etag });
  t.equal(unchanged.bytes.length, 0);
  t.equal(unchanged.headers.etag, etag);
  await f.batch("demo", { ops: [{ op: "write", offset: 0, data: "AAAA" }] });
  t.equal(await status({ "if-none-match": etag }), 200);
  t.equal(await status({ "if-range": etag, range: "bytes=0-1" }), 200);
});

storeTest("Region-If-Generation is If-Match with a number", async (t, f) => {
  await upload(f, pattern(100));
  await f.batch("demo", { ops: [{ op: "write", offset: 0, data: "AAAA" }] });
  const etag = (await f.get(path)).headers.etag!;
  for (const url of [path, "/v1/regions/demo"]) {
    const status = async (generation: string, headers: Record<string, string> = {}) =>
      (await f.get(url, { "region-if-generation": generation, ...headers })).status;
    t.equal(await status("1"), 200);
    t.equal(await status("1", { "if-none-match": etag }), 304);
    t.equal(await status("0", { "if-none-match": etag }), 412, "it comes before If-None-Match");
    t.equal(await status("one"), 400);
    const { json } = await f.get(url, { "region-if-generation": "2", range: "bytes=0-1" });
    t.match(json, { code: "generation-mismatch", failures: [{ limit: 2, actual: 1 }] });
    t.equal((await f.call("HEAD", url, { headers: { "region-if-generation": "2" } })).status, 412);
  }
  t.equal((await f.get(path, { "region-if-generation": "1", range: "bytes=0-1" })).status, 206);
});

storeTest("HEAD tells what GET would", async (t, f) => {
  await upload(f, pattern(1000));
  const { status, headers, bytes } = await f.call("HEAD", path, { headers: { range: "bytes=0-1" } });
  const got = await f.get(path);
  t.equal(status, 200);
  t.equal(bytes.length, 0);
  for (const name of ["content-length", "etag", "content-type", "accept-ranges", "region-generation"]) {
    t.equal(headers[name], got.headers[name], name);
  }
  t.equal((await f.call("HEAD", path, { headers: { "if-none-match": headers.etag! } })).status, 304);
  t.equal((await f.call("HEAD", "/v1/regions/nope/content")).status, 404);
});

storeTest("a download has a file's name", async (t, f) => {
  await upload(f, pattern(10));
  t.equal((await f.get(`${path}?download=1`)).headers["content-disposition"], 'attachment; filename="demo.bin"');
  t.notOk((await f.get(path)).headers["content-disposition"]);
  t.equal((await f.get(`${path}?download=yes`)).json.code, "query-param-invalid");
  t.equal((await f.get(`${path}?other=1`)).json.code, "query-param-invalid");
});

storeTest("a long read is chunked and says so", async (t, f) => {
  const bytes = pattern(3_000_000);
  t.equal((await upload(f, bytes)).status, 201);
  const all = await f.get(path);
  t.equal(all.status, 200);
  t.equal(all.headers["region-read"], "chunked");
  t.match(all.headers.etag, /^W\/"/);
  t.ok(all.bytes.equals(bytes));
  t.equal((await f.call("HEAD", path)).headers.etag, all.headers.etag);
  const strict = await f.get(path, { prefer: "respond-async, handling=strict" });
  t.match(strict.json, { status: 409, code: "read-not-atomic" });
  const short = await f.get(path, { prefer: "handling=strict", range: "bytes=1000-2000" });
  t.equal(short.status, 206);
  t.notOk(short.headers["region-read"]);
  const long = await f.get(path, { range: "bytes=10-1999999" });
  t.equal(long.headers["content-range"], "bytes 10-1999999/3000000");
  t.ok(long.bytes.equals(bytes.subarray(10, 2_000_000)));
  const parts = await f.get(path, { range: "bytes=0-1499999,2000000-2999999" });
  t.equal(parts.headers["region-read"], "chunked");
  t.equal(parts.headers["content-length"], String(parts.bytes.length));
  t.ok(parts.bytes.includes(bytes.subarray(2_000_000)));
});

storeTest(
  "long reads at the same time, slow ones and some that are given up, get their own bytes each",
  async (t, f) => {
    // More than the kernel takes at once for a reader who lets it lie.
    const length = 8 << 20;
    const parts = [1, 2, 3].map((value) => Buffer.alloc(length, value));
    t.equal((await upload(f, Buffer.concat(parts))).status, 201);
    await f.app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = f.app.server.address() as AddressInfo;
    const read = (index: number, givesUp: boolean) =>
      new Promise<boolean>((resolve, reject) => {
        const headers = { range: `bytes=${index * length}-${(index + 1) * length - 1}` };
        const asked = request({ port, path, headers }, (answer) => {
          if (givesUp) {
            answer.destroy();
            resolve(true);
            return;
          }
          const got: Buffer[] = [];
          setTimeout(() => answer.on("data", (some) => got.push(some)), 20);
          answer.on("end", () => resolve(Buffer.concat(got).equals(parts[index]!)));
          answer.on("error", reject);
        });
        asked.on("error", (error) => (givesUp ? resolve(true) : reject(error)));
        asked.end();
      });
    for (let round = 0; round < 4; round++) {
      const reads = Array.from({ length: 8 }, (_, at) => read(at % 3, at % 4 === 3));
      t.ok((await Promise.all(reads)).every(Boolean), `round ${round}`);
    }
  },
  "--read-bytes-max=8MiB",
);

storeTest("a whole replacement is as long as what it replaces", async (t, f) => {
  await f.region("demo", 100);
  const bytes = pattern(100);
  const done = await put(f, bytes);
  t.equal(done.status, 204);
  t.equal(done.text, "");
  t.equal(done.headers["region-generation"], "1");
  const got = await f.get(path);
  t.equal(got.headers.etag, done.headers.etag);
  t.ok(got.bytes.equals(bytes));
  for (const length of [0, 99, 101]) {
    const { json } = await put(f, pattern(length));
    t.match(json, { status: 422, code: "length-mismatch", failures: [{ limit: 100, actual: length }] });
  }
  t.equal((await f.call("PUT", "/v1/regions/nope/content", { body: "x" })).json.code, "region-not-found");
});

storeTest("a partial replacement", async (t, f) => {
  await f.region("demo", 100);
  const expected = Buffer.alloc(100);
  const part = async (first: number, last: number, size: string, body: Buffer | string) =>
    put(f, body, { "content-range": `bytes ${first}-${last}/${size}` });
  t.equal((await part(10, 14, "*", "Hello")).status, 204);
  expected.write("Hello", 10);
  t.equal((await part(95, 99, "100", "World")).status, 204);
  expected.write("World", 95);
  t.ok((await f.get(path)).bytes.equals(expected));
  t.match((await part(96, 100, "*", "World")).json, { status: 416, code: "range-not-satisfiable" });
  t.equal((await part(96, 100, "*", "World")).headers["content-range"], "bytes */100");
  t.equal((await part(0, 9, "*", "Hello")).json.code, "length-mismatch");
  t.equal((await part(0, 4, "101", "Hello")).json.code, "length-mismatch");
  for (const value of ["bytes 5-1/*", "bytes */100", "lines 0-4/*", "bytes 0-4", "x"]) {
    t.equal((await put(f, "Hello", { "content-range": value })).json.code, "header-invalid", value);
  }
  t.ok((await f.get(path)).bytes.equals(expected), "refused writes left nothing");
});

storeTest("conditions on writes", async (t, f) => {
  await f.region("demo", 4);
  const etag = (await f.get(path)).headers.etag!;
  const write = async (headers: Record<string, string>) => (await put(f, "abcd", headers)).json?.code ?? "done";
  t.equal(await write({ "if-match": '"1.1.1"' }), "etag-mismatch");
  t.equal(await write({ "if-match": etag }), "done");
  t.equal(await write({ "if-match": etag }), "etag-mismatch");
  t.equal(await write({ "if-none-match": '"1.1.1"' }), "done");
  t.equal(await write({ "if-none-match": (await f.get(path)).headers.etag! }), "etag-mismatch");
  t.equal(await write({ "if-none-match": "*" }), "etag-mismatch");
  t.equal(await write({ "region-if-generation": "1" }), "generation-mismatch");
  t.equal(await write({ "region-if-generation": "2" }), "done");
  t.equal(await write({ "region-if-generation": "two" }), "header-invalid");
  t.equal(await write({ "region-if-generation": "3", "content-range": "bytes 0-3/*" }), "done");
  t.equal(await write({ "if-match": etag, "content-range": "bytes 0-3/*" }), "etag-mismatch");
});

storeTest("a retry of a whole replacement with a condition gets the first answer", async (t, f) => {
  // The condition was looked at before the key, and the retry was told 412.
  await f.region("demo", 4);
  const headers = { "if-match": (await f.get(path)).headers.etag!, "idempotency-key": "one" };
  const first = await put(f, "abcd", headers);
  const again = await put(f, "abcd", headers);
  t.equal(again.status, 204);
  t.equal(again.headers["idempotency-replayed"], "?1");
  t.equal(again.headers.etag, first.headers.etag);
  t.equal((await put(f, "abc", { ...headers, "idempotency-key": "two" })).json.code, "etag-mismatch");
  await f.call("PATCH", "/v1/regions/demo", { body: { size: 8 } });
  const late = await put(f, "abcd", headers);
  t.equal(late.headers["idempotency-replayed"], "?1", "also when the region has another size by now");
  t.equal(late.headers.etag, first.headers.etag);
  t.equal((await put(f, "abcde", headers)).json.code, "idempotency-key-reused");
  t.equal((await put(f, "abcd", { "idempotency-key": "three" })).json.code, "length-mismatch");
});

storeTest("an upload makes a region of any length, or none", async (t, f) => {
  const bytes = pattern(1_000_000);
  const created = await upload(f, bytes, {}, "?durability=ordered");
  t.equal(created.status, 201);
  t.equal(created.headers.location, "/v1/regions/demo");
  t.match(created.json, { name: "demo", size: bytes.length, durability: "ordered", generation: 0 });
  t.equal(created.headers.etag, created.json.etag);
  t.ok((await f.get(path)).bytes.equals(bytes));
  t.equal((await upload(f, pattern(10))).json.code, "etag-mismatch", "there is one now");
  t.equal(
    (await f.call("PUT", "/v1/regions/empty/content", { body: "", headers: { "if-none-match": "*" } })).status,
    422,
  );
  t.equal((await f.get("/v1/regions/empty")).status, 404);
  t.equal((await upload(f, pattern(10), {}, "?durability=never")).json.code, "query-param-invalid");
});

storeTest(
  "an upload has a limit",
  async (t, f) => {
    const { json } = await upload(f, pattern(1001));
    t.match(json, { status: 413, code: "body-too-large", failures: [{ limit: 1000, actual: 1001 }] });
    t.equal((await f.get("/v1/regions/demo")).status, 404);
    // Without Content-Length it is noticed on the way, and the answer has to reach who is still sending.
    await f.app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = f.app.server.address() as AddressInfo;
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { "if-none-match": "*", connection: "close" };
      const sending = request({ port, method: "PUT", path, headers }, (answer) => {
        resolve(answer.statusCode);
        answer.resume();
        sending.end();
      });
      sending.on("error", reject);
      sending.write(pattern(1001));
    });
    t.equal(status, 413);
    t.equal((await upload(f, pattern(1000))).status, 201);
  },
  "--region-bytes-max=1000",
);

// Conditions beside If-None-Match were not looked at: 201 for what RFC 9110 refuses.
storeTest("an upload whose other conditions can't hold is refused", async (t, f) => {
  for (const [name, value] of [
    ["if-match", '"1.1.1"'],
    ["if-match", "*"],
    ["region-if-generation", "0"],
  ] as const) {
    t.equal((await upload(f, "x", { [name]: value })).status, 412, `${name}: ${value}`);
  }
  t.equal((await f.get("/v1/regions/demo")).status, 404);
});

// The same key with other bytes of the same length was answered as a replay, although nothing of them was stored.
storeTest("an upload's key goes with its bytes, where their digest is told", async (t, f) => {
  const digest = (text: string) => `sha-256=:${createHash("sha256").update(text).digest("base64")}:`;
  const send = (text: string) => upload(f, text, { "idempotency-key": "k", "content-digest": digest(text) });
  t.equal((await send("first")).status, 201);
  t.equal((await send("first")).headers["idempotency-replayed"], "?1");
  t.match((await send("other")).json, { status: 422, code: "idempotency-key-reused" });
});

storeTest("an upload that breaks off leaves nothing", async (t, f) => {
  await f.app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = f.app.server.address() as AddressInfo;
  await new Promise<void>((resolve) => {
    const headers = { "if-none-match": "*", "content-length": "100000" };
    const sending = request({ port, method: "PUT", path, headers });
    sending.on("error", () => resolve());
    sending.write(pattern(50_000), () => setTimeout(() => sending.destroy(), 20));
  });
  while (f.lifecycle.admitted > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  t.equal((await f.get("/v1/regions/demo")).status, 404);
  t.equal((await upload(f, pattern(10))).status, 201, "the name is free");
});

storeTest("a body may be as long as a batch", async (t, f) => {
  await f.region("demo", 300_000);
  const { json } = await put(f, pattern(300_000));
  t.match(json, { status: 413, code: "body-too-large", failures: [{ limit: 256 * 1024, actual: 300_000 }] });
  const most = pattern(256 * 1024);
  t.equal((await put(f, most, { "content-range": `bytes 5-${most.length + 4}/*` })).status, 204);
  t.ok((await f.get(path, { range: `bytes=5-${most.length + 4}` })).bytes.equals(most));
});

storeTest("what can be done with bytes", async (t, f) => {
  const { status, headers } = await f.call("OPTIONS", path);
  t.equal(status, 204);
  t.equal(headers.allow, "GET, HEAD, PUT, PATCH, OPTIONS");
  t.equal(headers["accept-ranges"], "bytes");
  t.equal(headers["accept-patch"], "message/byterange, multipart/byteranges, application/byteranges");
});

storeTest("a bytes' media type does not matter", async (t, f) => {
  await f.region("demo", 4);
  for (const type of ["text/plain", "application/json", "application/x-www-form-urlencoded"]) {
    t.equal((await put(f, "abcd", { "content-type": type })).status, 204, type);
  }
});
