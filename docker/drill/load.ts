// load.ts - clients that send batches in a closed loop, each over a connection of its own, and write what they were told
// into the ledger; and readers who look for a batch that is half there. Nothing here judges.
//
// They use the client that the service's users have (service/client.ts), and watch each of its attempts.
import { Agent } from "node:http";
import {
  type Answer,
  type CallOptions,
  Client,
  ConnectionError,
  exchange,
  ProblemError,
  type RawAnswer,
  type Attempt as WireAttempt,
} from "../../service/client.js";
import {
  batchOf,
  cellBytes,
  type Durability,
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

/** One request of one client. */
export interface Attempt extends WireAttempt {
  client: number;
}

/** A container that is gone sends no reset: longer without an answer counts as none. */
export const timeouts = { connectMs: 1000, answerMs: 3000 };
const retryMs = 4;
/** A persistent client's batch is answered by then, through a stop and a start. */
const persistMsMax = 15_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A client of one connection that tries once. `target` may be changed in place: a container may get another address. */
export const clientOf = (target: Target): Client => new Client(target, { attemptsMax: 1, connectionsMax: 1, timeouts });

/** What an attempt says about whether the batch is there. */
function outcomeOf(attempt: WireAttempt): Entry["outcome"] | "unexpected" {
  if (attempt.status === 200) return "acknowledged";
  if (attempt.status === 503) return "refused";
  if (attempt.status !== null) return "unexpected";
  return attempt.connectedAt === null ? "unreached" : "ambiguous";
}

export interface LoadOptions {
  connections: number;
  /** Of each batch; without it, each region's own. */
  durability?: Durability | undefined;
  /** How to ask a service that is not this one: its path, whose answers below 500 are good ones. */
  plainPath?: string | undefined;
  /** Leave it to the client to send an unanswered or refused batch again, with its key and as late as it is asked to. */
  persistent?: boolean;
  readers?: number;
}

/** A load under way. stop() resolves when the last client has been answered or given up. */
export class Load {
  readonly attempts: Attempt[] = [];
  /** Of the readers, which are clients of their own: numbered on from those that send. */
  readonly readAttempts: Attempt[] = [];
  /** Answers that no client of a healthy service gets. */
  readonly unexpected: string[] = [];
  /** Batches that a persistent client gave up. */
  unanswered = 0;
  /** Reads that showed two batches at once. */
  mixedReads = 0;
  /** Reads of an older generation than the same reader had seen. */
  backwardReads = 0;
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
      this.#reader(options.connections + at, at % Math.max(1, options.connections)),
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

  #client(client: number): Promise<void> {
    const { plainPath } = this.options;
    return plainPath === undefined ? this.#sender(client) : this.#asker(client, plainPath);
  }

  async #asker(client: number, path: string): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (!this.#stopping) {
      const { attempt } = await exchange(this.target, agent, { method: "GET", path }, timeouts);
      this.attempts.push({ ...attempt, client });
      if (attempt.connectedAt === null || attempt.status === 503) await sleep(retryMs);
    }
    agent.destroy();
  }

  async #sender(client: number): Promise<void> {
    const { durability, persistent } = this.options;
    const service = clientOf(this.target);
    const options: CallOptions = persistent ? { attemptsMax: Number.POSITIVE_INFINITY, retryMsMax: persistMsMax } : {};
    while (!this.#stopping) {
      const entry = this.ledger.next(client);
      if (entry === undefined) break;
      const sent = await sendEntry(service, this.ledger.epoch, entry, durability, {
        ...options,
        onAttempt: (attempt) => this.attempts.push({ ...attempt, client }),
      });
      this.unexpected.push(...sent.wrong);
      if (entry.outcome === "acknowledged") continue;
      if (persistent) this.unanswered += 1;
      await sleep(retryMs);
    }
    service.close();
  }

  // One range, so one point in time: both stamps of a client's cell are of the same batch.
  async #reader(client: number, cell: number): Promise<void> {
    const service = clientOf(this.target);
    const from = cell * cellBytes;
    const headers = { range: `bytes=${from}-${from + cellBytes - 1}` };
    const onAttempt = (attempt: WireAttempt): void => {
      this.readAttempts.push({ ...attempt, client });
    };
    let generation = 0;
    while (!this.#stopping) {
      const path = { region: regionNames(this.ledger.epoch).cells };
      try {
        const answer = await service.call("getContent", { path, headers }, { onAttempt });
        this.reads += 1;
        if (isMixed(answer.body)) this.mixedReads += 1;
        const seen = Number(answer.headers["region-generation"]);
        if (seen < generation) this.backwardReads += 1;
        generation = seen;
      } catch (error) {
        if (!(error instanceof ConnectionError || error instanceof ProblemError)) throw error;
        if (error instanceof ProblemError && error.status !== 503)
          this.unexpected.push(`a read: ${error.status} ${error.message}`);
      }
      await sleep(retryMs);
    }
    service.close();
  }
}

/** True if the cell shows one batch's stamp in one page and another's in the next. */
export function isMixed(cell: Buffer): boolean {
  const near = cell.subarray(nearStampAt, nearStampAt + stampBytes);
  return !near.equals(cell.subarray(farStampAt, farStampAt + stampBytes));
}

/** What became of sending an entry: the answer, or why there is none; and what an answer says that breaks a promise. */
export interface Sent {
  answer: Answer<"commitMultiBatch"> | undefined;
  error: ConnectionError | ProblemError | undefined;
  wrong: string[];
}

/** Sends the batch of an entry and writes the outcome of each attempt into the entry. */
export async function sendEntry(
  service: Client,
  epoch: Epoch,
  entry: Entry,
  durability: Durability | undefined,
  options: CallOptions = {},
): Promise<Sent> {
  const sent: Sent = { answer: undefined, error: undefined, wrong: [] };
  const noted = (attempt: WireAttempt, raw: RawAnswer | undefined): void => {
    note(entry, attempt);
    options.onAttempt?.(attempt, raw);
  };
  const ask = { headers: { "idempotency-key": entry.key.toString("hex") }, body: batchOf(epoch, entry, durability) };
  const isFirst = entry.attempts === 0;
  try {
    sent.answer = await service.call("commitMultiBatch", ask, { ...options, onAttempt: noted });
    const broken = brokenIn(sent.answer.body, epoch, durability);
    if (broken !== undefined) sent.wrong.push(broken);
    if (sent.answer.replayed && isFirst && entry.attempts === 1)
      sent.wrong.push("a first request was answered as a replay");
  } catch (error) {
    if (!(error instanceof ConnectionError || error instanceof ProblemError)) throw error;
    sent.error = error;
    if (error instanceof ProblemError && error.status !== 503) sent.wrong.push(`${error.status} ${error.message}`);
    // It is there now, and nobody promises that it stays.
    if (error instanceof ProblemError && error.problem?.committed === true) {
      entry.wasAmbiguous = true;
      entry.outcome = "ambiguous";
    }
  }
  return sent;
}

function note(entry: Entry, attempt: WireAttempt): void {
  entry.attempts += 1;
  const outcome = outcomeOf(attempt);
  if (outcome === "ambiguous") entry.wasAmbiguous = true;
  if (outcome === "acknowledged") entry.outcome = outcome;
  // A refusal of this attempt says nothing about the one before it, whose answer was lost.
  else if (entry.wasAmbiguous) entry.outcome = "ambiguous";
  else entry.outcome = outcome === "unexpected" ? "refused" : outcome;
}

/** What an acknowledgement says that can't be. Notes the generation that it tells. */
function brokenIn(
  body: Answer<"commitMultiBatch">["body"],
  epoch: Epoch,
  durability: Durability | undefined,
): string | undefined {
  const names = Object.values(regionNames(epoch));
  const [generation, ...others] = names.map((name) => body.generations[name]);
  if (!body.committed || generation === undefined || others.some((other) => other !== generation))
    return `acknowledged with ${JSON.stringify(body)}`;
  epoch.generation = Math.max(epoch.generation, generation);
  for (const [at, name] of names.entries()) {
    const isDurable = (durability ?? epoch.durabilities[at]) === "durable";
    if (isDurable && !(body.durableGenerations[name]! >= generation)) return "acknowledged before it was durable";
  }
  return undefined;
}
