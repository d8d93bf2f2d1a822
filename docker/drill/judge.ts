// judge.ts - compares the ledger with what a restarted service shows, and says what is wrong. It starts and stops nothing.
//
// The invariants, by the names that records and reports use:
//   I1 every acknowledged batch is there          I2 a batch is there whole or not at all
//   I3 nothing is there that nobody sent, or twice I4 a refused batch is absent
//   I5 an ambiguous one is there once after a retry with its key
//   I6 readers saw whole batches only             I7 the exit code is the scenario's
//   I8 from the signal to the exit within budget  I9 no connection that the kernel accepted was reset
//   I10 ready again within budget, and a second recovery leaves the same bytes
import { createHash } from "node:crypto";
import { Agent } from "node:http";
import {
  cellBytes,
  clientsMax,
  type Entry,
  type Epoch,
  firstBytes,
  firstOffset,
  regionNames,
  secondBytes,
  secondOffset,
  stampBytes,
} from "./ledger.js";
import { authorize, exchange, isMixed, sendEntry, type Target } from "./load.js";

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
}

/** The service answered, but not with the regions' bytes: the judge can't tell. */
export class Unjudged extends Error {
  override name = "Unjudged";
}

const agentOfJudge = (): Agent => new Agent({ keepAlive: true, maxSockets: 1 });

export async function makeRegions(target: Target, epoch: Epoch, durability: string, token?: string): Promise<void> {
  const agent = agentOfJudge();
  const names = regionNames(epoch);
  const sizes = [
    [names.first, firstBytes],
    [names.second, secondBytes],
    [names.cells, clientsMax * cellBytes],
  ] as const;
  for (const [name, size] of sizes) {
    const { attempt } = await exchange(target, agent, {
      method: "POST",
      path: "/v1/regions",
      headers: { "content-type": "application/json", ...authorize(token) },
      body: JSON.stringify({ name, size, durability }),
    });
    if (attempt.status !== 201)
      throw new Unjudged(`${name} can't be made: ${attempt.status ?? attempt.code} ${attempt.problem ?? ""}`);
  }
  agent.destroy();
}

export async function removeRegions(target: Target, epoch: Epoch, token?: string): Promise<void> {
  const agent = agentOfJudge();
  for (const name of Object.values(regionNames(epoch))) {
    await exchange(target, agent, { method: "DELETE", path: `/v1/regions/${name}`, headers: authorize(token) });
  }
  agent.destroy();
}

export async function scan(target: Target, epoch: Epoch, token?: string): Promise<Scan> {
  const agent = agentOfJudge();
  const names = regionNames(epoch);
  const read = async (name: string): Promise<Buffer> => {
    const { answer, attempt } = await exchange(target, agent, {
      method: "GET",
      path: `/v1/regions/${name}/content`,
      headers: authorize(token),
    });
    if (answer?.status !== 200)
      throw new Unjudged(`${name} can't be read: ${attempt.status ?? attempt.code} ${attempt.problem ?? ""}`);
    return answer.body;
  };
  const found = { first: await read(names.first), second: await read(names.second), cells: await read(names.cells) };
  agent.destroy();
  return found;
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
    const first = found.first.subarray(firstOffset(entry.slot), firstOffset(entry.slot) + stampBytes);
    const second = found.second.subarray(secondOffset(entry.slot), secondOffset(entry.slot) + stampBytes);
    const inFirst = first.equals(entry.key);
    const inSecond = second.equals(entry.key);
    const what = `batch ${entry.slot} of client ${entry.client} (${entry.outcome})`;
    if ((!inFirst && !first.equals(zeros)) || (!inSecond && !second.equals(zeros))) {
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
    const stamp = cell.subarray(64, 64 + stampBytes);
    if (isMixed(cell)) {
      verdict.torn += 1;
      say("I2", `client ${client}: its cell holds two batches`);
    } else if (counts[client]! > 0 && stampsOf.get(client)?.has(stamp.toString("hex")) !== true) {
      verdict.foreign += 1;
      say("I3", `client ${client}: its cell holds a batch that is not there`);
    }
  }
}

function beyondIsZero(epoch: Epoch, found: Scan): boolean {
  const used = epoch.entries.length;
  const isZero = (bytes: Buffer): boolean => bytes.every((byte) => byte === 0);
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
  durability: "ordered" | "durable",
  token?: string,
): Promise<{ retried: number; violations: Violation[] }> {
  const agent = agentOfJudge();
  const violations: Violation[] = [];
  const isOpen = (entry: Entry): boolean => entry.outcome === "ambiguous" || entry.outcome === "pending";
  const refused = epoch.entries
    .filter((entry) => entry.outcome === "refused" || entry.outcome === "unreached")
    .slice(-5);
  const chosen = [...epoch.entries.filter(isOpen), ...refused];
  for (const entry of chosen) {
    const there = found.first.subarray(firstOffset(entry.slot), firstOffset(entry.slot) + stampBytes).equals(entry.key);
    const attempt = await sendEntry(target, agent, epoch, entry, durability, token);
    const what = `the retry of batch ${entry.slot} of client ${entry.client}`;
    if (attempt.status !== 200) {
      violations.push({
        invariant: "I5",
        detail: `${what}: ${attempt.status ?? attempt.code} ${attempt.problem ?? ""}`,
      });
    } else if (attempt.replayed !== there) {
      violations.push({
        invariant: "I5",
        detail: `${what}: it was ${there ? "" : "not "}there, and the answer says otherwise`,
      });
    }
  }
  agent.destroy();
  return { retried: chosen.length, violations };
}
