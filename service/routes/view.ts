// view.ts - GET /v1/regions/{region}/view: bytes for people to look at.
import type { FastifyInstance } from "fastify";
import { Problem } from "../errors.js";
import { jsonType } from "../headers.js";
import { regionParams, type ViewQuery, viewQuery } from "../schemas.js";
import { typeBytes, typeNumber, type ValueType } from "../store/cells.js";
import { cellsView, type TextView, textView } from "../store/views.js";
import { infoOf, type RouteContext, regionOf, setRegionHeaders } from "./context.js";
import { json, problems, readProblems, regionHeaders, tags } from "./describe.js";

const lengthDefault = 256;

const hexdumpExample = "00000000  48 65 6c 6c 6f 00 00 00  2a 00 00 00 00 00 00 00  |Hello...*.......|\n00000010\n";

export function viewRoutes(app: FastifyInstance, context: RouteContext): void {
  const bytesMax = context.limits.viewBytesMax;

  app.route<{ Querystring: ViewQuery & { offset: number; as: TextView | ValueType; endian: "little" | "big" } }>({
    method: "GET",
    url: "/v1/regions/:region/view",
    config: { access: "read" },
    schema: {
      operationId: "viewRegion",
      summary: "Look at bytes",
      description:
        "A hexdump, or the same bytes as hex, base64, text or typed cells. For people; programs read the content.",
      tags: [tags.content],
      params: regionParams,
      querystring: viewQuery,
      response: {
        200: {
          ...json("The bytes.", "CellsView", regionHeaders),
          content: {
            "text/plain": { schema: { type: "string", maxLength: 8 << 20 }, example: hexdumpExample },
            "application/json": { schema: { $ref: "CellsView#" } },
          },
        },
        ...problems(...readProblems, "query-param-invalid", "region-not-found", "out-of-bounds", "region-faulted"),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const store = context.store();
      const { offset, as, endian } = request.query;
      const { size } = infoOf(store, name);
      const length = request.query.length ?? Math.min(lengthDefault, Math.max(0, size - offset));
      if (length > bytesMax) throw tooLong(length, bytesMax);
      const read = await store.read(name, offset, length);
      setRegionHeaders(reply, read);
      if (as === "hexdump" || as === "hex" || as === "base64" || as === "utf8") {
        reply.header("content-type", "text/plain; charset=utf-8").send(textView(read.bytes, offset, as));
        return;
      }
      const whole = length - (length % typeBytes[typeNumber(as)!]!);
      const values = cellsView(read.bytes.subarray(0, whole), as, endian === "big");
      reply
        .header("content-type", jsonType)
        .send(
          `{"offset":${offset},"type":"${as}","endian":"${endian}","values":${values},"generation":${read.generation}}`,
        );
    },
  });
}

function tooLong(length: number, limit: number): Problem {
  const failures = [
    { code: "query-param-invalid", detail: "length is more than a view may have", limit, actual: length },
  ];
  return new Problem("query-param-invalid", `length may be at most ${limit}`, { failures });
}
