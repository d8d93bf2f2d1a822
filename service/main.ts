// main.ts - the process: signals first, then settings, the store, the HTTP server. It decides nothing about requests or
// bytes, and how it ends is lifecycle.ts's.
//
// Only the addon's lifecycle is imported statically: it loads in a millisecond, and a signal that comes before the first
// statement below ends the process the default way or, in a container where this is process 1, is lost. Everything else is
// imported after it.

import { exitCodes, ListenError, lifecycle as signals } from "../native/lifecycle.js";
import type { Listener as ListenerType } from "./listener.js";

signals.install();
// Permanent, and never `once`: when the last listener goes, libuv puts the default action back, and the next signal kills
// in the middle of a batch. The watchdog tells of each signal anyway, also of those before this line.
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => signals.requestStop(signal));
// In front of libuv's handler, which has just displaced ours.
signals.install();
// Until there is somebody to drain for. Loading takes most of the start and doesn't let the event loop turn.
signals.exitAtOnce(exitCodes.clean);

// A log whose reader has gone, or whose disk is full, is no reason to end: what it would have said is lost, and no batch.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

let fail = (error: unknown): void => {
  say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  signals.exit(exitCodes.uncaught);
};
process.on("uncaughtException", (error) => fail(error));

/** Longer without an answer from JavaScript is worth a line in the log. */
const blockedMs = 250;

/** A collector that takes longer at the end does not get the last spans: an exit waits for nobody who may be dead. */
const flushMsMax = 200;
/** Left of the drain's time for what follows. */
const closingMs = 50;

function say(sentence: string): void {
  process.stderr.write(`holdfast: ${sentence}\n`);
}

/** A start that can't go on before somebody changes the settings or the machine. */
function refuse(sentence: string): never {
  say(sentence);
  return signals.exit(exitCodes.configuration);
}

await import("./keep-tick-shape.js");
const { ConfigError, isUnguarded, loadConfig, readyLink } = await import("./config.js");
const config = (() => {
  try {
    // biome-ignore lint/style/noProcessEnv: config.ts is what reads it; it can't be handed over in another way.
    return loadConfig(process.argv.slice(2), process.env);
  } catch (error) {
    if (error instanceof ConfigError) return refuse(error.message);
    throw error;
  }
})();
if (config.print !== undefined) {
  process.stdout.write(`${config.print}\n`);
  signals.exit(exitCodes.clean);
}

signals.configure({
  softMs: config.drainSoftMs,
  hardMs: config.drainHardMs,
  blockedMs: Math.min(blockedMs, config.drainSoftMs),
  logLevel: config.logLevel,
});
const [{ Lifecycle }, { Log }] = await Promise.all([import("./lifecycle.js"), import("./log.js")]);
const log = new Log(config.logLevel);
const times = {
  lameDuckMs: config.drainLameDuckMs,
  bodyGraceMs: config.drainBodyGraceMs,
  softMs: config.drainSoftMs,
  hardMs: config.drainHardMs,
};
const lifecycle = new Lifecycle(times, log);
signals.onStop(() => lifecycle.stop());
fail = (error) => lifecycle.fail(error);

// The store opens on threads of its own while JavaScript loads the rest.
const { openStore, StoreRefused } = await import("./open-store.js");
const opening = openStore(config, () => lifecycle.standby());
opening.catch((error: unknown) => {
  if (!(error instanceof StoreRefused)) return fail(error);
  say(error.message);
  signals.exit(error.mendable ? exitCodes.configuration : exitCodes.uncaught);
});

const tracing = config.tracing && (await (await import("./tracing.js")).startTracing(config.tracing, log));
const { buildApp } = await import("./app.js");
let store: Awaited<typeof opening> | undefined;
const app = await buildApp({ config, store: () => store, lifecycle, tracing });
lifecycle.watch(app.server);
lifecycle.stopSignal.addEventListener("abort", () => void tracing?.flush(flushMsMax));
lifecycle.beforeExit(async () => {
  const spans = tracing?.flush(Math.min(flushMsMax, config.drainSoftMs - signals.view().elapsedMs - closingMs));
  await app.close();
  await spans;
  // Last: with it goes the lease, and a standby takes over.
  await store?.close();
});
await app.ready();

const { RunRecord } = await import("./run-record.js");
const { Listener } = await import("./listener.js");
const listener = listen();
signals.exitAtOnce(config.shutdownMode === "immediate" ? exitCodes.cut : undefined);
if (!lifecycle.closing()) {
  const { host, port, address } = await listener.serve(app.server);
  if (isUnguarded(config, host))
    refuse(`${address} can be reached from other machines: set AUTH_TOKEN, or AUTH=none to ask nobody for a token`);
  lifecycle.serving(listener);
  log.info({ event: "listening", address, port, ms: sinceStart() }, `listening on ${address}`);
  // Not a log line: logs are kept, and this is the one time that the token is shown.
  if (config.authTokenGenerated) say(`this run's token is in the link: ${readyLink(config, port)}`);
}

const opened = await opening;
if (!lifecycle.closing()) {
  store = opened;
  // Not before: a run that is ended while it starts says nothing of how it ended.
  const record = new RunRecord(config.dataDir);
  // Its fault guard is in place from here on, and stays there whoever listens to SIGBUS.
  signals.watchBus();
  signals.recordPath(record.path);
  lifecycle.ready(record);
  const { row, redone, ms, faulted, unverified, detail } = store.status().recovery;
  log.info({ event: "ready", ms: sinceStart(), recovery: { row, redone, ms } }, "ready");
  if (faulted.length + unverified.length > 0) {
    // Of thousands of names, some: /v1/status has all.
    const some = (names: string[]) => names.slice(0, 20);
    const doubted = { faulted: some(faulted), unverified: some(unverified), ...(detail && { detail }) };
    log.warn({ event: "in_doubt", ...doubted }, "regions are faulted or unverified; batches of theirs may be missing");
  }
}

function listen(): ListenerType {
  try {
    return Listener.open(config);
  } catch (error) {
    if (error instanceof ListenError) return refuse(error.message);
    throw error;
  }
}

function sinceStart(): number {
  return Math.round(performance.now());
}
