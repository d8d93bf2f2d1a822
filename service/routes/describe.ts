// describe.ts - pieces of the OpenAPI document that operations share.
import { type ProblemCode, problemKinds } from "../errors.js";

type Schema = Readonly<Record<string, unknown>>;

/** A component by its $id. */
export const ref = (id: string) => ({ $ref: `${id}#` });

interface Answer {
  description: string;
  headers?: Schema;
  content?: Record<string, { schema: Schema; example?: unknown; examples?: Schema }>;
  /** How @fastify/swagger is told that there is no content. */
  type?: "null";
}

export function json(description: string, id: string, headers: Schema = {}, example?: unknown): Answer {
  return {
    description,
    headers: { ...everyHeader, ...headers },
    content: { "application/json": { schema: ref(id), ...(example !== undefined && { example }) } },
  };
}

/** Bytes as they are. No region is longer. */
export const binary = { type: "string", format: "binary", maxLength: 2 ** 40 } as const;

/** Without an end until one side ends it: the limit only says that none was forgotten. */
export const endless = { type: "string", maxLength: Number.MAX_SAFE_INTEGER } as const;

export function bytes(
  description: string,
  headers: Schema,
  types: readonly string[] = ["application/octet-stream"],
): Answer {
  const content = Object.fromEntries(types.map((type) => [type, { schema: binary }]));
  return { description, headers: { ...everyHeader, ...headers }, content };
}

export function text(description: string, type: string, example: string, headers: Schema = {}): Answer {
  return {
    description,
    headers: { ...everyHeader, ...headers },
    content: { [type]: { schema: { type: "string", maxLength: 1 << 24 }, example } },
  };
}

export function empty(description: string, headers: Schema = {}): Answer {
  return { description, headers: { ...everyHeader, ...headers }, type: "null" };
}

/** What any request can meet before it reaches its route. */
const everyProblem = ["malformed-request", "uri-too-long", "headers-too-large"] as const;

/** One answer for each status among the codes. */
export function problems(...codes: ProblemCode[]): Record<number, Answer> {
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of [...codes, ...everyProblem]) {
    const { status } = problemKinds[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return Object.fromEntries(
    [...byStatus].map(([status, group]) => [
      status,
      {
        description: group.map((code) => `\`${code}\`: ${problemKinds[code].title}.`).join(" "),
        headers: {
          ...everyHeader,
          ...(status === 503 || status === 409 || status === 429 ? { "Retry-After": retryAfter } : {}),
          ...(status === 401 ? { "WWW-Authenticate": header("How to authenticate.", 'Bearer realm="holdfast"') } : {}),
          ...(status === 405 ? { Allow: header("Methods that are allowed.", "GET, HEAD") } : {}),
          ...(status === 416 ? { "Content-Range": header("The region's size.", "bytes */4096") } : {}),
        },
        content: { "application/problem+json": { schema: ref("Problem"), example: exampleOf(group[0]!) } },
      },
    ]),
  );
}

function exampleOf(code: ProblemCode): unknown {
  const { status, title, about, retryable } = problemKinds[code];
  return {
    type: `/problems/${code}`,
    title,
    status,
    detail: about,
    instance: "/v1/regions/demo",
    code,
    requestId: "k3v9-1z",
    retryable,
    committed: false,
    failures: [],
  };
}

/** What any operation below /v1 can answer. */
export const readProblems = ["unauthenticated", "internal", "starting", "standby", "draining"] as const;
export const writeProblems = [...readProblems, "forbidden", "header-invalid"] as const;
export const bodyProblems = [
  "malformed-json",
  "request-timeout",
  "body-too-large",
  "unsupported-media-type",
  "validation-failed",
] as const;
export const keyProblems = ["idempotency-in-progress", "idempotency-key-reused"] as const;
export const conditionProblems = ["etag-mismatch", "generation-mismatch"] as const;
/** What a change of bytes can meet. */
export const commitProblems = [
  "region-not-found",
  "region-read-only",
  "batch-too-large",
  "overloaded",
  "region-faulted",
  "flush-failed",
  "insufficient-storage",
] as const;

/** All headers together may have 16 KiB. */
const headerText = { type: "string", maxLength: 16 << 10 } as const;
const headerNumber = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;

export function header(description: string, example: string | number): Schema {
  return { ...(typeof example === "number" ? headerNumber : headerText), description, examples: [example] };
}

const retryAfter = header("Seconds after which a retry may succeed.", 1);

const everyHeader = {
  "Request-Id": header("Names the request in problems and in the log.", "k3v9-1z"),
};

const etagHeader = { ETag: header("The region's entity tag.", '"7.1.42"') };
export const regionHeaders = {
  ...etagHeader,
  "Region-Generation": header("Batches that the region has taken.", 42),
  "Region-Durable-Generation": header("The last one that survives a power cut.", 42),
};
export const replayHeader = {
  "Idempotency-Replayed": header("`?1` when this is the answer to an earlier request with the same key.", "?1"),
};
export const timingHeader = {
  "Server-Timing": header(
    "How long the store took, in milliseconds, when it had to wait for a disk or another thread.",
    "store;dur=0.012",
  ),
};
export const locationHeader = { Location: header("Path of what was created.", "/v1/regions/demo") };
export const contentHeaders = {
  ...regionHeaders,
  "Accept-Ranges": header("Ranges of bytes can be asked for.", "bytes"),
  "Region-Read": header("`chunked`: too long to be read at one point in time; the entity tag is then weak.", "chunked"),
};
export const contentRangeHeader = { "Content-Range": header("Which bytes of how many.", "bytes 0-15/4096") };

// ---- request headers -----------------------------------------------------------------------------------------------

const ifMatch = { "if-match": header("Only if the region's entity tag is one of these.", "*") };
const ifNoneMatch = { "if-none-match": header("Only if the region's entity tag is none of these.", '"7.1.41"') };
const ifGeneration = {
  "region-if-generation": header("Only if the region is at this generation.", 41),
};
const idempotency = {
  "idempotency-key": header("Makes a retry exact: the same key and request get the first one's answer.", "9b2f7c1e"),
};

export const requestHeaders = {
  read: { type: "object", properties: { ...ifMatch, ...ifNoneMatch } },
  range: {
    type: "object",
    properties: {
      range: header("Which bytes.", "bytes=0-15"),
      "if-range": header("Ignore Range unless this is the entity tag.", '"7.1.42"'),
      ...ifMatch,
      ...ifNoneMatch,
      prefer: header("`handling=strict`: 409 rather than a read that is not of one point in time.", "handling=strict"),
    },
  },
  events: {
    type: "object",
    properties: {
      "last-event-id": header("Of an event stream: the last generation that was read.", 41),
    },
  },
  key: { type: "object", properties: idempotency },
  change: { type: "object", properties: { ...ifMatch, ...ifNoneMatch, ...ifGeneration, ...idempotency } },
  upload: {
    type: "object",
    properties: {
      "content-range": header("Which bytes to replace; without it all of them.", "bytes 0-4/*"),
      ...ifMatch,
      "if-none-match": header("`*`: create the region from the body.", "*"),
      ...ifGeneration,
      ...idempotency,
    },
  },
} as const;

export const tags = {
  regions: "Regions",
  content: "Content",
  batches: "Batches",
  service: "Service",
  operations: "Operations",
} as const;
