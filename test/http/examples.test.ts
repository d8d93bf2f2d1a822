// The document's examples, sent as they stand to an empty server: what Swagger UI does when somebody opens an operation and
// presses Execute.
import type { Document, Media, Operation, Parameter } from "../contract.js";
import type { Answer, Fixture } from "../fixture.js";
import { storeTest } from "../fixture.js";

interface Example {
  id: string;
  name: string;
  method: string;
  url: string;
  headers: Record<string, string>;
  body: unknown;
}

/** These come first, in this order, or last; the others come in the document's order. */
const first = ["createRegion"];
const last = ["deleteRegion"];
const rank = ({ id }: Example) => (first.includes(id) ? -1 : last.includes(id) ? 1 : 0);

/** A file is what the person chooses; the region of the examples has this many bytes. */
const file = Buffer.alloc(4096, "holdfast ");

storeTest("every operation's examples succeed, in turn, on an empty server", async (t, f) => {
  const document = (await f.get("/openapi.json")).json as Document;
  const examples = examplesOf(document).sort((a, b) => rank(a) - rank(b));
  for (const example of examples) {
    const { status, text } = await send(f, example);
    t.ok(status >= 200 && status < 300, `${example.id}, ${example.name}: ${status} ${text.slice(0, 300)}`);
  }
  const operations = Object.values(document.paths).flatMap((path) => Object.values(path));
  t.equal(new Set(examples.map(({ id }) => id)).size, operations.length, "no operation is without an example");
});

storeTest("every optional parameter's example is understood", async (t, f) => {
  const document = (await f.get("/openapi.json")).json as Document;
  const create = examplesOf(document).find(({ id }) => id === "createRegion")!;
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      for (const parameter of (operation.parameters ?? []).filter(({ required }) => required !== true)) {
        const { name, schema } = parameter;
        const value = schema.examples?.[0] ?? schema.default;
        t.not(value, undefined, `${operation.operationId}: ${name} has an example or a default`);
        await f.call("DELETE", "/v1/regions/demo");
        if (operation.operationId !== "createRegion") await send(f, create);
        const [example] = examplesOfOperation(document, path, method, operation);
        const { status, text, json } = await send(f, withParameter(example!, parameter, String(value)));
        // Conditions are on a region of a certain age, and a digest is of a certain body: they may be false, and must not
        // be malformed.
        const understood = [200, 201, 204, 206, 304, 412].includes(status) || json?.code === "digest-mismatch";
        t.ok(understood, `${operation.operationId} with ${name}: ${value}: ${status} ${text.slice(0, 300)}`);
      }
    }
  }
});

function examplesOf(document: Document): Example[] {
  return Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, operation]) => examplesOfOperation(document, path, method, operation)),
  );
}

function examplesOfOperation(document: Document, path: string, method: string, operation: Operation): Example[] {
  const { operationId: id, parameters = [], requestBody } = operation;
  const url = path.replace(/\{([^}]+)\}/g, (_, name: string) => {
    const parameter = parameters.find((candidate) => candidate.in === "path" && candidate.name === name);
    return encodeURIComponent(String(parameter?.example));
  });
  const common = { id, method: method.toUpperCase(), url };
  if (requestBody === undefined) return [{ ...common, name: "as it is", headers: {}, body: undefined }];
  return Object.entries(requestBody.content).flatMap(([type, media]) =>
    bodiesOf(document, type, media).map(([name, body]) => ({
      ...common,
      name: `${type} ${name}`,
      headers: { "content-type": type },
      body,
    })),
  );
}

function bodiesOf(document: Document, type: string, { schema, example, examples }: Media): [string, unknown][] {
  if (type === "application/octet-stream") return [["a file", file]];
  if (examples !== undefined) return Object.entries(examples).map(([name, { value }]) => [name, textOf(value)]);
  const component = document.components.schemas[schema.$ref?.split("/").at(-1) ?? ""];
  return [["example", textOf(example ?? component?.examples?.[0])]];
}

const textOf = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

function withParameter(example: Example, parameter: Parameter, value: string): Example {
  if (parameter.in === "header") {
    const headers = { ...example.headers, [parameter.name]: value };
    // A part of the region, and the bytes that it names.
    const body = parameter.name === "content-range" ? file.subarray(0, 5) : example.body;
    // Creation by upload needs a name that is free.
    const creates = example.id === "putContent" && parameter.name === "if-none-match";
    return { ...example, headers, body, url: creates ? example.url.replace("demo", "uploaded") : example.url };
  }
  const mark = example.url.includes("?") ? "&" : "?";
  return { ...example, url: `${example.url}${mark}${parameter.name}=${encodeURIComponent(value)}` };
}

/** As the document has it. The ids of snapshots are the server's: a person takes one from an answer. */
const snapshotExample = "1769860800000000";

async function send(f: Fixture, { method, url, headers, body }: Example): Promise<Answer> {
  if (!url.includes(snapshotExample)) return f.call(method, url, { headers, body });
  const made = await f.call("POST", "/v1/regions/demo/snapshots");
  // A restore needs one of two conditions.
  const isConditional = "if-match" in headers || "region-if-generation" in headers;
  const condition: Record<string, string> = url.includes("/restores") && !isConditional ? { "if-match": "*" } : {};
  const own = url.replace(snapshotExample, made.json.id);
  return f.call(method, own, { headers: { ...headers, ...condition }, body });
}
