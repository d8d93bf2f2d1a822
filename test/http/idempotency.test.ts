// Idempotency-Key: a retry gets the first answer, also after a restart, and a reuse is told from a retry.
import { Store } from "../../native/index.js";
import { type Fixture, storeTest } from "../fixture.js";

const add = { ops: [{ op: "add", offset: 0, type: "u64", value: 1 }] };
const key = { "idempotency-key": "one" };

async function restart(f: Fixture): Promise<void> {
  await f.store!.close();
  f.store = await f.openStore();
}

storeTest("a retry of a batch gets the first answer", async (t, f) => {
  await f.region("demo", 8);
  const first = await f.batch("demo", add, key);
  t.notOk(first.headers["idempotency-replayed"]);
  await f.batch("demo", add);
  for (const quoted of ["one", '"one"']) {
    const again = await f.batch("demo", add, { "idempotency-key": quoted });
    t.equal(again.headers["idempotency-replayed"], "?1");
    t.equal(again.text, first.text);
    t.equal(again.headers.etag, first.headers.etag);
  }
  await restart(f);
  const after = await f.batch("demo", add, key);
  t.equal(after.headers["idempotency-replayed"], "?1");
  t.equal(after.text, first.text);
  t.equal((await f.get("/v1/regions/demo")).json.generation, 2);
});

storeTest("another request under the same key", async (t, f) => {
  await f.region("demo", 8);
  await f.region("other", 8);
  await f.batch("demo", add, key);
  const reused = await f.batch("demo", { ops: [{ op: "add", offset: 0, type: "u64", value: 2 }] }, key);
  t.match(reused.json, { status: 422, code: "idempotency-key-reused" });
  const conditional = await f.batch("demo", add, { ...key, "if-match": "*" });
  t.equal(conditional.json.code, "idempotency-key-reused", "a condition is part of the request");
  const elsewhere = await f.batch("other", add, key);
  t.match(elsewhere.json, { committed: true, generation: 1 }, "a key belongs to a path");
  t.notOk(elsewhere.headers["idempotency-replayed"]);
});

storeTest("a refused request does not use its key up", async (t, f) => {
  await f.region("demo", 8);
  const guarded = { ...add, guards: [{ kind: "generation", op: "eq", value: 1 }] };
  t.equal((await f.batch("demo", guarded, key)).json.code, "guard-failed");
  await f.batch("demo", add);
  t.match((await f.batch("demo", guarded, key)).json, { committed: true, generation: 2 });
});

storeTest("keys on everything that changes something", async (t, f) => {
  let count = 0;
  const twice = async (
    method: string,
    url: string,
    status: number,
    body?: unknown,
    headers?: Record<string, string>,
  ) => {
    const call = { body, headers: { "idempotency-key": `key-${++count}`, ...headers } };
    const first = await f.call(method, url, call);
    t.equal(first.status, status, `${method} ${url}: ${first.text}`);
    t.notOk(first.headers["idempotency-replayed"]);
    const second = await f.call(method, url, call);
    t.equal(second.status, status, `${method} ${url} again: ${second.text}`);
    t.equal(second.headers["idempotency-replayed"], "?1", `${method} ${url}`);
  };
  await twice("POST", "/v1/regions", 201, { name: "demo", size: 16 });
  await twice("PUT", "/v1/regions/up/content", 201, "Hello", { "if-none-match": "*" });
  await twice("PUT", "/v1/regions/up/content", 204, "World");
  await twice("PUT", "/v1/regions/demo/content", 204, "Hello", { "content-range": "bytes 0-4/*" });
  const byteRange = { "content-type": "message/byterange" };
  await twice("PATCH", "/v1/regions/demo/content", 204, "Content-Range: bytes 0-4/*\r\n\r\nHello", byteRange);
  await twice("POST", "/v1/regions/demo/batches", 200, add);
  await twice("POST", "/v1/batches", 200, { ops: [{ ...add.ops[0], region: "demo" }] });
  await twice("PUT", "/v1/regions/demo/cells/8", 200, { value: 1 });
  await twice("POST", "/v1/regions/demo/cells/8", 200, { op: "add", value: 1 });
  await twice("PATCH", "/v1/regions/demo", 200, { labels: { a: "1" } });
  await twice("DELETE", "/v1/regions/demo", 204);
  t.equal((await f.get("/v1/regions/up")).json.generation, 1);
});

storeTest("what a key may be", async (t, f) => {
  await f.region("demo", 8);
  for (const bad of ["", '""', "x".repeat(256), 'a"b', "ümlaut", '"a', "a b"]) {
    const { json } = await f.batch("demo", add, { "idempotency-key": bad });
    t.match(json, { status: 400, code: "header-invalid" }, bad);
  }
  for (const good of ["x".repeat(255), '"with \\"quotes\\" and spaces"', "a/b+c=", "9b2f7c1e-0a"]) {
    t.equal((await f.batch("demo", add, { "idempotency-key": good })).status, 200, good);
  }
});

storeTest("a dry run and a batch that only reads leave no outcome", async (t, f) => {
  await f.region("demo", 8);
  t.equal((await f.batch("demo", { ...add, dryRun: true }, key)).json.committed, false);
  t.equal((await f.batch("demo", { ops: [{ op: "load", offset: 0, type: "u8" }] }, key)).json.committed, false);
  const done = await f.batch("demo", add, key);
  t.match(done.json, { committed: true, generation: 1 });
  t.notOk(done.headers["idempotency-replayed"]);
});

storeTest("the same key twice at the same time is one change", async (t, f) => {
  await f.region("demo", 8);
  const answers = await Promise.all([...Array(10)].map(() => f.batch("demo", add, key)));
  for (const { status, json } of answers) {
    if (status === 409) t.equal(json.code, "idempotency-in-progress");
    else t.match(json, { committed: true, generation: 1 });
  }
  t.ok(answers.some(({ status }) => status === 200));
  t.equal((await f.get("/v1/regions/demo")).json.generation, 1);
  t.ok(f.store instanceof Store);
});
