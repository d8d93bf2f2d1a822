// client-http.ts - the client's way over the wire: one exchange, or one stream, and how long to wait before the next attempt. It
// knows HTTP and what the service's errors look like, and no operation of its.
import {
  type ClientRequest,
  type Agent as HttpAgent,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestOptions,
} from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import type { Problem } from "../openapi/types.js";

/** Where a service answers: TCP, with TLS or without, or a unix socket. */
export type Target = { host: string; port: number; tls?: boolean } | { socketPath: string };

/** One request on the wire and what became of it. Times are milliseconds since the epoch. */
export interface Attempt {
  /** Sent on a connection that had carried a request before. */
  reused: boolean;
  startedAt: number;
  /** Null: there was no connection, so nothing was sent. */
  connectedAt: number | null;
  sentAt: number | null;
  firstByteAt: number | null;
  endedAt: number;
  /** Null: no whole answer came. */
  status: number | null;
  /** Why no whole answer came: a system error's code, `connect_timeout` or `answer_timeout`. */
  code: string | null;
}

export interface RawAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  bytes: Buffer;
}

/** One request as it goes out. `path` with its query. */
export interface RawRequest {
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: string | Buffer | undefined;
}

export interface Timeouts {
  /** Longer without a connection counts as none. */
  connectMs: number;
  /** Longer without a whole answer counts as none. */
  answerMs: number;
}

const now = (): number => performance.timeOrigin + performance.now();

const begun = (): Attempt => ({
  reused: false,
  startedAt: now(),
  connectedAt: null,
  sentAt: null,
  firstByteAt: null,
  endedAt: 0,
  status: null,
  code: null,
});

const isTls = (target: Target): boolean => "tls" in target && target.tls === true;

/** A request that is not sent yet. Without an agent it has a connection of its own. */
function requestTo(
  target: Target,
  agent: HttpAgent | false,
  { method, path, headers, body }: RawRequest,
): ClientRequest {
  const length = body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) };
  const options: RequestOptions = {
    ...("socketPath" in target ? { socketPath: target.socketPath } : { host: target.host, port: target.port }),
    method,
    path,
    agent,
    headers: { ...headers, ...length },
  };
  return isTls(target) ? httpsRequest(options) : httpRequest(options);
}

/** Calls `then` with the socket when bytes can be sent. */
function whenConnected(target: Target, call: ClientRequest, then: () => void): void {
  call.on("socket", (socket: Socket) => {
    if (socket.connecting) socket.once(isTls(target) ? "secureConnect" : "connect", then);
    else then();
  });
}

/**
 * Calls `over` after `ms`, unless what it returns is called first. A process that was held up for as long sees what the
 * network brought meanwhile before it gives up: timers come first in a turn of the event loop, then connections, then this.
 */
function deadline(ms: number, over: () => void): () => void {
  let last: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    last = setImmediate(over);
  }, ms);
  return () => {
    clearTimeout(timer);
    if (last !== undefined) clearImmediate(last);
  };
}

/**
 * One request over `agent`, once. Never rejects: an attempt without a status says why there is no answer. `closed` is asked
 * before anything is sent: an agent that is destroyed still connects for those that wait in it.
 */
export function exchange(
  target: Target,
  agent: HttpAgent,
  ask: RawRequest,
  { connectMs, answerMs }: Timeouts,
  closed: () => boolean = () => false,
): Promise<{ attempt: Attempt; answer: RawAnswer | undefined }> {
  return new Promise((resolve) => {
    const attempt = begun();
    let done = false;
    const end = (answer: RawAnswer | undefined, code: string | null): void => {
      if (done) return;
      done = true;
      cancel();
      attempt.endedAt = now();
      attempt.code = code;
      attempt.status = answer?.status ?? null;
      resolve({ attempt, answer });
    };
    const call = requestTo(target, agent, ask);
    const giveUp = (code: string): void => {
      end(undefined, code);
      call.destroy();
    };
    let cancel = (): void => {};
    const connected = (): void => {
      attempt.connectedAt ??= now();
      cancel();
      if (!done) cancel = deadline(answerMs, () => giveUp("answer_timeout"));
    };
    // Until now it may have waited for one of the agent's connections, which is no fault of the network.
    call.on("socket", () => {
      if (closed()) return giveUp("closed");
      cancel = deadline(connectMs, () => giveUp("connect_timeout"));
      attempt.reused = call.reusedSocket;
    });
    whenConnected(target, call, connected);
    call.on("finish", () => {
      attempt.sentAt = now();
    });
    call.on("response", (response) => {
      attempt.firstByteAt = now();
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () =>
        end({ status: response.statusCode!, headers: response.headers, bytes: Buffer.concat(chunks) }, null),
      );
      response.on("error", (error: NodeJS.ErrnoException) => end(undefined, error.code ?? error.message));
    });
    call.on("error", (error: NodeJS.ErrnoException) => end(undefined, error.code ?? error.message));
    call.end(ask.body);
  });
}

/** No answer came. */
export class ConnectionError extends Error {
  override name = "ConnectionError";
  /**
   * `unreached`: there was no connection, and nothing was sent. `lost`: the request was sent, or a part of it, and whether
   * it took effect is not known.
   */
  readonly how: "unreached" | "lost";
  /** A system error's code, `connect_timeout` or `answer_timeout`. */
  readonly code: string;

  constructor(readonly attempt: Attempt) {
    const how = attempt.connectedAt === null ? "unreached" : "lost";
    super(`${how === "unreached" ? "no connection" : "no answer to a request that was sent"}: ${attempt.code}`);
    this.how = how;
    this.code = attempt.code ?? "unknown";
  }
}

/** The service, or something on the way to it, answered that it did not do what was asked. */
export class ProblemError extends Error {
  override name = "ProblemError";

  constructor(
    readonly status: number,
    /** Undefined when the answer is none of this service's, such as a proxy's. */
    readonly problem: Problem | undefined,
    readonly headers: IncomingHttpHeaders,
  ) {
    super(problem === undefined ? `status ${status}` : `${problem.code}: ${problem.detail}`);
  }

  /** The same request may succeed later. */
  get retryable(): boolean {
    return this.problem?.retryable ?? [429, 502, 503, 504].includes(this.status);
  }

  /** What Retry-After asks for, in milliseconds from now. */
  get retryAfterMs(): number | undefined {
    const text = this.headers["retry-after"];
    if (text === undefined) return undefined;
    const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
    return Number.isNaN(ms) ? undefined : Math.max(0, ms);
  }
}

/** What an answer says by its status and body. */
export function problemOf({ status, headers, bytes }: RawAnswer): ProblemError {
  if (!headers["content-type"]?.startsWith("application/problem+json"))
    return new ProblemError(status, undefined, headers);
  try {
    return new ProblemError(status, JSON.parse(bytes.toString("utf8")) as Problem, headers);
  } catch {
    return new ProblemError(status, undefined, headers);
  }
}

/** An answer that goes on, on a connection of its own. */
export interface Opened {
  /** For the body, if it has one: nothing of it was sent yet. */
  call: ClientRequest;
  response: IncomingMessage;
  /** What to say when the connection is lost. */
  lost(code: string): ConnectionError;
}

/**
 * Sends the head of a request and waits for the head of its answer. A connection on which nothing moves for `answerMs`
 * afterwards is cut. @throws ConnectionError @throws ProblemError
 */
export function open(target: Target, ask: RawRequest, { connectMs, answerMs }: Timeouts): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const attempt = begun();
    const lost = (code: string) => new ConnectionError({ ...attempt, endedAt: now(), code });
    const call = requestTo(target, false, ask);
    const giveUp = (code: string): void => {
      cancel();
      reject(lost(code));
      call.destroy();
    };
    let cancel = deadline(connectMs, () => giveUp("connect_timeout"));
    whenConnected(target, call, () => {
      attempt.connectedAt = now();
      cancel();
      cancel = deadline(answerMs, () => giveUp("answer_timeout"));
    });
    call.on("error", (error: NodeJS.ErrnoException) => giveUp(error.code ?? error.message));
    call.on("response", (response) => {
      attempt.firstByteAt = now();
      const status = response.statusCode!;
      if (status < 400) {
        cancel();
        call.setTimeout(answerMs, () => call.destroy());
        resolve({ call, response, lost });
        return;
      }
      response.toArray().then(
        (chunks) => {
          cancel();
          reject(problemOf({ status, headers: response.headers, bytes: Buffer.concat(chunks) }));
          call.destroy();
        },
        (error: NodeJS.ErrnoException) => giveUp(error.code ?? error.message),
      );
    });
    // A body has no length yet: there may be no end of it.
    if (ask.method === "GET") call.end();
    else call.flushHeaders();
  });
}

/** The lines of an answer, without their ends. What is after the last end is none. @throws ConnectionError */
export async function* linesOf({ response, lost }: Opened): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  // Of a line that goes on; joined once, since it may have megabytes.
  let parts: string[] = [];
  try {
    for await (const chunk of response) {
      const lines = decoder.decode(chunk as Buffer, { stream: true }).split("\n");
      const last = lines.pop()!;
      if (lines.length > 0) {
        lines[0] = `${parts.join("")}${lines[0]}`;
        parts = [];
        yield* lines;
      }
      parts.push(last);
    }
  } catch (error) {
    throw lost((error as NodeJS.ErrnoException).code ?? (error as Error).message);
  }
}

/** How often something may be tried, and when again. */
export interface RetryOptions {
  /** How often it may be tried, the first time included. */
  attemptsMax?: number;
  /** No attempt is begun so long after the call. */
  retryMsMax?: number;
  /** Ends the waiting between attempts; a request under way is answered first. */
  signal?: AbortSignal;
}

const defaults = { attemptsMax: 8, retryMsMax: 30_000 };
/** Doubled with each attempt; the wait is a random part of it, so that clients of one outage do not come back together. */
const backoffMsMin = 20;
const backoffMsMax = 2000;

export class Retries {
  attempts = 1;
  readonly #options: RetryOptions & typeof defaults;
  #until: number;

  constructor(options: RetryOptions) {
    this.#options = { ...defaults, ...options };
    this.#until = now() + this.#options.retryMsMax;
  }

  /** Something has come of it: what fails from here on fails for the first time. */
  progressed(): void {
    this.attempts = 1;
    this.#until = now() + this.#options.retryMsMax;
  }

  /** Waits for the next attempt, `msMin` at least. @throws `error` when there is none. */
  async after(error: ConnectionError | ProblemError, msMin = 0): Promise<void> {
    const { attemptsMax, signal } = this.#options;
    const isFinal = error instanceof ProblemError && !error.retryable;
    const waitMs = Math.max(msMin, waitOf(error, this.attempts));
    if (isFinal || this.attempts >= attemptsMax || now() + waitMs > this.#until || signal?.aborted) throw error;
    await wait(waitMs, signal);
    if (signal?.aborted) throw error;
    this.attempts += 1;
  }
}

function waitOf(error: ConnectionError | ProblemError, attempts: number): number {
  const most = Math.min(backoffMsMax, backoffMsMin * 2 ** attempts);
  const backoff = most * (0.5 + Math.random() / 2);
  return error instanceof ProblemError ? (error.retryAfterMs ?? 0) + backoff : backoff;
}

function wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const over = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    signal?.addEventListener("abort", over);
  });
}
