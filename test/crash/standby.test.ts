// standby.test.ts - two processes on one store: the writer is killed under load, the standby serves what it left.
import t from "tap";
import { Random } from "../../docker/drill/random.js";
import { RawClient } from "../raw-client.js";
import { seedOf } from "../seed.js";
import { freshDir, ServiceProcess } from "../service-process.js";
import { slowness } from "../slowness.js";
import { checkStore } from "./rig.js";
import { mixCount, Witnesses } from "./witnesses.js";

const takeovers = 8;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function readyz(port: number): Promise<{ status: number; state: string }> {
  const connection = await RawClient.connect(port);
  const { status, body } = await connection.request("GET", "/readyz");
  connection.destroy();
  return { status, state: body };
}

/** Listens and waits for the store. */
async function standbyOn(dir: string): Promise<ServiceProcess> {
  const service = new ServiceProcess({ dir });
  await service.line("listening");
  // Until it has found the store taken it is merely starting.
  while (!/standby/.test((await readyz(service.port)).state)) await sleep(5);
  return service;
}

t.setTimeout(300_000);
t.test("a standby takes over", { timeout: 300_000 }, async (t) => {
  const random = new Random(seedOf(t));
  const dir = freshDir();
  const witnesses = new Witnesses();
  let writer = await ServiceProcess.ready({ dir });
  const started = [writer];
  t.teardown(async () => {
    for (const service of started) await service.remove();
  });
  await witnesses.makeRegions(writer.port);
  const tookMs: number[] = [];
  for (let i = 0; i < takeovers; i++) {
    const standby = await standbyOn(dir);
    started.push(standby);
    const waiting = await readyz(standby.port);
    t.equal(waiting.status, 503, "the standby is not ready");
    t.match(waiting.state, /standby/, "and says why");
    const refused = await RawClient.connect(standby.port);
    const { status, body } = await refused.request("POST", "/v1/regions", '{"name":"other","size":1}');
    refused.destroy();
    t.match({ status, body }, { status: 503, body: /"standby"/ }, "it takes no batch");

    const loads = witnesses.start(writer.port, i % mixCount);
    await sleep(random.between(50, 149));
    const killedAt = writer.kill("SIGKILL");
    await standby.line("ready");
    tookMs.push(performance.now() - killedAt);
    await witnesses.stop(loads);
    t.equal((await readyz(standby.port)).status, 200, "the standby serves");
    await t.resolves(witnesses.judge(standby.port, dir), "every acknowledged batch is there, and no half one");
    writer = standby;
  }
  tookMs.sort((a, b) => a - b);
  const [median, worst] = [tookMs[tookMs.length >> 1]!, tookMs.at(-1)!];
  t.comment(
    `${takeovers} takeovers, kill to ready: median ${median.toFixed(1)} ms, worst ${worst.toFixed(1)} ms; ${witnesses.answered} batches answered`,
  );
  const slower = slowness();
  t.ok(median < 500 * slower && worst < 2000 * slower, `a takeover takes no start (slowness ${slower.toFixed(1)})`);
  t.equal((await writer.stop("SIGTERM")).code, 0);
  await t.resolves(checkStore(dir, "closed"), "the store is consistent");
});

t.test("a second service that may not wait", async (t) => {
  const writer = await ServiceProcess.ready();
  t.teardown(() => writer.remove());
  const second = new ServiceProcess({ dir: writer.dir, flags: ["--standby=false"] });
  const { code, signal } = await second.ended;
  t.notOk(signal, "ends by itself");
  t.not(code, 0, "and says so by its code");
  const said = second.stderr + second.lines.map((line) => line.message).join("\n");
  t.match(said, /another process/, "and in words");
  t.equal((await readyz(writer.port)).status, 200, "the writer doesn't notice");
});
