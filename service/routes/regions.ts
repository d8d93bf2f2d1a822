// regions.ts - /v1/regions and /v1/regions/{region}: create, list, look at, change, delete, flush.
import type { FastifyInstance } from "fastify";
import { takeJson } from "../body.js";
import { Problem } from "../errors.js";
import { writeConditions } from "../headers.js";
import { listQuery, type RegionCreate, type RegionPatch, regionCreate, regionParams, regionPatch } from "../schemas.js";
import type { Failure } from "../store/failure.js";
import { isRegionName } from "../store/region-name.js";
import { describeRegion, listRegions, parseCursor } from "../store/regions.js";
import {
  answerRegion,
  changeConditions,
  changeTerms,
  infoOf,
  isUnchanged,
  jsonKeyOf,
  type RouteContext,
  regionOf,
  setRegionHeaders,
  setReplayed,
  smallBodyBytesMax,
} from "./context.js";
import {
  bodyProblems,
  conditionProblems,
  empty,
  json,
  keyProblems,
  locationHeader,
  problems,
  readProblems,
  ref,
  regionHeaders,
  replayHeader,
  requestHeaders,
  tags,
  writeProblems,
} from "./describe.js";

const mergePatchType = "application/merge-patch+json";
const patchTypes = [mergePatchType, "application/json"];
const patchContent = Object.fromEntries(patchTypes.map((type) => [type, { schema: ref(regionPatch.$id) }]));

export function regionRoutes(app: FastifyInstance, context: RouteContext): void {
  const { changes, limits } = context;

  app.route<{ Querystring: { limit: number; cursor?: string; prefix: string } }>({
    method: "GET",
    url: "/v1/regions",
    config: { access: "read" },
    schema: {
      operationId: "listRegions",
      summary: "List regions",
      description:
        "A page of regions by name. `nextCursor` leads to the next one; regions that come and go never shift it.",
      tags: [tags.regions],
      querystring: listQuery,
      response: {
        200: json("A page of regions.", "RegionPage"),
        ...problems(...readProblems, "cursor-invalid", "query-param-invalid"),
      },
    },
    handler: (request) => {
      const { limit, cursor, prefix } = request.query;
      const after = cursor === undefined ? "" : parseCursor(cursor);
      if (after === undefined) throw new Problem("cursor-invalid");
      return listRegions(context.store(), { limit, prefix, after });
    },
  });

  app.route<{ Body: RegionCreate }>({
    method: "POST",
    url: "/v1/regions",
    config: { access: "write" },
    bodyLimit: smallBodyBytesMax,
    schema: {
      operationId: "createRegion",
      summary: "Create a region",
      description:
        "Makes a file of zeros and maps it. To create one from bytes, PUT its content with `If-None-Match: *`.",
      tags: [tags.regions],
      headers: requestHeaders.key,
      body: ref(regionCreate.$id),
      response: {
        201: json("The region exists.", "Region", { ...regionHeaders, ...locationHeader, ...replayHeader }),
        ...problems(...writeProblems, ...bodyProblems, ...keyProblems, "region-exists", "insufficient-storage"),
      },
    },
    handler: async (request, reply) => {
      const { name, size, durability = "durable", labels = {}, sparse = false } = request.body;
      if (!isRegionName(name))
        throw invalid({ pointer: "/name", code: "validation-failed", detail: "must not contain .." });
      checkSize(size);
      const key = jsonKeyOf(request);
      const answer = await context.store().create({
        name,
        size,
        durability,
        labels: JSON.stringify(labels),
        sparse,
        ...key,
      });
      reply.code(201).header("location", `/v1/regions/${name}`);
      return answerRegion(reply, answer, name);
    },
  });

  app.route({
    method: "GET",
    url: "/v1/regions/:region",
    config: { access: "read" },
    schema: {
      operationId: "getRegion",
      summary: "Look at a region",
      description: "Its settings, generations and state.",
      tags: [tags.regions],
      params: regionParams,
      headers: requestHeaders.read,
      response: {
        200: json("The region.", "Region", regionHeaders),
        304: empty("It has not changed.", regionHeaders),
        ...problems(...readProblems, "header-invalid", "region-not-found", ...conditionProblems),
      },
    },
    handler: (request, reply) => {
      const info = infoOf(context.store(), regionOf(request));
      const unchanged = isUnchanged(request.headers, info);
      setRegionHeaders(reply, info);
      reply.header("cache-control", "no-cache");
      if (unchanged) {
        reply.code(304).send();
        return undefined;
      }
      return describeRegion(info);
    },
  });

  // Its own media type is JSON as well, and nowhere else.
  app.register(async (scope) => {
    takeJson(scope, mergePatchType);
    scope.route<{ Body: RegionPatch }>({
      method: "PATCH",
      url: "/v1/regions/:region",
      config: { access: "write", takes: patchTypes, body: { content: patchContent } },
      bodyLimit: smallBodyBytesMax,
      schema: {
        operationId: "updateRegion",
        summary: "Change a region",
        description: "A merge patch of size, labels, durability, readOnly and integrity. Shrinking needs If-Match.",
        tags: [tags.regions],
        params: regionParams,
        headers: requestHeaders.change,
        body: ref(regionPatch.$id),
        response: {
          200: json("The region as it is now.", "Region", { ...regionHeaders, ...replayHeader }),
          ...problems(
            ...writeProblems,
            ...bodyProblems,
            ...keyProblems,
            ...conditionProblems,
            "region-not-found",
            "precondition-required",
            "region-faulted",
            "insufficient-storage",
          ),
        },
      },
      handler: async (request, reply) => {
        const name = regionOf(request);
        if (request.body.size !== undefined) checkSize(request.body.size);
        const key = jsonKeyOf(request);
        const answer = await changes.update(context.store(), name, request.body, {
          ...changeConditions(writeConditions(request.headers)),
          ...key,
        });
        return answerRegion(reply, answer, name);
      },
    });
  });

  app.route({
    method: "DELETE",
    url: "/v1/regions/:region",
    config: { access: "write" },
    schema: {
      operationId: "deleteRegion",
      summary: "Delete a region",
      description: "Unmaps it and removes its file; an operator's own file stays. There is no way back.",
      tags: [tags.regions],
      params: regionParams,
      headers: requestHeaders.remove,
      response: {
        204: empty("It is gone.", replayHeader),
        ...problems(...writeProblems, ...keyProblems, ...conditionProblems, "region-not-found"),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const answer = await changes.remove(context.store(), name, changeTerms(request));
      setReplayed(reply, answer.replayed);
      reply.code(204).send();
    },
  });

  app.route({
    method: "POST",
    url: "/v1/regions/:region/flushes",
    config: { access: "write" },
    schema: {
      operationId: "flushRegion",
      summary: "Make a region durable",
      description: "Returns when everything committed so far survives a power cut.",
      tags: [tags.regions],
      params: regionParams,
      response: {
        200: json("How much survives now.", "Flush", regionHeaders),
        ...problems(...writeProblems, "region-not-found", "region-faulted", "flush-failed"),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const store = context.store();
      await store.flush(name);
      const info = infoOf(store, name);
      setRegionHeaders(reply, info);
      return { durableGeneration: info.durableGeneration };
    },
  });

  function checkSize(size: number): void {
    if (size <= limits.regionBytesMax) return;
    throw invalid({
      pointer: "/size",
      code: "validation-failed",
      detail: "is more than a region may have",
      limit: limits.regionBytesMax,
      actual: size,
    });
  }
}

function invalid(failure: Failure): Problem {
  return new Problem("validation-failed", `${failure.pointer} ${failure.detail}`, { failures: [failure] });
}
