// tracing.ts - traces for OpenTelemetry: a span for each request, and below it one for each of its commits. Loaded only when the
// standard variables of the environment ask for it (config.ts says which); endpoint, headers, sampler, queue and resource
// attributes are read from them by the SDK itself.
//
// Contexts are handed on by hand: a request's batches are run through `batchesOf`, so that nothing follows every promise of
// the process. Spans leave in the background; a collector that does not answer costs spans, and neither requests nor the end.
import {
  type Context,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from "@opentelemetry/sdk-trace-base";
import type { FastifyRequest } from "fastify";
import { codeName } from "../native/index.js";
import type { TracingConfig } from "./config.js";
import { toProblem } from "./errors.js";
import type { Logger } from "./lifecycle.js";
import { durabilities } from "./schemas.js";
import { AnswerReader } from "./store/batch-answer.js";
import type { BatchConditions, IdempotencyKey } from "./store/batch-encoder.js";
import type { BatchOutcome, BatchRunner } from "./store/batches.js";
import { frameOps, frameRegions, frameWait } from "./store/frame.js";
import type { Store } from "./store/store.js";
import { name, version } from "./version.js";

/** A request under way. */
export interface RequestSpan {
  /** `complete`: the answer was sent to its end. */
  end(status: number, complete: boolean): void;
}

export interface Tracing {
  /** `route`: as the router has it. */
  begin(request: FastifyRequest, route: string): RequestSpan;
  /** The same batches with a span below the request's for each that is committed. */
  batchesOf(batches: BatchRunner, request: FastifyRequest): BatchRunner;
  /** Sends what has ended; never rejects. Resolves after `msMax` at the latest, whatever has become of it. */
  flush(msMax: number): Promise<void>;
}

const propagator = new W3CTraceContextPropagator();
const getter = {
  keys: (headers: FastifyRequest["headers"]) => Object.keys(headers),
  get: (headers: FastifyRequest["headers"], key: string) => headers[key],
};

export async function startTracing({ protocol }: TracingConfig, log: Logger): Promise<Tracing> {
  // What the SDK has to say is about itself: that a collector can't be reached, that spans were dropped.
  const say = (message: string, ...more: unknown[]) =>
    log.warn({ event: "tracing", ...(more.length > 0 && { more }) }, message);
  const silent = () => {};
  diag.setLogger({ error: say, warn: say, info: silent, debug: silent, verbose: silent }, DiagLogLevel.WARN);
  const exporter = await exporterOf(protocol);
  // The environment's OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
  const resource = defaultResource()
    .merge(resourceFromAttributes({ "service.name": name, "service.version": version }))
    .merge(detectResources({ detectors: [envDetector] }));
  const provider = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(exporter)] });
  const tracer = provider.getTracer(name, version);
  const contexts = new WeakMap<FastifyRequest, Context>();

  return {
    begin(request, route) {
      const { method, headers } = request;
      const [path, query] = split(request.url);
      const parent = propagator.extract(ROOT_CONTEXT, headers, getter);
      const attributes = {
        "http.request.method": method,
        "http.route": route,
        "url.scheme": request.protocol,
        "url.path": path,
        ...(query !== undefined && { "url.query": query }),
        "server.address": request.hostname,
        ...(request.ip !== undefined && { "client.address": request.ip }),
        "network.protocol.version": request.raw.httpVersion,
        ...(headers["user-agent"] !== undefined && { "user_agent.original": headers["user-agent"] }),
        "holdfast.request_id": request.id,
      };
      const span = tracer.startSpan(`${method} ${route}`, { kind: SpanKind.SERVER, attributes }, parent);
      contexts.set(request, trace.setSpan(parent, span));
      return {
        end(status, complete) {
          span.setAttribute("http.response.status_code", status);
          if (!complete) span.setAttribute("error.type", "connection_closed");
          else if (status >= 500) span.setAttribute("error.type", String(status));
          if (status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
          span.end();
        },
      };
    },

    batchesOf(batches, request) {
      const parent = contexts.get(request);
      if (parent === undefined) return batches;
      return new TracedBatches(batches, (attributes) =>
        tracer.startSpan("commit", { kind: SpanKind.INTERNAL, attributes }, parent),
      );
    },

    async flush(msMax) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, msMax);
      });
      // Of a failure the SDK has told.
      await Promise.race([provider.forceFlush().catch(silent), late]);
      clearTimeout(timer);
    },
  };
}

async function exporterOf(protocol: TracingConfig["protocol"]): Promise<SpanExporter> {
  const { OTLPTraceExporter } =
    protocol === "http/json"
      ? await import("@opentelemetry/exporter-trace-otlp-http")
      : await import("@opentelemetry/exporter-trace-otlp-proto");
  return new OTLPTraceExporter();
}

function split(url: string): [path: string, query: string | undefined] {
  const at = url.indexOf("?");
  return at === -1 ? [url, undefined] : [url.slice(0, at), url.slice(at + 1)];
}

type Attributes = Record<string, string | number | boolean | string[] | number[]>;

/** Batches whose commits are spans. What can't be encoded is one, too, with the code of its refusal. */
class TracedBatches implements BatchRunner {
  private readonly answer = new AnswerReader();

  constructor(
    private readonly batches: BatchRunner,
    private readonly start: (attributes: Attributes) => Span,
  ) {}

  run(
    store: Store,
    body: unknown,
    region: string | undefined,
    conditions?: BatchConditions,
    key?: IdempotencyKey,
  ): BatchOutcome | Promise<BatchOutcome> {
    const { ops, durability } = (body ?? {}) as { ops?: unknown; durability?: unknown };
    const span = this.begin(region, Array.isArray(ops) ? ops.length : 0);
    const run = () => this.batches.run(store, body, region, conditions, key);
    return spanned(span, run, (outcome) => tell(span, store, outcome, durability));
  }

  write(...[store, region, writes, wait, ...rest]: Parameters<BatchRunner["write"]>) {
    const span = this.begin(region, writes.length);
    const run = () => this.batches.write(store, region, writes, wait, ...rest);
    return spanned(span, run, (outcome) => tell(span, store, outcome, wait));
  }

  runFrame(store: Store, frame: Uint8Array, region: string | undefined): Uint8Array | Promise<Uint8Array> {
    const span = this.begin(region, frameOps(frame));
    // Its memory may be another frame's when the answer comes.
    const regions = frameRegions(frame);
    const wait = frameWait(frame);
    const run = () => this.batches.runFrame(store, frame, region);
    return spanned(span, run, (bytes) => {
      const { answer } = this;
      answer.open(bytes);
      if (answer.code !== 0) return failed(span, codeName(answer.code));
      const tags = regions.map((_, index) => answer.tag(index));
      tell(span, store, { committed: answer.committed, replayed: answer.replayed, regions, tags }, wait);
    });
  }

  private begin(region: string | undefined, ops: number): Span {
    return this.start({ "holdfast.batch.ops": ops, ...(region !== undefined && { "holdfast.regions": [region] }) });
  }
}

function spanned<T>(span: Span, run: () => T | Promise<T>, done: (value: T) => void): T | Promise<T> {
  const succeed = (value: T): T => {
    done(value);
    span.end();
    return value;
  };
  const fail = (error: unknown): never => {
    failed(span, toProblem(error)?.code ?? "internal");
    span.end();
    throw error;
  };
  try {
    const value = run();
    return value instanceof Promise ? value.then(succeed, fail) : succeed(value);
  } catch (error) {
    return fail(error);
  }
}

function failed(span: Span, code: string): void {
  span.setAttribute("error.type", code.replaceAll("_", "-"));
  span.setStatus({ code: SpanStatusCode.ERROR });
}

/** `asked`: how long the answer was to wait; anything but a durability for as long as the strictest region asks. */
function tell(
  span: Span,
  store: Store,
  { committed, replayed, regions, tags }: Pick<BatchOutcome, "committed" | "replayed" | "regions" | "tags">,
  asked: unknown,
): void {
  const own = regions.map((region) => durabilities.indexOf(store.info(region)?.durability ?? "fast"));
  const durability = durabilities.find((known) => known === asked) ?? durabilities[Math.max(...own)];
  span.setAttributes({
    "holdfast.regions": [...regions],
    "holdfast.generations": tags.map(({ generation }) => generation),
    "holdfast.durable_generations": tags.map(({ durableGeneration }) => durableGeneration),
    "holdfast.batch.committed": committed,
    "holdfast.batch.replayed": replayed,
    ...(durability !== undefined && { "holdfast.durability": durability }),
  });
}
