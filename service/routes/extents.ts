// extents.ts - GET /v1/regions/{region}/extents: which ranges of a region hold data and which are holes, which have changed
// since a generation, or how much of each slice holds data and is in memory.
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Problem } from "../errors.js";
import { type ExtentsQuery, extentsQuery, regionParams, snapshotPrefix } from "../schemas.js";
import type { ChangeFeed } from "../store/change-feed.js";
import { mergeSpans } from "../store/ranges.js";
import type { RegionInfo } from "../store/regions.js";
import { compacted, infoOf, type RouteContext, regionOf, setRegionHeaders, snapshotOf } from "./context.js";
import { json, problems, readProblems, regionHeaders, tags } from "./describe.js";

interface ExtentRoute {
  Querystring: ExtentsQuery & Required<Pick<ExtentsQuery, "offset" | "limit">>;
}

export function extentRoutes(app: FastifyInstance, context: RouteContext): void {
  app.route<ExtentRoute>({
    method: "GET",
    url: "/v1/regions/:region/extents",
    config: { access: "read" },
    schema: {
      operationId: "listExtents",
      summary: "List data and holes",
      description: [
        "Ranges that hold data and holes, in their order and without gaps, as the file system tells them. A hole reads as zeros; space may be reserved for it. `nextOffset` leads to the next page.",
        "With `since` the ranges that changed after that generation, as far as this run of the service remembers (`changesKeptMax` of GET /v1/limits); of a batch that wrote many ranges, fewer that cover them. With `since=snapshot:ID` the pages that differ from a snapshot, compared byte by byte; a page of them may have no items and still a `nextOffset`. Go on from the `generation` of the first page: to copy a region again and again, read only these.",
        "With `granularity` slices of so many bytes, the first one with `offset` in it, and how many bytes of each hold data and are in memory (whoever read or wrote them; the kernel takes them back as it likes). With 4096 these are the pages one by one. A page of the answer may end before `limit`, so that none takes long: go on at `nextOffset`. Nothing is read into memory by looking.",
      ].join("\n\n"),
      tags: [tags.content],
      params: regionParams,
      querystring: extentsQuery,
      response: {
        200: json("A page of extents.", "ExtentPage", regionHeaders),
        ...problems(
          ...readProblems,
          "query-param-invalid",
          "region-not-found",
          "snapshot-not-found",
          "generation-compacted",
          "out-of-bounds",
          "region-faulted",
        ),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const store = context.store();
      const { offset, limit, since, granularity } = request.query;
      const info = infoOf(store, name);
      const { size } = info;
      if (granularity !== undefined) {
        if (since !== undefined) throw new Problem("query-param-invalid", "since and granularity exclude each other");
        return slices(reply, name, offset, granularity, limit);
      }
      if (typeof since === "string") return differing(request, reply, name, since.slice(snapshotPrefix.length));
      if (since !== undefined) {
        const page = changedSince(context.feed, info, since, offset, limit);
        setRegionHeaders(reply, info);
        return page;
      }
      const found = await store.extents(name, offset, Math.max(0, size - offset), limit);
      setRegionHeaders(reply, found);
      const last = found.extents.at(-1);
      const end = last === undefined ? size : last.offset + last.length;
      return {
        items: found.extents,
        nextOffset: end < size ? end : null,
        size,
        generation: found.generation,
        durableGeneration: found.durableGeneration,
      };
    },
  });

  async function slices(reply: FastifyReply, name: string, offset: number, granularity: number, limit: number) {
    const found = await context.store().slices(name, offset, granularity, limit);
    setRegionHeaders(reply, found);
    const { size, generation, durableGeneration } = found;
    const last = found.slices.at(-1);
    const end = last === undefined ? size : last.offset + last.length;
    return {
      items: found.slices.map((slice) => ({ ...slice, kind: "slice" })),
      nextOffset: end < size ? end : null,
      size,
      generation,
      durableGeneration,
    };
  }

  async function differing(request: FastifyRequest<ExtentRoute>, reply: FastifyReply, name: string, id: string) {
    const store = context.store();
    const { offset, limit } = request.query;
    const snapshot = snapshotOf(store, name, id);
    const found = await context.snapshots.compare(store, name, snapshot.id, offset, limit);
    const { ranges, next, size, generation, durableGeneration } = found;
    setRegionHeaders(reply, found);
    return {
      items: ranges.map((range) => ({ ...range, kind: "changed" })),
      nextOffset: next < size ? next : null,
      size,
      // As of before the comparison: what a batch changed meanwhile is told by `since` this.
      generation,
      durableGeneration,
    };
  }
}

/** A page of it from `offset` on. @throws Problem generation-compacted */
function changedSince(feed: ChangeFeed, info: RegionInfo, since: number, offset: number, limit: number) {
  const { name, size, durableGeneration } = info;
  const changes = feed.read(name, info, since, Number.POSITIVE_INFINITY);
  if (changes.gap) throw compacted(changes, since, info);
  const inside = changes.items.flatMap(({ ranges }) =>
    ranges.flatMap((range) => {
      // What a resize took away is not there to be read.
      const from = Math.max(range.offset, offset);
      const length = Math.min(range.offset + range.length, size) - from;
      return length > 0 ? [{ offset: from, length }] : [];
    }),
  );
  const ranges = mergeSpans(inside).sort((a, b) => a.offset - b.offset);
  const items = ranges.slice(0, limit).map((range) => ({ ...range, kind: "changed" }));
  return {
    items,
    nextOffset: ranges[limit]?.offset ?? null,
    size,
    // Batches that are committed and not answered yet are not among them.
    generation: changes.newest,
    durableGeneration: Math.min(durableGeneration, changes.newest),
  };
}
