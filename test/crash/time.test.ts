// time.test.ts - how long others wait: the event loop while a read waits for the disk, and a start for its recovery.
import { rmSync } from "node:fs";
import t, { type Test } from "tap";
import { freshDir, ServiceProcess } from "../service-process.js";
import { slowness } from "../slowness.js";

const json = { "content-type": "application/json" };

async function post(port: number, path: string, body: object): Promise<void> {
  const init = { method: "POST", headers: json, body: JSON.stringify(body) };
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, init);
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}

/** Each SIGUSR2 tells how late the event loop was since the last one, in milliseconds at the 99th percentile. */
const watching = `data:text/javascript,${encodeURIComponent(
  'import{monitorEventLoopDelay}from"node:perf_hooks";const late=monitorEventLoopDelay({resolution:1});late.enable();' +
    'process.on("SIGUSR2",()=>{console.error("late",late.percentile(99)/1e6);late.reset()})',
)}`;

const readMs = 40;
const readsAtOnce = 4;
const rounds = 10;

/** Nothing is ever in memory, and the disk takes its time. */
const slowDisk = `read_cached=errno:11,read_cold=sleep:${readMs}`;
/** As if such a read were made on the event loop. */
const onTheLoop = `read_cached=sleep:${readMs}`;

/** While a region is read. */
async function lateness(t: Test, failpoints: string): Promise<number> {
  const dir = freshDir();
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const maker = await ServiceProcess.ready({ dir });
  await post(maker.port, "/v1/regions", { name: "demo", size: 1 << 20, durability: "ordered" });
  await maker.stop();
  const service = await ServiceProcess.ready({
    dir,
    node: ["--import", watching],
    env: { HOLDFAST_NATIVE: "debug", HOLDFAST_FAILPOINTS: failpoints },
  });
  const told = () => service.stderr.match(/^late .+$/gm) ?? [];
  const ask = async () => {
    const before = told().length;
    service.kill("SIGUSR2");
    await service.when("how late the loop was", () => (told().length > before ? true : undefined));
    return Number(told().at(-1)!.split(" ")[1]);
  };
  await ask();
  for (let round = 0; round < rounds; round++) {
    const reads = Array.from({ length: readsAtOnce }, async (_, i) => {
      const offset = (round * readsAtOnce + i) * 8192;
      const answer = await fetch(`http://127.0.0.1:${service.port}/v1/regions/demo/content`, {
        headers: { range: `bytes=${offset}-${offset + 4095}` },
      });
      if (answer.status !== 206 || (await answer.arrayBuffer()).byteLength !== 4096)
        throw new Error(`${answer.status}`);
    });
    await Promise.all(reads);
  }
  const late = await ask();
  t.equal((await service.stop()).code, 0);
  return late;
}

t.test("a read that waits for the disk holds nobody up", { timeout: 120_000 }, async (t) => {
  const late = await lateness(t, slowDisk);
  const most = 10 * slowness();
  t.ok(late < most, `the event loop is ${late.toFixed(1)} ms late at the 99th percentile; at most ${most.toFixed(0)}`);
  const control = await lateness(t, onTheLoop);
  t.ok(control >= readMs, `${control.toFixed(1)} ms if such reads are made on it`);
});

t.test("a start after a kill takes no longer for a large region", { timeout: 120_000 }, async (t) => {
  const recoveryMs = async (size: number) => {
    const dir = freshDir();
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    const flags = ["--region-bytes-max=64GiB"];
    let service = await ServiceProcess.ready({ dir, flags });
    await post(service.port, "/v1/regions", { name: "big", size, sparse: true, durability: "ordered" });
    const seen: number[] = [];
    for (let i = 0; i < 3; i++) {
      for (let at = 0; at < 50; at++) {
        const offset = Math.floor((at * size) / 50 / 8) * 8;
        await post(service.port, "/v1/regions/big/batches", { ops: [{ op: "add", offset, type: "u64", value: 1 }] });
      }
      await service.stop("SIGKILL");
      service = await ServiceProcess.ready({ dir, flags });
      const { recovery } = (await service.line("ready")) as unknown as { recovery: { ms: number } };
      seen.push(recovery.ms);
    }
    t.equal((await service.stop()).code, 0);
    return seen.sort((a, b) => a - b)[1]!;
  };
  const small = await recoveryMs(1 << 20);
  const large = await recoveryMs(64 * 2 ** 30);
  t.comment(`recovery: ${small.toFixed(1)} ms of 1 MiB, ${large.toFixed(1)} ms of 64 GiB`);
  t.ok(large < small + 10 * slowness(), "within 10 ms of each other");
});
