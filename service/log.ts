// log.ts - one JSON object a line on standard output. Writes are synchronous, so that the last line before an exit is
// there; only lines about requests, which may be thousands a second, are gathered and written together.
import type { FastifyBaseLogger } from "fastify";

const levels = ["trace", "debug", "info", "warn", "error", "fatal"] as const;
type Level = (typeof levels)[number];

/** Gathered lines are written once an event loop turn, or when they are this long. */
const gatheredBytesMax = 64 << 10;

export class Log implements FastifyBaseLogger {
  readonly msgPrefix = "";
  private readonly least: number;
  private gathered = "";
  private flushesAtExit = false;

  /** `write` takes whole lines. */
  constructor(
    readonly level: string,
    private readonly write: (lines: string) => void = (lines) => {
      process.stdout.write(lines);
    },
  ) {
    this.least = level === "silent" ? levels.length : levels.indexOf(level as Level);
  }

  trace = (...line: unknown[]) => this.put("trace", line);
  debug = (...line: unknown[]) => this.put("debug", line);
  info = (...line: unknown[]) => this.put("info", line);
  warn = (...line: unknown[]) => this.put("warn", line);
  error = (...line: unknown[]) => this.put("error", line);
  fatal = (...line: unknown[]) => this.put("fatal", line);
  silent = () => {};

  /** Requests are told apart by their `requestId`, so that a child is the same log. */
  child(): Log {
    return this;
  }

  /** A line about a request. */
  request(members: object): void {
    if (this.least > levels.indexOf("info")) return;
    if (!this.flushesAtExit) process.once("exit", () => this.flush());
    this.flushesAtExit = true;
    if (this.gathered === "") setImmediate(() => this.flush());
    this.gathered += lineOf("info", members, "request");
    if (this.gathered.length > gatheredBytesMax) this.flush();
  }

  private flush(): void {
    if (this.gathered !== "") this.write(this.gathered);
    this.gathered = "";
  }

  private put(level: Level, [first, message]: unknown[]): void {
    if (levels.indexOf(level) < this.least) return;
    this.flush();
    if (typeof first === "string") this.write(lineOf(level, {}, first));
    else this.write(lineOf(level, first instanceof Error ? { err: first } : (first as object), String(message ?? "")));
  }
}

function lineOf(level: Level, members: object, message: string): string {
  const head = { level, time: new Date().toISOString(), message };
  const error = (_: string, value: unknown) =>
    value instanceof Error ? { name: value.name, message: value.message, stack: value.stack } : value;
  try {
    return `${JSON.stringify({ ...head, ...members }, error)}\n`;
  } catch {
    // Something circular that a library logs: the line is worth more than its members.
    return `${JSON.stringify(head)}\n`;
  }
}
