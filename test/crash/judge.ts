// judge.ts - what must be true of a store after its service was killed, given what its clients know.
//
//   every acknowledged batch is there; every other one is whole or absent; nothing was executed twice
//   the generation is the number of batches, and never less than anybody was told
//   a reader sees one state at any time, while and after; the mapped file is the same bytes
//   a retry with the same key is answered, as a replay exactly when the batch is there
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Lost, RawClient } from "../raw-client.js";
import { type Client, type Pair, pairs, placesOf, regionBytes, stampAt } from "./ledger.js";

interface RegionState {
  generation: number;
  counter: number;
  /** Of each client of the pair. */
  numbers: number[];
}

async function contentOf(connection: RawClient, region: string): Promise<{ bytes: Buffer; generation: number }> {
  const answer = await connection.request("GET", `/v1/regions/${region}/content`);
  if (answer.status === 503) throw new Lost("dropped", "503");
  if (answer.status !== 200) throw new Error(`${region} was answered ${answer.status}: ${answer.body}`);
  const bytes = Buffer.from(answer.body, "latin1");
  if (bytes.length !== regionBytes) throw new Error(`${region} has ${bytes.length} bytes`);
  return { bytes, generation: Number(answer.headers["region-generation"]) };
}

/** @throws when the bytes are not one whole state */
function stateOf(region: string, bytes: Buffer, generation: number, clients: readonly Client[]): RegionState {
  const numbers = clients.map(({ seed, index, slot }) => {
    const found = placesOf(slot).map((place) => stampAt(bytes, place, seed, index));
    if (found[0] === undefined || found.some((number) => number !== found[0])) {
      throw new Error(`torn: client ${index} finds its stamps ${found} in ${region} at generation ${generation}`);
    }
    return found[0];
  });
  const counter = Number(bytes.readBigUInt64LE(0));
  const batches = numbers.reduce((sum, number) => sum + number, 0);
  if (counter !== batches || generation !== batches) {
    throw new Error(`${region}: ${batches} batches, a counter of ${counter}, generation ${generation}`);
  }
  return { generation, counter, numbers };
}

const clientsOn = (pair: Pair, clients: readonly Client[]) => clients.filter((client) => client.pair === pair);

/** Reads a pair's regions in turn until the service is gone. Returns how many reads were whole. @throws when one was not */
export async function watch(port: number, pair: Pair, clients: readonly Client[]): Promise<number> {
  const own = clientsOn(pair, clients);
  let reads = 0;
  let connection: RawClient | undefined;
  try {
    connection = await RawClient.connect(port);
    for (let last = [0, 0]; ; ) {
      for (const [i, region] of pair.regions.entries()) {
        const { bytes, generation } = await contentOf(connection, region);
        stateOf(region, bytes, generation, own);
        if (generation < last[i]!) throw new Error(`${region} went back from ${last[i]} to ${generation}`);
        last = last.with(i, generation);
        reads += 1;
      }
    }
  } catch (error) {
    if (!(error instanceof Lost)) throw error;
    return reads;
  } finally {
    connection?.destroy();
  }
}

export interface Verdict {
  /** Batches that nobody had an answer to and that are not there: the kill came before they were published. */
  absent: number;
  /** And those that are there. */
  landed: number;
  /** Records that the start applied again: published before the kill, and not applied, or not yet said to be. */
  redone: number;
  /** Of the table in native/recovery.h. */
  row: string;
}

/**
 * Judges every pair, lets each client ask again for what it doesn't know, and judges again. Nothing else may run.
 * @throws with what is wrong
 */
export async function judge(port: number, dir: string, clients: readonly Client[]): Promise<Verdict> {
  const connection = await RawClient.connect(port);
  const status = await connection.request("GET", "/v1/status");
  const { row, redone, faulted, unverified } = recoveryIn(status.body);
  if (faulted.length > 0 || unverified.length > 0) throw new Error(`faulted ${faulted}, unverified ${unverified}`);
  const verdict: Verdict = { absent: 0, landed: 0, redone, row };
  for (const pair of pairs) {
    const own = clientsOn(pair, clients);
    const states = await statesOf(connection, pair, own);
    for (const [i, client] of own.entries()) {
      const found = states[0]!.numbers[i]!;
      if (found < client.acknowledged) {
        throw new Error(
          `lost: client ${client.index} was answered ${client.acknowledged}, ${found} is there (row ${row})`,
        );
      }
      if (found > client.sent) throw new Error(`client ${client.index} sent ${client.sent}, ${found} is there`);
      if (states[0]!.generation < client.generation) throw new Error("the generation went back");
      if (client.unknown) await retry(connection, client, found === client.sent, verdict);
    }
    // In the file as in the answers: the page cache has no other version.
    const after = await statesOf(connection, pair, own);
    for (const [i, client] of own.entries()) {
      if (after[0]!.numbers[i] !== client.acknowledged) throw new Error("a retry did not land once");
    }
    for (const region of pair.regions) {
      // Batches of ordered regions are applied, and so reach the file, with the next flush.
      await connection.request("POST", `/v1/regions/${region}/flushes`);
      const data = readFileSync(join(dir, "regions", region, "data"));
      stateOf(`the file of ${region}`, data, after[0]!.generation, own);
    }
  }
  connection.destroy();
  return verdict;
}

async function retry(connection: RawClient, client: Client, landed: boolean, verdict: Verdict): Promise<void> {
  const answer = await client.ask(connection);
  if (answer.status !== 200) throw new Error(`a retry was answered ${answer.status}: ${answer.body}`);
  const replayed = answer.headers["idempotency-replayed"] === "?1";
  if (replayed !== landed) {
    throw new Error(landed ? "a batch that was there was executed again" : "a batch that was absent was replayed");
  }
  if (landed) verdict.landed += 1;
  else verdict.absent += 1;
}

async function statesOf(connection: RawClient, pair: Pair, own: readonly Client[]): Promise<RegionState[]> {
  const states = [];
  for (const region of pair.regions) {
    const { bytes, generation } = await contentOf(connection, region);
    states.push(stateOf(region, bytes, generation, own));
  }
  const [a, b] = states;
  if (JSON.stringify(a) !== JSON.stringify(b)) {
    throw new Error(`torn between ${pair.regions}: ${JSON.stringify(a)} and ${JSON.stringify(b)}`);
  }
  return states;
}

interface Recovery {
  row: string;
  redone: number;
  faulted: string[];
  unverified: string[];
}

function recoveryIn(status: string): Recovery {
  return (JSON.parse(status) as { store: { recovery: Recovery } }).store.recovery;
}
