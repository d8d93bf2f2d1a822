// scripts/tools.mjs - what the scripts share: the root, one-line announcements, running a command, the build lock.
// Only Node's own modules: these run before anything is installed.
import { spawn, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const at = (...parts) => join(root, ...parts);

/** sysexits' EX_CONFIG: the machine or the settings must change before another try can help. */
export const exitConfig = 78;

/** One line on stderr; stdout belongs to the program that a script becomes or tests. */
export function say(line) {
  process.stderr.write(`holdfast: ${line}\n`);
}

export function fail(line, code = 1) {
  say(line);
  process.exit(code);
}

/** Runs to the end with output on our stderr. Resolves the exit code, 128 + n after signal n. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", process.stderr, process.stderr], ...options });
    child.on("error", reject);
    child.on("exit", (code, signal) => resolve(code ?? (signal === "SIGINT" ? 130 : 143)));
  });
}

/** True if the command starts and exits 0. */
export function works(command, args, input = "") {
  return spawnSync(command, args, { input, stdio: ["pipe", "ignore", "ignore"], cwd: root }).status === 0;
}

/** Every file below a folder that `keep(path)` accepts, as paths relative to the root. A missing folder has none. */
export function filesBelow(folder, keep) {
  const found = [];
  let entries;
  try {
    entries = readdirSync(at(folder), { withFileTypes: true });
  } catch (error) {
    if (error.code === "ENOENT") return found;
    throw error;
  }
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== "node_modules" && entry.name !== "build") found.push(...filesBelow(path, keep));
    } else if (keep(path)) {
      found.push(path);
    }
  }
  return found;
}

/** Milliseconds since the epoch; 0 for a file that isn't there. */
export function modifiedAt(path) {
  return statSync(at(path), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** When a process began, in clock ticks since the machine's start; undefined where /proc does not show it. */
function startOf(pid) {
  try {
    // The name, in parentheses, may have spaces and parentheses of its own.
    return readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\)/s, "").split(" ")[20];
  } catch {
    return undefined;
  }
}

/** False too when the process has only the number of the one that wrote `owner`, which a lock from before a restart names. */
function isAlive(owner) {
  const [pid, start] = owner.split(" ");
  try {
    process.kill(Number(pid), 0);
  } catch (error) {
    // EPERM: it is there, and somebody else's.
    if (error.code === "ESRCH") return false;
  }
  const startNow = startOf(pid);
  return start === undefined || startNow === undefined || start === startNow;
}

/** Runs `work` while no other process of this tree builds. A lock whose owner is gone is taken over. */
export async function withBuildLock(work) {
  mkdirSync(at("build"), { recursive: true });
  const path = at("build", ".lock");
  let told = false;
  for (;;) {
    try {
      const fd = openSync(path, "wx");
      writeSync(fd, `${process.pid} ${startOf(process.pid) ?? ""}`.trim());
      closeSync(fd);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    let owner;
    try {
      owner = readFileSync(path, "utf8");
    } catch (error) {
      if (error.code === "ENOENT") continue;
      throw error;
    }
    // Empty: it was made a moment ago.
    if (owner !== "" && !isAlive(owner)) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) say(`waiting for process ${owner.split(" ")[0] || "?"}, which is building this tree`);
    told = true;
    await sleep(200);
  }
  const release = () => rmSync(path, { force: true });
  process.once("exit", release);
  try {
    return await work();
  } finally {
    process.removeListener("exit", release);
    release();
  }
}
