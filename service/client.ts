// client.ts - the typed client: every operation of openapi.json by its name, over keep-alive connections, with retries that
// are exact. It knows the API and nothing of this process: it runs in other programs.
//
// A mutating request carries an Idempotency-Key, its own or one made up, so that a request whose answer was lost can be
// sent again: the service does it once, and answers a repetition with what it answered, or would have answered, the first.
import { randomUUID } from "node:crypto";
import { Agent as HttpAgent, type IncomingHttpHeaders } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { type Change, type Operations, operations } from "../openapi/types.js";
import {
  type Attempt,
  ConnectionError,
  exchange,
  open,
  problemOf,
  type RawAnswer,
  type RawRequest,
  Retries,
  type RetryOptions,
  type Target,
  type Timeouts,
} from "./client-http.js";
import { followChanges, type Reset, type StreamedAnswer, sendBatches } from "./client-streams.js";

export type * from "../openapi/types.js";
export * from "./client-http.js";
export type { Reset, StreamedAnswer } from "./client-streams.js";

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

export interface CallOptions extends RetryOptions {
  onAttempt?: (attempt: Attempt, answer: RawAnswer | undefined) => void;
}

export interface ClientOptions extends CallOptions {
  /** A bearer token. */
  token?: string | (() => string);
  timeouts?: Partial<Timeouts>;
  /** Connections at the same time; further calls wait for one (default 16). */
  connectionsMax?: number;
}

const defaultTimeouts: Timeouts = { connectMs: 2000, answerMs: 30_000 };

export class Client {
  readonly #target: Target;
  readonly #agent: HttpAgent;
  readonly #options: ClientOptions;
  #closed = false;

  /** `where`: `http://host:port`, `https://host`, `unix:/path/of/socket`, or a target. @throws TypeError */
  constructor(where: string | Target, options: ClientOptions = {}) {
    this.#target = typeof where === "string" ? targetOf(where) : where;
    const pool = { keepAlive: true, maxSockets: options.connectionsMax ?? 16 };
    this.#agent = "tls" in this.#target && this.#target.tls ? new HttpsAgent(pool) : new HttpAgent(pool);
    this.#options = options;
  }

  /** Ends its connections. Calls under way fail. */
  close(): void {
    this.#closed = true;
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
    const { onAttempt, ...retrying } = { ...this.#options, ...options };
    const raw = this.#requestOf(name, (ask ?? {}) as AnyAsk);
    const retries = new Retries(retrying);
    for (;;) {
      const isClosed = () => this.#closed;
      const { attempt, answer } = await exchange(this.#target, this.#agent, raw, this.#timeouts(), isClosed);
      onAttempt?.(attempt, answer);
      if (answer !== undefined && answer.status < 400) return answerOf(answer, retries.attempts);
      const failure = answer === undefined ? new ConnectionError(attempt) : problemOf(answer);
      if (this.#closed) throw failure;
      await retries.after(failure);
    }
  }

  /**
   * What changes in a region after the generation `since`, or from now on, each change once and in order. It goes on over lost
   * connections and restarts of the service; a `reset` says that changes are no longer known, so that the region has to be
   * read anew. Ends when the region is deleted, or by `signal`.
   * @throws ConnectionError, ProblemError as `call` does
   */
  async *changes(
    region: string,
    { since, ...options }: RetryOptions & { since?: number } = {},
  ): AsyncGenerator<Change | Reset, void, void> {
    const path = { region };
    // Known before the first event, so that a connection that is lost before it loses nothing.
    const from = since ?? (await this.call("getRegion", { path }, options)).body.generation;
    const ask = (lastEventId: string): RawRequest =>
      this.#requestOf("listChanges", { path, headers: { accept: "text/event-stream", "last-event-id": lastEventId } });
    yield* followChanges((last) => open(this.#target, ask(last), this.#timeouts()), from, {
      ...this.#options,
      ...options,
    });
  }

  /**
   * Commits many batches over one connection, in order, while their answers come. Each is run once: what was sent and not
   * answered when a connection is lost is sent again under its key. A batch that is refused has its problem as the answer, and
   * those after it are run; it did nothing, and if its answer is lost it is looked at again. Batches are taken from `batches` no faster than the service takes them.
   * @throws ConnectionError, ProblemError as `call` does; those of batches that were given to the caller stay as they are
   */
  async *stream<Name extends "commitBatch" | "commitMultiBatch">(
    name: Name,
    ask: Pick<Ask<Name>, keyof Ask<Name> & "path">,
    batches: Iterable<Operations[Name]["body"]> | AsyncIterable<Operations[Name]["body"]>,
    options?: RetryOptions,
  ): AsyncGenerator<StreamedAnswer<Operations[Name]["answer"]>, void, void> {
    const raw = (key: string): RawRequest =>
      this.#requestOf(name, {
        ...ask,
        headers: { "content-type": "application/x-ndjson", accept: "application/x-ndjson", "idempotency-key": key },
      });
    yield* sendBatches((key) => open(this.#target, raw(key), this.#timeouts()), batches, {
      ...this.#options,
      ...options,
    });
  }

  #timeouts(): Timeouts {
    return { ...defaultTimeouts, ...this.#options.timeouts };
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
