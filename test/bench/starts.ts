// test/bench/starts.ts - from the process's first instruction to its first answer, on a store that was killed, for regions
// of several sizes: a start must not depend on how much there is to serve.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";

const MiB = 1 << 20;
/** What a killed process leaves for the next to look at: changes of one cell each. */
const batches = 500;

export interface StartFigure {
  regionBytes: number;
  sparse: boolean;
  starts: number;
  /** Milliseconds, as the process itself tells them: from its start, and of it in recovery. */
  readyMs: string;
  recoveryMs: string;
}

interface Ready {
  port: number;
  readyMs: number;
  recoveryMs: number;
  kill(): Promise<void>;
}

async function start(main: string, dir: string): Promise<Ready> {
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, NODE_ENV: "production" };
  const child = spawn(process.execPath, [main, "--port=0", `--data-dir=${dir}`], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  let port = 0;
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text);
    if (line.event === "listening") port = line.port;
    if (line.event !== "ready") continue;
    child.stdout.resume();
    const kill = async () => {
      child.kill("SIGKILL");
      await exited;
    };
    return { port, readyMs: line.ms, recoveryMs: line.recovery.ms, kill };
  }
  throw new Error(`the service ended with ${(await exited)[0]} before it was ready`);
}

async function post(port: number, path: string, body: object): Promise<void> {
  const headers = { "content-type": "application/json" };
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    headers,
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}

function spread(values: number[]): string {
  const inOrder = values.toSorted((a, b) => a - b);
  const [least, middle, most] = [inOrder[0]!, inOrder[inOrder.length >> 1]!, inOrder.at(-1)!];
  return `${middle.toFixed(1)} [${least.toFixed(1)}..${most.toFixed(1)}]`;
}

/** `main`: the service's script. `dir` is made and removed. */
export async function measureStarts(main: string, dir: string, starts: number): Promise<StartFigure[]> {
  const figures: StartFigure[] = [];
  for (const [regionBytes, sparse] of [
    [MiB, false],
    [1024 * MiB, false],
    [64 * 1024 * MiB, true],
  ] as const) {
    rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir, { recursive: true });
    let service = await start(main, dir);
    await post(service.port, "/v1/regions", { name: "big", size: regionBytes, sparse, durability: "ordered" });
    const seen: Ready[] = [];
    while (seen.length < starts) {
      const step = Math.floor(regionBytes / batches / 8) * 8;
      for (let i = 0; i < batches; i++) {
        const ops = [{ op: "add", offset: i * step, type: "u64", value: 1 }];
        await post(service.port, "/v1/regions/big/batches", { ops });
      }
      await service.kill();
      service = await start(main, dir);
      seen.push(service);
    }
    await service.kill();
    figures.push({
      regionBytes,
      sparse,
      starts,
      readyMs: spread(seen.map(({ readyMs }) => readyMs)),
      recoveryMs: spread(seen.map(({ recoveryMs }) => recoveryMs)),
    });
  }
  rmSync(dir, { recursive: true, force: true });
  return figures;
}
