// The typed client's streams: changes as they come, and many batches over one connection, over wires that lose connections and
// a service that is killed; and the README's examples, as they are printed.
import { execFile } from "node:child_process";
import { getEventListeners } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import t, { type Test } from "tap";
import { type Batch, Client, type ClientOptions, ProblemError } from "../../service/client.js";
import { cuttingProxy } from "../cutting-proxy.js";
import { freshDir, ServiceProcess } from "../service-process.js";

function clientOn(t: Test, port: number, options: ClientOptions = {}): Client {
  const client = new Client(`http://127.0.0.1:${port}`, options);
  t.teardown(() => client.close());
  return client;
}

const demo = { path: { region: "demo" } };
const add = (offset = 0): Batch => ({ ops: [{ op: "add", offset, type: "u64", value: "1" }] });

async function cellOf(client: Client, offset = 0): Promise<unknown> {
  const { body } = await client.call("loadCell", { path: { region: "demo", offset }, query: { type: "u64" } });
  return body.value;
}

async function failureOf(iteration: AsyncIterable<unknown>): Promise<unknown> {
  try {
    for await (const _ of iteration);
  } catch (error) {
    return error;
  }
  return undefined;
}

t.test("against the service", { timeout: 120_000 }, async (t) => {
  const service = await ServiceProcess.ready();
  t.teardown(() => service.remove());
  const client = clientOn(t, service.port);
  await client.call("createRegion", { body: { name: "demo", size: 4096, durability: "fast" } });

  await t.test("changes: each once and in order, over lost connections, until the region is gone", async (t) => {
    await client.call("createRegion", { body: { name: "watched", size: 64, durability: "fast" } });
    const proxy = await cuttingProxy(t, service.port, [10_000, 600, 900, 1200, 10]);
    const generations: number[] = [];
    const watched = { path: { region: "watched" } };
    const watching = (async () => {
      for await (const change of clientOn(t, proxy.port).changes("watched")) {
        if (change.kind !== "batch") t.fail(change.kind);
        generations.push(change.generation);
      }
    })();
    while (proxy.connections < 2) await sleep(5);
    for (let batches = 0; batches < 100; batches++) {
      await client.call("commitBatch", { ...watched, body: add() });
      if (batches === 70) proxy.cut();
    }
    while (generations.length < 100) await sleep(5);
    await client.call("deleteRegion", watched);
    await watching;
    t.strictSame(
      generations,
      Array.from({ length: 100 }, (_, i) => i + 1),
    );
    t.ok(proxy.connections > 4, `${proxy.connections} connections`);
  });

  await t.test("changes from a generation on; a signal ends them", async (t) => {
    const before = (await client.call("getRegion", demo)).body.generation;
    for (let batches = 0; batches < 3; batches++) await client.call("commitBatch", { ...demo, body: add(512) });
    const stop = new AbortController();
    const seen: number[] = [];
    for await (const { generation } of client.changes("demo", { since: before + 1, signal: stop.signal })) {
      seen.push(generation);
      if (seen.length === 2) stop.abort();
    }
    t.strictSame(seen, [before + 2, before + 3]);
  });

  await t.test("changes of no region", async (t) => {
    t.match(await failureOf(client.changes("absent")), { problem: { code: "region-not-found" } });
    t.match(await failureOf(client.changes("absent", { since: 0 })), { problem: { code: "region-not-found" } });
  });

  await t.test("batches: each once, whatever is lost, and refusals stay what they were", async (t) => {
    // Between some answers and the next ones, in heads, and in the middle of lines.
    const proxy = await cuttingProxy(t, service.port, [30, 500, 2000, 700, 5000, 1]);
    const through = clientOn(t, proxy.port);
    const count = 300;
    function* batches(): Generator<Batch> {
      for (let i = 0; i < count; i++) {
        // False when it comes, and true some tens of batches later: if it were looked at again then, it would land.
        if (i % 10 === 5)
          yield { ...add(16), guards: [{ kind: "value", offset: 8, type: "u64", op: "gt", value: `${i}` }] };
        else yield add(i % 10 === 6 ? 8 : 0);
      }
    }
    const refused: number[] = [];
    let replayed = 0;
    let next = 0;
    for await (const answer of through.stream("commitBatch", demo, batches())) {
      if (answer.index !== next++) t.fail(`${answer.index} where ${next - 1} should be`);
      if (answer.problem !== undefined) {
        refused.push(answer.index);
        t.equal(answer.problem.code, "guard-failed");
      } else if (answer.replayed) replayed++;
    }
    t.equal(next, count, "an answer for each");
    t.ok(refused.length > 0);
    t.ok(replayed > 0, "answers were lost");
    t.equal(proxy.connections, 7);
    t.equal(await cellOf(client, 0), String(count - (2 * count) / 10));
    t.equal(await cellOf(client, 8), String(count / 10));
    t.equal(await cellOf(client, 16), String(count / 10 - refused.length), "what was told to be refused never landed");
  });

  await t.test("more batches than one request takes, over several regions", async (t) => {
    await client.call("createRegion", { body: { name: "other", size: 64, durability: "fast" } });
    const batch = {
      ops: ["demo", "other"].map((region) => ({ op: "add", region, offset: 24, type: "u64", value: "1" }) as const),
    };
    let last: unknown;
    let count = 0;
    for await (const { body, index } of client.stream("commitMultiBatch", {}, Array(5000).fill(batch))) {
      if (index !== count++) t.fail(`${index} where ${count - 1} should be`);
      last = body;
    }
    t.equal(count, 5000);
    t.match(last, { committed: true, generations: { other: 5000 } });
    t.equal(await cellOf(client, 24), "5000");
  });

  await t.test("a caller whose batches come slowly, fail, or are not wanted any more", async (t) => {
    const proxy = await cuttingProxy(t, service.port);
    const through = clientOn(t, proxy.port);
    async function* slow(): AsyncGenerator<Batch> {
      yield add(32);
      await sleep(50);
      // Lost while there was nothing to answer.
      proxy.cut();
      await sleep(50);
      yield add(32);
    }
    const replays: unknown[] = [];
    for await (const { replayed } of through.stream("commitBatch", demo, slow())) replays.push(replayed);
    t.strictSame(replays, [false, false]);
    t.equal(await cellOf(client, 32), "2");

    async function* failing(): AsyncGenerator<Batch> {
      yield add(40);
      await sleep(20);
      throw new Error("of the caller");
    }
    t.match(await failureOf(client.stream("commitBatch", demo, failing())), { message: "of the caller" });
    t.match(await failureOf(client.stream("commitBatch", demo, [{ ops: 1n } as unknown as Batch])), TypeError);

    let isClosed = false;
    function* many(): Generator<Batch> {
      try {
        for (;;) yield add(48);
      } finally {
        isClosed = true;
      }
    }
    for await (const { index } of client.stream("commitBatch", demo, many())) if (index === 20) break;
    t.ok(isClosed, "the caller's iterator is closed");

    async function* never(): AsyncGenerator<Batch> {
      yield add(56);
      await new Promise(() => {});
    }
    for await (const _ of client.stream("commitBatch", demo, never())) break;
    const stop = new AbortController();
    for await (const _ of client.stream("commitBatch", demo, never(), { signal: stop.signal })) stop.abort();
    t.equal(await cellOf(client, 56), "2");
    t.strictSame(await failureOf(client.stream("commitBatch", demo, [])), undefined, "nothing at all");
  });

  // Each stream left a listener on it, and each 4,096 lines something that waited for it, for as long as the signal lived.
  await t.test("nothing is left on a signal that outlives its streams", async (t) => {
    const { signal } = new AbortController();
    for (const batches of [[], [add(64)], Array.from({ length: 4100 }, () => add(64))]) {
      let answers = 0;
      let listenersMax = 0;
      for await (const _ of client.stream("commitBatch", demo, batches, { signal })) {
        answers += 1;
        listenersMax = Math.max(listenersMax, getEventListeners(signal, "abort").length);
      }
      t.equal(answers, batches.length);
      t.ok(listenersMax <= 1, "that of the connection");
      t.strictSame(getEventListeners(signal, "abort"), []);
    }
  });

  await t.test("a stream that is refused as a whole", async (t) => {
    const stranger = clientOn(t, service.port);
    const error = await failureOf(stranger.stream("commitBatch", { path: { region: "No Name" } }, [add()]));
    t.ok(error instanceof ProblemError);
    t.match(error, { status: 404 });
  });
});

t.test("over a service that is killed and started again", { timeout: 120_000 }, async (t) => {
  const dir = freshDir();
  let service = await ServiceProcess.ready({ dir });
  t.teardown(() => service.remove());
  const { port } = service;
  const client = clientOn(t, port, { attemptsMax: 50 });
  await client.call("createRegion", { body: { name: "demo", size: 4096, durability: "ordered" } });
  const kinds = new Set<string>();
  const stop = new AbortController();
  let last = 0;
  const watching = (async () => {
    for await (const { kind, generation } of client.changes("demo", { signal: stop.signal })) {
      kinds.add(kind);
      if (generation < last) t.fail(`${generation} comes after ${last}`);
      last = generation;
    }
  })();
  // It follows from where it finds the region: what it is to see comes after it has begun.
  while (!kinds.has("batch")) {
    await client.call("commitBatch", { ...demo, body: { ops: [{ op: "write", offset: 64, data: "AA==" }] } });
    await sleep(10);
  }
  const restart = async (signal: NodeJS.Signals) => {
    await service.stop(signal);
    service = await ServiceProcess.ready({ dir, flags: [`--port=${port}`] });
  };
  const count = 3000;
  let restarts = Promise.resolve();
  let answered = 0;
  for await (const { body, problem } of client.stream("commitBatch", demo, Array(count).fill(add()))) {
    if (body?.committed !== true) t.fail(JSON.stringify(problem));
    answered++;
    if (answered === 500) restarts = restarts.then(() => restart("SIGKILL"));
    if (answered === 2000) restarts = restarts.then(() => restart("SIGTERM"));
  }
  await restarts;
  t.equal(answered, count);
  t.equal(await cellOf(client), String(count), "once each");
  const { body } = await client.call("getRegion", demo);
  while (last < body.generation) await sleep(10);
  stop.abort();
  await watching;
  t.strictSame([...kinds].sort(), ["batch", "reset"], "the feed is memory, and says so");
});

t.test("an event stream on which nothing comes is opened anew", { timeout: 60_000 }, async (t) => {
  const asked: unknown[] = [];
  const server = createServer((request, response) => {
    asked.push(request.headers["last-event-id"]);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('retry: 10\r\n\r\n: a comment\r\n\r\nid: 77.8\r\nevent: batch\r\ndata: {"generation":8}\r\n\r\n');
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  const client = clientOn(t, port, { timeouts: { answerMs: 100 } });
  let events = 0;
  for await (const change of client.changes("demo", { since: 7 })) {
    t.match(change, { generation: 8 });
    if (++events === 2) break;
  }
  t.strictSame(asked, ["7", "77.8"]);
});

t.test("the README's examples run as they are printed", { timeout: 120_000 }, async (t) => {
  const service = await ServiceProcess.ready();
  t.teardown(() => service.remove());
  await clientOn(t, service.port).call("createRegion", { body: { name: "demo", size: 4096 } });
  const root = join(import.meta.dirname, "../../..");
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code!);
  t.ok(examples.length >= 3, `${examples.length} examples`);
  // Below the package, so that its own name is found; and on the port that this service has.
  const folder = mkdtempSync(join(root, "dist", "readme-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "examples.mjs");
  const code = examples.join("\n").replaceAll(":8080", `:${service.port}`);
  writeFileSync(path, code);
  const { stdout } = await promisify(execFile)(process.execPath, [path], { timeout: 60_000 });
  const lines = stdout.trim().split("\n");
  t.equal(lines[0], "generation 1");
  t.equal(lines[100], "99 101");
  t.equal(lines[101], "changed 101 [ { offset: 8, length: 8 } ]");
  t.equal(lines.length, 102);
});
