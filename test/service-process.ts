// service-process.ts - the service as a user runs it: a process with a store of its own, its log lines, its end.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The program. */
export const main = fileURLToPath(new URL("../service/main.js", import.meta.url));

/** A JSON line of the log. */
export interface Line {
  event?: string;
  level: string;
  message: string;
  [member: string]: unknown;
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** performance.now() of the moment. */
  at: number;
}

export interface StartOptions {
  /** Flags; --data-dir is there already, and --port=0 unless a port is among them. */
  flags?: readonly string[];
  dir?: string;
  /** Arguments of node itself. */
  node?: readonly string[];
  /** What runs the program in place of node, such as npm; in a process group of its own, as a terminal would start it. */
  by?: readonly [string, ...string[]];
  env?: NodeJS.ProcessEnv;
}

export function freshDir(): string {
  return mkdtempSync(join(tmpdir(), "holdfast-"));
}

export class ServiceProcess {
  readonly child: ChildProcess;
  readonly dir: string;
  readonly lines: Line[] = [];
  stderr = "";
  readonly ended: Promise<Ended>;
  readonly #waiting = new Set<() => void>();
  #end: Ended | undefined;

  constructor({ flags = [], dir = freshDir(), node = [], by, env = {} }: StartOptions = {}) {
    this.dir = dir;
    const port = flags.some((flag) => flag.startsWith("--port")) ? [] : ["--port=0"];
    const [command, ...before] = by ?? [process.execPath, ...node, main];
    this.child = spawn(command, [...before, `--data-dir=${dir}`, ...port, ...flags], {
      stdio: ["ignore", "pipe", "pipe"],
      detached: by !== undefined,
      env: { ...process.env, ...env },
    });
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      this.#changed();
    });
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on("line", (text) => {
      this.lines.push(JSON.parse(text));
      this.#changed();
    });
    const closed = once(this.child, "close");
    this.ended = once(this.child, "exit").then(async ([code, signal]) => {
      const at = performance.now();
      // The last lines are read before anybody looks at them.
      await closed;
      this.#end = { code, signal, at };
      this.#changed();
      return this.#end;
    });
  }

  static async ready(options: StartOptions = {}): Promise<ServiceProcess> {
    const service = new ServiceProcess(options);
    await service.line("ready");
    await service.line("listening");
    return service;
  }

  /** The first log line of this event, when it has come. */
  async line(event: string): Promise<Line> {
    return this.when(`the log line "${event}"`, () => this.lines.find((line) => line.event === event));
  }

  find(event: string): Line | undefined {
    return this.lines.find((line) => line.event === event);
  }

  async when<T>(what: string, look: () => T | undefined): Promise<T> {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (this.#end) {
        const how = `${this.#end.code ?? this.#end.signal}`;
        throw new Error(`ended (${how}) before ${what}\n${this.stderr}${JSON.stringify(this.lines, null, 1)}`);
      }
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  get port(): number {
    return this.find("listening")?.port as number;
  }

  kill(signal: NodeJS.Signals = "SIGTERM"): number {
    this.child.kill(signal);
    return performance.now();
  }

  /** Signals and waits. `ms` is from the signal to the end. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<Ended & { ms: number }> {
    const at = this.kill(signal);
    const end = await this.ended;
    return { ...end, ms: end.at - at };
  }

  /** Whatever a test left behind. */
  async remove(): Promise<void> {
    if (!this.#end) {
      this.child.kill("SIGKILL");
      await this.ended;
    }
    // Another run over the same directory may still be making files in it.
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }

  #changed(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
