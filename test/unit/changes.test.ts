// The change feed without a store: answers in any order, what is forgotten, slow readers, ranges against a model.
import { once } from "node:events";
import type { Readable } from "node:stream";
import fc from "fast-check";
import t from "tap";
import { EventStreams } from "../../service/event-stream.js";
import { ChangeFeed } from "../../service/store/change-feed.js";
import { changeRangesMax, merge } from "../../service/store/changed-ranges.js";
import { seedOf } from "../seed.js";

const now = (generation: number, incarnation = 1) => ({ incarnation, generation });
const regions = (of: ReturnType<typeof now> | undefined) => ({ info: () => of });
const note = (feed: ChangeFeed, generation: number, incarnation = 1) =>
  feed.note(
    "demo",
    now(generation, incarnation),
    "batch",
    { count: 2, pairs: [generation, 1] },
    regions(now(generation, incarnation)),
  );
const told = (feed: ChangeFeed, since: number | undefined, current: number, incarnation = 1) =>
  feed.read("demo", now(current, incarnation), since, 1e6).items.map(({ generation }) => generation);
const turn = () => new Promise((resolve) => setImmediate(resolve));

t.test("a change is told when all before it are known", async (t) => {
  const feed = new ChangeFeed(100);
  let woken = 0;
  feed.watch("demo", now(0), { changed: () => woken++, removed: () => t.fail("it is not removed") });
  note(feed, 2);
  note(feed, 3);
  await turn();
  t.same(told(feed, 0, 3), []);
  t.equal(woken, 0);
  note(feed, 1);
  await turn();
  t.same(told(feed, 0, 3), [1, 2, 3]);
  t.equal(woken, 1, "once for all of them");
  note(feed, 2);
  t.same(told(feed, 1, 3), [2, 3], "noted again, it is no other change");
});

t.test("any order of answers within a history's length is told in order", async (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 20 }), fc.nat(), (count, apart, seed) => {
      const feed = new ChangeFeed(300);
      feed.watch("demo", now(0), { changed: () => {}, removed: () => {} });
      const order = [...Array(count).keys()].map((i) => i + 1);
      // Each comes at most `apart` places late.
      const late = new Map(order.map((generation) => [generation, generation + ((generation * (seed + 7)) % apart)]));
      order.sort((left, right) => late.get(left)! - late.get(right)!);
      for (const generation of order) note(feed, generation);
      const items = told(feed, 0, count);
      return items.length === count && items.every((generation, i) => generation === i + 1);
    }),
    { seed: seedOf(t) },
  );
});

t.test("what is forgotten is a gap", async (t) => {
  for (const keptMax of [1, 10, 64, 65, 1000]) {
    const feed = new ChangeFeed(keptMax);
    for (let generation = 1; generation <= 3000; generation++) note(feed, generation);
    const { gap, oldest, newest } = feed.read("demo", now(3000), undefined, 0);
    t.match({ gap, oldest, newest }, { gap: false, oldest: 3000 - keptMax, newest: 3000 });
    t.equal(feed.read("demo", now(3000), oldest - 1, 0).gap, true);
    t.equal(feed.read("demo", now(3000), 3001, 0).gap, true);
    t.same(told(feed, oldest, 3000).length, keptMax);
  }
});

t.test("an answer that never comes is passed over in the end", async (t) => {
  const feed = new ChangeFeed(10);
  feed.watch("demo", now(0), { changed: () => {}, removed: () => {} });
  note(feed, 1);
  for (let generation = 3; generation <= 11; generation++) note(feed, generation);
  t.same(told(feed, 0, 11), [], "the first is forgotten and the second has not come");
  note(feed, 12);
  t.same(told(feed, 2, 12), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  t.equal(feed.read("demo", now(12), 1, 0).gap, true);
});

t.test("a region that was made anew", async (t) => {
  const feed = new ChangeFeed(10);
  note(feed, 1);
  note(feed, 2);
  let removed = 0;
  feed.watch("demo", now(2), { changed: () => {}, removed: () => removed++ });
  feed.removed("demo");
  t.equal(removed, 1);
  feed.note("demo", now(3, 1), "batch", { count: 2, pairs: [0, 1] }, regions(undefined));
  feed.note("demo", now(3, 1), "batch", { count: 2, pairs: [0, 1] }, regions(now(0, 2)));
  t.same(told(feed, 0, 0, 2), [], "a late answer of the old one is not its");
  note(feed, 1, 2);
  t.same(told(feed, 0, 1, 2), [1]);
});

const sourceOf = (feed: ChangeFeed, current: () => number) => ({
  incarnation: () => now(current()).incarnation,
  read: (since: number, limit: number) => feed.read("demo", now(current()), since, limit),
  describe: (items: readonly object[]) => items,
  watch: (watcher: { changed(): void; removed(): void }) => feed.watch("demo", now(current()), watcher),
});

async function textOf(stream: Readable): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += chunk;
  return text;
}

t.test("a reader that is too slow is told how far it came, and let go", async (t) => {
  const feed = new ChangeFeed(64);
  let generation = 0;
  const streams = new EventStreams(1, 60_000, new AbortController().signal);
  const stream = streams.start(
    sourceOf(feed, () => generation),
    0,
  );
  t.equal(streams.full, true);
  for (let round = 0; round < 100; round++) {
    for (let i = 0; i < 50; i++) note(feed, ++generation);
    await turn();
  }
  const text = await textOf(stream);
  const ids = [...text.matchAll(/^id: \d+\.(\d+)$/gm)].map(([, id]) => Number(id));
  t.same(
    ids,
    ids.map((_, i) => i + 1),
    "nothing is left out",
  );
  t.ok(ids.length > 0 && ids.length < 5000);
  t.match(text, new RegExp(`event: overflow\ndata: \\{"generation":${ids.length}\\}\n\n$`));
  t.equal(streams.full, false);
});

t.test("a reader that takes what comes is never too slow", async (t) => {
  const feed = new ChangeFeed(64);
  let generation = 0;
  const stop = new AbortController();
  const stream = new EventStreams(1, 60_000, stop.signal).start(
    sourceOf(feed, () => generation),
    0,
  );
  const text = textOf(stream);
  for (let round = 0; round < 100; round++) {
    for (let i = 0; i < 50; i++) note(feed, ++generation);
    await turn();
    await turn();
  }
  stop.abort();
  t.equal([...(await text).matchAll(/^id: /gm)].length, 5000);
  t.match(await text, /retry: 1000\nevent: bye\ndata: \{\}\n\n$/);
});

t.test("a reader that takes nothing any more is let go", async (t) => {
  const feed = new ChangeFeed(1000);
  let generation = 0;
  const streams = new EventStreams(1, 10, new AbortController().signal);
  const stream = streams.start(
    sourceOf(feed, () => generation),
    0,
  );
  // More than a stream holds ready, less than the feed forgets.
  while (generation < 900) note(feed, ++generation);
  await once(stream, "close");
  t.equal(streams.full, false);
});

const ranges = fc.array(fc.tuple(fc.nat(2000), fc.integer({ min: 1, max: 40 })), { minLength: 2, maxLength: 100 });

t.test("merged ranges are sorted, apart, and cover what was written, exactly where they may", async (t) => {
  fc.assert(
    fc.property(ranges, (written) => {
      const merged = { count: 2 * written.length, pairs: [...written.flat(), 7, 7] };
      merge(merged);
      const list = merged.pairs.slice(0, merged.count);
      const bytes = new Set(written.flatMap(([offset, length]) => [...Array(length).keys()].map((i) => offset + i)));
      const covered = new Set<number>();
      let runs = 0;
      for (const byte of bytes) if (!bytes.has(byte - 1)) runs++;
      let end = -1;
      for (let i = 0; i < list.length; i += 2) {
        if (list[i]! <= end) return false;
        end = list[i]! + list[i + 1]!;
        for (let byte = list[i]!; byte < end; byte++) covered.add(byte);
      }
      if (list.length / 2 !== Math.min(runs, changeRangesMax)) return false;
      if (runs <= changeRangesMax && covered.size !== bytes.size) return false;
      return [...bytes].every((byte) => covered.has(byte));
    }),
    { seed: seedOf(t) },
  );
});
