// Everything that no route answers is a problem too: paths, methods, media types, bodies, and what is not HTTP at all.
import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { type Fixture, storeTest } from "../fixture.js";

/** Sends bytes as they are and returns all that comes back until the connection ends. */
async function raw(f: Fixture, bytes: string, finish = false): Promise<string> {
  if (f.app.server.address() === null) await f.app.listen({ host: "127.0.0.1", port: 0 });
  const socket = connect((f.app.server.address() as AddressInfo).port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("error", () => {});
  socket.write(bytes);
  if (finish) socket.end();
  await once(socket, "close");
  return text;
}

function problemIn(answer: string): Record<string, unknown> {
  return JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4)) as Record<string, unknown>;
}

storeTest("unknown paths and wrong methods", async (t, f) => {
  await f.region("demo", 8);
  for (const url of ["/nope", "/v1", "/v1/regions/demo/nope", "/v2/regions", "/problems/nope"]) {
    const { status, json, headers } = await f.get(url);
    t.match(
      { status, code: json.code, instance: json.instance },
      { status: 404, code: "route-not-found", instance: url },
    );
    t.match(headers["content-type"], /^application\/problem\+json/);
    t.equal(headers["request-id"], json.requestId);
    t.equal(headers["x-content-type-options"], "nosniff");
  }
  const wrong: [string, string, string][] = [
    ["DELETE", "/v1/regions", "GET, HEAD, POST"],
    ["PUT", "/v1/regions/demo", "GET, HEAD, DELETE, PATCH"],
    ["POST", "/v1/regions/demo/content", "HEAD, GET, OPTIONS, PUT, PATCH"],
    ["GET", "/v1/batches", "POST"],
    ["DELETE", "/v1/regions/demo/cells/8", "GET, HEAD, PUT, POST"],
    ["POST", "/readyz", "GET, HEAD"],
    ["PATCH", "/openapi.json", "GET, HEAD"],
  ];
  for (const [method, url, allow] of wrong) {
    const { status, json, headers } = await f.call(method, url);
    t.match({ status, code: json.code }, { status: 405, code: "method-not-allowed" }, `${method} ${url}`);
    t.equal(headers.allow, allow);
  }
});

storeTest("bodies that can't be taken", async (t, f) => {
  await f.region("demo", 8);
  const post = (body: string, type?: string) =>
    f.call("POST", "/v1/regions/demo/batches", { body, headers: type === undefined ? {} : { "content-type": type } });
  const json = "application/json";
  for (const text of ["{", "{'a':1}", '{"ops":[}', "nonsense"]) {
    t.match((await post(text, json)).json, { status: 400, code: "malformed-json", retryable: false });
  }
  t.match((await f.call("POST", "/v1/regions/demo/batches", { headers: { "content-type": json } })).json, {
    status: 400,
    code: "malformed-json",
  });
  for (const type of ["text/plain", "application/xml", "multipart/form-data; boundary=x", "nonsense"]) {
    t.match((await post("{}", type)).json, { status: 415, code: "unsupported-media-type" }, type);
  }
  t.equal((await post('{"ops":[]}', "application/json; charset=utf-8")).status, 200);
  const long = JSON.stringify({ ops: [{ op: "write", offset: 0, data: "A".repeat(1_700_000) }] });
  t.match((await post(long, json)).json, { status: 413, code: "body-too-large", failures: [{ limit: 1_572_864 }] });
  const small = await f.post("/v1/regions", { name: "x".repeat(70_000), size: 1 });
  t.match(small.json, { status: 413, code: "body-too-large", failures: [{ limit: 65_536 }] });
});

// JSON by another name was parsed for every route and validated for none: a region with a durability that there isn't was
// stored, and its store did not open again. No body at all was a 500.
storeTest("no body gets around its schema", async (t, f) => {
  await f.region("demo", 64);
  const routes: [string, string, string][] = [
    ["POST", "/v1/regions", '{"name":"x","size":4096,"durability":"nope"}'],
    ["PATCH", "/v1/regions/demo", '{"durability":"nope"}'],
    ["PUT", "/v1/regions/demo/cells/8?type=u8", "null"],
    ["POST", "/v1/regions/demo/cells/8?type=u8", "null"],
    ["POST", "/v1/regions/demo/batches", '{"ops":"none"}'],
    ["POST", "/v1/batches", '{"ops":"none"}'],
  ];
  for (const [method, url, body] of routes) {
    const patch = await f.call(method, url, { body, headers: { "content-type": "application/merge-patch+json" } });
    t.equal(patch.status, method === "PATCH" ? 422 : 415, `${method} ${url} as a merge patch`);
    const keys: Record<string, string>[] = [{}, { "idempotency-key": "k" }];
    for (const headers of keys) {
      const none = await f.call(method, url, { headers });
      t.match(none.json, { status: 422, code: "validation-failed" }, `${method} ${url} without a body`);
    }
  }
  t.equal((await f.get("/v1/regions/x")).status, 404);
});

storeTest("what is not HTTP", async (t, f) => {
  const cases: [string, number, string][] = [
    ["NONSENSE\r\n\r\n", 400, "malformed-request"],
    ["GET / HTTP/9.9\r\nhost: localhost\r\n\r\n", 400, "malformed-request"],
    ["GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n", 400, "malformed-request"],
    [`GET / HTTP/1.1\r\nhost: localhost\r\nlong: ${"x".repeat(20_000)}\r\n\r\n`, 431, "headers-too-large"],
    [`GET /${"x".repeat(20_000)} HTTP/1.1\r\nhost: localhost\r\n\r\n`, 414, "uri-too-long"],
    ["POST /v1/regions HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n", 400, "malformed-request"],
    ["GET /%zz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 400, "malformed-request"],
  ];
  for (const [bytes, status, code] of cases) {
    const answer = await raw(f, bytes);
    t.match(answer, new RegExp(`^HTTP/1.1 ${status} `), bytes.slice(0, 40));
    t.match(answer.toLowerCase(), /content-type: application\/problem\+json/);
    t.match(answer.toLowerCase(), /connection: close/);
    t.match(problemIn(answer), { code, status, type: `/problems/${code}`, committed: false }, bytes.slice(0, 40));
  }
});

// Node answers both by itself, without a body: not as a problem like every other.
storeTest("no Host or two, or an expectation that nobody knows", async (t, f) => {
  const expecting = "host: localhost\r\nexpect: a-miracle\r\n";
  const cases: [string, string, string][] = [
    ["GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n", "malformed-request", "/livez"],
    ["GET /v1/regions?limit=1 HTTP/1.1\r\nconnection: close\r\n\r\n", "malformed-request", "/v1/regions"],
    ["GET /nope HTTP/1.1\r\nconnection: close\r\n\r\n", "malformed-request", "/nope"],
    [
      "GET /livez HTTP/1.1\r\nhost: localhost\r\nHOST: localhost\r\nconnection: close\r\n\r\n",
      "malformed-request",
      "/livez",
    ],
    [`GET /livez HTTP/1.1\r\n${expecting}connection: close\r\n\r\n`, "header-invalid", "/livez"],
    [`POST /v1/regions HTTP/1.1\r\n${expecting}content-length: 9\r\n\r\n`, "header-invalid", "/v1/regions"],
    [`DELETE /nope HTTP/1.1\r\n${expecting}connection: close\r\n\r\n`, "header-invalid", "/nope"],
  ];
  for (const [bytes, code, instance] of cases) {
    const answer = await raw(f, bytes);
    t.match(answer, /^HTTP\/1.1 400 /, bytes);
    t.match(answer.toLowerCase(), /content-type: application\/problem\+json/);
    t.match(answer.toLowerCase(), /connection: close/);
    const problem = problemIn(answer);
    t.match(problem, { code, instance, status: 400, committed: false, retryable: false }, bytes);
    t.ok(answer.includes(`request-id: ${problem.requestId}\r\n`));
  }
  const fine = [
    "GET /livez HTTP/1.0\r\n\r\n",
    "GET /livez HTTP/1.0\r\nexpect: a-miracle\r\n\r\n",
    "GET /livez HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n",
    "GET /livez HTTP/1.1\r\nhost: localhost\r\nexpect: 100-Continue\r\nconnection: close\r\n\r\n",
  ];
  for (const bytes of fine) t.match(await raw(f, bytes), /^(?:HTTP\/1.1 100 Continue\r\n\r\n)?HTTP\/1.1 200 /, bytes);
});

storeTest("a body shorter or longer than it says", async (t, f) => {
  const head =
    "POST /v1/regions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n";
  const short = await raw(f, `${head}content-length: 100\r\n\r\n{}`, true);
  t.match(short === "" ? { code: "malformed-request" } : problemIn(short), { code: "malformed-request" });
  const chunked = await raw(f, `${head}transfer-encoding: chunked\r\n\r\nzz\r\n`);
  t.match(problemIn(chunked), { code: "malformed-request" });
});

storeTest(
  "a request on which nothing moves is answered 408",
  async (t, f) => {
    for (const bytes of [
      "POST /v1/regions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
      "PUT /v1/regions/demo/content HTTP/1.1\r\nhost: localhost\r\nif-none-match: *\r\ncontent-length: 100\r\n\r\nabc",
      "GET / HT",
    ]) {
      const answer = await raw(f, bytes);
      t.match(answer, /^HTTP\/1.1 408 /, bytes.slice(0, 20));
      t.match(problemIn(answer), { code: "request-timeout", retryable: true });
    }
    t.equal((await f.get("/v1/regions/demo")).status, 404);
  },
  "--request-idle-ms-max=100",
);

// The answer was 408, "not committed", and then the change appeared.
storeTest(
  "a request that has arrived whole is waited for, however long its work takes",
  async (t, f) => {
    const { store } = f;
    await f.region("demo", 8);
    f.store = new Proxy(store!, {
      get: (target, name) => {
        const value = Reflect.get(target, name) as unknown;
        if (name === "makeSnapshot")
          return async (...o: unknown[]) => {
            await new Promise((resolve) => setTimeout(resolve, 350));
            return (value as (...o: unknown[]) => unknown).apply(target, o);
          };
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const answer = await raw(
      f,
      "POST /v1/regions/demo/snapshots HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    t.match(answer, /^HTTP\/1.1 201 /);
    f.store = store;
  },
  "--request-idle-ms-max=100",
);

// Node ended the connection as soon as its client had closed his side: a durable batch was committed, and nobody told.
storeTest("who closes his side after the request is answered", async (t, f) => {
  await f.region("demo", 64, { durability: "durable" });
  const body = JSON.stringify({ ops: [{ op: "write", offset: 0, data: "AAAA" }] });
  const head = "POST /v1/regions/demo/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
  t.match(await raw(f, `${head}content-length: ${body.length}\r\n\r\n${body}`, true), /^HTTP\/1.1 200 /);
});

// The connection was reset with the rest of the body unread, and the reset overtook the answer.
storeTest("who is refused on the head reads the answer, though the body is still on its way", async (t, f) => {
  await f.region("demo", 8);
  for (let i = 0; i < 20; i++) {
    const head = "PUT /v1/regions/demo/content HTTP/1.1\r\nhost: localhost\r\ncontent-length: 33554432\r\n\r\n";
    t.match(await raw(f, `${head}${"x".repeat(4 << 20)}`), /^HTTP\/1.1 413 /);
  }
});

storeTest("a refused body closes its connection, an accepted one does not", async (t, f) => {
  const head = "POST /v1/regions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
  const answer = await raw(f, `${head}content-length: 99999999\r\n\r\n{`);
  t.match(answer, /^HTTP\/1.1 413 /);
  t.match(answer.toLowerCase(), /connection: close/);
  const two = await raw(
    f,
    `GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET /v1/regions/nope HTTP/1.1\r\nhost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`,
  );
  t.equal(two.match(/HTTP\/1.1 200 OK/g)?.length, 2);
  t.match(two, /HTTP\/1.1 404 Not Found/);
});

storeTest("what nobody foresaw is told without its reason", async (t, f) => {
  const { store } = f;
  await f.region("demo", 8);
  f.store = new Proxy(store!, {
    get: (target, name) => {
      if (name === "names") throw new Error("secret path /etc/store");
      const value = Reflect.get(target, name) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const { status, json, text } = await f.get("/v1/regions");
  t.match({ status, code: json.code }, { status: 500, code: "internal" });
  t.notMatch(text, /secret/);
  f.store = store;
});
