// client.ts - the typed client: every operation of openapi.json by its name, over keep-alive connections, with retries that
// are exact. It knows the API and nothing of this process: it runs in other programs.
//
// A mutating request carries an Idempotency-Key, its own or one made up, so that a request whose answer was lost can be
// sent again: the service does it once, and answers a repetition with what it answered, or would have answered, the first.
import { randomUUID } from "node:crypto";
import { Agent as HttpAgent, request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import { type Operations, operations, type Problem } from "../openapi/types.js";

export type * from "../openapi/types.js";

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

/** One request over `agent`, once. Never rejects: an attempt without a status says why there is no answer. */
export function exchange(
  target: Target,
  agent: HttpAgent,
  ask: RawRequest,
  { connectMs, answerMs }: Timeouts,
): Promise<{ attempt: Attempt; answer: RawAnswer | undefined }> {
  return new Promise((resolve) => {
    const attempt: Attempt = {
      reused: false,
      startedAt: now(),
      connectedAt: null,
      sentAt: null,
      firstByteAt: null,
      endedAt: 0,
      status: null,
      code: null,
    };
    let done = false;
    const end = (answer: RawAnswer | undefined, code: string | null): void => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      attempt.endedAt = now();
      attempt.code = code;
      attempt.status = answer?.status ?? null;
      resolve({ attempt, answer });
    };
    const length = ask.body === undefined ? {} : { "content-length": String(Buffer.byteLength(ask.body)) };
    const options: RequestOptions = {
      ...("socketPath" in target ? { socketPath: target.socketPath } : { host: target.host, port: target.port }),
      method: ask.method,
      path: ask.path,
      agent,
      headers: { ...ask.headers, ...length },
    };
    const isTls = "tls" in target && target.tls === true;
    const call = isTls ? httpsRequest(options) : httpRequest(options);
    const giveUp = (code: string): void => {
      end(undefined, code);
      call.destroy();
    };
    let timer = setTimeout(() => giveUp("connect_timeout"), connectMs);
    const connected = (): void => {
      attempt.connectedAt ??= now();
      clearTimeout(timer);
      if (!done) timer = setTimeout(() => giveUp("answer_timeout"), answerMs);
    };
    call.on("socket", (socket: Socket) => {
      attempt.reused = call.reusedSocket;
      if (socket.connecting) socket.once(isTls ? "secureConnect" : "connect", connected);
      else connected();
    });
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

export type OperationName = keyof Operations;
/** What an operation is asked with: `path`, `query`, `headers`, `body`. */
export type Ask<Name extends OperationName> = Omit<Operations[Name], "answer">;

export interface Answer<Name extends OperationName> {
  status: number;
  headers: IncomingHttpHeaders;
  body: Operations[Name]["answer"];
  /** Answered from what an earlier request with the same key had done. */
  replayed: boolean;
  /** Requests that it took. */
  attempts: number;
}

export interface CallOptions {
  /** How often it may be tried, the first time included. */
  attemptsMax?: number;
  /** No attempt is begun so long after the call. */
  retryMsMax?: number;
  /** Ends the waiting between attempts; a request under way is answered first. */
  signal?: AbortSignal;
  onAttempt?: (attempt: Attempt, answer: RawAnswer | undefined) => void;
}

export interface ClientOptions extends CallOptions {
  /** A bearer token. */
  token?: string | (() => string);
  timeouts?: Partial<Timeouts>;
  /** Connections at the same time; further calls wait for one (default 16). */
  connectionsMax?: number;
}

const defaults = { attemptsMax: 8, retryMsMax: 30_000 };
const defaultTimeouts: Timeouts = { connectMs: 2000, answerMs: 30_000 };
/** Doubled with each attempt; the wait is a random part of it, so that clients of one outage do not come back together. */
const backoffMsMin = 20;
const backoffMsMax = 2000;

export class Client {
  readonly #target: Target;
  readonly #agent: HttpAgent;
  readonly #options: ClientOptions;

  /** `where`: `http://host:port`, `https://host`, `unix:/path/of/socket`, or a target. @throws TypeError */
  constructor(where: string | Target, options: ClientOptions = {}) {
    this.#target = typeof where === "string" ? targetOf(where) : where;
    const pool = { keepAlive: true, maxSockets: options.connectionsMax ?? 16 };
    this.#agent = "tls" in this.#target && this.#target.tls ? new HttpsAgent(pool) : new HttpAgent(pool);
    this.#options = options;
  }

  /** Ends its connections. Calls under way fail. */
  close(): void {
    this.#agent.destroy();
  }

  /**
   * Does an operation. What can be retried is, after the time that the service asks for or a growing one.
   * @throws ConnectionError no answer came, also not to the last attempt
   * @throws ProblemError the answer is no success
   */
  async call<Name extends OperationName>(
    name: Name,
    // biome-ignore lint/complexity/noBannedTypes: {} is what an operation without anything required extends.
    ...[ask, options]: {} extends Ask<Name>
      ? [ask?: Ask<Name>, options?: CallOptions]
      : [ask: Ask<Name>, options?: CallOptions]
  ): Promise<Answer<Name>> {
    const { attemptsMax, retryMsMax, signal, onAttempt } = { ...defaults, ...this.#options, ...options };
    const raw = this.#requestOf(name, (ask ?? {}) as AnyAsk);
    const until = now() + retryMsMax;
    for (let attempts = 1; ; ++attempts) {
      const timeouts = { ...defaultTimeouts, ...this.#options.timeouts };
      const { attempt, answer } = await exchange(this.#target, this.#agent, raw, timeouts);
      onAttempt?.(attempt, answer);
      if (answer !== undefined && answer.status < 400) return answerOf(answer, attempts);
      const error = answer === undefined ? new ConnectionError(attempt) : problemOf(answer);
      const isFinal = error instanceof ProblemError && !error.retryable;
      const waitMs = waitOf(error, attempts);
      if (isFinal || attempts >= attemptsMax || now() + waitMs > until || signal?.aborted) throw error;
      await wait(waitMs, signal);
      if (signal?.aborted) throw error;
    }
  }

  #requestOf(name: OperationName, ask: AnyAsk): RawRequest {
    const { method, path, mediaType, keyed } = operations[name];
    const filled = path.replace(/\{(\w+)\}/g, (_, part: string) => encodeURIComponent(String(ask.path?.[part])));
    const query = new URLSearchParams();
    for (const [member, value] of Object.entries(ask.query ?? {})) {
      if (value !== undefined) query.append(member, String(value));
    }
    const { token } = this.#options;
    const bearer = typeof token === "function" ? token() : token;
    const headers: Record<string, string> = {};
    if (bearer !== undefined) headers.authorization = `Bearer ${bearer}`;
    if (mediaType !== undefined && ask.body !== undefined) headers["content-type"] = mediaType;
    if (keyed) headers["idempotency-key"] = randomUUID();
    for (const [member, value] of Object.entries(ask.headers ?? {})) {
      if (value !== undefined) headers[member] = String(value);
    }
    const isRaw = typeof ask.body === "string" || Buffer.isBuffer(ask.body) || ask.body === undefined;
    return {
      method,
      path: query.size > 0 ? `${filled}?${query}` : filled,
      headers,
      body: isRaw ? (ask.body as string | Buffer | undefined) : JSON.stringify(ask.body),
    };
  }
}

interface AnyAsk {
  path?: Record<string, unknown>;
  query?: Record<string, unknown>;
  headers?: Record<string, unknown>;
  body?: unknown;
}

function targetOf(where: string): Target {
  if (where.startsWith("unix:")) return { socketPath: where.slice("unix:".length) };
  const { protocol, hostname, port } = new URL(where);
  if (protocol !== "http:" && protocol !== "https:") throw new TypeError(`not http, https or unix: ${where}`);
  const tls = protocol === "https:";
  return { host: hostname.replace(/^\[|\]$/g, ""), port: Number(port || (tls ? 443 : 80)), tls };
}

const isJson = (headers: IncomingHttpHeaders): boolean => /\bjson\b/.test(headers["content-type"] ?? "");

function answerOf<Name extends OperationName>(answer: RawAnswer, attempts: number): Answer<Name> {
  const { status, headers, bytes } = answer;
  const text = headers["content-type"]?.startsWith("text/") === true;
  const body = isJson(headers) ? JSON.parse(bytes.toString("utf8")) : text ? bytes.toString("utf8") : bytes;
  return {
    status,
    headers,
    body: (status === 204 ? undefined : body) as Answer<Name>["body"],
    replayed: headers["idempotency-replayed"] === "?1",
    attempts,
  };
}

function problemOf({ status, headers, bytes }: RawAnswer): ProblemError {
  if (!headers["content-type"]?.startsWith("application/problem+json"))
    return new ProblemError(status, undefined, headers);
  try {
    return new ProblemError(status, JSON.parse(bytes.toString("utf8")) as Problem, headers);
  } catch {
    return new ProblemError(status, undefined, headers);
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
