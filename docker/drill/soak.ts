// soak.ts - npm run drill:soak: thousands of kills and hundreds of stops of one service, in turns, for a figure that a few
// cycles can't give: how rare a failure must be. It goes on where an earlier run was ended. The cycles are the drill's own.
import { randomInt } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { makeBackend } from "./backends.js";
import { type CycleRecord, Drilled } from "./cycle.js";
import { type BackendName, Flags } from "./flags.js";
import { Random } from "./random.js";
import { bound, countsOf, type Group, reportOf, tellGroup } from "./report.js";
import { defaultSubject, scenarios } from "./scenarios.js";

const help = `npm run drill:soak -- [flags]

Kills and stops one service thousands of times under load; after each, what is there is held against what its clients
were told. Ended by ^C, it goes on from there when it is started again.

  --kills N          in all (default 3000)
  --stops N          in all (default 500)
  --backend NAME     process (default), pidns, docker, podman
  --image NAME       the image of docker and podman (default holdfast)
  --seed N           the same choices again (default: HOLDFAST_SEED, or a random one, printed)
  --slack X          multiplies every budget, for a busy machine (default 1)
  --out DIR          where soak.jsonl and soak.html go (default build/drill)
  --fresh            forget what an earlier run counted
  --help             this text

A run that goes on keeps the backend, the image and the seed that it was started with; --kills and --stops may be raised.
Exit code: 0 all passed, 1 something failed, 2 too much could not be told (in fewer than 100 cycles: one) or ^C ended it,
64 flags that can't be used.
`;

type Kind = "kill" | "stop";
/** In turn; each is the drill's scenario of that name. */
const turns: Readonly<Record<Kind, readonly string[]>> = {
  kill: ["kill-random", "kill-random", "kill-random", "kill-random", "kill-start-retries"],
  stop: ["stop-under-load-1", "stop-under-load-8", "stop-under-load-40", "stop-start-retries"],
};
/** More cycles in a hundred that the harness could not judge make the whole run worthless; a short one must tell all. */
const unknownShareMax = 0.02;
const shortCycles = 100;
const progressEveryMs = 30_000;

interface Start {
  kind: "soak";
  at: string;
  seed: number;
  backend: BackendName;
  image: string;
}
interface Done {
  kind: Kind;
  scenario: string;
  record: CycleRecord;
}

const reader = new Flags("drill:soak");
const usage: (message: string) => never = (message) => reader.usage(message);
const flags = reader.read({
  kills: { type: "string", default: "3000" },
  stops: { type: "string", default: "500" },
  backend: { type: "string" },
  image: { type: "string" },
  seed: { type: "string" },
  slack: { type: "string", default: "1" },
  out: { type: "string", default: "build/drill" },
  fresh: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
});
if (flags.help) {
  process.stdout.write(help);
  process.exit(0);
}
const whole = (flag: "kills" | "stops" | "seed", text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) usage(`--${flag}: not a number that can be used: ${text}`);
  return value;
};
const wanted: Record<Kind, number> = { kill: whole("kills", flags.kills), stop: whole("stops", flags.stops) };
const slack = Number(flags.slack);
if (!(slack > 0)) usage(`--slack: not a number that can be used: ${flags.slack}`);
const backendFlag = flags.backend === undefined ? undefined : reader.backend(flags.backend);

const out = resolve(flags.out);
mkdirSync(out, { recursive: true });
const recordPath = join(out, "soak.jsonl");
const reportPath = join(out, "soak.html");
if (flags.fresh) rmSync(recordPath, { force: true });

const done: Done[] = [];
const start = resume();

/** What an earlier run was started with and has done; or the beginning of a new one. */
function resume(): Start {
  if (existsSync(recordPath)) {
    const text = readFileSync(recordPath, "utf8");
    // A run that was killed may have left half a line.
    const end = text.lastIndexOf("\n");
    truncateSync(recordPath, Buffer.byteLength(text.slice(0, end + 1)));
    const [first, ...cycles] = text.slice(0, end).split("\n");
    const started = JSON.parse(first!) as Start;
    for (const flag of ["backend", "image", "seed"] as const) {
      if (flags[flag] !== undefined && flags[flag] !== String(started[flag]))
        usage(`--${flag}: ${recordPath} was started with ${started[flag]}; --fresh begins anew`);
    }
    for (const line of cycles) done.push(JSON.parse(line) as Done);
    process.stdout.write(`soak: going on after ${done.length} cycles, seed ${started.seed}\n`);
    return started;
  }
  const begun: Start = {
    kind: "soak",
    at: new Date().toISOString(),
    seed: whole("seed", flags.seed ?? process.env.HOLDFAST_SEED ?? String(randomInt(2 ** 31))),
    backend: backendFlag ?? "process",
    image: flags.image ?? "holdfast",
  };
  writeFileSync(recordPath, `${JSON.stringify(begun)}\n`);
  process.stdout.write(`soak: seed ${begun.seed}\n`);
  return begun;
}

/** Only cycles that could be judged. */
const countOf = (kind: Kind): number =>
  done.filter((one) => one.kind === kind && one.record.verdict !== "unknown").length;
const failed = (kind: Kind): number => done.filter((one) => one.kind === kind && one.record.verdict === "fail").length;
const unknowns = (): number => done.filter(({ record }) => record.verdict === "unknown").length;

/** Kills and stops mixed evenly; undefined when all are done. */
function nextKind(): Kind | undefined {
  const [kills, stops] = [countOf("kill"), countOf("stop")];
  if (kills >= wanted.kill && stops >= wanted.stop) return undefined;
  if (kills >= wanted.kill) return "stop";
  if (stops >= wanted.stop) return "kill";
  return stops * wanted.kill < kills * wanted.stop ? "stop" : "kill";
}

const isTerminal = process.stderr.isTTY === true;
const startedAt = performance.now();
const doneBefore = done.length;
let toldAt = startedAt;
function tellProgress(): void {
  const elapsedMs = performance.now() - startedAt;
  if (!isTerminal && performance.now() - toldAt < progressEveryMs) return;
  toldAt = performance.now();
  const [kills, stops] = [countOf("kill"), countOf("stop")];
  const left = Math.max(0, wanted.kill - kills) + Math.max(0, wanted.stop - stops);
  const minutesLeft = ((elapsedMs / (done.length - doneBefore)) * left) / 60_000;
  const text =
    `${kills} of ${wanted.kill} kills, ${stops} of ${wanted.stop} stops, ${failed("kill") + failed("stop")} failed, ` +
    `${unknowns()} could not be told, about ${Math.ceil(minutesLeft)} min to go`;
  if (isTerminal) process.stderr.write(`\r\u001b[K${text}`);
  else process.stdout.write(`soak: ${text}\n`);
}

/** What a cycle that passed needs not keep, so that thousands of them stay a few megabytes. */
const brief = (record: CycleRecord): CycleRecord =>
  record.verdict === "pass" ? { ...record, timeline: [], server: [] } : record;

let interrupted = false;
process.once("SIGINT", () => {
  interrupted = true;
  process.stderr.write("\nsoak: ending after this cycle; the same command goes on from here\n");
});

const options = { image: start.image, port: 8080, dataDir: "/data", published: false, own: true };
const backend = makeBackend(start.backend, { AUTH: "none" }, options);
const lacking = await backend.missing();
if (lacking !== undefined) usage(`--backend: ${lacking}`);
const subject = { ...defaultSubject, slack };
const site = await backend.site();
const drilled = new Drilled(backend, site, subject, new Random(start.seed));
const tooManyUnknown = (): boolean =>
  unknowns() > (wanted.kill + wanted.stop < shortCycles ? 0 : 10 + unknownShareMax * done.length);
try {
  for (let kind = nextKind(); kind !== undefined && !interrupted && !tooManyUnknown(); kind = nextKind()) {
    const index = countOf(kind);
    const name = turns[kind][index % turns[kind].length]!;
    // Of the cycle's own number, so that a run that was ended in between makes the same choices.
    drilled.random = new Random(start.seed + done.length);
    const scenario = scenarios.find((one) => one.name === name)!;
    const record = brief(await drilled.cycle(done.length, scenario.plan(index, drilled, subject)));
    done.push({ kind, scenario: name, record });
    appendFileSync(recordPath, `${JSON.stringify(done.at(-1))}\n`);
    tellProgress();
  }
} finally {
  await site.remove();
}

const groups: Group[] = [...new Set([...turns.kill, ...turns.stop])].map((scenario) => ({
  scenario,
  backend: start.backend,
  isReference: false,
  cycles: done.filter((one) => one.scenario === scenario).map(({ record }) => record),
}));
const told = (kind: Kind): string => {
  const count = countOf(kind);
  const rate = failed(kind) === 0 ? bound(count) : `${((100 * failed(kind)) / count).toPrecision(2)} %`;
  const dropped = done.filter((one) => one.kind === kind).reduce((sum, { record }) => sum + record.dropped, 0);
  const drops = kind === "stop" && count > 0 ? `, ${(dropped / count).toFixed(3)} requests dropped a stop` : "";
  return `${count} ${kind}s, ${failed(kind)} failed${count === 0 ? "" : `: a failure rate of ${rate} at 95 %`}${drops}`;
};
const summary = [told("kill"), told("stop"), `${unknowns()} cycles could not be told and were repeated`];
writeFileSync(reportPath, reportOf(groups, { seed: start.seed, at: new Date(), skipped: [], summary }));
if (isTerminal) process.stderr.write("\r\u001b[K");
for (const group of groups) if (group.cycles.length > 0) process.stdout.write(`${tellGroup(group)}\n`);
const hasFailed = { kill: failed("kill") > 0, stop: failed("stop") > 0 };
// What is not done could have failed.
const isShort = tooManyUnknown() || nextKind() !== undefined;
const verdict = hasFailed.kill || hasFailed.stop ? "FAIL" : !isShort ? "pass" : interrupted ? "unfinished" : "unknown";
process.stdout.write(`soak: ${verdict}: ${summary.join("; ")}; ${reportPath}\n`);
const bad = Number(hasFailed.kill) + Number(hasFailed.stop) + Number(isShort);
process.stdout.write(`${countsOf(2 - Number(hasFailed.kill) - Number(hasFailed.stop), bad)}\n`);
process.exit(hasFailed.kill || hasFailed.stop ? 1 : isShort ? 2 : 0);
