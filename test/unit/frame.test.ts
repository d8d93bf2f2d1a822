// frame.ts and cells.ts against native/frame.h, which is where the numbers are written down.
import { readFileSync } from "node:fs";
import t from "tap";
import { opKinds as coreKinds, valueTypes as coreTypes, limits } from "../../native/index.js";
import { valueTypes } from "../../service/store/cells.js";
import * as frame from "../../service/store/frame.js";

const header = readFileSync(new URL("../../../native/frame.h", import.meta.url), "utf8");

const constants = Object.fromEntries(
  [...header.matchAll(/inline constexpr uint\d+_t k(\w+) = (0x[0-9a-f]+|\d+);/g)].map(([, name, value]) => [
    name![0]!.toLowerCase() + name!.slice(1),
    Number(value),
  ]),
);
const sizes = Object.fromEntries(
  [...header.matchAll(/static_assert\(sizeof\((\w+)\) == (\d+)\);/g)].map(([, name, value]) => [name, Number(value)]),
);
const own: Record<string, unknown> = { ...frame };
const members = (name: string) =>
  [...new RegExp(`enum class ${name} : uint8_t \\{([^}]*)\\}`).exec(header)![1]!.matchAll(/(\w+) = (\d+)/g)].map(
    ([, member]) => member!,
  );

t.test("constants", async (t) => {
  for (const name of [
    "frameMagic",
    "answerMagic",
    "frameVersion",
    "regionNameBytesMax",
    "regionsPerBatchMax",
    "frameDryRun",
    "frameHasKey",
    "opBigEndian",
    "opNegative",
    "opNegate",
    "opCondition",
    "answerCommitted",
    "answerReplayed",
    "resultSwapped",
    "resultOverflowed",
  ]) {
    t.equal(own[name], constants[name], name);
  }
  t.match(sizes, {
    FrameHeader: frame.frameHeaderBytes,
    FrameRegion: frame.frameRegionBytes,
    FrameOp: frame.frameOpBytes,
    AnswerHeader: frame.answerHeaderBytes,
    AnswerRegion: frame.answerRegionBytes,
    AnswerResult: frame.answerResultBytes,
    AnswerFailure: frame.answerFailureBytes,
  });
  // Whichever header a number is written in, the addon tells it.
  const told = Object.entries(limits).filter(([name]) => name in own);
  for (const [name, value] of told) t.equal(own[name], value, `${name}, as the addon tells it`);
  t.ok(told.some(([name]) => name === "regionBytesMax"));
});

t.test("kinds, types and choices", async (t) => {
  t.same(frame.opKinds, coreKinds);
  t.same(Object.fromEntries(valueTypes.map((name, number) => [name, number])), coreTypes);
  t.same(frame.compares, members("Compare"));
  t.same(frame.overflows, members("Overflow"));
  t.same(members("OnMismatch"), ["abort", "proceed"], "`continue` is a keyword of C++");
  t.same(members("Algorithm"), ["sha256", "crc32c"]);
  t.same(members("Wait"), ["region_mode", "fast", "ordered", "durable"]);
});
