// Regions as resources: created, listed, looked at, changed, deleted, flushed.
import { storeTest } from "../fixture.js";

storeTest("a region is created with zeros and told back", async (t, f) => {
  const created = await f.post("/v1/regions", { name: "demo", size: 4096, labels: { team: "blue" } });
  t.equal(created.status, 201);
  t.equal(created.headers.location, "/v1/regions/demo");
  t.equal(created.headers["region-generation"], "0");
  t.match(created.json, {
    name: "demo",
    size: 4096,
    durability: "durable",
    sparse: false,
    readOnly: false,
    labels: { team: "blue" },
    generation: 0,
    state: "ok",
    fault: null,
    integrity: "verified",
    adopted: false,
  });
  const again = await f.get("/v1/regions/demo");
  t.same(again.json, created.json);
  t.equal(again.headers.etag, created.json.etag);
  const content = await f.get("/v1/regions/demo/content");
  t.ok(content.bytes.equals(Buffer.alloc(4096)));
});

storeTest("a name is taken once", async (t, f) => {
  await f.region("demo", 4096);
  const { status, json } = await f.post("/v1/regions", { name: "demo", size: 1 });
  t.equal(status, 409);
  t.equal(json.code, "region-exists");
});

storeTest("what a region can't be is refused with every culprit", async (t, f) => {
  const bodies: [object, string[]][] = [
    [{}, ["/name", "/size"]],
    [{ name: "Demo", size: 1 }, ["/name"]],
    [{ name: "a..b", size: 1 }, ["/name"]],
    [{ name: "../up", size: 1 }, ["/name"]],
    [{ name: "demo", size: 0 }, ["/size"]],
    [{ name: "demo", size: "4096" }, ["/size"]],
    [{ name: "demo", size: 1.5, color: "red" }, ["/color", "/size"]],
    [{ name: "demo", size: 2 ** 50 }, ["/size"]],
    [{ name: "demo", size: 1, durability: "maybe" }, ["/durability"]],
    [{ name: "demo", size: 1, labels: { a: 1 } }, ["/labels/a"]],
  ];
  for (const [body, pointers] of bodies) {
    const { status, json } = await f.post("/v1/regions", body);
    t.equal(status, 422, JSON.stringify(body));
    t.equal(json.code, "validation-failed");
    t.same(json.failures.map(({ pointer }: { pointer: string }) => pointer).sort(), pointers);
  }
  t.same((await f.get("/v1/regions")).json, { items: [], nextCursor: null });
});

storeTest("a list goes on where it stopped, whatever comes and goes", async (t, f) => {
  for (const name of ["a1", "a2", "a3", "b1", "b2"]) await f.region(name, 1);
  const names = ({ json }: { json: { items: { name: string }[] } }) => json.items.map(({ name }) => name);
  const first = await f.get("/v1/regions?limit=2");
  t.same(names(first), ["a1", "a2"]);
  await f.call("DELETE", "/v1/regions/a2");
  await f.region("a0", 1);
  const second = await f.get(`/v1/regions?limit=2&cursor=${first.json.nextCursor}`);
  t.same(names(second), ["a3", "b1"]);
  const last = await f.get(`/v1/regions?limit=2&cursor=${second.json.nextCursor}`);
  t.same(names(last), ["b2"]);
  t.equal(last.json.nextCursor, null);
  t.same(names(await f.get("/v1/regions?prefix=a")), ["a0", "a1", "a3"]);
  t.equal((await f.get("/v1/regions?cursor=bm9wZQ")).json.code, "cursor-invalid");
  for (const query of ["limit=0", "limit=1001", "limit=x", "unknown=1"]) {
    const { status, json } = await f.get(`/v1/regions?${query}`);
    t.match({ status, code: json.code }, { status: 400, code: "query-param-invalid" }, query);
  }
});

storeTest("a region that is not there", async (t, f) => {
  for (const name of ["nope", "No-Name", "..", "a".repeat(200)]) {
    for (const method of ["GET", "DELETE"]) {
      const { status, json } = await f.call(method, `/v1/regions/${encodeURIComponent(name)}`);
      // `..` is normalized away by the router before it is a name.
      t.equal(status, 404, `${method} ${name}`);
      t.match(json.code, /^(?:region|route)-not-found$/);
    }
  }
  const patched = await f.call("PATCH", "/v1/regions/nope", { body: { readOnly: true } });
  t.match(patched.json, { status: 404, code: "region-not-found", instance: "/v1/regions/nope", committed: false });
});

storeTest("conditions on looking at a region", async (t, f) => {
  await f.region("demo", 16);
  const etag = (await f.get("/v1/regions/demo")).headers.etag!;
  const same = await f.get("/v1/regions/demo", { "if-none-match": `"1.2.3", W/${etag}` });
  t.equal(same.status, 304);
  t.equal(same.text, "");
  t.equal(same.headers.etag, etag);
  t.equal((await f.get("/v1/regions/demo", { "if-none-match": '"1.2.3"' })).status, 200);
  t.equal((await f.get("/v1/regions/demo", { "if-match": etag })).status, 200);
  t.equal((await f.get("/v1/regions/demo", { "if-match": `W/${etag}` })).json.code, "etag-mismatch");
  t.equal((await f.get("/v1/regions/demo", { "if-match": "nonsense" })).json.code, "header-invalid");
  t.equal((await f.call("HEAD", "/v1/regions/demo")).status, 200);
});

storeTest("a merge patch changes what it names", async (t, f) => {
  await f.region("demo", 4096, { labels: { a: "1", b: "2" } });
  const patch = (body: unknown, headers: Record<string, string> = {}) =>
    f.call("PATCH", "/v1/regions/demo", {
      body: JSON.stringify(body),
      headers: { "content-type": "application/merge-patch+json", ...headers },
    });
  const labelled = await patch({ labels: { b: null, c: "3" } });
  t.equal(labelled.status, 200);
  t.same(labelled.json.labels, { a: "1", c: "3" });
  t.ok(labelled.json.metaGeneration > 1);
  t.equal(labelled.headers.etag, labelled.json.etag);
  t.same((await patch({ labels: null })).json.labels, {});

  t.equal((await patch({ size: 8192 })).json.size, 8192);
  const content = await f.get("/v1/regions/demo/content");
  t.ok(content.bytes.equals(Buffer.alloc(8192)));

  const shrink = await patch({ size: 100 });
  t.match(shrink.json, { status: 428, code: "precondition-required" });
  const etag = (await f.get("/v1/regions/demo")).headers.etag!;
  t.equal((await patch({ size: 100 }, { "if-match": '"1.1.1"' })).json.code, "etag-mismatch");
  t.equal((await patch({ size: 100 }, { "if-match": etag })).json.size, 100);
  t.equal((await f.get("/v1/regions/demo/content")).bytes.length, 100);

  for (const durability of ["fast", "ordered", "durable"])
    t.equal((await patch({ durability })).json.durability, durability);
  t.equal((await patch({ integrity: "verified" })).json.integrity, "verified");
  t.equal((await patch({ integrity: "unverified" })).status, 422);
  t.equal((await patch({ size: 2 ** 50 })).status, 422);
});

storeTest("labels that are merged at the same time are all there", async (t, f) => {
  await f.region("demo", 16);
  const labels = [...Array(20).keys()].map((number) => ({ [`l${number}`]: String(number) }));
  await Promise.all(labels.map((label) => f.call("PATCH", "/v1/regions/demo", { body: { labels: label } })));
  t.same((await f.get("/v1/regions/demo")).json.labels, Object.assign({}, ...labels));
  const tooMany = Object.fromEntries([...Array(64).keys()].map((number) => [`m${number}`, "x"]));
  const refused = await f.call("PATCH", "/v1/regions/demo", { body: { labels: tooMany } });
  t.match(refused.json, { status: 422, code: "validation-failed" });
});

storeTest("a read-only region refuses writes and serves reads", async (t, f) => {
  await f.region("demo", 64);
  await f.call("PATCH", "/v1/regions/demo", { body: { readOnly: true } });
  const write = await f.batch("demo", { ops: [{ op: "write", offset: 0, data: "AAAA" }] });
  t.match(write.json, { status: 409, code: "region-read-only", failures: [{ index: 0, op: "write" }] });
  t.equal((await f.batch("demo", { ops: [{ op: "load", offset: 0, type: "u8" }] })).status, 200);
  await f.call("PATCH", "/v1/regions/demo", { body: { readOnly: false } });
  t.equal((await f.batch("demo", { ops: [{ op: "write", offset: 0, data: "AAAA" }] })).status, 200);
});

storeTest("a deleted region is gone, and its successor has another entity tag", async (t, f) => {
  await f.region("demo", 64);
  const etag = (await f.get("/v1/regions/demo")).headers.etag!;
  t.equal((await f.call("DELETE", "/v1/regions/demo", { headers: { "if-match": '"1.1.1"' } })).status, 412);
  t.equal((await f.call("DELETE", "/v1/regions/demo", { headers: { "if-match": etag } })).status, 204);
  t.equal((await f.get("/v1/regions/demo")).status, 404);
  await f.region("demo", 64);
  t.not((await f.get("/v1/regions/demo")).headers.etag, etag);
});

storeTest(
  "a flush makes everything durable",
  async (t, f) => {
    for (const durability of ["fast", "ordered", "durable"]) {
      await f.region(durability, 64, { durability });
      const { json } = await f.batch(durability, { ops: [{ op: "write", offset: 0, data: "AAAA" }] });
      t.equal(json.generation, 1);
      const flushed = await f.call("POST", `/v1/regions/${durability}/flushes`);
      t.equal(flushed.status, 200);
      t.equal(flushed.json.durableGeneration, 1, durability);
      t.equal(flushed.headers["region-durable-generation"], "1");
    }
    t.equal((await f.call("POST", "/v1/regions/nope/flushes")).json.code, "region-not-found");
  },
  "--flush-interval-ms=60000",
  "--checkpoint-interval-ms=3600000",
);

storeTest(
  "the number of regions has a limit",
  async (t, f) => {
    await f.region("a", 1);
    await f.region("b", 1);
    const { json } = await f.post("/v1/regions", { name: "c", size: 1 });
    t.match(json, { status: 507, code: "insufficient-storage" });
  },
  "--regions-max=2",
);
