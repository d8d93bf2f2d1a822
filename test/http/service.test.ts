// What the service tells about itself, to whom, and in which state of its life.
import { readFileSync } from "node:fs";
import { generate, pathOf } from "../../openapi/export.js";
import { problemCodes } from "../../service/errors.js";
import { Lifecycle } from "../../service/lifecycle.js";
import type { LifecycleState } from "../../service/lifecycle-view.js";
import { Log } from "../../service/log.js";
import { Metrics } from "../../service/metrics.js";
import { storeTest } from "../fixture.js";

const json = { "content-type": "application/json" };

storeTest("documents", async (t, f) => {
  const service = await f.get("/");
  t.equal(service.json.name, "holdfast");
  for (const [name, url] of Object.entries<string>(service.json.links)) {
    const { status } = await f.get(url);
    t.equal(status, name === "batches" ? 405 : 200, `${name}: ${url}`);
  }
  const limits = await f.get("/v1/limits");
  t.match(limits.json, { regionsMax: 1024, batchBytesMax: 256 * 1024, durabilities: ["fast", "ordered", "durable"] });
  t.equal(limits.json.types.length, 10);
  t.match((await f.get("/version")).json, { name: "holdfast", node: process.version });
  t.match((await f.get("/livez")).json, { state: "ready" });
});

storeTest("every problem has a page", async (t, f) => {
  const { json: list } = await f.get("/problems");
  t.same(
    list.items.map(({ code }: { code: string }) => code),
    problemCodes,
  );
  for (const code of problemCodes) t.equal((await f.get(`/problems/${code}`)).json.code, code);
  const { json: problem } = await f.get("/v1/regions/nope");
  t.equal((await f.get(problem.type)).json.title, problem.title);
});

storeTest("the exported document is this one", async (t, f) => {
  for (const [file, text] of await generate()) {
    t.equal(readFileSync(pathOf(file), "utf8"), text, `openapi/${file} is what the routes say: npm run openapi`);
  }
  t.equal((await f.get("/openapi.json")).text, readFileSync(pathOf("openapi.json"), "utf8"));
  const { paths } = (await f.get("/openapi.json")).json as {
    paths: Record<string, Record<string, Record<string, unknown>>>;
  };
  const operations = Object.values(paths).flatMap((path) => Object.values(path));
  const ids = operations.map(({ operationId }) => operationId);
  t.equal(new Set(ids).size, ids.length, "operationIds are unique");
  for (const operation of operations) {
    for (const member of ["operationId", "summary", "description", "tags", "responses"]) {
      t.ok(operation[member], `${String(operation.operationId)} has ${member}`);
    }
  }
});

storeTest("pages for people", async (t, f) => {
  for (const page of ["/docs", "/ui"]) {
    const { status, headers, text } = await f.get(page);
    t.equal(status, 200);
    t.match(headers["content-type"], /^text\/html/);
    t.match(headers["content-security-policy"], /default-src 'none'; script-src 'self'/);
    const links = [...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url]) => url!);
    t.ok(links.length > 2, `${page} has parts`);
    for (const url of links) {
      const part = await f.get(url);
      t.equal(part.status, 200, url);
      t.equal(part.headers["x-content-type-options"], "nosniff");
    }
  }
  for (const url of ["/ui/none.js", "/ui/tsconfig.json", "/ui/..%2Fpackage.json", "/ui/index.html/"]) {
    t.match((await f.get(url)).json, { status: 404, code: "route-not-found" }, url);
  }
  t.match((await f.get("/docs/static/swagger-initializer.js")).text, /preauthorizeApiKey\("bearer", token\)/);
});

storeTest("metrics and status", async (t, f) => {
  await f.region("demo", 8);
  await f.batch("demo", { ops: [{ op: "write", offset: 0, data: "AAAA" }] });
  await f.get("/v1/regions/nope");
  const { text, headers } = await f.get("/metrics");
  t.match(headers["content-type"], /^text\/plain; version=0\.0\.4/);
  for (const line of [
    'holdfast_http_requests_total{method="POST",route="/v1/regions/:region/batches",status="200"} 1',
    'holdfast_http_requests_total{method="GET",route="/v1/regions/:region",status="404"} 1',
    'holdfast_http_request_seconds_bucket{method="POST",route="/v1/regions",le="+Inf"} 1',
    "holdfast_regions 1",
    "holdfast_regions_unverified 0",
    'holdfast_lifecycle_state{state="ready"} 1',
    "holdfast_requests_in_flight 1",
  ]) {
    t.ok(text.split("\n").includes(line), line);
  }
  t.match(text, /^nodejs_eventloop_lag_seconds /m);
  for (const line of text.split("\n")) {
    t.match(line, /^(?:|# (?:HELP|TYPE) .+|[a-z0-9_]+(?:\{[^{}]*\})? [-+0-9.eNaInf]+)$/, line);
  }
  const { json: status } = await f.get("/v1/status");
  t.match(status, {
    state: "ready",
    inFlight: 1,
    store: { regions: 1, counters: { commits: Number }, recovery: { clean: true } },
  });
});

storeTest("the dashboard names metrics and labels that there are", async (t, f) => {
  await f.region("demo", 8);
  const lifecycle = new Lifecycle({ lameDuckMs: 0, bodyGraceMs: 0, softMs: 0, hardMs: 0 }, new Log("silent"));
  // What the process tells of itself, and what requests leave behind.
  const text = `${await new Metrics().text(f.store, lifecycle)}${(await f.get("/metrics")).text}`;
  const labels = new Map<string, Set<string>>();
  for (const [, name, pairs = ""] of text.matchAll(/^([a-z0-9_]+)(?:\{([^}]*)\})? /gm)) {
    const known = labels.get(name!) ?? new Set();
    for (const [, label] of pairs.matchAll(/([a-z]+)="/g)) known.add(label!);
    labels.set(name!, known);
  }
  const dashboard = readFileSync(new URL("../../../docker/grafana.json", import.meta.url), "utf8");
  const panels = JSON.parse(dashboard).panels as { title: string; targets: { expr: string; legendFormat: string }[] }[];
  const named = new Set<string>();
  for (const { title, targets } of panels) {
    for (const { expr, legendFormat } of targets) {
      const names = [...expr.matchAll(/\b(?:holdfast|nodejs|process)_[a-z0-9_]+/g)].map(([name]) => name);
      t.ok(names.length > 0, `${title}: ${expr}`);
      for (const name of names) t.ok(labels.has(name), `${title}: ${name} is told by /metrics`);
      for (const name of names) named.add(name);
      const by = /\bby \(([^)]*)\)/.exec(expr)?.[1]?.split(/, */) ?? [];
      const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!);
      // Prometheus itself adds the instance.
      for (const label of [...by, ...shown].filter((one) => one !== "instance")) {
        const has = names.some((name) => labels.get(name)?.has(label));
        t.ok(has, `${title}: ${label} is a label of ${names.join(", ")}`);
      }
    }
  }
  t.ok(named.size > 20, `${named.size} metrics are on the dashboard`);
});

const readsOf = (snapshot: string) => [
  "/v1/regions",
  "/v1/regions/demo",
  "/v1/regions/demo/content",
  "/v1/regions/demo/view",
  "/v1/regions/demo/digest",
  "/v1/regions/demo/extents",
  "/v1/regions/demo/cells/0",
  "/v1/regions/demo/changes",
  "/v1/regions/demo/snapshots",
  `/v1/regions/demo/snapshots/${snapshot}`,
  "/v1/limits",
];
const always = ["/", "/livez", "/metrics", "/version", "/problems", "/openapi.json", "/docs", "/ui", "/v1/status"];
const writes: [string, string][] = [
  ["POST", "/v1/regions"],
  ["PATCH", "/v1/regions/demo"],
  ["DELETE", "/v1/regions/demo"],
  ["PUT", "/v1/regions/demo/content"],
  ["PATCH", "/v1/regions/demo/content"],
  ["POST", "/v1/regions/demo/batches"],
  ["POST", "/v1/batches"],
  ["PUT", "/v1/regions/demo/cells/0"],
  ["POST", "/v1/regions/demo/cells/0"],
  ["POST", "/v1/regions/demo/flushes"],
  ["POST", "/v1/regions/demo/snapshots"],
  ["POST", "/v1/regions/demo/snapshots/1/restores"],
  ["DELETE", "/v1/regions/demo/snapshots/1"],
];

storeTest("the operations below are all of those that need a state or a token", async (t, f) => {
  const { paths } = (await f.get("/openapi.json")).json as { paths: Record<string, Record<string, object>> };
  const operations = Object.entries(paths)
    .filter(([path]) => path.startsWith("/v1/") && path !== "/v1/status")
    .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`))
    // HEAD is what GET is, and OPTIONS tells nothing of a region.
    .filter((operation) => !/^(?:HEAD|OPTIONS) /.test(operation));
  const template = (url: string) =>
    url
      .replace("regions/demo", "regions/{region}")
      .replace("cells/0", "cells/{offset}")
      .replace("snapshots/1", "snapshots/{snapshot}");
  const named = [...readsOf("1").map((url) => ["GET", url] as const), ...writes];
  t.same(named.map(([method, url]) => `${method} ${template(url)}`).sort(), operations.sort());
});

storeTest("what is served in which state", async (t, f) => {
  await f.region("demo", 8);
  const reads = readsOf((await f.call("POST", "/v1/regions/demo/snapshots")).json.id);
  const refusals: [LifecycleState, string | undefined, string | undefined][] = [
    ["starting", "starting", "starting"],
    ["standby", "standby", "standby"],
    ["ready", undefined, undefined],
    ["lameduck", undefined, "draining"],
    ["draining", undefined, "draining"],
  ];
  for (const [state, ofReads, ofWrites] of refusals) {
    f.lifecycle.current = state;
    for (const url of always) t.equal((await f.get(url)).status, 200, `${state}: ${url}`);
    const ready = await f.get("/readyz");
    t.equal(ready.json.code, ofWrites, `${state}: /readyz`);
    for (const url of reads) t.equal((await f.get(url)).json?.code, ofReads, `${state}: ${url}`);
    if (ofWrites === undefined) continue;
    for (const [method, url] of writes) {
      const { status, json: problem, headers } = await f.call(method, url, { body: "{}", headers: json });
      t.match({ status, code: problem.code }, { status: 503, code: ofWrites }, `${state}: ${method} ${url}`);
      t.equal(headers["retry-after"], "1");
      t.match(problem, { retryable: true, committed: false });
    }
  }
  f.lifecycle.current = "ready";
  t.equal((await f.get("/v1/regions/demo")).json.generation, 0);
});

const tokens = ["--auth-token=write-token", "--auth-token-read=read-token"];
// A page of a name that leads to loopback (DNS rebinding) had the whole API.
storeTest("without a token only names that nobody can lead elsewhere are answered", async (t, f) => {
  for (const host of [
    "localhost",
    "LOCALHOST:8080",
    "app.localhost",
    "127.0.0.1:1",
    "[::1]:8080",
    "10.1.2.3",
    undefined,
  ]) {
    t.equal((await f.get("/v1/regions", host === undefined ? {} : { host })).status, 200, `Host: ${host}`);
  }
  for (const host of [
    "rebound.example",
    "rebound.example:8080",
    "localhost.example",
    "127.0.0.1.example",
    "[::1].example",
  ]) {
    const { json, headers } = await f.get("/v1/regions", { host });
    t.match(json, { status: 401, code: "unauthenticated", detail: /AUTH_TOKEN.*AUTH=none/ }, host);
    t.equal(headers["www-authenticate"], 'Bearer realm="holdfast"');
    t.equal((await f.get("/readyz", { host })).status, 200, "what is open to all is open");
  }
});

storeTest(
  "AUTH=none answers by every name",
  async (t, f) => {
    t.equal((await f.get("/v1/regions", { host: "any.example" })).status, 200);
  },
  "--auth=none",
);

storeTest(
  "tokens",
  async (t, f) => {
    const as = (token: string) => ({ authorization: `Bearer ${token}` });
    const created = await f.call("POST", "/v1/regions", {
      body: { name: "demo", size: 8 },
      headers: as("write-token"),
    });
    t.equal(created.status, 201);
    const snapshot = await f.call("POST", "/v1/regions/demo/snapshots", { headers: as("write-token") });
    const reads = readsOf(snapshot.json.id);
    for (const url of always.filter((path) => path !== "/v1/status")) t.equal((await f.get(url)).status, 200, url);
    for (const url of [...reads, "/v1/status"]) {
      t.equal((await f.get(url, as("write-token"))).status, 200, url);
      t.equal((await f.get(url, as("read-token"))).status, 200, url);
      const without = await f.get(url);
      t.match(without.json, { status: 401, code: "unauthenticated" }, url);
      t.equal(without.headers["www-authenticate"], 'Bearer realm="holdfast"');
    }
    for (const [method, url] of writes) {
      const call = (headers: Record<string, string>) =>
        f.call(method, url, { body: "{}", headers: { ...json, ...headers } });
      t.equal((await call({})).status, 401, `${method} ${url}`);
      t.match((await call(as("read-token"))).json, { status: 403, code: "forbidden" }, `${method} ${url}`);
      t.not((await call(as("write-token"))).status, 401);
    }
    for (const bad of ["write-tokem", "write-toke", "write-token2", "", "x".repeat(600), "ümlaut"]) {
      const { json: problem, headers } = await f.get("/v1/regions", as(bad));
      t.match(problem, { status: 401, code: "unauthenticated" }, bad);
      t.match(headers["www-authenticate"], /error="invalid_/);
      t.notMatch(JSON.stringify(problem), /write-token"/);
    }
    for (const scheme of ["Basic dTpw", "write-token", "Bearer", "bearer"]) {
      t.equal((await f.get("/v1/regions", { authorization: scheme })).status, 401, scheme);
    }
    t.equal((await f.get("/v1/regions", { authorization: "bearer write-token" })).status, 200);
  },
  ...tokens,
);
