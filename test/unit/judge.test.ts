// What a restarted service refuses was "could not be told": a recovery that crashed, and a region that was gone, passed.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import t, { type Test } from "tap";
import type { Backend, Ended, Instance, Line, Site } from "../../docker/drill/backends.js";
import { type CycleRecord, Drilled } from "../../docker/drill/cycle.js";
import { judge, scan } from "../../docker/drill/judge.js";
import {
  batchOf,
  cellBytes,
  clientsMax,
  farStampAt,
  firstBytes,
  Ledger,
  nearStampAt,
  regionNames,
  secondBytes,
} from "../../docker/drill/ledger.js";
import { Load, type Target } from "../../docker/drill/load.js";
import { Random } from "../../docker/drill/random.js";
import { defaultSubject } from "../../docker/drill/scenarios.js";

/** A server that gives each request the same status. */
async function answering(t: Test, status: number): Promise<Target> {
  const server = createServer((_, reply) => {
    reply
      .writeHead(status, { "content-type": "application/problem+json" })
      .end(JSON.stringify({ status, title: "no" }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => server.close());
  return { host: "127.0.0.1", port: (server.address() as AddressInfo).port };
}

const lineOf = (text: string): Line => ({ atMs: 0, text, json: undefined });

/** Runs until it is signalled; or it has ended with this code and these words. */
function instanceOf(ended?: { code: number; said: string }): Instance {
  let end: (ended: Ended) => void = () => {};
  const over = new Promise<Ended>((resolve) => {
    end = resolve;
  });
  if (ended !== undefined) end({ code: ended.code, oom: false, atMs: 0 });
  const none = async (): Promise<void> => {};
  return {
    lines: ended === undefined ? [] : [lineOf(ended.said)],
    startedAtMs: 0,
    ended: over,
    signal: async () => end({ code: 0, oom: false, atMs: 0 }),
    pause: none,
    unpause: none,
    stop: none,
    hostPid: async () => 0,
    restarted: async () => false,
  };
}

/** Two cycles of a service of which the first start, or neither, succeeds, and then comes `second`. */
async function cyclesOf(t: Test, first: Instance, second: Instance): Promise<CycleRecord[]> {
  const starts = [first, second];
  const target = await answering(t, 200);
  const { port } = target;
  const start = async (): Promise<Instance> => {
    const instance = starts.shift()!;
    // Nobody listens where one has ended.
    target.port = instance.lines.length === 0 ? port : 1;
    return instance;
  };
  const site: Site = { target, start, remove: async () => {} };
  // Short waits.
  const subject = { ...defaultSubject, plainPath: "/", slack: 0.01 };
  const drilled = new Drilled({} as Backend, site, subject, new Random(1));
  const plan = {
    act: ({ instance }: { instance: Instance }) => instance.signal("SIGTERM"),
    expect: { codes: [0] },
    mayDrop: true,
  };
  return [await drilled.cycle(0, plan), await drilled.cycle(1, plan)];
}

t.test("a start that ends before it is ready", async (t) => {
  const crashed = { code: 70, said: "the journal is damaged" };
  const [good, bad] = await cyclesOf(t, instanceOf(), instanceOf(crashed));
  t.equal(good?.verdict, "pass");
  t.equal(bad?.verdict, "fail", "after a life: it did not come back");
  t.match(bad?.violations, [{ invariant: "I10", detail: /ended with 70: the journal is damaged/ }]);

  const [never] = await cyclesOf(t, instanceOf(crashed), instanceOf());
  t.equal(never?.verdict, "unknown", "before any life: the machine or the settings");

  const [, taken] = await cyclesOf(
    t,
    instanceOf(),
    instanceOf({ code: 1, said: "can't listen on 127.0.0.1:1: Address already in use" }),
  );
  t.equal(taken?.verdict, "unknown", "somebody has taken its port");
});

t.test("a region that a restarted service refuses", async (t) => {
  const { epoch } = new Ledger();
  for (const status of [404, 500, 503]) {
    await t.rejects(scan(await answering(t, status), epoch), { name: "Violated", invariant: "I1" }, `${status}`);
  }
  await t.rejects(scan({ host: "127.0.0.1", port: 1 }, epoch), { name: "Unjudged" }, "no answer");
});

t.test("a reader tells a refusal as a writer does", async (t) => {
  for (const [status, wrong] of [
    [404, true],
    [500, true],
    [503, false],
  ] as const) {
    const load = new Load(await answering(t, status), new Ledger(), { connections: 0, readers: 1 });
    while (load.readAttempts.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
    await load.stop();
    t.equal(load.unexpected.length > 0, wrong, `${status}`);
  }
});

t.test("every byte of the cells is judged", async (t) => {
  const ledger = new Ledger();
  const { epoch } = ledger;
  const entry = ledger.next(0)!;
  entry.outcome = "acknowledged";
  const names = regionNames(epoch);
  const found = {
    first: Buffer.alloc(firstBytes),
    second: Buffer.alloc(secondBytes),
    cells: Buffer.alloc(clientsMax * cellBytes),
    generations: [1, 1, 1],
  };
  const bytes = new Map([
    [names.first as string, found.first],
    [names.second, found.second],
    [names.cells, found.cells],
  ]);
  for (const op of batchOf(epoch, entry, undefined).ops) {
    if (op.op === "write") bytes.get(op.region)!.set(entry.key, op.offset);
  }
  found.cells.writeBigUInt64LE(1n, 0);
  t.same(judge(epoch, found).violations, [], "as it was sent");

  const wrong = (what: string, ...at: number[]): void => {
    const cells = Buffer.from(found.cells);
    for (const offset of at) cells[offset] = 1;
    t.match(judge(epoch, { ...found, cells }).violations, [{ invariant: "I3", detail: /that nobody sent/ }], what);
  };
  wrong("behind the counter", 8);
  wrong("the last byte of a cell", cellBytes - 1);
  wrong("the last byte of all", clientsMax * cellBytes - 1);
  wrong("two equal stamps of a client without a batch", cellBytes + nearStampAt, cellBytes + farStampAt);
});
