// test/bench/main.ts - `npm run bench`: the service against its floor, the native commit against a plain memcpy, and starts.
//
// Identical processes differ by 20 % from start to start, so each figure is the median of ratios of pairs: in each round
// every contestant runs in a fresh process with a fresh store, one after another, in an order that rotates. The server is
// pinned to one core and the client to another. It prints ratios with their spread and appends one line of JSON.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { arch, availableParallelism, cpus, release, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Case, cases, type Mode, modes, requestsOf, scattered, whole, wireBytes } from "./cases.js";
import { measureStarts } from "./starts.js";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const help = `npm run bench [-- OPTIONS]

  --quick              one short round of everything with 16 connections: shows that it runs, not how fast
  --case NAME          only this case (repeatable): ${cases.map((one) => one.name).join(", ")}, stream, native, starts
  --mode NAME          only this durability (repeatable): ${modes.join(", ")}
  --connections N      only this many connections (repeatable; 16 and 64)
  --rounds N           fresh processes for each contestant (5)
  --seconds S          measured seconds of each run, after a third as much to warm up (3)
  --seed N             of payloads and offsets (1)
  --dir PATH           where the stores lie: the disk that is measured (build/bench)
  --out FILE           where the line of JSON is appended (build/bench/results.jsonl)
  --help
`;

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    case: { type: "string", multiple: true },
    mode: { type: "string", multiple: true },
    connections: { type: "string", multiple: true },
    rounds: { type: "string" },
    seconds: { type: "string" },
    seed: { type: "string", default: "1" },
    dir: { type: "string", default: join(root, "build/bench") },
    out: { type: "string", default: join(root, "build/bench/results.jsonl") },
    help: { type: "boolean", default: false },
  },
});
if (options.help) {
  process.stdout.write(help);
  process.exit(0);
}

function wrong(sentence: string): never {
  process.stderr.write(`bench: ${sentence}\n`);
  process.exit(64);
}

function positive(name: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!(value > 0)) wrong(`--${name} takes a positive number, not "${text}"`);
  return value;
}

const rounds = positive("rounds", options.rounds, options.quick ? 1 : 5);
const seconds = positive("seconds", options.seconds, options.quick ? 0.5 : 3);
const seed = positive("seed", options.seed, 1);
const connectionCounts = options.connections?.map((text) => positive("connections", text, 16)) ?? [
  16,
  ...(options.quick ? [] : [64]),
];
for (const name of options.case ?? []) {
  if (!["stream", "native", "starts"].includes(name) && !cases.some((one) => one.name === name)) {
    wrong(`no case "${name}"; see --help`);
  }
}
for (const name of options.mode ?? []) if (!modes.some((mode) => mode === name)) wrong(`no durability "${name}"`);
const chosenCases = cases.filter((one) => options.case?.includes(one.name) ?? true);
const chosenModes = modes.filter((mode) => options.mode?.includes(mode) ?? true);
const dir = resolve(options.dir);

type Contestant = "floor" | Mode;

interface Run {
  requests: number;
  seconds: number;
  p50Us: number;
  p99Us: number;
  badStatuses: number;
  brokenConnections: number;
}

/** What a figure is to reach at least, as a ratio to the floor. */
function goal(work: Case, mode: Mode, connections: number): number | undefined {
  if (mode === "fast" && (work.name === "write64" || work.name === "add10")) return 0.85;
  if (mode === "fast" && work.name === "get4k") return 0.9;
  if (mode === "durable" && work.name === "write64" && connections === 64) return 0.5;
  return undefined;
}

/** Batches that a stream carries at least for each that comes in a request of its own. */
const streamGoal = 5;

const has = (command: string) => spawnSync(command, ["--version"], { stdio: "ignore" }).error === undefined;
const pinned = has("taskset") && availableParallelism() >= 2;
const client = has("wrk") ? "wrk" : "autocannon";
const onCore = (core: number, command: string[]) => (pinned ? ["taskset", "-c", String(core), ...command] : command);

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

interface Server {
  port: number;
  stop(): Promise<void>;
}

async function start(contestant: Contestant): Promise<Server> {
  const port = await freePort();
  const store = join(dir, "store");
  rmSync(store, { recursive: true, force: true });
  const script =
    contestant === "floor"
      ? [join(root, "dist/test/bench/floor.js"), String(port)]
      : [
          ...[join(root, "dist/service/main.js"), "--host=127.0.0.1", `--port=${port}`],
          ...[`--data-dir=${store}`, "--log-level=warn"],
        ];
  const [command, ...args] = onCore(0, [process.execPath, ...script]);
  // Only what a process needs: a setting left in this shell's environment would be measured with it.
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, NODE_ENV: "production" };
  const child = spawn(command!, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (chunk) => (said += chunk));
  child.stderr.on("data", (chunk) => (said += chunk));
  const exited = once(child, "exit");
  for (let tries = 0; ; tries++) {
    const ready = await fetch(`http://127.0.0.1:${port}/readyz`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (ready) break;
    if (child.exitCode !== null || tries > 1000) {
      child.kill("SIGKILL");
      throw new Error(`${contestant} did not become ready (exit code ${child.exitCode}):\n${said}`);
    }
    await sleep(20);
  }
  return {
    port,
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
      const [code, signal] = await exited;
      clearTimeout(timer);
      // The floor has no handler, so the signal ends it.
      if (contestant !== "floor" && code !== 0) throw new Error(`${contestant} exited ${code ?? signal}:\n${said}`);
    },
  };
}

async function createRegions(port: number, durability: Mode): Promise<void> {
  for (const region of [scattered, whole]) {
    const answer = await fetch(`http://127.0.0.1:${port}/v1/regions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: region.name, size: region.bytes, durability }),
    });
    if (answer.status !== 201) throw new Error(`creating ${region.name}: ${answer.status} ${await answer.text()}`);
  }
}

/** One request by hand: an answer that is quick because it is wrong must not be measured. */
async function probe(port: number, work: Case): Promise<number> {
  const request = requestsOf(work, seed)[0]!;
  const answer = await fetch(`http://127.0.0.1:${port}${request.path}`, {
    method: request.method,
    headers: request.headers,
    ...(request.body && { body: new Uint8Array(request.body) }),
  });
  const body = Buffer.from(await answer.arrayBuffer());
  if (answer.status !== work.status || (work.answerBytes ?? body.length) !== body.length) {
    throw new Error(`${work.name}: ${answer.status} with ${body.length} bytes: ${body.subarray(0, 400)}`);
  }
  if (work.answerBytes === undefined) {
    const { committed, results } = JSON.parse(body.toString());
    const asked = JSON.parse(request.body!.toString()).ops.length;
    if (committed !== true || results.length !== asked) throw new Error(`${work.name}: answered ${body}`);
  }
  return body.length;
}

async function load(port: number, work: Case, connections: number, forSeconds: number): Promise<Run> {
  const file = join(dir, `${work.name}.requests`);
  if (client === "wrk" && !existsSync(file)) {
    const parts = requestsOf(work, seed).map(wireBytes);
    writeFileSync(file, Buffer.concat(parts.flatMap((part) => [Buffer.from(`${part.length}\n`), part])));
  }
  const command =
    client === "wrk"
      ? // wrk counts whole seconds; a shorter run is ended by timeout's SIGINT, at which wrk still sums up.
        [
          ...["timeout", "--signal=INT", String(forSeconds), "wrk", "-t1", `-c${connections}`, "-d3600s"],
          ...["-s", join(root, "test/bench/wrk.lua"), `http://127.0.0.1:${port}`, "--", file],
        ]
      : [
          ...[process.execPath, join(root, "dist/test/bench/client.js"), String(port), String(connections)],
          ...[String(Math.max(1, forSeconds)), work.name, String(seed)],
        ];
  const [name, ...args] = onCore(1, command);
  const child = spawn(name!, args, { stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  child.stdout.on("data", (chunk) => (out += chunk));
  child.stderr.on("data", (chunk) => (out += chunk));
  await once(child, "close");
  const line = out.split("\n").findLast((text) => text.startsWith("{"));
  if (line === undefined) throw new Error(`${client} printed no result:\n${out}`);
  return JSON.parse(line);
}

interface StreamRun {
  answers: number;
  seconds: number;
}

/** Batches a second over streams, by a client that sends as fast as it is answered. */
async function loadStream(port: number, kind: "lines" | "frames", connections: number, forSeconds: number) {
  const script = join(root, "dist/test/bench/stream-client.js");
  const args = [script, String(port), String(connections), String(forSeconds), kind, String(seed)];
  const [name, ...rest] = onCore(1, [process.execPath, ...args]);
  const child = spawn(name!, rest, { stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  child.stdout.on("data", (chunk) => (out += chunk));
  child.stderr.on("data", (chunk) => (out += chunk));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`the stream's client exited ${code}:\n${out}`);
  return JSON.parse(out) as StreamRun;
}

interface StreamFigure {
  mode: Mode;
  connections: number;
  kind: "lines" | "frames";
  /** To one JSON batch a request, in the same process of the service. */
  ratio: { median: number; min: number; max: number };
  perSecond: number;
  requestsPerSecond: number;
}

/** What a stream of batches gains over one batch a request: both in each fresh process, one after the other. */
async function compareStreams(mode: Mode, connections: number): Promise<StreamFigure[]> {
  const work = cases.find(({ name }) => name === "write64")!;
  const kinds = ["lines", "frames"] as const;
  const samples: { requests: number; lines: number; frames: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    const server = await start(mode);
    try {
      await createRegions(server.port, mode);
      await probe(server.port, work);
      await load(server.port, work, connections, seconds / 3);
      const run = await load(server.port, work, connections, seconds);
      const sample = { requests: run.requests / run.seconds, lines: 0, frames: 0 };
      for (const kind of round % 2 === 0 ? kinds : kinds.toReversed()) {
        await loadStream(server.port, kind, connections, seconds / 3);
        const { answers, seconds: took } = await loadStream(server.port, kind, connections, seconds);
        sample[kind] = answers / took;
      }
      samples.push(sample);
    } finally {
      await server.stop();
    }
  }
  return kinds.map((kind) => {
    const ratios = sorted(samples.map((sample) => sample[kind] / sample.requests));
    return {
      mode,
      connections,
      kind,
      ratio: { median: median(ratios), min: ratios[0]!, max: ratios.at(-1)! },
      perSecond: Math.round(median(samples.map((sample) => sample[kind]))),
      requestsPerSecond: Math.round(median(samples.map(({ requests }) => requests))),
    };
  });
}

interface Sample extends Run {
  perSecond: number;
  answerBytes: number;
}

async function measure(contestant: Contestant, work: Case, connections: number): Promise<Sample> {
  const server = await start(contestant);
  try {
    if (contestant !== "floor") await createRegions(server.port, contestant);
    const answerBytes = await probe(server.port, work);
    await load(server.port, work, connections, seconds / 3);
    const run = await load(server.port, work, connections, seconds);
    if (run.requests === 0 || run.badStatuses > 0 || run.brokenConnections > 0) {
      throw new Error(`${contestant}, ${work.name}: ${JSON.stringify(run)}`);
    }
    return { ...run, perSecond: run.requests / run.seconds, answerBytes };
  } finally {
    await server.stop();
  }
}

const sorted = (numbers: number[]) => numbers.toSorted((a, b) => a - b);
function median(numbers: number[]): number {
  const inOrder = sorted(numbers);
  const middle = Math.floor(inOrder.length / 2);
  return inOrder.length % 2 === 1 ? inOrder[middle]! : (inOrder[middle - 1]! + inOrder[middle]!) / 2;
}

function versionOf(command: string, args: string[]): string {
  const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  return `${stdout ?? ""}${stderr ?? ""}`.split("\n")[0]!.trim();
}

function machine() {
  const versionIn = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8")).version as string;
  const git = spawnSync("git", ["-C", root, "describe", "--always", "--dirty"], { encoding: "utf8" });
  return {
    at: new Date().toISOString(),
    holdfast: `${versionIn("package.json")}${git.status === 0 ? ` (${git.stdout.trim()})` : ""}`,
    node: process.version,
    fastify: versionIn("node_modules/fastify/package.json"),
    client: client === "wrk" ? versionOf("wrk", ["-v"]).replace(/ Copyright.*/, "") : "autocannon",
    compiler: versionOf(process.env.CXX ?? "g++", ["--version"]),
    kernel: release(),
    arch: arch(),
    processor: `${availableParallelism()} x ${cpus()[0]?.model ?? "?"}`,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    fileSystemType: `0x${statfsSync(dir).type.toString(16)}`,
    pinned,
    rounds,
    seconds,
    seed,
  };
}

interface Figure {
  case: string;
  mode: Mode;
  connections: number;
  ratio: { median: number; min: number; max: number };
  perSecond: number;
  floorPerSecond: number;
  p50Us: number;
  p99Us: number;
  answerBytes: number;
  floorAnswerBytes: number;
  goal?: number;
}

async function compare(work: Case, connections: number): Promise<Figure[]> {
  const samples = new Map<Contestant, Sample[]>();
  const field: Contestant[] = ["floor", ...chosenModes];
  for (let round = 0; round < rounds; round++) {
    // Rotated: whoever always ran first would always find the disk and the processor cooler.
    for (let place = 0; place < field.length; place++) {
      const contestant = field[(place + round) % field.length]!;
      const sample = await measure(contestant, work, connections);
      samples.set(contestant, [...(samples.get(contestant) ?? []), sample]);
    }
  }
  const floor = samples.get("floor")!;
  return chosenModes.map((mode) => {
    const own = samples.get(mode)!;
    const ratios = sorted(own.map((sample, round) => sample.perSecond / floor[round]!.perSecond));
    const reach = goal(work, mode, connections);
    return {
      case: work.name,
      mode,
      connections,
      ratio: { median: median(ratios), min: ratios[0]!, max: ratios.at(-1)! },
      perSecond: Math.round(median(own.map((sample) => sample.perSecond))),
      floorPerSecond: Math.round(median(floor.map((sample) => sample.perSecond))),
      p50Us: Math.round(median(own.map((sample) => sample.p50Us))),
      p99Us: Math.round(median(own.map((sample) => sample.p99Us))),
      answerBytes: own[0]!.answerBytes,
      floorAnswerBytes: floor[0]!.answerBytes,
      ...(reach !== undefined && { goal: reach }),
    };
  });
}

function row(cells: string[]): string {
  const widths = [31, 8, 5, 23, 11, 10, 9, 9];
  return cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i] ?? 0))).join(" ");
}

function verdict(figure: Figure): string {
  if (figure.goal === undefined) return "";
  if (options.quick) return `  (goal ${figure.goal})`;
  return `  ${figure.ratio.median >= figure.goal ? "reaches" : "MISSES"} ${figure.goal}`;
}

/** The commit path without HTTP or Node beside a memcpy of the same bytes: a C++ program, which says one JSON a line. */
function nativeCommit(): Record<string, unknown>[] {
  const built = spawnSync("make", ["--silent", "-C", join(root, "test/native"), "release/bench_commit"], {
    encoding: "utf8",
  });
  if (built.status !== 0) throw new Error(`bench_commit could not be built:\n${built.stderr}`);
  const store = join(dir, "native");
  rmSync(store, { recursive: true, force: true });
  mkdirSync(store);
  const program = join(root, "build/test-native/release/bench_commit");
  const [command, ...args] = onCore(0, [program, store, ...(options.quick ? ["--quick"] : [])]);
  const ran = spawnSync(command!, args, { encoding: "utf8" });
  rmSync(store, { recursive: true, force: true });
  if (ran.status !== 0) throw new Error(`bench_commit exited ${ran.status ?? ran.signal}:\n${ran.stdout}${ran.stderr}`);
  const lines = ran.stdout.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line) => JSON.parse(line));
}

mkdirSync(dir, { recursive: true });
for (const work of cases) rmSync(join(dir, `${work.name}.requests`), { force: true });
const about = machine();
console.log(`holdfast against bare Fastify (1.00 = the floor), ${rounds} fresh processes each, ${seconds} s a run`);
for (const [name, value] of Object.entries(about)) console.log(`  ${name}: ${value}`);
if (!pinned) console.log("  NOT PINNED: with one core, or without taskset, server and client share their cores");
if (options.quick) console.log("  QUICK: shows that everything runs; the figures are too short to compare");
console.log("");

const figures: Figure[] = [];
const native: Record<string, unknown>[] = [];
if (chosenCases.length > 0) {
  console.log(row(["case", "mode", "conns", "ratio [min..max]", "requests/s", "floor", "p50 us", "p99 us"]));
  for (const connections of connectionCounts) {
    for (const work of chosenCases) {
      for (const figure of await compare(work, connections)) {
        figures.push(figure);
        const { ratio } = figure;
        const spread = `${ratio.median.toFixed(2)} [${ratio.min.toFixed(2)}..${ratio.max.toFixed(2)}]`;
        const cells = [work.about, figure.mode, String(connections), spread, String(figure.perSecond)];
        cells.push(String(figure.floorPerSecond), String(figure.p50Us), String(figure.p99Us));
        console.log(row(cells) + verdict(figure));
      }
    }
  }
}

const streams: StreamFigure[] = [];
if (options.case?.includes("stream") ?? true) {
  console.log("\nbatches a second over streams, beside one JSON batch a request in the same process (1.00)");
  // In a quick run one durability shows that it works.
  for (const mode of options.quick ? chosenModes.slice(0, 1) : chosenModes) {
    for (const connections of connectionCounts) {
      for (const figure of await compareStreams(mode, connections)) {
        streams.push(figure);
        const { ratio } = figure;
        const spread = `${ratio.median.toFixed(1)} [${ratio.min.toFixed(1)}..${ratio.max.toFixed(1)}]`;
        const verdict = options.quick
          ? ""
          : ratio.median >= streamGoal
            ? `  reaches ${streamGoal}`
            : `  MISSES ${streamGoal}`;
        const what = `${figure.kind.padEnd(7)} ${mode.padEnd(8)} ${String(connections).padStart(3)} connections`;
        console.log(`  ${what}  ${spread}  ${figure.perSecond}/s, requests ${figure.requestsPerSecond}/s${verdict}`);
      }
    }
  }
}
rmSync(join(dir, "store"), { recursive: true, force: true });

if (options.case?.includes("native") ?? true) {
  console.log("\nnative commit against a memcpy of the same bytes into the same mapping, without HTTP");
  for (const line of nativeCommit()) {
    native.push(line);
    const pairs = Object.entries(line).map(([name, value]) => `${name} ${value}`);
    console.log(`  ${pairs.join("  ")}`);
  }
}

const starts =
  (options.case?.includes("starts") ?? true)
    ? await measureStarts(join(root, "dist/service/main.js"), join(dir, "starts"), options.quick ? 2 : 9)
    : [];
if (starts.length > 0) console.log("\nmilliseconds from the start of a process to ready, after a SIGKILL");
for (const { regionBytes, sparse, readyMs, recoveryMs } of starts) {
  const size = `a region of ${regionBytes / 2 ** 20} MiB${sparse ? ", sparse" : ""}`;
  console.log(`  ${size.padEnd(36)} ready ${readyMs}, of it recovery ${recoveryMs}`);
}

mkdirSync(dirname(resolve(options.out)), { recursive: true });
appendFileSync(
  resolve(options.out),
  `${JSON.stringify({ ...about, quick: options.quick, figures, streams, native, starts })}\n`,
);
console.log(`\nappended to ${options.out}`);
