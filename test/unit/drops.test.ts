// A stop with the event loop 229 ms late dropped 33 requests, and the drill passed it: it counted the service's patience from
// the signal, and called each of them late.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import type { Line } from "../../docker/drill/backends.js";
import { dropsOf, stopTimes, wrongIn } from "../../docker/drill/drops.js";
import { Ledger } from "../../docker/drill/ledger.js";
import { type Attempt, Load } from "../../docker/drill/load.js";
import { defaultSubject } from "../../docker/drill/scenarios.js";

const patience = defaultSubject.patience!;
const signalAt = Date.parse("2026-01-01T00:00:10.000Z");

/** What the service writes of a stop that JavaScript heard of so late. */
function linesOf(lagMs: number, closedMs = lagMs + patience.lameDuckMs): Line[] {
  const said = (event: string, ms: number, members: object): Line => {
    const json = { event, time: new Date(signalAt + ms).toISOString(), ...members };
    return { atMs: 0, text: "", json };
  };
  return [
    said("term", lagMs, {}),
    said("loop_lag", lagMs, { ms: lagMs }),
    said("listener_closed", closedMs, { ms: closedMs }),
  ];
}

/** A request that got no answer, by its milliseconds after the signal. */
const lost = (client: number, startedMs: number, reused: boolean, sentMs: number | null = startedMs): Attempt => ({
  client,
  reused,
  startedAt: signalAt + startedMs,
  connectedAt: signalAt + startedMs,
  sentAt: sentMs === null ? null : signalAt + sentMs,
  firstByteAt: null,
  endedAt: signalAt + startedMs + 50,
  status: null,
  code: "ECONNRESET",
});
const answered = (client: number, startedMs: number): Attempt => ({
  ...lost(client, startedMs, true),
  firstByteAt: signalAt + startedMs + 1,
  endedAt: signalAt + startedMs + 2,
  status: 200,
  code: null,
});
const judged = (attempts: Attempt[], lines: Line[]) =>
  dropsOf({ attempts, readAttempts: [] }, stopTimes(lines, signalAt, patience), patience.silentMs);

t.test("behind a busy event loop the service's patience is as late, and so is the judge's", async (t) => {
  const attempts = Array.from({ length: 33 }, (_, client) => lost(client, 300 + client * 5, false));
  const drops = judged(attempts, linesOf(229));
  t.match(drops, { fresh: 33, late: 0 });
  t.match(wrongIn(drops), /^33 requests on open connections were not answered in time/);
});

t.test("who asks when the patience is over is late", async (t) => {
  const after = Array.from({ length: 33 }, (_, client) => lost(client, 480 + client, false));
  t.equal(judged(after, linesOf(229)).late, 33);
  t.equal(wrongIn(judged(after, linesOf(229))), undefined);
  const sentLate = Array.from({ length: 33 }, (_, client) => lost(client, 300, false, 490));
  t.equal(judged(sentLate, linesOf(229)).late, 33, "also on a connection that was made in time");
  t.equal(judged(after, linesOf(400)).late, 0, "when it is over depends on when the listener was closed");
});

t.test("without a busy event loop it is the body grace", async (t) => {
  t.equal(judged([lost(0, 249, false), lost(1, 249, false)], linesOf(0, 90)).late, 0);
  t.equal(judged([lost(0, 251, false), lost(1, 251, false)], linesOf(0, 90)).late, 2);
});

t.test(
  "nothing is expected of a connection that was silent before the stop, once the listener is closed",
  async (t) => {
    const silent = (sentMs: number) => [
      answered(0, -101),
      lost(0, sentMs, true),
      answered(1, -101),
      lost(1, sentMs, true),
    ];
    t.equal(judged(silent(101), linesOf(0)).late, 2);
    t.equal(judged(silent(99), linesOf(0)).late, 0, "until then no connection is ended");
    const recent = [answered(0, -99), lost(0, 101, true), answered(1, -99), lost(1, 101, true)];
    t.match(wrongIn(judged(recent, linesOf(0))), /^2 requests/);
    t.equal(judged([lost(0, 120, true, null), lost(1, 120, true, null)], linesOf(0)).late, 0, "sent in part");
  },
);

t.test("a service that does not tell of this stop is excused nothing", async (t) => {
  t.equal(stopTimes([], signalAt, patience), undefined);
  t.equal(stopTimes(linesOf(0).slice(0, 2), signalAt, patience), undefined);
  t.equal(stopTimes(linesOf(0), signalAt + 60_000, patience), undefined, "the lines are of a stop before");
  t.match(wrongIn(judged([lost(0, 5000, false), lost(1, 5000, false)], [])), /^2 requests/);
});

t.test(
  "one request may meet the moment in which the kernel closes the listener; who was not connected is no drop",
  async (t) => {
    const unreached = { ...lost(1, 110, false), connectedAt: null, sentAt: null };
    const drops = judged([lost(0, 110, false), unreached, answered(2, 50)], linesOf(0));
    t.equal(drops.all.length, 1);
    t.equal(wrongIn(drops), undefined);
  },
);

// A stop that reset every connection of the readers passed: nobody wrote down what they were told.
t.test("a reader whose connection is reset is a drop like any other, and no batch of anybody", async (t) => {
  let asked = 0;
  const server = createServer(({ socket }) => {
    asked += 1;
    socket.resetAndDestroy();
  }).listen(0, "127.0.0.1");
  t.teardown(() => server.close());
  await once(server, "listening");
  const target = { host: "127.0.0.1", port: (server.address() as AddressInfo).port };
  const load = new Load(target, new Ledger(), { connections: 0, readers: 2 });
  while (asked < 6) await once(server, "request");
  await load.stop();
  t.strictSame(load.attempts, []);
  t.strictSame([...new Set(load.readAttempts.map(({ client }) => client))], [0, 1], "each on a connection of its own");
  const drops = dropsOf(load, undefined, patience.silentMs);
  t.match(drops, { fresh: asked, late: 0 });
  t.match(wrongIn(drops), new RegExp(`^${asked} requests on open connections were not answered in time`));
});
