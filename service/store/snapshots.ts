// snapshots.ts - snapshots of regions: what is told about them, and their changes, one at a time.
import type { Comparison, Conditions, MetaAnswer, Snapshot, SnapshotAnswer, Store } from "../../native/index.js";
import type { ChangeFeed } from "./change-feed.js";
import { formatEtag } from "./etags.js";

export type { Snapshot };

export interface SnapshotView {
  id: string;
  generation: number;
  size: number;
  etag: string;
  createdAt: string;
}

const idDigits = 16;
export const snapshotIdPattern = `^[0-9]{${idDigits}}$`;

const formatId = (id: number) => String(id).padStart(idDigits, "0");

/** Undefined for what no snapshot can have. */
export function parseSnapshotId(text: string): number | undefined {
  const id = new RegExp(snapshotIdPattern).test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(id) ? id : undefined;
}

/** What reads of a snapshot are told with. Its id is never an incarnation: one counter makes both. */
export const snapshotTag = ({ id, generation, size }: Snapshot) => ({
  incarnation: id,
  metaGeneration: 0,
  generation,
  durableGeneration: generation,
  size,
});

export function describeSnapshot(snapshot: Snapshot): SnapshotView {
  const { id, generation, size, createdAtMs } = snapshot;
  const etag = formatEtag(snapshotTag(snapshot));
  return { id: formatId(id), generation, size, etag, createdAt: new Date(createdAtMs).toISOString() };
}

/**
 * What copies or compares whole regions. One at a time in the store: each holds a thread of the pool for as long as its
 * region is, and batches need the others.
 */
export class Snapshots {
  private tail: Promise<unknown> = Promise.resolve();

  /** Restores are noted in `feed`. */
  constructor(private readonly feed: ChangeFeed) {}

  /** @throws StoreError */
  make(store: Store, region: string, conditions: Conditions): Promise<SnapshotAnswer> {
    return this.inTurn(() => store.makeSnapshot(region, conditions));
  }

  /** @throws StoreError */
  restore(store: Store, region: string, id: number, conditions: Conditions): Promise<MetaAnswer> {
    return this.inTurn(async () => {
      this.feed.expect(region, store);
      const before = store.info(region)?.size ?? 0;
      const answer = await store.restore(region, id, conditions);
      const { info, replayed } = answer;
      if (info !== null && !replayed) this.feed.restored(region, info, Math.max(before, info.size), store);
      return answer;
    });
  }

  /** @throws StoreError */
  compare(store: Store, region: string, id: number, offset: number, countMax: number): Promise<Comparison> {
    return this.inTurn(() => store.compare(region, id, offset, countMax));
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const run = this.tail.then(work);
    this.tail = run.catch(() => undefined);
    return run;
  }
}
