// Many batches over one request: as lines and as frames, answered in order while more come, with backpressure and an end.
import { once } from "node:events";
import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Test } from "tap";
import { codes } from "../../native/index.js";
import { framed } from "../../service/batch-stream.js";
import { BatchEncoder } from "../../service/store/batch-encoder.js";
import { type Fixture, storeTest } from "../fixture.js";

const lines = { "content-type": "application/x-ndjson" };
const frames = { "content-type": "application/vnd.holdfast.batch" };
const url = "/v1/regions/demo/batches";
const add = { ops: [{ op: "add", offset: 0, type: "u64", value: 1 }] };

async function sendLines(f: Fixture, body: string, path = url, headers: Record<string, string> = {}) {
  const answer = await f.call("POST", path, { body, headers: { ...lines, ...headers } });
  if (answer.status !== 200) return { ...answer, answers: [] };
  const text = answer.text.split("\n");
  if (text.pop() !== "") throw new Error(`the last line has no end: ${answer.text}`);
  return { ...answer, answers: text.map((line) => JSON.parse(line)) };
}

const encoder = new BatchEncoder({ opsMax: 4096, guardsMax: 256 });

/** `region`: null for a batch whose operations name theirs. */
function frameOf(batch: object, region: string | null = "demo"): Buffer {
  const frame = encoder.encode(batch, region ?? undefined, undefined, undefined);
  if (frame === undefined) throw new Error(JSON.stringify(encoder.failures));
  return framed(frame);
}

/** Code, flags, and the generation of the first region, if there is one, of each answer. */
function answersIn(bytes: Buffer): { code: number; flags: number; generation: number | undefined; bytes: Buffer }[] {
  const answers = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    const answer = bytes.subarray(at + 8, at + 8 + length);
    if (bytes.readUInt32LE(at + 4) !== 0 || answer.length !== length) throw new Error("not framed");
    answers.push({
      code: answer.readUInt16LE(4),
      flags: answer[7]!,
      generation: answer.readUInt16LE(8) === 0 ? undefined : Number(answer.readBigUInt64LE(40 + 16)),
      bytes: Buffer.from(answer),
    });
    at += 8 + length;
  }
  return answers;
}

storeTest("a line in, a line out", async (t, f) => {
  await f.region("demo", 64);
  const { answers, headers } = await sendLines(
    f,
    [
      JSON.stringify(add),
      "",
      JSON.stringify({ ops: [{ op: "load", offset: 0, type: "u64" }] }),
      "{not json",
      JSON.stringify({ ops: [{ op: "write", offset: 100, data: "AAAA" }] }),
      JSON.stringify({ ...add, guards: [{ kind: "generation", op: "eq", value: 9 }] }),
      "[]",
      JSON.stringify(add),
    ].join("\r\n"),
  );
  t.equal(headers["content-type"], "application/x-ndjson");
  t.match(answers, [
    { committed: true, branch: "ops", generation: 1, durableGeneration: 1, results: [{ old: "0", new: "1" }] },
    { committed: false, generation: 1, results: [{ value: "1" }] },
    { status: 400, code: "malformed-json", instance: url },
    { status: 422, code: "out-of-bounds", committed: false, failures: [{ index: 0, op: "write" }] },
    { status: 412, code: "guard-failed" },
    { status: 422, code: "validation-failed" },
    { committed: true, generation: 2, results: [{ old: "1", new: "2" }] },
  ]);
  t.equal(answers.length, 7);
  t.same((await sendLines(f, "")).answers, []);
  t.same((await sendLines(f, "\n\n")).answers, []);
});

// The answer was read after others had been written over it: failures went missing, or were another batch's.
storeTest("what is wrong with a line is not mixed up with its neighbours", async (t, f) => {
  await f.region("demo", 64, { durability: "fast" });
  const { answers } = await sendLines(
    f,
    [
      JSON.stringify({ ops: [{ op: "nope" }, { op: "load", offset: 9999, type: "u8" }] }),
      JSON.stringify({ ops: [{ op: "load", offset: 0, type: "u8" }] }),
      JSON.stringify({ ops: [{ op: "nope" }, { op: "load", offset: 0, type: "u8" }] }),
      JSON.stringify({ ops: [{ op: "load", offset: 7777, type: "u8" }] }),
      "",
    ].join("\n"),
  );
  const told = answers.map(({ failures }) =>
    failures?.map(({ index, code }: { index: number; code: string }) => [index, code]),
  );
  t.strictSame(told, [
    [
      [0, "validation-failed"],
      [1, "out-of-bounds"],
    ],
    undefined,
    [[0, "validation-failed"]],
    [[0, "out-of-bounds"]],
  ]);
});

storeTest("lines over several regions", async (t, f) => {
  await f.region("a", 8);
  await f.region("b", 8);
  const op = (region: string) => ({ ...add.ops[0], region });
  const body = [{ ops: [op("a"), op("b")] }, { ops: [op("b")] }].map((batch) => JSON.stringify(batch)).join("\n");
  const { answers } = await sendLines(f, body, "/v1/batches");
  t.match(answers, [{ generations: { a: 1, b: 1 } }, { generations: { b: 2 } }]);
  t.match((await f.get("/v1/regions/b/changes")).json.items, [{ generation: 1 }, { generation: 2 }]);
});

storeTest("a line that is too long has a problem in its place", async (t, f) => {
  await f.region("demo", 8);
  const limit = (await f.get("/v1/limits")).json.batchBodyBytesMax;
  const long = JSON.stringify({ ops: [{ op: "write", offset: 0, data: "A".repeat(limit) }] });
  const { answers } = await sendLines(f, `${JSON.stringify(add)}\n${long}\n${JSON.stringify(add)}\n`);
  t.match(answers, [
    { generation: 1 },
    { status: 413, code: "body-too-large", failures: [{ limit, actual: long.length }] },
    { generation: 2 },
  ]);
});

storeTest("a stream that is sent again gets the same answers", async (t, f) => {
  await f.region("demo", 8);
  const body = [1, 2, 3].map((value) => JSON.stringify({ ops: [{ ...add.ops[0], value }] }));
  const key = { "idempotency-key": "stream-1" };
  const first = await sendLines(f, body.slice(0, 2).join("\n"), url, key);
  const again = await sendLines(f, body.join("\n"), url, key);
  t.same(
    again.answers.slice(0, 2),
    first.answers.map((answer) => ({ ...answer, replayed: true })),
  );
  t.match(again.answers[2], { generation: 3, results: [{ old: "3", new: "6" }] });
  const other = await sendLines(f, body.toReversed().join("\n"), url, key);
  t.match(other.answers[0], { code: "idempotency-key-reused" });
  t.match(await f.batch("demo", add, key), { status: 200 }, "a request's own key is another");
});

storeTest("what a stream refuses as a whole", async (t, f) => {
  await f.region("demo", 8);
  const body = JSON.stringify(add);
  for (const [name, value] of [
    ["if-match", "*"],
    ["region-if-generation", "0"],
    ["content-digest", "sha-256=:AA==:"],
  ] as const) {
    t.match((await sendLines(f, body, url, { [name]: value })).json, { status: 400, code: "header-invalid" });
  }
  const keyed = await f.call("POST", url, { body: frameOf(add), headers: { ...frames, "idempotency-key": "a" } });
  t.match(keyed.json, { status: 400, code: "header-invalid" });
  t.equal((await sendLines(f, body, "/v1/regions/..x/batches")).json.code, "region-not-found");
  const type = await f.call("POST", url, { body, headers: { "content-type": "text/plain" } });
  t.match(type.json, { status: 415, code: "unsupported-media-type", detail: /application\/x-ndjson/ });
  t.equal((await f.get("/v1/regions/demo")).json.generation, 0);
});

storeTest("frames", async (t, f) => {
  await f.region("demo", 64);
  await f.region("other", 64);
  const send = async (body: Buffer, path = url) => {
    const answer = await f.call("POST", path, { body, headers: frames });
    t.equal(answer.status, 200);
    t.equal(answer.headers["content-type"], frames["content-type"]);
    return answersIn(answer.bytes);
  };
  const one = await send(frameOf({ ops: [{ op: "write", offset: 4, data: "SGVsbG8=" }] }));
  t.match(one, [{ code: 0, flags: 1, generation: 1 }]);
  const many = await send(
    Buffer.concat([
      frameOf({ ops: [{ op: "read", offset: 4, length: 5 }] }),
      frameOf({ ops: [{ op: "cas", offset: 0, type: "u32", expected: 1, value: 2 }] }),
      frameOf(add, "other"),
      frameOf(add),
    ]),
  );
  t.match(many, [{ code: 0, flags: 0 }, { code: codes.cas_mismatch }, { code: codes.validation_failed }, { code: 0 }]);
  // Behind the header, one region and the result's own 24 bytes.
  t.equal(many[0]!.bytes.subarray(40 + 40 + 24, 40 + 40 + 24 + 5).toString(), "Hello");
  const { items } = (await f.get("/v1/regions/demo/changes")).json;
  t.match(items, [
    { generation: 1, ranges: [{ offset: 4, length: 5 }] },
    { generation: 2, ranges: [{ offset: 0, length: 8 }] },
  ]);

  const both = frameOf(
    {
      ops: [
        { ...add.ops[0], region: "demo" },
        { ...add.ops[0], region: "other" },
      ],
    },
    null,
  );
  t.match(await send(both, "/v1/batches"), [{ code: 0, flags: 1, generation: 3 }]);
  t.match(await send(both), [{ code: codes.validation_failed }], "a path with a region takes frames of that alone");
  t.match((await f.get("/v1/regions/other/changes")).json.items, [
    { generation: 1, ranges: [{ offset: 0, length: 8 }] },
  ]);
  t.match(await send(frameOf(add, "nope"), "/v1/batches"), [{ code: codes.region_not_found }]);
});

storeTest("frames that are none", async (t, f) => {
  await f.region("demo", 64);
  const good = frameOf(add);
  const send = async (...parts: Buffer[]) =>
    answersIn((await f.call("POST", url, { body: Buffer.concat(parts), headers: frames })).bytes).map(
      ({ code }) => code,
    );
  const flipped = Buffer.from(good);
  flipped[8]! ^= 1;
  t.same(await send(good, flipped, good), [0, codes.malformed_batch, 0], "its length is known, so the next is taken");
  t.same(await send(good, good.subarray(0, 50)), [0, codes.malformed_batch]);
  const prefix = Buffer.alloc(8);
  prefix.writeUInt32LE(2 ** 31, 0);
  t.same(await send(good, prefix, good), [0, codes.batch_too_large]);
  for (let at = 0; at < good.length; at++) {
    const bad = Buffer.from(good);
    bad[at]! ^= 0x80;
    const [code] = await send(bad);
    t.type(code, "number");
  }
});

/** A stream over a socket that goes both ways. */
class Duplex {
  text = "";
  ended = false;

  private constructor(
    readonly request: ClientRequest,
    readonly response: IncomingMessage,
  ) {
    response.setEncoding("latin1");
    response.on("data", (chunk: string) => {
      this.text += chunk;
    });
    response.on("end", () => {
      this.ended = true;
    });
    response.on("error", () => {});
    request.on("error", () => {});
  }

  static async open(f: Fixture, headers: Record<string, string> = lines): Promise<Duplex> {
    if (!f.app.server.listening) await f.app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = f.app.server.address() as AddressInfo;
    const request = httpRequest({ port, host: "127.0.0.1", method: "POST", path: url, headers, agent: false });
    request.flushHeaders();
    const [response] = (await once(request, "response")) as [IncomingMessage];
    return new Duplex(request, response);
  }

  get lines(): string[] {
    return this.text.split("\n").slice(0, -1);
  }

  async until(what: () => boolean): Promise<void> {
    while (!what()) await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

storeTest("each answer comes before the next line is sent", async (t, f) => {
  await f.region("demo", 8);
  const stream = await Duplex.open(f);
  for (let i = 1; i <= 5; i++) {
    stream.request.write(`${JSON.stringify(add)}\n`);
    await stream.until(() => stream.lines.length === i);
    t.equal(JSON.parse(stream.lines[i - 1]!).generation, i);
  }
  stream.request.end(JSON.stringify(add));
  await stream.until(() => stream.ended);
  t.equal(stream.lines.length, 6);
});

storeTest("durable lines are run in order and share their flushes", async (t, f) => {
  await f.region("demo", 1 << 20);
  const before = f.store!.status().flushes;
  // Now and then a page that no batch has touched: such a batch goes another way, which is longer.
  const cold = (i: number) => ({ op: "write", offset: 4096 * (i / 50), data: "AAAA" });
  const body = [...Array(2000).keys()].map((i) =>
    JSON.stringify({ ops: [...(i > 0 && i % 50 === 0 ? [cold(i)] : []), add.ops[0]] }),
  );
  const { answers } = await sendLines(f, body.join("\n"));
  t.equal(answers.length, 2000);
  for (const [i, { generation, durableGeneration }] of answers.entries()) {
    if (generation !== i + 1 || durableGeneration !== i + 1) t.fail(`line ${i} has generation ${generation}`);
  }
  const flushes = f.store!.status().flushes - before;
  t.ok(flushes < 500, `${flushes} flushes for 2000 batches`);
});

async function generationAtRest(f: Fixture): Promise<number> {
  for (let last = -1; ; ) {
    const { generation } = f.store!.info("demo")!;
    if (generation === last) return generation;
    last = generation;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function backpressure(t: Test, f: Fixture) {
  await f.region("demo", 65536, { durability: "fast" });
  const stream = await Duplex.open(f);
  stream.response.pause();
  const line = Buffer.from(`${JSON.stringify({ ops: [{ op: "read", offset: 0, length: 65536 }, add.ops[0]] })}\n`);
  const total = 1000;
  for (let i = 0; i < total; i++) stream.request.write(line);
  stream.request.end();
  const taken = await generationAtRest(f);
  t.ok(taken > 0 && taken < total, `${taken} of ${total} batches of 64 KiB answers are taken while nobody reads them`);
  stream.response.resume();
  await stream.until(() => stream.ended);
  t.equal(stream.lines.length, total);
  t.equal(f.store!.info("demo")!.generation, total);
}
storeTest("while answers are not read, no more batches are taken", backpressure);

storeTest("a stop answers what was taken, and says where it ends", async (t, f) => {
  await f.region("demo", 8);
  const stream = await Duplex.open(f);
  const idle = await Duplex.open(f, frames);
  for (let i = 0; i < 50; i++) stream.request.write(`${JSON.stringify(add)}\n`);
  await stream.until(() => stream.lines.length > 0);
  f.lifecycle.stop();
  const sending = setInterval(() => stream.request.write(`${JSON.stringify(add)}\n`), 5);
  await stream.until(() => stream.ended);
  clearInterval(sending);
  const answers = stream.lines.map((line) => JSON.parse(line));
  t.match(answers.pop(), { status: 503, code: "draining", committed: false, retryable: true });
  for (const [i, { generation }] of answers.entries()) t.equal(generation, i + 1);
  t.equal(f.store!.info("demo")!.generation, answers.length, "nothing was taken that is not answered");
  await idle.until(() => idle.ended);
  t.match(answersIn(Buffer.from(idle.text, "latin1")), [{ code: codes.draining }]);
});

storeTest("a client that goes away leaves whole batches", async (t, f) => {
  await f.region("demo", 8);
  const stream = await Duplex.open(f);
  for (let i = 0; i < 1000; i++) stream.request.write(`${JSON.stringify(add)}\n`);
  await stream.until(() => stream.lines.length > 0);
  stream.request.destroy();
  const generation = await generationAtRest(f);
  const value = (await f.get("/v1/regions/demo/cells/0")).json.value;
  t.equal(value, String(generation));
});

storeTest("frames that are none do not take the connection along", async (t, f) => {
  await f.listen();
  await f.region("demo", 64);
  for (let i = 0; i < 5; i++) {
    const { status } = await f.call("POST", url, { headers: frames, body: Buffer.alloc(9000) });
    t.equal(status, 200);
    t.equal((await f.get("/v1/regions/demo")).status, 200, "and the next request is answered");
  }
});
