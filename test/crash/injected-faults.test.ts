// injected-faults.test.ts - the service as it is shipped, whose system calls fail: strace answers them in the kernel's place
// while clients write and regions come, grow and go. Then it is killed, and what it said is held against what the next start
// finds. What the core itself does about each failure is tried call by call in test/native/store_fault_test.cc.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Random } from "../../docker/drill/random.js";
import { checkedFetch } from "../contract.js";
import { seedOf } from "../seed.js";
import { freshDir, main, ServiceProcess } from "../service-process.js";
import { checkStore } from "./rig.js";
import { mixCount, Witnesses } from "./witnesses.js";

/** Every call by which the core makes something last. */
const calls = ["fdatasync", "fsync", "fallocate", "pwritev2", "renameat,renameat2", "ftruncate"];
// Checkpoints and flushes come often, so that each kind of call does.
const flags = [
  "--journal-bytes=512KiB",
  "--batch-bytes-max=64KiB",
  "--flush-interval-ms=10",
  "--checkpoint-interval-ms=60",
];
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** What strace is to do, as its arguments; it notes what it did in `log`. */
function injection(call: string, error: string, when: string, log: string): string[] {
  const failing = `inject=${call}:error=${error}:when=${when}`;
  return ["-f", "-qq", "-o", log, "-e", `trace=${call}`, "-e", failing];
}

const injectedIn = (log: string): number => readFileSync(log, "utf8").split("(INJECTED)").length - 1;

/** Resolves when strace holds the process: what it does from then on fails. */
async function attach(service: ServiceProcess, args: readonly string[]): Promise<ChildProcess> {
  const pid = service.child.pid!;
  const strace = spawn("strace", [...args, "-p", String(pid)], { stdio: ["ignore", "ignore", "inherit"] });
  while (/^TracerPid:\t0$/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) {
    if (strace.exitCode !== null) throw new Error(`strace ended with ${strace.exitCode}`);
    await sleep(2);
  }
  return strace;
}

/** The size that each region has by what its client was told; undefined: there is none. */
type Told = Map<string, number | undefined>;

/**
 * Makes, resizes and removes regions, one after the other. What is answered as committed has happened, or the next start
 * makes it happen; all else has not.
 */
async function changeRegions(t: Test, origin: string, round: number, told: Told): Promise<void> {
  const ask = async (method: string, url: string, body?: object) => {
    const headers = new Headers(body && { "content-type": "application/json" });
    if (method !== "POST") headers.set("if-match", "*");
    const init = { headers, ...(body && { body: JSON.stringify(body) }) };
    const { status, json } = await checkedFetch(origin, method, url, init);
    const done = status < 300;
    // 500: a file can't be read or written, and nothing came of the request.
    const excused = status === 503 || status === 507 || (status === 500 && json.committed === false);
    if (!done) t.ok(excused, `${method} ${url}: ${status} ${json?.code}, ${json?.detail}`);
    return { done, committed: done || json.committed === true };
  };
  for (let i = 0; i < 3; i++) {
    const name = `round-${round}-${i}`;
    const url = `/v1/regions/${name}`;
    const changes: [method: string, url: string, size: number | undefined, body?: object][] = [
      ["POST", "/v1/regions", 8192, { name, size: 8192 }],
      ["PATCH", url, 65_536, { size: 65_536 }],
      ["PATCH", url, 4096, { size: 4096 }],
      ...(i === 2 ? [["DELETE", url, undefined] as [string, string, undefined]] : []),
    ];
    told.set(name, undefined);
    for (const [method, at, size, body] of changes) {
      const { done, committed } = await ask(method, at, body);
      if (committed) told.set(name, size);
      // What the next start finishes can't be changed again before it.
      if (!done && (committed || told.get(name) === undefined)) break;
      if (method === "PATCH") await ask("POST", `${url}/flushes`);
    }
  }
}

async function demandRegions(t: Test, origin: string, told: Told): Promise<void> {
  for (const [name, size] of told) {
    const { status, json } = await checkedFetch(origin, "GET", `/v1/regions/${name}`);
    const found = status === 404 ? { size: undefined, state: "ok" } : json;
    if (found.size !== size || found.state !== "ok")
      t.fail(`${name}: ${JSON.stringify(found)}, and it was to have ${size} bytes`);
  }
}

t.setTimeout(600_000);
for (const call of calls) {
  t.test(`${call} fails`, { timeout: 300_000 }, async (t) => {
    const random = new Random(seedOf(t));
    const dir = freshDir();
    const log = `${freshDir()}/strace`;
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    const witnesses = new Witnesses();
    const told: Told = new Map();
    let service = await ServiceProcess.ready({ dir, flags });
    t.teardown(() => service.remove());
    await witnesses.makeRegions(service.port);
    let injected = 0;
    const judge = async () => {
      await checkStore(dir, "killed");
      service = await ServiceProcess.ready({ dir, flags });
      await witnesses.judge(service.port, dir);
      await demandRegions(t, `http://127.0.0.1:${service.port}`, told);
    };
    // From the first call on, as on a disk that is broken or full; and one alone, somewhere.
    const [first, second] = random.between(0, 1) === 0 ? ["EIO", "ENOSPC"] : ["ENOSPC", "EIO"];
    for (const [round, [error, when]] of [
      [first, "1+"] as const,
      [second, `${random.between(2, 12)}`] as const,
    ].entries()) {
      const strace = await attach(service, injection(call, error, when, log));
      const loads = witnesses.start(service.port, random.between(0, mixCount - 1));
      await Promise.all([sleep(250), changeRegions(t, `http://127.0.0.1:${service.port}`, round, told)]);
      await witnesses.stop(loads);
      // What the page cache keeps over a kill, nobody may have called durable.
      if (call === "fdatasync" && when === "1+") t.equal(witnesses.durableAnswered(loads), 0, "durable: nothing is");
      t.equal(service.child.exitCode, null, `${error}, ${when}: it lives`);
      service.kill("SIGKILL");
      await service.ended;
      if (strace.exitCode === null) await once(strace, "exit");
      injected += injectedIn(log);
      await judge();
    }
    // A start that can't do what it must says so in a line, and the next one is none the worse for it.
    await service.stop("SIGKILL");
    const args = injection(call, first, `${random.between(1, 4)}`, log);
    const start = new ServiceProcess({ dir, flags, by: ["strace", ...args, process.execPath, main] });
    const end = await Promise.race([start.ended, start.line("ready").catch(() => undefined)]);
    if (end !== undefined && "code" in end) t.match(start.lines.at(-1)?.message ?? start.stderr, /\S/, `${end.code}`);
    if (start.child.exitCode === null) process.kill(-start.child.pid!, "SIGKILL");
    await start.ended;
    injected += injectedIn(log);
    await judge();
    t.ok(injected > 0, `${injected} calls failed, ${witnesses.answered} batches answered`);
    const { code } = await service.stop("SIGTERM");
    t.equal(code, 0, "an orderly end, once calls succeed");
    await checkStore(dir, "closed");
    rmSync(join(log, ".."), { recursive: true });
  });
}
