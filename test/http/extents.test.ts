// Data and holes of a region, as the file system tells them.
import { type Fixture, storeTest } from "../fixture.js";

interface Extent {
  offset: number;
  length: number;
  kind: "data" | "hole";
}

const size = 16 << 20;
const extents = (f: Fixture, query = "") => f.get(`/v1/regions/demo/extents${query}`);
const fill = (offset: number, length: number) => ({ ops: [{ op: "fill", offset, length, pattern: "ab" }] });

function follows(items: readonly Extent[], from: number, to: number): boolean {
  let at = from;
  for (const { offset, length } of items) {
    if (offset !== at || length < 1) return false;
    at += length;
  }
  return at === to;
}

storeTest("what was written is data, the rest is holes", async (t, f) => {
  await f.region("demo", size, { sparse: true });
  const empty = await extents(f);
  t.ok(follows(empty.json.items, 0, size));
  t.match(empty.json, { nextOffset: null, size, generation: 0, durableGeneration: 0 });
  t.same(
    empty.json.items.map(({ kind }: Extent) => kind),
    ["hole"],
  );
  for (const offset of [4 << 20, 12 << 20]) await f.batch("demo", fill(offset, 100_000));
  const { json, headers } = await extents(f);
  t.equal(headers.etag, (await f.get("/v1/regions/demo")).headers.etag);
  t.ok(follows(json.items, 0, size), "in order and without gaps");
  const kinds = json.items.map(({ kind }: Extent) => kind);
  t.same(kinds, ["hole", "data", "hole", "data", "hole"]);
  for (const [index, offset] of [
    [1, 4 << 20],
    [3, 12 << 20],
  ] as const) {
    const data = json.items[index] as Extent;
    t.ok(data.offset <= offset && data.offset + data.length >= offset + 100_000, "all that was written is in it");
    t.ok(data.length < 4 << 20, "and little more");
  }
});

storeTest("a page at a time", async (t, f) => {
  await f.region("demo", size, { sparse: true });
  for (const offset of [1, 5, 9]) await f.batch("demo", fill(offset << 20, 10));
  const whole = (await extents(f)).json.items;
  t.equal(whole.length, 7);
  const seen: Extent[] = [];
  for (let from: number | null = 0; from !== null; ) {
    const { json }: { json: { items: Extent[]; nextOffset: number | null } } = await extents(
      f,
      `?offset=${from}&limit=2`,
    );
    t.ok(json.items.length <= 2);
    seen.push(...json.items);
    from = json.nextOffset;
  }
  t.same(seen, whole);
  const [, data] = whole as Extent[];
  const inside = await extents(f, `?offset=${data!.offset + 1}&limit=1`);
  t.same(
    inside.json.items,
    [{ offset: data!.offset + 1, length: data!.length - 1, kind: "data" }],
    "from the middle of one",
  );
});

storeTest(
  "what has changed since a generation",
  async (t, f) => {
    await f.region("demo", 10_000);
    const changed = async (query: string) => (await extents(f, `?${query}`)).json;
    t.match(await changed("since=0"), { items: [], generation: 0, nextOffset: null, size: 10_000 });
    await f.batch("demo", fill(100, 50));
    await f.batch("demo", { ops: [fill(5000, 10).ops[0], fill(120, 80).ops[0]] });
    await f.batch("demo", fill(9000, 1000));
    const all = await changed("since=0");
    t.match(all, { generation: 3, durableGeneration: 3, nextOffset: null });
    t.same(all.items, [
      { offset: 100, length: 100, kind: "changed" },
      { offset: 5000, length: 10, kind: "changed" },
      { offset: 9000, length: 1000, kind: "changed" },
    ]);
    t.same((await changed("since=2")).items, [{ offset: 9000, length: 1000, kind: "changed" }]);
    t.same((await changed("since=3")).items, []);
    const page = await changed("since=0&limit=1&offset=150");
    t.match(page, { items: [{ offset: 150, length: 50 }], nextOffset: 5000 });
    t.match(await changed("since=0&limit=9&offset=5000"), {
      items: [{ offset: 5000 }, { offset: 9000 }],
      nextOffset: null,
    });

    const { headers } = await f.get("/v1/regions/demo");
    await f.call("PATCH", "/v1/regions/demo", { body: { size: 9500 }, headers: { "if-match": headers.etag! } });
    t.same((await changed("since=2")).items, [{ offset: 9000, length: 500, kind: "changed" }], "what is left of it");
    await f.call("PATCH", "/v1/regions/demo", { body: { size: 12_000 } });
    t.same((await changed("since=4")).items, [{ offset: 9500, length: 2500, kind: "changed" }], "a resize is a change");

    for (let i = 0; i < 4; i++) await f.batch("demo", fill(i, 1));
    const gone = await extents(f, "?since=4");
    t.match(gone.json, { status: 410, code: "generation-compacted", failures: [{ limit: 5, actual: 4 }] });
    t.equal((await changed("since=5")).items.length, 1);
    t.equal((await changed("since=10")).code, "generation-compacted", "not one of its generations");
  },
  "--changes-kept-max=4",
);

storeTest("what can't be listed", async (t, f) => {
  await f.region("demo", 4096);
  t.same((await extents(f, "?offset=4096")).json.items, []);
  t.equal((await extents(f, "?offset=4097")).json.code, "out-of-bounds");
  for (const query of ["?limit=0", "?limit=1001", "?offset=-1", "?since=x"]) {
    t.equal((await extents(f, query)).json.code, "query-param-invalid", query);
  }
  t.equal((await f.get("/v1/regions/nope/extents")).json.code, "region-not-found");
});
