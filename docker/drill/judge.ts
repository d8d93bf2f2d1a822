// judge.ts - compares the ledger with what a restarted service shows, and says what is wrong. It starts and stops nothing.
//
// The invariants, by the names that records and reports use:
//   I1 every acknowledged batch is there          I2 a batch is there whole or not at all
//   I3 nothing is there that nobody sent, or twice I4 a refused batch is absent
//   I5 an ambiguous one is there once after a retry with its key
//   I6 readers saw whole batches only             I7 the exit code is the scenario's
//   I8 from the signal to the exit within budget  I9 no connection that the kernel accepted was reset
//   I10 ready again within budget, and a second recovery leaves the same bytes
//
// A region's generation counts its batches, so it is one more witness of I1 and I3: exactly as many as are there, and never
// fewer than a client was told.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { type Client, ConnectionError, ProblemError } from "../../service/client.js";
import {
  cellBytes,
  clientsMax,
  type Durability,
  type Entry,
  type Epoch,
  farStampAt,
  firstBytes,
  firstOffset,
  type Ledger,
  nearStampAt,
  regionNames,
  secondBytes,
  secondOffset,
  stampBytes,
} from "./ledger.js";
import { clientOf, isMixed, sendEntry, type Target } from "./load.js";

export type Invariant = "I1" | "I2" | "I3" | "I4" | "I5" | "I6" | "I7" | "I8" | "I9" | "I10";

export interface Violation {
  invariant: Invariant;
  detail: string;
}

/** What the regions of an epoch hold at one moment, when nobody writes. */
export interface Scan {
  first: Buffer;
  second: Buffer;
  cells: Buffer;
  /** Of each of them, in this order. */
  generations: number[];
}

/** Nothing is known of what the service holds: the judge can't tell. */
export class Unjudged extends Error {
  override name = "Unjudged";
}

/** A broken invariant that ends the cycle: without what is missing there is nothing more to judge. */
export class Violated extends Error {
  override name = "Violated";

  constructor(
    readonly invariant: Invariant,
    detail: string,
  ) {
    super(detail);
  }
}

/**
 * Does something with a client of its own. @throws Unjudged when there is no answer, and what `refused` makes of an answer
 * that says no
 */
async function asking<Result>(
  target: Target,
  what: (service: Client) => Promise<Result>,
  refused: (message: string) => Error,
): Promise<Result> {
  const service = clientOf(target);
  try {
    return await what(service);
  } catch (error) {
    if (error instanceof ConnectionError) throw new Unjudged(error.message);
    if (error instanceof ProblemError) throw refused(`${error.status} ${error.message}`);
    throw error;
  } finally {
    service.close();
  }
}

/** Of regions that acknowledged batches are in: whatever the reason, the batches can't be had. */
const notThere = (message: string): Error => new Violated("I1", `a region can't be read: ${message}`);
/** Before anything was done to the service: the machine may have no room for the drill. */
const notMade = (message: string): Error => new Unjudged(`a region can't be made: ${message}`);

export async function makeRegions(target: Target, epoch: Epoch): Promise<void> {
  const names = regionNames(epoch);
  const [first, second, cells] = epoch.durabilities;
  const regions = [
    { name: names.first, size: firstBytes, durability: first },
    { name: names.second, size: secondBytes, durability: second },
    { name: names.cells, size: clientsMax * cellBytes, durability: cells },
  ];
  const make = async (service: Client): Promise<void> => {
    for (const body of regions) await service.call("createRegion", { body });
  };
  await asking(target, make, notMade);
}

async function removeRegions(target: Target, epoch: Epoch): Promise<void> {
  const remove = async (service: Client): Promise<void> => {
    for (const region of Object.values(regionNames(epoch))) await service.call("deleteRegion", { path: { region } });
  };
  await asking(target, remove, notThere);
}

/** Another epoch on new regions, when the one there is could run out of slots. */
export async function renewRegions(target: Target, ledger: Ledger): Promise<void> {
  await removeRegions(target, ledger.epoch);
  await makeRegions(target, ledger.nextEpoch());
}

/** @throws Violated when a region is refused, Unjudged when there is no answer */
export async function scan(target: Target, epoch: Epoch): Promise<Scan> {
  const readAll = async (service: Client): Promise<Scan> => {
    const generations: number[] = [];
    const read = async (region: string): Promise<Buffer> => {
      const { headers, body } = await service.call("getContent", { path: { region } });
      generations.push(Number(headers["region-generation"]));
      return body;
    };
    const names = regionNames(epoch);
    return {
      first: await read(names.first),
      second: await read(names.second),
      cells: await read(names.cells),
      generations,
    };
  };
  return asking(target, readAll, notThere);
}

/** The files that other programs map, once everything is flushed: they hold the same as the answers. */
export async function scanFiles(target: Target, dir: string, epoch: Epoch, answered: Scan): Promise<Scan> {
  const readAll = async (service: Client): Promise<Scan> => {
    const read = async (region: string): Promise<Buffer> => {
      await service.call("flushRegion", { path: { region } });
      return readFileSync(`${dir}/regions/${region}/data`);
    };
    const names = regionNames(epoch);
    return {
      ...answered,
      first: await read(names.first),
      second: await read(names.second),
      cells: await read(names.cells),
    };
  };
  return asking(target, readAll, notThere);
}

export function digestOf(found: Scan): string {
  return createHash("sha256").update(found.first).update(found.second).update(found.cells).digest("hex");
}

export interface Judgement {
  violations: Violation[];
  present: number;
  lost: number;
  torn: number;
  duplicated: number;
  foreign: number;
  refusedButThere: number;
  /** Of the ambiguous ones. */
  ambiguousThere: number;
  ambiguousAbsent: number;
}

const zeros = Buffer.alloc(stampBytes);
const manyZeros = Buffer.alloc(Math.max(firstBytes, secondBytes));

// In place, since there are tens of thousands of stamps to look at after each restart.
const holds = (bytes: Buffer, at: number, stamp: Buffer): boolean =>
  bytes.compare(stamp, 0, stampBytes, at, at + stampBytes) === 0;

/** Pure: the same scan and ledger give the same judgement. */
export function judge(epoch: Epoch, found: Scan): Judgement {
  const verdict: Judgement = {
    violations: [],
    present: 0,
    lost: 0,
    torn: 0,
    duplicated: 0,
    foreign: 0,
    refusedButThere: 0,
    ambiguousThere: 0,
    ambiguousAbsent: 0,
  };
  const say = (invariant: Invariant, detail: string): void => {
    verdict.violations.push({ invariant, detail });
  };
  const counts = new Array<number>(clientsMax).fill(0);
  const stampsOf = new Map<number, Set<string>>();
  for (const entry of epoch.entries) {
    const inFirst = holds(found.first, firstOffset(entry.slot), entry.key);
    const inSecond = holds(found.second, secondOffset(entry.slot), entry.key);
    const what = `batch ${entry.slot} of client ${entry.client} (${entry.outcome})`;
    if (
      (!inFirst && !holds(found.first, firstOffset(entry.slot), zeros)) ||
      (!inSecond && !holds(found.second, secondOffset(entry.slot), zeros))
    ) {
      verdict.foreign += 1;
      say("I3", `${what}: bytes that nobody sent`);
    } else if (inFirst !== inSecond) {
      verdict.torn += 1;
      say("I2", `${what}: in the ${inFirst ? "first" : "second"} region only`);
    } else if (inFirst) {
      verdict.present += 1;
      counts[entry.client]! += 1;
      let stamps = stampsOf.get(entry.client);
      if (stamps === undefined) {
        stamps = new Set();
        stampsOf.set(entry.client, stamps);
      }
      stamps.add(entry.key.toString("hex"));
      if (entry.outcome === "refused" || entry.outcome === "unreached") {
        verdict.refusedButThere += 1;
        say("I4", `${what}: is there`);
      }
      if (entry.outcome === "ambiguous" || entry.outcome === "pending") verdict.ambiguousThere += 1;
    } else if (entry.outcome === "acknowledged") {
      verdict.lost += 1;
      say("I1", `${what}: is gone`);
    } else if (entry.outcome === "ambiguous" || entry.outcome === "pending") {
      verdict.ambiguousAbsent += 1;
    }
  }
  if (!beyondIsZero(epoch, found)) {
    verdict.foreign += 1;
    say("I3", "bytes beyond the last batch that was sent");
  }
  for (let client = 0; client < clientsMax; ++client) judgeCell(client);
  for (const generation of found.generations) {
    if (generation !== verdict.present) say("I3", `generation ${generation} with ${verdict.present} batches there`);
    if (generation < epoch.generation) say("I1", `generation ${generation}, and a client was told ${epoch.generation}`);
  }
  return verdict;

  function judgeCell(client: number): void {
    const cell = found.cells.subarray(client * cellBytes, (client + 1) * cellBytes);
    const counted = Number(cell.readBigUInt64LE(0));
    if (counted > counts[client]!) {
      verdict.duplicated += counted - counts[client]!;
      say("I3", `client ${client}: counted ${counted} for ${counts[client]} batches that are there`);
    } else if (counted < counts[client]!) {
      verdict.torn += counts[client]! - counted;
      say("I2", `client ${client}: counted ${counted} for ${counts[client]} batches that are there`);
    }
    const stamp = cell.subarray(nearStampAt, nearStampAt + stampBytes);
    if (isMixed(cell)) {
      verdict.torn += 1;
      say("I2", `client ${client}: its cell holds two batches`);
    } else if (counts[client]! > 0 && stampsOf.get(client)?.has(stamp.toString("hex")) !== true) {
      verdict.foreign += 1;
      say("I3", `client ${client}: its cell holds a batch that is not there`);
    } else {
      const expected = Buffer.alloc(cellBytes);
      cell.copy(expected, 0, 0, 8);
      if (counts[client]! > 0) for (const at of [nearStampAt, farStampAt]) stamp.copy(expected, at);
      if (!cell.equals(expected)) {
        verdict.foreign += 1;
        say("I3", `client ${client}: its cell holds bytes that nobody sent`);
      }
    }
  }
}

function beyondIsZero(epoch: Epoch, found: Scan): boolean {
  const used = epoch.entries.length;
  const isZero = (bytes: Buffer): boolean => bytes.equals(manyZeros.subarray(0, bytes.length));
  return isZero(found.first.subarray(firstOffset(used))) && isZero(found.second.subarray(0, secondOffset(used - 1)));
}

/**
 * Sends what was ambiguous again with its key (and some of what was refused): all of it must be acknowledged, and what
 * was there already must be told to be a replay. Counts into I5.
 */
export async function retryAmbiguous(
  target: Target,
  epoch: Epoch,
  found: Scan,
  durability: Durability | undefined,
): Promise<{ retried: number; violations: Violation[] }> {
  const violations: Violation[] = [];
  const say = (detail: string): void => {
    violations.push({ invariant: "I5", detail });
  };
  const isOpen = (entry: Entry): boolean => entry.outcome === "ambiguous" || entry.outcome === "pending";
  const refused = epoch.entries
    .filter((entry) => entry.outcome === "refused" || entry.outcome === "unreached")
    .slice(-5);
  const chosen = [...epoch.entries.filter(isOpen), ...refused];
  const service = clientOf(target);
  for (const entry of chosen) {
    const there = holds(found.first, firstOffset(entry.slot), entry.key);
    const { answer, error, wrong } = await sendEntry(service, epoch, entry, durability);
    const what = `the retry of batch ${entry.slot} of client ${entry.client}`;
    if (answer === undefined) say(`${what}: ${error?.message}`);
    else if (answer.replayed !== there)
      say(`${what}: it was ${there ? "" : "not "}there, and the answer says otherwise`);
    for (const broken of wrong) say(`${what}: ${broken}`);
  }
  service.close();
  return { retried: chosen.length, violations };
}
