// cells.ts - /v1/regions/{region}/cells/{offset}: one typed load, store or operation.
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Problem, toProblem } from "../errors.js";
import { jsonType, writeConditions } from "../headers.js";
import { type CellQuery, cellParams, cellQuery } from "../schemas.js";
import type { BatchOutcome } from "../store/batches.js";
import { rawCellText, typeBytes, typeNumber } from "../store/cells.js";
import { jsonKeyOf, type RouteContext, regionOf, setRegionHeaders, setReplayed, smallBodyBytesMax } from "./context.js";
import {
  bodyProblems,
  commitProblems,
  conditionProblems,
  json,
  keyProblems,
  problems,
  readProblems,
  ref,
  regionHeaders,
  replayHeader,
  requestHeaders,
  tags,
  writeProblems,
} from "./describe.js";

type Members = Readonly<Record<string, unknown>>;
interface CellRoute {
  Querystring: Required<CellQuery>;
  Params: { region: string; offset: string };
  Body: Members;
}

const changeProblems = [
  ...writeProblems,
  ...bodyProblems,
  ...keyProblems,
  ...conditionProblems,
  ...commitProblems,
  "query-param-invalid",
  "out-of-bounds",
  "value-out-of-range",
] as const;

export function cellRoutes(app: FastifyInstance, context: RouteContext): void {
  const url = "/v1/regions/:region/cells/:offset";

  app.route<CellRoute>({
    method: "GET",
    url,
    config: { access: "read" },
    schema: {
      operationId: "loadCell",
      summary: "Load a cell",
      description: "Reads one typed value. Any offset will do.",
      tags: [tags.batches],
      params: cellParams,
      querystring: cellQuery,
      response: {
        200: json("The cell's value.", "Cell", regionHeaders),
        ...problems(...readProblems, "query-param-invalid", "region-not-found", "out-of-bounds", "region-faulted"),
      },
    },
    handler: async (request, reply) => {
      const offset = offsetOf(request);
      const type = typeNumber(request.query.type)!;
      const read = await context.store().read(regionOf(request), offset, typeBytes[type]!);
      const value = rawCellText(read.bytes, 0, type, request.query.endian === "big");
      setRegionHeaders(reply, read);
      reply
        .header("content-type", jsonType)
        .send(`{"value":${value},"generation":${read.generation},"durableGeneration":${read.durableGeneration}}`);
    },
  });

  app.route<CellRoute>({
    method: "PUT",
    url,
    config: { access: "write" },
    bodyLimit: smallBodyBytesMax,
    schema: {
      operationId: "storeCell",
      summary: "Store a cell",
      description: "Writes one typed value and tells the old one. Any offset will do.",
      tags: [tags.batches],
      params: cellParams,
      querystring: cellQuery,
      headers: requestHeaders.change,
      body: ref("CellStore"),
      response: {
        200: json("The cell was stored.", "CellChange", { ...regionHeaders, ...replayHeader }),
        ...problems(...changeProblems),
      },
    },
    handler: (request, reply) => change(request, reply, { op: "store", value: request.body.value }),
  });

  app.route<CellRoute>({
    method: "POST",
    url,
    config: { access: "write" },
    bodyLimit: smallBodyBytesMax,
    schema: {
      operationId: "modifyCell",
      summary: "Modify a cell",
      description: "One atomic operation on one typed value. The offset must be a multiple of its size.",
      tags: [tags.batches],
      params: cellParams,
      querystring: cellQuery,
      headers: requestHeaders.change,
      body: ref("CellOp"),
      response: {
        200: json("The operation was done.", "CellChange", { ...regionHeaders, ...replayHeader }),
        ...problems(...changeProblems, "misaligned", "cas-mismatch", "overflow"),
      },
    },
    handler: (request, reply) => {
      const { durability, ...op } = request.body;
      return change(request, reply, op);
    },
  });

  async function change(request: FastifyRequest<CellRoute>, reply: FastifyReply, op: Members): Promise<void> {
    const region = regionOf(request);
    const offset = offsetOf(request);
    const { durability } = request.body;
    const batch = { ops: [{ ...op, offset, ...request.query }], ...(durability !== undefined && { durability }) };
    const key = jsonKeyOf(request);
    const outcome = await runOne(() =>
      context.batchesOf(request).run(context.store(), batch, region, writeConditions(request.headers), key),
    );
    answer(reply, outcome);
  }
}

function offsetOf(request: FastifyRequest<CellRoute>): number {
  const { offset } = request.params;
  const number = /^\d{1,16}$/.test(offset) ? Number(offset) : Number.NaN;
  if (Number.isSafeInteger(number)) return number;
  throw new Problem("validation-failed", "the offset in the path must be a whole number from 0 to 2^53 - 1");
}

/** The body is the operation itself, so that pointers into a batch would name what the client never sent. */
async function runOne(run: () => BatchOutcome | Promise<BatchOutcome>): Promise<BatchOutcome> {
  try {
    return await run();
  } catch (error) {
    const problem = toProblem(error);
    if (problem === undefined) throw error;
    const failures = problem.failures.map(({ index, op, pointer, ...failure }) => {
      const own = pointer?.replace(/^\/ops\/0/, "");
      const inBody = own !== undefined && !["/offset", "/type", "/endian", ""].includes(own);
      return inBody ? { pointer: own, ...failure } : failure;
    });
    throw new Problem(problem.code, problem.detail, {
      failures,
      headers: problem.headers,
      committed: problem.committed,
    });
  }
}

function answer(reply: FastifyReply, { committed, replayed, tags, results }: BatchOutcome): void {
  const tag = tags[0]!;
  setRegionHeaders(reply, tag);
  setReplayed(reply, replayed);
  reply
    .header("content-type", jsonType)
    .send(
      `{"committed":${committed},"generation":${tag.generation},"durableGeneration":${tag.durableGeneration},"result":${results.slice(1, -1)}}`,
    );
}
