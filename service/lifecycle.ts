// lifecycle.ts - from the first statement to the exit code: which requests are let in, and how the process ends.
//
//   starting -> [standby] -> ready -stop()-> lameduck -100 ms, or no connections-> draining -nothing open-> stopped -> exit 0
//                                               | soft deadline, or a second signal
//                                               '-> forced: HTTP is cut, the gate is waited for -> exit 75
//
//   standby() ready()   main, as the store opens        stop()     a signal, through native/signals.cc
//   #drain()            lameduck, draining              #close()   stopped: hooks, the store, exit
//   #force()            forced
//
// The native watchdog holds the same deadlines from a thread of its own: whatever hangs here, the process ends. Nothing here
// listens, opens or parses; it is handed the server, the listening descriptor and what to close.
import { setMaxListeners } from "node:events";
import type { Server } from "node:http";
import { exitCodes, lifecycle as nativeProcess } from "../native/lifecycle.js";
import { Connections } from "./connections.js";
import type { LifecycleState, LifecycleView, Refusal } from "./lifecycle-view.js";
import type { Listener } from "./listener.js";
import type { RunRecord } from "./run-record.js";

const tickMs = 5;
/**
 * Between the last SYN that is let in and the close of the listener, for handshakes under way. Part of the lame duck's time,
 * if that is long enough.
 */
const handshakeMs = 10;

export interface DrainTimes {
  lameDuckMs: number;
  bodyGraceMs: number;
  softMs: number;
  hardMs: number;
}

/** Writes each line before it returns: the last ones come right before the exit. */
export interface Logger {
  info(members: object, message: string): void;
  warn(members: object, message: string): void;
  error(members: object, message: string): void;
  fatal(members: object, message: string): void;
}

/** What the lifecycle needs of native/lifecycle.ts; tests pass their own. */
export type NativeProcess = Pick<
  typeof nativeProcess,
  "acknowledge" | "codeAtSoft" | "criticalDepth" | "dispositions" | "exit" | "repair" | "view"
>;

/** Why and how the process ends, for the log line, the record and the exit code. */
interface Ending {
  reason: "drained" | "soft_deadline" | "second_signal" | "hard_deadline" | "uncaught_error";
  code: number;
}

export class Lifecycle implements LifecycleView {
  readonly #native: NativeProcess;
  readonly #times: DrainTimes;
  readonly #log: Logger;
  #state: LifecycleState = "starting";
  #since = Date.now();
  #stopping = false;
  #admitted = 0;
  #connections: Connections | undefined;
  #listener: Pick<Listener, "dropNew" | "close"> | undefined;
  #record: RunRecord | undefined;
  #cleanup: () => Promise<void> = async () => {};
  readonly #stop = new AbortController();

  constructor(times: DrainTimes, log: Logger, native: NativeProcess = nativeProcess) {
    // Every long poll and stream of batches listens.
    setMaxListeners(0, this.#stop.signal);
    this.#times = times;
    this.#log = log;
    this.#native = native;
  }

  // ---- what main tells ----

  /** Before the server listens: from here on its connections are known. */
  watch(server: Server): void {
    this.#connections = new Connections(server);
  }

  /** Connections come in from here on, so a cut of them is a cut (75). */
  serving(listener: Pick<Listener, "dropNew" | "close">): void {
    this.#listener = listener;
    if (!this.#stopping) this.#native.codeAtSoft(exitCodes.cut);
  }

  standby(): void {
    this.#moveFrom(["starting"], "standby");
  }

  /** The store is open and this process is its writer. */
  ready(record: RunRecord): void {
    this.#record = record;
    this.#moveFrom(["starting", "standby"], "ready");
  }

  /** What ends between the last answer and the exit: hooks of the app, the store. Bounded by the soft deadline. */
  beforeExit(cleanup: () => Promise<void>): void {
    this.#cleanup = cleanup;
  }

  /** Aborted by the first signal. Answers without an end (event streams, long polls) say goodbye and end then. */
  get stopSignal(): AbortSignal {
    return this.#stop.signal;
  }

  // ---- LifecycleView: what requests ask ----

  state(): LifecycleState {
    return this.#state;
  }

  since(): number {
    return this.#since;
  }

  closing(): boolean {
    return this.#stopping;
  }

  admit(mutating: boolean): Refusal | undefined {
    switch (this.#state) {
      case "ready":
        break;
      case "starting":
      case "standby":
        return this.#state;
      default:
        // A drain that began before the store was open has nothing to read from either.
        if (mutating || this.#record === undefined) return "draining";
    }
    this.#admitted += 1;
    return undefined;
  }

  finished(): void {
    this.#admitted -= 1;
  }

  inFlight(): number {
    return this.#admitted;
  }

  gateDepth(): number {
    return this.#native.criticalDepth();
  }

  keepSignals(): void {
    this.#native.repair();
  }

  statusDetail(): object {
    const view = this.#native.view();
    return {
      connections: { open: this.#connections?.open ?? 0, active: this.#connections?.active ?? 0 },
      signals: { caught: view.signals, dispositions: this.#native.dispositions() },
      drain: this.#stopping ? { elapsedMs: view.elapsedMs, ...this.#connections?.outcomes } : null,
      previousRun: this.#record?.previous ?? null,
    };
  }

  metricsText(): string {
    const view = this.#native.view();
    const { term, interrupt, bus, repaired } = this.#native.dispositions();
    const outcomes = this.#connections?.outcomes ?? { answered: 0, refused: 0, cut: 0, aborted: 0 };
    const lines: string[] = [];
    const metric = (name: string, type: string, help: string, samples: Record<string, number>): void => {
      lines.push(`# HELP holdfast_${name} ${help}`, `# TYPE holdfast_${name} ${type}`);
      for (const [labels, value] of Object.entries(samples)) lines.push(`holdfast_${name}${labels} ${value}`);
    };
    metric("signals_total", "counter", "SIGTERM and SIGINT caught", { "": view.signals });
    metric("connections", "gauge", "Open connections", {
      '{state="idle"}': (this.#connections?.open ?? 0) - (this.#connections?.active ?? 0),
      '{state="active"}': this.#connections?.active ?? 0,
    });
    metric("drain_seconds", "gauge", "Time since the first signal, 0 before", { "": view.elapsedMs / 1000 });
    metric("drain_requests_total", "counter", "Requests that ended during the drain", {
      '{outcome="answered"}': outcomes.answered,
      '{outcome="refused"}': outcomes.refused,
      '{outcome="cut"}': outcomes.cut,
      '{outcome="aborted"}': outcomes.aborted,
    });
    metric("term_to_javascript_seconds", "gauge", "From the first signal to the event loop, 0 before", {
      "": Math.max(0, view.toldAtMs) / 1000,
    });
    metric("signal_disposition_ours", "gauge", "1 while the signal is handled here", {
      '{signal="SIGTERM"}': Number(term),
      '{signal="SIGINT"}': Number(interrupt),
      '{signal="SIGBUS"}': Number(bus),
    });
    metric("signal_disposition_repairs_total", "counter", "Displaced handlers that were put back", { "": repaired });
    return `${lines.join("\n")}\n`;
  }

  // ---- the end ----

  /** A signal came, the first or a further one; may be called more often than that. */
  stop(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#native.acknowledge();
    const view = this.#native.view();
    this.#log.info(
      {
        event: "term",
        signal: view.firstSignal,
        sender: view.sender,
        connections: this.#connections?.open ?? 0,
        inFlight: this.#connections?.requests ?? 0,
        state: this.#state,
      },
      "stopping",
    );
    this.#log.info({ event: "loop_lag", ms: round(view.toldAtMs) }, "signal to event loop");
    this.#stop.abort();
    void this.#drain();
  }

  /** The process can't go on: exit code 1, as soon as no batch is in its critical section. */
  fail(error: unknown): void {
    this.#log.fatal({ event: "uncaught", err: error }, error instanceof Error ? error.message : String(error));
    this.#end({ reason: "uncaught_error", code: exitCodes.uncaught });
  }

  async #drain(): Promise<void> {
    const connections = this.#connections;
    const listener = this.#listener;
    if (connections === undefined || listener === undefined) return this.#close();
    this.#enter("lameduck");
    connections.closeWhenAnswered();
    // From now on and not from the signal: behind a busy event loop nobody has been told yet to close.
    const lameDuckUntil = this.#elapsed() + this.#times.lameDuckMs - handshakeMs;
    while (connections.open > 0 && this.#elapsed() < lameDuckUntil) {
      if (this.#mustForce()) return this.#force(connections);
      await nextTick();
    }
    const closeAt = this.#elapsed() + handshakeMs;
    let rescued = this.#adopt(connections, listener.dropNew());
    while (this.#elapsed() < closeAt) {
      if (this.#mustForce()) return this.#force(connections);
      await nextTick();
    }

    this.#enter("draining");
    for (let closed = false; !closed; ) {
      try {
        rescued += this.#adopt(connections, listener.close());
        closed = true;
      } catch (error) {
        // At the limit of descriptors, of which it needs one: connections that wait for nothing give theirs.
        if (this.#mustForce()) {
          this.#log.error({ event: "listener_stuck", err: error }, "the listener could not be closed");
          return this.#force(connections);
        }
        connections.sweep(false);
        await nextTick();
      }
    }
    const closedAt = this.#elapsed();
    this.#log.info({ event: "listener_closed", rescued, ms: round(closedAt) }, "listener closed");
    // Behind a busy event loop the lame duck ended later, and so does the patience with those who were just rescued.
    const patientUntil = Math.max(this.#times.bodyGraceMs, closedAt + this.#times.bodyGraceMs - this.#times.lameDuckMs);
    while (connections.open > 0) {
      if (this.#mustForce()) return this.#force(connections);
      const patient = this.#elapsed() < patientUntil;
      connections.sweep(patient);
      if (!patient) connections.refuseLate();
      await nextTick();
    }
    return this.#close();
  }

  #adopt(connections: Connections, descriptors: readonly number[]): number {
    connections.adopt(descriptors);
    return descriptors.length;
  }

  async #close(): Promise<void> {
    this.#enter("stopped");
    // Everybody was answered. What is left is ours, and the next start does without it.
    this.#native.codeAtSoft(exitCodes.clean);
    let done = false;
    const cleanup = this.#cleanup().then(
      () => {
        done = true;
      },
      (error: unknown) => this.#log.error({ event: "close_failed", err: error }, "closing failed"),
    );
    await Promise.race([cleanup, this.#untilForced()]);
    if (!done) this.#log.warn({ event: "close_cut" }, "the store was not closed in time; the next start recovers it");
    this.#end({ reason: "drained", code: exitCodes.clean });
  }

  async #force(connections: Connections): Promise<void> {
    const { hurry } = this.#native.view();
    this.#enter("forced");
    if (hurry) this.#log.warn({ event: "second_signal", ms: round(this.#elapsed()) }, "second signal: cutting HTTP");
    // A request that has not arrived whole can still be told that nothing was written.
    connections.refuseLate();
    await new Promise(setImmediate);
    connections.cut();
    while (this.#native.criticalDepth() > 0 && this.#elapsed() < this.#times.hardMs) await sleep(1);
    if (this.#native.criticalDepth() > 0) this.#end({ reason: "hard_deadline", code: exitCodes.hard });
    this.#end({ reason: hurry ? "second_signal" : "soft_deadline", code: exitCodes.cut });
  }

  #end({ reason, code }: Ending): never {
    this.#native.codeAtSoft(code);
    const view = this.#native.view();
    const outcomes = this.#connections?.outcomes ?? { answered: 0, refused: 0, cut: 0, aborted: 0 };
    const drainMs = round(view.elapsedMs);
    this.#record?.end({ signal: view.firstSignal ?? null, code, reason, drainMs, outcomes });
    const log = code === exitCodes.clean ? this.#log.info : this.#log.warn;
    log.call(this.#log, { event: "drained", ...outcomes, code, reason, ms: drainMs }, "exit");
    return this.#native.exit(code);
  }

  #elapsed(): number {
    return this.#native.view().elapsedMs;
  }

  #mustForce(): boolean {
    const { hurry, elapsedMs } = this.#native.view();
    return hurry || elapsedMs >= this.#times.softMs;
  }

  async #untilForced(): Promise<void> {
    while (!this.#mustForce()) await nextTick();
  }

  #enter(state: LifecycleState): void {
    this.#state = state;
    this.#since = Date.now();
  }

  #moveFrom(from: readonly LifecycleState[], to: LifecycleState): void {
    // A signal may have come while the store was opening.
    if (!this.#stopping && from.includes(this.#state)) this.#enter(to);
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const nextTick = (): Promise<void> => sleep(tickMs);

const round = (ms: number): number => Math.round(ms * 1000) / 1000;
