// run-record.ts - one small file in the store's directory that tells the next run how this one ended.
//
// It says "running" from start to end, so a run that was killed is found out by what the file doesn't say. Only the writer of
// the store touches it. The native watchdog writes the same file when JavaScript can't (native/signals.cc).
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Outcomes } from "./connections.js";

const fileName = "last-run.json";

/** How a run ended. Everything but `state` is missing of a run that was killed. */
export interface RunEnd {
  signal: "SIGTERM" | "SIGINT" | null;
  code: number;
  reason: string;
  drainMs: number;
  outcomes: Outcomes;
}

/** The previous run, as far as it could tell. */
export type PreviousRun =
  | ({ state: "ended"; endedAtMs: number } & Omit<RunEnd, "outcomes"> & Partial<Pick<RunEnd, "outcomes">>)
  | { state: "killed"; startedAtMs: number };

export class RunRecord {
  readonly path: string;
  /** Null when this is the first run, or the file can't be read. */
  readonly previous: PreviousRun | null;

  /** Reads what the previous run left and says that this one is running. */
  constructor(dir: string) {
    this.path = join(dir, fileName);
    this.previous = readPrevious(this.path);
    this.#write({ state: "running", startedAtMs: Date.now() });
  }

  end(end: RunEnd): void {
    this.#write({ state: "ended", endedAtMs: Date.now(), ...end });
  }

  #write(content: object): void {
    const fresh = `${this.path}.tmp`;
    try {
      writeFileSync(fresh, `${JSON.stringify(content)}\n`, { mode: 0o640 });
      renameSync(fresh, this.path);
    } catch {
      // A full disk must hold up neither a start nor an exit, and nothing but a report depends on this file.
    }
  }
}

function readPrevious(path: string): PreviousRun | null {
  try {
    const content = JSON.parse(readFileSync(path, "utf8"));
    if (content.state === "ended") return content;
    if (content.state === "running") return { state: "killed", startedAtMs: content.startedAtMs };
  } catch {
    // Not there, or cut off by a power failure.
  }
  return null;
}
