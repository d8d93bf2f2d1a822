// pattern-child.ts - a program that uses the pattern library: two words of each thread that change together, until a
// signal. Not a test; pattern.test.ts runs it.
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { criticalBegin, criticalEnd, exitOnSignal, MappedWords } from "../../native/index.js";

const [path, mode, status] = isMainThread ? process.argv.slice(2) : workerData;
const words = MappedWords.open(path, 4096);
const first = isMainThread ? 0 : 64;

function storePair(value: bigint): void {
  words.store(first, value);
  // Something for an exit to fall into.
  const until = performance.now() + 0.2;
  while (performance.now() < until);
  words.store(first + 8, value);
}

function work(value: bigint): void {
  if (criticalBegin()) {
    storePair(value);
    criticalEnd();
  }
  setImmediate(work, value + 1n);
}

if (isMainThread) {
  if (status === "default") exitOnSignal();
  else exitOnSignal(Number(status));
  if (mode === "idle") setInterval(() => {}, 1000);
  if (mode === "long") {
    // A section, and a nested one, that the signal meets in the middle.
    criticalBegin();
    words.store(0, 1n);
    console.log("ready");
    const until = performance.now() + 500;
    while (performance.now() < until) {
      criticalBegin();
      criticalEnd();
    }
    words.store(8, 1n);
    criticalEnd();
    // Not reached after a signal.
    words.store(8, 2n);
  }
  if (mode === "threads") {
    new Worker(new URL(import.meta.url), { workerData: [path, mode, status] }).on("online", () => console.log("ready"));
  } else {
    console.log("ready");
  }
}
if (mode === "threads") work(1n);
