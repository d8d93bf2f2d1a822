// byterange-patch.ts - PATCH /v1/regions/{region}/content: byte-range patches, by draft-ietf-httpapi-patch-byterange-03
// ("Byte Range PATCH"). What a body means is byteranges.ts; here is what becomes of it.
//
//   together    the default: every part is a write of one batch. A part that is a new size (`bytes */N`) is a change of the
//               region and not of its bytes, so it has to come alone
//   as it comes `Prefer: transaction=persist`: batch after batch while the body arrives, whatever its length. What has
//               landed stays when the rest is refused or never comes. If-Match then holds from each batch to the next
//
// The store keeps one outcome a key, and a digest is known when the last byte is: a request with an Idempotency-Key or a
// Content-Digest lands together whatever it prefers, and Preference-Applied says so by not being there.
import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { readBody } from "../body.js";
import { type PatchEvent, PatchReader, patchTypeOf, unsupported } from "../byteranges.js";
import { Problem, toProblem } from "../errors.js";
import { preference, writeConditions } from "../headers.js";
import { type PatchQuery, patchQuery, regionParams } from "../schemas.js";
import type { BatchConditions, IdempotencyKey, PlainWrite } from "../store/batch-encoder.js";
import type { Wait } from "../store/batches.js";
import { type Etag, formatEtag } from "../store/etags.js";
import type { Failure } from "../store/failure.js";
import type { Conditions, RegionInfo } from "../store/regions.js";
import type { Store } from "../store/store.js";
import { exceptBodies } from "../validation.js";
import { notSatisfiable, writeProblem } from "./content-problems.js";
import {
  changeConditions,
  checkConditions,
  infoOf,
  keyOf,
  notFound,
  type RouteContext,
  regionOf,
  setRegionHeaders,
  setReplayed,
  setServerTiming,
} from "./context.js";
import {
  acceptPatchHeader,
  commitProblems,
  conditionProblems,
  empty,
  endless,
  keyProblems,
  preferenceHeader,
  problems,
  regionHeaders,
  replayHeader,
  requestHeaders,
  tags,
  timingHeader,
  writeProblems,
} from "./describe.js";

interface PatchRoute {
  Querystring: PatchQuery;
}
type Tag = Etag & { durableGeneration: number };
interface Landed {
  tag: Tag;
  replayed: boolean;
}
type Begin = Extract<PatchEvent, { kind: "write" | "resize" }>;

/** The event loop's other work waits for no longer than this while a body is read. */
const readMsMax = 5;

/** What lands as it comes is one batch for each of these: few syncs, and little to send again. */
const chunkBytesMax = 1 << 20;

const messageExample = "Content-Range: bytes 0-4/*\r\n\r\nHello";
const multipartExample =
  "--THIS_STRING_SEPARATES\r\nContent-Range: bytes 0-4/*\r\n\r\nHello\r\n--THIS_STRING_SEPARATES\r\nContent-Range: bytes 64-68/*\r\n\r\nWorld\r\n--THIS_STRING_SEPARATES--\r\n";
/** 8: its length is known; 28 bytes of fields, which are a name and a value of 13 bytes each; 5 bytes of content. */
const binaryExample = "\b\x1c\rcontent-range\rbytes 64-68/*\x05World";

const patchProblems = problems(
  ...writeProblems,
  ...keyProblems,
  ...conditionProblems,
  ...commitProblems,
  "malformed-byterange",
  "digest-mismatch",
  "query-param-invalid",
  "request-timeout",
  "body-too-large",
  "unsupported-media-type",
  "range-not-satisfiable",
  "byterange-missing",
  "length-mismatch",
  "validation-failed",
  "too-many-ops",
  "precondition-required",
);

export function byteRangePatchRoutes(app: FastifyInstance, context: RouteContext): void {
  const { limits } = context;

  app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (request, payload, done) => {
      const type = request.headers["content-type"];
      // Refused before it is read.
      if (patchTypeOf(type) === undefined) done(unsupported(type));
      else if (landsAsItComes(request.headers)) done(null, payload);
      else readBody(payload, request.headers, context.patchBodyBytesMax, done);
    });

    scope.route<PatchRoute>({
      method: "PATCH",
      url: "/v1/regions/:region/content",
      config: { access: "write" },
      schema: {
        operationId: "patchContent",
        summary: "Write ranges of a region's bytes",
        description:
          "A byte-range patch (draft-ietf-httpapi-patch-byterange-03): each part names its place by Content-Range or Content-Offset, and all of them land in one batch. `Content-Range: bytes */N` as the only part resizes the region. With `Prefer: transaction=persist` parts land as they come, in a body of any length.",
        tags: [tags.content],
        params: regionParams,
        querystring: patchQuery,
        headers: requestHeaders.patch,
        body: {
          content: {
            "message/byterange": { schema: { ...endless, examples: [messageExample] } },
            // With the example's boundary, so that it can be sent as it stands.
            "multipart/byteranges; boundary=THIS_STRING_SEPARATES": {
              schema: { ...endless, examples: [multipartExample] },
            },
            "application/byteranges": { schema: { ...endless, examples: [binaryExample] } },
          },
        },
        response: {
          204: empty("The bytes were written.", {
            ...regionHeaders,
            ...replayHeader,
            ...preferenceHeader,
            ...timingHeader,
          }),
          ...patchProblems,
          415: { ...patchProblems[415]!, headers: { ...patchProblems[415]!.headers, ...acceptPatchHeader } },
        },
      },
      // A body of type string would be refused when it arrives as bytes.
      validatorCompiler: exceptBodies(app),
      handler: async (request, reply) => {
        const name = regionOf(request);
        const { headers } = request;
        const reader = new PatchReader(headers["content-type"], limits.batchOpsMax);
        const persists = landsAsItComes(headers);
        const since = performance.now();
        const { tag, replayed } = persists
          ? await new Arrival(request, name).land(reader)
          : await landTogether(request, name, reader);
        setRegionHeaders(reply, tag);
        setReplayed(reply, replayed);
        setServerTiming(reply, since);
        setApplied(reply, headers, persists);
        reply.code(204).send();
      },
    });
  });

  async function landTogether(request: FastifyRequest<PatchRoute>, name: string, reader: PatchReader): Promise<Landed> {
    const body = (request.body as Buffer | undefined) ?? Buffer.alloc(0);
    const { headers } = request;
    const conditions = writeConditions(headers);
    const key = keyOf(request, () => [String(headers["content-type"]), body]);
    const store = context.store();
    const { parts, failures } = await readWhole(reader, body);
    if (failures.length > 0) throw refusal(failures);
    const resizes = parts.filter(({ begin }) => begin.kind === "resize");
    if (resizes.length > 0 && parts.length > 1) throw notAlone(resizes.map(({ begin }) => begin.index));
    const [{ begin } = { begin: undefined }] = parts;
    if (begin?.kind === "resize") return resize(request, store, name, begin, changeConditions(conditions), key);
    try {
      const info = infoOf(store, name);
      const misfits = parts.flatMap((part) => misfit(part.begin, info) ?? []);
      if (misfits.length > 0) {
        checkConditions(request, info);
        throw refusal(misfits);
      }
    } catch (error) {
      // A retry is answered as the first one was, whatever has become of the region since.
      const earlier = key && (await context.batches.earlier(store, name, key));
      if (earlier === undefined) throw error;
      return { tag: earlier.tags[0]!, replayed: true };
    }
    const writes = parts.map(({ begin, gathered }) => ({
      offset: (begin as Begin & { kind: "write" }).offset,
      bytes: gathered.bytes,
    }));
    return write(request, store, name, writes, waitOf(request), conditions, key);
  }

  async function write(
    request: FastifyRequest,
    store: Store,
    name: string,
    writes: readonly PlainWrite[],
    wait: Wait,
    conditions: BatchConditions | undefined,
    key: IdempotencyKey | undefined,
  ): Promise<Landed> {
    try {
      const { tags: left, replayed } = await context
        .batchesOf(request)
        .write(store, name, writes, wait, conditions, key);
      return { tag: left[0]!, replayed };
    } catch (error) {
      throw writeProblem(error, () => infoOf(store, name).size, true);
    }
  }

  async function resize(
    request: FastifyRequest,
    store: Store,
    name: string,
    { index, size }: { index: number; size: number },
    conditions: Conditions,
    key: IdempotencyKey | undefined,
  ): Promise<Landed> {
    if (size < 1 || size > limits.regionBytesMax) {
      const limit = size < 1 ? 1 : limits.regionBytesMax;
      const failures = [
        { index, code: "validation-failed", detail: "a region can't have this size", limit, actual: size },
      ];
      checkConditions(request, infoOf(store, name));
      throw new Problem("validation-failed", `a region can't have ${size} bytes`, { failures });
    }
    const { info, replayed } = await context.changes.update(store, name, { size }, { ...conditions, ...key });
    if (info === null) throw notFound(name);
    return { tag: info, replayed };
  }

  /** A body that lands while it arrives. */
  class Arrival {
    private readonly store = context.store();
    private readonly chunkBytes = Math.min(chunkBytesMax, limits.batchBytesMax);
    private conditions: BatchConditions | undefined;
    /** What the last of its batches left. */
    private tag: Tag | undefined;
    /** Where the bytes go that follow each other and are still to be written. */
    private offset = 0;
    private gathered = new Gathered();
    private landedBytes = 0;

    constructor(
      private readonly request: FastifyRequest<PatchRoute>,
      private readonly name: string,
    ) {
      this.conditions = writeConditions(request.headers);
    }

    async land(reader: PatchReader): Promise<Landed> {
      try {
        // A refusal must not take the connection with it: it is the answer.
        const body = (this.request.body as Readable | undefined)?.iterator({ destroyOnReturn: false });
        for await (const chunk of body ?? []) {
          reader.push(chunk as Buffer);
          await this.takeEvents(reader);
        }
        reader.finish();
        await this.takeEvents(reader);
      } catch (error) {
        throw await this.brokenOff(error);
      }
      // Nothing but empty parts: the conditions still have to be looked at, and there is a tag to tell.
      if (this.tag === undefined) await this.commit([{ offset: 0, bytes: Buffer.alloc(0) }]);
      return { tag: this.tag!, replayed: false };
    }

    private async takeEvents(reader: PatchReader): Promise<void> {
      for (let event = reader.next(); event !== undefined; event = reader.next()) {
        switch (event.kind) {
          case "write":
          case "resize":
            await this.begin(event);
            break;
          case "bytes":
            await this.add(event.bytes);
            break;
          case "end":
            await this.flush();
            break;
          case "failure":
            throw refusal([event.failure]);
        }
      }
    }

    private async begin(begin: Begin): Promise<void> {
      const info = infoOf(this.store, this.name);
      if (begin.kind === "resize") {
        const conditions = changeConditions(this.conditions);
        const { tag } = await resize(this.request, this.store, this.name, begin, conditions, undefined);
        this.landed(tag, 0);
        return;
      }
      if (this.tag === undefined) checkConditions(this.request, info);
      const failure = misfit(begin, info);
      if (failure !== undefined) throw refusal([failure]);
      const end = begin.offset + (begin.length ?? 0);
      if (end > info.size) {
        const beyond = { index: begin.index, code: "range-not-satisfiable", limit: info.size, actual: end };
        throw notSatisfiable("a range ends beyond the region", info.size, [beyond]);
      }
      this.offset = begin.offset;
    }

    private async add(bytes: Buffer): Promise<void> {
      for (let from = 0; from < bytes.length; ) {
        const piece = bytes.subarray(from, from + this.chunkBytes - this.gathered.length);
        this.gathered.add(piece);
        from += piece.length;
        if (this.gathered.length === this.chunkBytes) await this.flush();
      }
    }

    private async flush(): Promise<void> {
      if (this.gathered.length === 0) return;
      const { offset } = this;
      const { bytes } = this.gathered;
      this.gathered = new Gathered();
      this.offset += bytes.length;
      await this.commit([{ offset, bytes }]);
    }

    private async commit(writes: readonly PlainWrite[]): Promise<void> {
      const wait = waitOf(this.request);
      const { tag } = await write(this.request, this.store, this.name, writes, wait, this.conditions, undefined);
      this.landed(tag, writes[0]!.bytes.length);
    }

    private landed(tag: Tag, bytes: number): void {
      this.tag = tag;
      this.landedBytes += bytes;
      // Who asked for a certain state before the first batch does not want to mix with other writers after it.
      const { ifMatch, ifGeneration } = this.conditions ?? {};
      this.conditions = ifMatch === undefined && ifGeneration === undefined ? undefined : { ifMatch: [tag] };
    }

    /** Lands what was read before the end came, and says how much that was. */
    private async brokenOff(error: unknown): Promise<unknown> {
      // What was refused is gone from here; this is what waited to become a whole chunk.
      await this.flush().catch(() => undefined);
      const problem = toProblem(error);
      if (problem === undefined || this.tag === undefined) return error;
      const { code, detail, failures, headers } = problem;
      return new Problem(
        code,
        `${detail}; ${this.landedBytes} bytes in front of that have landed, as ${formatEtag(this.tag)}`,
        { failures, headers, committed: true },
      );
    }
  }
}

/** Every part with its bytes, and what is wrong with those that are not valid. @throws Problem malformed-byterange, too-many-ops */
async function readWhole(reader: PatchReader, body: Buffer) {
  const parts: { begin: Begin; gathered: Gathered }[] = [];
  const failures: Failure[] = [];
  reader.push(body);
  reader.finish();
  let since = performance.now();
  for (let event = reader.next(); event !== undefined; event = reader.next()) {
    if (event.kind === "failure") failures.push(event.failure);
    else if (event.kind === "bytes") parts.at(-1)!.gathered.add(event.bytes);
    else if (event.kind !== "end") parts.push({ begin: event, gathered: new Gathered() });
    // Content in millions of pieces takes seconds to read, and others are waiting.
    if (performance.now() - since < readMsMax) continue;
    await nextTurn();
    since = performance.now();
  }
  if (parts.length === 0 && failures.length === 0) throw new Problem("byterange-missing", "the patch has no part");
  return { parts, failures };
}

/** Bytes that come in pieces. One piece is taken as it is; more are copied, however many they are. */
class Gathered {
  private room: Buffer | undefined;
  length = 0;

  get bytes(): Buffer {
    return this.room?.subarray(0, this.length) ?? Buffer.alloc(0);
  }

  add(piece: Buffer): void {
    if (this.room === undefined) {
      this.room = piece;
    } else {
      if (!this.owned || this.length + piece.length > this.room.length) this.grow(this.length + piece.length);
      piece.copy(this.room, this.length);
    }
    this.length += piece.length;
  }

  /** The room is memory of our own, not the first piece's. */
  private owned = false;

  private grow(bytes: number): void {
    const larger = Buffer.allocUnsafe(Math.max(2 * this.length, bytes));
    this.room?.copy(larger, 0, 0, this.length);
    this.room = larger;
    this.owned = true;
  }
}

const failureCodes = ["malformed-byterange", "byterange-missing", "length-mismatch"] as const;

/** The code is the first one's. */
function refusal(failures: readonly Failure[]): Problem {
  const { code, detail } = failures[0]!;
  const known = failureCodes.find((own) => own === code) ?? "malformed-byterange";
  return new Problem(known, detail, { failures });
}

/** A complete length that the region does not have: the client takes it for another one. */
function misfit(begin: Begin, { size }: RegionInfo): Failure | undefined {
  if (begin.kind !== "write" || begin.size === undefined || begin.size === size) return undefined;
  const detail = `the region has ${size} bytes, not ${begin.size}`;
  return { index: begin.index, code: "length-mismatch", detail, limit: size, actual: begin.size };
}

function notAlone(indexes: readonly number[]): Problem {
  const detail = "a part that resizes has to come alone, or with Prefer: transaction=persist";
  const failures = indexes.map((index) => ({ index, code: "validation-failed", detail }));
  return new Problem("validation-failed", detail, { failures });
}

const waitOf = ({ query }: FastifyRequest<PatchRoute>): Wait => query.durability ?? "region";

function landsAsItComes(headers: IncomingHttpHeaders): boolean {
  return (
    preference(headers, "transaction") === "persist" &&
    headers["idempotency-key"] === undefined &&
    headers["content-digest"] === undefined
  );
}

function setApplied(reply: FastifyReply, headers: IncomingHttpHeaders, persists: boolean): void {
  const asked = preference(headers, "transaction");
  if (asked === (persists ? "persist" : "atomic")) reply.header("preference-applied", `transaction=${asked}`);
}
