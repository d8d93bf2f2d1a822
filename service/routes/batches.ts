// batches.ts - POST /v1/regions/{region}/batches and POST /v1/batches.
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { jsonType, refuseConditions, writeConditions } from "../headers.js";
import { regionParams } from "../schemas.js";
import type { BatchOutcome } from "../store/batches.js";
import { unchecked } from "../validation.js";
import { keyOf, type RouteContext, regionOf, setRegionHeaders, setReplayed, setServerTiming } from "./context.js";
import {
  bodyProblems,
  commitProblems,
  conditionProblems,
  json,
  keyProblems,
  problems,
  ref,
  regionHeaders,
  replayHeader,
  requestHeaders,
  tags,
  timingHeader,
  writeProblems,
} from "./describe.js";

const batchProblems = [
  ...writeProblems,
  ...bodyProblems,
  ...keyProblems,
  ...commitProblems,
  "cas-mismatch",
  "overflow",
  "guard-failed",
  "out-of-bounds",
  "misaligned",
  "value-out-of-range",
  "too-many-ops",
] as const;

const oneRegionExample = {
  summary: "A counter and a greeting that land together",
  value: {
    ops: [
      { op: "write", offset: 64, data: "SGVsbG8=" },
      { op: "add", offset: 8, type: "u64", value: "1" },
    ],
  },
};
const guardedExample = {
  summary: "Only if a cell holds what is expected",
  value: {
    guards: [{ kind: "value", offset: 0, type: "u32", op: "eq", value: 0 }],
    ops: [{ op: "store", offset: 0, type: "u32", value: 1 }],
    elseOps: [{ op: "load", offset: 0, type: "u32" }],
  },
};
const manyRegionsExample = {
  summary: "Move a unit from one region to another",
  value: {
    ops: [
      { op: "add", region: "demo", offset: 8, type: "u64", value: "1" },
      { op: "add", region: "demo", offset: 16, type: "i64", value: "-1" },
    ],
  },
};

export function batchRoutes(app: FastifyInstance, context: RouteContext): void {
  const { batches, batchBodyBytesMax } = context;
  // Bodies are checked by the encoder in the pass that encodes them; the schema is for the document. One without `content`,
  // so that Fastify sees at once that there is nothing to do.
  const validatorCompiler = () => unchecked;

  app.route({
    method: "POST",
    url: "/v1/regions/:region/batches",
    config: { access: "write" },
    bodyLimit: batchBodyBytesMax,
    validatorCompiler,
    schema: {
      operationId: "commitBatch",
      summary: "Commit a batch",
      description:
        "Runs guards and operations on one consistent view of the region. All operations land together or none does, whatever kills the service meanwhile.",
      tags: [tags.batches],
      params: regionParams,
      headers: requestHeaders.change,
      consumes: ["application/json"],
      body: { allOf: [ref("Batch")], "x-examples": { simple: oneRegionExample, guarded: guardedExample } },
      response: {
        200: json("The batch was run.", "BatchAnswer", { ...regionHeaders, ...replayHeader, ...timingHeader }),
        ...problems(...batchProblems, ...conditionProblems),
      },
    },
    handler: (request, reply) => {
      const region = regionOf(request);
      const conditions = writeConditions(request.headers);
      const key = keyOf(request, () => [JSON.stringify(request.body)]);
      const outcome = batches.run(context.store(), request.body, region, conditions, key);
      if (outcome instanceof Promise) return timed(reply, outcome, answerOne);
      answerOne(reply, outcome);
      return undefined;
    },
  });

  app.route({
    method: "POST",
    url: "/v1/batches",
    config: { access: "write" },
    bodyLimit: batchBodyBytesMax,
    validatorCompiler,
    schema: {
      operationId: "commitMultiBatch",
      summary: "Commit a batch over several regions",
      description:
        "The same for up to 64 regions: every guard and operation names its own, and all land together. The wait is that of the strictest region.",
      tags: [tags.batches],
      headers: requestHeaders.key,
      consumes: ["application/json"],
      body: { allOf: [ref("MultiBatch")], "x-examples": { move: manyRegionsExample } },
      response: {
        200: json("The batch was run.", "MultiBatchAnswer", { ...replayHeader, ...timingHeader }),
        ...problems(...batchProblems),
      },
    },
    handler: (request: FastifyRequest, reply) => {
      refuseConditions(request.headers);
      const key = keyOf(request, () => [JSON.stringify(request.body)]);
      const outcome = batches.run(context.store(), request.body, undefined, undefined, key);
      if (outcome instanceof Promise) return timed(reply, outcome, answerMany);
      answerMany(reply, outcome);
      return undefined;
    },
  });
}

/** Only a batch that waited tells for how long: to say so of others would be a tenth of their time. */
async function timed(
  reply: FastifyReply,
  waiting: Promise<BatchOutcome>,
  then: (reply: FastifyReply, outcome: BatchOutcome) => void,
): Promise<void> {
  const since = performance.now();
  const outcome = await waiting;
  setServerTiming(reply, since);
  then(reply, outcome);
}

function answerOne(reply: FastifyReply, { committed, replayed, branch, tags, results }: BatchOutcome): void {
  const tag = tags[0]!;
  reply.header("content-type", jsonType);
  setRegionHeaders(reply, tag);
  setReplayed(reply, replayed);
  reply.send(
    `{"committed":${committed},"branch":"${branch}","generation":${tag.generation},"durableGeneration":${tag.durableGeneration},"results":${results}}`,
  );
}

function answerMany(reply: FastifyReply, { committed, replayed, branch, regions, tags, results }: BatchOutcome): void {
  const byRegion = (of: "generation" | "durableGeneration") =>
    JSON.stringify(Object.fromEntries(regions.map((name, i) => [name, tags[i]![of]])));
  reply.header("content-type", jsonType);
  setReplayed(reply, replayed);
  reply.send(
    `{"committed":${committed},"branch":"${branch}","generations":${byRegion("generation")},"durableGenerations":${byRegion("durableGeneration")},"results":${results}}`,
  );
}
