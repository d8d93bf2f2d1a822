// drain.test.ts - SIGTERM and SIGINT against the real service: what clients see, what survives, how long it takes.
import t from "tap";
import { dropsOf, stopTimes } from "../../docker/drill/drops.js";
import { judge, makeRegions, renewRegions, scan } from "../../docker/drill/judge.js";
import { Ledger } from "../../docker/drill/ledger.js";
import { type Attempt, Load } from "../../docker/drill/load.js";
import { Random } from "../../docker/drill/random.js";
import { defaultSubject } from "../../docker/drill/scenarios.js";
import { seedOf } from "../seed.js";
import { ServiceProcess } from "../service-process.js";
import { slowness } from "../slowness.js";

const clients = 40;
const stops = 20;
const durabilities = ["fast", "ordered", "durable"] as const;
/** TERM to exit, over all stops: the lame duck, which is a timer, and work, which takes longer on a busy machine. */
const lameDuckMs = 100;
const workMsMax = 50;
const droppedMax = 3;
const patience = defaultSubject.patience!;

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

t.test(`${stops} stops under ${clients} keep-alive clients`, { timeout: 180_000 }, async (t) => {
  const random = new Random(seedOf(t));
  let service = await ServiceProcess.ready();
  const target = { host: "127.0.0.1", port: service.port };
  const ledgers = durabilities.map((durability) => new Ledger([durability, durability, durability]));
  for (const { epoch } of ledgers) await makeRegions(target, epoch);
  const times: number[] = [];
  let late = 0;
  let dropped = 0;
  let answered = 0;
  let refused = 0;
  for (let stop = 0; stop < stops; stop++) {
    const ledger = ledgers[stop % ledgers.length] as Ledger;
    const load = new Load(target, ledger, { connections: clients, readers: 0 });
    await new Promise((resolve) => setTimeout(resolve, random.between(300, 400)));
    // Whoever asks again then is refused by the kernel, again and again, and takes the time that is measured.
    const ended = service.line("listener_closed").then(() => load.stop());
    const end = await service.stop();
    times.push(end.ms);
    t.equal(end.code, 0, `stop ${stop} ends with 0`);
    await ended;
    answered += load.acknowledged;
    refused += load.attempts.filter(({ status }) => status === 503).length;
    const lines = service.lines.map((json) => ({ atMs: 0, text: "", json }));
    const drops = dropsOf(load, stopTimes(lines, 0, patience), patience.silentMs);
    // What nobody promised to wait for is told, and is no loss.
    const timesOf = ({ startedAt, sentAt, endedAt, code }: Attempt) => ({ startedAt, sentAt, endedAt, code });
    if (drops.all.length > 0)
      t.comment({ stop, late: drops.late, drops: drops.all.map(timesOf), lines: service.lines });
    late += drops.late;
    dropped += drops.all.length - drops.late;
    const drained = service.find("drained");
    t.equal(drained?.cut, 0, "and cut nobody");

    service = await ServiceProcess.ready({ dir: service.dir });
    target.port = service.port;
    const { violations } = judge(ledger.epoch, await scan(target, ledger.epoch));
    t.strictSame([...load.unexpected, ...violations], [], "everything that was answered is there, whole, and once");
    if (ledger.worn) await renewRegions(target, ledger);
  }
  const slower = slowness();
  const medianMsMax = lameDuckMs + workMsMax * slower;
  t.comment(`the machine is ${slower.toFixed(1)} times slower than at rest`);
  t.comment(
    `TERM to exit: median ${median(times).toFixed(0)} ms, worst ${Math.max(...times).toFixed(0)} ms; ${answered} answered, ${refused} refused, ${dropped} dropped, ${late} late in ${stops} stops`,
  );
  t.ok(median(times) <= medianMsMax, `the median is at most ${medianMsMax.toFixed(0)} ms`, { times });
  t.ok(dropped <= droppedMax, `at most ${droppedMax} requests were dropped`);
  await service.remove();
});
