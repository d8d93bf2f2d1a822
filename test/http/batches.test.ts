// Batches: what each operation and guard answers, what is refused, and that nothing of a refused one is left.
import { type Fixture, storeTest } from "../fixture.js";

const hexOf = async (f: Fixture, name = "demo") => (await f.get(`/v1/regions/${name}/content`)).bytes.toString("hex");

storeTest("every operation answers what it did", async (t, f) => {
  await f.region("demo", 64);
  const { status, json, headers } = await f.batch("demo", {
    ops: [
      { op: "write", offset: 0, data: "SGVsbG8=" },
      { op: "write", offset: 5, data: "20", encoding: "hex" },
      { op: "write", offset: 6, data: "wörld", encoding: "utf8" },
      { op: "read", offset: 0, length: 12, encoding: "utf8" },
      { op: "read", offset: 0, length: 5 },
      { op: "read", offset: 0, length: 5, encoding: "hex" },
      { op: "fill", offset: 16, length: 5, pattern: "abcd" },
      { op: "copy", from: 16, to: 18, length: 4 },
      { op: "read", offset: 16, length: 8, encoding: "hex" },
      { op: "store", offset: 24, type: "u64", value: "18446744073709551615" },
      { op: "store", offset: 32, type: "u16", endian: "big", values: [258, "3"] },
      { op: "load", offset: 32, type: "u8", count: 4 },
      { op: "load", offset: 24, type: "i64" },
      { op: "exchange", offset: 24, type: "u64", value: 1 },
      { op: "add", offset: 24, type: "u64", value: "-1" },
      { op: "add", offset: 36, type: "u8", value: 300, overflow: "wrap" },
      { op: "add", offset: 36, type: "u8", value: 300, overflow: "saturate" },
      { op: "and", offset: 36, type: "u8", value: 15 },
      { op: "or", offset: 36, type: "u8", value: 16 },
      { op: "xor", offset: 36, type: "u8", value: 1 },
      { op: "min", offset: 36, type: "i8", value: -3 },
      { op: "max", offset: 36, type: "i8", value: 5 },
      { op: "cas", offset: 36, type: "u8", expected: 5, value: 6 },
      { op: "cas", offset: 36, type: "u8", expected: 5, value: 7, onMismatch: "continue" },
      { op: "store", offset: 40, type: "u64", value: 56 },
      { op: "append", cursorOffset: 40, data: "abc", encoding: "utf8" },
      { op: "append", cursorOffset: 40, data: "ff", encoding: "hex" },
      { op: "assert", guard: { kind: "value", offset: 40, type: "u64", op: "eq", value: 60 } },
      { op: "add", offset: 48, type: "f64", value: 0.5 },
      { op: "load", offset: 48, type: "f64", count: 1 },
    ],
  });
  t.equal(status, 200);
  t.same(json, {
    committed: true,
    branch: "ops",
    generation: 1,
    durableGeneration: 1,
    results: [
      { bytes: 5 },
      { bytes: 1 },
      { bytes: 6 },
      { data: "Hello wörld" },
      { data: "SGVsbG8=" },
      { data: "48656c6c6f" },
      { bytes: 5 },
      { bytes: 4 },
      { data: "abcdabcdabcd0000" },
      { old: "0" },
      { old: [0, 0] },
      { values: [1, 2, 0, 3] },
      { value: "-1" },
      { old: "18446744073709551615", new: "1" },
      { old: "1", new: "0", overflowed: false },
      { old: 0, new: 44, overflowed: true },
      { old: 44, new: 255, overflowed: true },
      { old: 255, new: 15 },
      { old: 15, new: 31 },
      { old: 31, new: 30 },
      { old: 30, new: -3 },
      { old: -3, new: 5 },
      { swapped: true, actual: 5 },
      { swapped: false, actual: 6 },
      { old: "0" },
      { at: 56, next: 59 },
      { at: 59, next: 60 },
      {},
      { old: 0, new: 0.5, overflowed: false },
      { values: [0.5] },
    ],
  });
  t.match(headers.etag, /^"\d+\.1\.1"$/);
  t.equal(headers["region-generation"], "1");
  t.equal(headers["region-durable-generation"], "1");
  t.match(headers["server-timing"], /^store;dur=\d/);
});

storeTest("guards decide which branch runs", async (t, f) => {
  await f.region("demo", 64);
  await f.batch("demo", { ops: [{ op: "store", offset: 0, type: "u32", value: 7 }] });
  const truths: [object, boolean][] = [
    [{ kind: "generation", op: "eq", value: 1 }, true],
    [{ kind: "generation", op: "ne", value: 1 }, false],
    [{ kind: "generation", op: "lt", value: 1 }, false],
    [{ kind: "generation", op: "le", value: 1 }, true],
    [{ kind: "generation", op: "gt", value: 0 }, true],
    [{ kind: "generation", op: "ge", value: 2 }, false],
    [{ kind: "value", offset: 0, type: "u32", op: "eq", value: "7" }, true],
    [{ kind: "value", offset: 0, type: "u32", endian: "big", op: "gt", value: 7 }, true],
    [{ kind: "value", offset: 4, type: "i8", op: "lt", value: 0 }, false],
    [{ kind: "bytes", offset: 0, encoding: "hex", equals: "0700" }, true],
    [{ kind: "bytes", offset: 0, equals: "AAAA" }, false],
    [{ kind: "digest", offset: 0, length: 0, algorithm: "crc32c", equals: "00000000" }, true],
    [
      {
        kind: "digest",
        offset: 8,
        length: 0,
        algorithm: "sha-256",
        encoding: "base64",
        equals: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
      },
      true,
    ],
  ];
  for (const [guard, holds] of truths) {
    const ops = [{ op: "load", offset: 0, type: "u8" }];
    const elseOps = [{ op: "load", offset: 0, type: "u8", count: 1 }];
    const { json } = await f.batch("demo", { guards: [guard], ops, elseOps });
    t.match(json, { committed: false, branch: holds ? "ops" : "elseOps", generation: 1 }, JSON.stringify(guard));
    t.same(json.results, holds ? [{ value: 7 }] : [{ values: [7] }]);
    const alone = await f.batch("demo", { guards: [guard], ops });
    t.equal(alone.status, holds ? 200 : 412);
    if (!holds)
      t.match(alone.json, { code: "guard-failed", committed: false, failures: [{ index: 0, code: "guard-failed" }] });
  }
});

storeTest("every false guard is told, with what it found", async (t, f) => {
  await f.region("demo", 64);
  const { json } = await f.batch("demo", {
    guards: [
      { kind: "generation", op: "eq", value: 41 },
      { kind: "generation", op: "eq", value: 0 },
      { kind: "value", offset: 0, type: "i16", op: "eq", value: -2 },
    ],
    ops: [{ op: "write", offset: 0, data: "AAAA" }],
  });
  t.same(json.failures, [
    { index: 0, pointer: "/guards/0/value", code: "guard-failed", limit: 41, actual: 0 },
    { index: 2, pointer: "/guards/2/value", code: "guard-failed", limit: -2, actual: 0 },
  ]);
  const asserted = await f.batch("demo", {
    ops: [
      { op: "write", offset: 0, data: "AAAA" },
      { op: "assert", guard: { kind: "value", offset: 0, type: "u8", op: "eq", value: 1 } },
    ],
  });
  t.match(asserted.json, {
    status: 412,
    code: "guard-failed",
    failures: [{ index: 1, op: "assert", pointer: "/ops/1/guard/value", limit: 1, actual: 0 }],
  });
  t.equal((await f.get("/v1/regions/demo")).json.generation, 0);
});

storeTest("a refused batch leaves nothing", async (t, f) => {
  await f.region("demo", 32);
  await f.batch("demo", { ops: [{ op: "fill", offset: 0, length: 32, pattern: "11" }] });
  const before = await hexOf(f);
  const write = { op: "write", offset: 0, data: "AAAAAAAA" };
  const refused: [object, number, string][] = [
    [{ op: "cas", offset: 8, type: "u8", expected: 0, value: 1 }, 409, "cas-mismatch"],
    [{ op: "add", offset: 8, type: "u8", value: 255 }, 409, "overflow"],
    [{ op: "add", offset: 8, type: "f32", value: "1e300" }, 409, "overflow"],
    [{ op: "write", offset: 30, data: "AAAA" }, 422, "out-of-bounds"],
    [{ op: "write", offset: 2 ** 53 - 1, data: "AAAA" }, 422, "out-of-bounds"],
    [{ op: "copy", from: 0, to: 30, length: 8 }, 422, "out-of-bounds"],
    [{ op: "copy", from: 30, to: 0, length: 8 }, 422, "out-of-bounds"],
    [{ op: "load", offset: 0, type: "u64", count: 5 }, 422, "out-of-bounds"],
    [{ op: "append", cursorOffset: 0, data: "AAAA" }, 422, "out-of-bounds"],
    [{ op: "add", offset: 7, type: "u16", value: 1 }, 422, "misaligned"],
    [{ op: "exchange", offset: 4, type: "f64", value: 1 }, 422, "misaligned"],
    [{ op: "or", offset: 8, type: "u8", value: 256 }, 422, "value-out-of-range"],
    [{ op: "store", offset: 8, type: "i8", values: [1, -129] }, 422, "value-out-of-range"],
    [{ op: "and", offset: 8, type: "f32", value: 1 }, 422, "validation-failed"],
    [{ op: "append", cursorOffset: 8, cursorType: "i8", data: "" }, 422, "validation-failed"],
    [{ op: "read", offset: 0, length: 8, extra: 1 }, 422, "validation-failed"],
    [{ op: "jump" }, 422, "validation-failed"],
  ];
  for (const [op, status, code] of refused) {
    const { json, status: told } = await f.batch("demo", { ops: [write, op] });
    t.match(
      { status: told, code: json.code, committed: json.committed },
      { status, code, committed: false },
      JSON.stringify(op),
    );
    t.match(json.failures, [{ index: 1, code }]);
  }
  t.equal(await hexOf(f), before);
  t.equal((await f.get("/v1/regions/demo")).json.generation, 1);
});

storeTest("one answer names every bad operation, whoever finds it", async (t, f) => {
  await f.region("demo", 64);
  const { status, json } = await f.batch("demo", {
    guards: [{ kind: "value", offset: 100, type: "u8", op: "eq", value: 1 }, { kind: "nope" }],
    ops: [
      { op: "write", offset: 60, data: "AAAAAAAA" },
      { op: "write", offset: 0, data: "!" },
      { op: "add", offset: 3, type: "u32", value: 1 },
      null,
      { op: "add", offset: 8, type: "u32" },
      { op: "load", offset: 0, type: "u8" },
      { op: "store", offset: 0, type: "u8", value: -1 },
    ],
    elseOps: [{ op: "fill", offset: 0, length: 4, pattern: "" }],
  });
  t.equal(status, 422);
  t.same(
    json.failures.map(({ pointer, code }: { pointer: string; code: string }) => [pointer, code]),
    [
      ["/guards/0/offset", "out-of-bounds"],
      ["/guards/1/kind", "validation-failed"],
      ["/ops/0/data", "out-of-bounds"],
      ["/ops/1/data", "validation-failed"],
      ["/ops/2/offset", "misaligned"],
      ["/ops/3", "validation-failed"],
      ["/ops/4/value", "validation-failed"],
      ["/ops/6/value", "value-out-of-range"],
      ["/elseOps/0/pattern", "validation-failed"],
    ],
  );
});

storeTest("what is not a batch", async (t, f) => {
  await f.region("demo", 64);
  const bodies: [unknown, string][] = [
    [[], ""],
    [{}, "/ops"],
    [{ ops: {} }, "/ops"],
    [{ ops: [], elseOps: [] }, "/elseOps"],
    [{ ops: [], guards: 1 }, "/guards"],
    [{ ops: [], durability: "maybe" }, "/durability"],
    [{ ops: [], dryRun: "yes" }, "/dryRun"],
    [{ ops: [], color: "red" }, "/color"],
  ];
  for (const [body, pointer] of bodies) {
    const { status, json } = await f.batch("demo", body as object);
    t.match({ status, code: json.code }, { status: 422, code: "validation-failed" }, JSON.stringify(body));
    t.equal(json.failures[0].pointer, pointer);
  }
  const empty = await f.batch("demo", { ops: [] });
  t.match(empty.json, { committed: false, branch: "ops", generation: 0, results: [] });
});

storeTest("conditions of headers stand before the batch's own guards", async (t, f) => {
  await f.region("demo", 8);
  const etag = (await f.get("/v1/regions/demo")).headers.etag!;
  const batch = {
    guards: [{ kind: "value", offset: 0, type: "u8", op: "eq", value: 0 }],
    ops: [{ op: "add", offset: 0, type: "u8", value: 1 }],
    elseOps: [{ op: "load", offset: 0, type: "u8" }],
  };
  t.equal((await f.batch("demo", batch, { "if-match": '"1.1.1"' })).json.code, "etag-mismatch");
  t.match((await f.batch("demo", batch, { "region-if-generation": "1" })).json, {
    code: "generation-mismatch",
    failures: [{ code: "generation-mismatch", limit: 1, actual: 0 }],
  });
  t.equal((await f.batch("demo", batch, { "if-match": `"1.1.1", ${etag}`, "region-if-generation": "0" })).status, 200);
  t.equal((await f.batch("demo", batch, { "if-match": etag })).json.code, "etag-mismatch");
  const { json } = await f.batch("demo", batch, { "if-match": "*", "if-none-match": etag });
  t.match(json, { branch: "elseOps", generation: 1, results: [{ value: 1 }] });
  const failed = await f.batch("demo", { ...batch, elseOps: undefined }, { "if-match": "*" });
  t.match(failed.json.failures, [{ index: 0, pointer: "/guards/0/value", actual: 1 }]);
});

storeTest("a dry run answers as if, and changes nothing", async (t, f) => {
  await f.region("demo", 8);
  const ops = [{ op: "add", offset: 0, type: "u64", value: 5 }];
  const { json } = await f.batch("demo", { ops, dryRun: true });
  t.match(json, { committed: false, branch: "ops", generation: 0, results: [{ old: "0", new: "5" }] });
  t.match((await f.batch("demo", { ops })).json, { committed: true, generation: 1, results: [{ old: "0", new: "5" }] });
});

storeTest("durability: asked for more, never for less", async (t, f) => {
  for (const durability of ["fast", "ordered", "durable"]) await f.region(durability, 8, { durability });
  const ask = (name: string, durability: string) =>
    f.batch(name, { ops: [{ op: "add", offset: 0, type: "u64", value: 1 }], durability });
  t.equal((await ask("durable", "durable")).json.durableGeneration, 1);
  t.equal((await ask("ordered", "durable")).json.durableGeneration, 1);
  t.equal((await ask("ordered", "ordered")).status, 200);
  t.equal((await ask("fast", "fast")).status, 200);
  t.match((await ask("durable", "fast")).json, { status: 422, failures: [{ pointer: "/durability" }] });
  const refused = await ask("fast", "durable");
  t.match(refused.json, {
    status: 422,
    code: "validation-failed",
    failures: [{ pointer: "/durability", code: "durability-unavailable" }],
  });
});

storeTest("several regions in one batch", async (t, f) => {
  await f.region("left", 16);
  await f.region("right", 16, { durability: "fast" });
  const { status, json, headers } = await f.post("/v1/batches", {
    guards: [{ kind: "generation", region: "right", op: "eq", value: 0 }],
    ops: [
      { op: "store", region: "left", offset: 0, type: "u64", value: 1 },
      { op: "copy", region: "right", fromRegion: "left", from: 0, to: 8, length: 8 },
      { op: "assert", guard: { kind: "value", region: "right", offset: 8, type: "u64", op: "eq", value: 1 } },
    ],
  });
  t.equal(status, 200);
  t.same(json, {
    committed: true,
    branch: "ops",
    generations: { left: 1, right: 1 },
    durableGenerations: json.durableGenerations,
    results: [{ old: "0" }, { bytes: 8 }, {}],
  });
  t.equal(json.durableGenerations.left, 1);
  t.notOk(headers.etag);
  t.equal(await hexOf(f, "right"), "00000000000000000100000000000000");

  const torn = await f.post("/v1/batches", {
    ops: [
      { op: "add", region: "left", offset: 0, type: "u64", value: 1 },
      { op: "cas", region: "right", offset: 8, type: "u64", expected: 5, value: 1 },
    ],
  });
  t.equal(torn.json.code, "cas-mismatch");
  t.equal(await hexOf(f, "left"), "01000000000000000000000000000000");
});

storeTest("what a batch over several regions refuses", async (t, f) => {
  await f.region("left", 16);
  const post = async (body: object, headers: Record<string, string> = {}) =>
    (await f.post("/v1/batches", body, headers)).json;
  const load = { op: "load", offset: 0, type: "u8" };
  t.match(await post({ ops: [load] }), { status: 422, failures: [{ pointer: "/ops" }] });
  t.match(await post({ ops: [{ ...load, region: "left" }, load] }), {
    status: 422,
    failures: [{ pointer: "/ops/1/region" }],
  });
  t.match(
    await post({
      ops: [
        { ...load, region: "left" },
        { ...load, region: "UP" },
      ],
    }),
    { status: 422, failures: [{ pointer: "/ops/1/region" }] },
  );
  t.match(
    await post({
      ops: [
        { ...load, region: "left" },
        { ...load, region: "gone" },
      ],
    }),
    {
      status: 404,
      code: "region-not-found",
      failures: [{ detail: "region gone" }],
    },
  );
  t.match(await post({ ops: [{ ...load, region: "left" }] }, { "if-match": "*" }), {
    status: 400,
    code: "header-invalid",
  });
  const many = [...Array(65).keys()].map((number) => ({ ...load, region: `r${number}` }));
  t.match(await post({ ops: many }), { status: 422, code: "too-many-ops", failures: [{ limit: 64, actual: 65 }] });
  t.match((await f.batch("left", { ops: [{ ...load, region: "left" }] })).json, {
    status: 422,
    failures: [{ pointer: "/ops/0/region" }],
  });
  t.match((await f.batch("gone", { ops: [load] })).json, { status: 404, code: "region-not-found" });
});

storeTest("a copy from another region through one region's path", async (t, f) => {
  await f.region("demo", 8);
  await f.region("other", 8);
  await f.batch("other", { ops: [{ op: "fill", offset: 0, length: 8, pattern: "aa" }] });
  const { json, headers } = await f.batch("demo", {
    ops: [{ op: "copy", fromRegion: "other", from: 0, to: 4, length: 4 }],
  });
  t.match(json, { committed: true, generation: 1 });
  t.match(headers.etag, /\.1\.1"$/);
  t.equal(await hexOf(f), "00000000aaaaaaaa");
  t.equal((await f.get("/v1/regions/other")).json.generation, 1, "reading makes no generation");
});

storeTest(
  "limits of a batch",
  async (t, f) => {
    await f.region("demo", 1 << 20);
    const load = { op: "load", offset: 0, type: "u8" };
    const guard = { kind: "generation", op: "ge", value: 0 };
    const batch = async (body: object, headers: Record<string, string> = {}) =>
      (await f.batch("demo", body, headers)).json;
    t.match(await batch({ ops: Array(9).fill(load) }), {
      status: 422,
      code: "too-many-ops",
      failures: [{ pointer: "/ops", limit: 8, actual: 9 }],
    });
    t.match(await batch({ ops: [], elseOps: Array(9).fill(load) }), {
      code: "too-many-ops",
      failures: [{ pointer: "/elseOps" }],
    });
    t.match(await batch({ ops: [], guards: Array(5).fill(guard) }), {
      code: "too-many-ops",
      failures: [{ pointer: "/guards", limit: 4 }],
    });
    t.match(await batch({ ops: Array(8).fill(load), guards: Array(4).fill(guard) }), { branch: "ops" });
    t.match(await batch({ ops: [], guards: Array(4).fill(guard) }, { "if-match": "*" }), {
      code: "too-many-ops",
      failures: [{ limit: 3 }],
    });
    const most = { op: "fill", offset: 0, length: 256 * 1024, pattern: "01" };
    t.match(await batch({ ops: [most] }), { committed: true });
    t.match(await batch({ ops: [{ ...most, length: 256 * 1024 + 1 }] }), {
      status: 413,
      code: "batch-too-large",
      failures: [{ limit: 256 * 1024, actual: 256 * 1024 + 1 }],
    });
    t.match(await batch({ ops: [{ op: "read", offset: 0, length: 256 * 1024 + 1 }] }), {
      status: 413,
      code: "batch-too-large",
    });
    const data = Buffer.alloc(256 * 1024, 7).toString("base64");
    t.match(await batch({ ops: [{ op: "write", offset: 3, data }] }), { committed: true });
  },
  "--batch-ops-max=8",
  "--batch-guards-max=4",
);

storeTest("members that JavaScript objects have by themselves are not members", async (t, f) => {
  await f.region("demo", 8);
  for (const text of [
    '{"ops":[{"op":"load","offset":0,"type":"u8","__proto__":1}]}',
    '{"ops":[],"__proto__":{"dryRun":true}}',
    '{"ops":[{"op":"load","offset":0,"type":"u8","constructor":1}]}',
    '{"ops":[{"op":"load","offset":0,"type":"__proto__"}]}',
    '{"ops":[{"op":"toString","offset":0}]}',
  ]) {
    const { status } = await f.call("POST", "/v1/regions/demo/batches", {
      body: text,
      headers: { "content-type": "application/json" },
    });
    t.equal(status, 422, text);
  }
});
