// drain.test.ts - SIGTERM and SIGINT against the real service: what clients see, what survives, how long it takes.
import t from "tap";
import { Random } from "../../docker/drill/random.js";
import { seedOf } from "../seed.js";
import { ServiceProcess } from "../service-process.js";
import { slowness } from "../slowness.js";
import { Load, loadRegionBytes, valuesIn, verdict } from "./load.js";

const clients = 40;
const stops = 20;
const durabilities = ["fast", "ordered", "durable"];
/** TERM to exit, over all stops: the lame duck, which is a timer, and work, which takes longer on a busy machine. */
const lameDuckMs = 100;
const workMsMax = 50;
const droppedMax = 3;

const json = { "content-type": "application/json" };

async function createRegion(service: ServiceProcess, name: string, durability: string): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${service.port}/v1/regions`, {
    method: "POST",
    headers: json,
    body: JSON.stringify({ name, size: loadRegionBytes, durability }),
  });
  if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
}

async function contentOf(service: ServiceProcess, name: string): Promise<Buffer> {
  const answer = await fetch(`http://127.0.0.1:${service.port}/v1/regions/${name}/content`);
  return Buffer.from(await answer.arrayBuffer());
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

t.test(`${stops} stops under ${clients} keep-alive clients`, { timeout: 180_000 }, async (t) => {
  const random = new Random(seedOf(t));
  let service = await ServiceProcess.ready();
  for (const durability of durabilities) await createRegion(service, durability, durability);
  const bases = new Map(durabilities.map((durability) => [durability, new Array<number>(clients).fill(0)]));
  const times: number[] = [];
  const losses: string[] = [];
  let answered = 0;
  let refused = 0;
  for (let stop = 0; stop < stops; stop++) {
    const region = durabilities[stop % durabilities.length] as string;
    const load = new Load(service.port, region, bases.get(region) as number[]);
    await new Promise((resolve) => setTimeout(resolve, random.between(300, 400)));
    const end = await service.stop();
    times.push(end.ms);
    t.equal(end.code, 0, `stop ${stop} ends with 0`);
    await load.ended();
    answered += load.sum((ledger) => ledger.answered);
    refused += load.sum((ledger) => ledger.refused);
    losses.push(...load.ledgers.flatMap((ledger) => ledger.losses));
    const drained = service.find("drained");
    t.equal(drained?.cut, 0, "and cut nobody");

    service = await ServiceProcess.ready({ dir: service.dir });
    const bytes = await contentOf(service, region);
    t.strictSame(
      load.ledgers.flatMap((ledger, client) => verdict(bytes, client, ledger) ?? []),
      [],
      "everything that was answered is there, whole",
    );
    bases.set(region, valuesIn(bytes, clients));
  }
  const slower = slowness();
  const medianMsMax = lameDuckMs + workMsMax * slower;
  t.comment(`the machine is ${slower.toFixed(1)} times slower than at rest`);
  t.comment(
    `TERM to exit: median ${median(times).toFixed(0)} ms, worst ${Math.max(...times).toFixed(0)} ms; ${answered} answered, ${refused} refused, ${losses.length} dropped (${losses.join(" ")}) in ${stops} stops`,
  );
  t.ok(median(times) <= medianMsMax, `the median is at most ${medianMsMax.toFixed(0)} ms`, { times });
  t.ok(losses.length <= droppedMax, `at most ${droppedMax} requests were dropped`, { losses });
  await service.remove();
});
