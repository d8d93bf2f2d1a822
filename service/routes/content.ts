// content.ts - /v1/regions/{region}/content: plain bytes by the rules of RFC 9110, out and in.
//
//   GET   If-Match -> 412, If-None-Match -> 304, If-Range and Range -> 206 or 416; what is decided on the region's tag is
//         decided again on the tag of the bytes that were read, if a batch came between
//   PUT   If-None-Match: * streams into a new region; anything else is one batch of one write
//
// PATCH is in byterange-patch.ts.
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { readBody } from "../body.js";
import { acceptPatch } from "../byteranges.js";
import { contentDigestCheck, digestField, digestOf, wantedDigest } from "../digests.js";
import { Problem } from "../errors.js";
import {
  expectedGeneration,
  jsonType,
  parseContentRange,
  parseRange,
  prefersStrict,
  writeConditions,
} from "../headers.js";
import { type ContentQuery, contentQuery, regionParams, type UploadQuery, uploadQuery } from "../schemas.js";
import type { BatchOutcome, Wait } from "../store/batches.js";
import { type Etag, formatEtag } from "../store/etags.js";
import { mergeSpans, type RangeSpec, resolveRange, type Span } from "../store/ranges.js";
import { type Durability, describeRegion } from "../store/regions.js";
import { snapshotTag } from "../store/snapshots.js";
import { type Maybe, type ReadResult, type Store, StoreError } from "../store/store.js";
import { exceptBodies } from "../validation.js";
import { lengthMismatch, notSatisfiable, writeProblem } from "./content-problems.js";
import {
  checkConditions,
  infoOf,
  isUnchanged,
  keyOf,
  notFound,
  type RouteContext,
  regionOf,
  setRegionHeaders,
  setReplayed,
  setServerTiming,
  snapshotOf,
} from "./context.js";
import {
  acceptPatchHeader,
  binary,
  bytes,
  commitProblems,
  conditionProblems,
  contentHeaders,
  contentRangeHeader,
  digestHeaders,
  empty,
  header,
  json,
  keyProblems,
  locationHeader,
  openProblems,
  problems,
  readProblems,
  regionHeaders,
  replayHeader,
  requestHeaders,
  tags,
  timingHeader,
  writeProblems,
} from "./describe.js";

const contentType = "application/octet-stream";
const allowed = "GET, HEAD, PUT, PATCH, OPTIONS";
/** A long read goes out in pieces of this: big enough to cost nothing, small enough to hold little memory. */
const chunkBytes = 1 << 20;
/** A region that changes at every attempt of a conditional read is answered as it was found. */
const attemptsMax = 8;

interface ContentRoute {
  Querystring: ContentQuery;
}

type Known = Etag & { size: number; durableGeneration: number };

/** What bytes are read from: a region as it is, or a snapshot of it. */
interface Source {
  /** Of a file that they are saved as. */
  readonly name: string;
  /** They never change: a read of any length is of one point in time. */
  readonly fixed: boolean;
  known(): Known;
  read(offset: number, length: number, response?: ServerResponse): Maybe<ReadResult>;
  /** All of one generation. */
  readAll(spans: readonly Span[]): Promise<{ tag: Known; parts: Buffer[] }>;
}

const headProblems = [
  ...readProblems,
  "header-invalid",
  "query-param-invalid",
  "region-not-found",
  "snapshot-not-found",
  ...conditionProblems,
] as const;

export function contentRoutes(app: FastifyInstance, context: RouteContext): void {
  const { limits, readBuffers } = context;
  const url = "/v1/regions/:region/content";

  app.route<ContentRoute>({
    method: "HEAD",
    url,
    config: { access: "read", swagger: { exposeHeadRoute: true } },
    schema: {
      operationId: "headContent",
      summary: "Size of a region's bytes",
      description: "The headers of a GET without ranges, digests among them.",
      tags: [tags.content],
      params: regionParams,
      querystring: contentQuery,
      headers: requestHeaders.head,
      response: {
        200: empty("The region's size is Content-Length.", { ...contentHeaders, ...digestHeaders, ...timingHeader }),
        304: empty("They have not changed.", contentHeaders),
        ...problems(...headProblems),
      },
    },
    handler: (request, reply) => {
      const source = sourceOf(request, regionOf(request));
      const info = source.known();
      const { content, repr } = wantedDigests(request.headers);
      // Digests take the bytes, which Node leaves out of the answer.
      if ((content ?? repr) !== undefined && info.size <= limits.readBytesMax) {
        return answerRead(request, reply, source);
      }
      const unchanged = isUnchanged(request.headers, info);
      setContentHeaders(reply, request, source.name);
      setRegionHeaders(reply, info);
      if (unchanged) {
        reply.code(304).send();
        return undefined;
      }
      if (info.size > limits.readBytesMax && !source.fixed) setChunked(reply, info);
      reply.header("content-type", contentType).header("content-length", info.size).send();
      return undefined;
    },
  });

  app.route<ContentRoute>({
    method: "GET",
    url,
    config: { access: "read" },
    schema: {
      operationId: "getContent",
      summary: "Read a region's bytes",
      description:
        "All of them, or ranges. Up to `readBytesMax` of GET /v1/limits they are of one point in time; more is streamed, marked `Region-Read: chunked`, and has a weak entity tag and no digest. With `snapshot` they are those of a snapshot, which never change, whatever their length.",
      tags: [tags.content],
      params: regionParams,
      querystring: contentQuery,
      headers: requestHeaders.range,
      response: {
        200: bytes("The bytes.", { ...contentHeaders, ...digestHeaders, ...timingHeader }),
        206: bytes(
          "The ranges that were asked for.",
          { ...contentHeaders, ...contentRangeHeader, ...digestHeaders, ...timingHeader },
          [contentType, "multipart/byteranges"],
        ),
        304: empty("They have not changed.", contentHeaders),
        ...problems(...headProblems, "range-not-satisfiable", "read-not-atomic", "region-faulted"),
      },
    },
    handler: (request, reply) => {
      const name = regionOf(request);
      const store = context.store();
      const span = plainRange(request.headers, limits.readBytesMax);
      if (span === undefined || request.query.snapshot !== undefined)
        return answerRead(request, reply, sourceOf(request, name));
      // The common case takes one call into the core. It can't know the region's size: a range that has to be cut comes
      // back as out of bounds and is taken the long way.
      try {
        const read = readBuffers.read(store, name, span.offset, span.length, reply.raw);
        if (read instanceof Promise) {
          const since = performance.now();
          return read.then(
            (done) => {
              setServerTiming(reply, since);
              answerRange(request, reply, name, span, done);
            },
            (error) => {
              if (isOutOfBounds(error)) return answerRead(request, reply, sourceOf(request, name));
              throw error;
            },
          );
        }
        answerRange(request, reply, name, span, read);
      } catch (error) {
        if (isOutOfBounds(error)) return answerRead(request, reply, sourceOf(request, name));
        throw error;
      }
      return undefined;
    },
  });

  app.route({
    method: "OPTIONS",
    url,
    config: { access: "open" },
    schema: {
      operationId: "contentOptions",
      summary: "What can be done with bytes",
      description: "Methods, range units and media types of patches.",
      tags: [tags.content],
      params: regionParams,
      response: {
        204: empty("See the headers.", {
          Allow: header("Methods.", allowed),
          "Accept-Ranges": header("Units of ranges.", "bytes"),
          ...acceptPatchHeader,
        }),
        ...problems(...openProblems),
      },
    },
    handler: (_request, reply) => {
      reply
        .code(204)
        .header("allow", allowed)
        .header("accept-ranges", "bytes")
        .header("accept-patch", acceptPatch)
        .send();
    },
  });

  // PUT has parsers of its own: whatever the media type, the body is bytes.
  app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (request, payload, done) => {
      if (createsRegion(request.headers)) done(null, payload);
      else readBody(payload, request.headers, limits.batchBytesMax, done);
    });

    scope.route<{ Querystring: UploadQuery }>({
      method: "PUT",
      url,
      config: { access: "write" },
      schema: {
        operationId: "putContent",
        summary: "Write a region's bytes",
        description:
          "Without Content-Range the whole of them, with it a part; either is one batch. With `If-None-Match: *` the region is created from the body, which may be as long as a region may be; it exists when the last byte has arrived, or not at all.",
        tags: [tags.content],
        params: regionParams,
        querystring: uploadQuery,
        headers: requestHeaders.upload,
        body: { content: { [contentType]: { schema: binary } } },
        response: {
          201: json("The region was created.", "Region", { ...regionHeaders, ...locationHeader, ...replayHeader }),
          204: empty("The bytes were written.", { ...regionHeaders, ...replayHeader, ...timingHeader }),
          ...problems(
            ...writeProblems,
            ...keyProblems,
            ...conditionProblems,
            ...commitProblems,
            "digest-mismatch",
            "query-param-invalid",
            "request-timeout",
            "body-too-large",
            "range-not-satisfiable",
            "length-mismatch",
            "validation-failed",
          ),
        },
      },
      // A body of type string would be refused when it arrives as bytes.
      validatorCompiler: exceptBodies(app),
      handler: (request, reply) => {
        if (createsRegion(request.headers)) return upload(request, reply);
        return write(request, reply);
      },
    });
  });

  /** @throws Problem region-not-found, snapshot-not-found */
  function sourceOf(request: FastifyRequest<ContentRoute>, name: string): Source {
    const store = context.store();
    const { snapshot: id } = request.query;
    if (id === undefined) {
      return {
        name,
        fixed: false,
        known: () => infoOf(store, name),
        read: (offset, length, response) =>
          response === undefined
            ? store.read(name, offset, length)
            : readBuffers.read(store, name, offset, length, response),
        // One batch of reads, so that all parts are of one generation.
        readAll: (spans) => context.batches.read(store, name, spans),
      };
    }
    const snapshot = snapshotOf(store, name, id);
    const tag = snapshotTag(snapshot);
    const bytesOf = ({ offset, length }: Span) => store.readSnapshot(name, snapshot.id, offset, length);
    return {
      name: `${name}-${id}`,
      fixed: true,
      known: () => tag,
      read: async (offset, length) => ({ ...tag, bytes: await bytesOf({ offset, length }) }),
      readAll: async (spans) => ({ tag, parts: await Promise.all(spans.map(bytesOf)) }),
    };
  }

  async function answerRead(
    request: FastifyRequest<ContentRoute>,
    reply: FastifyReply,
    source: Source,
  ): Promise<FastifyReply | undefined> {
    const { headers } = request;
    // Ranges are defined for GET alone.
    const asked = request.method === "HEAD" ? undefined : parseRange(headers.range);
    const wanted = wantedDigests(headers);
    const conditional = isConditional(headers);
    const since = performance.now();
    let known = source.known();
    for (let attempt = 1; ; attempt++) {
      if (isUnchanged(headers, known)) {
        setContentHeaders(reply, request, source.name);
        setRegionHeaders(reply, known);
        reply.code(304).send();
        return undefined;
      }
      const specs = rangesApply(headers, known) ? asked : undefined;
      const spans = specs === undefined ? [{ offset: 0, length: known.size }] : satisfiable(specs, known.size);
      const total = spans.reduce((sum, { length }) => sum + length, 0);
      if (total > limits.readBytesMax) {
        if (prefersStrict(headers) && !source.fixed) throw notAtomic(total);
        return answerChunked(request, reply, source, spans, specs !== undefined, known);
      }
      const whole = wanted.repr !== undefined && known.size <= limits.readBytesMax;
      const read = await readSpans(reply, source, whole ? [{ offset: 0, length: known.size }] : spans);
      // Older than what was looked at is fine: a batch that is not durable yet left these bytes alone.
      const newer =
        read.generation > known.generation ||
        read.metaGeneration !== known.metaGeneration ||
        read.incarnation !== known.incarnation;
      const changed = read.size !== known.size || (newer && conditional);
      if (!changed || attempt === attemptsMax) {
        setContentHeaders(reply, request, source.name);
        setRegionHeaders(reply, read);
        setServerTiming(reply, since);
        const representation = whole ? read.parts[0] : undefined;
        const parts = representation === undefined ? read.parts : spans.map((span) => slice(representation, span));
        const body = bodyOf(reply, spans, parts, specs !== undefined, known.size);
        if (wanted.content !== undefined) {
          reply.header("content-digest", digestField(wanted.content, await digestOf(wanted.content, body)));
        }
        // Otherwise it was resized meanwhile, and that is not all of it.
        if (wanted.repr !== undefined && representation?.length === read.size) {
          reply.header("repr-digest", digestField(wanted.repr, await digestOf(wanted.repr, representation)));
        }
        reply.send(body);
        return undefined;
      }
      known = read;
    }
  }

  async function readSpans(reply: FastifyReply, source: Source, spans: readonly Span[]) {
    if (spans.length === 1) {
      const [{ offset, length }] = spans as [Span];
      const read = await source.read(offset, length, reply.raw);
      return { ...read, parts: [read.bytes] };
    }
    const { tag, parts } = await source.readAll(spans);
    return { ...tag, parts };
  }

  function answerChunked(
    request: FastifyRequest<ContentRoute>,
    reply: FastifyReply,
    source: Source,
    spans: readonly Span[],
    partial: boolean,
    known: Known,
  ): FastifyReply {
    setContentHeaders(reply, request, source.name);
    setRegionHeaders(reply, known);
    if (!source.fixed) setChunked(reply, known);
    const { pieces, length } = setParts(reply, spans, partial, known.size);
    reply.header("content-length", length);
    const chunk = Math.min(chunkBytes, limits.readBytesMax);
    // Returned, so that Fastify waits for a stream that goes on after the handler.
    return reply.send(Readable.from(readPieces(source, pieces, chunk), { objectMode: false, highWaterMark: chunk }));
  }

  /** The ranges as spans of a region of `size` bytes. @throws Problem range-not-satisfiable */
  function satisfiable(specs: readonly RangeSpec[], size: number): Span[] {
    const spans = mergeSpans(specs.flatMap((spec) => resolveRange(spec, size) ?? []));
    if (spans.length === 0) throw notSatisfiable("no range is in the region", size);
    if (spans.length > limits.rangesMax) throw notSatisfiable(`more than ${limits.rangesMax} ranges`, size);
    return spans;
  }

  async function write(request: FastifyRequest<{ Querystring: UploadQuery }>, reply: FastifyReply): Promise<void> {
    const name = regionOf(request);
    const store = context.store();
    const body = (request.body as Buffer | undefined) ?? Buffer.alloc(0);
    const { headers } = request;
    const conditions = writeConditions(headers);
    const key = keyOf(request, () => [String(headers["content-range"] ?? ""), body]);
    const wait: Wait = request.query.durability ?? "region";
    const since = performance.now();
    const range = headers["content-range"];
    let outcome: BatchOutcome | undefined;
    let offset = 0;
    try {
      offset =
        range === undefined
          ? wholeOffset(store, name, body.length, request)
          : partOffset(store, name, range, body.length, request);
    } catch (error) {
      // A retry is answered as the first one was, whatever has become of the region since.
      outcome = key && (await context.batches.earlier(store, name, key));
      if (outcome === undefined) throw error;
    }
    try {
      outcome ??= await context.batchesOf(request).write(store, name, [{ offset, bytes: body }], wait, conditions, key);
    } catch (error) {
      throw writeProblem(error, () => infoOf(store, name).size, false);
    }
    setRegionHeaders(reply, outcome.tags[0]!);
    setReplayed(reply, outcome.replayed);
    setServerTiming(reply, since);
    reply.code(204).send();
  }

  async function upload(request: FastifyRequest<{ Querystring: UploadQuery }>, reply: FastifyReply): Promise<void> {
    const name = regionOf(request);
    const { headers } = request;
    const durability: Durability = request.query.durability ?? "durable";
    // Its bytes are not here yet: of a body that its client has hashed, the hash stands for them.
    const key = keyOf(request, () => [headers["content-length"] ?? "", String(headers["content-digest"] ?? "")]);
    // What does not exist yet has no ETag and no generation.
    if (headers["if-match"] !== undefined) throw new Problem("etag-mismatch");
    if (expectedGeneration(headers) !== undefined) throw new Problem("generation-mismatch");
    checkLength(Number(headers["content-length"] ?? 0));
    const digest = contentDigestCheck(headers);
    const body = request.body as Readable | undefined;
    const ready = await context.store().upload({ name, durability, labels: "{}", ifNoneMatch: "*", ...key });
    let length = 0;
    try {
      // A refusal must not take the connection with it: it is the answer.
      for await (const chunk of body?.iterator({ destroyOnReturn: false }) ?? []) {
        length += (chunk as Buffer).length;
        checkLength(length);
        digest?.update(chunk as Buffer);
        await ready.write(chunk as Buffer);
      }
      digest?.verify();
    } catch (error) {
      await ready.abort();
      throw error;
    }
    const { info, replayed } = await ready.commit();
    if (info === null) throw notFound(name);
    setRegionHeaders(reply, info);
    setReplayed(reply, replayed);
    reply.code(201).header("location", `/v1/regions/${name}`).header("content-type", jsonType);
    reply.send(JSON.stringify(describeRegion(info)));
  }

  function checkLength(length: number): void {
    if (length <= limits.regionBytesMax) return;
    const failures = [{ code: "body-too-large", limit: limits.regionBytesMax, actual: length }];
    throw new Problem("body-too-large", "the body is longer than a region may be", { failures });
  }
}

/** A single range with both ends and no condition, short enough to be read at once: what nearly every client sends. */
function plainRange(headers: IncomingHttpHeaders, bytesMax: number): Span | undefined {
  const { range } = headers;
  if (range === undefined || isConditional(headers)) return undefined;
  if (headers["want-content-digest"] !== undefined || headers["want-repr-digest"] !== undefined) return undefined;
  const match = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(range);
  if (match === null) return undefined;
  const offset = Number(match[1]);
  const length = Number(match[2]) - offset + 1;
  return length < 1 || length > bytesMax ? undefined : { offset, length };
}

function isConditional(headers: IncomingHttpHeaders): boolean {
  return (
    headers["if-match"] !== undefined ||
    headers["if-none-match"] !== undefined ||
    headers["if-range"] !== undefined ||
    headers["region-if-generation"] !== undefined
  );
}

function answerRange(
  request: FastifyRequest<ContentRoute>,
  reply: FastifyReply,
  name: string,
  { offset, length }: Span,
  read: ReadResult,
): void {
  setContentHeaders(reply, request, name);
  setRegionHeaders(reply, read);
  reply.code(206);
  reply.header("content-type", contentType);
  reply.header("content-range", `bytes ${offset}-${offset + length - 1}/${read.size}`);
  reply.send(read.bytes);
}

function isOutOfBounds(error: unknown): boolean {
  return error instanceof StoreError && error.code === "out_of_bounds";
}

function createsRegion(headers: IncomingHttpHeaders): boolean {
  return headers["if-none-match"]?.trim() === "*" && headers["content-range"] === undefined;
}

/** If-Range: ranges only count while the entity tag is still this one, compared strongly. */
function rangesApply(headers: IncomingHttpHeaders, current: Etag): boolean {
  const value = headers["if-range"];
  return value === undefined || String(value).trim() === formatEtag(current);
}

function setContentHeaders(reply: FastifyReply, request: FastifyRequest<ContentRoute>, name: string): void {
  reply.header("accept-ranges", "bytes");
  // May be kept, but never used without asking: the next batch makes it stale.
  reply.header("cache-control", "no-cache");
  if (request.query.download !== undefined) reply.header("content-disposition", `attachment; filename="${name}.bin"`);
}

/** Batches may land while it is sent, so its bytes may be of several generations: its tag must not match strongly. */
function setChunked(reply: FastifyReply, known: Etag): void {
  reply.header("region-read", "chunked");
  reply.header("etag", `W/${formatEtag(known)}`);
}

interface Piece extends Span {
  /** What separates it from the part before. */
  head: string;
}

/** Sets status, type and Content-Range, and says what the body is made of. */
function setParts(
  reply: FastifyReply,
  spans: readonly Span[],
  partial: boolean,
  size: number,
): { pieces: Piece[]; length: number } {
  const rangeOf = ({ offset, length }: Span) => `bytes ${offset}-${offset + length - 1}/${size}`;
  const bodyLength = spans.reduce((sum, { length }) => sum + length, 0);
  if (partial) reply.code(206);
  if (spans.length === 1) {
    reply.header("content-type", contentType);
    if (partial) reply.header("content-range", rangeOf(spans[0]!));
    return { pieces: [{ ...spans[0]!, head: "" }], length: bodyLength };
  }
  const boundary = `holdfast-${Math.random().toString(36).slice(2)}${Math.random().toString(36).slice(2)}`;
  reply.header("content-type", `multipart/byteranges; boundary=${boundary}`);
  const pieces = spans.map((span, index) => ({
    ...span,
    head: `${index === 0 ? "" : "\r\n"}--${boundary}\r\nContent-Type: ${contentType}\r\nContent-Range: ${rangeOf(span)}\r\n\r\n`,
  }));
  pieces.push({ offset: 0, length: 0, head: `\r\n--${boundary}--\r\n` });
  return { pieces, length: pieces.reduce((sum, { head }) => sum + head.length, bodyLength) };
}

/** Likewise, and puts the body together. */
function bodyOf(reply: FastifyReply, spans: readonly Span[], parts: Buffer[], partial: boolean, size: number): Buffer {
  const { pieces } = setParts(reply, spans, partial, size);
  const [only] = parts;
  if (pieces.length === 1 && only !== undefined) return only;
  return Buffer.concat(pieces.flatMap(({ head }, index) => [Buffer.from(head), parts[index] ?? Buffer.alloc(0)]));
}

const slice = (bytes: Buffer, { offset, length }: Span): Buffer => bytes.subarray(offset, offset + length);

/** Algorithms of the digests that a reader wants: of what is sent, and of the whole region. */
function wantedDigests(headers: IncomingHttpHeaders) {
  return {
    content: wantedDigest("Want-Content-Digest", headers["want-content-digest"]),
    repr: wantedDigest("Want-Repr-Digest", headers["want-repr-digest"]),
  };
}

async function* readPieces(source: Source, pieces: readonly Piece[], chunk: number) {
  for (const { head, offset, length } of pieces) {
    if (head !== "") yield Buffer.from(head);
    for (let done = 0; done < length; done += chunk) {
      const { bytes: part } = await source.read(offset + done, Math.min(chunk, length - done));
      yield part;
    }
  }
}

function wholeOffset(store: Store, name: string, length: number, request: FastifyRequest): number {
  const info = store.info(name);
  if (info === undefined) {
    throw new Problem("region-not-found", `no region of the name ${JSON.stringify(name)}; If-None-Match: * creates it`);
  }
  if (length === info.size) return 0;
  checkConditions(request, info);
  throw lengthMismatch("the region", info.size, length);
}

function partOffset(store: Store, name: string, range: string, length: number, request: FastifyRequest): number {
  const { offset, length: announced, size } = parseContentRange(range);
  if (announced !== length) throw lengthMismatch("Content-Range", announced, length);
  if (size === undefined) return offset;
  const info = infoOf(store, name);
  if (size === info.size) return offset;
  checkConditions(request, info);
  throw lengthMismatch("the region", info.size, size);
}

function notAtomic(length: number): Problem {
  return new Problem("read-not-atomic", `${length} bytes are too many to be read at one point in time`);
}
