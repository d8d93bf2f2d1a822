// Traces as a collector gets them: spans of requests and their commits, with the right parents; and a collector that is dead
// or hangs, which must not hold up the end of the process.
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import t, { type Test } from "tap";
import { Client } from "../../service/client.js";
import { ServiceProcess } from "../service-process.js";

interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  status: { code: number };
  attributes: Record<string, unknown>;
}

type OtlpValue = { arrayValue?: { values: OtlpValue[] } } & Record<string, unknown>;
type OtlpAttributes = { key: string; value: OtlpValue }[];

const plain = (value: OtlpValue): unknown =>
  value.arrayValue === undefined ? Object.values(value)[0] : value.arrayValue.values.map(plain);
const object = (attributes: OtlpAttributes) =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, plain(value)]));

/** What a collector was sent. */
class Collector {
  readonly requests: { url: string; type: string; body: Buffer }[] = [];
  resource: Record<string, unknown> = {};
  readonly spans: OtlpSpan[] = [];
  url = "";

  static async start(t: Test): Promise<Collector> {
    const collector = new Collector();
    const server = createServer((request, response) => {
      void collector.take(request).then(() => response.setHeader("content-type", "application/json").end("{}"));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.teardown(() => {
      server.closeAllConnections();
      server.close();
    });
    collector.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return collector;
  }

  private async take(request: IncomingMessage): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const type = String(request.headers["content-type"]);
    this.requests.push({ url: String(request.url), type, body });
    if (type !== "application/json") return;
    for (const { resource, scopeSpans } of JSON.parse(body.toString()).resourceSpans) {
      this.resource = object(resource.attributes);
      for (const { spans } of scopeSpans) {
        for (const span of spans) this.spans.push({ ...span, attributes: object(span.attributes) });
      }
    }
  }

  find(name: string, attributes: Record<string, unknown> = {}): OtlpSpan | undefined {
    return this.spans.find(
      (span) =>
        span.name === name && Object.entries(attributes).every(([key, value]) => span.attributes[key] === value),
    );
  }
}

async function traced(t: Test, env: Record<string, string>): Promise<{ service: ServiceProcess; url: string }> {
  const service = await ServiceProcess.ready({ env });
  t.teardown(() => service.remove());
  return { service, url: `http://127.0.0.1:${service.port}` };
}

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const parentId = "00f067aa0ba902b7";
const traceparent = `00-${traceId}-${parentId}-01`;
const json = { "content-type": "application/json" };

t.test("a request and its commits", { timeout: 60_000 }, async (t) => {
  const collector = await Collector.start(t);
  const { service, url } = await traced(t, {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
    OTEL_SERVICE_NAME: "store-of-the-test",
    OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test",
  });
  const post = (path: string, body: object | string, headers: Record<string, string> = {}) =>
    fetch(`${url}${path}`, {
      method: "POST",
      headers: { ...json, ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    }).then((answer) => answer.text());
  for (const [name, durability] of Object.entries({ demo: "durable", quick: "ordered" })) {
    await post("/v1/regions", { name, size: 4096, durability });
  }
  const write = { op: "write", offset: 0, data: "AAAA" };
  await post("/v1/regions/demo/batches", { ops: [write, write] }, { traceparent });
  await post("/v1/regions/demo/batches?x=1", { ops: [{ ...write, offset: 9999 }] });
  await post("/v1/batches", {
    ops: [
      { ...write, region: "quick" },
      { ...write, region: "demo" },
    ],
  });
  const lines = `${JSON.stringify({ ops: [write], durability: "durable" })}\n`.repeat(3);
  await post("/v1/regions/quick/batches", lines, {
    "content-type": "application/x-ndjson",
    "user-agent": "of-streams",
  });
  await fetch(`${url}/v1/regions/quick/content`, {
    method: "PUT",
    headers: { "content-range": "bytes 0-3/*" },
    body: "abcd",
  });
  await fetch(`${url}/v1/regions/quick/content`, { headers: { range: "bytes=0-3" } });
  await fetch(`${url}/livez`);
  const end = await service.stop();
  t.equal(end.code, 0);
  t.ok(end.ms < 1000, `${end.ms} ms`);

  t.match(collector.resource, {
    "service.name": "store-of-the-test",
    "service.version": /^\d/,
    "deployment.environment.name": "test",
    "telemetry.sdk.language": "nodejs",
  });
  t.match(collector.requests[0], { url: "/v1/traces", type: "application/json" });
  const children = ({ spanId }: OtlpSpan) => collector.spans.filter(({ parentSpanId }) => parentSpanId === spanId);

  const route = "POST /v1/regions/:region/batches";
  const request = collector.find(route, { "http.response.status_code": 200 })!;
  t.match(request, { traceId, parentSpanId: parentId, kind: 2, status: { code: 0 } }, "the caller's trace goes on");
  t.match(request.attributes, {
    "http.request.method": "POST",
    "http.route": "/v1/regions/:region/batches",
    "url.path": "/v1/regions/demo/batches",
    "url.scheme": "http",
    "server.address": "127.0.0.1",
    "client.address": "127.0.0.1",
    "network.protocol.version": "1.1",
    "holdfast.request_id": String,
  });
  const [commit, ...others] = children(request);
  t.equal(others.length, 0);
  t.match(commit, { traceId, name: "commit", kind: 1, status: { code: 0 } });
  t.same(commit?.attributes, {
    "holdfast.batch.ops": 2,
    "holdfast.regions": ["demo"],
    "holdfast.generations": [1],
    "holdfast.durable_generations": [1],
    "holdfast.batch.committed": true,
    "holdfast.batch.replayed": false,
    "holdfast.durability": "durable",
  });

  const refused = collector.find(route, { "http.response.status_code": 422 })!;
  t.equal(refused.parentSpanId, undefined, "nobody's child");
  t.match(refused.attributes, { "url.query": "x=1" });
  t.equal(refused.status.code, 0, "the client's mistake is no error of a server");
  t.match(children(refused), [{ status: { code: 2 }, attributes: { "error.type": "out-of-bounds" } }]);

  t.match(children(collector.find("POST /v1/batches")!), [
    {
      attributes: {
        "holdfast.regions": ["quick", "demo"],
        "holdfast.generations": [1, 2],
        "holdfast.durability": "durable",
      },
    },
  ]);
  const stream = children(collector.find(route, { "user_agent.original": "of-streams" })!);
  t.same(
    stream.map(({ attributes }) => attributes["holdfast.generations"]),
    [[2], [3], [4]],
    "a commit for each line",
  );
  t.equal(stream[0]?.attributes["holdfast.durability"], "durable", "as it was asked for");
  t.match(children(collector.find("PUT /v1/regions/:region/content")!), [
    { attributes: { "holdfast.generations": [5], "holdfast.durability": "ordered" } },
  ]);
  const read = collector.find("GET /v1/regions/:region/content")!;
  t.equal(read.attributes["http.response.status_code"], 206);
  t.equal(children(read).length, 0, "a read commits nothing");
  t.notOk(collector.find("GET /livez"), "probes are in no trace");
});

t.test("frames, and the standard's own encoding", { timeout: 60_000 }, async (t) => {
  const collector = await Collector.start(t);
  const { service, url } = await traced(t, { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/own/path` });
  const client = new Client(url);
  t.teardown(() => client.close());
  await client.call("createRegion", { body: { name: "demo", size: 4096 } });
  // The example of ARCHITECTURE.md: five bytes to offset 64.
  const name = Buffer.alloc(64);
  name.write("demo");
  const words = [
    Buffer.from("c0000000000000004846423101000000000000000100000001", "hex"),
    Buffer.alloc(39),
    Buffer.from("c0000000000000000400000000000000", "hex"),
    name,
    Buffer.from("110000000000000005000000000000004000000000000000", "hex"),
    Buffer.alloc(24),
    Buffer.from("48656c6c6f000000", "hex"),
  ];
  const sent = await fetch(`${url}/v1/regions/demo/batches`, {
    method: "POST",
    headers: { "content-type": "application/vnd.holdfast.batch", traceparent },
    body: Buffer.concat(words),
  });
  t.equal((await sent.arrayBuffer()).byteLength, 112);
  t.equal((await service.stop()).code, 0);
  const all = Buffer.concat(collector.requests.map(({ body }) => body));
  t.match(collector.requests[0], { url: "/own/path", type: "application/x-protobuf" });
  t.ok(all.includes(Buffer.from(traceId, "hex")), "the trace");
  for (const text of ["commit", "POST /v1/regions/:region/batches", "holdfast.generations", "holdfast"]) {
    t.ok(all.includes(text), text);
  }
});

t.test("a caller that does not want its trace is not traced", { timeout: 60_000 }, async (t) => {
  const collector = await Collector.start(t);
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" };
  const { service, url } = await traced(t, env);
  await (await fetch(`${url}/v1/limits`, { headers: { traceparent: `00-${traceId}-${parentId}-00` } })).text();
  await (await fetch(`${url}/v1/status`, { headers: { traceparent: "not one" } })).text();
  await service.stop();
  t.same(
    collector.spans.map(({ name }) => name),
    ["GET /v1/status"],
  );
});

for (const [how, answer] of [
  ["hangs", (socket: { on(event: "error", listener: () => void): void }) => socket.on("error", () => {})],
  ["is dead", undefined],
] as const) {
  t.test(`a collector that ${how} does not hold up the end`, { timeout: 60_000 }, async (t) => {
    const server = createTcpServer(answer);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    if (answer === undefined) {
      server.close();
      await once(server, "close");
    } else {
      t.teardown(() => server.close());
    }
    const { service, url } = await traced(t, { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` });
    for (let sent = 0; sent < 20; sent++) await (await fetch(`${url}/v1/limits`)).text();
    const end = await service.stop();
    t.equal(end.code, 0);
    t.ok(end.ms < 1000, `${end.ms} ms`);
    t.equal(service.find("close_cut"), undefined, "and the store was closed");
  });
}

t.test("without its variables nothing of it is loaded", { timeout: 60_000 }, async (t) => {
  for (const [env, loaded] of [
    [{ OTEL_SERVICE_NAME: "anything" }, false],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_SDK_DISABLED: "true" }, false],
    [{ OTEL_TRACES_EXPORTER: "otlp" }, true],
  ] as const) {
    // The loader of ES modules tells of each that it reads.
    const service = await ServiceProcess.ready({ env: { ...env, NODE_DEBUG: "esm" } });
    t.teardown(() => service.remove());
    await service.stop();
    t.equal(/@opentelemetry/.test(service.stderr), loaded, JSON.stringify(env));
    t.match(service.stderr, /fastify/, "the loader does tell");
  }
});
