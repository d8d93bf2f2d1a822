// What a client is told when the disk fails or is slow: a file that somebody cut, a sync that fails, no space, a sync or a
// checkpoint that takes its time. Each answer is held against the document.
import { rmSync, truncateSync } from "node:fs";
import t, { type Test } from "tap";
import { checkedFetch } from "../contract.js";
import { storeTest } from "../fixture.js";
import { freshDir, ServiceProcess } from "../service-process.js";

const content = { "content-type": "application/octet-stream" };
const write = { ops: [{ op: "write", offset: 0, data: "AAAA" }] };

storeTest("a region whose file was cut is faulted, and says so to everybody", async (t, f) => {
  await f.region("demo", 8192);
  await f.region("other", 8);
  truncateSync(`${f.directory}/regions/demo/data`, 100);
  const demo = "/v1/regions/demo";
  const read = await f.get(`${demo}/content`);
  t.match(read.json, { status: 503, code: "region-faulted", retryable: true, committed: false });
  t.equal(read.headers["retry-after"], "1");
  const { json: info } = await f.get(demo);
  t.match(info, { state: "faulted", fault: "the data file was truncated by another program", generation: 0 });
  const refused: [string, string, unknown?, Record<string, string>?][] = [
    ["GET", `${demo}/view?offset=4096`],
    ["GET", `${demo}/digest`],
    ["GET", `${demo}/cells/4096?type=u8`],
    ["POST", `${demo}/batches`, write],
    ["POST", "/v1/batches", { ops: [{ ...write.ops[0], region: "demo" }] }],
    ["PUT", `${demo}/cells/0?type=u8`, { value: 1 }],
    ["POST", `${demo}/cells/0?type=u8`, { op: "add", value: 1 }],
    ["PUT", `${demo}/content`, "AAA", { ...content, "content-range": "bytes 0-2/*" }],
    ["PATCH", `${demo}/content`, "Content-Range: bytes 0-2/*\r\n\r\nAAA", { "content-type": "message/byterange" }],
    ["POST", `${demo}/flushes`],
    ["POST", `${demo}/snapshots`],
    ["PATCH", demo, { size: 16_384 }],
  ];
  for (const [method, url, body, headers] of refused) {
    const answer = await f.call(method, url, { body, ...(headers && { headers }) });
    t.match(
      answer.json,
      { status: 503, code: "region-faulted", retryable: true, committed: false },
      `${method} ${url}`,
    );
    t.equal(answer.headers["retry-after"], "1", `${method} ${url}`);
  }
  t.equal((await f.get(demo)).json.generation, 0, "nothing of it landed");
  t.equal((await f.batch("other", write)).status, 200, "other regions go on");
  t.equal((await f.call("DELETE", demo)).status, 204, "it can be deleted");
});

const headers = { "content-type": "application/json" };
const batch = { body: JSON.stringify(write), headers };

async function serve(t: Test, dir: string, failpoints: string, ...more: string[]): Promise<string> {
  const env = { HOLDFAST_FAILPOINTS: failpoints };
  const service = await ServiceProcess.ready({ dir, flags: ["--allow-any-file-system", ...more], env });
  t.teardown(() => service.stop());
  return `http://127.0.0.1:${service.port}`;
}

async function create(t: Test, origin: string, region: object): Promise<void> {
  const body = JSON.stringify(region);
  t.equal((await checkedFetch(origin, "POST", "/v1/regions", { body, headers })).status, 201);
}

t.test("a sync that fails: the batch is there and not durable, and nothing is acknowledged any more", async (t) => {
  const dir = freshDir();
  t.teardown(() => rmSync(dir, { recursive: true }));
  const origin = await serve(t, dir, "flush_sync=eio@1");
  await create(t, origin, { name: "demo", size: 4096, durability: "durable" });
  const path = "/v1/regions/demo";
  const first = await checkedFetch(origin, "POST", `${path}/batches`, batch);
  t.match(first.json, { status: 503, code: "flush-failed", retryable: true, committed: true });
  t.equal(first.headers["retry-after"], "1");
  for (const url of [`${path}/batches`, `${path}/flushes`]) {
    const next = await checkedFetch(origin, "POST", url, batch);
    t.match(next.json, { status: 503, committed: false }, `${url}: ${next.text}`);
  }
  t.match((await checkedFetch(origin, "GET", path)).json, { state: "faulted" });
});

t.test("no space: 507, and nothing has changed", async (t) => {
  const dir = freshDir();
  t.teardown(() => rmSync(dir, { recursive: true }));
  await t.test("with space", async (t) => {
    const origin = await serve(t, dir, "");
    await create(t, origin, { name: "holes", size: 1 << 20, sparse: true });
    await create(t, origin, { name: "full", size: 4096 });
  });
  const origin = await serve(t, dir, "allocate=enospc");
  const json = (body: object) => ({ body: JSON.stringify(body), headers });
  for (const [method, url, init] of [
    ["POST", "/v1/regions", json({ name: "more", size: 1 << 20 })],
    ["POST", "/v1/regions/holes/batches", batch],
    ["PATCH", "/v1/regions/full", json({ size: 1 << 20 })],
  ] as const) {
    const { json: problem } = await checkedFetch(origin, method, url, init);
    t.match(problem, { status: 507, code: "insufficient-storage", retryable: true, committed: false }, url);
  }
  t.equal((await checkedFetch(origin, "GET", "/v1/regions/more")).status, 404);
  t.match((await checkedFetch(origin, "GET", "/v1/regions/holes")).json, { state: "ok", generation: 0 });
  t.match((await checkedFetch(origin, "GET", "/v1/regions/full")).json, { state: "ok", generation: 0, size: 4096 });
  t.equal(
    (await checkedFetch(origin, "POST", "/v1/regions/full/batches", batch)).status,
    200,
    "what has space goes on",
  );
});

t.test("a key whose request waits for the disk: 409 until its answer is there, and then that answer", async (t) => {
  const dir = freshDir();
  t.teardown(() => rmSync(dir, { recursive: true }));
  const origin = await serve(t, dir, "flush_before_sync=sleep:500");
  await create(t, origin, { name: "demo", size: 4096, durability: "durable" });
  const path = "/v1/regions/demo/batches";
  const keyed = { ...batch, headers: { ...headers, "idempotency-key": "once" } };
  const committed = async () =>
    (await checkedFetch(origin, "GET", "/v1/status")).json.store.journal.committed as number;
  const before = await committed();
  const first = checkedFetch(origin, "POST", path, keyed);
  // Committed, and waiting: before that the same key would be a request of its own.
  while ((await committed()) === before) await new Promise((resolve) => setTimeout(resolve, 5));
  const statuses = new Set<number>();
  for (let again = await checkedFetch(origin, "POST", path, keyed); ; ) {
    statuses.add(again.status);
    if (again.status === 200) {
      t.match(again.json, { committed: true, generation: 1 });
      t.equal(again.headers["idempotency-replayed"], "?1");
      break;
    }
    t.match(again.json, { status: 409, code: "idempotency-in-progress", retryable: true, committed: false });
    t.match(again.headers["retry-after"], /^[1-9]\d*$/);
    await new Promise((resolve) => setTimeout(resolve, 20));
    again = await checkedFetch(origin, "POST", path, keyed);
  }
  t.same([...statuses], [409, 200]);
  t.match((await first).json, { committed: true, generation: 1 });
  const other = { ...keyed, body: JSON.stringify({ ops: [{ op: "fill", offset: 0, length: 1, pattern: "00" }] }) };
  t.equal((await checkedFetch(origin, "POST", path, other)).json.code, "idempotency-key-reused");
});

t.test("a journal that is full: 503 when its checkpoint takes too long, and it goes on after it", async (t) => {
  const dir = freshDir();
  t.teardown(() => rmSync(dir, { recursive: true }));
  const small = ["--journal-bytes=1MiB", "--batch-bytes-max=64KiB"];
  const origin = await serve(t, dir, "checkpoint_data_synced=sleep:1500", ...small);
  await create(t, origin, { name: "demo", size: 1 << 20, durability: "fast" });
  const path = "/v1/regions/demo/content";
  const put = { body: Buffer.alloc(60_000, "x"), headers: { ...content, "content-range": "bytes 0-59999/*" } };
  let landed = 0;
  let refused = await checkedFetch(origin, "PUT", path, put);
  for (; refused.status === 204 && landed < 100; landed++) refused = await checkedFetch(origin, "PUT", path, put);
  t.match(refused.json, { status: 503, code: "overloaded", retryable: true, committed: false }, `after ${landed}`);
  t.match(refused.headers["retry-after"], /^[1-9]\d*$/);
  t.equal((await checkedFetch(origin, "GET", "/v1/regions/demo")).json.generation, landed, "it did not land");
  while ((await checkedFetch(origin, "PUT", path, put)).status === 503) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  t.equal((await checkedFetch(origin, "GET", "/v1/regions/demo")).json.generation, landed + 1);
});
