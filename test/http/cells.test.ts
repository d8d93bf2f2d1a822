// One typed value, and views for people.
import { storeTest } from "../fixture.js";

const at = (offset: number | string, query = "") => `/v1/regions/demo/cells/${offset}${query}`;

storeTest("cells of every type are stored and loaded", async (t, f) => {
  await f.region("demo", 64);
  const cases: [string, unknown, unknown][] = [
    ["u8", 255, 255],
    ["u16", "65535", 65535],
    ["u32", 4294967295, 4294967295],
    ["u64", "18446744073709551615", "18446744073709551615"],
    ["i8", -128, -128],
    ["i16", "-2", -2],
    ["i32", -2147483648, -2147483648],
    ["i64", "-9223372036854775808", "-9223372036854775808"],
    ["i64", -5, "-5"],
    ["f32", 1.5, 1.5],
    ["f64", -0.1, -0.1],
    ["f64", "NaN", "NaN"],
    ["f32", "-Infinity", "-Infinity"],
  ];
  for (const [type, value, told] of cases) {
    for (const endian of ["little", "big"]) {
      const query = `?type=${type}&endian=${endian}`;
      const stored = await f.call("PUT", at(3, query), { body: { value } });
      t.equal(stored.status, 200, `${type} ${value}`);
      t.equal(stored.json.committed, true);
      const loaded = await f.get(at(3, query));
      t.same(loaded.json.value, told, `${type} ${endian}`);
      t.equal(loaded.json.generation, stored.json.generation);
      t.equal(loaded.headers.etag, stored.headers.etag);
    }
  }
});

storeTest("a store tells the old value, an operation both", async (t, f) => {
  await f.region("demo", 64);
  t.same((await f.call("PUT", at(8), { body: { value: "7" } })).json.result, { old: "0" });
  t.same((await f.post(at(8), { op: "add", value: 3 })).json.result, { old: "7", new: "10", overflowed: false });
  t.same((await f.post(at(8), { op: "cas", expected: 10, value: 1 })).json.result, { swapped: true, actual: "10" });
  const missed = await f.post(at(8), { op: "cas", expected: 10, value: 1, onMismatch: "continue" });
  t.same(missed.json.result, { swapped: false, actual: "1" });
  const failed = await f.post(at(8), { op: "cas", expected: 10, value: 1 });
  t.match(failed.json, {
    status: 409,
    code: "cas-mismatch",
    failures: [{ pointer: "/expected", limit: "10", actual: "1" }],
  });
  t.same((await f.post(at(8), { op: "xor", value: "3" })).json.result, { old: "1", new: "2" });
});

storeTest("what a cell refuses", async (t, f) => {
  await f.region("demo", 64);
  const post = async (offset: number | string, query: string, body: unknown) =>
    (await f.post(at(offset, query), body)).json;
  t.match(await post(9, "", { op: "add", value: 1 }), { status: 422, code: "misaligned" });
  t.match(await post(64, "", { op: "add", value: 1 }), { status: 422, code: "out-of-bounds" });
  t.match(await post(8, "?type=u8", { op: "add", value: 300 }), { status: 409, code: "overflow" });
  t.match(await post(8, "?type=u8", { op: "or", value: 300 }), {
    status: 422,
    code: "value-out-of-range",
    failures: [{ pointer: "/value" }],
  });
  t.match(await post(8, "", { op: "add" }), { status: 422, failures: [{ pointer: "/value" }] });
  t.match(await post(8, "", { op: "nope", value: 1 }), { status: 422, failures: [{ pointer: "/op" }] });
  t.match(await post(8, "", { op: "add", value: 1, color: "red" }), { status: 422, failures: [{ pointer: "/color" }] });
  t.match(await post(8, "?type=u65", { op: "add", value: 1 }), { status: 400, code: "query-param-invalid" });
  t.match(await post("x", "", { op: "add", value: 1 }), { status: 422, code: "validation-failed" });
  t.match((await f.get(at(60))).json, { status: 422, code: "out-of-bounds" });
  t.match((await f.get("/v1/regions/nope/cells/0")).json, { status: 404, code: "region-not-found" });
});

storeTest("a hexdump", async (t, f) => {
  await f.region("demo", 40);
  await f.batch("demo", { ops: [{ op: "write", offset: 14, data: "Hello\n\u00ff", encoding: "utf8" }] });
  const view = await f.get("/v1/regions/demo/view?offset=8");
  t.equal(view.status, 200);
  t.match(view.headers["content-type"], /^text\/plain/);
  t.equal(
    view.text,
    [
      "00000008  00 00 00 00 00 00 48 65  6c 6c 6f 0a c3 bf 00 00  |......Hello.....|",
      "00000018  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
      "00000028",
      "",
    ].join("\n"),
  );
  t.equal((await f.get("/v1/regions/demo/view?offset=14&length=5&as=utf8")).text, "Hello\n");
  t.equal((await f.get("/v1/regions/demo/view?offset=14&length=5&as=hex")).text, "48656c6c6f\n");
  t.equal((await f.get("/v1/regions/demo/view?offset=14&length=5&as=base64")).text, "SGVsbG8=\n");
});

storeTest("cells in a row", async (t, f) => {
  await f.region("demo", 40);
  await f.batch("demo", { ops: [{ op: "store", offset: 0, type: "i16", endian: "big", values: [1, -2, 3] }] });
  const { json } = await f.get("/v1/regions/demo/view?length=7&as=i16&endian=big");
  t.match(json, { offset: 0, type: "i16", endian: "big", values: [1, -2, 3], generation: 1 });
  t.same((await f.get("/v1/regions/demo/view?length=0&as=u64")).json.values, []);
});

storeTest("what a view refuses", async (t, f) => {
  await f.region("demo", 100_000);
  const code = async (query: string) => (await f.get(`/v1/regions/demo/view?${query}`)).json.code;
  t.equal(await code("length=65537"), "query-param-invalid");
  t.equal(await code("offset=99999&length=2"), "out-of-bounds");
  t.equal(await code("offset=100001"), "out-of-bounds");
  t.equal(await code("as=u128"), "query-param-invalid");
  t.equal(await code("offset=-1"), "query-param-invalid");
  t.equal((await f.get("/v1/regions/demo/view?length=65536")).status, 200);
  t.equal((await f.get("/v1/regions/nope/view")).status, 404);
});
