// scenarios.ts - what is done to a service, one entry each: its number, what it must end with, and the hand that does it.
// Starting, loading, restarting and judging are cycle.ts's.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { ProblemError } from "../../service/client.js";
import { type Backend, type Instance, now, type Signal, waitUntilReady } from "./backends.js";
import type { Act, CyclePlan, Drilled, Subject } from "./cycle.js";
import { judge, scan, Unjudged } from "./judge.js";
import { regionNames } from "./ledger.js";
import { clientOf, sendEntry } from "./load.js";

export interface Scenario {
  id: number;
  name: string;
  about: string;
  /** So many different things it does in turn (default 1): fewer cycles would leave some out. */
  cases?: number;
  /** A sentence why it can't be done on this backend. */
  unfit?(backend: Backend, debug: boolean): string | undefined;
  /** Its data is on a file system of its own of this size, in memory. */
  diskBytes?: number;
  /** Works on any service: nothing of this one's settings, data or build is needed. */
  foreign?: boolean;
  plan(cycle: number, drilled: Drilled, subject: Subject): CyclePlan;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const clean = 0;
const cut = 75;
const killed = 137;

const load = (connections: number, durability: "ordered" | "durable" = "ordered") => ({
  connections,
  durability,
  readers: 1,
});
const needsContainer = (backend: Backend): string | undefined =>
  backend.isContainer ? undefined : "needs a container engine";
const needsDebug = (_: Backend, debug: boolean): string | undefined =>
  debug ? undefined : "needs fail points: --debug (and an image built with NATIVE=debug)";

async function terminate(act: Act): Promise<void> {
  act.mark();
  await act.instance.signal("SIGTERM");
}

/** A data: module in the service's process that does something on SIGUSR2. */
const onUsr2 = (statement: string): string => `process.on("SIGUSR2",()=>{${statement}})`;
const blockMs = 2500;

/** Points at which a commit, a flush and a checkpoint can be met; all are hit by a load of durable batches. */
export const failPoints = [
  "commit_written",
  "commit_published",
  "apply_image",
  "commit_left",
  "flush_before_sync",
  "flush_synced",
  "checkpoint_data_synced",
  "checkpoint_done",
] as const;

/** Met by a start that has something to apply again. */
const recoveryPoints = ["lease_taken", "recovery_journal_synced", "recovery_record_redone", "recovery_done"] as const;

const atFailPoint = (action: "term" | "kill", cycle: number, drilled: Drilled): CyclePlan => {
  const point = failPoints[cycle % failPoints.length]!;
  const isCheckpoint = point.startsWith("checkpoint");
  const hit = isCheckpoint ? drilled.random.between(1, 3) : drilled.random.between(1, 60);
  return {
    launch: {
      // A process 1 can't kill itself: its own SIGKILL is ignored.
      init: action === "kill",
      env: {
        HOLDFAST_FAILPOINTS: `${point}=${action}@${hit}`,
        // Checkpoints come often enough to be met.
        CHECKPOINT_INTERVAL_MS: "50",
      },
    },
    load: load(8, cycle % 2 === 0 ? "durable" : "ordered"),
    loadMs: [1500, 1500],
    act: async (act) => {
      act.note(`${point}@${hit}`);
      const met = await Promise.race([act.instance.ended.then(() => true), sleep(500).then(() => false)]);
      if (!met) throw new Unjudged(`${point}@${hit} was not met`);
    },
    expect: { codes: action === "kill" ? [killed] : [clean] },
    mayDrop: action === "kill",
    twice: action === "kill" && cycle % 5 === 0,
  };
};

/**
 * Has the process loaded the addon, whose handler is installed by the next statement? Undefined when this machine can't see
 * it. The mask of caught signals doesn't tell: Node catches TERM for itself while it starts, and dies of it, or, as process
 * 1, loses it.
 */
function hasHandler(pid: number): boolean | undefined {
  try {
    return /holdfast(_debug)?\.node/.test(readFileSync(`/proc/${pid}/maps`, "utf8"));
  } catch {
    return undefined;
  }
}

/** Connections that hold a drain up, each in another way. */
function slowClients(act: Act): Socket[] {
  const region = "/v1/regions?limit=1";
  const head = `Host: drill\r\n`;
  const starts = [
    "",
    "GET /v1/regi",
    `GET ${region} HTTP/1.1\r\n${head}`,
    `POST /v1/batches HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"ops":[`,
    `GET ${region} HTTP/1.1\r\n${head}\r\n`.repeat(64),
    `POST /v1/batches HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: 4000\r\nExpect: 100-continue\r\n\r\n`,
    `GET / HTTP/1.1\r\n${head}Connection: keep-alive\r\n\r\n`,
  ];
  return starts.map((start, at) => {
    const socket = connect(act.site.target.port, act.site.target.host, () => socket.write(start));
    socket.on("error", () => {});
    // The reader that doesn't: its kernel's buffers fill up.
    if (at === 4) socket.pause();
    else socket.resume();
    return socket;
  });
}

/** Follows the changes of a region as an event stream. `told` gives what has come so far. */
function follow(act: Act, region: string): { socket: Socket; told(): string } {
  const head = `GET /v1/regions/${region}/changes HTTP/1.1\r\nHost: drill\r\nAccept: text/event-stream\r\n\r\n`;
  const socket = connect(act.site.target.port, act.site.target.host, () => socket.write(head));
  let text = "";
  socket.setEncoding("latin1");
  socket.on("data", (part: string) => {
    text += part;
  });
  socket.on("error", () => {});
  return { socket, told: () => text };
}

/** `heard`: wait until JavaScript has been told of the first signal, and the drain is under way. */
const signalsOf8: readonly (readonly (Signal | "heard")[])[] = [
  ["SIGTERM", "SIGTERM"],
  ["SIGTERM", "heard", "SIGTERM"],
  ["SIGTERM", "SIGINT"],
  Array<Signal>(100).fill("SIGTERM"),
];

/** By its own line, or until it has ended. */
async function waitUntilHeard({ lines, ended }: Instance): Promise<void> {
  let over = false;
  void ended.then(() => {
    over = true;
  });
  while (!over && !lines.some(({ json }) => json?.event === "term")) await sleep(1);
}

const stopUnderLoad = (connections: number): Pick<Scenario, "plan"> => ({
  plan: (_cycle, _drilled, subject) => ({
    load: load(connections),
    act: async (act) => {
      act.mark();
      await act.instance.stop(10);
    },
    expect: { codes: [clean], stopMsMax: subject.stopMsMax },
    mayDrop: false,
  }),
});

export const scenarios: readonly Scenario[] = [
  {
    id: 1,
    name: "stop-idle",
    about: "a stop while nobody asks for anything",
    foreign: true,
    plan: (_cycle, _drilled, subject) => ({
      act: async (act) => {
        act.mark();
        await act.instance.stop(10);
      },
      expect: { codes: [clean], stopMsMax: subject.stopMsMax },
      mayDrop: false,
    }),
  },
  { id: 2, name: "stop-under-load-1", about: "a stop with 1 keep-alive client", foreign: true, ...stopUnderLoad(1) },
  { id: 2, name: "stop-under-load-8", about: "a stop with 8 keep-alive clients", foreign: true, ...stopUnderLoad(8) },
  {
    id: 2,
    name: "stop-under-load-40",
    about: "a stop with 40 keep-alive clients",
    foreign: true,
    ...stopUnderLoad(40),
  },
  {
    id: 3,
    name: "term-at-fail-point",
    about: "TERM at each step of a commit, a flush and a checkpoint, in turn",
    cases: failPoints.length,
    unfit: needsDebug,
    plan: (cycle, drilled) => atFailPoint("term", cycle, drilled),
  },
  {
    id: 4,
    name: "kill-at-fail-point",
    about: "KILL at each step of a commit, a flush and a checkpoint, in turn",
    cases: failPoints.length,
    unfit: (backend, debug) =>
      backend.name === "pidns" ? "process 1 can't kill itself, and there is no init here" : needsDebug(backend, debug),
    plan: (cycle, drilled) => atFailPoint("kill", cycle, drilled),
  },
  {
    id: 4,
    name: "kill-in-recovery",
    about:
      "KILL between a batch's publication and its apply, and KILL again at each step of the recovery from it, in turn",
    cases: recoveryPoints.length,
    unfit: (backend, debug) =>
      backend.name === "pidns" ? "process 1 can't kill itself, and there is no init here" : needsDebug(backend, debug),
    plan: (cycle, drilled) => ({
      // So that there is something to apply again.
      launch: { init: true, env: { HOLDFAST_FAILPOINTS: `commit_published=kill@${drilled.random.between(10, 60)}` } },
      load: load(8, "durable"),
      loadMs: [1500, 1500],
      act: async (act) => {
        if ((await Promise.race([act.instance.ended, sleep(500)])) === undefined)
          throw new Unjudged("commit_published was not met");
        await act.load?.stop();
        const point = recoveryPoints[cycle % recoveryPoints.length]!;
        act.note(point);
        const again = await act.site.start({ init: true, env: { HOLDFAST_FAILPOINTS: `${point}=kill` } });
        const ended = await Promise.race([again.ended, sleep(5000)]);
        if (ended === undefined) {
          await again.signal("SIGKILL");
          await again.ended;
          throw new Unjudged(`${point} was not met`);
        }
        if (ended.code !== killed) act.violate("I7", `the start that is killed at ${point} ended with ${ended.code}`);
      },
      expect: { codes: [killed] },
      mayDrop: true,
      twice: true,
    }),
  },
  {
    id: 5,
    name: "kill-random",
    about: "KILL at random times, durable and ordered batches in turn, every tenth recovery judged twice",
    plan: (cycle) => ({
      load: load([1, 8, 40][cycle % 3]!, cycle % 2 === 0 ? "ordered" : "durable"),
      loadMs: [40, 250],
      act: async (act) => {
        act.mark();
        await act.instance.signal("SIGKILL");
      },
      expect: { codes: [killed] },
      mayDrop: true,
      twice: cycle % 10 === 0,
    }),
  },
  {
    id: 6,
    name: "loop-blocked",
    about: "TERM while the event loop is blocked, by JavaScript and by native code in turn",
    cases: 2,
    plan: (cycle, _drilled, subject) => ({
      launch: {
        preload: onUsr2(
          cycle % 2 === 0
            ? `const t=Date.now()+${blockMs};while(Date.now()<t);`
            : `Atomics.wait(new Int32Array(new SharedArrayBuffer(4)),0,0,${blockMs})`,
        ),
      },
      load: load(8),
      act: async (act) => {
        await act.instance.signal("SIGUSR2");
        await sleep(50);
        await terminate(act);
      },
      // The soft deadline is after 600 ms.
      expect: { codes: [cut], stopMsMax: subject.stopMsMax },
      mayDrop: true,
    }),
  },
  {
    id: 7,
    name: "long-batch",
    about: "a batch longer than the soft and than the hard deadline, in turn",
    cases: 2,
    unfit: needsDebug,
    plan: (cycle) => {
      const isHard = cycle % 2 === 1;
      return {
        launch: {
          env: {
            HOLDFAST_FAILPOINTS: `apply_image=sleep:${isHard ? 4000 : 1500}@40`,
            ...(isHard ? { DRAIN_HARD_MS: "1200" } : {}),
          },
        },
        load: load(1),
        loadMs: [600, 600],
        act: terminate,
        expect: { codes: [isHard ? 70 : cut], stopMsMax: isHard ? 1400 : 1800 },
        mayDrop: true,
      };
    },
  },
  {
    id: 8,
    name: "more-signals",
    about: "TERM and TERM, at once and when the first one was heard, TERM and INT, 100 TERMs, in turn",
    cases: signalsOf8.length,
    plan: (cycle, _drilled, subject) => ({
      load: load(8),
      act: async (act) => {
        act.mark();
        for (const step of signalsOf8[cycle % signalsOf8.length]!) {
          if (step === "heard") await waitUntilHeard(act.instance);
          else await act.instance.signal(step);
        }
      },
      // The second signal ends the drain of HTTP, unless it was over by then.
      expect: { codes: [clean, cut], stopMsMax: subject.stopMsMax },
      mayDrop: true,
    }),
  },
  {
    id: 9,
    name: "term-while-starting",
    about: "TERM 0, 10, 20 ... 590 ms after the start, scattered: never lost once the handler is there",
    cases: 8,
    plan: (cycle, _drilled, subject) => ({
      act: async (act) => {
        // The service of this cycle ends first; the one that is drilled is started here, on the same data.
        await act.instance.stop(10);
        // 23 and 60 have no common divisor: a few cycles are spread over the start, and 60 are all of it.
        const afterMs = ((cycle * 23) % 60) * 10;
        const fresh = await act.site.start({});
        await sleep(Math.max(0, fresh.startedAtMs + afterMs - now()));
        const ours = hasHandler(await fresh.hostPid());
        // From the library's load to the end of its install().
        if (ours === true) await sleep(2);
        const sentAt = now();
        await fresh.signal("SIGTERM");
        let ended = await Promise.race([fresh.ended, sleep(subject.stopMsMax * subject.slack)]);
        if (ended === undefined) {
          if (ours === false && act.backend.isFirstProcess) {
            act.note(`at ${afterMs} ms: lost, before the first statement`);
          } else act.violate("I8", `TERM ${afterMs} ms after the start: still running, handler there: ${ours}`);
          await waitUntilReady(act.site.target, fresh, subject.readyPath, 5000);
          await fresh.stop(10);
          ended = await fresh.ended;
        } else act.note(`at ${afterMs} ms: over after ${Math.round(ended.atMs - sentAt)} ms with ${ended.code}`);
        // Before the first statement of a process that is not number 1, TERM kills; nothing is open then.
        if (ended.code !== clean && !(ended.code === 143 && ours !== true))
          act.violate("I7", `TERM ${afterMs} ms after the start: exit code ${ended.code}`);
      },
      expect: { codes: [clean] },
      mayDrop: false,
    }),
  },
  {
    id: 10,
    name: "pause",
    about: "3 s of freeze and then a stop; a freeze in the middle of the drain, in turn",
    cases: 2,
    plan: (cycle, _drilled, subject) => ({
      load: load(8),
      act: async (act) => {
        if (cycle % 2 === 0) {
          await act.instance.pause();
          await sleep(3000);
          await act.instance.unpause();
          return terminate(act);
        }
        await terminate(act);
        await act.instance.pause();
        await sleep(1500);
        await act.instance.unpause();
      },
      expect: { codes: [clean], stopMsMax: subject.stopMsMax + (cycle % 2 === 0 ? 0 : 1500) },
      // A client gives up on a frozen service.
      mayDrop: true,
    }),
  },
  {
    id: 11,
    name: "slow-clients",
    about:
      "a stop with clients that send nothing, half a head, half a body, that don't read, pipeline, expect 100, follow events",
    plan: (_cycle, drilled, subject) => ({
      load: load(4),
      act: async (act) => {
        const stream = follow(act, regionNames(drilled.ledger.epoch).cells);
        const sockets = [...slowClients(act), stream.socket];
        await sleep(60);
        await terminate(act);
        await act.instance.ended;
        for (const socket of sockets) socket.destroy();
        if (!/^event: bye$/m.test(stream.told()))
          act.violate("I9", `an event stream ended without a goodbye: ${stream.told().slice(-200)}`);
      },
      expect: { codes: [clean, cut], stopMsMax: subject.stopMsMax },
      mayDrop: false,
    }),
  },
  {
    id: 12,
    name: "out-of-memory",
    about: "the kernel's OOM killer in the middle of a load",
    unfit: needsContainer,
    plan: () => ({
      launch: {
        memoryBytes: 256 << 20,
        preload: onUsr2("globalThis.h=[];for(;;)h.push(Buffer.alloc(1<<20,1))"),
      },
      load: load(8),
      act: (act) => act.instance.signal("SIGUSR2"),
      expect: { codes: [killed], oom: true },
      mayDrop: true,
    }),
  },
  {
    id: 12,
    name: "disk-full",
    about: "a full disk under load: what needs no room goes on, a new region is refused with 507, stop and start work",
    unfit: () => (process.getuid?.() === 0 ? undefined : "needs root, to mount a small file system"),
    diskBytes: 96 << 20,
    plan: (_cycle, _drilled, subject) => ({
      load: load(8),
      act: async (act) => {
        const service = clientOf(act.site.target);
        for (let size = 8 << 20; size >= 4096; ) {
          const name = `filler-${randomBytes(4).toString("hex")}`;
          try {
            await service.call("createRegion", { body: { name, size, durability: "ordered" } });
          } catch (error) {
            if (!(error instanceof ProblemError && error.problem?.code === "insufficient-storage")) {
              act.violate("I4", `a region for which there is no room: ${error}`);
              break;
            }
            size /= 2;
          }
        }
        service.close();
        const before = act.load?.acknowledged ?? 0;
        await sleep(200);
        act.note(`${(act.load?.acknowledged ?? 0) - before} batches acknowledged on the full disk`);
        if (act.load?.acknowledged === before) act.violate("I1", "no batch is acknowledged on a full disk");
        act.mark();
        await act.instance.stop(10);
      },
      expect: { codes: [clean], stopMsMax: subject.stopMsMax },
      mayDrop: false,
    }),
  },
  {
    id: 12,
    name: "sync-fails",
    about: "a disk that takes writes and fails to sync them: no durable batch is acknowledged, until the next start",
    unfit: needsDebug,
    plan: (_cycle, drilled, subject) => ({
      launch: { env: { HOLDFAST_FAILPOINTS: "flush_sync=eio" } },
      // Each batch is sent below, one after the other.
      load: { connections: 0, readers: 0, durability: "durable" },
      act: async (act) => {
        const { epoch } = drilled.ledger;
        const service = clientOf(act.site.target);
        for (let client = 0; client < 8; ++client) {
          const entry = drilled.ledger.next(client);
          if (entry === undefined) throw new Unjudged("no slot is left");
          const { answer, error } = await sendEntry(service, epoch, entry, "durable");
          if (answer !== undefined) act.violate("I1", "a durable batch was acknowledged, and nothing had been synced");
          // The first one has found out, and faults the regions.
          else if (
            !(error instanceof ProblemError && /^(flush-failed|region-faulted)$/.test(error.problem?.code ?? ""))
          )
            act.violate("I4", `a durable batch on a disk that can't sync: ${error}`);
        }
        service.close();
        act.mark();
        await act.instance.stop(10);
      },
      expect: { codes: [clean], stopMsMax: subject.stopMsMax },
      mayDrop: false,
    }),
  },
  {
    id: 13,
    name: "stop-variants",
    about: "stop -t 0, -t 1, with an init as process 1, with STOPSIGNAL INT, in turn",
    cases: 4,
    unfit: needsContainer,
    plan: (cycle, _drilled, subject) => {
      const graceS = [0, 1, 10, 10][cycle % 4]!;
      return {
        launch: cycle % 4 === 2 ? { init: true } : cycle % 4 === 3 ? { stopSignal: "SIGINT" } : {},
        load: load(8),
        act: async (act) => {
          act.mark();
          await act.instance.stop(graceS);
        },
        // Without a grace the engine kills right after the signal.
        expect: { codes: graceS === 0 ? [clean, killed] : [clean], stopMsMax: subject.stopMsMax },
        mayDrop: graceS === 0,
      };
    },
  },
  {
    id: 14,
    name: "restart-policy",
    about: "the process is killed by its host, not by the engine: the policies on-failure and always start it again",
    cases: 2,
    unfit: (backend) =>
      needsContainer(backend) ?? (process.getuid?.() === 0 ? undefined : "needs root, to kill a container's process"),
    plan: (cycle) => ({
      launch: { restart: cycle % 2 === 0 ? "on-failure" : "always" },
      load: { ...load(8), persistent: true },
      act: async (act) => {
        const pid = await act.instance.hostPid();
        if (pid === 0) throw new Unjudged("the engine's processes are not on this machine");
        act.mark();
        process.kill(pid, "SIGKILL");
        await act.instance.ended;
        if (!(await act.instance.restarted(10_000))) act.violate("I10", "the engine did not start it again");
      },
      expect: { codes: [killed] },
      mayDrop: true,
    }),
  },
  {
    id: 15,
    name: "stolen-signal",
    about: "a library in the process removes every TERM listener and puts its own there",
    plan: (_cycle, _drilled, subject) => ({
      launch: {
        preload: onUsr2('process.removeAllListeners("SIGTERM");process.once("SIGTERM",()=>{})'),
      },
      load: load(8),
      act: async (act) => {
        await act.instance.signal("SIGUSR2");
        // The service looks each second whether the signal is still its own.
        await sleep(1300);
        await terminate(act);
      },
      expect: { codes: [clean, cut], stopMsMax: subject.stopMsMax },
      mayDrop: true,
    }),
  },
  {
    id: 16,
    name: "stop-start-retries",
    about: "stop and start under clients that repeat what was not answered with its key: exactly once, end to end",
    plan: (_cycle, _drilled, subject) => ({
      load: { ...load(8), persistent: true },
      act: async (act) => {
        act.mark();
        await act.instance.stop(10);
      },
      expect: { codes: [clean], stopMsMax: subject.stopMsMax },
      mayDrop: false,
    }),
  },
  {
    id: 16,
    name: "kill-start-retries",
    about: "kill and start under clients that repeat what was not answered with its key: exactly once, end to end",
    plan: () => ({
      load: { ...load(8, "durable"), persistent: true },
      act: async (act) => {
        act.mark();
        await act.instance.signal("SIGKILL");
      },
      expect: { codes: [killed] },
      mayDrop: true,
    }),
  },
  {
    id: 17,
    name: "standby-takes-over",
    about: "two on one volume: the writer is killed, and the other serves within 500 ms with every acknowledged batch",
    plan: (_cycle, drilled, subject) => ({
      load: load(8),
      act: async (act) => {
        const other = await drilled.backend.twin(act.site);
        try {
          const standby = await other.start({});
          if ((await waitUntilReady(other.target, standby, "/livez", 10_000)) === undefined) {
            return act.violate("I10", "the standby did not start");
          }
          await sleep(50);
          act.mark();
          const killedAt = now();
          await act.instance.signal("SIGKILL");
          const readyAt = await waitUntilReady(other.target, standby, subject.readyPath, 10_000);
          if (readyAt === undefined) return act.violate("I10", "the standby did not take over");
          const ms = Math.round(readyAt - killedAt);
          act.tookOver(ms);
          if (ms > 500 * subject.slack) act.violate("I10", `the standby served after ${ms} ms`);
          await act.load?.stop();
          const { epoch } = drilled.ledger;
          for (const { invariant, detail } of judge(epoch, await scan(other.target, epoch)).violations)
            act.violate(invariant, `on the standby: ${detail}`);
          const entry = drilled.ledger.next(0);
          if (entry === undefined) throw new Unjudged("no slot is left");
          const service = clientOf(other.target);
          const { answer, error } = await sendEntry(service, epoch, entry, "durable");
          service.close();
          if (answer === undefined) act.violate("I10", `the standby takes no batch: ${error?.message}`);
          await standby.stop(10);
          const { code } = await standby.ended;
          if (code !== clean) act.violate("I7", `the standby ended with ${code}`);
        } finally {
          await other.remove();
        }
      },
      expect: { codes: [killed] },
      mayDrop: true,
    }),
  },
  {
    id: 18,
    name: "hardened",
    about: "no rights, a read-only root, a user of its own: it serves; a folder that it may not write ends it with 78",
    unfit: needsContainer,
    plan: (_cycle, drilled, subject) => ({
      load: load(8),
      act: async (act) => {
        const status = readFileSync(`/proc/${await act.instance.hostPid()}/status`, "utf8");
        for (const [what, pattern] of [
          ["user 10001", /^Uid:\s+10001\s+10001/m],
          ["no capability", /^CapEff:\s+0+$/m],
          ["no new privileges", /^NoNewPrivs:\s+1$/m],
        ] as const) {
          if (!pattern.test(status)) act.violate("I7", `the process runs without: ${what}`);
        }
        act.mark();
        await act.instance.stop(10);
        const other = await drilled.backend.twin(act.site);
        try {
          const refused = await other.start({ env: { DATA_DIR: "/etc/holdfast" } });
          const { code } = await refused.ended;
          await sleep(100);
          const told = refused.lines.filter(({ text }) => text.startsWith("holdfast: "));
          if (code !== 78) act.violate("I7", `a folder that it may not write: exit code ${code}`);
          if (told.length !== 1) act.violate("I7", `a folder that it may not write: ${told.length} sentences`);
          act.note(told[0]?.text ?? "");
        } finally {
          await other.remove();
        }
      },
      expect: { codes: [clean], stopMsMax: subject.stopMsMax },
      mayDrop: false,
    }),
  },
];

/** Of a stop by a signal; what a scenario without one can't have. */
export const defaultSubject: Subject = {
  readyPath: "/readyz",
  plainPath: undefined,
  readyMsMax: 5000,
  stopMsMax: 1000,
  // The defaults of DRAIN_LAME_DUCK_MS and DRAIN_BODY_GRACE_MS.
  patience: { lameDuckMs: 100, bodyGraceMs: 250, silentMs: 100 },
  slack: 1,
};
