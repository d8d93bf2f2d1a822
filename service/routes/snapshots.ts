// snapshots.ts - /v1/regions/{region}/snapshots: make, list, look at, delete, restore. Their bytes are read as the
// region's are, in content.ts.
import type { FastifyInstance, FastifyRequest } from "fastify";
import { jsonType } from "../headers.js";
import { regionParams, snapshotParams } from "../schemas.js";
import { describeSnapshot, parseSnapshotId, snapshotTag } from "../store/snapshots.js";
import {
  answerRegion,
  changeTerms,
  isUnchanged,
  keyOf,
  noSnapshot,
  notFound,
  type RouteContext,
  regionOf,
  setRegionHeaders,
  setReplayed,
  snapshotOf,
} from "./context.js";
import {
  conditionProblems,
  empty,
  json,
  keyProblems,
  locationHeader,
  problems,
  readProblems,
  regionHeaders,
  replayHeader,
  requestHeaders,
  tags,
  writeProblems,
} from "./describe.js";

export function snapshotRoutes(app: FastifyInstance, context: RouteContext): void {
  const all = "/v1/regions/:region/snapshots";
  const one = `${all}/:snapshot`;

  app.route({
    method: "GET",
    url: all,
    config: { access: "read" },
    schema: {
      operationId: "listSnapshots",
      summary: "List snapshots",
      description: "All of a region's.",
      tags: [tags.snapshots],
      params: regionParams,
      response: {
        200: json("The snapshots.", "SnapshotList"),
        ...problems(...readProblems, "region-not-found"),
      },
    },
    handler: (request) => {
      const name = regionOf(request);
      const list = context.store().snapshots(name);
      if (list === undefined) throw notFound(name);
      return { items: list.map(describeSnapshot) };
    },
  });

  app.route({
    method: "POST",
    url: all,
    config: { access: "write" },
    schema: {
      operationId: "createSnapshot",
      summary: "Make a snapshot",
      description:
        "Keeps the region's bytes of one point in time, durably. Batches go on meanwhile; where the file system can't share blocks, the bytes are copied, and until that is done the region can't be resized or restored. Read it with `GET .../content?snapshot=ID`.",
      tags: [tags.snapshots],
      params: regionParams,
      headers: requestHeaders.remove,
      response: {
        201: json("The snapshot.", "Snapshot", { ...regionHeaders, ...locationHeader, ...replayHeader }),
        ...problems(
          ...writeProblems,
          ...keyProblems,
          ...conditionProblems,
          "region-not-found",
          "snapshot-in-progress",
          "overloaded",
          "region-faulted",
          "flush-failed",
          "insufficient-storage",
        ),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const answer = await context.snapshots.make(context.store(), name, changeTerms(request));
      const made = describeSnapshot(answer.snapshot);
      setRegionHeaders(reply, snapshotTag(answer.snapshot));
      setReplayed(reply, answer.replayed);
      reply.code(201).header("location", `/v1/regions/${name}/snapshots/${made.id}`).header("content-type", jsonType);
      reply.send(JSON.stringify(made));
    },
  });

  app.route({
    method: "GET",
    url: one,
    config: { access: "read" },
    schema: {
      operationId: "getSnapshot",
      summary: "Look at a snapshot",
      description: "When it was made, and of what generation it is.",
      tags: [tags.snapshots],
      params: snapshotParams,
      headers: requestHeaders.read,
      response: {
        200: json("The snapshot.", "Snapshot", regionHeaders),
        304: empty("It never changes.", regionHeaders),
        ...problems(...readProblems, "header-invalid", "region-not-found", "snapshot-not-found", ...conditionProblems),
      },
    },
    handler: (request, reply) => {
      const found = snapshotOf(context.store(), regionOf(request), idOf(request));
      const tag = snapshotTag(found);
      const unchanged = isUnchanged(request.headers, tag);
      setRegionHeaders(reply, tag);
      reply.header("cache-control", "no-cache");
      if (unchanged) {
        reply.code(304).send();
        return undefined;
      }
      return describeSnapshot(found);
    },
  });

  app.route({
    method: "DELETE",
    url: one,
    config: { access: "write" },
    schema: {
      operationId: "deleteSnapshot",
      summary: "Delete a snapshot",
      description: "Gives its space back. There is no way back.",
      tags: [tags.snapshots],
      params: snapshotParams,
      headers: requestHeaders.keyOnly,
      response: {
        204: empty("It is gone.", replayHeader),
        ...problems(
          ...writeProblems,
          ...keyProblems,
          "region-not-found",
          "snapshot-not-found",
          "overloaded",
          "flush-failed",
        ),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const key = keyOf(request, () => []);
      const answer = await context.store().removeSnapshot(name, numberOf(request), { ...key });
      setReplayed(reply, answer.replayed);
      reply.code(204).send();
    },
  });

  app.route({
    method: "POST",
    url: `${one}/restores`,
    config: { access: "write" },
    schema: {
      operationId: "restoreSnapshot",
      summary: "Restore a snapshot",
      description:
        "Puts its bytes and its size in the place of the region's, whole or not at all, at the next generation; labels and settings stay. Needs If-Match or Region-If-Generation: what was written since is lost. The region gets new files: programs that map it have to map it anew. An operator's own file is not replaced.",
      tags: [tags.snapshots],
      params: snapshotParams,
      headers: requestHeaders.remove,
      response: {
        200: json("The region as it is now.", "Region", { ...regionHeaders, ...replayHeader }),
        ...problems(
          ...writeProblems,
          ...keyProblems,
          ...conditionProblems,
          "region-not-found",
          "snapshot-not-found",
          "region-read-only",
          "region-adopted",
          "snapshot-in-progress",
          "precondition-required",
          "overloaded",
          "flush-failed",
          "insufficient-storage",
        ),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const terms = changeTerms(request);
      const answer = await context.snapshots.restore(context.store(), name, numberOf(request), terms);
      return answerRegion(reply, answer, name);
    },
  });
}

const idOf = (request: FastifyRequest): string => (request.params as { snapshot: string }).snapshot;

/** For what finds out by itself whether there is such a snapshot. @throws Problem snapshot-not-found */
function numberOf(request: FastifyRequest): number {
  const text = idOf(request);
  const id = parseSnapshotId(text);
  if (id === undefined) throw noSnapshot(text);
  return id;
}
