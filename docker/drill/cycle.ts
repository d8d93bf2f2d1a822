// cycle.ts - one cycle of a drill: a running service, a load, something that happens to it, a restart on the same data, and
// the judgement. What happens is the scenario's; this file starts, waits, measures and compares.
import type { Backend, Ended, Instance, Launch, Line, Site } from "./backends.js";
import { now, waitUntilReady } from "./backends.js";
import { dropsOf, type Patience, stopTimes, wrongIn } from "./drops.js";
import {
  digestOf,
  type Invariant,
  type Judgement,
  judge,
  makeRegions,
  renewRegions,
  retryAmbiguous,
  scan,
  Unjudged,
  Violated,
  type Violation,
} from "./judge.js";
import { Ledger } from "./ledger.js";
import { type Attempt, Load, type LoadOptions } from "./load.js";
import type { Random } from "./random.js";

/** What the drilled service is and how long it may take. */
export interface Subject {
  /** Answers 200 once it is ready. */
  readyPath: string;
  /** Set for a service that is not this one: the path that its load asks for. Its bytes are not judged then. */
  plainPath: string | undefined;
  readyMsMax: number;
  /** From TERM to exit. */
  stopMsMax: number;
  /** Undefined where they are not known: each request on an open connection is to be answered then. */
  patience: Patience | undefined;
  /** Multiplies every budget, for a machine that is busy with other things. */
  slack: number;
}

export interface Expectation {
  codes: readonly number[];
  oom?: boolean;
  /** From the first signal to the exit; undefined: no budget. */
  stopMsMax?: number | undefined;
}

export interface CycleRecord {
  cycle: number;
  verdict: "pass" | "fail" | "unknown";
  violations: Violation[];
  /** Why the harness could not tell. */
  unknown: string | undefined;
  note: string | undefined;
  acknowledged: number;
  refused: number;
  ambiguous: number;
  unreached: number;
  /** Requests on a connection that the kernel had accepted, reset or ended without an answer. */
  dropped: number;
  /** Of those, on a connection that had not carried a request before. */
  droppedFresh: number;
  /** Of those, not promised an answer (drops.ts): not judged. */
  droppedLate: number;
  /** Of the first dropped ones: client, start, connected, sent, end, relative to the signal. */
  drops: (number | null)[][];
  /** How many times which error met a request without an answer. */
  errors: Record<string, number>;
  reads: number;
  retried: number;
  code: number | undefined;
  /** From the first signal (or the engine's call) to the end. */
  stopMs: number | undefined;
  /** From the call to its return. */
  callMs: number | undefined;
  /** From the start's call to the first 200 of readyz. */
  readyMs: number | undefined;
  /** From the writer's kill to the standby's first 200 of readyz. */
  takeoverMs: number | undefined;
  judgement: Omit<Judgement, "violations"> | undefined;
  phases: Record<string, number>;
  /** Requests around the signal, for the timeline: client, from, to (milliseconds relative to it), what became of it. */
  timeline: [number, number, number, string][];
  /** The last lines of the service. */
  server: string[];
}

/** A scenario's hands on a running service. */
export interface Act {
  readonly backend: Backend;
  readonly site: Site;
  readonly instance: Instance;
  readonly random: Random;
  readonly cycle: number;
  readonly load: Load | undefined;
  /** Writes down the time of the signal that the stop is measured from. */
  mark(): void;
  note(text: string): void;
  tookOver(ms: number): void;
  violate(invariant: Invariant, detail: string): void;
}

export interface CyclePlan {
  launch?: Launch;
  load?: LoadOptions | undefined;
  /** How long the load runs before the act, in milliseconds. */
  loadMs?: readonly [number, number];
  act(act: Act): Promise<void>;
  expect: Expectation;
  /** Requests without an answer are as it should be: a kill cuts connections. */
  mayDrop: boolean;
  /** Judges a second start on the same data as well. */
  twice?: boolean;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** A limit of waiting: what is waited for keeps the program alive, and the limit does not when that has come. */
const timeLimit = (ms: number): Promise<undefined> =>
  new Promise((resolve) => setTimeout(() => resolve(undefined), ms).unref());
/** Longer is a service that hangs: the cycle is over and it is killed. */
const hungMs = 30_000;
/** From the end of a service to its code being told, by an engine on a busy machine. */
const endToldMs = 1000;
/** Of a record: the first ones. */
const dropsKept = 40;

/** A site with the ledger of what was written to it; lives through all the cycles of a scenario. */
export class Drilled {
  readonly ledger = new Ledger();
  #instance: Instance | undefined;
  #load: Load | undefined;
  #launch = "";
  #hasRegions = false;
  /** Once it was, a start that fails is a failure to come back, and none of the machine or the settings. */
  #wasReady = false;

  constructor(
    readonly backend: Backend,
    readonly site: Site,
    readonly subject: Subject,
    /** Replaced by who wants to be able to repeat a single cycle. */
    public random: Random,
  ) {}

  /**
   * The running service, started if there is none or another launch is wanted. @throws Violated when it ends or hangs in
   * a start after an earlier one had succeeded; Unjudged when no start has, or something armed or the machine can be why
   */
  async running(launch: Launch): Promise<{ instance: Instance; readyMs: number | undefined }> {
    if (this.#instance !== undefined && this.#launch === JSON.stringify(launch)) {
      return { instance: this.#instance, readyMs: undefined };
    }
    if (this.#instance !== undefined) {
      await this.#instance.stop(10);
      this.#instance = undefined;
    }
    const started = now();
    const instance = await this.site.start(launch);
    const { readyPath, readyMsMax, slack } = this.subject;
    // Far beyond the budget: a slow start is told by its time, and judged by what it holds; only one that hangs ends here.
    const waitMs = Math.max(hungMs, readyMsMax) * slack;
    const readyAt = await waitUntilReady(this.site.target, instance, readyPath, waitMs);
    if (readyAt === undefined) throw await this.#notReady(instance, launch, waitMs);
    this.#wasReady = true;
    this.#instance = instance;
    this.#launch = JSON.stringify(launch);
    return { instance, readyMs: readyAt - started };
  }

  async #notReady(instance: Instance, launch: Launch, waitMs: number): Promise<Error> {
    // What ended by itself has ended by now; the code of what is killed here says nothing.
    const itself = await Promise.race([instance.ended, timeLimit(endToldMs)]);
    if (itself === undefined) {
      await instance.signal("SIGKILL");
      await instance.ended;
    }
    const said = instance.lines.slice(-5).map(({ text }) => text);
    const how = itself === undefined ? `after ${Math.round(waitMs)} ms` : `and ended with ${itself.code}`;
    const detail = `it did not become ready ${how}: ${said.join(" | ")}`;
    // Between two lives of a process its port is anybody's.
    const isTaken = said.some((text) => /EADDRINUSE|address already in use/i.test(text));
    return this.#wasReady && !isArmed(launch) && !isTaken ? new Violated("I10", detail) : new Unjudged(detail);
  }

  /** Nothing runs any more, by whatever hand. */
  forget(): void {
    this.#instance = undefined;
  }

  async #freshRegions(): Promise<void> {
    if (this.subject.plainPath !== undefined || (this.#hasRegions && !this.ledger.worn)) return;
    if (this.#hasRegions) await renewRegions(this.site.target, this.ledger);
    else await makeRegions(this.site.target, this.ledger.epoch);
    this.#hasRegions = true;
  }

  async cycle(cycle: number, plan: CyclePlan): Promise<CycleRecord> {
    const record = emptyRecord(cycle);
    try {
      await this.#run(record, plan);
    } catch (error) {
      if (error instanceof Violated) record.violations.push({ invariant: error.invariant, detail: error.message });
      else record.unknown = error instanceof Error ? error.message : String(error);
      // Its clients would write into the next cycle's regions.
      await this.#load?.stop();
    }
    this.#load = undefined;
    if (record.violations.length > 0) record.verdict = "fail";
    else if (record.unknown !== undefined) record.verdict = "unknown";
    if (record.verdict !== "pass") await this.#giveUp();
    return record;
  }

  /** After a cycle that went wrong the next one starts on new regions, so that one defect is told once. */
  async #giveUp(): Promise<void> {
    try {
      await this.#instance?.unpause();
      await this.#instance?.signal("SIGKILL");
      await this.#instance?.ended;
    } catch {
      // It was gone.
    }
    this.#instance = undefined;
    this.ledger.nextEpoch();
    this.#hasRegions = false;
  }

  async #run(record: CycleRecord, plan: CyclePlan): Promise<void> {
    const { subject, site, ledger, random } = this;
    // Regions are made by a service without fail points: making them would hit them.
    const armed = isArmed(plan.launch ?? {});
    if (armed || !this.#hasRegions || ledger.worn) {
      await this.running({ ...plan.launch, ...(armed ? { env: withoutFailPoints(plan.launch!) } : {}) });
      await this.#freshRegions();
    }
    const { instance } = await this.running(plan.launch ?? {});

    let load: Load | undefined;
    if (plan.load !== undefined) {
      load = new Load(site.target, ledger, { ...plan.load, plainPath: subject.plainPath });
      this.#load = load;
      const [low, high] = plan.loadMs ?? [120, 400];
      await Promise.race([sleep(random.between(low, high)), instance.ended]);
    }
    let markedAt: number | undefined;
    const say = sayIn(record);
    const calledAt = now();
    await plan.act({
      backend: this.backend,
      site,
      instance,
      random,
      cycle: record.cycle,
      load,
      mark: () => {
        markedAt ??= now();
      },
      note: (text) => {
        record.note = text;
      },
      tookOver: (ms) => {
        record.takeoverMs = ms;
      },
      violate: say,
    });
    record.callMs = now() - calledAt;
    const ended = await Promise.race([instance.ended, timeLimit(hungMs)]);
    this.#instance = undefined;
    if (ended === undefined) {
      say("I8", `it still ran ${hungMs} ms after ${plan.load === undefined ? "the signal" : "the signal under load"}`);
      await instance.unpause();
      await instance.signal("SIGKILL");
    }
    if (plan.load?.persistent !== true) await load?.stop();
    record.server = instance.lines.slice(-12).map(({ text }) => text);
    this.#judgeEnd(record, plan, ended, markedAt, instance.lines);

    if (subject.plainPath !== undefined) {
      await load?.stop();
      this.#count(record, plan, load, markedAt ?? calledAt, instance.lines);
      return;
    }
    // Started as an operator would: the same settings, but nothing armed.
    const next: Launch = { ...plan.launch, ...(armed ? { env: withoutFailPoints(plan.launch!) } : {}) };
    record.readyMs = (await this.running(next)).readyMs;
    if (record.readyMs! > subject.readyMsMax * subject.slack)
      say("I10", `ready after ${Math.round(record.readyMs!)} ms`);
    if (plan.load?.persistent === true && load !== undefined) {
      // Its clients get the answers that they still wait for.
      await load.stop();
      if (load.unanswered > 0) say("I5", `${load.unanswered} clients gave up on a service that was ready again`);
    }
    this.#count(record, plan, load, markedAt ?? calledAt, instance.lines);

    const running = this.#instance!;
    try {
      await this.#judgeBytes(record, plan, next);
    } catch (error) {
      if (!(error instanceof Unjudged)) throw error;
      const itself = await Promise.race([running.ended, timeLimit(endToldMs)]);
      if (itself === undefined) throw error;
      const said = running.lines.slice(-5).map(({ text }) => text);
      throw new Violated("I10", `it ended with ${itself.code} while it was judged: ${said.join(" | ")}`);
    }
  }

  /** What the service that runs holds, what it answers to retries, and what another start on the same data holds. */
  async #judgeBytes(record: CycleRecord, plan: CyclePlan, next: Launch): Promise<void> {
    const { site, ledger } = this;
    const found = await scan(site.target, ledger.epoch);
    const judgement = judge(ledger.epoch, found);
    record.violations.push(...judgement.violations);
    record.judgement = { ...judgement, violations: undefined } as Omit<Judgement, "violations">;
    const retries = await retryAmbiguous(site.target, ledger.epoch, found, plan.load?.durability ?? "ordered");
    record.retried = retries.retried;
    record.violations.push(...retries.violations);
    const after = await scan(site.target, ledger.epoch);
    for (const violation of judge(ledger.epoch, after).violations) {
      if (!record.violations.some((known) => known.detail === violation.detail)) {
        record.violations.push({ ...violation, detail: `after the retries: ${violation.detail}` });
      }
    }
    if (plan.twice === true) {
      const running = this.#instance!;
      await running.signal("SIGKILL");
      await running.ended;
      this.#instance = undefined;
      await this.running(next);
      const again = await scan(site.target, ledger.epoch);
      if (digestOf(again) !== digestOf(after)) sayIn(record)("I10", "a second recovery left other bytes");
    }
  }

  #judgeEnd(
    record: CycleRecord,
    plan: CyclePlan,
    ended: Ended | undefined,
    markedAt: number | undefined,
    lines: readonly Line[],
  ): void {
    const { subject } = this;
    if (ended === undefined) return;
    record.code = ended.code;
    if (!plan.expect.codes.includes(ended.code)) {
      record.violations.push({
        invariant: "I7",
        detail: `exit code ${ended.code}, not ${plan.expect.codes.join(" or ")}`,
      });
    }
    if ((plan.expect.oom ?? false) !== ended.oom) {
      record.violations.push({ invariant: "I7", detail: `OOMKilled is ${ended.oom}` });
    }
    if (markedAt !== undefined) {
      record.stopMs = ended.atMs - markedAt;
      const max = plan.expect.stopMsMax;
      if (max !== undefined && record.stopMs > max * subject.slack) {
        record.violations.push({
          invariant: "I8",
          detail: `${Math.round(record.stopMs)} ms from the signal to the end`,
        });
      }
      record.phases = phasesOf(lines, markedAt, ended.atMs);
    }
  }

  #count(record: CycleRecord, plan: CyclePlan, load: Load | undefined, zero: number, lines: readonly Line[]): void {
    if (load === undefined) return;
    for (const attempt of load.attempts) {
      const what = kindOf(attempt);
      if (what !== "other") record[what] += 1;
      if (attempt.endedAt > zero - 150 && attempt.startedAt < zero + 600 && record.timeline.length < 1500) {
        record.timeline.push([
          attempt.client,
          Math.round(attempt.startedAt - zero),
          Math.round(attempt.endedAt - zero),
          what,
        ]);
      }
    }
    for (const { code } of [...load.attempts, ...load.readAttempts]) {
      if (code !== null) record.errors[code] = (record.errors[code] ?? 0) + 1;
    }
    const { patience } = this.subject;
    const stop = patience === undefined ? undefined : stopTimes(lines, zero, patience);
    const drops = dropsOf(load, stop, patience?.silentMs ?? 0);
    record.dropped = drops.all.length;
    record.droppedFresh = drops.fresh;
    record.droppedLate = drops.late;
    record.drops = drops.all.slice(0, dropsKept).map(({ client, startedAt, connectedAt, sentAt, endedAt }) => {
      const relative = [startedAt, connectedAt, sentAt, endedAt];
      return [client, ...relative.map((at) => (at === null ? null : Math.round((at - zero) * 10) / 10))];
    });
    record.reads = load.reads;
    if (load.mixedReads > 0)
      record.violations.push({ invariant: "I6", detail: `${load.mixedReads} reads of a torn cell` });
    if (load.backwardReads > 0)
      record.violations.push({ invariant: "I6", detail: `${load.backwardReads} reads of an older generation` });
    if (load.unexpected.length > 0) {
      record.violations.push({
        invariant: "I1",
        detail: `${load.unexpected.length} answers that no client should get, such as ${load.unexpected[0]}`,
      });
    }
    const wrong = wrongIn(drops);
    if (!plan.mayDrop && wrong !== undefined) record.violations.push({ invariant: "I9", detail: wrong });
    // Where either may be, the code tells which it was.
    const { codes } = plan.expect;
    if (plan.mayDrop && wrong !== undefined && record.code === 0 && codes.includes(75))
      record.violations.push({ invariant: "I7", detail: `exit code 0, and ${wrong}` });
    if (load.attempts.length > 0 && record.acknowledged + record.ambiguous === 0)
      record.unknown ??= `nothing was put to the test: of ${load.attempts.length} requests none reached the service or was carried out`;
  }
}

const sayIn =
  (record: CycleRecord) =>
  (invariant: Invariant, detail: string): void => {
    record.violations.push({ invariant, detail });
  };

function kindOf(attempt: Attempt): "acknowledged" | "refused" | "ambiguous" | "unreached" | "other" {
  if (attempt.status !== null && attempt.status < 300) return "acknowledged";
  if (attempt.status === 503) return "refused";
  if (attempt.status !== null) return "other";
  return attempt.connectedAt === null ? "unreached" : "ambiguous";
}

const isArmed = ({ env }: Launch): boolean => env?.HOLDFAST_FAILPOINTS !== undefined;

function withoutFailPoints(launch: Launch): Record<string, string> {
  const { HOLDFAST_FAILPOINTS: _, ...rest } = launch.env ?? {};
  return rest;
}

/** Where the time from the signal to the end went, as far as the service's own lines tell. */
function phasesOf(lines: readonly Line[], markedAt: number, endedAt: number): Record<string, number> {
  const at = (event: string): number | undefined => {
    const line = lines.findLast((candidate) => candidate.json?.event === event);
    const time = line?.json?.time;
    return typeof time === "string" ? Date.parse(time) : undefined;
  };
  const phases: Record<string, number> = {};
  let from = markedAt;
  for (const [phase, event] of [
    ["signal", "gate_empty"],
    ["loop", "loop_lag"],
    ["listener", "listener_closed"],
    ["drain", "drained"],
  ] as const) {
    const time = at(event);
    if (time === undefined || time < markedAt - 5) continue;
    phases[phase] = Math.max(0, time - from);
    from = Math.max(from, time);
  }
  if (Object.keys(phases).length > 0) phases.exit = Math.max(0, endedAt - from);
  return phases;
}

function emptyRecord(cycle: number): CycleRecord {
  return {
    cycle,
    verdict: "pass",
    violations: [],
    unknown: undefined,
    note: undefined,
    acknowledged: 0,
    refused: 0,
    ambiguous: 0,
    unreached: 0,
    dropped: 0,
    droppedFresh: 0,
    droppedLate: 0,
    drops: [],
    errors: {},
    reads: 0,
    retried: 0,
    code: undefined,
    stopMs: undefined,
    callMs: undefined,
    readyMs: undefined,
    takeoverMs: undefined,
    judgement: undefined,
    phases: {},
    timeline: [],
    server: [],
  };
}
