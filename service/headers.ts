// headers.ts - request headers -> values, and the constant headers of answers. RFC 9110 names what is lenient here: what
// it says to ignore is ignored, everything else that does not parse is a 400.
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { Problem } from "./errors.js";
import type { BatchConditions } from "./store/batch-encoder.js";
import { type EtagCondition, parseEtags } from "./store/etags.js";
import type { RangeSpec, Span } from "./store/ranges.js";

/**
 * On every answer. Each header costs as much as the smallest batch does in the storage core, so there is one: with it, no
 * JSON, text or bytes of this API is ever run, framed or sniffed as a page. The pages of /docs and /ui have more.
 */
export const securityHeaders = { "x-content-type-options": "nosniff" } as const;

/** Kept by nobody: what a GET tells is stale with the next batch. Bytes and regions, which have entity tags, say no-cache. */
export const notKept = { "cache-control": "no-store" } as const;

/** The pages of /docs and /ui run their own scripts and nobody else's. */
export const pageHeaders = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
} as const;

export const jsonType = "application/json; charset=utf-8";
export const problemType = "application/problem+json; charset=utf-8";

/** Where a request went, without its query. */
export function pathOf({ url }: { url: string }): string {
  return url.split("?", 1)[0]!;
}

export function invalid(header: string, should: string): Problem {
  return new Problem("header-invalid", `${header} must be ${should}`);
}

const isHost = (text: string, i: number): boolean => i % 2 === 0 && text.length === 4 && text.toLowerCase() === "host";

/** What HTTP/1.1 itself asks of every request, and Node refuses without a body unless it is told to leave it to us. */
export function refusedByHttp({ httpVersion, headers, rawHeaders }: IncomingMessage): Problem | undefined {
  if (httpVersion !== "1.1") return undefined;
  if (headers.host === undefined) return new Problem("malformed-request", "HTTP/1.1 needs a Host header");
  // Of several, Node passes on the first one; whoever stands in between may go by another (RFC 9112, 3.2).
  if (rawHeaders.filter(isHost).length > 1)
    return new Problem("malformed-request", "there is more than one Host header");
  const { expect } = headers;
  return expect === undefined || expect.toLowerCase() === "100-continue"
    ? undefined
    : invalid("Expect", "100-continue or left out");
}

/** Conditions of a change. Undefined when there are none, which is the common case. */
export function writeConditions(headers: IncomingHttpHeaders): BatchConditions | undefined {
  const match = headers["if-match"];
  const noneMatch = headers["if-none-match"];
  const generation = headers["region-if-generation"];
  if (match === undefined && noneMatch === undefined && generation === undefined) return undefined;
  const ifNoneMatch = noneMatch === undefined ? undefined : etagsOf("If-None-Match", noneMatch, false);
  return {
    ifMatch: match === undefined ? undefined : etagsOf("If-Match", match, true),
    // A list of foreign tags can't match, so it always lets the request through.
    ifNoneMatch: ifNoneMatch !== undefined && ifNoneMatch.length === 0 ? undefined : ifNoneMatch,
    ifGeneration: expectedGeneration(headers),
  };
}

/** Where one entity tag is not enough: several regions have no common one, several batches not the same. */
export function refuseConditions(headers: IncomingHttpHeaders, instead: string): void {
  for (const name of ["if-match", "if-none-match", "region-if-generation"]) {
    if (headers[name] !== undefined) throw invalid(name, `left out: ${instead}`);
  }
}

export function refuseKey(headers: IncomingHttpHeaders, instead: string): void {
  if (headers["idempotency-key"] !== undefined) throw invalid("Idempotency-Key", `left out: ${instead}`);
}

/** A body that is worked on while it arrives can't be refused as a whole at its end. */
export function refuseDigest(headers: IncomingHttpHeaders, instead: string): void {
  if (headers["content-digest"] !== undefined) throw invalid("Content-Digest", `left out: ${instead}`);
}

export function etagsOf(header: string, value: string, strong: boolean): EtagCondition {
  const parsed = parseEtags(value, { strong });
  if (parsed === undefined) throw invalid(header, "* or a list of entity tags in quotes");
  return parsed;
}

/** Region-If-Generation. */
export function expectedGeneration(headers: IncomingHttpHeaders): number | undefined {
  const value = headers["region-if-generation"];
  return value === undefined ? undefined : wholeNumber("Region-If-Generation", String(value));
}

function wholeNumber(header: string, value: string): number {
  const number = /^\d{1,16}$/.test(value.trim()) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw invalid(header, "a whole number from 0 to 2^53 - 1");
  return number;
}

/** The key's text, with or without the quotes of a structured field. */
export function idempotencyKeyText(headers: IncomingHttpHeaders): string | undefined {
  const value = headers["idempotency-key"];
  if (value === undefined) return undefined;
  const text = String(value).trim();
  const quoted = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$/.exec(text);
  const key = quoted === null ? text : quoted[1]!.replace(/\\(["\\])/g, "$1");
  if (key.length === 0 || key.length > 255 || (quoted === null && !/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(text))) {
    throw invalid("Idempotency-Key", "1 to 255 visible ASCII characters, or such a string in quotes");
  }
  return key;
}

/** Whether Accept names this very media type, and not with a weight of 0. */
export function accepts({ accept }: IncomingHttpHeaders, type: string): boolean {
  return (accept ?? "").split(",").some((member) => {
    const [range = "", ...parameters] = member.split(";").map((part) => part.trim().toLowerCase());
    return range === type && !parameters.some((parameter) => /^q=0(?:\.0{0,3})?$/.test(parameter));
  });
}

/**
 * What the reader of an event stream had last, undefined when it had nothing: a generation, and of which region of this name,
 * if it says so.
 */
export function lastEventId(headers: IncomingHttpHeaders): { generation: number; incarnation?: number } | undefined {
  const value = headers["last-event-id"];
  // A reader that was cut off before its first event has an empty one.
  if (value === undefined || value === "") return undefined;
  const [generation = "", incarnation, ...more] = String(value).split(".").reverse();
  if (more.length > 0) throw invalid("Last-Event-ID", "the id of an event, or a generation");
  return {
    generation: wholeNumber("Last-Event-ID", generation),
    ...(incarnation !== undefined && { incarnation: wholeNumber("Last-Event-ID", incarnation) }),
  };
}

/** The value of a preference (RFC 7240) in lower case. Of several the first one counts. */
export function preference(headers: IncomingHttpHeaders, name: string): string | undefined {
  const { prefer } = headers;
  if (prefer === undefined) return undefined;
  for (const one of String(prefer).split(",")) {
    // What follows a semicolon are parameters of the preference.
    const [key, value] = one.split(";", 1)[0]!.split("=", 2);
    if (key!.trim().toLowerCase() === name) return (value ?? "").trim().replaceAll('"', "").toLowerCase();
  }
  return undefined;
}

/** `Prefer: handling=strict`. */
export function prefersStrict(headers: IncomingHttpHeaders): boolean {
  return preference(headers, "handling") === "strict";
}

/**
 * The ranges of a Range header. Undefined: there is none, or one of a unit that is not ours, which is to be ignored.
 * An empty list: it can't be satisfied whatever the size is, because it does not parse.
 */
export function parseRange(value: string | undefined): RangeSpec[] | undefined {
  if (value === undefined) return undefined;
  const unit = /^\s*([^\s=]+)\s*=(.*)$/s.exec(value);
  if (unit === null || unit[1]!.toLowerCase() !== "bytes") return undefined;
  const specs: RangeSpec[] = [];
  for (const part of unit[2]!.split(",")) {
    // Empty members of a list are allowed (RFC 9110, 5.6.1).
    if (part.trim() === "") continue;
    const match = /^\s*(?:(\d{1,16})-(\d{1,16})?|-(\d{1,16}))\s*$/.exec(part);
    if (match === null) return [];
    const first = match[1] === undefined ? undefined : Number(match[1]);
    const end = match[2] ?? match[3];
    const last = end === undefined ? undefined : Number(end);
    if (first !== undefined && last !== undefined && last < first) return [];
    specs.push({ ...(first !== undefined && { first }), ...(last !== undefined && { last }) });
  }
  return specs;
}

/** The range of a partial PUT. `size` is the complete length if the client names one. */
export function parseContentRange(value: string): Span & { size: number | undefined } {
  const match = /^\s*bytes\s+(\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)\s*$/i.exec(value);
  const first = Number(match?.[1]);
  const last = Number(match?.[2]);
  if (match === null || last < first || !Number.isSafeInteger(last))
    throw invalid("Content-Range", "bytes FIRST-LAST/*");
  return { offset: first, length: last - first + 1, size: match[3] === "*" ? undefined : Number(match[3]) };
}
