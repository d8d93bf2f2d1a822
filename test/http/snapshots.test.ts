// Snapshots over HTTP: made, listed, read by ranges, compared, restored under a condition, gone with their region.
import { type Fixture, storeTest } from "../fixture.js";

const all = "/v1/regions/demo/snapshots";
const content = "/v1/regions/demo/content";
const size = 64 * 1024;

/** A region is full of these before anything is done to it: a byte that was lost is none of them. */
const filler = "?";

/** The region "demo" of this size, without a zero in it. */
async function filled(f: Fixture, bytes: number): Promise<void> {
  const { status } = await f.call("PUT", content, {
    body: Buffer.alloc(bytes, filler),
    headers: { "if-none-match": "*", "content-type": "application/octet-stream" },
  });
  if (status !== 201) throw new Error(`not made: ${status}`);
}

/** What the region, or a snapshot, has to hold: the filler, but for these texts. */
function expected(bytes: number, texts: Record<number, string>): string {
  const all = Buffer.alloc(bytes, filler);
  for (const [offset, text] of Object.entries(texts)) all.write(text, Number(offset), "latin1");
  return all.toString("latin1");
}

const write = (f: Fixture, offset: number, data: string) =>
  f.batch("demo", { ops: [{ op: "write", offset, data, encoding: "utf8" }] });

async function reopen(f: Fixture): Promise<void> {
  await f.store!.close();
  f.store = await f.openStore();
}

async function snapshot(f: Fixture): Promise<string> {
  const { json } = await f.call("POST", all);
  return json.id;
}

storeTest("a snapshot is made, listed, read and deleted", async (t, f) => {
  await f.region("demo", size);
  t.same((await f.get(all)).json, { items: [] });
  await write(f, 10, "before");
  const made = await f.call("POST", all);
  t.equal(made.status, 201);
  t.match(made.json, { id: /^[0-9]{16}$/, generation: 1, size });
  t.equal(made.headers.location, `${all}/${made.json.id}`);
  t.equal((await f.get("/v1/regions/demo")).json.generation, 1, "the region is at the generation that it was at");
  await write(f, 10, "after!");
  const later = await f.call("POST", all);
  t.same((await f.get(all)).json.items, [made.json, later.json]);
  const one = await f.get(made.headers.location!);
  t.same(one.json, made.json);
  t.equal((await f.get(made.headers.location!, { "if-none-match": made.json.etag })).status, 304);
  t.equal((await f.call("DELETE", made.headers.location!)).status, 204);
  t.equal((await f.get(made.headers.location!)).json.code, "snapshot-not-found");
  t.equal((await f.call("DELETE", made.headers.location!)).json.code, "snapshot-not-found");
  t.same((await f.get(all)).json.items, [later.json]);
});

storeTest("what no snapshot is", async (t, f) => {
  t.equal((await f.get(all)).json.code, "region-not-found");
  t.equal((await f.call("POST", all)).json.code, "region-not-found");
  await f.region("demo", size);
  const unknown = "1769860800000000";
  for (const id of [unknown, "0", "x", "..%2f..%2fx"]) {
    t.equal((await f.get(`${all}/${id}`)).json.code, "snapshot-not-found", id);
    t.equal((await f.call("DELETE", `${all}/${id}`)).json.code, "snapshot-not-found", id);
    const restored = await f.call("POST", `${all}/${id}/restores`, { headers: { "if-match": "*" } });
    t.equal(restored.json.code, "snapshot-not-found", id);
  }
  t.equal((await f.get(`${content}?snapshot=${unknown}`)).json.code, "snapshot-not-found");
  t.equal((await f.get(`${content}?snapshot=x`)).json.code, "query-param-invalid");
  t.equal((await f.get(`/v1/regions/demo/extents?since=snapshot:${unknown}`)).json.code, "snapshot-not-found");
  t.equal((await f.get("/v1/regions/demo/extents?since=snapshot:x")).json.code, "query-param-invalid");
  t.equal((await f.call("POST", all, { headers: { "region-if-generation": "7" } })).json.code, "generation-mismatch");
});

storeTest("its bytes are read as the region's are, by ranges and under a tag of their own", async (t, f) => {
  await filled(f, size);
  await write(f, 10, "before");
  const id = await snapshot(f);
  await write(f, 10, "after!");
  const path = `${content}?snapshot=${id}`;
  const whole = await f.get(path);
  t.equal(whole.status, 200);
  t.ok(whole.bytes.toString("latin1") === expected(size, { 10: "before" }), "all of its bytes");
  t.equal(whole.headers.etag, (await f.get(`${all}/${id}`)).json.etag);
  t.not(whole.headers.etag, (await f.get(content)).headers.etag);
  const part = await f.get(path, { range: "bytes=10-15" });
  t.equal(part.status, 206);
  t.equal(part.text, "before");
  t.equal(part.headers["content-range"], `bytes 10-15/${size}`);
  const parts = await f.get(path, { range: "bytes=10-11,14-15" });
  t.match(parts.headers["content-type"], /^multipart\/byteranges/);
  t.match(parts.text, /\r\n\r\nbe\r\n.*\r\n\r\nre\r\n/s);
  t.equal((await f.get(path, { range: `bytes=${size}-` })).status, 416);
  t.equal((await f.get(path, { "if-none-match": whole.headers.etag! })).status, 304);
  const head = await f.call("HEAD", path);
  t.equal(head.headers["content-length"], String(size));
  t.equal(head.headers.etag, whole.headers.etag);
  const digest = { "want-repr-digest": "sha-256=1" };
  const before = (await f.get(path, digest)).headers["repr-digest"];
  t.not(before, undefined);
  t.not(before, (await f.get(content, digest)).headers["repr-digest"]);
  const saved = await f.get(`${path}&download=1`);
  t.equal(saved.headers["content-disposition"], `attachment; filename="demo-${id}.bin"`);
});

storeTest("one that is too long for one read is of one point in time all the same", async (t, f) => {
  const long = 600 * 1024;
  await filled(f, long);
  await write(f, long - 4, "last");
  const id = await snapshot(f);
  const { status, headers, bytes } = await f.get(`${content}?snapshot=${id}`, { prefer: "handling=strict" });
  t.equal(status, 200);
  t.ok(bytes.toString("latin1") === expected(long, { [long - 4]: "last" }), "all of its bytes");
  t.equal(headers["region-read"], undefined);
  t.notOk(headers.etag!.startsWith("W/"));
  t.equal((await f.get(content, { prefer: "handling=strict" })).json.code, "read-not-atomic");
});

storeTest("a restore puts bytes and size back, once, under a condition", async (t, f) => {
  await filled(f, size);
  await write(f, 10, "before");
  const id = await snapshot(f);
  const restores = `${all}/${id}/restores`;
  await write(f, 10, "after!");
  await f.call("PATCH", "/v1/regions/demo", {
    body: { size: 100, labels: { team: "red" } },
    headers: { "if-match": "*" },
  });
  const then = (await f.get("/v1/regions/demo")).json;
  t.equal((await f.call("POST", restores)).json.code, "precondition-required");
  t.equal((await f.call("POST", restores, { headers: { "if-match": '"1.1.1"' } })).json.code, "etag-mismatch");
  const headers = { "if-match": then.etag, "idempotency-key": "back" };
  const restored = await f.call("POST", restores, { headers });
  t.equal(restored.status, 200);
  t.match(restored.json, { size, generation: then.generation + 1, labels: { team: "red" } });
  t.ok((await f.get(content)).bytes.toString("latin1") === expected(size, { 10: "before" }), "all of its bytes");
  await write(f, 10, "newest");
  const again = await f.call("POST", restores, { headers });
  t.equal(again.headers["idempotency-replayed"], "?1");
  t.equal(again.json.generation, then.generation + 1);
  t.ok((await f.get(content)).bytes.toString("latin1") === expected(size, { 10: "newest" }), "it was not done twice");
  t.equal((await f.batch("demo", { ops: [] }, { "if-match": then.etag })).status, 412, "the old tag is of the past");
  await f.call("PATCH", "/v1/regions/demo", { body: { readOnly: true } });
  t.equal((await f.call("POST", restores, { headers: { "if-match": "*" } })).json.code, "region-read-only");
});

storeTest("readers of changes are told of a restore, and go on", async (t, f) => {
  await f.region("demo", size);
  await write(f, 10, "before");
  const id = await snapshot(f);
  await write(f, 10, "after!");
  await f.call("POST", `${all}/${id}/restores`, { headers: { "region-if-generation": "2" } });
  await write(f, 20, "more");
  const { items } = (await f.get("/v1/regions/demo/changes?since=1")).json;
  t.match(items, [
    { generation: 2, kind: "batch" },
    { generation: 3, kind: "restore", ranges: [{ offset: 0, length: size }] },
    { generation: 4, kind: "batch", ranges: [{ offset: 20, length: 4 }] },
  ]);
  const since = (await f.get("/v1/regions/demo/extents?since=2")).json;
  t.match(since, { generation: 4, items: [{ offset: 0, length: size, kind: "changed" }] });
});

storeTest("what differs from a snapshot is told exactly, whatever is remembered", async (t, f) => {
  await filled(f, size);
  await write(f, 10, "before");
  const since = `/v1/regions/demo/extents?since=snapshot:${await snapshot(f)}`;
  t.match((await f.get(since)).json, { items: [], nextOffset: null, size, generation: 1 });
  await write(f, 10, "before");
  t.same((await f.get(since)).json.items, [], "the same bytes again are no difference");
  await write(f, 5000, "x");
  await write(f, size - 1, "y");
  await reopen(f);
  const { json } = await f.get(since);
  const wanted = [
    { offset: 4096, length: 4096, kind: "changed" },
    { offset: size - 4096, length: 4096, kind: "changed" },
  ];
  t.same(json.items, wanted);
  t.equal(json.nextOffset, null);
  const page = (await f.get(`${since}&limit=1`)).json;
  t.same(page.items, wanted.slice(0, 1));
  t.same((await f.get(`${since}&offset=${page.nextOffset}`)).json.items, wanted.slice(1));
  await f.call("PATCH", "/v1/regions/demo", { body: { size: size + 10 } });
  t.equal((await f.get(since)).json.items.at(-1).length, 4106, "what only the region has differs");
});

storeTest(
  "a key makes making and deleting exact; the limit holds",
  async (t, f) => {
    await f.region("demo", size);
    const headers = { "idempotency-key": "one" };
    const first = await f.call("POST", all, { headers });
    await reopen(f);
    const again = await f.call("POST", all, { headers });
    t.equal(again.headers["idempotency-replayed"], "?1");
    t.same(again.json, first.json);
    await f.call("POST", all);
    t.match((await f.call("POST", all)).json, { code: "insufficient-storage", status: 507 });
    for (const replayed of [undefined, "?1"]) {
      const gone = await f.call("DELETE", `${all}/${first.json.id}`, { headers });
      t.equal(gone.status, 204);
      t.equal(gone.headers["idempotency-replayed"], replayed);
    }
    t.equal((await f.call("POST", all)).status, 201);
    t.equal((await f.get("/v1/limits")).json.snapshotsMax, 2);
  },
  "--snapshots-max=2",
);

storeTest("a region takes its snapshots with it", async (t, f) => {
  await f.region("demo", size);
  const id = await snapshot(f);
  await f.call("DELETE", "/v1/regions/demo");
  t.equal((await f.get(`${all}/${id}`)).json.code, "region-not-found");
  await f.region("demo", size);
  t.same((await f.get(all)).json.items, []);
  t.equal((await f.get(`${all}/${id}`)).json.code, "snapshot-not-found");
});

storeTest("a service that stops makes none", async (t, f) => {
  await f.region("demo", size);
  const id = await snapshot(f);
  f.lifecycle.stop();
  for (const [method, path] of [
    ["POST", all],
    ["DELETE", `${all}/${id}`],
    ["POST", `${all}/${id}/restores`],
  ] as const) {
    t.match((await f.call(method, path)).json, { status: 503, code: "draining" });
  }
});
