// pattern.test.ts - the pattern library for Node programs: words of a mapped file, sections, and the exit on a signal in
// real processes.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { Random } from "../../docker/drill/random.js";
import { criticalEnd, exitCodes, exitOnSignal, MappedWords, WordError } from "../../native/index.js";
import { seedOf } from "../seed.js";

const dir = mkdtempSync(join(tmpdir(), "holdfast-"));
let files = 0;
const freshPath = () => join(dir, `words-${++files}`);
const child = fileURLToPath(new URL("./pattern-child.js", import.meta.url));

t.test("words are loaded, stored, added and compared, and are the file's bytes", async (t) => {
  const path = freshPath();
  const words = MappedWords.open(path, 4096);
  t.equal(words.bytes, 4096);
  t.equal(words.load(8), 0n);
  words.store(8, 0x1122334455667788n);
  t.equal(words.load(8), 0x1122334455667788n);
  t.equal(words.add(16, 5n), 0n);
  t.equal(words.add(16, -6n), 5n);
  t.equal(words.load(16), 2n ** 64n - 1n, "modulo 2^64");
  t.equal(words.compareExchange(16, -1n, 7n), 2n ** 64n - 1n);
  t.equal(words.load(16), 7n);
  t.equal(words.compareExchange(16, 8n, 9n), 7n);
  t.equal(words.load(16), 7n);
  words.store(4088, 1n);
  words.sync();
  const bytes = readFileSync(path);
  t.equal(bytes.readBigUInt64LE(8), 0x1122334455667788n);
  t.equal(bytes.readBigUInt64LE(4088), 1n);

  const again = MappedWords.open(path);
  again.store(0, 3n);
  t.equal(words.load(0), 3n, "two mappings are one file");
  t.equal(MappedWords.open(path, 8192).bytes, 8192, "grown");
  t.equal(readFileSync(path).readBigUInt64LE(8), 0x1122334455667788n);
});

t.test("what can't be is refused", async (t) => {
  const path = freshPath();
  writeFileSync(path, "0123456789");
  const words = MappedWords.open(path);
  t.equal(words.bytes, 10);
  t.equal(words.load(0), 0x3736353433323130n);
  const reasonOf = (call: () => unknown): unknown => {
    try {
      return call();
    } catch (error) {
      return error instanceof WordError ? error.reason : (error as Error).name;
    }
  };
  t.equal(
    reasonOf(() => words.load(8)),
    "out_of_bounds",
  );
  t.equal(
    reasonOf(() => words.store(2 ** 52, 1n)),
    "out_of_bounds",
  );
  t.equal(
    reasonOf(() => words.add(4, 1n)),
    "misaligned",
  );
  for (const offset of [-8, 0.5, Number.NaN, 2 ** 53]) {
    t.equal(
      reasonOf(() => words.load(offset)),
      "RangeError",
    );
  }
  truncateSync(path, 0);
  t.equal(
    reasonOf(() => words.load(0)),
    "faulted",
    "the page is gone, the process is not",
  );
  t.throws(() => MappedWords.open(freshPath()), /can't map/, "an empty file has no words");
  t.throws(() => MappedWords.open(dir, 8), /can't map/);
  t.throws(() => MappedWords.open(freshPath(), -1), RangeError);
  t.throws(() => exitOnSignal(256), RangeError);
  t.throws(() => criticalEnd(), /without a criticalBegin/);
});

async function run(
  mode: string,
  status = "default",
  afterMs = 0,
): Promise<{ code: number; ms: number; words: bigint[] }> {
  const path = freshPath();
  const process_ = spawn(process.execPath, [child, path, mode, status], { stdio: ["ignore", "pipe", "inherit"] });
  await once(process_.stdout, "data");
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  const at = performance.now();
  process_.kill(files % 2 === 0 ? "SIGTERM" : "SIGINT");
  const [code] = await once(process_, "exit");
  const bytes = readFileSync(path);
  return { code, ms: performance.now() - at, words: [0, 8, 64, 72].map((offset) => bytes.readBigUInt64LE(offset)) };
}

t.test(
  "outside of a section a signal ends the program at once, with the pattern's status or the caller's",
  async (t) => {
    t.equal((await run("idle")).code, exitCodes.pattern);
    t.equal(exitCodes.pattern, 126);
    t.equal((await run("idle", "7")).code, 7);
  },
);

t.test("inside of a section it ends at the section's end", async (t) => {
  const { code, ms, words } = await run("long", "9", 50);
  t.equal(code, 9);
  t.ok(ms > 200, `${ms.toFixed(0)} ms`);
  t.strictSame(words.slice(0, 2), [1n, 1n]);
});

t.test("20 signals at any moment, two threads in sections: never half", async (t) => {
  const random = new Random(seedOf(t));
  for (let i = 0; i < 20; i++) {
    const { code, words } = await run("threads", "default", random.between(0, 30));
    t.equal(code, 126);
    t.ok(words[0] === words[1] && words[2] === words[3], `${words}`);
  }
});
