// load.ts - clients that send batches in a closed loop, each over a connection of its own, and write what they were told
// into the ledger; and readers who look for a batch that is half there. Nothing here judges.
import { Agent, type IncomingHttpHeaders, request } from "node:http";
import type { Socket } from "node:net";
import {
  batchOf,
  cellBytes,
  type Entry,
  type Epoch,
  farStampAt,
  type Ledger,
  nearStampAt,
  regionNames,
  stampBytes,
} from "./ledger.js";

export interface Target {
  host: string;
  port: number;
}

/** One request, with times in milliseconds since the epoch. */
export interface Attempt {
  client: number;
  key: string;
  /** Sent on a connection that had carried a request before. */
  reused: boolean;
  startedAt: number;
  connectedAt: number | null;
  sentAt: number | null;
  firstByteAt: number | null;
  endedAt: number;
  status: number | null;
  code: string | null;
  /** Of the problem document of a refusal. */
  problem: string | null;
  replayed: boolean;
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

/** Longer without an answer counts as none: a container that is gone sends no reset. */
const answerMsMax = 3000;
const connectMsMax = 1000;
const retryMs = 4;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One request over `agent`, and what became of it. Never rejects. */
export function exchange(
  target: Target,
  agent: Agent,
  ask: {
    method: string;
    path: string;
    headers?: Record<string, string>;
    body?: string | undefined;
    client?: number;
    key?: string;
  },
  msMax = answerMsMax,
): Promise<{ attempt: Attempt; answer: Answer | undefined }> {
  return new Promise((resolve) => {
    const attempt: Attempt = {
      client: ask.client ?? -1,
      key: ask.key ?? "",
      reused: false,
      startedAt: now(),
      connectedAt: null,
      sentAt: null,
      firstByteAt: null,
      endedAt: 0,
      status: null,
      code: null,
      problem: null,
      replayed: false,
    };
    let done = false;
    const end = (answer: Answer | undefined, code: string | null): void => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      attempt.endedAt = now();
      attempt.code = code;
      if (answer !== undefined) {
        attempt.status = answer.status;
        attempt.replayed = answer.headers["idempotency-replayed"] === "?1";
        if (answer.status >= 400) attempt.problem = problemOf(answer.body);
      }
      resolve({ attempt, answer });
    };
    const call = request({
      host: target.host,
      port: target.port,
      method: ask.method,
      path: ask.path,
      agent,
      headers: {
        ...ask.headers,
        ...(ask.body === undefined ? {} : { "content-length": String(Buffer.byteLength(ask.body)) }),
      },
    });
    let timer = setTimeout(() => giveUp("connect_timeout"), connectMsMax);
    const giveUp = (code: string): void => {
      end(undefined, code);
      call.destroy();
    };
    const connected = (): void => {
      attempt.connectedAt ??= now();
      clearTimeout(timer);
      if (!done) timer = setTimeout(() => giveUp("answer_timeout"), msMax);
    };
    call.on("socket", (socket: Socket) => {
      attempt.reused = call.reusedSocket;
      if (socket.connecting) socket.once("connect", connected);
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
        end({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) }, null),
      );
      response.on("error", (error: NodeJS.ErrnoException) => end(undefined, error.code ?? error.message));
    });
    call.on("error", (error: NodeJS.ErrnoException) => end(undefined, error.code ?? error.message));
    call.end(ask.body);
  });
}

/** What an attempt says about whether the batch is there. */
function outcomeOf(attempt: Attempt): Entry["outcome"] | "unexpected" {
  if (attempt.status === 200) return "acknowledged";
  if (attempt.status === 503) return "refused";
  if (attempt.status !== null) return "unexpected";
  return attempt.connectedAt === null ? "unreached" : "ambiguous";
}

export interface LoadOptions {
  connections: number;
  durability: "ordered" | "durable";
  /** How to ask a service that is not this one: its path, whose answers below 500 are good ones. */
  plainPath?: string | undefined;
  /** Send an unanswered or refused batch again with the same key until it is answered. */
  persistent?: boolean;
  readers?: number;
  authorization?: string | undefined;
}

/** A load under way. stop() resolves when the last client has been answered or given up. */
export class Load {
  readonly attempts: Attempt[] = [];
  /** Answers that no client of a healthy service gets. */
  readonly unexpected: string[] = [];
  /** Reads that showed two batches at once. */
  mixedReads = 0;
  reads = 0;
  #stopping = false;
  readonly #clients: Promise<void>[];

  constructor(
    readonly target: Target,
    readonly ledger: Ledger,
    readonly options: LoadOptions,
  ) {
    const clients = Array.from({ length: options.connections }, (_, client) => this.#client(client));
    const readers = Array.from({ length: options.plainPath === undefined ? (options.readers ?? 1) : 0 }, (_, at) =>
      this.#reader(at % Math.max(1, options.connections)),
    );
    this.#clients = [...clients, ...readers];
  }

  get acknowledged(): number {
    return this.attempts.filter((attempt) => attempt.status === 200).length;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#clients);
  }

  async #client(client: number): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const { plainPath, durability } = this.options;
    while (!this.#stopping) {
      if (plainPath !== undefined) {
        const { attempt } = await exchange(this.target, agent, { method: "GET", path: plainPath, client });
        this.attempts.push(attempt);
        if (attempt.connectedAt === null || attempt.status === 503) await sleep(retryMs);
        continue;
      }
      const entry = this.ledger.next(client);
      if (entry === undefined) break;
      const { epoch } = this.ledger;
      do {
        const attempt = await sendEntry(this.target, agent, epoch, entry, durability, this.options.authorization);
        this.attempts.push(attempt);
        if (outcomeOf(attempt) === "unexpected") this.unexpected.push(`${attempt.status} ${attempt.problem ?? ""}`);
        if (attempt.status !== 200) await sleep(retryMs);
      } while (this.options.persistent && entry.outcome !== "acknowledged" && !this.#stopping);
    }
    agent.destroy();
  }

  // One range, so one point in time: both stamps of a client's cell are of the same batch.
  async #reader(client: number): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const from = client * cellBytes;
    const headers = { range: `bytes=${from}-${from + cellBytes - 1}`, ...authorize(this.options.authorization) };
    while (!this.#stopping) {
      const path = `/v1/regions/${regionNames(this.ledger.epoch).cells}/content`;
      const { answer } = await exchange(this.target, agent, { method: "GET", path, headers });
      if (answer?.status === 206) {
        this.reads += 1;
        if (isMixed(answer.body)) this.mixedReads += 1;
      }
      await sleep(retryMs);
    }
    agent.destroy();
  }
}

/** True if the cell shows one batch's stamp in one page and another's in the next. */
export function isMixed(cell: Buffer): boolean {
  const near = cell.subarray(nearStampAt, nearStampAt + stampBytes);
  return !near.equals(cell.subarray(farStampAt, farStampAt + stampBytes));
}

export const authorize = (token: string | undefined): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };

/** Sends the batch of an entry once and writes the outcome into the entry. */
export async function sendEntry(
  target: Target,
  agent: Agent,
  epoch: Epoch,
  entry: Entry,
  durability: "ordered" | "durable",
  token?: string,
): Promise<Attempt> {
  entry.attempts += 1;
  const key = entry.key.toString("hex");
  const { attempt } = await exchange(target, agent, {
    method: "POST",
    path: "/v1/batches",
    headers: { "content-type": "application/json", "idempotency-key": key, ...authorize(token) },
    body: batchOf(epoch, entry, durability),
    client: entry.client,
    key,
  });
  const outcome = outcomeOf(attempt);
  // A refusal of this attempt says nothing about the one before it, whose answer was lost.
  if (outcome === "unexpected") entry.outcome = entry.wasAmbiguous ? "ambiguous" : "refused";
  else if (outcome === "ambiguous") {
    entry.wasAmbiguous = true;
    entry.outcome = "ambiguous";
  } else entry.outcome = outcome === "acknowledged" || !entry.wasAmbiguous ? outcome : "ambiguous";
  return attempt;
}

function now(): number {
  return performance.timeOrigin + performance.now();
}

function problemOf(body: Buffer): string | null {
  try {
    return (JSON.parse(body.toString("utf8")) as { code?: string }).code ?? null;
  } catch {
    return null;
  }
}
