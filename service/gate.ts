// gate.ts - the one hook that every request passes: constant headers, access, admission, accounting. It is made for each
// route when the route is registered, so that nothing about the route has to be looked up when a request comes.
import type { FastifyReply, FastifyRequest, HookHandlerDoneFunction } from "fastify";
import type { Access, Tokens } from "./access.js";
import { Problem } from "./errors.js";
import { notKept, pageHeaders, refusedByHttp, securityHeaders } from "./headers.js";
import type { LifecycleView } from "./lifecycle-view.js";
import type { Log } from "./log.js";
import { clock, type Meter } from "./metrics.js";
import type { RateLimit } from "./rate-limit.js";
import type { Tracing } from "./tracing.js";

declare module "fastify" {
  interface FastifyContextConfig {
    access?: Access;
    /** Served in every state of the process, as operations and documentation are. */
    always?: boolean;
    /** Asked by orchestrators and scrapers again and again: not counted by a rate limit, and in no trace. */
    probe?: boolean;
    /** Media types of its body; JSON if left out. */
    takes?: readonly string[];
    /** What the document says of its body in place of the schema's. */
    body?: object;
  }
}

export interface GateOptions {
  access: Access;
  always: boolean;
  /** Pages for browsers. */
  pages: boolean;
  tokens: Tokens;
  lifecycle: LifecycleView;
  meter: Meter;
  /** Set: requests are counted, also those without a token. */
  rateLimit: RateLimit | undefined;
  /** Set: a span for every request. */
  tracing: Tracing | undefined;
  /** Of the path, as the router has it. */
  route: string;
  /** Set: a line for every request. */
  log: Log | undefined;
}

export function gateOf({
  access,
  always,
  pages,
  tokens,
  lifecycle,
  meter,
  rateLimit,
  tracing,
  route,
  log,
}: GateOptions) {
  const mutating = access === "write";
  // What answers a POST is kept by nobody anyway.
  const headers = { ...securityHeaders, ...(!mutating && notKept), ...(pages && pageHeaders) };

  return function gate(request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction): void {
    reply.headers(headers);
    reply.header("request-id", request.id);
    const started = clock.now();
    const span = tracing?.begin(request, route);
    const refusal = refusedByHttp(request.raw) ?? tokens.check(request.headers, access);
    const closed = refusal === undefined ? lifecycle.admit(mutating) : undefined;
    const admitted = refusal === undefined && closed === undefined;
    // Emitted once for each response, whether it was sent to its end or the client went away.
    reply.raw.on("close", () => {
      const ms = clock.now() - started;
      meter.observe(reply.raw.statusCode, ms / 1000);
      if (admitted) lifecycle.finished();
      span?.end(reply.raw.statusCode, reply.raw.writableFinished);
      log?.request({
        requestId: request.id,
        method: request.method,
        path: request.url,
        status: reply.raw.statusCode,
        complete: reply.raw.writableFinished,
        ms: Math.round(ms * 1000) / 1000,
        from: request.ip,
      });
    });
    const problem = refusal ?? (closed !== undefined && !always ? new Problem(closed) : undefined);
    const proceed = problem === undefined ? done : () => done(problem);
    atTurnsEnd(rateLimit === undefined ? proceed : () => void rateLimit(request, reply).then(() => proceed(), done));
  };
}

let waiting: (() => void)[] = [];

/**
 * What one turn of the event loop has read is answered together at its end. A client whose answers come one by one sleeps
 * and is woken for each, which on a virtual machine costs more than the answer; so half of the throughput, and the latency
 * at load, hang on this. A request that came alone waits for nothing.
 */
function atTurnsEnd(proceed: () => void): void {
  if (waiting.length === 0) setImmediate(proceedAll);
  waiting.push(proceed);
}

function proceedAll(): void {
  const all = waiting;
  waiting = [];
  for (const proceed of all) proceed();
}
