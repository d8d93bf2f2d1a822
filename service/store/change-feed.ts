// change-feed.ts - the last changes of each region, in memory, and who waits for the next one.
//
// A history is made for a region's first batch of this run, or for its first reader. Answers may come back in another order
// than the batches committed in (one waits for the disk, the next does not), so a change is told only once all before it
// are known. What a history has forgotten, or what happened before this run, is a gap that readers are told of.
import type { RegionInfo } from "../../native/index.js";
import type { Ranges } from "./changed-ranges.js";
import type { Span } from "./ranges.js";

export const changeKinds = ["batch", "resize", "restore"] as const;
export type ChangeKind = (typeof changeKinds)[number];

/** What yielded one generation of a region. */
export interface Change {
  generation: number;
  /** When it was answered, in milliseconds since 1970. */
  at: number;
  kind: ChangeKind;
  /** Bytes that were written, that a resize added or took away, or that a restore may have changed. By offset, apart from each other. */
  ranges: Span[];
}

/** Changes after a generation. `gap`: some of them are not remembered. */
export interface Changes {
  gap: boolean;
  items: Change[];
  /** The least generation after which every change is remembered. */
  oldest: number;
  /** The last generation that can be told. */
  newest: number;
}

export interface Watcher {
  /** There may be more to read. Called soon after a change, once for several. */
  changed(): void;
  /** The region is gone. */
  removed(): void;
}

/** Of one region: what its changes are noted with. */
export type Identity = Pick<RegionInfo, "incarnation" | "generation">;

/** What tells of regions as they are now: a store. */
interface Regions {
  info(region: string): Identity | undefined;
}

const initialSlots = 64;

class History {
  /** Every change after `base` and up to `head` is here. */
  base: number;
  head: number;
  readonly watchers = new Set<Watcher>();
  // A change is in the slot that its generation falls on.
  private generations = new Float64Array();
  private times = new Float64Array();
  private kinds = new Uint8Array();
  private offsets = new Float64Array();
  private lengths = new Float64Array();
  /** All ranges in pairs, of a change that has not exactly one. */
  private others: (readonly number[] | undefined)[] = [];

  /** Of before restores: answers to batches may come in after those. */
  readonly earlier = new Set<number>();

  constructor(
    public incarnation: number,
    generation: number,
    private readonly keptMax: number,
  ) {
    this.base = generation;
    this.head = generation;
    this.resize(Math.min(initialSlots, keptMax));
  }

  /** False: nothing more can be told than before. */
  note(generation: number, kind: number, { count, pairs }: Ranges): boolean {
    if (generation <= this.head) return false;
    while (generation - this.base > this.generations.length && this.generations.length < this.keptMax) {
      this.resize(Math.min(2 * this.generations.length, this.keptMax));
    }
    const slots = this.generations.length;
    this.base = Math.max(this.base, generation - slots);
    this.head = Math.max(this.head, this.base);
    const slot = generation % slots;
    this.generations[slot] = generation;
    this.times[slot] = Date.now();
    this.kinds[slot] = kind;
    this.others[slot] = count === 2 ? undefined : pairs.slice(0, count);
    if (count === 2) {
      this.offsets[slot] = pairs[0]!;
      this.lengths[slot] = pairs[1]!;
    }
    const before = this.head;
    while (this.generations[(this.head + 1) % slots] === this.head + 1) this.head++;
    return this.head !== before;
  }

  get(generation: number): Change {
    const slot = generation % this.generations.length;
    const others = this.others[slot];
    const ranges: Span[] = [];
    if (others === undefined) ranges.push({ offset: this.offsets[slot]!, length: this.lengths[slot]! });
    else for (let i = 0; i < others.length; i += 2) ranges.push({ offset: others[i]!, length: others[i + 1]! });
    return { generation, at: this.times[slot]!, kind: changeKinds[this.kinds[slot]!]!, ranges };
  }

  private resize(slots: number): void {
    const { generations, times, kinds, offsets, lengths, others } = this;
    this.generations = new Float64Array(slots).fill(-1);
    this.times = new Float64Array(slots);
    this.kinds = new Uint8Array(slots);
    this.offsets = new Float64Array(slots);
    this.lengths = new Float64Array(slots);
    this.others = new Array(slots).fill(undefined);
    for (const [from, generation] of generations.entries()) {
      if (generation <= this.base) continue;
      const to = generation % slots;
      this.generations[to] = generation;
      this.times[to] = times[from]!;
      this.kinds[to] = kinds[from]!;
      this.offsets[to] = offsets[from]!;
      this.lengths[to] = lengths[from]!;
      this.others[to] = others[from];
    }
  }
}

export class ChangeFeed {
  private readonly histories = new Map<string, History>();
  private readonly woken = new Set<History>();

  /** `keptMax`: changes that are remembered of each region. */
  constructor(private readonly keptMax: number) {}

  /**
   * A batch on the region is about to run. `store` is asked only when there is no history yet, which has to begin before the
   * first change: a later one may be answered first.
   */
  expect(region: string, store: Regions): void {
    if (this.histories.has(region)) return;
    const of = store.info(region);
    if (of !== undefined) this.begin(region, of.incarnation, of.generation);
  }

  /**
   * A region has reached `of.generation` by a change of these ranges. `store` is asked only when it is not the region whose
   * history there is.
   */
  note(region: string, of: Identity, kind: ChangeKind, ranges: Ranges, store: Regions): void {
    let history = this.histories.get(region);
    if (history === undefined || (history.incarnation !== of.incarnation && !history.earlier.has(of.incarnation))) {
      // The answer to a change of a region that was removed since: its name may be another region's.
      if (store.info(region)?.incarnation !== of.incarnation) return;
      history = this.begin(region, of.incarnation, of.generation - 1);
    }
    if (!history.note(of.generation, changeKinds.indexOf(kind), ranges)) return;
    if (history.watchers.size === 0 || this.woken.has(history)) return;
    // After the answers of this turn have gone out.
    if (this.woken.size === 0) setImmediate(this.wake);
    this.woken.add(history);
  }

  /** A region has got the bytes of a snapshot and a new incarnation; its generations go on, and so do its readers. */
  restored(region: string, of: Identity, bytes: number, store: Regions): void {
    const history = this.histories.get(region);
    if (history !== undefined && history.incarnation < of.incarnation) {
      history.earlier.add(history.incarnation);
      history.incarnation = of.incarnation;
    }
    this.note(region, of, "restore", { count: 2, pairs: [0, bytes] }, store);
  }

  /** Whether a region that somebody watches as `watched` is the one that is there as `now`. */
  isSame(region: string, watched: Identity, now: Identity): boolean {
    const history = this.histories.get(region);
    if (watched.incarnation === now.incarnation) return true;
    return history?.incarnation === now.incarnation && history.earlier.has(watched.incarnation);
  }

  removed(region: string): void {
    const history = this.histories.get(region);
    this.histories.delete(region);
    for (const watcher of history?.watchers ?? []) watcher.removed();
  }

  /** At most `limit` changes of a region after generation `since`; from the oldest on if that is left out. */
  read(region: string, of: Identity, since: number | undefined, limit: number): Changes {
    const { base, head, history } = this.extent(region, of);
    const from = since ?? base;
    // What has not happened yet is of a region that was there before this one, or was made up.
    const gap = from < base || from > Math.max(head, of.generation);
    const items: Change[] = [];
    if (!gap && history !== undefined) {
      for (let next = from + 1; next <= head && items.length < limit; next++) items.push(history.get(next));
    }
    return { gap, items, oldest: base, newest: head };
  }

  /** Returns what ends it. */
  watch(region: string, of: Identity, watcher: Watcher): () => void {
    const history = this.extent(region, of).history ?? this.begin(region, of.incarnation, of.generation);
    history.watchers.add(watcher);
    return () => history.watchers.delete(watcher);
  }

  private begin(region: string, incarnation: number, generation: number): History {
    this.removed(region);
    const history = new History(incarnation, generation, this.keptMax);
    this.histories.set(region, history);
    return history;
  }

  private extent(region: string, of: Identity): { base: number; head: number; history: History | undefined } {
    const history = this.histories.get(region);
    if (history === undefined || history.incarnation !== of.incarnation) {
      return { base: of.generation, head: of.generation, history: undefined };
    }
    return { base: history.base, head: history.head, history };
  }

  private readonly wake = () => {
    const woken = [...this.woken];
    this.woken.clear();
    for (const history of woken) for (const watcher of [...history.watchers]) watcher.changed();
  };
}
