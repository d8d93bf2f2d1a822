// stop.test.ts - stops of the real service, one at a time: what each kind of client is told, and the exit codes.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { judge, makeRegions, scan } from "../../docker/drill/judge.js";
import { Ledger } from "../../docker/drill/ledger.js";
import { Load } from "../../docker/drill/load.js";
import { lifecycle } from "../../native/index.js";
import { RawClient } from "../raw-client.js";
import { freshDir, main, ServiceProcess, type StartOptions } from "../service-process.js";
import { slowness } from "../slowness.js";

/** How much later than promised something may be seen, on a machine at rest. */
const slackMs = 150;
const batchPath = "/v1/regions/demo/batches";
const batch = JSON.stringify({ ops: [{ op: "add", offset: 0, type: "u64", value: 1 }] });

const misbehave = ["--import", fileURLToPath(new URL("./misbehave.js", import.meta.url))];
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function started(t: Test, options: StartOptions = {}): Promise<ServiceProcess> {
  const service = await ServiceProcess.ready(options);
  t.teardown(() => service.remove());
  return service;
}

async function createRegion(
  service: ServiceProcess,
  name: string,
  size: number,
  durability = "durable",
): Promise<void> {
  const client = await RawClient.connect(service.port);
  const body = JSON.stringify({ name, size, durability });
  const answer = await client.request("POST", "/v1/regions", body);
  client.destroy();
  if (answer.status !== 201) throw new Error(answer.body);
}

/** The service with a region `demo`. */
async function startedWithDemo(t: Test, options: StartOptions = {}): Promise<ServiceProcess> {
  const service = await started(t, options);
  await createRegion(service, "demo", 16384);
  return service;
}

async function contentOf(service: ServiceProcess): Promise<Buffer> {
  return Buffer.from(await (await fetch(`http://127.0.0.1:${service.port}/v1/regions/demo/content`)).arrayBuffer());
}

const targetOf = ({ port }: ServiceProcess) => ({ host: "127.0.0.1", port });

/** Eight clients of durable regions, who have been at it for a while. */
async function underLoad(service: ServiceProcess): Promise<{ ledger: Ledger; load: Load }> {
  const ledger = new Ledger(["durable", "durable", "durable"]);
  await makeRegions(targetOf(service), ledger.epoch);
  const load = new Load(targetOf(service), ledger, { connections: 8, readers: 0 });
  await sleep(300);
  return { ledger, load };
}

/** What a later start has lost or torn of that. */
const violationsIn = async (service: ServiceProcess, { epoch }: Ledger) =>
  judge(epoch, await scan(targetOf(service), epoch)).violations;

interface LifecycleStatus {
  previousRun: object | null;
  signals: { caught: number; dispositions: object };
}

async function statusOf(service: ServiceProcess): Promise<LifecycleStatus> {
  const status = await (await fetch(`http://127.0.0.1:${service.port}/v1/status`)).json();
  return (status as { lifecycle: LifecycleStatus }).lifecycle;
}

/** A client whose answer is far more than the sockets between can hold, and who reads nothing of it yet. */
async function slowReader(service: ServiceProcess): Promise<RawClient> {
  await createRegion(service, "big", 64 << 20, "fast");
  const reader = await RawClient.connect(service.port);
  reader.socket.pause();
  reader.send("GET /v1/regions/big/content HTTP/1.1\r\nhost: localhost\r\n\r\n");
  await sleep(200);
  return reader;
}

/** The service with a way to block its event loop. */
async function blockable(
  t: Test,
  flags: string[] = [],
): Promise<{ service: ServiceProcess; block: (ms: number) => Promise<void> }> {
  const file = join(freshDir(), "block");
  const options = { flags, node: misbehave, env: { BLOCK_LOOP_FILE: file } };
  const service = await startedWithDemo(t, options);
  const block = async (ms: number) => {
    writeFileSync(`${file}.tmp`, `${ms}`);
    renameSync(`${file}.tmp`, file);
    while (existsSync(file)) await sleep(1);
  };
  return { service, block };
}

function between(t: Test, ms: number, from: number, to: number, what: string): void {
  // How busy the machine is costs time to find out, so it is asked only where it matters.
  const inTime = ms <= to + slackMs || ms <= (to + slackMs) * slowness();
  t.ok(ms >= from && inTime, `${what}: ${ms.toFixed(0)} ms, ${from} to ${to}`);
}

t.test("lame duck: reads are answered, changes are refused, every answer closes", async (t) => {
  const service = await startedWithDemo(t, { flags: ["--drain-lame-duck-ms=300", "--drain-body-grace-ms=300"] });
  const paths = ["/livez", "/readyz", "/metrics", "/v1/regions/demo"];
  // Connections from before, and new ones; the silent one keeps the lame duck alive in between.
  const before = await Promise.all([...paths, batchPath].map(() => RawClient.connect(service.port)));
  const silent = await RawClient.connect(service.port);
  const end = service.stop();
  await service.line("term");
  for (const connection of ["kept", "new"]) {
    const ask = async (index: number, method: string, path: string, body?: string) => {
      const client = connection === "kept" ? (before[index] as RawClient) : await RawClient.connect(service.port);
      const answer = await client.request(method, path, body);
      t.equal(answer.closes, true, `${path}, ${connection}: closes`);
      t.match(await client.closed(), /end|close/);
      return answer;
    };
    t.equal((await ask(0, "GET", "/livez")).status, 200);
    const ready = await ask(1, "GET", "/readyz");
    t.equal(ready.status, 503);
    t.equal((await ask(2, "GET", "/metrics")).status, 200);
    t.equal((await ask(3, "GET", "/v1/regions/demo")).status, 200);
    const refused = await ask(4, "POST", batchPath, batch);
    t.equal(refused.status, 503);
    t.equal(refused.headers["retry-after"], "1");
    t.equal(refused.headers["content-type"], "application/problem+json; charset=utf-8");
    t.match(JSON.parse(refused.body), { code: "draining", retryable: true, committed: false });
  }
  t.match(await silent.closed(), /end|close/);
  t.equal((await end).code, 0);
  t.match(service.find("drained"), { answered: 6, refused: 4, cut: 0, code: 0 });
});

t.test("an idle service stops at once, and says how the last run ended", async (t) => {
  const service = await started(t);
  t.equal((await statusOf(service)).previousRun, null);
  // The client of that request keeps its connection.
  const end = await service.stop();
  t.equal(end.code, 0);
  const again = await started(t, { dir: service.dir });
  t.match((await statusOf(again)).previousRun, { state: "ended", signal: "SIGTERM", code: 0, reason: "drained" });
  const interrupted = await again.stop("SIGINT");
  t.equal(interrupted.code, 0);
  const third = await started(t, { dir: service.dir });
  t.match((await statusOf(third)).previousRun, { state: "ended", signal: "SIGINT" });
  await third.stop("SIGKILL");
  const fourth = await started(t, { dir: service.dir });
  t.match((await statusOf(fourth)).previousRun, { state: "killed" });
  for (const event of ["gate_empty", "term", "loop_lag", "listener_closed", "drained"]) {
    t.ok(service.find(event), `one line of ${event}`);
  }
});

t.test("slow clients: nobody holds up the exit, and each is told", async (t) => {
  const service = await startedWithDemo(t);
  const [silent, halfHead, halfBody, expecting, reusing] = (await Promise.all(
    Array.from({ length: 5 }, () => RawClient.connect(service.port)),
  )) as [RawClient, RawClient, RawClient, RawClient, RawClient];
  halfHead.send("POST /v1/regions/demo/batches HTTP/1.1\r\nhost: te");
  const head = `POST ${batchPath} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${batch.length}`;
  halfBody.send(`${head}\r\n\r\n${batch.slice(0, 10)}`);
  t.equal((await reusing.request("POST", batchPath, batch)).status, 200);
  await sleep(50);

  const end = service.stop();
  const at = performance.now();
  await service.line("term");
  expecting.send(`${head}\r\nexpect: 100-continue\r\n\r\n`);
  const told = await expecting.answer();
  t.equal(told.status, 503, "Expect: 503");
  t.strictSame(told.early, [], "in place of 100");

  for (const [name, client] of Object.entries({ halfHead, halfBody })) {
    const answer = await client.answer();
    between(t, performance.now() - at, 245, 260, `${name} is answered when its time is over`);
    t.equal(answer.status, 503);
    t.match(JSON.parse(answer.body), { code: "draining", committed: false });
    t.equal(answer.closes, true);
  }
  t.match(await silent.closed(), /end|close/, "no bytes: closed");
  t.match(await reusing.closed(), /end|close/, "an idle one: closed");
  const { code, ms } = await end;
  t.equal(code, 0);
  between(t, ms, 250, 380, "TERM to exit");
  t.match(service.find("drained"), { refused: 3, cut: 0 });

  const again = await started(t, { dir: service.dir });
  t.equal((await contentOf(again)).readBigUInt64LE(0), 1n, "nothing of the refused ones was written");
});

t.test("a body that arrives in time is read, and its batch refuses itself", async (t) => {
  const service = await startedWithDemo(t);
  const client = await RawClient.connect(service.port);
  client.send(
    `POST ${batchPath} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${batch.length}\r\n\r\n${batch.slice(0, 10)}`,
  );
  await sleep(50);
  const end = service.stop();
  await service.line("term");
  await sleep(60);
  client.send(batch.slice(10));
  const answer = await client.answer();
  t.equal(answer.status, 503);
  t.match(JSON.parse(answer.body), { code: "draining", committed: false });
  t.equal((await end).code, 0);
});

t.test("a large body that nobody wants any more: its client gets the 503 and no reset", async (t) => {
  const service = await startedWithDemo(t);
  const client = await RawClient.connect(service.port);
  const end = service.stop();
  await service.line("term");
  const size = 4 << 20;
  client.send(
    `PUT /v1/regions/new/content HTTP/1.1\r\nhost: localhost\r\nif-none-match: *\r\ncontent-type: application/octet-stream\r\ncontent-length: ${size}\r\n\r\n`,
  );
  client.send("x".repeat(size));
  t.equal((await client.answer()).status, 503);
  t.equal((await end).code, 0);
});

t.test("Expect: 100-continue is answered while the service runs", async (t) => {
  const service = await startedWithDemo(t);
  const client = await RawClient.connect(service.port);
  const waiting = client.request("POST", batchPath, batch, { expect: "100-continue" });
  const answer = await waiting;
  t.strictSame(answer.early, [100]);
  t.equal(answer.status, 200);
  client.destroy();
});

t.test("pipelined requests: only the last answer closes", async (t) => {
  const service = await startedWithDemo(t);
  const { end, answers } = await (async () => {
    const client = await RawClient.connect(service.port);
    const end = service.stop();
    await service.line("term");
    client.send("GET /v1/regions/demo HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(3));
    const answers = [await client.answer()];
    // Either the first one closed, before the parser had seen the second, or all three are answered.
    while (answers.at(-1)?.closes === false) answers.push(await client.answer());
    return { end, answers };
  })();
  t.equal(answers.at(-1)?.closes, true);
  t.equal(
    answers.every((answer) => answer.status === 200),
    true,
  );
  t.equal((await end).code, 0);
});

t.test("a client that doesn't read is cut at the soft deadline: 75", async (t) => {
  const service = await started(t);
  const reader = await slowReader(service);
  const { code, ms } = await service.stop();
  t.equal(code, 75);
  between(t, ms, 595, 650, "TERM to exit");
  t.match(service.find("drained"), { cut: 1, code: 75, reason: "soft_deadline" });
  reader.destroy();
});

t.test("a second TERM cuts, whether 2 or 100 of them", async (t) => {
  for (const signals of [2, 100]) {
    const service = await started(t);
    const reader = await slowReader(service);
    const end = service.stop();
    for (let sent = 1; sent < signals; sent++) {
      await sleep(signals === 2 ? 150 : 1);
      service.kill(sent % 2 === 0 ? "SIGTERM" : "SIGINT");
    }
    const { code, ms } = await end;
    t.equal(code, 75, `${signals} signals`);
    between(t, ms, 50, signals === 2 ? 200 : 120, "TERM to exit");
    t.match(service.find("drained"), { cut: 1, code: 75, reason: "second_signal" });
    t.ok(service.find("second_signal"));
    reader.destroy();
  }
});

t.test("what was forwarded to the process twice is one request", async (t) => {
  const service = await started(t);
  const end = service.stop("SIGINT");
  await sleep(3);
  service.kill("SIGINT");
  t.equal((await end).code, 0);
});

t.test("^C under npm start: the first drains, the second cuts at once", async (t) => {
  // npm passes on what the terminal has already sent to the whole group: each ^C comes twice.
  const options: StartOptions = {
    by: ["npm", "start", "--silent", "--"],
    flags: ["--drain-soft-ms=20000", "--drain-hard-ms=30000"],
  };
  const service = await ServiceProcess.ready(options);
  const interruptGroup = () => process.kill(-service.child.pid!, "SIGINT");
  t.teardown(async () => {
    try {
      process.kill(-service.child.pid!, "SIGKILL");
    } catch {
      // All of the group has ended.
    }
    await service.remove();
  });
  const reader = await slowReader(service);
  interruptGroup();
  await service.line("listener_closed");
  await sleep(500);
  t.notOk(service.find("second_signal"), "what npm forwards is the same request");
  t.notOk(service.find("drained"), "the slow reader is waited for");
  const at = performance.now();
  interruptGroup();
  await service.line("drained");
  between(t, performance.now() - at, 0, 50, "second ^C to the last line");
  t.match(service.find("drained"), { cut: 1, code: 75, reason: "second_signal" });
  t.equal((await service.ended).code, 75, "and npm ends with the code of the service");
  reader.destroy();
});

t.test("an event loop that is blocked: exit 75 at the soft deadline, nothing that was answered is lost", async (t) => {
  const { service, block } = await blockable(t);
  const { ledger, load } = await underLoad(service);
  await block(5000);
  await sleep(50);
  const { code, ms } = await service.stop();
  t.equal(code, 75);
  between(t, ms, 599, 650, "TERM to exit");
  t.ok(service.find("event_loop_blocked"));
  t.match(service.find("exit"), { code: 75, reason: "event_loop_blocked", gate: 0 });
  await load.stop();
  const again = await started(t, { dir: service.dir });
  t.strictSame(await violationsIn(again, ledger), []);
  t.match((await statusOf(again)).previousRun, { state: "ended", code: 75, reason: "event_loop_blocked" });
});

t.test(
  "a batch that is longer than the deadlines: waited for at the soft one, left to recovery at the hard one",
  async (t) => {
    const cases = [
      { sleepMs: 1500, flags: [], code: 75, from: 1200, to: 1500 },
      { sleepMs: 9000, flags: ["--drain-hard-ms=1000"], code: 70, from: 995, to: 1000 },
    ];
    for (const { sleepMs, flags, code, from, to } of cases) {
      const dir = freshDir();
      const quick = await startedWithDemo(t, { dir });
      await quick.stop();
      const service = await started(t, {
        dir,
        flags,
        env: { HOLDFAST_FAILPOINTS: `commit_published=sleep:${sleepMs}` },
      });
      const client = await RawClient.connect(service.port);
      // It is published and sleeps inside of its section.
      const lost = client.request("POST", batchPath, batch).catch((error: unknown) => error);
      await sleep(200);
      const end = await service.stop();
      t.equal(end.code, code);
      between(t, end.ms, from, to, `a batch of ${sleepMs} ms`);
      await lost;
      const again = await started(t, { dir });
      t.equal((await contentOf(again)).readBigUInt64LE(0), 1n, "and it is there");
      t.match((await statusOf(again)).previousRun, { code });
    }
  },
);

t.test("an uncaught error: told, 1, and the next run knows", async (t) => {
  const service = await started(t, { node: misbehave });
  service.kill("SIGHUP");
  t.equal((await service.ended).code, 1);
  t.match(service.find("uncaught"), { level: "fatal", err: { message: "thrown on request" } });
  const again = await started(t, { dir: service.dir });
  t.match((await statusOf(again)).previousRun, { state: "ended", code: 1, reason: "uncaught_error" });
});

t.test("connections that wait in the accept queue when the listener closes are answered", async (t) => {
  // Without a lame duck, in which the event loop would accept them one by one.
  const { service, block } = await blockable(t, ["--drain-lame-duck-ms=0", "--drain-soft-ms=3000"]);
  await block(1000);
  // Established by the kernel, which libuv has not heard of yet.
  const waiting = await Promise.all(Array.from({ length: 50 }, () => RawClient.connect(service.port)));
  const answers = waiting.map((client, index) =>
    index % 2 === 0 ? client.request("GET", "/v1/regions/demo") : client.request("POST", batchPath, batch),
  );
  const end = service.stop();
  const statuses = (await Promise.all(answers)).map((answer) => answer.status);
  t.strictSame(
    statuses,
    statuses.map((_, index) => (index % 2 === 0 ? 200 : 503)),
  );
  t.equal((await end).code, 0);
  const rescued = service.find("listener_closed")?.rescued as number;
  t.ok(rescued >= waiting.length / 2, `${rescued} of ${waiting.length} were rescued`);
});

t.test("time in the freezer does not count", async (t) => {
  const service = await started(t, { flags: ["--drain-soft-ms=2000"] });
  const reader = await slowReader(service);
  const end = service.stop();
  await service.line("term");
  service.kill("SIGSTOP");
  await sleep(3000);
  service.kill("SIGCONT");
  // It has the rest of its 2 s.
  reader.socket.resume();
  const { code, ms } = await end;
  t.equal(code, 0);
  t.ok(ms > 3000);
  t.match(service.find("drained"), { answered: 1, cut: 0 });
});

t.test("immediate: exits at once with 75, and still no batch is cut", async (t) => {
  const service = await startedWithDemo(t, { flags: ["--shutdown-mode=immediate"] });
  const { ledger, load } = await underLoad(service);
  const { code, ms } = await service.stop();
  t.equal(code, 75);
  between(t, ms, 0, 20, "TERM to exit");
  await load.stop();
  const again = await started(t, { dir: service.dir });
  t.strictSame(await violationsIn(again, ledger), []);
});

t.test("a TERM every 10 ms of the start-up", async (t) => {
  const dir = freshDir();
  const ends: Record<string, number> = {};
  let readyAtMs = 0;
  for (let after = 0; readyAtMs === 0 && after < 3000; after += 10) {
    const service = new ServiceProcess({ dir });
    await sleep(after);
    if (service.find("ready")) readyAtMs = after;
    const { code, signal, ms } = await service.stop();
    const how = signal ?? `code ${code}`;
    ends[how] = (ends[how] ?? 0) + 1;
    // Before the first statement the signal has its default action; afterwards there is nothing to lose.
    if (signal !== "SIGTERM") t.equal(code, 0, `after ${after} ms`);
    between(t, ms, 0, 100, `after ${after} ms`);
  }
  t.comment(`ready after ${readyAtMs} ms; ${JSON.stringify(ends)}`);
  t.ok(readyAtMs > 0);
  const service = await started(t, { dir });
  t.equal((await service.stop()).code, 0);
});

t.test("dispositions stay ours when a library takes them", async (t) => {
  const service = await startedWithDemo(t, { node: misbehave });
  const dispositions = async () => (await statusOf(service)).signals;
  t.match(await dispositions(), { dispositions: { term: true, interrupt: true, bus: true, repaired: 0 } });
  service.kill("SIGUSR2");
  await service.line("disposition_repaired");
  t.match(await dispositions(), { dispositions: { term: true, interrupt: true, bus: true, repaired: 1 } });
  t.equal((await service.stop()).code, 0);
});

t.test("a unix socket: made, left to nobody, replaced when stale", async (t) => {
  const path = join(freshDir(), "socket");
  const ask = async () => {
    const socket = connect(path);
    await once(socket, "connect");
    socket.end("GET /livez HTTP/1.0\r\n\r\n");
    return String(Buffer.concat(await socket.toArray()));
  };
  const service = await started(t, { flags: [`--socket-path=${path}`] });
  t.match(await ask(), /^HTTP\/1.1 200/);
  const second = new ServiceProcess({ flags: [`--socket-path=${path}`] });
  t.equal((await second.ended).code, 78, "somebody listens there");
  t.match(second.stderr, /can't listen on .*socket/);
  await second.remove();
  t.equal((await service.stop()).code, 0);
  t.equal(existsSync(path), false, "the file is gone");

  const killed = await started(t, { flags: [`--socket-path=${path}`] });
  await killed.stop("SIGKILL");
  t.equal(existsSync(path), true);
  const again = await started(t, { flags: [`--socket-path=${path}`] });
  t.match(await ask(), /^HTTP\/1.1 200/);
  t.equal((await again.stop()).code, 0);
});

function dirOf(t: Test): string {
  const dir = freshDir();
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** The service with a listening socket of a service manager. `said`: on both streams. */
function inheriting(fd: number, dir: string, ...flags: string[]) {
  // The shell knows the process id that it becomes.
  const words = ["LISTEN_PID=$$ LISTEN_FDS=1 exec", process.execPath, main, `--data-dir=${dir}`, ...flags].join(" ");
  const child = spawn("sh", ["-c", words], { stdio: ["ignore", "pipe", "pipe", fd] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (more: string) => {
      text += more;
    });
  }
  return { child, said: () => text };
}

t.test("a socket that a service manager holds outlives the stop", async (t) => {
  const fd = lifecycle.listenTcp("127.0.0.1", 0);
  const dir = dirOf(t);
  const run = () => inheriting(fd, dir);
  const first = run();
  while (!first.said().includes('"event":"ready"')) await sleep(10);
  const port = Number(/"port":(\d+)/.exec(first.said())?.[1]);
  t.equal((await fetch(`http://127.0.0.1:${port}/readyz`)).status, 200);
  const exited = once(first.child, "exit");
  first.child.kill("SIGTERM");
  t.strictSame(await exited, [0, null]);
  // Between two runs the kernel goes on accepting.
  const between = await RawClient.connect(port);
  const answer = between.request("GET", "/livez");
  const second = run();
  t.equal((await answer).status, 200);
  const gone = once(second.child, "exit");
  second.child.kill("SIGTERM");
  t.strictSame(await gone, [0, null]);
  closeSync(fd);
});

// HOST, which is not used then, said "loopback": everybody could read and write without a token.
t.test("a service manager's socket beyond loopback is served to nobody without a token", async (t) => {
  const fd = lifecycle.listenTcp("0.0.0.0", 0);
  t.teardown(() => closeSync(fd));
  const dir = dirOf(t);
  const refused = inheriting(fd, dir);
  t.strictSame(await once(refused.child, "close"), [78, null]);
  t.match(refused.said(), /^holdfast: 0\.0\.0\.0:\d+ can be reached from other machines: set AUTH_TOKEN, or [^\n]*\n$/);
  const port = Number(/0:(\d+) can be/.exec(refused.said())?.[1]);
  const cases: [string, number][] = [
    ["--auth-token=a-word-for-nobody", 401],
    ["--auth=none", 200],
  ];
  for (const [flag, status] of cases) {
    // The kernel has accepted it; whoever comes first has to answer.
    const client = await RawClient.connect(port);
    const answer = client.request("GET", "/v1/regions");
    const { child, said } = inheriting(fd, dir, flag);
    while (!said().includes('"event":"ready"')) await sleep(10);
    t.equal((await fetch(`http://127.0.0.1:${port}/v1/regions`)).status, status, flag);
    t.ok([status, 503].includes((await answer).status), "503 while the store is being opened");
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    t.strictSame(await ended, [0, null]);
    client.destroy();
  }
});

t.test("what a person has to mend ends the start with 78 and one line", async (t) => {
  const service = await started(t);
  const cases: [string[], RegExp][] = [
    [[`--port=${service.port}`], /^holdfast: can't listen on 127\.0\.0\.1:\d+: Address already in use\n$/],
    [["--host=no-such-host.invalid"], /^holdfast: can't listen on no-such-host\.invalid:0: .+\n$/],
    [["--drain-soft-ms=50"], /^holdfast: DRAIN_BODY_GRACE_MS.*\n$/],
    [["--map=words=/no/such/file"], /^holdfast: \/no\/such\/file can't be mapped as words: there is no such file\n$/],
  ];
  for (const [flags, sentence] of cases) {
    const refused = new ServiceProcess({ flags });
    t.equal((await refused.ended).code, 78, `${flags}`);
    t.match(refused.stderr, sentence);
    await refused.remove();
  }
  const second = new ServiceProcess({ dir: service.dir, flags: ["--standby=false"] });
  t.equal((await second.ended).code, 78);
  t.match(second.stderr, /^holdfast: the store in .* can't be opened: .+\n$/);
});

t.test("a standby answers 503, takes over, and stops like any other", async (t) => {
  const writer = await startedWithDemo(t);
  const standby = new ServiceProcess({ dir: writer.dir });
  await standby.line("listening");
  const url = `http://127.0.0.1:${standby.port}`;
  let ready = await fetch(`${url}/readyz`);
  while ((await ready.text()).includes("starting")) ready = await fetch(`${url}/readyz`);
  t.equal(ready.status, 503);
  t.equal((await fetch(`${url}/livez`)).status, 200);
  t.match(await (await fetch(`${url}/v1/regions`)).json(), { code: "standby" });

  const third = new ServiceProcess({ dir: writer.dir });
  await third.line("listening");
  t.equal((await third.stop()).code, 0, "a standby is stopped");

  writer.kill("SIGKILL");
  await standby.line("ready");
  t.equal((await fetch(`${url}/v1/regions/demo`)).status, 200);
  t.equal((await standby.stop()).code, 0);
});

t.test("a token that was made is shown once, on stderr, with a link", async (t) => {
  const service = await started(t, { flags: ["--host=0.0.0.0"] });
  const token = /#token=(\S+)/.exec(service.stderr)?.[1];
  t.equal(service.stderr.split("\n").length, 2, "one line");
  t.equal(JSON.stringify(service.lines).includes(token as string), false, "and nothing in the log");
  const url = `http://127.0.0.1:${service.port}/v1/regions`;
  t.equal((await fetch(url)).status, 401);
  t.equal((await fetch(url, { headers: { authorization: `Bearer ${token}` } })).status, 200);
  t.equal((await service.stop()).code, 0);
});

t.test("an adopted file is the same region at the next start", async (t) => {
  const file = join(freshDir(), "words");
  writeFileSync(file, "one two three four five six seven eight");
  const flags = [`--map=words=${file}`];
  const service = await started(t, { flags });
  const read = async (from: ServiceProcess) =>
    (await fetch(`http://127.0.0.1:${from.port}/v1/regions/words/content`)).text();
  t.equal(await read(service), readFileSync(file, "latin1"));
  await service.stop();
  const again = await started(t, { flags, dir: service.dir });
  t.equal(await read(again), readFileSync(file, "latin1"));
  await again.stop();
  t.equal(statSync(file).size, 39);
  const other = new ServiceProcess({ flags: [`--map=words=${file}.other`], dir: service.dir });
  t.equal((await other.ended).code, 78);
  t.match(other.stderr, /there is another region of this name/);
});

t.test("a start that finds regions in doubt says so, in the log and of each region", async (t) => {
  // What a restart of the machine left of `fast` regions, or of a damaged journal, was in /v1/status alone.
  const first = await started(t);
  await createRegion(first, "quick", 4096, "fast");
  await createRegion(first, "sure", 4096);
  await first.stop("SIGKILL");
  // As if the machine had been started anew since: the words name another boot (StoreWords in native/format.h).
  const words = openSync(join(first.dir, "store.lock"), "r+");
  writeSync(words, Buffer.alloc(16, 0x5a), 0, 16, 8);
  closeSync(words);
  const second = await started(t, { dir: first.dir });
  t.match(await second.line("in_doubt"), { level: "warn", faulted: [], unverified: ["quick"] });
  const region = await (await fetch(`http://127.0.0.1:${second.port}/v1/regions/quick`)).json();
  t.match(region, { integrity: "unverified" });
  await second.stop();
});

// The error of standard output was nobody's: it ended the process with code 1 in place of the drain.
t.test("a log whose reader has gone ends nothing", async (t) => {
  const service = await started(t);
  await createRegion(service, "a", 4096);
  service.child.stdout?.destroy();
  service.kill("SIGTERM");
  t.equal((await service.ended).code, 0);
});

// Closing the listener needs a descriptor; without one the drain was an uncaught error.
t.test("a stop at the limit of descriptors drains", async (t) => {
  const by = ["sh", "-c", 'ulimit -n 60; exec "$@"', "sh", process.execPath, main] as const;
  const service = await started(t, { by });
  const sockets = Array.from({ length: 100 }, () => connect(service.port, "127.0.0.1").on("error", () => {}));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
  });
  await sleep(200);
  t.ok(readdirSync(`/proc/${service.child.pid}/fd`).length >= 59, "none is left");
  service.kill("SIGTERM");
  const { code } = await service.ended;
  t.equal(code, 0, service.stderr);
});
