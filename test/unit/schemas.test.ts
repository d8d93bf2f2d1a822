// The encoder checks batches by hand and the schemas describe them: both accept and refuse the same.
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import t from "tap";
import { components, guardNames, opNames } from "../../service/schemas.js";
import { BatchEncoder } from "../../service/store/batch-encoder.js";
import { batch } from "../arbitraries.js";
import { seedOf } from "../seed.js";

const ajv = new Ajv2020({ strict: false, validateFormats: false, discriminator: true });
for (const component of components) ajv.addSchema(component as object);

const encoder = new BatchEncoder({ opsMax: 4096, guardsMax: 256 });

type Members = Record<string, unknown>;

/** What no member can be, whatever its meaning. */
const nonsense = [null, {}, true, [], [1]];
/** Members whose text has to be what `encoding` says. */
const opaque = ["data", "equals", "pattern"];

/** Breaks one member of one guard or operation, or of the batch itself. */
const broken = fc.tuple(batch, fc.nat(), fc.nat(), fc.nat()).map(([whole, where, which, how]) => {
  const body = structuredClone(whole) as unknown as Members;
  const entries = ["guards", "ops", "elseOps"].flatMap((section) => (body[section] ?? []) as Members[]);
  const inner = entries.flatMap((entry) => (entry.guard === undefined ? [] : [entry.guard as Members]));
  const all = [body, ...entries, ...inner];
  const target = all[where % all.length]!;
  const names = Object.keys(target);
  const name = names[which % Math.max(1, names.length)];
  switch (how % 4) {
    case 0:
      if (name !== undefined) delete target[name];
      break;
    case 1:
      target.unknown = 1;
      break;
    case 2:
      if (name !== undefined) target[name] = nonsense[how % nonsense.length];
      break;
    default:
      if (name !== undefined && !opaque.includes(name)) target[name] = "zzz";
  }
  return body;
});

function withRegions(body: Members): Members {
  const name = (entry: Members): Members => {
    if (typeof entry !== "object" || entry === null || Array.isArray(entry)) return entry;
    if (entry.op === "assert") return { ...entry, guard: name(entry.guard as Members) };
    return { region: "demo", ...entry };
  };
  const list = (section: string) =>
    Array.isArray(body[section]) ? { [section]: (body[section] as Members[]).map(name) } : {};
  return { ...body, ...list("guards"), ...list("ops"), ...list("elseOps") };
}

for (const [schema, region, shape] of [
  ["Batch", "demo", (body: Members) => body],
  ["MultiBatch", undefined, withRegions],
] as const) {
  t.test(`${schema}: what the schema accepts, the encoder accepts`, async (t) => {
    const validate = ajv.compile({ $ref: `${schema}#` });
    const counts = { accepted: 0, refused: 0 };
    const property = (one: unknown) => {
      const body = shape(one as Members);
      const accepted = validate(body);
      const frame = encoder.encode(body, region, undefined, undefined);
      // What only the encoder can tell: whether text is what its encoding says, and that no region is named at all.
      const beyond = /^must be (?:base64|hex digits)|^must name at least one region/;
      if (accepted && encoder.failures.length > 0 && encoder.failures.every(({ detail }) => beyond.test(detail!)))
        return;
      counts[accepted ? "accepted" : "refused"]++;
      if (accepted !== (frame !== undefined)) {
        throw new Error(
          `${JSON.stringify(body)}\n${JSON.stringify(validate.errors)}\n${JSON.stringify(encoder.failures)}`,
        );
      }
    };
    const seed = seedOf(t);
    fc.assert(fc.property(batch, property), { numRuns: 300, seed });
    fc.assert(fc.property(broken, property), { numRuns: 1500, seed });
    t.comment(JSON.stringify(counts));
    t.ok(counts.accepted > 100 && counts.refused > 100);
  });
}

t.test("every operation and guard of the schema is known", async (t) => {
  for (const op of opNames) {
    encoder.encode({ ops: [{ op }] }, "demo", undefined, undefined);
    t.notMatch(encoder.failures[0]?.pointer, /\/op$/, op);
  }
  for (const kind of guardNames) {
    encoder.encode({ guards: [{ kind }], ops: [] }, "demo", undefined, undefined);
    t.notMatch(encoder.failures[0]?.pointer, /\/kind$/, kind);
  }
});

t.test("components refer to components", async (t) => {
  const ids = new Set(components.map(({ $id }) => $id));
  t.equal(ids.size, components.length, "each has a name of its own");
  for (const [, id] of JSON.stringify(components).matchAll(/"\$ref":"(\w+)#"/g)) t.ok(ids.has(id), id!);
});
