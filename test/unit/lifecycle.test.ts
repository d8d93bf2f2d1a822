// lifecycle.test.ts - the states, their refusals and their exit codes, on a process that is only played.
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { exitCodes } from "../../native/index.js";
import { type DrainTimes, Lifecycle, type NativeProcess } from "../../service/lifecycle.js";
import { RunRecord } from "../../service/run-record.js";
import { RawClient } from "../raw-client.js";

const times: DrainTimes = { lameDuckMs: 40, bodyGraceMs: 80, softMs: 300, hardMs: 600 };

/** What native/lifecycle.ts does, without a process that ends. */
class PlayedProcess {
  signalledAt: number | undefined;
  hurry = false;
  depth = 0;
  codeAtSoftDeadline = 0;
  repairs = 0;
  readonly ended: Promise<number>;
  readonly native: NativeProcess;

  constructor() {
    let end: (code: number) => void;
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.native = {
      acknowledge: () => {},
      codeAtSoft: (code) => {
        this.codeAtSoftDeadline = code;
      },
      criticalDepth: () => this.depth,
      dispositions: () => ({ term: true, interrupt: true, bus: false, repaired: 3 }),
      repair: () => {
        this.repairs += 1;
      },
      // The real one doesn't return either.
      exit: (code): never => {
        end(code);
        throw new Played();
      },
      view: () => ({
        signals: this.signalledAt === undefined ? 0 : 1,
        firstSignal: this.signalledAt === undefined ? undefined : "SIGTERM",
        sender: 1,
        elapsedMs: this.signalledAt === undefined ? 0 : performance.now() - this.signalledAt,
        frozenMs: 0,
        toldAtMs: this.signalledAt === undefined ? -1 : 1.5,
        emptyAtMs: 0,
        hurry: this.hurry,
      }),
    };
  }

  signal(lifecycle: Lifecycle): void {
    this.signalledAt ??= performance.now();
    lifecycle.stop();
  }
}

/** Thrown where a process would have ended. */
class Played extends Error {
  override name = "Played";
}
process.on("unhandledRejection", (reason) => {
  if (!(reason instanceof Played)) throw reason;
});

interface Play {
  process: PlayedProcess;
  lifecycle: Lifecycle;
  lines: { event?: string; [member: string]: unknown }[];
}

function played(): Play {
  const lines: Play["lines"] = [];
  const put = (members: object) => {
    lines.push(members as Play["lines"][number]);
  };
  const process = new PlayedProcess();
  const log = { info: put, warn: put, error: put, fatal: put };
  return { process, lifecycle: new Lifecycle(times, log, process.native), lines };
}

const freshRecord = () => new RunRecord(mkdtempSync(join(tmpdir(), "holdfast-")));

/** A server that never answers /stuck. */
async function serving(t: Test, { lifecycle }: Play): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.url !== "/stuck") response.end("ok");
  });
  lifecycle.watch(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  lifecycle.serving({ dropNew: () => [], close: () => [] });
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return server;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;

t.test("requests are let in from ready on, and reads to the end", async (t) => {
  const all = played();
  const { lifecycle, process } = all;
  t.equal(lifecycle.admit(false), "starting");
  lifecycle.standby();
  t.equal(lifecycle.state(), "standby");
  t.equal(lifecycle.admit(true), "standby");
  t.equal(lifecycle.inFlight(), 0);
  lifecycle.ready(freshRecord());
  t.equal(lifecycle.state(), "ready");
  t.equal(lifecycle.admit(true), undefined);
  t.equal(lifecycle.admit(false), undefined);
  t.equal(lifecycle.inFlight(), 2);
  lifecycle.finished();
  t.equal(lifecycle.inFlight(), 1);
  t.equal(lifecycle.closing(), false);

  const server = await serving(t, all);
  const client = await RawClient.connect(portOf(server));
  await client.request("GET", "/");
  process.signal(lifecycle);
  t.equal(lifecycle.closing(), true);
  t.equal(lifecycle.stopSignal.aborted, true);
  t.equal(lifecycle.state(), "lameduck");
  t.equal(lifecycle.admit(true), "draining");
  t.equal(lifecycle.admit(false), undefined);
  t.equal(await process.ended, 0);
  t.equal(lifecycle.state(), "stopped");
});

t.test("a stop before the store is open refuses reads as well, and nothing becomes ready any more", async (t) => {
  const all = played();
  const { lifecycle, process } = all;
  const server = await serving(t, all);
  const client = await RawClient.connect(portOf(server));
  lifecycle.standby();
  process.signal(lifecycle);
  t.equal(lifecycle.admit(false), "draining");
  lifecycle.ready(freshRecord());
  t.equal(lifecycle.state(), "lameduck");
  t.equal(await process.ended, 0);
  t.match(await client.closed(), /end|close/);
});

t.test("nothing was served yet: closed and gone", async (t) => {
  const { lifecycle, process, lines } = played();
  let closed = false;
  lifecycle.beforeExit(async () => {
    closed = true;
  });
  process.signal(lifecycle);
  process.signal(lifecycle);
  t.equal(await process.ended, 0);
  t.equal(closed, true);
  t.strictSame(
    lines.map((line) => line.event),
    ["term", "loop_lag", "drained"],
  );
});

t.test("a request that is never answered is cut at the soft deadline", async (t) => {
  const all = played();
  const { lifecycle, process, lines } = all;
  const record = freshRecord();
  lifecycle.ready(record);
  const server = await serving(t, all);
  t.equal(process.codeAtSoftDeadline, exitCodes.cut, "and the watchdog would say the same");
  const client = await RawClient.connect(portOf(server));
  client.send("GET /stuck HTTP/1.1\r\nhost: test\r\n\r\n");
  while (lifecycle.metricsText().includes('state="active"} 0')) await new Promise(setImmediate);
  process.signal(lifecycle);
  t.equal(await process.ended, exitCodes.cut);
  t.match(lines.at(-1), { event: "drained", code: 75, reason: "soft_deadline", cut: 1, answered: 0 });
  t.match(JSON.parse(readFileSync(record.path, "utf8")), { state: "ended", code: 75, outcomes: { cut: 1 } });
  t.match(await client.closed(), /end|close|ECONNRESET/);
});

t.test("a second signal cuts at once, and waits for the gate", async (t) => {
  for (const ends of [true, false]) {
    const all = played();
    const { lifecycle, process, lines } = all;
    const server = await serving(t, all);
    const client = await RawClient.connect(portOf(server));
    client.send("GET /stuck HTTP/1.1\r\nhost: test\r\n\r\n");
    process.depth = 1;
    process.signal(lifecycle);
    process.hurry = true;
    const at = performance.now();
    if (ends) setTimeout(() => (process.depth = 0), 100);
    t.equal(await process.ended, ends ? exitCodes.cut : exitCodes.hard);
    const ms = performance.now() - at;
    t.ok(ms >= (ends ? 95 : times.hardMs - 5), `after ${ms.toFixed(0)} ms`);
    t.match(lines.at(-1), { reason: ends ? "second_signal" : "hard_deadline" });
  }
});

t.test("a store that does not close in time is left to the next start, and that is no cut", async (t) => {
  const { lifecycle, process, lines } = played();
  lifecycle.beforeExit(() => new Promise(() => {}));
  process.signal(lifecycle);
  t.equal(await process.ended, 0);
  t.equal(process.codeAtSoftDeadline, 0);
  t.ok(lines.find((line) => line.event === "close_cut"));
});

t.test("a store that fails to close is told", async (t) => {
  const { lifecycle, process, lines } = played();
  lifecycle.beforeExit(async () => {
    throw new Error("no");
  });
  process.signal(lifecycle);
  t.equal(await process.ended, 0);
  t.ok(lines.find((line) => line.event === "close_failed"));
});

t.test("an uncaught error: 1", async (t) => {
  const { lifecycle, process, lines } = played();
  t.throws(() => lifecycle.fail(new Error("oh")), { name: "Played" });
  t.equal(await process.ended, 1);
  t.match(lines[0], { event: "uncaught" });
  t.match(lines[1], { event: "drained", code: 1, reason: "uncaught_error" });
});

t.test("metrics and status tell the same", async (t) => {
  const all = played();
  const { lifecycle, process } = all;
  lifecycle.keepSignals();
  t.equal(process.repairs, 1);
  const server = await serving(t, all);
  const client = await RawClient.connect(portOf(server));
  await client.request("GET", "/");
  const text = lifecycle.metricsText();
  for (const line of text.trimEnd().split("\n")) {
    t.match(line, /^(# (HELP|TYPE) holdfast_[a-z_]+ .+|holdfast_[a-z_]+(\{[a-z]+="\w+"\})? [\d.]+)$/);
  }
  t.match(text, 'holdfast_connections{state="idle"} 1\n');
  t.match(text, 'holdfast_signal_disposition_ours{signal="SIGBUS"} 0\n');
  t.match(text, "holdfast_signal_disposition_repairs_total 3\n");
  t.match(lifecycle.statusDetail(), {
    connections: { open: 1, active: 0 },
    signals: { caught: 0, dispositions: { bus: false } },
    drain: null,
    previousRun: null,
  });
  client.destroy();
});

t.test("the record of a run: first, ended, killed, unreadable", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "holdfast-"));
  const first = new RunRecord(dir);
  t.equal(first.previous, null);
  const outcomes = { answered: 1, refused: 2, cut: 0, aborted: 0 };
  first.end({ signal: "SIGINT", code: 0, reason: "drained", drainMs: 12, outcomes });
  t.match(new RunRecord(dir).previous, { state: "ended", signal: "SIGINT", drainMs: 12, outcomes });
  t.match(new RunRecord(dir).previous, { state: "killed", startedAtMs: Number });
  writeFileSync(join(dir, "last-run.json"), '{"state":');
  t.equal(new RunRecord(dir).previous, null);
  const nowhere = new RunRecord(join(dir, "nowhere"));
  t.equal(nowhere.previous, null);
  t.equal(existsSync(nowhere.path), false);
});
