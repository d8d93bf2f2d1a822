// Every operation of the document with inputs made from its own schemas, and with the same inputs spoilt: none makes a 5xx,
// and every answer is one that the document allows (the fixture holds each against it).
//
//   npm run proofs -- http-inputs         tens of thousands of inputs, their figures into test/proofs.json
//   node dist/test/http/fuzz.test.js [--runs=N]
import fc from "fast-check";
import { framed } from "../../service/batch-stream.js";
import { BatchEncoder } from "../../service/store/batch-encoder.js";
import type { Document, Media, Operation, Schema } from "../contract.js";
import { type Fixture, storeTest } from "../fixture.js";
import { runsOr } from "../length.js";
import { seedOf } from "../seed.js";

type Json = null | boolean | number | string | Json[] | { [member: string]: Json };
interface Input {
  url: string;
  headers: Record<string, string>;
  body: string | Buffer | undefined;
}

const runs = runsOr(40);
const manyRuns = 500;
const regionBytes = 256;
/** Stands for the id of the snapshot that there is when the request is sent. */
const anySnapshot = "0000000000000001";

/** Some route takes each of them. */
const foreignTypes = ["application/json", "application/merge-patch+json", "application/octet-stream", "text/plain"];

/** Numbers around which programs go wrong. */
const numbers = [0, 1, -1, 7, 8, regionBytes - 8, regionBytes, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e300, 0.5, -0];
const junk: fc.Arbitrary<Json> = fc.oneof(
  fc.constantFrom<Json>(null, true, "", [], {}, "..", "\u0000", "NaN", "__proto__", "\ud800", ...numbers),
  fc.string({ maxLength: 40 }),
  fc.jsonValue({ maxDepth: 2 }).map((value) => value as Json),
);

/** Values of a schema, small enough to be tried by the hundred. */
class Values {
  constructor(private readonly schemas: Record<string, Schema>) {}

  of(schema: Schema): fc.Arbitrary<Json> {
    const { $ref, allOf, oneOf, anyOf, type } = schema as {
      $ref?: string;
      allOf?: Schema[];
      oneOf?: Schema[];
      anyOf?: Schema[];
      type?: string | string[];
    };
    if ($ref !== undefined) return fc.constant(null).chain(() => this.of(this.schemas[$ref.split("/").at(-1)!]!));
    if ("const" in schema) return fc.constant(schema.const as Json);
    if (Array.isArray(schema.enum)) return fc.constantFrom(...(schema.enum as Json[]));
    if (allOf !== undefined) return this.of(allOf[0]!);
    const either = oneOf ?? anyOf;
    // A choice of required members is made by the object itself.
    if (either !== undefined && schema.properties === undefined) return fc.oneof(...either.map((one) => this.of(one)));
    return fc.oneof(...[type ?? "object"].flat().map((one) => this.ofType(one, schema)));
  }

  private ofType(type: string, schema: Schema): fc.Arbitrary<Json> {
    switch (type) {
      case "null":
        return fc.constant(null);
      case "boolean":
        return fc.boolean();
      case "integer":
      case "number": {
        const min = Number(schema.minimum ?? -(2 ** 53));
        const max = Number(schema.maximum ?? 2 ** 53);
        const near = Math.min(max, min + regionBytes + 16);
        const step = Number(schema.multipleOf ?? 0);
        if (step > 0)
          return fc.integer({ min: Math.ceil(min / step), max: Math.floor(max / step) }).map((n) => n * step);
        return fc.oneof(
          { arbitrary: fc.integer({ min, max: near }), weight: 4 },
          { arbitrary: fc.integer({ min: 0, max: 31 }).map((n) => Math.max(min, Math.min(max, n * 8))), weight: 4 },
          { arbitrary: fc.constantFrom(min, max), weight: 1 },
        );
      }
      case "string":
        return this.text(schema);
      case "array": {
        const minLength = Number(schema.minItems ?? 0);
        return fc.array(this.of((schema.items as Schema | undefined) ?? {}), { minLength, maxLength: minLength + 4 });
      }
      default:
        return this.object(schema);
    }
  }

  private text({ pattern, examples, minLength = 0, maxLength = 40 }: Schema): fc.Arbitrary<string> {
    const like = (examples as unknown[] | undefined)?.filter((example) => typeof example === "string") as string[];
    const hex = fc.uint8Array({ maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString("hex"));
    const free =
      typeof pattern === "string"
        ? fc.stringMatching(new RegExp(pattern))
        : fc.oneof(fc.string({ minLength: minLength as number, maxLength: Math.min(40, maxLength as number) }), hex);
    return like === undefined || like.length === 0 ? free : fc.oneof(free, fc.constantFrom(...like));
  }

  private object(schema: Schema): fc.Arbitrary<Json> {
    const properties = Object.entries((schema.properties as Record<string, Schema> | undefined) ?? {});
    const required = new Set((schema.required as string[] | undefined) ?? []);
    const members = properties.map(([name, one]) => {
      const value = this.of(one);
      return required.has(name) ? value : fc.option(value, { nil: undefined, freq: 3 });
    });
    const extra = schema.additionalProperties;
    const free =
      typeof extra === "object" && extra !== null
        ? fc.dictionary(fc.stringMatching(/^[a-z0-9]{1,8}$/), this.of(extra as Schema), { maxKeys: 3 })
        : fc.constant({});
    const made = fc.tuple(free, ...members).map(([more, ...values]) => {
      const own = properties.map(([name], at) => [name, values[at]]).filter(([, value]) => value !== undefined);
      return { ...(more as object), ...Object.fromEntries(own) } as Json;
    });
    // Where members depend on each other, what is made seldom goes together.
    const examples = (schema.examples as Json[] | undefined) ?? [];
    return examples.length === 0
      ? made
      : fc.oneof({ arbitrary: made, weight: 3 }, { arbitrary: fc.constantFrom(...examples), weight: 1 });
  }
}

/** One place of a value, anywhere in it, becomes something else or goes. */
function spoil(value: Json, choices: readonly number[], by: Json | undefined): Json {
  if (typeof value !== "object" || value === null || choices.length === 0) return by ?? null;
  const keys = Object.keys(value);
  if (keys.length === 0) return by ?? null;
  const key = keys[choices[0]! % keys.length]!;
  const copy = structuredClone(value) as Record<string, Json>;
  if (choices.length === 1 && by === undefined) delete copy[key];
  else copy[key] = spoil(copy[key]!, choices.slice(1), by);
  return Array.isArray(value) ? Object.values(copy) : copy;
}

const maybeSpoilt = (value: fc.Arbitrary<Json>): fc.Arbitrary<Json> =>
  fc.oneof(
    { arbitrary: value, weight: 3 },
    {
      arbitrary: fc
        .tuple(value, fc.array(fc.nat(63), { maxLength: 4 }), fc.option(junk, { nil: undefined }))
        .map(([whole, choices, by]) => spoil(whole, choices, by)),
      weight: 1,
    },
  );

const visible = (text: string) => text.replace(/[^\x20-\x7e]/g, "?");

/** As it is, or with some bytes that are others, or broken off. */
const maybeSpoiltBytes = (bytes: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> => {
  const changes = fc.array(fc.tuple(fc.nat(1 << 16), fc.nat(255)), { maxLength: 3 });
  const spoilt = fc.tuple(bytes, changes, fc.option(fc.nat(1 << 16))).map(([whole, places, end]) => {
    const copy = Buffer.from(whole);
    for (const [at, byte] of places) if (copy.length > 0) copy[at % copy.length] = byte;
    return end === null ? copy : copy.subarray(0, end % (copy.length + 1));
  });
  return fc.oneof(bytes, spoilt);
};

const encoder = new BatchEncoder({ opsMax: 4096, guardsMax: 256 });

function frameOf(batch: Json, region: string | undefined): Buffer {
  const frame = encoder.encode(batch, region, undefined, undefined);
  return frame === undefined ? Buffer.alloc(8) : framed(frame);
}

function bodyOf(
  values: Values,
  type: string,
  { schema, example }: Media,
  path: string,
  batch: Schema | undefined,
): fc.Arbitrary<string | Buffer> {
  if (/^application\/(?:[a-z-]+\+)?json$/.test(type)) {
    return fc.oneof(
      { arbitrary: maybeSpoilt(values.of(schema)).map((value) => JSON.stringify(value)), weight: 12 },
      { arbitrary: fc.string({ maxLength: 30 }), weight: 1 },
    );
  }
  if (batch !== undefined && type.endsWith("ndjson")) {
    const lines = fc.array(maybeSpoilt(values.of(batch)), { minLength: 1, maxLength: 4 });
    return maybeSpoiltBytes(lines.map((all) => Buffer.from(all.map((line) => `${JSON.stringify(line)}\n`).join(""))));
  }
  if (batch !== undefined) {
    const region = path.includes("{region}") ? "demo" : undefined;
    const frames = fc.array(values.of(batch), { minLength: 1, maxLength: 4 });
    return maybeSpoiltBytes(frames.map((all) => Buffer.concat(all.map((one) => frameOf(one, region)))));
  }
  if (typeof example === "string") return maybeSpoiltBytes(fc.constant(Buffer.from(example, "latin1")));
  return fc.uint8Array({ maxLength: regionBytes + 8 }).map((bytes) => Buffer.from(bytes));
}

function inputsOf(values: Values, path: string, operation: Operation): fc.Arbitrary<Input> {
  const parameters = operation.parameters ?? [];
  const parts = parameters.map(({ name, in: place, required, schema }) => {
    const examples = (schema.examples as Json[] | undefined) ?? [];
    const good =
      name === "region"
        ? fc.constantFrom<Json>("demo", "demo", "demo", "demo", "other", "absent")
        : name === "wait"
          ? // A long poll would wait.
            fc.constant<Json>(0)
          : place === "header"
            ? fc.constantFrom(...examples)
            : name === "snapshot"
              ? fc.oneof(fc.constant<Json>(anySnapshot), fc.constant<Json>(anySnapshot), values.of(schema))
              : name === "since" && JSON.stringify(schema).includes("snapshot:")
                ? fc.oneof(fc.constant<Json>(`snapshot:${anySnapshot}`), values.of(schema))
                : values.of(schema);
    const given = fc.oneof({ arbitrary: good, weight: 7 }, { arbitrary: name === "wait" ? good : junk, weight: 1 });
    // Headers are conditions: with many of them next to nothing would be carried out.
    const absent = { arbitrary: fc.constant(undefined), weight: place === "header" ? 7 : 1 };
    return required === true ? given : fc.oneof(absent, { arbitrary: given, weight: 1 });
  });
  const content = operation.requestBody?.content ?? {};
  const bodies = Object.entries(content).map(([type, media]) =>
    bodyOf(values, type, media, path, content["application/json"]?.schema).map((body) => ({
      type,
      body: body as string | Buffer | undefined,
    })),
  );
  const none = fc.constant({ type: "", body: undefined });
  // Most by one of their own names, some by that of another route's, or of none; and none at all.
  const named = (bodies.length === 0 ? none : fc.oneof(...bodies)).chain(({ type, body }) =>
    fc.record({
      type: fc.oneof({ arbitrary: fc.constant(type), weight: 12 }, fc.constantFrom(...foreignTypes, "")),
      body: fc.constant(body),
    }),
  );
  const body = bodies.length === 0 ? none : fc.oneof({ arbitrary: named, weight: 24 }, none);
  return fc.tuple(fc.tuple(...parts), body).map(([given, { type, body }]) => {
    let url = path;
    const query = new URLSearchParams();
    const headers: Record<string, string> = type === "" ? {} : { "content-type": type };
    parameters.forEach(({ name, in: place }, at) => {
      const value = given[at];
      if (value === undefined) return;
      const text = typeof value === "string" ? value.replace(/\p{Surrogate}/gu, "?") : JSON.stringify(value);
      if (place === "path") url = url.replace(`{${name}}`, segmentOf(text));
      else if (place === "query") query.append(name, text);
      else headers[name] = visible(text);
    });
    return { url: query.size === 0 ? url : `${url}?${query}`, headers, body };
  });
}

/** What a client makes of a text: never nothing, nor a step that it would take itself. */
function segmentOf(text: string): string {
  return /^\.{0,2}$/.test(text) ? `${text}x` : encodeURIComponent(text);
}

/** The regions are there, and "demo" has a snapshot, whose id this is. */
async function again(f: Fixture): Promise<string> {
  for (const name of ["demo", "other"]) {
    const { status } = await f.get(`/v1/regions/${name}`);
    if (status === 404) await f.region(name, regionBytes, { durability: "fast" });
  }
  const [snapshot] = (await f.get("/v1/regions/demo/snapshots")).json.items;
  return snapshot?.id ?? (await f.call("POST", "/v1/regions/demo/snapshots")).json.id;
}

storeTest(
  "no input makes a 5xx, and every answer is in the document",
  async (t, f) => {
    await f.listen();
    const document = (await f.get("/openapi.json")).json as Document;
    const values = new Values(document.components.schemas);
    const seed = seedOf(t);
    let tried = 0;
    let succeeded = 0;
    for (const [path, operations] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        const statuses: Record<number, number> = {};
        const fewer = (operation.parameters ?? []).length === 0 && operation.requestBody === undefined;
        await again(f);
        await fc.assert(
          fc.asyncProperty(inputsOf(values, path, operation), async ({ url, headers, body }) => {
            const snapshot = url.includes(anySnapshot) ? await again(f) : "";
            const named = url.replaceAll(anySnapshot, snapshot);
            const { status, text, headers: answered } = await f.call(method.toUpperCase(), named, { headers, body });
            statuses[status] = (statuses[status] ?? 0) + 1;
            tried++;
            if (status < 300) succeeded++;
            if (status >= 500) throw new Error(`${status}: ${text}`);
            // The store stays as it is in kind: regions that came are gone again, and those that went are back.
            if (status === 201) await f.call("DELETE", answered.location!);
            if (method === "delete" || status === 201) await again(f);
          }),
          { numRuns: fewer ? 1 : runs, seed },
        );
        const told = Object.entries(statuses).map(([status, count]) => `${count} x ${status}`);
        // Few inputs of some operations get behind the first checks; of many some must.
        const isReached = Object.keys(statuses).some((status) => Number(status) < 300);
        t.ok(isReached || runs < manyRuns, `${operation.operationId}: ${told.join(", ")}`);
      }
    }
    t.comment(`figures: ${JSON.stringify({ inputs: tried, failures: 0, seed })}`);
    t.ok(
      succeeded > tried / 5,
      `${succeeded} of ${tried} inputs were carried out: enough to get behind the first checks`,
    );
  },
  "--region-bytes-max=64KiB",
);
