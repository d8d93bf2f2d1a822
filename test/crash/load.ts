// load.ts - clients that change a region in a closed loop over keep-alive connections, and a ledger of what each was told.
import { type Answer, Lost, RawClient } from "../raw-client.js";

/** Two cells of each client, far apart, that every batch sets to the same number. */
const firstCell = (client: number) => client * 8;
const secondCell = (client: number) => 8192 + client * 8;
export const loadRegionBytes = 16384;

export interface Ledger {
  /** The last number that was answered 200. */
  acknowledged: number;
  /** A number that was sent and never answered: it may be there or not. */
  unanswered: number | undefined;
  answered: number;
  /** Answered 503. */
  refused: number;
  /** Established connections that ended without the answer to a request. */
  dropped: number;
  /** Why, for each of those. */
  losses: string[];
}

export class Load {
  readonly ledgers: Ledger[];
  readonly #running: Promise<void>[];
  #stop = false;

  /** Starts at once, one client for each number in `bases`: what its cells hold. */
  constructor(
    readonly port: number,
    readonly region: string,
    bases: readonly number[],
  ) {
    this.ledgers = bases.map((base) => ({
      acknowledged: base,
      unanswered: undefined,
      answered: 0,
      refused: 0,
      dropped: 0,
      losses: [],
    }));
    this.#running = this.ledgers.map((ledger, client) => this.#run(ledger, client));
  }

  /** Until every client found that nobody listens any more. */
  async ended(): Promise<void> {
    await Promise.all(this.#running);
  }

  stop(): void {
    this.#stop = true;
  }

  sum(of: (ledger: Ledger) => number): number {
    return this.ledgers.reduce((sum, ledger) => sum + of(ledger), 0);
  }

  async #run(ledger: Ledger, client: number): Promise<void> {
    let connection: RawClient | undefined;
    const giveUp = performance.now() + 20_000;
    while (!this.#stop && performance.now() < giveUp) {
      const number = ledger.acknowledged + 1;
      try {
        connection ??= await RawClient.connect(this.port);
        ledger.unanswered = number;
        const answer = await connection.request("POST", `/v1/regions/${this.region}/batches`, batchOf(client, number));
        this.#note(ledger, number, answer);
        if (answer.closes) {
          connection.destroy();
          connection = undefined;
        }
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        connection?.destroy();
        connection = undefined;
        if (error.how === "refused") return;
        ledger.dropped += 1;
        ledger.losses.push(error.code);
        // What became of it is unknown, so the next number would hide it.
        return;
      }
    }
    connection?.destroy();
  }

  #note(ledger: Ledger, number: number, answer: Answer): void {
    if (answer.status === 200) {
      ledger.acknowledged = number;
      ledger.answered += 1;
    } else if (answer.status === 503) {
      ledger.refused += 1;
    } else {
      throw new Error(`${answer.status}: ${answer.body}`);
    }
    ledger.unanswered = undefined;
  }
}

function batchOf(client: number, number: number): string {
  const ops = [firstCell(client), secondCell(client)].map((offset) => ({
    op: "store",
    offset,
    type: "u64",
    value: number,
  }));
  return JSON.stringify({ ops });
}

/** What the region's bytes say about a ledger: undefined when all is well. */
export function verdict(bytes: Buffer, client: number, ledger: Ledger): string | undefined {
  const first = Number(bytes.readBigUInt64LE(firstCell(client)));
  const second = Number(bytes.readBigUInt64LE(secondCell(client)));
  if (first !== second) return `client ${client}: torn, ${first} and ${second}`;
  if (first < ledger.acknowledged)
    return `client ${client}: lost, ${ledger.acknowledged} was answered, ${first} is there`;
  if (first > ledger.acknowledged && first !== ledger.unanswered) {
    return `client ${client}: ${first} is there, ${ledger.acknowledged} was the last answered`;
  }
  return undefined;
}

/** What each client's cells hold. */
export function valuesIn(bytes: Buffer, clients: number): number[] {
  return Array.from({ length: clients }, (_, client) => Number(bytes.readBigUInt64LE(firstCell(client))));
}
