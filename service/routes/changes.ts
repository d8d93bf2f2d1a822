// changes.ts - GET /v1/regions/{region}/changes: what has changed since a generation, as pages or as a stream of events.
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Problem } from "../errors.js";
import { EventStreams } from "../event-stream.js";
import { accepts, lastEventId } from "../headers.js";
import { type ChangesQuery, changesQuery, regionParams } from "../schemas.js";
import type { Change, Identity } from "../store/change-feed.js";
import type { RegionInfo } from "../store/regions.js";
import { compacted, infoOf, type RouteContext, regionOf } from "./context.js";
import { endless, json, problems, readProblems, requestHeaders, tags } from "./describe.js";

const eventsType = "text/event-stream";

const eventsExample =
  'retry: 2000\n\nid: 1769860800000000.42\nevent: batch\ndata: {"generation":42,"at":"2026-01-31T12:00:00.000Z","kind":"batch","ranges":[{"offset":64,"length":5}],"durable":true}\n\n';

interface ChangesRoute {
  Querystring: ChangesQuery & { limit: number; wait: number };
}

export function changeRoutes(app: FastifyInstance, context: RouteContext): void {
  const { feed, limits, lifecycle } = context;
  const streams = new EventStreams(limits.eventStreamsMax, limits.eventCommentMs, lifecycle.stopSignal);
  context.metrics.gauge("event_streams", "Event streams that are open.", () => streams.count);
  const page = json("The changes.", "ChangePage");

  app.route<ChangesRoute>({
    method: "GET",
    url: "/v1/regions/:region/changes",
    config: { access: "read" },
    schema: {
      operationId: "listChanges",
      summary: "What has changed",
      description: [
        "Each generation of a region with the ranges that it changed, from memory: the last `changesKeptMax` of this run of the service.",
        "With `Accept: text/event-stream` as events that go on: `id` is the region's incarnation and the generation, and `event` the kind. `reset`: changes in between are no longer remembered, read the region anew. `overflow`: the same, for a reader that was too slow, which is closed. `delete`: the region is gone. `bye`: the service stops. `Last-Event-ID` resumes, by an `id` or a generation alone; with an `id` of a region that is gone, its successor's stream begins with a `reset`.",
        "Changes of labels and other settings make no generation and are not told.",
      ].join("\n\n"),
      tags: [tags.regions],
      params: regionParams,
      querystring: changesQuery,
      headers: requestHeaders.events,
      response: {
        200: {
          ...page,
          content: { ...page.content, [eventsType]: { schema: endless, example: eventsExample } },
        },
        ...problems(
          ...readProblems,
          "header-invalid",
          "query-param-invalid",
          "region-not-found",
          "generation-compacted",
        ),
      },
    },
    handler: async (request, reply) => {
      const name = regionOf(request);
      const info = infoOf(context.store(), name);
      const { since, limit, wait } = request.query;
      // A HEAD neither waits nor holds a stream open: it is told what a page would be.
      const isGet = request.method === "GET";
      if (isGet && accepts(request.headers, eventsType)) return stream(request, reply, name, info);
      if (!isGet || wait === 0) return pageOf(name, since, limit);
      const after = since ?? info.generation;
      const { gap, newest } = feed.read(name, info, after, 0);
      if (!gap && newest <= after) await someChange(request, name, info, wait);
      return pageOf(name, after, limit);
    },
  });

  function pageOf(name: string, since: number | undefined, limit: number) {
    const info = infoOf(context.store(), name);
    const changes = feed.read(name, info, since, limit);
    if (changes.gap) throw compacted(changes, since ?? 0, info);
    const { items, oldest } = changes;
    const next = items.at(-1)?.generation ?? since ?? oldest;
    return { items: items.map((item) => describe(item, info)), next, oldest };
  }

  function stream(
    request: FastifyRequest<ChangesRoute>,
    reply: FastifyReply,
    name: string,
    info: RegionInfo,
  ): FastifyReply {
    if (streams.full) {
      throw new Problem("rate-limited", `${limits.eventStreamsMax} event streams are open, as many as there may be`, {
        headers: { "retry-after": "5" },
      });
    }
    const last = lastEventId(request.headers);
    const since = last?.generation ?? request.query.since ?? info.generation;
    const isOther = last?.incarnation !== undefined && !feed.isSame(name, last as Identity, info);
    // While it lives it is the region of now: a successor of the same name has streams of its own.
    let latest = info;
    const current = () => {
      const now = context.storeIfOpen()?.info(name);
      if (now !== undefined && feed.isSame(name, latest, now)) latest = now;
      return latest;
    };
    withoutTimeout(request);
    reply.header("content-type", eventsType);
    // Nothing follows a stream on its connection, so its end is the connection's.
    reply.header("connection", "close");
    const events = streams.start(
      {
        incarnation: () => current().incarnation,
        read: (from, limit) => feed.read(name, current(), from, limit),
        describe: (items) => {
          const now = current();
          return items.map((item) => describe(item, now));
        },
        watch: (watcher) => feed.watch(name, info, watcher),
      },
      since,
      isOther,
    );
    const { socket } = request.raw;
    if (socket.readableEnded) events.probe();
    else socket.once?.("end", () => events.probe());
    return reply.send(events);
  }

  /** Until the region changes or goes, the service stops, the client goes, or the time is over. */
  async function someChange(request: FastifyRequest, name: string, info: RegionInfo, seconds: number): Promise<void> {
    const { stopSignal } = lifecycle;
    if (stopSignal.aborted) return;
    const restoreTimeout = withoutTimeout(request);
    const { socket } = request.raw;
    const cleanup: (() => void)[] = [];
    await new Promise<void>((resolve) => {
      const stop = () => resolve();
      const timer = setTimeout(stop, seconds * 1000);
      cleanup.push(() => clearTimeout(timer));
      stopSignal.addEventListener("abort", stop);
      cleanup.push(() => stopSignal.removeEventListener("abort", stop));
      socket.on("close", stop);
      cleanup.push(() => socket.removeListener("close", stop));
      cleanup.push(feed.watch(name, info, { changed: stop, removed: stop }));
    });
    for (const undo of cleanup) undo();
    restoreTimeout();
  }

  /** Waiting is not the silence that ends a request. Injected requests have no socket to tell. */
  function withoutTimeout({ raw: { socket } }: FastifyRequest): () => void {
    socket.setTimeout?.(0);
    return () => socket.setTimeout?.(app.server.timeout);
  }
}

function describe({ generation, at, kind, ranges }: Change, info: RegionInfo) {
  const durable = generation <= info.durableGeneration;
  return { generation, at: new Date(at).toISOString(), kind, ranges, durable };
}
