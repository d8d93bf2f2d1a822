// kill.test.ts - the service is killed again and again under the load of eight clients, and judged after each restart.
//
//   npm run proofs -- kills               thousands of kills, their figures into test/proofs.json
//   node dist/test/crash/kill.test.js [--kills=N] [--seed=N] [--help]
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import t from "tap";
import { Random } from "../../docker/drill/random.js";
import { seedOf } from "../seed.js";
import { ServiceProcess } from "../service-process.js";
import { checkStore } from "./rig.js";
import { mixCount, Witnesses } from "./witnesses.js";

const { values } = parseArgs({
  options: { kills: { type: "string" }, seed: { type: "string" }, help: { type: "boolean" } },
  strict: false,
});
const kills = Number(values.kills ?? 120);
// A small journal: its ring wraps and is checkpointed under the kills.
const flags = [
  "--journal-bytes=512KiB",
  "--batch-bytes-max=64KiB",
  "--flush-interval-ms=10",
  "--checkpoint-interval-ms=60",
  "--log-level=info",
];

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** How a life ends. `sigkill`: the process gets no chance to do anything. */
const ways = {
  SIGKILL: {
    sigkill: true,
    end: async (service: ServiceProcess) => {
      service.kill("SIGKILL");
    },
  },
  "SIGSTOP, then SIGKILL": {
    sigkill: true,
    end: async (service: ServiceProcess) => {
      service.kill("SIGSTOP");
      await sleep(5);
      service.kill("SIGKILL");
    },
  },
  SIGABRT: {
    sigkill: false,
    end: async (service: ServiceProcess) => {
      service.kill("SIGABRT");
    },
  },
  "SIGTERM twice": {
    sigkill: false,
    end: async (service: ServiceProcess) => {
      service.kill("SIGTERM");
      await sleep(20);
      service.kill("SIGTERM");
    },
  },
  "SIGTERM, then SIGKILL": {
    sigkill: true,
    end: async (service: ServiceProcess) => {
      service.kill("SIGTERM");
      await sleep(8);
      service.kill("SIGKILL");
    },
  },
} as const;
type Way = keyof typeof ways;

function wayOf(number: number): Way {
  if (number <= 100) {
    if (number > 96) return "SIGSTOP, then SIGKILL";
    if (number > 92) return "SIGABRT";
    if (number > 88) return "SIGTERM twice";
    if (number > 84) return "SIGTERM, then SIGKILL";
  }
  return "SIGKILL";
}

/**
 * Where a SIGKILL fell, from what lies on the disk after it and what the next start finds. A start is killed before it was
 * ready: in its recovery, or before or after that.
 */
const places = [
  "between publish and apply",
  "between apply and answer",
  "before publish",
  "idle",
  "in recovery",
  "in a start",
] as const;
type Place = (typeof places)[number];
/** Besides one of the places of a life: batches go on while a checkpoint is made. */
const checkpointing = "in a checkpoint";

/** What the words of a store say that nobody, or somebody else, has open: StoreWords in native/format.h. */
function wordsOf(dir: string) {
  const words = readFileSync(join(dir, "store.lock"));
  const doing = words.readBigUInt64LE(56);
  return {
    recovering: (doing & 1n) !== 0n,
    checkpointing: (doing & 2n) !== 0n,
    unapplied: words.readBigUInt64LE(64) > words.readBigUInt64LE(128),
  };
}

interface Sums {
  sigkills: number;
  lives: number;
  startMs: number;
  absent: number;
  landed: number;
  redone: number;
  redoing: number;
}
const sums: Sums = {
  sigkills: 0,
  lives: 0,
  startMs: 0,
  absent: 0,
  landed: 0,
  redone: 0,
  redoing: 0,
};
const ended: Record<string, number> = {};
const fell: Record<string, number> = {};
const rows: Record<string, number> = {};
const count = (of: Record<string, number>, name: string) => {
  of[name] = (of[name] ?? 0) + 1;
};
const list = (of: Record<string, number>) =>
  Object.entries(of)
    .map(([name, times]) => `${name} ${times}`)
    .join(", ");

/** One store with its service and its clients. */
class Arena {
  readonly witnesses = new Witnesses();
  readonly #random: Random;
  #service: ServiceProcess | undefined;

  constructor(readonly seed: number) {
    this.#random = new Random(seed);
  }

  async #start(): Promise<ServiceProcess> {
    const at = performance.now();
    const service = await ServiceProcess.ready({ flags, ...(this.#service && { dir: this.#service.dir }) });
    sums.startMs += performance.now() - at;
    sums.lives += 1;
    this.#service = service;
    return service;
  }

  /** @throws with what is wrong after a kill */
  async kill(until: () => boolean): Promise<void> {
    let service = await this.#start();
    await this.witnesses.makeRegions(service.port);
    while (!until()) {
      const way = wayOf(this.#random.between(1, 100));
      try {
        const killed = await this.#live(service, way);
        await checkStore(service.dir, "killed");
        const words = wordsOf(service.dir);
        if (this.#random.between(1, 100) <= 15) await this.#killStart(service.dir);
        service = await this.#start();
        const verdict = await this.witnesses.judge(service.port, service.dir);
        const place: Place = words.unapplied
          ? "between publish and apply"
          : verdict.landed > 0
            ? "between apply and answer"
            : verdict.absent > 0
              ? "before publish"
              : "idle";
        if (killed) count(fell, place);
        if (killed && words.checkpointing) count(fell, checkpointing);
        sums.absent += verdict.absent;
        sums.landed += verdict.landed;
        sums.redone += verdict.redone;
        if (verdict.redone > 0) sums.redoing += 1;
        count(rows, verdict.row);
      } catch (error) {
        throw new Error(`after ${way}, seed ${this.seed}: ${(error as Error).message}\n${service.stderr}`);
      }
    }
  }

  /** Kills the next process before it is ready; it may have recovered nothing, a part, or all. */
  async #killStart(dir: string): Promise<void> {
    const service = new ServiceProcess({ flags, dir });
    // A recovery of so little is over in a few milliseconds: most kills are aimed at it.
    if (this.#random.between(1, 3) > 1) {
      await this.#until(service, () => wordsOf(dir).recovering);
    } else {
      await sleep(this.#random.between(0, Math.ceil((2 * sums.startMs) / sums.lives)) / 2);
    }
    const ready = service.find("ready") !== undefined;
    service.kill("SIGKILL");
    const { signal } = await service.ended;
    await checkStore(dir, "killed");
    if (signal !== "SIGKILL" || ready) return;
    sums.sigkills += 1;
    count(fell, wordsOf(dir).recovering ? "in recovery" : "in a start");
  }

  /** Looks each millisecond until that is so; not beyond the service's end, nor for ever. */
  async #until(service: ServiceProcess, look: () => boolean): Promise<void> {
    const at = performance.now();
    while (!look() && service.child.exitCode === null && performance.now() - at < 5000) await sleep(1);
  }

  /** Under load until it ends in this way; whether that was a SIGKILL. */
  async #live(service: ServiceProcess, way: Way): Promise<boolean> {
    const loads = this.witnesses.start(service.port, this.#random.between(0, mixCount - 1));
    // Often so soon that the first batches are just arriving.
    await sleep(this.#random.between(0, 2) === 0 ? this.#random.between(0, 24) : this.#random.between(20, 129));
    // Now and then in a checkpoint, which takes a small part of the time.
    if (this.#random.between(1, 10) === 1) await this.#until(service, () => wordsOf(service.dir).checkpointing);
    await ways[way].end(service);
    const { code, signal } = await service.ended;
    await this.witnesses.stop(loads);
    count(ended, `${way} (${signal ?? code})`);
    if (way === "SIGTERM twice" && code !== 0 && code !== 75) throw new Error(`it ended with ${code}`);
    const killed = ways[way].sigkill && signal === "SIGKILL";
    if (killed) sums.sigkills += 1;
    return killed;
  }

  /** The end of the last life. Returns its exit code and what the next start had to redo. */
  async close(): Promise<{ code: number | null; redone: number }> {
    const { code } = await this.#service!.stop("SIGTERM");
    await checkStore(this.#service!.dir, "closed");
    const service = await this.#start();
    return { code, redone: (await this.witnesses.judge(service.port, service.dir)).redone };
  }

  remove = () => this.#service?.remove();
}

if (values.help) {
  console.log(
    `kills the service under the load of eight clients, and judges each restart:
  --kills=N   SIGKILLs (120); 10000 take about half an hour, and npm run proofs -- kills notes them
  --seed=N    the same choices again`,
  );
} else {
  const timeout = 60_000 + kills * 10_000;
  t.setTimeout(timeout);
  t.test("kills under load", { timeout }, async (t) => {
    const seed = Number(values.seed ?? seedOf(t));
    const startedAt = performance.now();
    // Two stores side by side: a start waits as much as it works.
    const arenas = [new Arena(seed), new Arena(seed + 1)];
    t.teardown(() => Promise.all(arenas.map((arena) => arena.remove())));
    let wrong: unknown;
    const until = () => {
      if (process.stderr.isTTY) process.stderr.write(`\r${sums.sigkills} of ${kills} kills`);
      return sums.sigkills >= kills || wrong !== undefined;
    };
    await Promise.all(
      arenas.map((arena) =>
        arena.kill(until).catch((error) => {
          wrong = error;
        }),
      ),
    );
    const seconds = (performance.now() - startedAt) / 1000;
    t.equal(wrong, undefined, `${sums.sigkills} SIGKILLs: nothing acknowledged is lost, torn or done twice`);
    t.comment(`${sums.sigkills} SIGKILLs in ${seconds.toFixed(0)} s; lives ended by ${list(ended)}`);
    const { [checkpointing]: inCheckpoint = 0, ...elsewhere } = fell;
    t.comment(`the SIGKILLs fell: ${list(elsewhere)}; ${inCheckpoint} of them ${checkpointing}`);
    const figures = {
      kills: sums.sigkills,
      ...fell,
      failures: wrong === undefined ? 0 : 1,
      seed,
      seconds: Math.round(seconds),
    };
    t.comment(`figures: ${JSON.stringify(figures)}`);
    t.comment(
      `batches without an answer: ${sums.absent} absent (killed before publish), ${sums.landed} there (after it); ` +
        `${sums.redoing} starts redid ${sums.redone} records (between publish and apply); recovery rows ${list(rows)}`,
    );
    const sumOf = (what: "answered" | "replays" | "reads"): number =>
      arenas.reduce((sum, { witnesses }) => sum + witnesses[what], 0);
    t.comment(
      `${sumOf("answered")} batches answered, ${sumOf("replays")} retries replayed, ${sumOf("reads")} whole reads beside them; ` +
        `start to ready ${(sums.startMs / sums.lives).toFixed(0)} ms in the mean; seed ${seed}`,
    );
    if (wrong !== undefined) return;
    t.ok(sumOf("reads") > 0, "readers were answered");
    t.ok(sums.absent > 0 && sums.landed > 0 && sums.redone > 0, "kills fell before publish, before apply and after");
    // Seldom met in a few: a kill of a process that has nothing to do.
    for (const place of [...places, checkpointing].filter((place) => place !== "idle" && kills >= 100))
      t.ok((fell[place] ?? 0) > 0, `kills fell ${place}`);
    for (const arena of arenas)
      t.same(await arena.close(), { code: 0, redone: 0 }, "an orderly end leaves nothing to redo");
  });
}
