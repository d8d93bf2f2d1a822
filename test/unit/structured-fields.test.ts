// Structured fields (RFC 9651), as far as this service reads them.
import fc from "fast-check";
import t from "tap";
import { parseDictionary, parseItem } from "../../service/structured-fields.js";
import { seedOf } from "../seed.js";

t.test("items", async (t) => {
  const items: [string, unknown][] = [
    ["42", { kind: "integer", value: 42 }],
    [" -999999999999999 ", { kind: "integer", value: -999_999_999_999_999 }],
    ["4.5", { kind: "decimal", value: 4.5 }],
    ['"a \\"b\\" \\\\"', { kind: "string", value: 'a "b" \\' }],
    ["*token/x:y", { kind: "token", value: "*token/x:y" }],
    [":SGVsbG8=:", { kind: "bytes", value: Buffer.from("Hello") }],
    ["?1", { kind: "boolean", value: true }],
    ["?0", { kind: "boolean", value: false }],
  ];
  for (const [text, item] of items) t.same(parseItem(text)?.item, item, text);
  const { item, parameters } = parseItem('20; a;unit=bytes;b="x";a=?0')!;
  t.same(item, { kind: "integer", value: 20 });
  t.same(
    [...parameters],
    [
      ["a", { kind: "boolean", value: false }],
      ["unit", { kind: "token", value: "bytes" }],
      ["b", { kind: "string", value: "x" }],
    ],
  );
  for (const bad of [
    "",
    "1 2",
    "1000000000000000",
    "1.2345",
    "1.",
    '"a',
    '"\\x"',
    ":a",
    "?2",
    "(1 2)",
    "1;",
    "1;A",
    "1;a=",
    "é",
  ]) {
    t.equal(parseItem(bad), undefined, bad);
  }
});

t.test("dictionaries", async (t) => {
  const members = parseDictionary(" sha-256=:AA==:;x , a, b;c=1,\ta=2");
  t.same([...members!.keys()], ["sha-256", "a", "b"]);
  t.same(members!.get("a")?.item, { kind: "integer", value: 2 }, "the last one counts");
  t.same(members!.get("b")?.item, { kind: "boolean", value: true });
  t.equal(members!.get("b")?.parameters.size, 1);
  t.equal(parseDictionary("")?.size, 0);
  for (const bad of ["a,", ",a", "a b", "A=1", "a=", "a==1", "a=1;", "a=(1 2)"])
    t.equal(parseDictionary(bad), undefined, bad);
});

t.test("any text parses or does not", async (t) => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-z=;:?"\\,. 0-9-]*$/)), (text) => {
      parseItem(text);
      parseDictionary(text);
    }),
    { seed: seedOf(t) },
  );
  t.pass("nothing was thrown");
});
