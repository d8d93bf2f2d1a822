// extents.ts - GET /v1/regions/{region}/extents: which ranges of a region hold data, and which are holes.
import type { FastifyInstance } from "fastify";
import { type ExtentsQuery, extentsQuery, regionParams } from "../schemas.js";
import { notFound, type RouteContext, regionOf, setRegionHeaders } from "./context.js";
import { json, problems, readProblems, regionHeaders, tags } from "./describe.js";

export function extentRoutes(app: FastifyInstance, context: RouteContext): void {
  app.route<{ Querystring: ExtentsQuery & Required<Pick<ExtentsQuery, "offset" | "limit">> }>({
    method: "GET",
    url: "/v1/regions/:region/extents",
    config: { access: "read" },
    schema: {
      operationId: "listExtents",
      summary: "List data and holes",
      description:
        "Ranges that hold data and holes, in their order and without gaps, as the file system tells them. A hole reads as zeros; space may be reserved for it. `nextOffset` leads to the next page.",
      tags: [tags.content],
      params: regionParams,
      querystring: extentsQuery,
      response: {
        200: json("A page of extents.", "ExtentPage", regionHeaders),
        ...problems(...readProblems, "query-param-invalid", "region-not-found", "out-of-bounds", "region-faulted"),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const store = context.store();
      const { offset, limit } = request.query;
      const size = store.info(name)?.size;
      if (size === undefined) throw notFound(name);
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
}
