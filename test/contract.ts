// contract.ts - holds answers against the service's own OpenAPI document: a status, header or member that the document
// does not know fails the test that met it.
import assert from "node:assert/strict";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import type { FastifyInstance } from "fastify";

export interface Schema {
  [keyword: string]: unknown;
  $ref?: string;
  examples?: unknown[];
  default?: unknown;
}
export interface Parameter {
  name: string;
  in: "path" | "query" | "header";
  required?: boolean;
  example?: unknown;
  schema: Schema;
}
export interface Media {
  schema: Schema;
  example?: unknown;
  examples?: Record<string, { value: unknown }>;
}
interface Response {
  headers?: Record<string, unknown>;
  content?: Record<string, unknown>;
}
export interface Operation {
  operationId: string;
  parameters?: Parameter[];
  requestBody?: { content: Record<string, Media> };
  responses: Record<string, Response>;
}
/** What tests look at in openapi.json. */
export interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

class Contract {
  private readonly ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
  private readonly validators = new Map<string, ValidateFunction>();

  constructor(private readonly document: Document) {
    this.ajv.addSchema(document as object, "openapi");
  }

  check(method: string, url: string, answer: CheckedAnswer): void {
    const path = url.split("?", 1)[0]!;
    const template = Object.keys(this.document.paths)
      // A path without parameters is more than a match of one with them.
      .sort((a, b) => a.split("{").length - b.split("{").length)
      .find((candidate) =>
        new RegExp(`^${candidate.replaceAll(".", "\\.").replace(/\{[^}]+\}/g, "[^/]+")}$`).test(path),
      );
    if (template === undefined) return;
    const operation = this.document.paths[template]?.[method.toLowerCase()];
    if (operation === undefined) return;
    const where = `${method} ${template} -> ${answer.status}`;
    const response = operation.responses[answer.status];
    assert(response !== undefined, `${where} is not in the document: ${answer.text.slice(0, 300)}`);
    for (const header of ownHeaders) {
      const documented = Object.keys(response.headers ?? {}).some((name) => name.toLowerCase() === header);
      assert(answer.headers[header] === undefined || documented, `${where}: header ${header} is not in the document`);
    }
    const type = answer.headers["content-type"]?.split(";", 1)[0];
    if (type === undefined || answer.bytes.length === 0) return;
    assert(response.content?.[type] !== undefined, `${where}: media type ${type} is not in the document`);
    if (answer.json !== undefined) this.body(template, method, answer, type, where);
  }

  private body(template: string, method: string, { status, json }: CheckedAnswer, type: string, where: string): void {
    const pointer = ["paths", template, method.toLowerCase(), "responses", String(status), "content", type, "schema"]
      .map((part) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1")))
      .join("/");
    let validate = this.validators.get(pointer);
    validate ??= this.ajv.compile({ $ref: `openapi#/${pointer}` });
    this.validators.set(pointer, validate);
    assert(validate(json), `${where}: ${JSON.stringify(validate.errors)} in ${JSON.stringify(json).slice(0, 500)}`);
  }
}

interface CheckedAnswer {
  status: number;
  headers: Record<string, string>;
  bytes: Buffer;
  text: string;
  json: unknown;
}

/** Headers that mean something of this API; those that every HTTP server sends need no documentation. */
const ownHeaders = [
  "accept-patch",
  "accept-ranges",
  "allow",
  "content-digest",
  "content-range",
  "etag",
  "idempotency-replayed",
  "location",
  "preference-applied",
  "ratelimit",
  "ratelimit-policy",
  "region-durable-generation",
  "region-generation",
  "region-read",
  "repr-digest",
  "request-id",
  "retry-after",
  "server-timing",
  "www-authenticate",
];

// Every app has the same document, and compiling it is most of a small test's time.
let contract: Contract | undefined;

export async function checkAgainstDocument(app: FastifyInstance, method: string, url: string, answer: CheckedAnswer) {
  contract ??= new Contract((await app.inject("/openapi.json")).json() as Document);
  contract.check(method, url, answer);
}

/** Of a service in a process of its own. */
export async function checkedFetch(origin: string, method: string, url: string, init: RequestInit = {}) {
  contract ??= new Contract((await (await fetch(`${origin}/openapi.json`)).json()) as Document);
  const response = await fetch(`${origin}${url}`, { ...init, method });
  const bytes = Buffer.from(await response.arrayBuffer());
  const headers: Record<string, string> = Object.fromEntries(response.headers);
  const text = bytes.toString();
  const isJson = /^application\/(?:problem\+)?json/.test(headers["content-type"] ?? "");
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of a body is what it asserts about it.
  const json: any = isJson && text !== "" ? JSON.parse(text) : undefined;
  const answer = { status: response.status, headers, bytes, text, json };
  contract.check(method, url, answer);
  return answer;
}
