// client.test.ts - the typed client against the real service, and against servers and wires that misbehave.
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Server as TcpServer } from "node:net";
import { join } from "node:path";
import t, { type Test } from "tap";
import { Client, type ClientOptions, ConnectionError, ProblemError } from "../../service/client.js";
import { ServiceProcess } from "../service-process.js";

const portOf = (server: Server | TcpServer): number => (server.address() as AddressInfo).port;

function clientOn(t: Test, where: string, options: ClientOptions = {}): Client {
  const client = new Client(where, options);
  t.teardown(() => client.close());
  return client;
}

async function serve(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${portOf(server)}`;
}

/** What a call throws. */
async function failureOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    (error: unknown) => error,
  );
}

const problem = (code: string, retryable: boolean) =>
  JSON.stringify({ type: `/problems/${code}`, title: code, status: 503, detail: "of a test", code, retryable });

t.test("against the service", { timeout: 60_000 }, async (t) => {
  const service = await ServiceProcess.ready({ flags: ["--auth-token=secret-of-the-client-test"] });
  t.teardown(() => service.remove());
  const url = `http://127.0.0.1:${service.port}`;
  const client = clientOn(t, url, { token: "secret-of-the-client-test" });

  await t.test("operations by their names", async (t) => {
    const made = await client.call("createRegion", { body: { name: "demo", size: 4096 } });
    t.match(made, { status: 201, attempts: 1, replayed: false, body: { name: "demo", size: 4096 } });
    const batch = { ops: [{ op: "write", offset: 8, data: "abc", encoding: "utf8" } as const] };
    const committed = await client.call("commitBatch", { path: { region: "demo" }, body: batch });
    t.match(committed.body, { committed: true, generation: 1 });
    const range = { path: { region: "demo" }, headers: { range: "bytes=8-10" } };
    t.equal((await client.call("getContent", range)).body.toString("utf8"), "abc", "bytes");
    t.match((await client.call("listRegions", { query: { prefix: "de" } })).body.items, [{ name: "demo" }]);
    const put = { path: { region: "raw" }, headers: { "if-none-match": "*" }, body: Buffer.from([1, 2, 3]) };
    t.equal((await client.call("putContent", put)).status, 201, "raw bytes go out as they are");
    const stored = { path: { region: "demo", offset: 16 }, query: { type: "u32" as const }, body: { value: 7 } };
    t.equal((await client.call("storeCell", stored)).status, 200, "a path with two parts");
    t.match((await client.call("getMetrics")).body, /^# HELP/, "text");
    t.equal((await client.call("deleteRegion", { path: { region: "raw" } })).body, undefined, "nothing");
  });

  await t.test("the same key is done once", async (t) => {
    const ask = {
      path: { region: "demo" },
      headers: { "idempotency-key": "client-test-1" },
      body: { ops: [{ op: "add", offset: 64, type: "u64", value: 1 } as const] },
    };
    t.equal((await client.call("commitBatch", ask)).replayed, false);
    t.equal((await client.call("commitBatch", ask)).replayed, true);
  });

  await t.test("an answer that is lost on the wire is asked for again, and nothing is done twice", async (t) => {
    let cuts = 2;
    const proxy = createTcpServer((near) => {
      const far = connect(service.port, "127.0.0.1");
      near.pipe(far);
      far.on("data", (bytes) => {
        // The service has done it, and its answer does not arrive.
        if (cuts-- > 0) near.resetAndDestroy();
        else near.write(bytes);
      });
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on("error", () => {});
        one.on("close", () => other.destroy());
      }
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    t.teardown(() => proxy.close());
    const through = clientOn(t, `http://127.0.0.1:${portOf(proxy)}`, { token: "secret-of-the-client-test" });
    const codes: (string | null)[] = [];
    const body = { ops: [{ op: "add", offset: 128, type: "u64", value: 1 } as const] };
    const answer = await through.call(
      "commitBatch",
      { path: { region: "demo" }, body },
      { onAttempt: ({ code }) => codes.push(code) },
    );
    t.match(answer, { status: 200, attempts: 3, replayed: true });
    t.strictSame(codes, ["ECONNRESET", "ECONNRESET", null]);
    const cell = await client.call("loadCell", { path: { region: "demo", offset: 128 }, query: { type: "u64" } });
    t.equal(cell.body.value, "1", "once");
    cuts = 1;
    const lost = await failureOf(through.call("getVersion", {}, { attemptsMax: 1 }));
    t.ok(lost instanceof ConnectionError);
    t.match(lost, { how: "lost", code: "ECONNRESET" }, "sent, and nobody knows");
  });

  await t.test("refusals are told with their problem, and only those that can help are retried", async (t) => {
    let attempts = 0;
    const asked = client.call("getRegion", { path: { region: "absent" } }, { onAttempt: () => attempts++ });
    const error = await failureOf(asked);
    t.ok(error instanceof ProblemError);
    t.match(error, { status: 404, retryable: false, problem: { code: "region-not-found" } });
    t.equal(attempts, 1);
    const stranger = await failureOf(clientOn(t, url).call("getLimits"));
    t.match(stranger, { status: 401, problem: { code: "unauthenticated" } }, "without a token");
  });
});

t.test("over a unix socket", { timeout: 60_000 }, async (t) => {
  const dir = t.testdir();
  const path = join(dir, "socket");
  const service = new ServiceProcess({ flags: [`--socket-path=${path}`] });
  t.teardown(() => service.remove());
  await service.line("ready");
  await service.line("listening");
  t.match((await clientOn(t, `unix:${path}`).call("getReadiness")).body, { state: "ready" });
});

t.test("nobody listens", async (t) => {
  const server = createTcpServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  server.close();
  await once(server, "close");
  let attempts = 0;
  const client = clientOn(t, `http://127.0.0.1:${port}`);
  const error = await failureOf(client.call("getVersion", {}, { attemptsMax: 3, onAttempt: () => attempts++ }));
  t.ok(error instanceof ConnectionError);
  t.match(error, { how: "unreached", code: "ECONNREFUSED" });
  t.equal(attempts, 3, "nothing was sent, so it is tried again");
});

t.test("Retry-After is waited for, with the same key", async (t) => {
  const keys: unknown[] = [];
  const url = await serve(t, (request, response) => {
    keys.push(request.headers["idempotency-key"]);
    if (keys.length < 3) {
      const headers = { "content-type": "application/problem+json", "retry-after": keys.length === 1 ? "0" : "1" };
      response.writeHead(503, headers).end(problem("draining", true));
    } else {
      response.writeHead(201, { "content-type": "application/json" }).end("{}");
    }
  });
  const from = performance.now();
  const answer = await clientOn(t, url).call("createRegion", { body: { name: "a", size: 1 } });
  t.equal(answer.attempts, 3);
  t.ok(performance.now() - from >= 1000, "a second, as it was told");
  t.ok(typeof keys[0] === "string" && keys[0] === keys[1] && keys[1] === keys[2], "one key for all attempts", { keys });
});

t.test("a wait that would be too long is not begun", async (t) => {
  const url = await serve(t, (_, response) => {
    const headers = { "content-type": "application/problem+json", "retry-after": "60" };
    response.writeHead(503, headers).end(problem("overloaded", true));
  });
  const from = performance.now();
  const error = await failureOf(clientOn(t, url, { retryMsMax: 5000 }).call("getVersion"));
  t.match(error, { status: 503, retryable: true, retryAfterMs: 60_000 });
  t.ok(performance.now() - from < 2000);
});

t.test("a signal ends the waiting", async (t) => {
  const url = await serve(t, (_, response) => {
    response.writeHead(503, { "content-type": "application/problem+json", "retry-after": "20" });
    response.end(problem("overloaded", true));
  });
  const from = performance.now();
  const error = await failureOf(clientOn(t, url).call("getVersion", {}, { signal: AbortSignal.timeout(100) }));
  t.match(error, { status: 503 });
  t.ok(performance.now() - from < 5000);
});

t.test("answers that are not the service's", async (t) => {
  const answers = [502, 200];
  const url = await serve(t, (_, response) => {
    response.writeHead(answers.shift()!, { "content-type": "text/html" }).end("<p>a proxy</p>");
  });
  t.match(await clientOn(t, url).call("getVersion"), { attempts: 2 }, "a bad gateway is tried again");
});

t.test("a server that never answers", async (t) => {
  const url = await serve(t, () => {});
  const client = clientOn(t, url, { timeouts: { answerMs: 50 }, attemptsMax: 2 });
  t.match(await failureOf(client.call("getVersion")), { how: "lost", code: "answer_timeout" });
});

// The time to connect ran while a call waited for one of the client's own connections.
t.test("calls beyond the number of connections wait, however long", async (t) => {
  const url = await serve(t, (_request, response) => {
    setTimeout(() => response.writeHead(200, { "content-type": "application/json" }).end("{}"), 100);
  });
  const client = clientOn(t, url, { connectionsMax: 1, attemptsMax: 1, timeouts: { connectMs: 150 } });
  const answers = await Promise.all(Array.from({ length: 6 }, () => client.call("getVersion")));
  t.equal(answers.length, 6);
});

// They were sent again over new connections.
t.test("calls under way fail when the client is closed", async (t) => {
  let asked = 0;
  const url = await serve(t, () => {
    asked++;
  });
  const client = clientOn(t, url, { connectionsMax: 1 });
  const calls = [1, 2].map(() => failureOf(client.call("getVersion")));
  while (asked === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  client.close();
  for (const failure of await Promise.all(calls)) t.type(failure, ConnectionError);
  t.equal(asked, 1);
});

t.test("a client that was held up sees what came meanwhile before it gives up", async (t) => {
  const service = await ServiceProcess.ready({ flags: ["--auth=none"] });
  t.teardown(() => service.remove());
  const timeouts = { connectMs: 100, answerMs: 100 };
  const client = clientOn(t, `http://127.0.0.1:${service.port}`, { timeouts, attemptsMax: 1 });
  const hold = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
  const connecting = client.call("getLiveness");
  // What was begun is in the kernel's hands by then, and done long before the hold-up ends.
  setImmediate(hold);
  t.match(await connecting, { status: 200 }, "a connection");
  const asking = client.call("getLiveness");
  setImmediate(hold);
  t.match(await asking, { status: 200 }, "an answer, on the connection that there is");
});

t.test("users import it by the package's name", async (t) => {
  const own = new URL("../../service/client.js", import.meta.url);
  t.equal(import.meta.resolve("holdfast/client"), own.href);
});

t.test("an address that can't be one", async (t) => {
  t.throws(() => new Client("ftp://127.0.0.1"), TypeError);
});
