// regions.ts - regions as resources: what is told about them, how they are listed and changed.
import type { Conditions, Durability, MetaAnswer, RegionInfo, Store } from "../../native/index.js";
import type { ChangeFeed } from "./change-feed.js";
import { formatEtag } from "./etags.js";
import { Refused } from "./failure.js";

export type { Conditions, Durability, MetaAnswer, RegionInfo };
/** More are not notes any more. */
export const labelsMax = 64;
export type Labels = Readonly<Record<string, string>>;

export interface Region {
  name: string;
  size: number;
  durability: Durability;
  sparse: boolean;
  readOnly: boolean;
  labels: Labels;
  generation: number;
  durableGeneration: number;
  metaGeneration: number;
  etag: string;
  state: RegionInfo["state"];
  fault: string | null;
  integrity: RegionInfo["integrity"];
  /** An operator's own file. Its path is not told. */
  adopted: boolean;
  createdAt: string;
  modifiedAt: string;
}

export function describeRegion(info: RegionInfo): Region {
  return {
    name: info.name,
    size: info.size,
    durability: info.durability,
    sparse: info.sparse,
    readOnly: info.readOnly,
    labels: parseLabels(info.labels),
    generation: info.generation,
    durableGeneration: info.durableGeneration,
    metaGeneration: info.metaGeneration,
    etag: formatEtag(info),
    state: info.state,
    fault: info.fault,
    integrity: info.integrity,
    adopted: info.adoptedPath !== null,
    createdAt: new Date(info.createdAtMs).toISOString(),
    modifiedAt: new Date(info.modifiedAtMs).toISOString(),
  };
}

export interface Page {
  items: Region[];
  /** Null at the end. */
  nextCursor: string | null;
}

/** A page of regions by name. A cursor that parseCursor() refuses must not be passed. */
export function listRegions(
  store: Store,
  { limit, prefix, after }: { limit: number; prefix: string; after: string },
): Page {
  const names = store.names().filter((name) => name > after && name.startsWith(prefix));
  const items = names.slice(0, limit).flatMap((name) => store.info(name) ?? []);
  const last = names[limit - 1];
  return {
    items: items.map(describeRegion),
    nextCursor: last !== undefined && names.length > limit ? formatCursor(last) : null,
  };
}

// The position is a name and not a number, so that regions that come and go never shift a page.
const formatCursor = (after: string) => Buffer.from(`after:${after}`).toString("base64url");

/** The name to go on after; undefined for what formatCursor() did not make. */
export function parseCursor(cursor: string): string | undefined {
  const text = Buffer.from(cursor, "base64url").toString();
  return text.startsWith("after:") && formatCursor(text.slice(6)) === cursor ? text.slice(6) : undefined;
}

export interface RegionChange {
  size?: number;
  /** A merge patch: null takes a label away. The whole of it null takes all. */
  labels?: Readonly<Record<string, string | null>> | null;
  durability?: Durability;
  readOnly?: boolean;
  integrity?: "verified";
}

/**
 * Changes of regions. A merge of labels reads what it changes, so changes of one region run one after the other; they
 * are rare, and each is a record of the journal that waits for the disk anyway.
 */
export class RegionChanges {
  private readonly tails = new Map<string, Promise<unknown>>();

  /** Changes of a region's size are noted in `feed`; the others yield no generation. */
  constructor(private readonly feed: ChangeFeed) {}

  /** @throws StoreError, Refused */
  update(store: Store, name: string, change: RegionChange, conditions: Conditions): Promise<MetaAnswer> {
    const before = this.tails.get(name) ?? Promise.resolve();
    const run = before.then(async () => {
      const { labels, ...rest } = change;
      const current = store.info(name);
      const merged = labels === undefined ? {} : { labels: mergeLabels(current?.labels, labels) };
      this.feed.expect(name, store);
      const answer = await store.update(name, { ...rest, ...merged, ...conditions });
      if (answer.info !== null && !answer.replayed) this.noteResize(store, current, answer.info);
      return answer;
    });
    const tail = run
      .catch(() => undefined)
      .finally(() => {
        if (this.tails.get(name) === tail) this.tails.delete(name);
      });
    this.tails.set(name, tail);
    return run;
  }

  /** @throws StoreError */
  async remove(store: Store, name: string, conditions: Conditions): Promise<MetaAnswer> {
    const answer = await store.remove(name, conditions);
    if (!answer.replayed) this.feed.removed(name);
    return answer;
  }

  private noteResize(store: Store, before: RegionInfo | undefined, after: RegionInfo): void {
    if (before === undefined || before.incarnation !== after.incarnation || before.size === after.size) return;
    const offset = Math.min(before.size, after.size);
    const ranges = { count: 2, pairs: [offset, Math.max(before.size, after.size) - offset] };
    this.feed.note(after.name, after, "resize", ranges, store);
  }
}

function parseLabels(text: string): Labels {
  return text === "" ? {} : (JSON.parse(text) as Labels);
}

function mergeLabels(current: string | undefined, patch: Readonly<Record<string, string | null>> | null): string {
  const merged = new Map(Object.entries(patch === null ? {} : parseLabels(current ?? "")));
  for (const [label, value] of Object.entries(patch ?? {})) {
    if (value === null) merged.delete(label);
    else merged.set(label, value);
  }
  if (merged.size > labelsMax) {
    const detail = `a region may have ${labelsMax} labels`;
    const failure = { pointer: "/labels", code: "validation-failed", detail, limit: labelsMax, actual: merged.size };
    throw new Refused("validation_failed", detail, [failure], false);
  }
  return JSON.stringify(Object.fromEntries(merged));
}
