// fuzz.test.ts - bytes that nobody made, as a batch's frame and as the files of a killed store; under AddressSanitizer, with
// the invariants of test/fuzz/*.cc. What they must find is in mutants.test.ts.
//
//   npm run fuzz -- [--seconds=N] [--only=NAME] [--seed=N] [--merge] [--help]
import { parseArgs } from "node:util";
import t from "tap";
import { seedOf } from "../seed.js";
import { fuzz, fuzzers, isBuilt, whyNotBuilt } from "./fuzzer.js";

const { values } = parseArgs({
  options: {
    seconds: { type: "string" },
    only: { type: "string" },
    seed: { type: "string" },
    merge: { type: "boolean" },
    help: { type: "boolean" },
  },
  strict: false,
});

if (values.help) {
  console.log(
    `changes the inputs of test/fuzz/corpus, and keeps what reaches something new:
  --seconds=N   for so long (30)
  --only=NAME   only this one: ${fuzzers.join(", ")}
  --seed=N      the same choices again
  --merge       afterwards the corpus is a small set that reaches all that was reached`,
  );
} else {
  const seconds = Number(values.seconds ?? 30);
  const timeout = 300_000 + seconds * 2000;
  t.setTimeout(timeout);
  t.jobs = fuzzers.length;
  for (const name of fuzzers.filter((name) => (values.only ?? name) === name)) {
    const skip = isBuilt(name) ? false : whyNotBuilt;
    t.test(name, { timeout, skip }, async (t) => {
      const seed = Number(values.seed ?? seedOf(t));
      const { inputs, edges, broken } = await fuzz(name, { seconds, seed, merge: values.merge === true });
      t.equal(broken, undefined, "no input breaks an invariant");
      t.comment(`${inputs} inputs reached ${edges} edges of the code in ${seconds} s; seed ${seed}`);
      t.comment(`figures: ${JSON.stringify({ inputs, edges, failures: broken === undefined ? 0 : 1, seed, seconds })}`);
      t.ok(inputs > 0 && edges > 100, "the corpus reaches into the code");
    });
  }
}
