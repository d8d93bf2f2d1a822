// The change feed: every way in which a generation comes about, pages, long polls, event streams, and their ends.
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { type Fixture, storeTest } from "../fixture.js";

const url = "/v1/regions/demo/changes";
const write = (offset: number, data = "AAAA") => ({ ops: [{ op: "write", offset, data }] });

async function listen(f: Fixture): Promise<number> {
  await f.app.listen({ host: "127.0.0.1", port: 0 });
  return (f.app.server.address() as AddressInfo).port;
}

interface Event {
  id?: string;
  event?: string;
  data?: string;
  retry?: string;
}

/** An event stream over a socket, as far as it has been read. */
class Events {
  private readonly events: Event[] = [];
  private text = "";
  comments = 0;
  ended = false;

  private constructor(readonly response: IncomingMessage) {
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => this.take(chunk));
    response.on("end", () => {
      this.ended = true;
    });
    response.on("error", () => {});
  }

  static async open(port: number, path = url, headers: Record<string, string> = {}): Promise<Events> {
    const request = get({
      port,
      path,
      host: "127.0.0.1",
      agent: false,
      headers: { accept: "text/event-stream", ...headers },
    });
    const [response] = (await once(request, "response")) as [IncomingMessage];
    if (response.statusCode !== 200) throw new Error(`the stream was refused: ${response.statusCode}`);
    return new Events(response);
  }

  private take(chunk: string): void {
    this.text += chunk;
    const blocks = this.text.split("\n\n");
    this.text = blocks.pop()!;
    for (const block of blocks) {
      const lines = block.split("\n");
      this.comments += lines.filter((line) => line.startsWith(":")).length;
      const fields = lines.filter((line) => !line.startsWith(":")).map((line) => line.split(/: (.*)/s, 2));
      if (fields.length > 0) this.events.push(Object.fromEntries(fields));
    }
  }

  /** The next event that has a kind. */
  async next(): Promise<Event> {
    for (;;) {
      const event = this.events.shift();
      if (event?.event !== undefined) return event;
      if (event === undefined) {
        if (this.ended) throw new Error("the stream has ended");
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
  }

  async end(): Promise<void> {
    while (!this.ended) await new Promise((resolve) => setTimeout(resolve, 2));
  }

  close(): void {
    this.response.destroy();
  }
}

storeTest("every change of bytes is told with its ranges", async (t, f) => {
  await f.region("demo", 4096);
  await f.region("other", 64);
  const demo = "/v1/regions/demo";
  await f.batch("demo", { ops: [{ op: "write", offset: 64, data: "SGVsbG8=" }] });
  await f.batch("demo", {
    ops: [
      { op: "store", offset: 100, type: "u32", values: [1, 2] },
      { op: "add", offset: 8, type: "u64", value: 1 },
      { op: "fill", offset: 16, length: 16, pattern: "ff" },
      { op: "copy", from: 0, to: 2000, length: 10 },
      { op: "cas", offset: 512, type: "u8", expected: 9, value: 1, onMismatch: "continue" },
      { op: "cas", offset: 520, type: "u16", expected: 0, value: 1 },
      { op: "read", offset: 900, length: 4 },
    ],
  });
  await f.batch("demo", {
    guards: [{ kind: "value", offset: 0, type: "u8", op: "eq", value: 1 }],
    ops: [{ op: "write", offset: 0, data: "AAAA" }],
    elseOps: [{ op: "store", offset: 32, type: "u64", value: 3000 }],
  });
  await f.batch("demo", { ops: [{ op: "append", cursorOffset: 32, data: "AAAA" }] });
  await f.call("PUT", `${demo}/content`, { body: "xyz", headers: { "content-range": "bytes 7-9/*" } });
  await f.call("PUT", `${demo}/cells/40?type=u32`, { body: { value: 1 } });
  await f.post(`${demo}/cells/48`, { op: "xor", value: 1 });
  await f.post("/v1/batches", {
    ops: [
      { op: "write", region: "demo", offset: 0, data: "AAAA" },
      { op: "write", region: "other", offset: 8, data: "AAAA" },
    ],
  });
  await f.call("PATCH", demo, { body: { size: 8192 } });
  await f.call("PATCH", demo, { body: { size: 4096 }, headers: { "if-match": "*" } });
  await f.call("PATCH", demo, { body: { labels: { a: "1" } } });

  const { json } = await f.get(`${url}?since=0`);
  t.same(
    json.items.map(({ kind, ranges }: { kind: string; ranges: { offset: number; length: number }[] }) => [
      kind,
      ...ranges.map(({ offset, length }) => [offset, length]),
    ]),
    [
      ["batch", [64, 5]],
      // Those that touch are one.
      ["batch", [8, 24], [100, 8], [520, 2], [2000, 10]],
      ["batch", [32, 8]],
      ["batch", [32, 8], [3000, 3]],
      ["batch", [7, 3]],
      ["batch", [40, 4]],
      ["batch", [48, 8]],
      ["batch", [0, 3]],
      ["resize", [4096, 4096]],
      ["resize", [4096, 4096]],
    ],
  );
  t.same(
    json.items.map(({ generation }: { generation: number }) => generation),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  );
  t.ok(json.items.every(({ durable }: { durable: boolean }) => durable));
  t.match(json, { next: 10, oldest: 0 });
  t.match((await f.get("/v1/regions/other/changes")).json, {
    items: [{ generation: 1, ranges: [{ offset: 8, length: 3 }] }],
  });
});

storeTest("what changes nothing is not told", async (t, f) => {
  await f.region("demo", 64);
  const key = { "idempotency-key": "one" };
  await f.batch("demo", write(0), key);
  await f.batch("demo", write(0), key);
  await f.batch("demo", { ...write(8), dryRun: true });
  await f.batch("demo", { ops: [{ op: "read", offset: 0, length: 8 }] });
  await f.batch("demo", { guards: [{ kind: "generation", op: "eq", value: 7 }], ...write(0) });
  await f.batch("demo", write(100));
  const { json } = await f.get(url);
  t.match(json, { items: [{ generation: 1 }], next: 1, oldest: 0 });
  t.equal(json.items.length, 1);
});

storeTest(
  "pages, and what is no longer remembered",
  async (t, f) => {
    await f.region("demo", 64);
    for (let i = 0; i < 10; i++) await f.batch("demo", write(i));
    const first = await f.get(`${url}?since=3&limit=2`);
    t.same(
      first.json.items.map(({ generation }: { generation: number }) => generation),
      [4, 5],
    );
    t.equal(first.json.next, 5);
    t.match((await f.get(`${url}?since=10`)).json, { items: [], next: 10 });
    t.match((await f.get(`${url}?since=11`)).json, { status: 410, code: "generation-compacted" });
    for (let i = 0; i < 200; i++) await f.batch("demo", write(i % 60));
    const gone = await f.get(`${url}?since=109`);
    t.match(gone.json, { status: 410, code: "generation-compacted", failures: [{ limit: 110, actual: 109 }] });
    t.equal((await f.get(`${url}?since=110&limit=1000`)).json.items.length, 100);
    t.equal((await f.get(url)).json.items[0].generation, 111);
    for (const bad of ["since=-1", "since=x", "limit=0", "limit=1001", "wait=61", "color=red"]) {
      t.match((await f.get(`${url}?${bad}`)).json, { status: 400, code: "query-param-invalid" }, bad);
    }
    t.equal((await f.get("/v1/regions/nope/changes")).json.code, "region-not-found");
  },
  "--changes-kept-max=100",
);

storeTest("many ranges are told as fewer that cover them", async (t, f) => {
  await f.region("demo", 1 << 16);
  const offsets = [...Array(500).keys()].map((i) => ((i * 7919) % 500) * 128);
  await f.batch("demo", { ops: offsets.map((offset) => ({ op: "write", offset, data: "AAAA" })) });
  const [{ ranges }] = (await f.get(url)).json.items;
  t.equal(ranges.length, (await f.get("/v1/limits")).json.changeRangesMax);
  for (const offset of offsets) {
    const covered = ranges.some(
      (range: { offset: number; length: number }) =>
        range.offset <= offset && offset + 3 <= range.offset + range.length,
    );
    t.ok(covered, `${offset} is covered`);
  }
  t.same(
    ranges,
    ranges.toSorted((a: { offset: number }, b: { offset: number }) => a.offset - b.offset),
  );
});

storeTest("batches at the same time are told in order", async (t, f) => {
  await f.region("demo", 4096, { durability: "ordered" });
  const batches = [...Array(60).keys()].map((i) =>
    f.batch("demo", { ...write(64 * i), ...(i % 3 === 0 && { durability: "durable" }) }),
  );
  const told = new Map((await Promise.all(batches)).map(({ json }, i) => [json.generation, 64 * i]));
  const { items } = (await f.get(`${url}?since=0`)).json;
  t.equal(items.length, 60);
  for (const [i, { generation, ranges }] of items.entries()) {
    t.equal(generation, i + 1);
    t.equal(ranges[0].offset, told.get(generation), `generation ${generation} is that of its batch`);
  }
});

storeTest("a change of a region that is not durable says so", async (t, f) => {
  await f.region("demo", 64, { durability: "fast" });
  await f.batch("demo", write(0));
  t.equal((await f.get(url)).json.items[0].durable, false);
  await f.call("POST", "/v1/regions/demo/flushes");
  t.equal((await f.get(url)).json.items[0].durable, true);
});

storeTest("a long poll waits for the next change", async (t, f) => {
  await f.region("demo", 64);
  const poll = f.get(`${url}?since=0&wait=30`);
  const now = f.get(`${url}?wait=30`);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await f.batch("demo", write(0));
  t.match((await poll).json, { items: [{ generation: 1 }], next: 1 });
  t.match((await now).json, { items: [{ generation: 1 }], next: 1 });
  t.match(
    (await f.get(`${url}?since=0&wait=30`)).json,
    { items: [{ generation: 1 }] },
    "what is there is told at once",
  );
  const since = performance.now();
  t.same((await f.get(`${url}?since=1&wait=1`)).json.items, []);
  t.ok(performance.now() - since > 900, "the time is over");

  const deleted = f.get(`${url}?since=1&wait=30`);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await f.call("DELETE", "/v1/regions/demo");
  t.equal((await deleted).json.code, "region-not-found");

  await f.region("demo", 64);
  const stopped = f.get(`${url}?since=0&wait=30`);
  await new Promise((resolve) => setTimeout(resolve, 20));
  f.lifecycle.stop();
  t.same((await stopped).json.items, [], "a stop ends the wait");
});

storeTest(
  "a long poll outlasts the silence that ends other requests",
  async (t, f) => {
    await f.region("demo", 64);
    const port = await listen(f);
    const response = await fetch(`http://127.0.0.1:${port}${url}?since=0&wait=1`);
    t.equal(response.status, 200);
    t.same(((await response.json()) as { items: unknown[] }).items, []);
  },
  "--request-idle-ms-max=200",
);

storeTest(
  "an event stream",
  async (t, f) => {
    await f.region("demo", 64);
    await f.batch("demo", write(0));
    const port = await listen(f);
    const live = await Events.open(port);
    t.match(live.response.headers["content-type"], /^text\/event-stream/);
    t.equal(live.response.headers["cache-control"], "no-store");
    await f.batch("demo", write(8));
    const event = await live.next();
    t.match(event, { id: /^\d+\.2$/, event: "batch" });
    t.match(JSON.parse(event.data!), {
      generation: 2,
      kind: "batch",
      ranges: [{ offset: 8, length: 3 }],
      durable: true,
    });

    const resumed = await Events.open(port, url, { "last-event-id": "0" });
    t.match((await resumed.next()).id, /\.1$/);
    t.equal((await resumed.next()).id, event.id);
    const since = await Events.open(port, `${url}?since=1`);
    t.equal((await since.next()).id, event.id);

    while (live.comments < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    t.pass("a quiet stream says that it is alive, longer than requests may be silent");

    for (const id of ["x", "1.x", "x.1", "1.2.3", "."]) {
      const bad = await f.get(url, { accept: "text/event-stream", "last-event-id": id });
      t.match(bad.json, { status: 400, code: "header-invalid" }, id);
    }
    t.equal((await f.get(url, { accept: "text/event-stream;q=0, */*" })).status, 200);

    await f.call("DELETE", "/v1/regions/demo");
    t.equal((await live.next()).event, "delete");
    await live.end();
    resumed.close();
    since.close();
  },
  "--event-comment-ms=150",
  "--request-idle-ms-max=200",
);

storeTest(
  "a gap is a reset",
  async (t, f) => {
    await f.region("demo", 64);
    for (let i = 0; i < 20; i++) await f.batch("demo", write(i));
    const port = await listen(f);
    for (const lost of ["3", "99"]) {
      const events = await Events.open(port, url, { "last-event-id": lost });
      const reset = await events.next();
      t.match(reset, { id: /\.20$/, event: "reset" }, lost);
      t.same(JSON.parse(reset.data!), { generation: 20, oldest: 10 });
      events.close();
    }
    const events = await Events.open(port, url, { "last-event-id": "10" });
    t.match(await events.next(), { id: /\.11$/, event: "batch" });
    events.close();
  },
  "--changes-kept-max=10",
);

// The new region's generations were told as if they had gone on from the old one's.
storeTest("who comes back to a region that was made anew is told so", async (t, f) => {
  const port = await listen(f);
  await f.region("demo", 64);
  for (let i = 0; i < 3; i++) await f.batch("demo", write(i));
  const before = await Events.open(port, `${url}?since=2`);
  const { id } = await before.next();
  before.close();
  const again = await Events.open(port, url, { "last-event-id": id! });
  await f.batch("demo", write(8));
  t.match(await again.next(), { id: /\.4$/, event: "batch" }, "the same region goes on");
  again.close();

  await f.call("DELETE", "/v1/regions/demo");
  await f.region("demo", 64);
  for (let i = 0; i < 5; i++) await f.batch("demo", write(i));
  const other = await Events.open(port, url, { "last-event-id": id! });
  t.match(await other.next(), { id: /\.5$/, event: "reset" });
  await f.batch("demo", write(8));
  t.match(await other.next(), { id: /\.6$/, event: "batch" });
  other.close();
});

storeTest("a reader that goes is forgotten at once, one that closes its side is told on", async (t, f) => {
  await f.region("demo", 64);
  const port = await listen(f);
  const count = async () => Number(/^holdfast_event_streams (\d+)$/m.exec((await f.get("/metrics")).text)![1]);
  const gone = await Events.open(port);
  const half = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  half.setEncoding("utf8").end(`GET ${url} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n`);
  let told = "";
  half.on("data", (chunk: string) => {
    told += chunk;
  });
  while ((await count()) < 2) await new Promise((resolve) => setTimeout(resolve, 2));
  const from = performance.now();
  gone.close();
  while ((await count()) > 1) await new Promise((resolve) => setTimeout(resolve, 2));
  // Its next sign of life would be after 15 s.
  t.ok(performance.now() - from < 5000);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await f.batch("demo", write(8));
  while (!told.includes("event: batch")) await new Promise((resolve) => setTimeout(resolve, 2));
  t.equal(await count(), 1);
  half.destroy();
  while ((await count()) > 0) await f.batch("demo", write(8));
});

storeTest(
  "event streams are limited, and a stop ends them",
  async (t, f) => {
    await f.region("demo", 64);
    const port = await listen(f);
    const streams = [await Events.open(port), await Events.open(port)];
    const refused = await f.get(url, { accept: "text/event-stream" });
    t.match(refused.json, { status: 429, code: "rate-limited", retryable: true });
    t.equal(refused.headers["retry-after"], "5");
    t.equal((await f.get(url)).status, 200, "pages are not streams");
    const head = await f.call("HEAD", `${url}?wait=60`, { headers: { accept: "text/event-stream" } });
    t.equal(head.status, 200, "a HEAD neither waits nor is a stream");
    t.match((await f.get("/metrics")).text, /^holdfast_event_streams 2$/m);
    streams.pop()!.close();
    while ((await f.get("/v1/status")).json.inFlight > 2) await new Promise((resolve) => setTimeout(resolve, 2));
    streams.push(await Events.open(port));
    f.lifecycle.stop();
    for (const stream of streams) {
      t.match(await stream.next(), { event: "bye", retry: "1000" });
      await stream.end();
    }
    const late = await Events.open(port);
    t.match(await late.next(), { event: "bye" });
    await late.end();
  },
  "--event-streams-max=2",
);
