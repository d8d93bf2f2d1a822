// Data and holes of a region, as the file system tells them.
import { execFileSync } from "node:child_process";
import { type Fixture, storeTest } from "../fixture.js";

interface Extent {
  offset: number;
  length: number;
  kind: "data" | "hole" | "slice";
}
interface Slice extends Extent {
  dataBytes: number;
  residentBytes: number;
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

/** All slices, however the service divides them into pages. */
async function slices(f: Fixture, granularity: number, from = 0): Promise<Slice[]> {
  const seen: Slice[] = [];
  for (let at: number | null = from; at !== null; ) {
    const { json }: { json: { items: Slice[]; nextOffset: number | null } } = await extents(
      f,
      `?granularity=${granularity}&offset=${at}&limit=1000`,
    );
    seen.push(...json.items);
    at = json.nextOffset;
  }
  return seen;
}

const sum = (of: readonly Slice[], what: "dataBytes" | "residentBytes") =>
  of.reduce((total, slice) => total + slice[what], 0);

/** What every test checks in the end reads each region whole: one of this size is not left to it. */
async function gone(f: Fixture): Promise<void> {
  await f.call("DELETE", "/v1/regions/demo", { headers: { "if-match": "*" } });
}

storeTest("what of a new region was written to holds data and is in memory, and nothing else", async (t, f) => {
  const [granularity, all] = [1 << 20, 256 << 20];
  await f.region("demo", all, { sparse: true });
  const fresh = await slices(f, granularity);
  t.equal(fresh.length, 256);
  t.equal(sum(fresh, "dataBytes"), 0);
  t.equal(sum(fresh, "residentBytes"), 0, "a region that nobody has touched takes no memory");
  const written = [64, 200];
  for (const mib of written) await f.batch("demo", fill(mib << 20, 100_000));
  const after = await slices(f, granularity);
  for (const { offset, length, kind, dataBytes, residentBytes } of after) {
    const mib = offset / granularity;
    t.same([offset % granularity, length, kind], [0, granularity, "slice"]);
    if (written.includes(mib)) {
      t.ok(dataBytes >= 100_000 && dataBytes <= granularity, `${dataBytes} bytes of data at ${mib} MiB`);
      t.ok(residentBytes >= 100_000 && residentBytes <= granularity, `${residentBytes} in memory at ${mib} MiB`);
    } else {
      // The kernel reads ahead around what is touched, as far as the disk's setting says.
      const near = written.some((at) => Math.abs(at - mib) <= 16);
      t.ok(dataBytes === 0 || near, `${dataBytes} bytes of data at ${mib} MiB`);
      t.ok(residentBytes === 0 || near, `${residentBytes} in memory at ${mib} MiB`);
    }
  }
  await gone(f);
});

storeTest("what was dropped from memory still holds data, and a read brings it back", async (t, f) => {
  const all = 32 << 20;
  const uploaded = await f.call("PUT", "/v1/regions/demo/content", {
    headers: { "content-type": "application/octet-stream", "if-none-match": "*" },
    body: Buffer.alloc(all, "x"),
  });
  t.equal(uploaded.status, 201);
  // "dd" with nothing to copy asks the kernel to forget a file's pages, those that nobody has mapped and that are on the disk.
  const drop = ["conv=notrunc,fdatasync", "oflag=nocache", "count=0", "status=none"];
  execFileSync("dd", ["if=/dev/null", `of=${f.directory}/regions/demo/data`, ...drop]);
  const cold = await slices(f, 4096);
  t.equal(cold.length, all / 4096);
  t.equal(sum(cold, "dataBytes"), all);
  const left = sum(cold, "residentBytes");
  t.ok(left < all / 2, `${left} bytes are in memory after all was dropped`);
  const page = cold.find(({ residentBytes }) => residentBytes === 0)!;
  await f.get("/v1/regions/demo/content", { range: `bytes=${page.offset}-${page.offset + 9}` });
  const [warm] = (await extents(f, `?granularity=4096&offset=${page.offset}&limit=1`)).json.items;
  t.same(warm, { ...page, residentBytes: 4096 }, "looking had not brought it in, reading does");
});

storeTest("slices begin at their multiples and end with the region", async (t, f) => {
  await f.region("demo", 10_000, { durability: "fast" });
  await f.batch("demo", fill(0, 10_000));
  t.same(
    await slices(f, 4096),
    [0, 4096, 8192].map((offset) => {
      const length = Math.min(4096, 10_000 - offset);
      return { offset, length, kind: "slice", dataBytes: length, residentBytes: length };
    }),
  );
  const inside = await extents(f, "?granularity=4096&offset=5000&limit=1");
  t.match(inside.json, { items: [{ offset: 4096, length: 4096 }], nextOffset: 8192, size: 10_000, generation: 1 });
  t.same((await extents(f, "?granularity=8192&offset=10000")).json, {
    items: [],
    nextOffset: null,
    size: 10_000,
    generation: 1,
    durableGeneration: (await f.get("/v1/regions/demo")).json.durableGeneration,
  });
  t.equal((await extents(f, "?granularity=4096&offset=10001")).json.code, "out-of-bounds");
  for (const query of ["granularity=4095", "granularity=6000", "granularity=2147483648", "granularity=4096&since=0"]) {
    t.equal((await extents(f, `?${query}`)).json.code, "query-param-invalid", query);
  }
});

storeTest("a region of 64 GiB is looked at a bounded part at a time", async (t, f) => {
  const all = 2 ** 36;
  await f.region("demo", all, { sparse: true });
  await f.batch("demo", { ops: [{ op: "write", offset: all - 8, data: "the last", encoding: "utf8" }] });
  const { json } = await extents(f, `?granularity=${1 << 26}&limit=1000`);
  t.ok(json.items.length >= 1 && json.nextOffset < all / 8, `the first page ends at ${json.nextOffset}`);
  const seen = await slices(f, 1 << 26);
  t.ok(follows(seen, 0, all));
  t.equal(seen.length, 1024);
  t.ok(seen.at(-1)!.residentBytes >= 4096);
  t.equal(sum(seen.slice(0, 1000), "residentBytes"), 0);
  await gone(f);
});

storeTest("what can't be listed", async (t, f) => {
  await f.region("demo", 4096);
  t.same((await extents(f, "?offset=4096")).json.items, []);
  t.equal((await extents(f, "?offset=4097")).json.code, "out-of-bounds");
  for (const query of ["?limit=0", "?limit=1001", "?offset=-1", "?since=x"]) {
    t.equal((await extents(f, query)).json.code, "query-param-invalid", query);
  }
  t.equal((await f.get("/v1/regions/nope/extents")).json.code, "region-not-found");
});
