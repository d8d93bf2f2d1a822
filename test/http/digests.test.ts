// Digests: of ranges, of what is sent and of whole regions (RFC 9530), and of bodies, which are refused when they differ.
import { createHash } from "node:crypto";
import { crc32c } from "../../native/index.js";
import { type Answer, type Fixture, storeTest } from "../fixture.js";

const path = "/v1/regions/demo/content";
const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest();
const field = (algorithm: string, digest: Buffer) => `${algorithm}=:${digest.toString("base64")}:`;
const digestUrl = (query: string) => `/v1/regions/demo/digest?${query}`;

async function holding(f: Fixture, bytes: Buffer): Promise<void> {
  await f.call("PUT", path, { body: bytes, headers: { "if-none-match": "*" } });
}

storeTest("the digest of a range", async (t, f) => {
  const bytes = Buffer.alloc(200_000, "123456789");
  await holding(f, bytes);
  const whole = await f.get("/v1/regions/demo/digest");
  t.match(whole.json, {
    algorithm: "sha-256",
    offset: 0,
    length: 200_000,
    digest: sha256(bytes).toString("hex"),
    generation: 0,
  });
  t.equal(whole.headers.etag, (await f.get(path)).headers.etag);
  const part = await f.get(digestUrl("offset=9&length=9&algorithm=crc32c"));
  t.match(part.json, { algorithm: "crc32c", offset: 9, length: 9, digest: "e3069283" }, "the check value of CRC-32C");
  const rest = await f.get(digestUrl("offset=199990"));
  t.equal(rest.json.digest, sha256(bytes.subarray(199_990)).toString("hex"));
  t.equal((await f.get(digestUrl("length=0"))).json.digest, sha256(Buffer.alloc(0)).toString("hex"));
  const guard = { kind: "digest", offset: 9, length: 9, algorithm: "crc32c", equals: part.json.digest };
  t.equal((await f.batch("demo", { guards: [guard], ops: [] })).status, 200, "a guard takes it as it is");
  t.equal((await f.get(digestUrl("offset=200000&length=1"))).json.code, "out-of-bounds");
  t.equal((await f.get(digestUrl("offset=200001"))).json.code, "out-of-bounds");
  for (const query of ["algorithm=md5", "offset=-1", "length=x", "other=1"]) {
    t.equal((await f.get(digestUrl(query))).json.code, "query-param-invalid", query);
  }
  t.equal((await f.get("/v1/regions/nope/digest")).json.code, "region-not-found");
});

storeTest("a digest has a limit", async (t, f) => {
  await holding(f, Buffer.alloc(300_000));
  t.match((await f.get("/v1/regions/demo/digest")).json, {
    status: 413,
    code: "batch-too-large",
    failures: [{ limit: 256 * 1024, actual: 300_000 }],
  });
  t.equal((await f.get(digestUrl(`length=${256 * 1024}`))).status, 200);
});

storeTest("digests of what is read", async (t, f) => {
  const bytes = Buffer.alloc(1000, "abcdefg");
  await holding(f, bytes);
  const whole = field("sha-256", sha256(bytes));
  const all = await f.get(path, { "want-content-digest": "sha-256=3", "want-repr-digest": "sha-256=3" });
  t.equal(all.status, 200);
  t.equal(all.headers["content-digest"], whole);
  t.equal(all.headers["repr-digest"], whole);
  const both = { "want-content-digest": "sha-256=3", "want-repr-digest": "sha-256" };
  for (const range of ["bytes=1-9", "bytes=-5", "bytes=0-3,10-19", "bytes=990-2000"]) {
    const part = await f.get(path, { ...both, "want-repr-digest": "sha-256=1", range });
    t.equal(part.status, 206);
    t.equal(part.headers["content-digest"], field("sha-256", sha256(part.bytes)), `${range}: of what was sent`);
    t.equal(part.headers["repr-digest"], whole, `${range}: of the region`);
  }
  const plain = await f.get(path, { range: "bytes=1-9" });
  t.notOk(plain.headers["content-digest"]);
  const wants: [string, string | undefined][] = [
    ["sha-512=1, sha-256=2", "sha-256"],
    ["sha-512=9;q=1, sha-256=2, md5=10", "sha-512"],
    ["crc32c=1", "crc32c"],
    ["sha-256=0", undefined],
    ["md5=5", undefined],
    ["", undefined],
  ];
  for (const [want, algorithm] of wants) {
    const { headers } = await f.get(path, { "want-content-digest": want });
    t.equal(headers["content-digest"]?.split("=", 1)[0], algorithm, want);
  }
  for (const bad of ["sha-256", "sha-256=11", "sha-256=1.5", "=", "sha-256=1,", "SHA-256=1"]) {
    for (const header of ["want-content-digest", "want-repr-digest"]) {
      t.match(
        (await f.get(path, { [header]: bad })).json,
        { status: 400, code: "header-invalid" },
        `${header}: ${bad}`,
      );
    }
  }
  const checked = await f.get(path, { "want-content-digest": "crc32c=1", range: "bytes=0-8" });
  const { json } = await f.get(digestUrl("length=9&algorithm=crc32c"));
  t.equal(checked.headers["content-digest"], field("crc32c", Buffer.from(json.digest, "hex")));
});

storeTest("no digest of what is not of one point in time", async (t, f) => {
  const bytes = Buffer.alloc(300_000, "x");
  await holding(f, bytes);
  const want = { "want-content-digest": "sha-256=1", "want-repr-digest": "sha-256=1" };
  const all = await f.get(path, want);
  t.equal(all.headers["region-read"], "chunked");
  t.notOk(all.headers["content-digest"]);
  const part = await f.get(path, { ...want, range: "bytes=0-199999" });
  t.equal(part.headers["content-digest"], field("sha-256", sha256(part.bytes)));
  t.notOk(part.headers["repr-digest"], "the region is too long for one");
});

storeTest("a body that is not what its digest says is refused, and nothing is written", async (t, f) => {
  await f.region("demo", 200_000);
  const bytes = Buffer.alloc(200_000, "x");
  const batch = JSON.stringify({ ops: [{ op: "write", offset: 0, data: "AAAA" }] });
  const json = { "content-type": "application/json" };
  const requests: [string, string, Buffer | string, Record<string, string>, number][] = [
    ["PUT", path, bytes, {}, 204],
    ["PUT", path, "Hello", { "content-range": "bytes 0-4/*" }, 204],
    ["PUT", "/v1/regions/new/content", bytes, { "if-none-match": "*" }, 201],
    ["POST", "/v1/regions/demo/batches", batch, json, 200],
    ["POST", "/v1/batches", batch.replace('"offset"', '"region":"demo","offset"'), json, 200],
    ["PUT", "/v1/regions/demo/cells/8", '{"value":1}', json, 200],
    ["PATCH", "/v1/regions/demo", '{"labels":{"a":"ü"}}', json, 200],
  ];
  const call = (request: (typeof requests)[number], digest: string): Promise<Answer> =>
    f.call(request[0], request[1], { body: request[2], headers: { ...request[3], "content-digest": digest } });
  for (const request of requests) {
    const [method, url, body, , status] = request;
    const right = Buffer.from(body);
    const other = Buffer.from("another");
    const before = await f.get("/v1/regions/demo");
    for (const digest of [
      field("sha-256", sha256(other)),
      `sha-512=:AA==:, ${field("sha-256", sha256(right))}`,
      "crc32c=:AAAAAA==:",
    ]) {
      const { json: problem } = await call(request, digest);
      t.match(problem, { status: 400, code: "digest-mismatch", committed: false }, `${method} ${url} ${digest}`);
      t.match(problem.failures, [{ code: "digest-mismatch", limit: /^(?:sha-|crc32c)/, actual: /=:.+:$/ }]);
    }
    t.equal((await call(request, "sha-256=abc")).json.code, "header-invalid");
    t.equal((await call(request, "sha-256=:")).json.code, "header-invalid");
    t.same((await f.get("/v1/regions/demo")).json, before.json, "nothing has changed");
    if (status === 201) t.equal((await f.get("/v1/regions/new")).status, 404);
    const sha512 = createHash("sha512").update(right).digest();
    const checksum = Buffer.alloc(4);
    checksum.writeUInt32BE(crc32c(right.subarray(3), crc32c(right.subarray(0, 3))));
    const known = [field("sha-256", sha256(right)), field("sha-512", sha512), field("crc32c", checksum)];
    const good = `md5=:AA==:, ${known.join(", ")}`;
    t.equal((await call(request, good)).status, status, `${method} ${url}`);
  }
});

storeTest("HEAD tells the digests of a GET without ranges", async (t, f) => {
  const bytes = Buffer.alloc(200_000, "holdfast ");
  await holding(f, bytes);
  const head = (headers: Record<string, string>) => f.call("HEAD", path, { headers });
  const wants: Record<string, string>[] = [
    { "want-content-digest": "sha-256=1" },
    { "want-repr-digest": "sha-512=2, sha-256=1" },
  ];
  for (const want of wants) {
    const got = await f.get(path, want);
    const told = await head({ ...want, range: "bytes=0-9" });
    t.equal(told.status, 200, "ranges are for GET");
    t.equal(told.bytes.length, 0);
    t.equal(told.headers["content-length"], "200000");
    for (const name of ["content-digest", "repr-digest", "etag", "content-type"]) {
      t.equal(told.headers[name], got.headers[name], name);
    }
  }
  t.equal((await head({ "want-repr-digest": "crc32c=1" })).headers["repr-digest"], field("crc32c", crc32cOf(bytes)));
  t.equal((await head({ "want-repr-digest": "md5=1" })).headers["repr-digest"], undefined);
  t.equal((await head({ "want-repr-digest": "sha-256=11" })).status, 400);
  const { etag } = (await head({})).headers;
  t.equal((await head({ "want-repr-digest": "sha-256=1", "if-none-match": etag! })).status, 304);
  t.equal((await head({ "want-repr-digest": "sha-256=1", "if-match": '"1.1.1"' })).status, 412);
  // Longer than what is read at one point in time.
  await f.region("long", 256 * 1024 + 1);
  const long = await f.call("HEAD", "/v1/regions/long/content", { headers: { "want-repr-digest": "sha-256=1" } });
  t.match(long.headers, { "repr-digest": undefined, "region-read": "chunked", "content-length": "262145" });
});

function crc32cOf(bytes: Buffer): Buffer {
  const digest = Buffer.alloc(4);
  digest.writeUInt32BE(crc32c(bytes, 0));
  return digest;
}
