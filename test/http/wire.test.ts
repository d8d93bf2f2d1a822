// The first steps of a newcomer over a real socket, with a client that knows nothing of the app: what injected requests
// can't show (framing, HEAD, connection headers) is shown here.
import { createHash } from "node:crypto";
import request from "supertest";
import { storeTest } from "../fixture.js";

storeTest("create, write, read and look, over a socket", async (t, f) => {
  await f.app.ready();
  const api = request(f.app.server);
  const made = await api.post("/v1/regions").send({ name: "demo", size: 4096 }).expect(201);
  t.equal(made.headers.location, "/v1/regions/demo");

  const ops = [
    { op: "write", offset: 64, data: "SGVsbG8=", encoding: "base64" },
    { op: "add", offset: 8, type: "u64", value: "1" },
  ];
  const batch = await api.post("/v1/regions/demo/batches").set("idempotency-key", "first").send({ ops }).expect(200);
  t.match(batch.body, { committed: true, branch: "ops", generation: 1, durableGeneration: 1 });
  const again = await api.post("/v1/regions/demo/batches").set("idempotency-key", "first").send({ ops }).expect(200);
  t.equal(again.headers["idempotency-replayed"], "?1");
  t.same(again.body, batch.body, "a retry gets the same answer");

  const range = await api.get("/v1/regions/demo/content").set("range", "bytes=64-68").buffer(true).expect(206);
  t.equal(range.headers["content-range"], "bytes 64-68/4096");
  t.equal(Buffer.from(range.body).toString(), "Hello");
  const head = await api.head("/v1/regions/demo/content").expect(200);
  t.equal(head.headers["content-length"], "4096");
  await api.get("/v1/regions/demo/content").set("if-none-match", String(head.headers.etag)).expect(304);

  const bytes = Buffer.alloc(100_000, "holdfast");
  await api
    .put("/v1/regions/upload/content")
    .set("if-none-match", "*")
    .type("application/octet-stream")
    .send(bytes)
    .expect(201);
  const whole = await api.get("/v1/regions/upload/content").buffer(true).expect(200);
  t.equal(createHash("sha256").update(whole.body).digest("hex"), createHash("sha256").update(bytes).digest("hex"));
});

storeTest("a stopping service refuses changes and closes its connections", async (t, f) => {
  await f.app.ready();
  const api = request(f.app.server);
  f.lifecycle.current = "draining";
  const refused = await api.post("/v1/regions").send({ name: "late", size: 1 }).expect(503);
  t.equal(refused.headers["retry-after"], "1");
  t.equal(refused.headers.connection, "close");
  t.match(refused.body, { code: "draining", committed: false, retryable: true });
  await api.get("/livez").expect(200);
});
