// native/lifecycle.ts - the typed door to signals, deadlines, the gate and the listening socket, and the pattern library.
//
// It only converts and checks; what a signal means for requests is the service's. Importing it installs nothing.
import { addon } from "./addon.js";

type Signal = "SIGTERM" | "SIGINT";
const signalNumbers: Readonly<Record<Signal, number>> = { SIGINT: 2, SIGTERM: 15 };

/** What has happened since the handler was installed. Times are milliseconds since the first signal; -1: not yet. */
export interface StopView {
  /** Caught, of either kind. */
  signals: number;
  firstSignal: Signal | undefined;
  /** Process id of the first one's sender; 0 for a terminal's ^C. */
  sender: number;
  /** Since the first signal, without the time for which the whole process was frozen. */
  elapsedMs: number;
  frozenMs: number;
  toldAtMs: number;
  /** When no critical section was open for the first time. */
  emptyAtMs: number;
  /** A second signal came. */
  hurry: boolean;
}

export interface Dispositions {
  term: boolean;
  interrupt: boolean;
  bus: boolean;
  /** How often a displaced handler was found and put back. */
  repaired: number;
}

export interface StopOptions {
  softMs: number;
  hardMs: number;
  blockedMs: number;
  /** The least severe of the watchdog's JSON lines on standard output. */
  logLevel: "debug" | "info" | "warn" | "error" | "silent";
}

interface Opened {
  errno: number;
  fd: number;
  detail: string;
}

interface Table {
  install(): void;
  watchBus(): void;
  configure(softMs: number, hardMs: number, blockedMs: number, leastLevel: number): void;
  onStop(tell: () => void): void;
  requestStop(signal: number): void;
  acknowledge(): void;
  hurry(): void;
  codeAtSoft(code: number): void;
  recordPath(path: string): void;
  repair(): void;
  view(): Omit<StopView, "firstSignal"> & { firstSignal: number };
  dispositions(): Dispositions;
  exit(code: number): never;
  exitAtOnce(code: number): void;
  criticalBegin(): boolean;
  criticalEnd(): void;
  criticalDepth(): number;
  listenTcp(host: string, port: number, backlog: number): Opened;
  listenUnix(path: string, backlog: number): Opened;
  inheritedListeners(): number;
  dropNew(fd: number): void;
  acceptAll(fd: number): number[];
  closeListener(fd: number, shared: boolean): { errno: number; connections: number[] };
  wordsOpen(path: string, bytesMin: number): object | Opened;
  wordsBytes(words: object): number;
  wordsLoad(words: object, offset: number): bigint | WordFault;
  wordsStore(words: object, offset: number, value: bigint): bigint | WordFault;
  wordsAdd(words: object, offset: number, delta: bigint): bigint | WordFault;
  wordsCompareExchange(words: object, offset: number, expected: bigint, desired: bigint): bigint | WordFault;
  wordsSync(words: object): number;
  exitCodes: { clean: number; hard: number; cut: number; pattern: number };
}

const table: Table = addon.lifecycle;

/** Waiting connections that the kernel keeps for us before it drops SYNs; it caps this at somaxconn. */
export const backlog = 4096;

/** LogLevel of signals.h; the watchdog says nothing below info. */
const levels = { debug: 0, info: 0, warn: 1, error: 2, silent: 3 } as const;

export const exitCodes = Object.freeze({ ...table.exitCodes, uncaught: 1, configuration: 78 });

/** An address that can't be listened on. `code` is the errno's name. */
export class ListenError extends Error {
  override name = "ListenError";
  constructor(
    readonly code: string,
    detail: string,
    where: string,
  ) {
    super(`can't listen on ${where}: ${detail}`);
  }
}

function listening(opened: Opened, where: string): number {
  if (opened.errno === 0) return opened.fd;
  throw new ListenError(errnoName(opened.errno), opened.detail, where);
}

// Only those that a caller tells apart.
function errnoName(errno: number): string {
  const names: Readonly<Record<number, string>> = { 2: "ENOENT", 13: "EACCES", 98: "EADDRINUSE", 99: "EADDRNOTAVAIL" };
  return names[errno] ?? `errno ${errno}`;
}

export const lifecycle = Object.freeze({
  /**
   * Installs the native handler of SIGTERM and SIGINT and starts the watchdog. Called again after `process.on`, it puts the
   * handler in front of libuv's, which displaced it, and chains to that.
   */
  install: (): void => table.install(),
  /** The watchdog keeps SIGBUS with the store's fault guard as well. Call it once the guard is installed. */
  watchBus: (): void => table.watchBus(),
  configure: (o: StopOptions): void => table.configure(o.softMs, o.hardMs, o.blockedMs, levels[o.logLevel]),
  /** Calls `tell` on the event loop after each signal. Keeps no process alive. One listener for the process. */
  onStop: (tell: () => void): void => table.onStop(tell),
  /** The same as receiving the signal, unless one came before. */
  requestStop: (signal: Signal): void => table.requestStop(signalNumbers[signal]),
  acknowledge: (): void => table.acknowledge(),
  hurry: (): void => table.hurry(),
  /** The status with which the watchdog exits at the soft deadline. */
  codeAtSoft: (code: number): void => table.codeAtSoft(code),
  /** A file that the watchdog replaces with its own account when it has to end the process. */
  recordPath: (path: string): void => table.recordPath(path),
  view(): StopView {
    const { firstSignal, ...rest } = table.view();
    return { ...rest, firstSignal: firstSignal === 15 ? "SIGTERM" : firstSignal === 2 ? "SIGINT" : undefined };
  },
  /** Puts displaced handlers back, as the watchdog does each second. */
  repair: (): void => table.repair(),
  dispositions: (): Dispositions => table.dispositions(),
  /**
   * Calls the listeners of `exit`, then ends the process as soon as no section is open; sections can't begin any more. What
   * process.exit() does after its listeners (waiting for other threads) does not happen. Code 70 in its place after the
   * hard deadline.
   */
  exit(code: number): never {
    process.emit("exit", code);
    return table.exit(code);
  },
  /**
   * From now on a signal ends the process as soon as no section is open, without a word to JavaScript. Undefined: no
   * longer.
   */
  exitAtOnce: (code: number | undefined): void => table.exitAtOnce(code ?? -1),
  /** Threads inside a critical section. */
  criticalDepth: (): number => table.criticalDepth(),

  /** @throws ListenError */
  listenTcp: (host: string, port: number): number =>
    listening(table.listenTcp(host, port, backlog), host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`),
  /** A socket file that nobody listens on is replaced. @throws ListenError */
  listenUnix: (path: string): number => listening(table.listenUnix(path, backlog), path),
  /** How many sockets a service manager has handed over; the first is descriptor 3. */
  inheritedListeners: (): number => table.inheritedListeners(),
  /** New handshakes are ignored from now on, those under way complete. */
  dropNew: (fd: number): void => table.dropNew(fd),
  /** Descriptors of all connections that wait in the accept queue. */
  acceptAll: (fd: number): number[] => table.acceptAll(fd),
  /**
   * Stops listening: the descriptors of all connections that waited, and the listening descriptor names another socket.
   * `shared`: somebody else listens on it as well and takes them.
   */
  closeListener(fd: number, shared: boolean): number[] {
    const { errno, connections } = table.closeListener(fd, shared);
    if (errno !== 0 && connections.length === 0)
      throw new Error(`the listening socket can't be closed: errno ${errno}`);
    return connections;
  },
});

// ---- the pattern library ----

type WordFault = "out_of_bounds" | "misaligned" | "faulted";

/** Sections that JavaScript on this thread is inside of: one end too many must not end somebody else's. */
let sections = 0;

/**
 * Enters a critical section, in which SIGTERM and SIGINT don't end the process. Sections nest. False: the process is
 * stopping, nothing was entered and nothing may be written. Keep a section synchronous: whatever else runs on this thread
 * meanwhile is inside it too.
 */
export function criticalBegin(): boolean {
  if (!table.criticalBegin()) return false;
  sections += 1;
  return true;
}

/** Leaves it. The last one to leave a process that was signalled ends the process, if exitOnSignal() was called. */
export function criticalEnd(): void {
  if (sections === 0) throw new Error("criticalEnd() without a criticalBegin() that was true");
  sections -= 1;
  table.criticalEnd();
}

/**
 * From now on SIGTERM and SIGINT end the process at once when no section is open, else at the end of the last one.
 * JavaScript's own listeners are not called then, nor is anything flushed. The pattern's own status is 126, which Docker
 * also uses for "can't be executed": pass another one where that matters.
 */
export function exitOnSignal(code: number = exitCodes.pattern): void {
  if (!Number.isInteger(code) || code < 0 || code > 255) throw new RangeError("an exit code is 0 to 255");
  table.install();
  table.exitAtOnce(code);
}

/** An access that was not made. `reason`: the offset is outside of the file, no multiple of 8, or the page is gone. */
export class WordError extends Error {
  override name = "WordError";
  constructor(
    readonly reason: WordFault,
    offset: number,
  ) {
    super(`word at ${offset}: ${reason.replaceAll("_", " ")}`);
  }
}

function wordOf(result: bigint | WordFault, offset: number): bigint {
  if (typeof result === "bigint") return result;
  throw new WordError(result, offset);
}

/**
 * A file's bytes as 64-bit unsigned words in the machine's byte order, shared with every program that maps the file. Each
 * call is one atomic, sequentially consistent access, which other threads and processes see whole. Values are taken
 * modulo 2^64. The file stays mapped until the object is collected.
 */
export class MappedWords {
  readonly #words: object;
  /** Bytes mapped: the size of the file when it was opened. */
  readonly bytes: number;

  private constructor(words: object) {
    this.#words = words;
    this.bytes = table.wordsBytes(words);
  }

  /** Opens the file, makes it if it isn't there, and grows it with zeros to `bytesMin`. @throws Error with errno */
  static open(path: string, bytesMin = 0): MappedWords {
    if (!Number.isSafeInteger(bytesMin) || bytesMin < 0) throw new RangeError("bytesMin is a whole number of bytes");
    const opened = table.wordsOpen(path, bytesMin);
    if ("errno" in opened) {
      throw Object.assign(new Error(`can't map ${path}: ${opened.detail}`), { errno: opened.errno });
    }
    return new MappedWords(opened);
  }

  /** @throws WordError */
  load(offset: number): bigint {
    return wordOf(table.wordsLoad(this.#words, checked(offset)), offset);
  }

  /** @throws WordError */
  store(offset: number, value: bigint): void {
    wordOf(table.wordsStore(this.#words, checked(offset), BigInt.asUintN(64, value)), offset);
  }

  /** Adds and returns what was there before. @throws WordError */
  add(offset: number, delta: bigint): bigint {
    return wordOf(table.wordsAdd(this.#words, checked(offset), BigInt.asUintN(64, delta)), offset);
  }

  /** Stores `desired` if `expected` is there; returns what was there before. @throws WordError */
  compareExchange(offset: number, expected: bigint, desired: bigint): bigint {
    const [from, to] = [BigInt.asUintN(64, expected), BigInt.asUintN(64, desired)];
    return wordOf(table.wordsCompareExchange(this.#words, checked(offset), from, to), offset);
  }

  /** Every store so far is on the disk. Blocks the thread. @throws Error with errno */
  sync(): void {
    const errno = table.wordsSync(this.#words);
    if (errno !== 0) throw Object.assign(new Error(`can't sync the file: errno ${errno}`), { errno });
  }
}

function checked(offset: number): number {
  if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError("an offset is a whole number of bytes");
  return offset;
}
