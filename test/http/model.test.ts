// Random batches over HTTP against the model: the same answers, the same refusals, the same bytes, in every durability.
//
//   npm run proofs -- http-model          tens of thousands of batches, their figures into test/proofs.json
//   node dist/test/http/model.test.js [--runs=N]
import fc from "fast-check";
import { batch as batchArbitrary, regionBytes } from "../arbitraries.js";
import { type Answer, type Fixture, storeTest } from "../fixture.js";
import { runsOr } from "../length.js";
import { type Batch, type Expected, RegionModel } from "../model.js";
import { seedOf } from "../seed.js";

const runs = runsOr(60);
const batchesPerRun = 12;

function compare(expected: Expected, { status, json }: Answer): string | undefined {
  if (status !== expected.status) return `status ${status}`;
  if (status !== 200) {
    const failures = json.failures.map(({ pointer, index, code }: { pointer: string; index: number; code: string }) => [
      pointer.split("/")[1],
      index,
      code,
    ]);
    return json.code === expected.code && JSON.stringify(failures) === JSON.stringify(expected.failures)
      ? undefined
      : "refusal";
  }
  const { durableGeneration: _, ...told } = json;
  const { branch, committed, generation, results } = told;
  const same = branch === expected.branch && committed === expected.committed && generation === expected.generation;
  return same && JSON.stringify(results) === JSON.stringify(expected.results) ? undefined : "results";
}

async function play(f: Fixture, name: string, model: RegionModel, batches: readonly Batch[]): Promise<void> {
  for (const one of batches) {
    const expected = model.run(one);
    const answer = await f.batch(name, one);
    const differs = compare(expected, answer);
    if (differs !== undefined) {
      throw new Error(
        `${differs}: ${JSON.stringify(one)}\nexpected ${JSON.stringify(expected)}\nanswered ${answer.text}`,
      );
    }
    const { bytes } = await f.get(`/v1/regions/${name}/content`);
    if (!bytes.equals(model.bytes)) throw new Error(`bytes differ after ${JSON.stringify(one)}`);
  }
}

for (const durability of ["fast", "ordered", "durable"]) {
  storeTest(`batches do what the model does (${durability})`, async (t, f) => {
    await f.listen();
    const counts: Record<number, number> = {};
    let number = 0;
    const seed = seedOf(t);
    await fc.assert(
      fc.asyncProperty(fc.array(batchArbitrary, { minLength: 1, maxLength: batchesPerRun }), async (batches) => {
        const name = `r${++number}`;
        await f.region(name, regionBytes, { durability });
        const model = new RegionModel(regionBytes);
        for (const one of batches) {
          const probe = new RegionModel(regionBytes);
          probe.bytes = model.bytes.slice();
          probe.generation = model.generation;
          const { status } = probe.run(one);
          counts[status] = (counts[status] ?? 0) + 1;
          await play(f, name, model, [one]);
        }
        await f.call("DELETE", `/v1/regions/${name}`);
      }),
      { numRuns: runs, seed },
    );
    t.comment(`answers by status: ${JSON.stringify(counts)}`);
    const batches = Object.values(counts).reduce((sum, count) => sum + count, 0);
    t.comment(`figures: ${JSON.stringify({ batches, failures: 0, seed })}`);
    for (const status of [200, 409, 412, 422]) t.ok((counts[status] ?? 0) > 0, `${status} was met`);
  });
}
