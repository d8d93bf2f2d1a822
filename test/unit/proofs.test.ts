// The figures of the proofs: each proof has some, of the form that its command writes, and README says the same.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";

const root = join(import.meta.dirname, "../../..");

interface Proofs {
  proofs: Record<string, { counted: Record<string, string> }>;
  readFigures(): Record<string, Record<string, number | string | boolean>>;
  withTable(readme: string, figures: unknown): string;
}
const { proofs, readFigures, withTable } = (await import(join(root, "scripts/proofs.mjs"))) as Proofs;

t.test("each proof has figures as its command writes them", async (t) => {
  const figures = readFigures();
  t.same(Object.keys(figures), Object.keys(proofs), "one entry for each, in their order");
  for (const [name, { counted }] of Object.entries(proofs)) {
    const entry = figures[name] ?? {};
    const long = entry.long === undefined ? [] : ["long"];
    t.same(
      Object.keys(entry),
      [...Object.keys(counted), "failures", ...long, "date", "machine"],
      `${name}: its members`,
    );
    for (const member of Object.keys(counted)) t.ok(Number.isSafeInteger(entry[member]) && Number(entry[member]) > 0);
    t.equal(entry.failures, 0, `${name} failed nowhere`);
    t.match(entry.date, /^\d{4}-\d\d-\d\d$/);
  }
});

t.test("README has them", async (t) => {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  t.equal(withTable(readme, readFigures()), readme, "`npm run proofs -- NAME` writes both");
});
