// fallbacks.ts - the answers that no route gives: unknown paths, wrong methods, what Fastify refuses by itself, what is
// not HTTP at all, and what nobody foresaw. All of them are problems like any other.
import { maxHeaderSize, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type {
  ConnectionError,
  FastifyError,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RouteOptions,
} from "fastify";
import { Problem, type ProblemCode, problemBody, toProblem } from "./errors.js";
import { notKept, pathOf, problemType, refusedByHttp, securityHeaders } from "./headers.js";
import { lingerAfter } from "./linger.js";
import type { Log } from "./log.js";
import type { Failure } from "./store/failure.js";

/** Of a body that is refused on its head; a client that reads while it sends has its answer long before. */
const lingerMs = 1000;

export function addFallbacks(app: FastifyInstance, log: Log): void {
  const routes = new MethodTable();
  app.addHook("onRoute", (route) => routes.add(route));
  app.setNotFoundHandler((request, reply) => {
    reply.headers(securityHeaders).header("request-id", request.id);
    const refusal = refusedByHttp(request.raw);
    if (refusal !== undefined) return answer(reply, refusal);
    const methods = routes.methodsOf(pathOf(request));
    if (methods.length === 0)
      return answer(reply, new Problem("route-not-found", `there is nothing at ${pathOf(request)}`));
    const allow = methods.join(", ");
    return answer(
      reply,
      new Problem("method-not-allowed", `${request.method} is not ${allow}`, { headers: { allow } }),
    );
  });
  app.setErrorHandler((error, request, reply) => {
    const problem = toProblem(error) ?? fromFastify(error as FastifyError, request);
    if (problem !== undefined) return answer(reply, problem);
    log.error({ requestId: request.id, method: request.method, path: request.url, err: error }, "request failed");
    return answer(reply, new Problem("internal"));
  });
}

/** What Fastify refuses before there is a route: a path that does not decode. */
export function answerFrameworkError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  reply.headers(securityHeaders).header("request-id", request.id);
  answer(reply, fromFastify(error, request) ?? new Problem("internal"));
}

function answer(reply: FastifyReply, problem: Problem): void {
  const { request } = reply;
  // A head that announced a body is not that of the answer.
  reply.removeHeader("content-length").removeHeader("content-disposition").removeHeader("etag");
  reply.code(problem.kind.status).headers(problem.headers).headers(notKept);
  // What is left of the body may be long, and nobody wants it.
  if (!request.raw.complete && request.raw.headers["content-length"] !== undefined) {
    reply.header("connection", "close");
    lingerAfter(request.raw, lingerMs);
  }
  reply.header("content-type", problemType).send(JSON.stringify(problemBody(problem, pathOf(request), request.id)));
}

/** Fastify answers 404 where a path exists and only the method is wrong. */
class MethodTable {
  private readonly patterns = new Map<string, { pattern: RegExp; methods: Set<string> }>();

  add({ url, method }: RouteOptions): void {
    const pattern = new RegExp(
      `^${url
        .replace(/[.]/g, "\\.")
        .replace(/:[a-z]+/gi, "[^/]+")
        .replace(/\*/g, ".*")}$`,
    );
    const entry = this.patterns.get(url) ?? { pattern, methods: new Set() };
    for (const each of [method].flat()) entry.methods.add(each);
    this.patterns.set(url, entry);
  }

  methodsOf(path: string): string[] {
    const found = new Set<string>();
    for (const { pattern, methods } of this.patterns.values()) {
      if (pattern.test(path)) for (const method of methods) found.add(method);
    }
    return [...found];
  }
}

interface ValidationError {
  instancePath: string;
  keyword: string;
  message?: string;
  params: Record<string, unknown>;
}

/** What Fastify itself refuses. Undefined: it is not the client's fault. */
function fromFastify(error: FastifyError, request: FastifyRequest): Problem | undefined {
  const { validation, validationContext } = error;
  if (validation !== undefined) return fromValidation(validation as ValidationError[], validationContext);
  switch (error.code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE": {
      const actual = Number(request.headers["content-length"]);
      const limit = request.routeOptions.bodyLimit;
      const failures: Failure[] = [{ code: "body-too-large", limit, ...(Number.isFinite(actual) && { actual }) }];
      return new Problem("body-too-large", `the body may have ${limit} bytes`, { failures });
    }
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
    case "FST_ERR_CTP_EMPTY_TYPE": {
      const sent = request.headers["content-type"];
      const takes = (request.routeOptions.config.takes ?? ["application/json"]).join(" or ");
      return new Problem("unsupported-media-type", `send ${takes}, not ${sent ?? "a body without Content-Type"}`);
    }
    case "FST_ERR_CTP_INVALID_CONTENT_LENGTH":
      return new Problem("malformed-request", "the body is not as long as Content-Length says");
    case "FST_ERR_BAD_URL":
      return new Problem("malformed-request", "the path does not decode");
    default:
      return error.statusCode === 400 || error.code === "ECONNRESET"
        ? new Problem("malformed-request", error.message)
        : undefined;
  }
}

function fromValidation(errors: readonly ValidationError[], part: string | undefined): Problem {
  const failures = errors.map(({ instancePath, keyword, message = "", params }): Failure => {
    const member = params.additionalProperty ?? params.missingProperty;
    const pointer = member === undefined ? instancePath : `${instancePath}/${String(member)}`;
    const detail =
      keyword === "additionalProperties" ? "is not known" : keyword === "required" ? "is missing" : message;
    const allowed = keyword === "enum" ? `: ${(params.allowedValues as unknown[]).join(", ")}` : "";
    return { pointer, code: "validation-failed", detail: `${detail}${allowed}` };
  });
  if (part === "querystring") {
    // A query has no pointers: the parameter's name says the same.
    const named = failures.map(({ pointer, detail }) => ({
      code: "query-param-invalid",
      detail: `${pointer?.slice(1)} ${detail}`,
    }));
    return new Problem("query-param-invalid", named[0]?.detail, { failures: named });
  }
  const [first] = failures;
  return new Problem("validation-failed", `${first?.pointer || "the body"} ${first?.detail}`, { failures });
}

const codesBelowHttp: Record<string, ProblemCode> = {
  ERR_HTTP_REQUEST_TIMEOUT: "request-timeout",
  HPE_HEADER_OVERFLOW: "headers-too-large",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "body-too-large",
};

/** Node's parser gave up: there is a socket and no request, and the answer is written by hand. */
export function answerBelowHttp(error: ConnectionError, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  let code = codesBelowHttp[error.code ?? ""] ?? "malformed-request";
  if (code === "headers-too-large" && isAllUri(error.rawPacket as unknown as Buffer | undefined)) code = "uri-too-long";
  answerRaw(socket, new Problem(code));
}

/** The parser counts the URI among the headers: here the first line alone was too much. */
function isAllUri(packet: Buffer | undefined): boolean {
  if (packet === undefined || !/^[A-Z]+ /.test(packet.toString("latin1", 0, 16))) return false;
  const end = packet.indexOf("\r\n");
  return end === -1 || end > maxHeaderSize / 2;
}

/** Writes a problem to a connection that has no request, or one that never arrived whole, and ends it. */
export function answerRaw(socket: Socket, problem: Problem): void {
  const { status } = problem.kind;
  const body = JSON.stringify(problemBody(problem, "/", "none"));
  const headers = {
    "content-type": problemType,
    "content-length": Buffer.byteLength(body),
    connection: "close",
    ...securityHeaders,
    ...notKept,
    ...problem.headers,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${body}`);
}
