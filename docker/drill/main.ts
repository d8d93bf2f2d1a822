// main.ts - npm run drill: reads the flags, runs scenarios on backends, tells how it goes, and writes the record and the
// report. What a scenario does and when it fails is in scenarios.ts, cycle.ts and judge.ts.
import { randomInt } from "node:crypto";
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { makeBackend } from "./backends.js";
import { Drilled } from "./cycle.js";
import { Flags } from "./flags.js";
import { Random } from "./random.js";
import { countsOf, type Group, reportOf, tellGroup, verdictOf } from "./report.js";
import { defaultSubject, type Scenario, scenarios } from "./scenarios.js";
import { wall } from "./wall.js";

const help = `npm run drill -- [flags]

Stops and kills a service, restarts it on the same data, and judges what is there against what its clients were told.

  --backend NAME     process, pidns, docker, podman; repeatable (default: process; docker with --image)
  --scenario NAME    a name or a number of --list; repeatable (default: all that fit)
  --cycles N         of each scenario (default 5), and no fewer than it has cases
  --exactly          no more cycles than --cycles; the seed chooses the cases
  --seed N           the same choices again (default: HOLDFAST_SEED, or a random one, printed)
  --image NAME       the image of docker and podman (default holdfast)
  --debug            the build with fail points; an image of NATIVE=debug
  --published        reach containers by a port of 127.0.0.1 instead of their own address (Docker Desktop)
  --url PATH         drill a service that is not this one: its load asks for PATH, its bytes are not judged
  --ready PATH       answers 200 once that service is ready (default: the path of --url)
  --port N           where that image listens (default 8080)
  --data DIR         where that image's volume goes (default /data)
  --stop-ms N        budget from TERM to exit (default 1000)
  --slack X          multiplies every budget, for a busy machine (default 1)
  --wall             only the wall of known bugs: each must be found out (process backend, debug build)
  --no-reference     leave out the stop of a plain Fastify service that the figures stand beside
  --out DIR          where record.jsonl and report.html go (default build/drill)
  --list             the scenarios
  --help             this text

The engine is the one at DOCKER_HOST or CONTAINER_HOST (unix sockets only). A backend that is not there is skipped, and
fails the run if CI is set. The last line counts scenarios, once for each backend.
Exit code: 0 all passed, 1 something failed, 2 something could not be told or ^C ended it, 64 flags that can't be used.
`;

const reader = new Flags("drill");
const usage: (message: string) => never = (message) => reader.usage(message);
const flags = reader.read({
  backend: { type: "string", multiple: true },
  scenario: { type: "string", multiple: true, default: [] },
  cycles: { type: "string", default: "5" },
  exactly: { type: "boolean", default: false },
  seed: { type: "string", default: process.env.HOLDFAST_SEED ?? String(randomInt(2 ** 31)) },
  image: { type: "string" },
  debug: { type: "boolean", default: false },
  published: { type: "boolean", default: false },
  url: { type: "string" },
  ready: { type: "string" },
  port: { type: "string", default: "8080" },
  data: { type: "string", default: "/data" },
  "stop-ms": { type: "string", default: "1000" },
  slack: { type: "string", default: "1" },
  "no-reference": { type: "boolean", default: false },
  out: { type: "string", default: "build/drill" },
  wall: { type: "boolean", default: false },
  list: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
});
if (flags.help) {
  process.stdout.write(help);
  process.exit(0);
}
if (flags.list) {
  for (const { id, name, about } of scenarios)
    process.stdout.write(`${String(id).padStart(3)} ${name.padEnd(22)} ${about}\n`);
  process.exit(0);
}

const number = (flag: "cycles" | "seed" | "port" | "stop-ms" | "slack", whole = true): number => {
  const value = Number(flags[flag]);
  if (!(value > 0) || (whole && !Number.isInteger(value)))
    usage(`--${flag}: not a number that can be used: ${flags[flag]}`);
  return value;
};
const chosenBackends = (flags.backend ?? [flags.image === undefined ? "process" : "docker"]).map((name) =>
  reader.backend(name),
);
const chosenScenarios = scenarios.filter(
  ({ id, name }) => flags.scenario.length === 0 || flags.scenario.includes(name) || flags.scenario.includes(String(id)),
);
for (const wanted of flags.scenario) {
  if (!scenarios.some(({ id, name }) => wanted === name || wanted === String(id)))
    usage(`--scenario: there is no ${wanted}`);
}
const cycles = number("cycles");
const seed = number("seed");
const isForeign = flags.url !== undefined;
const subject = {
  ...defaultSubject,
  stopMsMax: number("stop-ms"),
  slack: number("slack", false),
  plainPath: flags.url,
  ...(isForeign ? { readyPath: flags.ready ?? flags.url!, patience: undefined } : {}),
};
const environment: Record<string, string> = { AUTH: "none", ...(flags.debug ? { HOLDFAST_NATIVE: "debug" } : {}) };
const out = resolve(flags.out);
mkdirSync(out, { recursive: true });
const recordPath = join(out, "record.jsonl");
const reportPath = join(out, "report.html");
writeFileSync(recordPath, `${JSON.stringify({ kind: "drill", at: new Date().toISOString(), seed, cycles, flags })}\n`);

const isTerminal = process.stderr.isTTY === true;
const progress = (text: string): void => {
  if (isTerminal) process.stderr.write(`\r\u001b[K${text}`);
};
const groups: Group[] = [];
/** Backends that are not here. */
const missing: string[] = [];
/** What was asked for by its name and can't be done. */
const unfit: string[] = [];
if (flags.wall) {
  const { passed, failed } = await wall(seed, cycles);
  process.stdout.write(`${countsOf(passed, failed)}\n`);
  process.exit(failed === 0 ? 0 : 1);
}
let interrupted = false;
const cutShort = "it was interrupted, and the rest was not run";
process.once("SIGINT", () => {
  interrupted = true;
  process.stderr.write("\ndrill: ending after this cycle\n");
});

process.stdout.write(`drill: seed ${seed}, ${cycles} cycles each\n`);
for (const name of chosenBackends) {
  const backend = makeBackend(name, environment, {
    image: flags.image ?? "holdfast",
    port: number("port"),
    dataDir: flags.data,
    published: flags.published,
    own: !isForeign,
  });
  const lacking = await backend.missing();
  if (lacking !== undefined) {
    missing.push(`${name}: ${lacking}`);
    process.stdout.write(`SKIPPED ${name}: ${lacking}\n`);
    continue;
  }
  for (const scenario of chosenScenarios) {
    if (interrupted) break;
    const reason =
      isForeign && scenario.foreign !== true ? "needs this service" : scenario.unfit?.(backend, flags.debug);
    if (reason !== undefined) {
      if (flags.scenario.length > 0) unfit.push(`${scenario.name} on ${name}: ${reason}`);
      process.stdout.write(`skipped ${scenario.name} on ${name}: ${reason}\n`);
      continue;
    }
    await runGroup(scenario, false);
    const isStopUnderLoad = scenario.id === 2;
    if (isStopUnderLoad && !flags["no-reference"] && !isForeign) await runGroup(scenario, true);
  }

  async function runGroup(scenario: Scenario, isReference: boolean): Promise<void> {
    const site = await backend.site(scenario.diskBytes);
    const random = new Random(seed + scenario.id * 1000);
    const own = isReference ? { ...subject, plainPath: "/livez", stopMsMax: Number.POSITIVE_INFINITY } : subject;
    const drilled = new Drilled(backend, site, own, random);
    const title = isReference ? `plain Fastify: ${scenario.name}` : scenario.name;
    const group: Group = { scenario: title, backend: name, isReference, cycles: [] };
    groups.push(group);
    const cases = scenario.cases ?? 1;
    const count = flags.exactly ? cycles : Math.max(cycles, cases);
    const firstCase = flags.exactly ? seed % cases : 0;
    try {
      for (let cycle = 0; cycle < count && !interrupted; ++cycle) {
        progress(`${title} on ${name}: ${cycle + 1} of ${count}`);
        const plan = scenario.plan(firstCase + cycle, drilled, own);
        // A plain close may hang until the engine kills it: that is what it is here to show.
        const told = isReference
          ? { ...plan, launch: { script: "reference.js" }, mayDrop: true, expect: { codes: [0, 137] } }
          : plan;
        const record = await drilled.cycle(cycle, told);
        group.cycles.push(record);
        appendFileSync(recordPath, `${JSON.stringify({ kind: "cycle", scenario: title, backend: name, ...record })}\n`);
      }
    } finally {
      await site.remove();
    }
    progress("");
    process.stdout.write(`${tellGroup(group)}\n`);
  }
}

const judged = groups.filter(({ isReference }) => !isReference);
const verdicts = judged.map(verdictOf);
const fails = verdicts.filter((verdict) => verdict === "fail").length + (process.env.CI ? missing.length : 0);
// What an interrupted run left out could have failed.
const unknowns =
  verdicts.filter((verdict) => verdict === "unknown").length +
  unfit.length +
  Number(judged.length === 0) +
  Number(interrupted);
writeFileSync(
  reportPath,
  reportOf(groups, { seed, at: new Date(), skipped: [...missing, ...unfit, ...(interrupted ? [cutShort] : [])] }),
);
const counted = judged.reduce((total, group) => total + group.cycles.length, 0);
process.stdout.write(
  `drill: ${fails > 0 ? "FAIL" : unknowns > 0 ? "unknown" : "pass"}: ${counted} cycles, ${fails} failed, ` +
    `${unknowns} could not be told${interrupted ? `; ${cutShort}` : ""}; ${reportPath}\n${countsOf(verdicts.filter((verdict) => verdict === "pass").length, fails + unknowns)}\n`,
);
process.exit(fails > 0 ? 1 : unknowns > 0 ? 2 : 0);
