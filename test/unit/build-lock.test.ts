// A lock that named a process of another user made the build spin at full speed and without a word: EPERM was taken for a lock
// that had just gone. And a lock from before a restart of the machine may name any process by now.
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";

const tools = join(import.meta.dirname, "../../../scripts/tools.mjs");

interface Tools {
  withBuildLock<Result>(work: () => Promise<Result>): Promise<Result>;
}

/** The lock of a tree of its own, and the script that takes it. */
async function tree(t: Test): Promise<{ lock: string; withBuildLock: Tools["withBuildLock"]; told: string[] }> {
  const root = t.testdir({ scripts: {}, build: {} });
  copyFileSync(tools, join(root, "scripts/tools.mjs"));
  const { withBuildLock } = (await import(join(root, "scripts/tools.mjs"))) as Tools;
  const told: string[] = [];
  t.intercept(process.stderr, "write", { value: (text: string) => told.push(text) > 0 });
  return { lock: join(root, "build/.lock"), withBuildLock, told };
}

/** As the kernel has it: field 22 of the process's stat. */
const startOf = (pid: number): string =>
  readFileSync(`/proc/${pid}/stat`, "latin1")
    .replace(/^.*\) /s, "")
    .split(" ")[19]!;

t.test("a process of another user is waited for, and named", { timeout: 30_000 }, async (t) => {
  const { lock, withBuildLock, told } = await tree(t);
  const refusal = Object.assign(new Error("kill EPERM"), { code: "EPERM" });
  t.intercept(process, "kill", {
    value: () => {
      throw refusal;
    },
  });
  writeFileSync(lock, `${process.pid} ${startOf(process.pid)}`);
  let isDone = false;
  const building = withBuildLock(async () => {
    isDone = true;
    t.equal(readFileSync(lock, "utf8"), `${process.pid} ${startOf(process.pid)}`, "the lock is ours");
  });
  await sleep(300);
  t.equal(isDone, false);
  t.strictSame(told, [`holdfast: waiting for process ${process.pid}, which is building this tree\n`]);
  writeFileSync(lock, "");
  await sleep(300);
  t.equal(isDone, false, "whoever made it has not written its number yet");
  t.equal(told.length, 1);
  writeFileSync(lock, `${process.pid} 1`);
  await building;
  t.equal(existsSync(lock), false);
});

t.test("a lock whose process is gone, or is another by now, is taken over", async (t) => {
  const { lock, withBuildLock, told } = await tree(t);
  // No process has the first number; the other is that of one which began at another time.
  for (const owner of ["4194305 7", "4194305", `${process.pid} 1`]) {
    writeFileSync(lock, owner);
    t.equal(await withBuildLock(async () => "built"), "built", owner);
    t.equal(existsSync(lock), false);
  }
  t.strictSame(told, []);
});
