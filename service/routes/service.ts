// service.ts - what the service tells about itself: documents, operations, problems.
import type { FastifyInstance } from "fastify";
import { Problem, type ProblemCode, problemCodes, problemKinds } from "../errors.js";
import { durabilities, guardNames, opNames } from "../schemas.js";
import { valueTypes } from "../store/cells.js";
import { changeRangesMax } from "../store/changed-ranges.js";
import { patternBytesMax, regionNameBytesMax, regionsPerBatchMax } from "../store/frame.js";
import { labelsMax } from "../store/regions.js";
import type { Store } from "../store/store.js";
import { description, name, version } from "../version.js";
import type { RouteContext } from "./context.js";
import { json, openProblems, problems, readProblems, tags, text } from "./describe.js";

export function serviceRoutes(app: FastifyInstance, context: RouteContext): void {
  const { lifecycle, limits, metrics } = context;

  app.route({
    method: "GET",
    url: "/",
    config: { access: "open" },
    schema: {
      operationId: "getService",
      summary: "What this is",
      description: "Name, version and where everything is.",
      tags: [tags.service],
      response: { 200: json("The service.", "Service"), ...problems(...openProblems) },
    },
    handler: () => ({
      name,
      version,
      description,
      links: {
        regions: "/v1/regions",
        batches: "/v1/batches",
        limits: "/v1/limits",
        status: "/v1/status",
        docs: "/docs",
        console: "/ui",
        openapi: "/openapi.json",
        problems: "/problems",
        health: "/readyz",
        metrics: "/metrics",
      },
    }),
  });

  app.route({
    method: "GET",
    url: "/v1/limits",
    config: { access: "read" },
    schema: {
      operationId: "getLimits",
      summary: "Limits and capabilities",
      description: "Every limit of this server. Each is a setting.",
      tags: [tags.service],
      response: { 200: json("The limits.", "Limits"), ...problems(...readProblems) },
    },
    handler: () => ({
      regionsMax: limits.regionsMax,
      snapshotsMax: limits.snapshotsMax,
      regionBytesMax: limits.regionBytesMax,
      regionNameBytesMax,
      regionLabelsMax: labelsMax,
      batchOpsMax: limits.batchOpsMax,
      batchGuardsMax: limits.batchGuardsMax,
      batchRegionsMax: regionsPerBatchMax,
      batchBytesMax: limits.batchBytesMax,
      batchBodyBytesMax: context.batchBodyBytesMax,
      patchBodyBytesMax: context.patchBodyBytesMax,
      patternBytesMax,
      rangesMax: limits.rangesMax,
      readBytesMax: limits.readBytesMax,
      viewBytesMax: limits.viewBytesMax,
      changesKeptMax: limits.changesKeptMax,
      changeRangesMax,
      eventStreamsMax: limits.eventStreamsMax,
      idempotencyKeysMin: limits.idempotencyKeysMin,
      idempotencySecondsMin: limits.idempotencySecondsMin,
      rateLimit: limits.rateLimit,
      rateLimitBurst: limits.rateLimitBurst,
      durabilities,
      types: valueTypes,
      ops: opNames,
      guards: guardNames,
    }),
  });

  app.route({
    method: "GET",
    url: "/v1/status",
    // Asked while the process is starting, standing by or stopping, too: that is when it is interesting.
    config: { access: "read", always: true },
    schema: {
      operationId: "getStatus",
      summary: "State of the process and its store",
      description:
        "Where the process is in its life, what is in flight, how full the journal is, how the last run ended.",
      tags: [tags.service],
      response: { 200: json("The status.", "Status"), ...problems(...openProblems, "unauthenticated") },
    },
    handler: () => {
      const store = context.storeIfOpen();
      return {
        state: lifecycle.state(),
        since: new Date(lifecycle.since()).toISOString(),
        inFlight: lifecycle.inFlight(),
        gateDepth: lifecycle.gateDepth(),
        lifecycle: lifecycle.statusDetail(),
        store: store === undefined ? {} : describeStore(store),
      };
    },
  });

  app.route({
    method: "GET",
    url: "/livez",
    config: { access: "open", probe: true },
    schema: {
      operationId: "getLiveness",
      summary: "Is it alive",
      description: "200 for as long as the process answers at all.",
      tags: [tags.operations],
      response: { 200: json("It is.", "Health"), ...problems("internal") },
    },
    handler: () => ({ state: lifecycle.state() }),
  });

  app.route({
    method: "GET",
    url: "/readyz",
    config: { access: "open", probe: true },
    schema: {
      operationId: "getReadiness",
      summary: "Can it be sent requests",
      description: "200 while every kind of request is served, 503 while starting, standing by or stopping.",
      tags: [tags.operations],
      response: { 200: json("It can.", "Health"), ...problems("internal", "starting", "standby", "draining") },
    },
    handler: () => {
      lifecycle.keepSignals?.();
      const state = lifecycle.state();
      if (state === "ready") return { state };
      throw new Problem(state === "starting" || state === "standby" ? state : "draining");
    },
  });

  app.route({
    method: "GET",
    url: "/metrics",
    config: { access: "open", probe: true },
    schema: {
      operationId: "getMetrics",
      summary: "Metrics",
      description: "In the text format of Prometheus.",
      tags: [tags.operations],
      response: {
        200: text("The metrics.", "text/plain", 'holdfast_lifecycle_state{state="ready"} 1\n'),
        ...problems("internal"),
      },
    },
    handler: async (_request, reply) => {
      const lines = await metrics.text(context.storeIfOpen(), lifecycle);
      reply.header("content-type", "text/plain; version=0.0.4; charset=utf-8").send(lines);
    },
  });

  app.route({
    method: "GET",
    url: "/version",
    config: { access: "open", probe: true },
    schema: {
      operationId: "getVersion",
      summary: "What is running",
      description: "Versions of the service and of Node.js.",
      tags: [tags.operations],
      response: { 200: json("The versions.", "Version"), ...problems("internal") },
    },
    handler: () => ({ name, version, node: process.version }),
  });

  app.route({
    method: "GET",
    url: "/problems",
    config: { access: "open" },
    schema: {
      operationId: "listProblems",
      summary: "Every problem",
      description: "All that a request can meet, with what to do about it.",
      tags: [tags.service],
      response: { 200: json("The problems.", "ProblemList"), ...problems(...openProblems) },
    },
    handler: () => ({ items: problemCodes.map(describeProblem) }),
  });

  app.route<{ Params: { code: string } }>({
    method: "GET",
    url: "/problems/:code",
    config: { access: "open" },
    schema: {
      operationId: "getProblem",
      summary: "A problem",
      description: "What the `type` of a problem leads to.",
      tags: [tags.service],
      params: {
        type: "object",
        required: ["code"],
        properties: {
          code: { type: "string", enum: problemCodes, description: "Code of the problem.", examples: ["guard-failed"] },
        },
      },
      response: { 200: json("The problem.", "ProblemKind"), ...problems(...openProblems, "route-not-found") },
    },
    handler: (request) => {
      const { code } = request.params;
      if (!Object.hasOwn(problemKinds, code)) throw new Problem("route-not-found", "there is no such problem");
      return describeProblem(code as ProblemCode);
    },
  });
}

function describeProblem(code: ProblemCode) {
  const { status, title, retryable, about } = problemKinds[code];
  return { code, status, title, retryable, description: about };
}

function describeStore(store: Store) {
  const status = store.status();
  return {
    regions: store.names().length,
    journal: {
      bytes: status.journalBytes,
      usedBytes: status.journalUsedBytes,
      committed: status.committed,
      applied: status.applied,
      durable: status.durable,
      checkpoint: status.checkpoint,
    },
    counters: {
      commits: status.commits,
      flushes: status.flushes,
      checkpoints: status.checkpoints,
      faultsCaught: status.faultsCaught,
      idempotencyKeys: status.idempotencyKeys,
    },
    lease: { since: new Date(status.leaseSinceMs).toISOString(), fileSystem: status.fileSystem },
    recovery: status.recovery,
  };
}
