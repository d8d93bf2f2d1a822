// fuzzer.ts - runs one of the fuzzers (test/fuzz/*.cc, libFuzzer) from the corpus that is kept beside them.
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dirname, "../../..");

export const fuzzers = ["batch", "recovery"] as const;
export type Fuzzer = (typeof fuzzers)[number];

/** Longer inputs reach nothing more, and slow down. */
const inputBytesMax: Record<Fuzzer, number> = { batch: 1024, recovery: 256 };

const program = (name: Fuzzer) => join(root, "build/test-native/fuzz", `fuzz_${name}`);
const corpus = (name: Fuzzer) => join(root, "test/fuzz/corpus", name);

/** False where no clang with libFuzzer was found when the test programs were built. */
export const isBuilt = (name: Fuzzer): boolean => existsSync(program(name));

export const whyNotBuilt = "needs clang++ with libFuzzer (Debian: clang, libclang-rt-14-dev)";

export interface Fuzzed {
  /** Inputs run. */
  inputs: number;
  /** Edges of the code that they reached. */
  edges: number;
  /** What was found, and the file with the input that shows it; undefined when nothing was. */
  broken: string | undefined;
}

export interface FuzzOptions {
  /** 0: the corpus alone. */
  seconds: number;
  seed: number;
  env?: NodeJS.ProcessEnv;
  /** Afterwards the corpus is a small set that reaches all that was reached. */
  merge?: boolean;
}

/** What an invariant, a sanitizer or libFuzzer itself calls the fault. */
const fault = /^(?:broken: .*|SUMMARY: .*|.*: runtime error: .*)$/m;

async function libFuzzer(
  name: Fuzzer,
  args: string[],
  env: NodeJS.ProcessEnv,
): Promise<{ text: string; how: unknown }> {
  const child = spawn(program(name), args, {
    cwd: env.TMPDIR,
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const stop = () => child.kill("SIGKILL");
  process.once("exit", stop);
  let text = "";
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  const how = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code ?? signal));
  });
  process.removeListener("exit", stop);
  return { text, how };
}

export async function fuzz(name: Fuzzer, { seconds, seed, env, merge }: FuzzOptions): Promise<Fuzzed> {
  // In memory: the fuzzer of recovery makes a store for each input.
  const scratch = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "holdfast-fuzz-"));
  const found = join(scratch, "found");
  // What a planted mistake fails on is no input to keep.
  const failed = env === undefined ? join(root, "build/fuzz/") : join(scratch, "failed/");
  for (const folder of [found, failed]) mkdirSync(folder, { recursive: true });
  try {
    const limits = [`-max_len=${inputBytesMax[name]}`, "-len_control=0", "-timeout=60", "-rss_limit_mb=2048"];
    // Without a limit of runs it would go on for ever on no time.
    const length = seconds > 0 ? [`-max_total_time=${seconds}`] : ["-runs=0"];
    const args = [
      ...limits,
      ...length,
      `-seed=${seed + 1}`,
      "-print_final_stats=1",
      `-artifact_prefix=${failed}${name}-`,
    ];
    const { text, how } = await libFuzzer(name, [...args, found, corpus(name)], { ...env, TMPDIR: scratch });
    const path = env === undefined ? /Test unit written to (.*)/.exec(text)?.[1] : undefined;
    if (merge && how === 0) {
      const small = join(scratch, "small");
      mkdirSync(small);
      await libFuzzer(name, [...limits, "-merge=1", small, corpus(name), found], { ...env, TMPDIR: scratch });
      rmSync(corpus(name), { recursive: true });
      cpSync(small, corpus(name), { recursive: true });
    }
    return {
      inputs: Number(/number_of_executed_units: (\d+)/.exec(text)?.[1] ?? 0),
      edges: Math.max(0, ...[...text.matchAll(/ cov: (\d+)/g)].map(([, edges]) => Number(edges))),
      broken: how === 0 ? undefined : `${fault.exec(text)?.[0] ?? text.slice(-2000)}${path ? `, by ${path}` : ""}`,
    };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}
