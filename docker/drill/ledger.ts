// ledger.ts - what the clients sent and what they were told, kept outside the service. The judge compares it with the
// bytes that a restarted service shows. It sends nothing itself.
//
// The tests that kill the service (test/crash) keep the same ledger.
//
// A batch puts the 16 bytes of its own key at two scattered places of two regions, which no other batch ever writes, and
// at two places of a cell that the batches of its client share, in two pages, and adds 1 to that client's counter: so a
// tear, a loss, a stranger and a double application each show.
import { randomBytes } from "node:crypto";
import type { MultiBatch } from "../../service/client.js";

export const stampBytes = 16;
/** Batches of one epoch: a set of regions that is scanned whole after each restart. */
const slotsMax = 32_768;
export const clientsMax = 64;
/** Of the shared cell of a client: the counter at 0, a stamp behind it and one in the next page. */
export const cellBytes = 8192;
export const nearStampAt = 64;
export const farStampAt = 4096 + 40;
/** So that the stamps of the second region cross words, lines and pages. */
const skew = 5;

/**
 * The last thing that is known of a batch. `ambiguous`: sent, and no whole answer came. `unreached`: there was no
 * connection to send it on. `pending`: being sent.
 */
export type Outcome = "acknowledged" | "refused" | "ambiguous" | "unreached" | "pending";

export interface Entry {
  client: number;
  slot: number;
  key: Buffer;
  outcome: Outcome;
  /** It was ambiguous once, so it may be there whatever later answers were. */
  wasAmbiguous: boolean;
  attempts: number;
}

export type Durability = "fast" | "ordered" | "durable";
/** Of the first and the second region, and the cells. */
export type Durabilities = readonly [first: Durability, second: Durability, cells: Durability];

export interface Epoch {
  id: string;
  durabilities: Durabilities;
  entries: Entry[];
  /** The highest generation that a client was told. Each batch changes all three regions, so it is the same for all. */
  generation: number;
}

export const regionNames = (epoch: Epoch) =>
  ({ first: `drill-${epoch.id}-first`, second: `drill-${epoch.id}-second`, cells: `drill-${epoch.id}-cells` }) as const;
export const firstBytes = slotsMax * stampBytes;
export const secondBytes = slotsMax * stampBytes + 2 * skew;
export const firstOffset = (slot: number): number => slot * stampBytes;
/** Mirrored: neighbours in one region are far from neighbours in the other. */
export const secondOffset = (slot: number): number => (slotsMax - 1 - slot) * stampBytes + skew;

export class Ledger {
  #epoch: Epoch;

  constructor(readonly durabilities: Durabilities = ["ordered", "ordered", "ordered"]) {
    this.#epoch = newEpoch(durabilities);
  }

  get epoch(): Epoch {
    return this.#epoch;
  }

  /** So many batches that the next load could run out of slots. */
  get worn(): boolean {
    return this.#epoch.entries.length > slotsMax / 2;
  }

  nextEpoch(): Epoch {
    this.#epoch = newEpoch(this.durabilities);
    return this.#epoch;
  }

  /** Undefined when the epoch is full. */
  next(client: number): Entry | undefined {
    const slot = this.#epoch.entries.length;
    if (slot >= slotsMax) return undefined;
    const entry: Entry = {
      client,
      slot,
      key: randomBytes(stampBytes),
      outcome: "pending",
      wasAmbiguous: false,
      attempts: 0,
    };
    this.#epoch.entries.push(entry);
    return entry;
  }
}

/** What is sent for an entry; without a durability each region's own. */
export function batchOf(epoch: Epoch, entry: Entry, durability: Durability | undefined): MultiBatch {
  const names = regionNames(epoch);
  const data = entry.key.toString("base64");
  const cell = entry.client * cellBytes;
  return {
    ...(durability === undefined ? {} : { durability }),
    ops: [
      { op: "write", region: names.first, offset: firstOffset(entry.slot), data, encoding: "base64" },
      { op: "write", region: names.cells, offset: cell + nearStampAt, data, encoding: "base64" },
      { op: "add", region: names.cells, offset: cell, type: "u64", value: "1", overflow: "fail" },
      { op: "write", region: names.cells, offset: cell + farStampAt, data, encoding: "base64" },
      { op: "write", region: names.second, offset: secondOffset(entry.slot), data, encoding: "base64" },
    ],
  };
}

function newEpoch(durabilities: Durabilities): Epoch {
  return { id: randomBytes(4).toString("hex"), durabilities, entries: [], generation: 0 };
}
