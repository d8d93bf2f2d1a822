// batches.ts - POST /v1/regions/{region}/batches and POST /v1/batches: one batch as JSON, or a stream of them.
import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { textOfMany, textOfOne } from "../batch-text.js";
import { jsonType, refuseConditions, writeConditions } from "../headers.js";
import { regionParams } from "../schemas.js";
import type { BatchOutcome } from "../store/batches.js";
import { unchecked } from "../validation.js";
import { answersOf, bodyOf, streamBatches, streamsAbout, streamTypes } from "./batch-streams.js";
import { jsonKeyOf, type RouteContext, regionOf, setRegionHeaders, setReplayed, setServerTiming } from "./context.js";
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

const takes = ["application/json", ...streamTypes];

export function batchRoutes(app: FastifyInstance, context: RouteContext): void {
  // Streams have parsers of their own, which the other routes have not.
  app.register(async (scope) => {
    scope.addContentTypeParser([...streamTypes], (_request, payload, done) => done(null, payload));
    addRoutes(scope, context);
  });
}

function addRoutes(app: FastifyInstance, context: RouteContext): void {
  const { batchBodyBytesMax } = context;
  // Bodies are checked by the encoder in the pass that encodes them; the schema is for the document. One without `content`,
  // so that Fastify sees at once that there is nothing to do.
  const validatorCompiler = () => unchecked;

  app.route({
    method: "POST",
    url: "/v1/regions/:region/batches",
    config: {
      access: "write",
      takes,
      body: bodyOf({ allOf: [ref("Batch")], "x-examples": { simple: oneRegionExample, guarded: guardedExample } }),
    },
    bodyLimit: batchBodyBytesMax,
    validatorCompiler,
    schema: {
      operationId: "commitBatch",
      summary: "Commit a batch",
      description: [
        "Runs guards and operations on one consistent view of the region. All operations land together or none does, whatever kills the service meanwhile.",
        ...streamsAbout,
      ].join("\n\n"),
      tags: [tags.batches],
      params: regionParams,
      headers: requestHeaders.change,
      body: ref("Batch"),
      response: {
        200: answersOf(
          json("The batch was run.", "BatchAnswer", { ...regionHeaders, ...replayHeader, ...timingHeader }),
        ),
        ...problems(...batchProblems, ...conditionProblems),
      },
    },
    handler: (request, reply) => {
      const region = regionOf(request);
      if (request.body instanceof Readable) return streamBatches(context, request, reply, region);
      const conditions = writeConditions(request.headers);
      const key = jsonKeyOf(request);
      const outcome = context.batchesOf(request).run(context.store(), request.body, region, conditions, key);
      if (outcome instanceof Promise) return timed(reply, outcome, answerOne);
      answerOne(reply, outcome);
      return undefined;
    },
  });

  app.route({
    method: "POST",
    url: "/v1/batches",
    config: {
      access: "write",
      takes,
      body: bodyOf({ allOf: [ref("MultiBatch")], "x-examples": { move: manyRegionsExample } }),
    },
    bodyLimit: batchBodyBytesMax,
    validatorCompiler,
    schema: {
      operationId: "commitMultiBatch",
      summary: "Commit a batch over several regions",
      description: [
        "The same for up to 64 regions: every guard and operation names its own, and all land together. The wait is that of the strictest region.",
        ...streamsAbout,
      ].join("\n\n"),
      tags: [tags.batches],
      headers: requestHeaders.key,
      body: ref("MultiBatch"),
      response: {
        200: answersOf(json("The batch was run.", "MultiBatchAnswer", { ...replayHeader, ...timingHeader })),
        ...problems(...batchProblems),
      },
    },
    handler: (request: FastifyRequest, reply) => {
      if (request.body instanceof Readable) return streamBatches(context, request, reply, undefined);
      refuseConditions(request.headers, "a batch over several regions has guards");
      const key = jsonKeyOf(request);
      const outcome = context.batchesOf(request).run(context.store(), request.body, undefined, undefined, key);
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

function answerOne(reply: FastifyReply, outcome: BatchOutcome): void {
  reply.header("content-type", jsonType);
  setRegionHeaders(reply, outcome.tags[0]!);
  setReplayed(reply, outcome.replayed);
  reply.send(textOfOne(outcome));
}

function answerMany(reply: FastifyReply, outcome: BatchOutcome): void {
  reply.header("content-type", jsonType);
  setReplayed(reply, outcome.replayed);
  reply.send(textOfMany(outcome));
}
