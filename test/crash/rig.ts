// rig.ts - runs one of the crash rigs (test/crash/*.cc) and reports what it prints.
import { execFile, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Test } from "tap";
import { seedOf } from "../seed.js";

const root = new URL("../../../", import.meta.url);
/** By the rigs' convention: something that they need is missing, and a line that starts with SKIP says what. */
const skipped = 77;

/** Each line becomes a comment, so the seed and the figures are in the record of the run. Returns the lines. */
export async function runRig(
  t: Test,
  variant: "debug" | "release",
  program: string,
  ...args: string[]
): Promise<string[]> {
  const path = fileURLToPath(new URL(`build/test-native/${variant}/${program}`, root));
  const child = spawn(path, [`--seed=${seedOf(t)}`, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  // A test that is given up on takes its rig along, and the rig its victims.
  t.teardown(() => child.kill("SIGKILL"));
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | string>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code ?? signal ?? "no status"));
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    t.comment(line);
  }
  const status = await ended;
  if (status === skipped) {
    t.pass(`${program} ${args.join(" ")}`, {
      skip: lines.find((line) => line.startsWith("SKIP"))?.slice("SKIP ".length) ?? "no reason was given",
    });
    return lines;
  }
  t.equal(status, 0, `${program} ${args.join(" ")}`, { stderr: stderr.slice(-4000), said: lines.slice(-20) });
  return lines;
}

/** The core's check knows the core's files; this one is the service's. */
const serviceFile = /^last-run\.json(\.\w+)? does not belong here$/;

/**
 * The full consistency check of a store that no process has open, by its formats alone.
 * @throws with what is wrong
 */
export function checkStore(dir: string, ended: "killed" | "closed"): Promise<void> {
  const path = fileURLToPath(new URL("build/test-native/debug/check_store", root));
  const args = ended === "killed" ? ["--killed", dir] : [dir];
  return new Promise((resolve, reject) => {
    execFile(path, args, (error, _, stderr) => {
      const problems = stderr.split("\n").filter((line) => line !== "" && !serviceFile.test(line));
      const failed = error !== null && (error.code !== 1 || problems.length > 0);
      if (failed) reject(new Error(`inconsistent (${ended}): ${problems.join("; ") || error.message}`));
      else resolve();
    });
  });
}
