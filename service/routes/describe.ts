// describe.ts - pieces of the OpenAPI document that operations share.
import { acceptPatch } from "../byteranges.js";
import { type ProblemCode, problemKinds } from "../errors.js";
import { regionBytesMax } from "../store/frame.js";

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
export const binary = { type: "string", format: "binary", maxLength: regionBytesMax } as const;

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
const everyProblem = ["malformed-request", "header-invalid", "uri-too-long", "headers-too-large"] as const;

/** One answer for each status among the codes. */
export function problems(...codes: ProblemCode[]): Record<number, Answer> {
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of new Set([...codes, ...everyProblem])) {
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

/** What any operation can answer, but those for who runs the service. */
export const openProblems = ["internal", "rate-limited"] as const;
/** What any operation below /v1 can answer. */
export const readProblems = [...openProblems, "unauthenticated", "starting", "standby", "draining"] as const;
export const writeProblems = [...readProblems, "forbidden", "header-invalid"] as const;
export const bodyProblems = [
  "malformed-json",
  "digest-mismatch",
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

const digestExample = "sha-256=:GF+NsyJx/iX1Yab8k4suJkMG7DBO2lGAB9F2SCY4GWk=:";

/** All headers together may have 16 KiB. */
const headerText = { type: "string", maxLength: 16 << 10 } as const;
const headerNumber = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;

export function header(description: string, example: string | number): Schema {
  return { ...(typeof example === "number" ? headerNumber : headerText), description, examples: [example] };
}

const retryAfter = header("Seconds after which a retry may succeed.", 1);

/** Of every answer while RATE_LIMIT is set; components of the document. */
export const rateLimitHeaders = {
  RateLimit: {
    description:
      "Requests that the client has left, and seconds until it has all of them again. Only with a rate limit.",
    schema: { type: "string", maxLength: 256, examples: ['"default";r=50;t=1'] },
  },
  "RateLimit-Policy": {
    description: "Requests that a client has in a window of so many seconds. Only with a rate limit.",
    schema: { type: "string", maxLength: 256, examples: ['"default";q=100;w=1'] },
  },
} as const;

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
export const digestHeaders = {
  "Content-Digest": header("Of the bytes that are sent, if Want-Content-Digest asks for it.", digestExample),
  "Repr-Digest": header("Of the whole region, if Want-Repr-Digest asks for it.", digestExample),
};
export const acceptPatchHeader = { "Accept-Patch": header("Media types of patches.", acceptPatch) };
export const preferenceHeader = {
  "Preference-Applied": header("The preference that was followed.", "transaction=atomic"),
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

const contentDigest = {
  "content-digest": header("Refuse the body unless this is its digest (RFC 9530).", digestExample),
};

const wantDigests = {
  "want-content-digest": header("Send the digest of what is sent: sha-256, sha-512 or crc32c.", "sha-256=1"),
  "want-repr-digest": header("Send the digest of the whole region.", "sha-256=1"),
};

export const requestHeaders = {
  read: { type: "object", properties: { ...ifMatch, ...ifNoneMatch, ...ifGeneration } },
  head: { type: "object", properties: { ...ifMatch, ...ifNoneMatch, ...ifGeneration, ...wantDigests } },
  range: {
    type: "object",
    properties: {
      range: header("Which bytes.", "bytes=0-15"),
      "if-range": header("Ignore Range unless this is the entity tag.", '"7.1.42"'),
      ...ifMatch,
      ...ifNoneMatch,
      ...ifGeneration,
      prefer: header("`handling=strict`: 409 rather than a read that is not of one point in time.", "handling=strict"),
      ...wantDigests,
    },
  },
  events: {
    type: "object",
    properties: {
      "last-event-id": header("Of an event stream: the id of the last event that was read, or its generation.", "41"),
    },
  },
  key: { type: "object", properties: { ...idempotency, ...contentDigest } },
  keyOnly: { type: "object", properties: { ...idempotency } },
  change: {
    type: "object",
    properties: { ...ifMatch, ...ifNoneMatch, ...ifGeneration, ...idempotency, ...contentDigest },
  },
  remove: { type: "object", properties: { ...ifMatch, ...ifNoneMatch, ...ifGeneration, ...idempotency } },
  patch: {
    type: "object",
    properties: {
      ...ifMatch,
      ...ifNoneMatch,
      ...ifGeneration,
      ...idempotency,
      ...contentDigest,
      prefer: header(
        "`transaction=atomic`: all parts land together, as they do anyway. `transaction=persist`: they land as they come.",
        "transaction=atomic",
      ),
    },
  },
  upload: {
    type: "object",
    properties: {
      "content-range": header("Which bytes to replace; without it all of them.", "bytes 0-4/*"),
      ...ifMatch,
      "if-none-match": header("`*`: create the region from the body.", "*"),
      ...ifGeneration,
      ...idempotency,
      ...contentDigest,
    },
  },
} as const;

export const tags = {
  regions: "Regions",
  content: "Content",
  snapshots: "Snapshots",
  batches: "Batches",
  service: "Service",
  operations: "Operations",
} as const;
