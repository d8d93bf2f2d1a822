// digest.ts - GET /v1/regions/{region}/digest: what a range of bytes is, without sending it.
import type { FastifyInstance } from "fastify";
import { digestOf } from "../digests.js";
import { Problem } from "../errors.js";
import { jsonType } from "../headers.js";
import { type DigestQuery, digestQuery, regionParams } from "../schemas.js";
import { infoOf, type RouteContext, regionOf, setRegionHeaders } from "./context.js";
import { json, problems, readProblems, regionHeaders, tags } from "./describe.js";

export function digestRoutes(app: FastifyInstance, context: RouteContext): void {
  const bytesMax = context.limits.readBytesMax;

  app.route<{ Querystring: DigestQuery & Required<Pick<DigestQuery, "offset" | "algorithm">> }>({
    method: "GET",
    url: "/v1/regions/:region/digest",
    config: { access: "read" },
    schema: {
      operationId: "digestRegion",
      summary: "Digest of bytes",
      description:
        "The digest of a range as of one generation, of at most `readBytesMax` of GET /v1/limits. For more, read the content with Want-Content-Digest range by range.",
      tags: [tags.content],
      params: regionParams,
      querystring: digestQuery,
      response: {
        200: json("The digest.", "Digest", regionHeaders),
        ...problems(
          ...readProblems,
          "query-param-invalid",
          "region-not-found",
          "batch-too-large",
          "out-of-bounds",
          "region-faulted",
        ),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const store = context.store();
      const { offset, algorithm } = request.query;
      const { size } = infoOf(store, name);
      const length = request.query.length ?? Math.max(0, size - offset);
      if (length > bytesMax) throw tooLong(length, bytesMax);
      const read = await store.read(name, offset, length);
      const { generation, durableGeneration } = read;
      const digest = (await digestOf(algorithm, read.bytes)).toString("hex");
      setRegionHeaders(reply, read);
      reply
        .header("content-type", jsonType)
        .send(JSON.stringify({ algorithm, offset, length, digest, generation, durableGeneration }));
    },
  });
}

function tooLong(length: number, limit: number): Problem {
  const failures = [{ code: "batch-too-large", detail: "length", limit, actual: length }];
  return new Problem("batch-too-large", `a digest may be of ${limit} bytes at most`, { failures });
}
