// wall.ts - the judge judged: services with a known bug, each of which a drill must find out, beside the same drill of the
// service as it is, which must pass. A bug that gets through means that a pass says nothing.
import { type Launch, makeBackend } from "./backends.js";
import { Drilled, type Subject } from "./cycle.js";
import type { Invariant } from "./judge.js";
import { Random } from "./random.js";
import { defaultSubject, failPoints, scenarios } from "./scenarios.js";

interface KnownBug {
  name: string;
  about: string;
  scenario: string;
  /** The invariants that it breaks: whatever else fails is no finding of it. */
  breaks: readonly Invariant[];
  mutant?: string;
  launch?: Launch;
  plainPath?: string;
  /** Only the cycles that take this one of the fail points' list, in which the bug shows. */
  point?: number;
}

const bugs: readonly KnownBug[] = [
  {
    name: "apply-before-publish",
    about: "a batch reaches its regions before its journal record is whole",
    scenario: "kill-at-fail-point",
    breaks: ["I2", "I3", "I5"],
    mutant: "apply_before_publish",
  },
  {
    name: "applied-before-apply",
    about: "a batch counts as applied before it is: recovery leaves it half done",
    scenario: "kill-at-fail-point",
    breaks: ["I2", "I3", "I5"],
    mutant: "applied_before_apply",
    point: 2,
  },
  {
    name: "exit-in-the-handler",
    about: "the signal's listener exits, whatever is in flight",
    scenario: "stop-under-load-8",
    breaks: ["I9"],
    launch: { preload: 'process.on("SIGTERM",()=>process.exit(0))' },
  },
  {
    name: "once",
    about: "the signal's listener is registered with once(): the second signal meets the default action",
    scenario: "more-signals",
    breaks: ["I7"],
    launch: {
      preload:
        'const on=process.on;process.on=function(name,listener){if(name!=="SIGTERM")return on.call(this,name,listener);' +
        "const first=(...said)=>{process.removeListener(name,first);listener(...said)};return on.call(this,name,first)}",
    },
  },
  {
    name: "no-fdatasync",
    about: "a durable batch is acknowledged without a sync of its record",
    scenario: "sync-fails",
    breaks: ["I1"],
    mutant: "no_fdatasync",
  },
  {
    name: "plain-close",
    about: "Fastify's own close(), which cuts established connections off",
    scenario: "stop-under-load-40",
    breaks: ["I9"],
    launch: { script: "reference.js" },
    plainPath: "/livez",
  },
];

/** The service as it is, under each scenario that a bug is found with. */
const control = (scenario: string): KnownBug => ({ name: "", about: "", scenario, breaks: [] });

const options = { image: "", port: 0, dataDir: "", published: false, own: true };

/** Of the cycles in which a bug can hide: one that shows when a second signal falls into a drain of 40 ms may need some. */
const patience = 4;

interface Finding {
  cycle: number;
  why: string;
  /** By an invariant that the bug breaks. */
  isIts: boolean;
}

/** The first cycle in which the drill did not pass, and why. */
async function foundOut(bug: KnownBug, seed: number, cycles: number): Promise<Finding | undefined> {
  const scenario = scenarios.find(({ name }) => name === bug.scenario)!;
  const environment = {
    AUTH: "none",
    HOLDFAST_NATIVE: "debug",
    ...(bug.mutant === undefined ? {} : { HOLDFAST_MUTANTS: bug.mutant }),
  };
  const backend = makeBackend("process", environment, options);
  const site = await backend.site();
  const subject: Subject = { ...defaultSubject, plainPath: bug.plainPath, slack: 3 };
  const drilled = new Drilled(backend, site, subject, new Random(seed));
  try {
    for (let cycle = 0; cycle < cycles; ++cycle) {
      const plan = scenario.plan(
        bug.point === undefined ? cycle : bug.point + cycle * failPoints.length,
        drilled,
        subject,
      );
      const record = await drilled.cycle(cycle, { ...plan, launch: { ...plan.launch, ...bug.launch } });
      const its = record.violations.find(({ invariant }) => bug.breaks.includes(invariant));
      const told = its ?? record.violations[0];
      const isIts = its !== undefined;
      if (told !== undefined) return { cycle, why: `${told.invariant} ${told.detail}`, isIts };
      if (record.unknown !== undefined) return { cycle, why: `could not be told: ${record.unknown}`, isIts };
    }
    return undefined;
  } finally {
    await site.remove();
  }
}

/** Each bug that is found out is a point, and each scenario that the service as it is passes. */
export async function wall(seed: number, cycles: number): Promise<{ passed: number; failed: number }> {
  process.stdout.write(`wall: seed ${seed}, up to ${cycles} cycles each\n`);
  const points = { passed: 0, failed: 0 };
  for (const bug of bugs) {
    const found = await foundOut(bug, seed, patience * cycles);
    const isFound = found?.isIts === true;
    points[isFound ? "passed" : "failed"] += 1;
    const how = found === undefined ? `got through ${patience * cycles} cycles` : `cycle ${found.cycle}: ${found.why}`;
    process.stdout.write(`${isFound ? "found out  " : "GOT THROUGH"} ${bug.name}: ${how}\n`);
  }
  for (const scenario of new Set(bugs.map((bug) => bug.scenario))) {
    const found = await foundOut(control(scenario), seed, cycles);
    points[found === undefined ? "passed" : "failed"] += 1;
    process.stdout.write(
      `${found === undefined ? "passes     " : "FAILED     "} the service as it is, ${scenario}: ${found?.why ?? `${cycles} cycles`}\n`,
    );
  }
  return points;
}
