// ledger.ts - clients that write stamps over HTTP, and what each of them knows: what it sent and what was acknowledged.
//
// It lives outside of the service, so nothing that kills the service reaches it. A batch writes one client's next stamp
// to several scattered, unaligned places of two regions and adds one to a counter in each: any tear, loss or second
// execution shows as a difference between places, counters and generations. judge.ts looks.
import { createHash } from "node:crypto";
import { type Answer, Lost, RawClient } from "../raw-client.js";

/** Two regions that are only written together. */
export interface Pair {
  regions: readonly [string, string];
  durabilities: readonly [string, string];
}

/** Every durability, alone and mixed. */
export const pairs: readonly Pair[] = [
  { regions: ["fast-a", "fast-b"], durabilities: ["fast", "fast"] },
  { regions: ["ordered-a", "ordered-b"], durabilities: ["ordered", "ordered"] },
  { regions: ["durable-a", "durable-b"], durabilities: ["durable", "durable"] },
  { regions: ["mixed-a", "mixed-b"], durabilities: ["ordered", "durable"] },
];
const clientsOfPair = 2;
/** No multiple of a page or of a word. */
export const regionBytes = 61_447;
const stampBytes = 100;

/** Where a client's stamp stands in each region of its pair: unaligned, over a page's end, near the region's end. */
export function placesOf(slot: number): number[] {
  return [67 + slot * 128, 4096 * (3 + 2 * slot) - 50, 30_003 + slot * 200, regionBytes - (slot + 1) * 110];
}

/** Number 0 is a fresh region's zeros. The number can be read back; the rest follows from it. */
function stampOf(seed: number, client: number, number: number): Buffer {
  const stamp = Buffer.alloc(stampBytes);
  if (number === 0) return stamp;
  let digest: Buffer = createHash("sha256").update(`${seed}/${client}/${number}`).digest();
  for (let at = 8; at < stampBytes; at += digest.length) {
    digest.copy(stamp, at);
    digest = createHash("sha256").update(digest).digest();
  }
  stamp.writeBigUInt64LE(BigInt(number), 0);
  return stamp;
}

/** The number of the stamp at a place; undefined when what stands there is no whole stamp of this client. */
export function stampAt(bytes: Buffer, at: number, seed: number, client: number): number | undefined {
  const number = Number(bytes.readBigUInt64LE(at));
  if (number > 2 ** 40) return undefined;
  const whole = stampOf(seed, client, number).equals(bytes.subarray(at, at + stampBytes));
  return whole ? number : undefined;
}

export type Outcome = "acknowledged" | "unknown" | "refused";

interface BatchBody {
  committed: boolean;
  generations: Record<string, number>;
  durableGenerations: Record<string, number>;
  results: { new?: string }[];
}

/** One client. Its next batch is `sent + 1` unless the last one's outcome is unknown, which it asks for again. */
export class Client {
  /** The last number that was answered 200. */
  acknowledged = 0;
  /** The last number that was sent; one more than `acknowledged` while nobody knows. */
  sent = 0;
  /** The generation of both regions in the last answer. */
  generation = 0;
  replays = 0;
  readonly pair: Pair;
  readonly slot: number;

  constructor(
    readonly seed: number,
    readonly index: number,
  ) {
    this.pair = pairs[Math.floor(index / clientsOfPair) % pairs.length]!;
    this.slot = index % clientsOfPair;
  }

  get unknown(): boolean {
    return this.sent > this.acknowledged;
  }

  /** Sends batches until the service is gone. Returns how many were answered. @throws when an answer is wrong */
  async run(port: number): Promise<number> {
    let answered = 0;
    let connection: RawClient | undefined;
    try {
      connection = await RawClient.connect(port);
      for (;;) {
        const answer = await this.ask(connection);
        if (answer.status !== 200) return answered;
        if (answer.headers["idempotency-replayed"] !== undefined) throw new Error("a first request was replayed");
        answered += 1;
      }
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      return answered;
    } finally {
      connection?.destroy();
    }
  }

  /** Sends the next batch, or the last one again while its outcome is unknown. @throws Lost */
  async ask(connection: RawClient): Promise<Answer> {
    const number = this.acknowledged + 1;
    this.sent = number;
    const answer = await connection.request("POST", "/v1/batches", this.#batch(number), {
      "idempotency-key": `client-${this.seed}-${this.index}-${number}`,
    });
    if (answer.status === 200) this.#note(number, answer);
    // 503 says that nothing was written; any other refusal is a mistake.
    else if (answer.status !== 503) throw new Error(`a batch was answered ${answer.status}: ${answer.body}`);
    return answer;
  }

  #batch(number: number): string {
    const data = stampOf(this.seed, this.index, number).toString("base64");
    const [a, b] = this.pair.regions;
    const add = (region: string) => ({ op: "add", region, offset: 0, type: "u64", value: "1" });
    const write = (region: string, offset: number) => ({ op: "write", region, offset, data, encoding: "base64" });
    const places = placesOf(this.slot);
    const writes = places.flatMap((place) => [write(a, place), write(b, place)]);
    return JSON.stringify({ ops: [add(a), ...writes, add(b)] });
  }

  #note(number: number, answer: Answer): void {
    const body = JSON.parse(answer.body) as BatchBody;
    const [a, b] = this.pair.regions;
    const counters = [body.results[0]?.new, body.results.at(-1)?.new].map(Number);
    const generations = [body.generations[a], body.generations[b]];
    // Each batch counts once and is one generation, so all four numbers are the same.
    if (!body.committed || new Set([...counters, ...generations]).size !== 1) {
      throw new Error(`counters ${counters} and generations ${generations} in ${answer.body}`);
    }
    if (generations[0]! <= this.generation) throw new Error(`generation ${generations[0]} after ${this.generation}`);
    for (const [i, region] of this.pair.regions.entries()) {
      const promised = this.pair.durabilities[i] === "durable";
      if (promised && body.durableGenerations[region]! < body.generations[region]!) {
        throw new Error(`acknowledged before it was durable: ${answer.body}`);
      }
    }
    this.generation = generations[0]!;
    this.acknowledged = number;
    if (answer.headers["idempotency-replayed"] === "?1") this.replays += 1;
  }
}

export const clientsOf = (seed: number, count: number): Client[] =>
  Array.from({ length: count }, (_, index) => new Client(seed, index));

/** Makes the regions of every pair. */
export async function makeRegions(port: number): Promise<void> {
  const connection = await RawClient.connect(port);
  for (const { regions, durabilities } of pairs) {
    for (const [i, name] of regions.entries()) {
      const body = JSON.stringify({ name, size: regionBytes, durability: durabilities[i] });
      const { status, body: text } = await connection.request("POST", "/v1/regions", body);
      if (status !== 201) throw new Error(`a region was answered ${status}: ${text}`);
    }
  }
  connection.destroy();
}
