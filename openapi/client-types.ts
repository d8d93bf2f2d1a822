// client-types.ts - TypeScript types of openapi.json for service/client.ts: each component, and for each operation what it
// is asked with and what it answers. Writes nothing; export.ts does.
import { compile, type JSONSchema } from "json-schema-to-typescript";

interface Parameter {
  name: string;
  in: "path" | "query" | "header";
  required?: boolean;
  description?: string;
  schema: JSONSchema;
}
type Content = Record<string, { schema: JSONSchema }>;
interface Operation {
  operationId: string;
  summary?: string;
  parameters?: Parameter[];
  requestBody?: { required?: boolean; content: Content };
  responses: Record<string, { content?: Content }>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, JSONSchema> };
}

/** The text of a module with the types and, as the only value, a table of the operations. */
export async function clientTypes(openapi: string): Promise<string> {
  // The compiler names what stands below $defs.
  const document = JSON.parse(openapi.replaceAll("#/components/schemas/", "#/$defs/")) as Document;
  const asked: Record<string, JSONSchema> = {};
  const table: string[] = [];
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      asked[operation.operationId] = shapeOf(operation);
      const keyed = operation.parameters?.some(({ name }) => name === "idempotency-key") === true;
      const media = Object.keys(operation.requestBody?.content ?? {})[0];
      const row = { method: method.toUpperCase(), path, mediaType: media, keyed };
      const members = Object.entries(row).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
      table.push(`  ${operation.operationId}: { ${members.join(", ")} },`);
    }
  }
  const root: JSONSchema = {
    title: "Operations",
    description: "What each operation is asked with, and what it answers when it succeeds.",
    ...objectOf(asked, Object.keys(asked)),
    $defs: document.components.schemas,
  };
  const types = await compile(root, "Operations", {
    additionalProperties: false,
    bannerComment: '// Generated from openapi.json by "npm run openapi". Not to be edited.',
    // An array of so many is an array, not a tuple.
    ignoreMinAndMaxItems: true,
    unreachableDefinitions: true,
    style: { printWidth: 120 },
  });
  // The compiler tells of each definition that it is one.
  const brief = types.replaceAll(
    / \*\n \* This interface was referenced by [^\n]*\n \* via the `definition` [^\n]*\n/g,
    "",
  );
  return (
    `${brief}\n/** How each operation is sent; a keyed one takes an Idempotency-Key. */\nexport const operations: Record<\n` +
    "  keyof Operations,\n  { method: string; path: string; mediaType: string | undefined; keyed: boolean }\n> = {\n" +
    `${table.join("\n")}\n};\n`
  );
}

const objectOf = (properties: Record<string, JSONSchema>, required: string[]): JSONSchema => ({
  type: "object",
  additionalProperties: false,
  properties,
  required,
});

function shapeOf({ summary, parameters = [], requestBody, responses }: Operation): JSONSchema {
  const members: Record<string, JSONSchema> = {};
  const required = ["answer"];
  for (const [member, place] of [
    ["path", "path"],
    ["query", "query"],
    ["headers", "header"],
  ] as const) {
    const own = parameters.filter((parameter) => parameter.in === place);
    if (own.length === 0) continue;
    const needed = own.filter((parameter) => parameter.required).map(({ name }) => name);
    members[member] = objectOf(
      Object.fromEntries(own.map(({ name, schema, description }) => [name, { description, ...schema }])),
      needed,
    );
    if (needed.length > 0) required.push(member);
  }
  if (requestBody !== undefined) {
    // The client sends the first kind of body that is documented, and is answered in kind.
    members.body = eitherOf(Object.entries(requestBody.content).slice(0, 1), "Buffer | string");
    if (requestBody.required) required.push("body");
  }
  const answers = Object.entries(responses).filter(([status]) => status.startsWith("2"));
  members.answer = {
    anyOf: answers.map(([, { content }]) => {
      if (content === undefined) return { tsType: "undefined" };
      // A stream has no end to wait for.
      const kinds = Object.entries(content).filter(([type]) => type !== "text/event-stream");
      return eitherOf(requestBody === undefined ? kinds : kinds.slice(0, 1), "Buffer");
    }),
  };
  return { ...objectOf(members, required), ...(summary === undefined ? {} : { description: summary }) };
}

function eitherOf(contents: [string, { schema: JSONSchema }][], binary: string): JSONSchema {
  const seen = new Map<string, JSONSchema>();
  for (const [, { schema }] of contents) {
    const own: JSONSchema = schema.format === "binary" ? { tsType: binary } : schema;
    seen.set(JSON.stringify(own), own);
  }
  const all = [...seen.values()];
  return all.length === 1 ? all[0]! : { anyOf: all };
}
