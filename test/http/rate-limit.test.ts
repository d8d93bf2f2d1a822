// Requests that a client may make: what is counted, what is told, and that the typed client waits as long as it is told.
import { join } from "node:path";
import t from "tap";
import { Client } from "../../service/client.js";
import { type Item, parseItem } from "../../service/structured-fields.js";
import { type Answer, storeTest } from "../fixture.js";
import { freshDir, ServiceProcess } from "../service-process.js";

/** The fields as the draft has them: a policy's name with integers. */
function fieldsOf({ headers }: Answer) {
  const plain = (item: Item | undefined) => {
    t.equal(item?.item.value, "default");
    return Object.fromEntries([...(item?.parameters ?? [])].map(([name, { value }]) => [name, value]));
  };
  return { policy: plain(parseItem(headers["ratelimit-policy"]!)), left: plain(parseItem(headers.ratelimit!)) };
}

storeTest("nobody is counted by default", async (t, f) => {
  const { headers, json } = await f.get("/v1/limits");
  t.equal(headers.ratelimit, undefined);
  t.equal(headers["ratelimit-policy"], undefined);
  t.match(json, { rateLimit: 0, rateLimitBurst: 0 });
  t.notOk(f.app.hasDecorator("createRateLimit"), "the plugin is not registered");
});

// A window of a minute: none of these tests sees its end.
const slow = ["--rate-limit=1", "--rate-limit-burst=60"];

storeTest(
  "every answer tells what is left, and then there is nothing",
  async (t, f) => {
    t.same(fieldsOf(await f.get("/v1/limits")), { policy: { q: 60, w: 60 }, left: { r: 59, t: 60 } });
    t.match((await f.get("/v1/limits")).json, { rateLimit: 1, rateLimitBurst: 60 });
    await f.region("demo", 64);
    const refused = await f.get("/v1/regions/absent");
    t.equal(refused.status, 404);
    t.same(fieldsOf(refused).left.r, 56, "refusals count");
    await f.get("/docs");
    t.equal(fieldsOf(await f.get("/openapi.json")).left.r, 54, "documentation counts, and once");
    for (let sent = 6; sent < 60; sent++) t.equal((await f.get("/v1/regions/demo")).status, 200);

    const body = { ops: [{ op: "write", offset: 0, data: "AAAA" }] };
    const limited = await f.batch("demo", body, { "idempotency-key": "a" });
    t.match(limited.json, {
      status: 429,
      code: "rate-limited",
      retryable: true,
      committed: false,
      failures: [{ code: "rate-limited", limit: 60 }],
    });
    const { policy, left } = fieldsOf(limited);
    t.same(policy, { q: 60, w: 60 });
    t.equal(left.r, 0);
    t.equal(limited.headers["retry-after"], String(left.t));
    t.ok(Number(left.t) > 0 && Number(left.t) <= 60, String(left.t));
    t.ok(limited.headers["request-id"]);
    t.equal(f.store!.info("demo")?.generation, 0, "nothing was written");
    for (const url of ["/", "/problems", "/openapi.json", "/ui"]) t.equal((await f.get(url)).status, 429, url);
    for (const url of ["/livez", "/readyz", "/metrics", "/version"]) {
      const { status, headers } = await f.get(url);
      t.equal(status, 200, `${url} is let in`);
      t.equal(headers.ratelimit, undefined);
    }
    const { text } = await f.get("/metrics");
    t.match(text, /http_requests_total\{method="POST",route="\/v1\/regions\/:region\/batches",status="429"\} 1/);
  },
  ...slow,
);

storeTest(
  "each address is a client, and an IPv6 network",
  async (t, f) => {
    const from = async (remoteAddress: string) =>
      Number(/r=(\d+)/.exec(String((await f.app.inject({ url: "/v1/limits", remoteAddress })).headers.ratelimit))?.[1]);
    t.equal(await from("192.0.2.1"), 59);
    t.equal(await from("192.0.2.1"), 58);
    t.equal(await from("192.0.2.2"), 59);
    t.equal(await from("2001:db8:0:1::1"), 59);
    t.equal(await from("2001:db8:0:1::2"), 58);
    t.equal(await from("2001:db8:0:2::1"), 59);
  },
  ...slow,
);

storeTest(
  "who guesses tokens is counted too",
  async (t, f) => {
    for (let guesses = 0; guesses < 60; guesses++) t.equal((await f.get("/v1/limits")).status, 401);
    t.equal((await f.get("/v1/limits")).status, 429);
    const token = { authorization: "Bearer right-one-but-late" };
    t.equal((await f.get("/v1/limits", token)).status, 429, "and learns nothing any more");
  },
  ...slow,
  "--auth-token=right-one-but-late",
);

t.test("over a socket, where the typed client waits as it is told", { timeout: 60_000 }, async (t) => {
  const service = await ServiceProcess.ready({ flags: ["--rate-limit=4"] });
  t.teardown(() => service.remove());
  const client = new Client(`http://127.0.0.1:${service.port}`);
  t.teardown(() => client.close());
  await client.call("createRegion", { body: { name: "demo", size: 64 } });
  const statuses: (number | null)[] = [];
  const onAttempt = ({ status }: { status: number | null }) => statuses.push(status);
  const from = performance.now();
  const ask = { path: { region: "demo" }, body: { ops: [{ op: "add", offset: 0, type: "u64", value: 1 } as const] } };
  for (let batches = 0; batches < 8; batches++) await client.call("commitBatch", ask, { onAttempt });
  t.ok(statuses.includes(429), "the window was used up", { statuses });
  t.equal(statuses.filter((status) => status === 200).length, 8, "and each batch came through");
  t.ok(performance.now() - from >= 1000, "in a later window");
  const cell = await client.call("loadCell", { path: { region: "demo", offset: 0 }, query: { type: "u64" } });
  t.equal(cell.body.value, "8", "once each");
});

t.test("all peers of a unix socket are one client", { timeout: 60_000 }, async (t) => {
  const dir = freshDir();
  const path = join(dir, "socket");
  const service = new ServiceProcess({ dir, flags: [`--socket-path=${path}`, ...slow] });
  t.teardown(() => service.remove());
  await service.line("ready");
  await service.line("listening");
  for (const left of [59, 58]) {
    const client = new Client(`unix:${path}`);
    const { headers } = await client.call("getLimits");
    client.close();
    t.match(headers.ratelimit, new RegExp(`^"default";r=${left};`));
  }
});
