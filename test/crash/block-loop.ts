// block-loop.ts - preloaded into the service (node --import): blocks its event loop while a file is there, as a bug would.
// The file's name is in BLOCK_LOOP_FILE; its content is for how many milliseconds, and it is gone when the block begins.
import { readFileSync, rmSync } from "node:fs";

const path = process.env.BLOCK_LOOP_FILE as string;

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
