// Streams of batches below HTTP: how bodies are cut, in whatever pieces they come, and the layout that is documented.
import { readFileSync } from "node:fs";
import { PassThrough } from "node:stream";
import fc from "fast-check";
import t from "tap";
import { BatchStream, FrameSplitter, framed, LineSplitter, type Splitter } from "../../service/batch-stream.js";
import { BatchEncoder } from "../../service/store/batch-encoder.js";
import { seedOf } from "../seed.js";

/** Everything that a splitter makes of a body that comes in pieces. */
function unitsOf<Unit>(splitter: Splitter<Unit>, body: Buffer, cuts: readonly number[]): Unit[] {
  const units: Unit[] = [];
  const take = () => {
    while (!splitter.broken) {
      const unit = splitter.next();
      if (unit === undefined) return;
      units.push(unit);
    }
  };
  let from = 0;
  for (const cut of [...cuts.map((cut) => cut % (body.length + 1)).toSorted((a, b) => a - b), body.length]) {
    splitter.add(body.subarray(from, cut));
    from = cut;
    take();
  }
  splitter.end();
  take();
  return units;
}

const cuts = fc.array(fc.nat(), { maxLength: 20 });

t.test("lines are the same in whatever pieces they come", async (t) => {
  const line = fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }).map((text) => text.replace(/[\r\n]/g, "_"));
  fc.assert(
    fc.property(fc.array(line), cuts, fc.constantFrom("\n", "\r\n", "\n\n"), fc.boolean(), (lines, at, end, last) => {
      const body = lines.join(end) + (last ? end : "");
      const units = unitsOf(new LineSplitter(1000), Buffer.from(body), at);
      const wanted = lines.map((text) => (end === "\r\n" ? `${text}\r` : text));
      if (end === "\r\n" && !last && wanted.length > 0) wanted.push(wanted.pop()!.slice(0, -1));
      return JSON.stringify(units) === JSON.stringify(wanted);
    }),
    { seed: seedOf(t) },
  );
});

t.test("a line that is too long is told with its length, and the next is taken", async (t) => {
  fc.assert(
    fc.property(cuts, (at) => {
      const body = Buffer.from(`short\n${"x".repeat(51)}\n${"y".repeat(50)}\n${"z".repeat(200)}`);
      const units = unitsOf(new LineSplitter(50), body, at);
      return JSON.stringify(units) === JSON.stringify(["short", { actual: 51 }, "y".repeat(50), { actual: 200 }]);
    }),
    { seed: seedOf(t) },
  );
});

t.test("frames are the same in whatever pieces they come", async (t) => {
  const frame = fc.uint8Array({ minLength: 8, maxLength: 100 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.array(frame), cuts, (frames, at) => {
      const units = unitsOf(new FrameSplitter(8, 100), Buffer.concat(frames.map(framed)), at);
      return units.length === frames.length && frames.every((bytes, i) => bytes.equals(units[i] as Buffer));
    }),
    { seed: seedOf(t) },
  );
});

t.test("what can't be a frame ends the stream", async (t) => {
  const good = framed(Buffer.alloc(16, 1));
  const prefix = (length: number, zero: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(length, 0);
    bytes.writeUInt32LE(zero, 4);
    return bytes;
  };
  for (const [bad, code] of [
    [prefix(4, 0), "malformed_batch"],
    [prefix(16, 1), "malformed_batch"],
    [prefix(101, 0), "batch_too_large"],
    [prefix(2 ** 32 - 1, 0), "batch_too_large"],
    [good.subarray(0, 7), "malformed_batch"],
    [good.subarray(0, 20), "malformed_batch"],
  ] as const) {
    const units = unitsOf(new FrameSplitter(8, 100), Buffer.concat([good, bad]), []);
    t.same(units.slice(1), [{ code }]);
  }
});

t.test("the documented bytes are those of the encoder", async (t) => {
  const text = readFileSync(new URL("../../../ARCHITECTURE.md", import.meta.url), "utf8");
  const lines = [...text.matchAll(/^ {4}[0-9a-f]{4}: ((?:[0-9a-f]{2} ?)+)/gm)].map(([, hex]) => hex!);
  const documented = Buffer.from(lines.join("").replaceAll(" ", ""), "hex");
  const encoder = new BatchEncoder({ opsMax: 1, guardsMax: 1 });
  const body = { ops: [{ op: "write", offset: 64, data: "Hello", encoding: "utf8" }] };
  t.equal(documented.toString("hex"), framed(encoder.encode(body, "demo", undefined, undefined)!).toString("hex"));
});

t.test("answers are in the order of the batches, and no more wait than may", async (t) => {
  const body = new PassThrough();
  const resolvers: (() => void)[] = [];
  let started = 0;
  let running: number | undefined;
  let overtaken = 0;
  const stream = new BatchStream<string | object, string>({
    body,
    splitter: new LineSplitter(100),
    run: (line) => {
      started++;
      if (running !== undefined) overtaken++;
      if (Number(line) % 3 === 0) return `${line}\n`;
      if (Number(line) % 500 === 1) running = Number(line);
      return new Promise((resolve) =>
        resolvers.push(() => {
          if (running === Number(line)) running = undefined;
          resolve(`${line}\n`);
        }),
      );
    },
    waiting: () => ({ canBeOvertaken: running !== undefined, bytes: 100 }),
    join: (answers) => answers.join(""),
    stopSignal: new AbortController().signal,
    farewell: () => "bye\n",
  });
  const lines = [...Array(2000).keys()].map(String);
  body.end(`${lines.join("\n")}\n`);
  let text = "";
  stream.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  const ended = new Promise((resolve) => stream.once("end", resolve));
  let over = false;
  void ended.then(() => {
    over = true;
  });
  let most = 0;
  while (!over) {
    await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, resolvers.length);
    // The last first.
    for (const resolve of resolvers.splice(0).reverse()) resolve();
  }
  t.equal(text, `${lines.join("\n")}\n`);
  t.equal(started, 2000);
  t.equal(overtaken, 0, "what could be overtaken is not");
  t.ok(most <= 256, `${most} waited`);
});

t.test("long answers are waited for one after the other", async (t) => {
  const body = new PassThrough();
  const resolvers: (() => void)[] = [];
  const stream = new BatchStream<string | object, string>({
    body,
    splitter: new LineSplitter(100),
    run: (line) => new Promise((resolve) => resolvers.push(() => resolve(`${line}\n`))),
    waiting: () => ({ canBeOvertaken: false, bytes: 9 << 20 }),
    join: (answers) => answers.join(""),
    stopSignal: new AbortController().signal,
    farewell: () => "bye\n",
  });
  body.end("1\n2\n3\n4\n5\n");
  const text = (async () => {
    let all = "";
    for await (const chunk of stream) all += chunk;
    return all;
  })();
  const waited: number[] = [];
  for (let answered = 0; answered < 5; ) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    waited.push(resolvers.length);
    for (const resolve of resolvers.splice(0)) {
      resolve();
      answered++;
    }
  }
  t.equal(await text, "1\n2\n3\n4\n5\n");
  t.same(waited, [2, 2, 1]);
});

t.test("a batch without an answer ends the stream", async (t) => {
  for (const run of [
    () => {
      throw new Error("broken");
    },
    () => Promise.reject(new Error("broken")),
  ]) {
    const body = new PassThrough();
    const stream = new BatchStream<string | object, string>({
      body,
      splitter: new LineSplitter(100),
      run,
      waiting: () => ({ canBeOvertaken: false, bytes: 0 }),
      join: (answers) => answers.join(""),
      stopSignal: new AbortController().signal,
      farewell: () => "bye\n",
    });
    body.end("1\n2\n");
    await t.rejects(async () => {
      for await (const _ of stream) t.fail("there is no answer");
    }, /broken/);
  }
});
