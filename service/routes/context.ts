// context.ts - what routes are handed, and what several of them do alike.
import type { IncomingHttpHeaders } from "node:http";
import type { FastifyReply, FastifyRequest } from "fastify";
import { Problem } from "../errors.js";
import { etagsOf, expectedGeneration, idempotencyKeyText, jsonType, pathOf, writeConditions } from "../headers.js";
import type { LifecycleView } from "../lifecycle-view.js";
import type { Metrics } from "../metrics.js";
import type { ReadBuffers } from "../read-buffers.js";
import type { BatchConditions, IdempotencyKey } from "../store/batch-encoder.js";
import type { Batches, BatchRunner } from "../store/batches.js";
import type { ChangeFeed, Changes } from "../store/change-feed.js";
import { type Etag, etagMatches, formatEtag } from "../store/etags.js";
import { idempotencyKey } from "../store/idempotency.js";
import { isRegionName } from "../store/region-name.js";
import {
  type Conditions,
  describeRegion,
  type MetaAnswer,
  type RegionChanges,
  type RegionInfo,
} from "../store/regions.js";
import { parseSnapshotId, type Snapshot, type Snapshots } from "../store/snapshots.js";
import type { Store } from "../store/store.js";

/** Settings that routes enforce or tell; the rest is the storage core's. */
export interface Limits {
  readonly regionsMax: number;
  readonly snapshotsMax: number;
  readonly regionBytesMax: number;
  readonly batchOpsMax: number;
  readonly batchGuardsMax: number;
  readonly batchBytesMax: number;
  readonly rangesMax: number;
  readonly readBytesMax: number;
  readonly viewBytesMax: number;
  readonly changesKeptMax: number;
  readonly eventStreamsMax: number;
  readonly eventCommentMs: number;
  readonly idempotencyKeysMin: number;
  readonly idempotencySecondsMin: number;
  readonly rateLimit: number;
  readonly rateLimitBurst: number;
}

export interface RouteContext {
  readonly limits: Limits;
  /** Bytes of JSON that a batch may have: its data in hex, and the words around it. */
  readonly batchBodyBytesMax: number;
  /** Bytes that a byte-range patch may have which lands at once: its data, and the fields around it. */
  readonly patchBodyBytesMax: number;
  /** @throws Problem while there is no store yet */
  store(): Store;
  /** The store, for what has something to tell without it. */
  storeIfOpen(): Store | undefined;
  readonly lifecycle: LifecycleView;
  readonly batches: Batches;
  /** What runs the batches of a request, and tells its trace of them if it has one. */
  batchesOf(request: FastifyRequest): BatchRunner;
  readonly changes: RegionChanges;
  readonly snapshots: Snapshots;
  readonly feed: ChangeFeed;
  readonly readBuffers: ReadBuffers;
  readonly metrics: Metrics;
}

/** Bodies other than batches and bytes. */
export const smallBodyBytesMax = 64 << 10;

export interface RegionParams {
  region: string;
}

/** The region that the path names. What can't be a name names nothing. */
export function regionOf(request: FastifyRequest): string {
  const { region } = request.params as RegionParams;
  if (!isRegionName(region)) throw notFound(region);
  return region;
}

/** @throws Problem region-not-found */
export function infoOf(store: Store, region: string): RegionInfo {
  const info = store.info(region);
  if (info === undefined) throw notFound(region);
  return info;
}

export function notFound(region: string): Problem {
  return new Problem("region-not-found", `no region of the name ${JSON.stringify(region)}`);
}

/** The snapshot that a request names. What can't be an id names nothing. @throws Problem snapshot-not-found */
export function snapshotOf(store: Store, region: string, text: string): Snapshot {
  const id = parseSnapshotId(text);
  const found = id === undefined ? undefined : store.snapshot(region, id);
  if (found !== undefined) return found;
  if (store.info(region) === undefined) throw notFound(region);
  throw noSnapshot(text);
}

export function noSnapshot(id: string): Problem {
  return new Problem("snapshot-not-found", `the region has no snapshot of the id ${JSON.stringify(id)}`);
}

/** Of what has changed since a generation that is not remembered any more, or never was. */
export function compacted({ oldest }: Changes, since: number, { generation }: Etag): Problem {
  const detail =
    since > generation
      ? `the region is at generation ${generation}: ${since} is not one of its`
      : `changes are remembered from generation ${oldest} on`;
  const failures = [{ code: "generation-compacted", limit: oldest, actual: since }];
  return new Problem("generation-compacted", detail, { failures });
}

/** The store's key for this request, if the client sent one. `parts` is what makes the request what it is. */
export function keyOf(request: FastifyRequest, parts: () => (string | Uint8Array)[]): IdempotencyKey | undefined {
  const text = idempotencyKeyText(request.headers);
  if (text === undefined) return undefined;
  const { headers, method, url } = request;
  const conditions = ["if-match", "if-none-match", "region-if-generation"].map((name) => String(headers[name] ?? ""));
  const path = pathOf(request);
  return idempotencyKey(method, path, text, [url.slice(path.length), ...conditions, ...parts()]);
}

/** The same of a request whose body is JSON, or that has none. */
export function jsonKeyOf(request: FastifyRequest): IdempotencyKey | undefined {
  return keyOf(request, () => [JSON.stringify(request.body) ?? ""]);
}

/**
 * If-Match, Region-If-Generation and If-None-Match of a read, in that order. True is 304. @throws Problem header-invalid,
 * etag-mismatch, generation-mismatch
 */
export function isUnchanged(headers: IncomingHttpHeaders, current: Etag): boolean {
  const { "if-match": match, "if-none-match": noneMatch } = headers;
  if (match !== undefined && !etagMatches(etagsOf("If-Match", match, true), current))
    throw new Problem("etag-mismatch");
  const generation = expectedGeneration(headers);
  if (generation !== undefined) checkGeneration(generation, current);
  return noneMatch !== undefined && etagMatches(etagsOf("If-None-Match", noneMatch, false), current);
}

/** What a change of the region itself, which has no body, depends on. @throws Problem header-invalid */
export function changeTerms(request: FastifyRequest): Conditions & Partial<IdempotencyKey> {
  const key = keyOf(request, () => []);
  return { ...changeConditions(writeConditions(request.headers)), ...key };
}

/** Conditions as a change of the region itself takes them. */
export function changeConditions(conditions: BatchConditions | undefined): Conditions {
  const { ifMatch, ifNoneMatch, ifGeneration } = conditions ?? {};
  const list = (condition: typeof ifMatch) =>
    condition === undefined || condition === "*" ? condition : [...condition];
  return { ifMatch: list(ifMatch), ifNoneMatch: list(ifNoneMatch), ifGeneration };
}

/**
 * Before a refusal for another reason: a condition that does not hold is told first. @throws Problem etag-mismatch,
 * generation-mismatch
 */
export function checkConditions({ headers }: FastifyRequest, current: Etag): void {
  const { ifMatch, ifNoneMatch, ifGeneration } = writeConditions(headers) ?? {};
  if (ifMatch !== undefined && !etagMatches(ifMatch, current)) throw new Problem("etag-mismatch");
  if (ifNoneMatch !== undefined && etagMatches(ifNoneMatch, current)) throw new Problem("etag-mismatch");
  if (ifGeneration !== undefined) checkGeneration(ifGeneration, current);
}

function checkGeneration(expected: number, { generation }: Etag): void {
  if (expected === generation) return;
  const failures = [{ code: "generation-mismatch", limit: expected, actual: generation }];
  throw new Problem("generation-mismatch", undefined, { failures });
}

export function setRegionHeaders(reply: FastifyReply, of: Etag & { durableGeneration: number }): void {
  reply.header("etag", formatEtag(of));
  reply.header("region-generation", of.generation);
  reply.header("region-durable-generation", of.durableGeneration);
}

/** What a change left. A replayed answer is about a region that may be gone by now. @throws Problem region-not-found */
export function answerRegion(reply: FastifyReply, { info, replayed }: MetaAnswer, name: string): void {
  if (info === null) throw notFound(name);
  setRegionHeaders(reply, info);
  setReplayed(reply, replayed);
  reply.header("content-type", jsonType).send(JSON.stringify(describeRegion(info)));
}

export function setReplayed(reply: FastifyReply, replayed: boolean): void {
  if (replayed) reply.header("idempotency-replayed", "?1");
}

/** How long the store took, in milliseconds. */
export function setServerTiming(reply: FastifyReply, since: number): void {
  reply.header("server-timing", `store;dur=${(performance.now() - since).toFixed(3)}`);
}
