// misbehave.ts - preloaded into the service (node --import): what bugs and shutdown helpers do to a process, on request.
//
// SIGUSR2 takes its signal handlers away, SIGHUP throws, and a file named by BLOCK_LOOP_FILE blocks its event loop for as
// many milliseconds as it says; the file is gone when that begins.
import { readFileSync, rmSync } from "node:fs";

process.on("SIGUSR2", () => {
  process.removeAllListeners("SIGTERM");
  process.on("SIGBUS", () => {});
});

process.on("SIGHUP", () => {
  throw new Error("thrown on request");
});

const path = process.env.BLOCK_LOOP_FILE;
if (path !== undefined) {
  setInterval(() => {
    let ms: number;
    try {
      ms = Number(readFileSync(path, "utf8"));
    } catch {
      return;
    }
    rmSync(path);
    const until = performance.now() + ms;
    while (performance.now() < until);
  }, 5).unref();
}
