// app.ts - the Fastify instance, built and not listening. It puts the parts together and owns no behaviour: routes are in
// routes/, what happens around them in gate.ts and fallbacks.ts.
//
// What is left at Fastify's default is so on purpose; each option below names what goes wrong without it.
import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import Fastify, { type FastifyInstance, LogController } from "fastify";
import { Tokens } from "./access.js";
import { takeJson } from "./body.js";
import type { Config } from "./config.js";
import { addDocumentation } from "./documentation.js";
import { Problem } from "./errors.js";
import { addFallbacks, answerBelowHttp, answerFrameworkError, answerRaw } from "./fallbacks.js";
import { gateOf } from "./gate.js";
import type { LifecycleView } from "./lifecycle-view.js";
import { Log } from "./log.js";
import { Metrics } from "./metrics.js";
import { ReadBuffers } from "./read-buffers.js";
import { batchRoutes } from "./routes/batches.js";
import { byteRangePatchRoutes } from "./routes/byterange-patch.js";
import { cellRoutes } from "./routes/cells.js";
import { changeRoutes } from "./routes/changes.js";
import { contentRoutes } from "./routes/content.js";
import type { RouteContext } from "./routes/context.js";
import { digestRoutes } from "./routes/digest.js";
import { extentRoutes } from "./routes/extents.js";
import { regionRoutes } from "./routes/regions.js";
import { serviceRoutes } from "./routes/service.js";
import { snapshotRoutes } from "./routes/snapshots.js";
import { viewRoutes } from "./routes/view.js";
import { components } from "./schemas.js";
import { Batches } from "./store/batches.js";
import { ChangeFeed } from "./store/change-feed.js";
import { RegionChanges } from "./store/regions.js";
import { Snapshots } from "./store/snapshots.js";
import type { Store } from "./store/store.js";
import type { Tracing } from "./tracing.js";
import { addConsole } from "./ui.js";
import { lazyValidators } from "./validation.js";

export interface AppParts {
  config: Config;
  /** Undefined until the store is open. */
  store: () => Store | undefined;
  lifecycle: LifecycleView;
  /** Set: requests and their commits are traced. */
  tracing?: Tracing | undefined;
}

/** Around the data of a batch, which is twice as long in hex: names, offsets and punctuation of its operations or parts. */
const batchWordsBytes = 1 << 20;

/** Node pools buffers shorter than half of this; the usual answer to a range then needs no allocation of its own. */
const poolBytes = 256 << 10;
/** Sixteen readers of a megabyte, or four of the most that is read at once. */
const idleReadBytesMax = 32 << 20;

/** `documented`: with the plugins that make the document and its pages, for who asks for those. */
export async function buildApp(parts: AppParts, { documented = false } = {}): Promise<FastifyInstance> {
  const { config, store, lifecycle, tracing } = parts;
  const log = new Log(config.logLevel);
  Buffer.poolSize = poolBytes;
  const requestIds = requestIdsOf(randomBytes(4).toString("hex"));
  const app = Fastify({
    // Fastify's own logging makes a child and two listeners for each request, a quarter of the throughput.
    logger: false,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: requestIds,
    // Its 503 while closing has no Retry-After and answers health checks, too; the lifecycle closes the server.
    return503OnClosing: false,
    // A length limit of our own: 414 and 431 come from Node's parser.
    routerOptions: { maxParamLength: 1024 },
    // Never asked, because both compilers are set below; named, so that Fastify does not load its own.
    schemaController: { compilersFactory: { buildValidator: neverBuilt, buildSerializer: neverBuilt } },
    clientErrorHandler: answerBelowHttp,
    frameworkErrors: answerFrameworkError,
    // An upload may take as long as it moves; see requestIdleMsMax below.
    requestTimeout: 0,
    // Node's own 400 has no body; the gate refuses in its place, and so it does what Node would answer with a bare 417.
    http: { requireHostHeader: false },
  });
  // Who has sent his request may close his side (nc -N does); he is answered all the same.
  Object.assign(app.server, { httpAllowHalfOpen: true });
  app.server.on("checkExpectation", (request, response) => app.server.emit("request", request, response));
  // With `logger: false` all requests share this one silent logger. Given our voice, it tells Fastify's own warnings.
  const { trace, debug, info, warn, error, fatal } = log;
  Object.assign(app.log, { trace, debug, info, warn, error, fatal });
  limitIdleTime(app, config.requestIdleMsMax);
  app.setValidatorCompiler(lazyValidators(components));
  // Answers are made by our own code, from types: a serializer that drops what it does not know would only hide defects.
  app.setSerializerCompiler(() => JSON.stringify);
  app.removeAllContentTypeParsers();
  takeJson(app, "application/json");

  const metrics = new Metrics();
  const tokens = new Tokens(config);
  // Requests that an instance hands to another are counted by the first.
  const limiting = config.rateLimit > 0 && !documented ? await import("./rate-limit.js") : undefined;
  const rateLimit = await limiting?.addRateLimit(app, config);
  app.addHook("onRoute", (route) => {
    const access = route.config?.access ?? "open";
    route.onRequest = gateOf({
      access,
      always: access === "open" || route.config?.always === true,
      pages: /^\/(?:docs|ui)(?:\/|$)/.test(route.url),
      tokens,
      lifecycle,
      rateLimit: route.config?.probe === true ? undefined : rateLimit,
      tracing: route.config?.probe === true ? undefined : tracing,
      route: route.url,
      meter: metrics.meter([route.method].flat().join(","), route.url),
      log: config.logRequests ? log : undefined,
    });
  });
  addFallbacks(app, log);
  const openapi = documented ? await import("./openapi.js") : undefined;
  await openapi?.addOpenapi(app);
  for (const component of components) app.addSchema(component);

  const feed = new ChangeFeed(config.changesKeptMax);
  const batches = new Batches({ opsMax: config.batchOpsMax, guardsMax: config.batchGuardsMax }, feed);
  const context: RouteContext = {
    limits: config,
    batchBodyBytesMax: 2 * config.batchBytesMax + batchWordsBytes,
    patchBodyBytesMax: config.batchBytesMax + batchWordsBytes,
    store: () => {
      const open = store();
      if (open === undefined) throw new Problem("starting");
      return open;
    },
    storeIfOpen: store,
    lifecycle,
    batches,
    batchesOf: tracing === undefined ? () => batches : (request) => tracing.batchesOf(batches, request),
    changes: new RegionChanges(feed),
    snapshots: new Snapshots(feed),
    feed,
    readBuffers: new ReadBuffers(idleReadBytesMax),
    metrics,
  };
  regionRoutes(app, context);
  contentRoutes(app, context);
  byteRangePatchRoutes(app, context);
  digestRoutes(app, context);
  extentRoutes(app, context);
  snapshotRoutes(app, context);
  batchRoutes(app, context);
  cellRoutes(app, context);
  viewRoutes(app, context);
  changeRoutes(app, context);
  serviceRoutes(app, context);
  addConsole(app);
  if (openapi !== undefined) await openapi.addDocs(app);
  else
    addDocumentation(app, () =>
      buildApp({ ...parts, tracing: undefined, lifecycle: uncounted(lifecycle) }, { documented: true }),
    );
  return app;
}

/** The requests that an instance hands to another are counted and refused by the first. */
const uncounted = (lifecycle: LifecycleView): LifecycleView => ({
  state: () => lifecycle.state(),
  since: () => lifecycle.since(),
  closing: () => false,
  admit: () => undefined,
  finished: () => {},
  inFlight: () => lifecycle.inFlight(),
  gateDepth: () => lifecycle.gateDepth(),
  statusDetail: () => lifecycle.statusDetail(),
  stopSignal: lifecycle.stopSignal,
});

function neverBuilt(): never {
  throw new Error("Fastify's own schema compilers are not used");
}

/** A prefix for each run and a counter: unique, and no random number for each request. */
function requestIdsOf(run: string): () => string {
  let count = 0;
  return () => `${run}-${(++count).toString(36)}`;
}

/**
 * A connection on which nothing moves while a request is open on it is answered 408 and closed. Node's own requestTimeout
 * bounds the whole request instead, which no limit fits: an upload may be 64 GiB long.
 */
function limitIdleTime(app: FastifyInstance, idleMsMax: number): void {
  app.server.timeout = idleMsMax;
  app.server.on("timeout", (socket) => {
    const answering = (socket as { _httpMessage?: ServerResponse | null })._httpMessage;
    if (answering?.headersSent === true) socket.destroy();
    // It has arrived whole: what takes so long is the disk, and the answer is still to come.
    else if (answering?.req.complete === true) return;
    else answerRaw(socket, new Problem("request-timeout"));
  });
}
