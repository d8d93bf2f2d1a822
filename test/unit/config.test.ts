// Settings: flags, environment, files, defaults, and one line for everything that can't be used.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import t from "tap";
import { ConfigError, loadConfig, readyLink } from "../../service/config.js";

function refusal(argv: string[], env: Record<string, string> = {}): string {
  try {
    loadConfig(argv, env);
    return "accepted";
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message;
  }
}

t.test("defaults", async (t) => {
  t.match(loadConfig([], {}), {
    host: "127.0.0.1",
    port: 8080,
    socketPath: undefined,
    dataDir: resolve("data"),
    map: [],
    authToken: undefined,
    authTokenRead: undefined,
    authTokenGenerated: false,
    logLevel: "info",
    logRequests: false,
    standby: true,
    regionsMax: 1024,
    snapshotsMax: 64,
    regionBytesMax: 64 * 2 ** 30,
    batchOpsMax: 4096,
    batchGuardsMax: 256,
    batchBytesMax: 8 * 2 ** 20,
    rangesMax: 64,
    readBytesMax: 8 * 2 ** 20,
    viewBytesMax: 64 * 2 ** 10,
    rateLimit: 0,
    rateLimitBurst: 0,
    drainLameDuckMs: 100,
    drainBodyGraceMs: 250,
    drainSoftMs: 600,
    drainHardMs: 8000,
    shutdownMode: "drain",
  });
});

t.test("a flag wins over the environment, and an empty variable is unset", async (t) => {
  const env = { PORT: "1000", HOST: "", LOG_REQUESTS: "true", DATA_DIR: "/tmp/x" };
  t.match(loadConfig([], env), { port: 1000, host: "127.0.0.1", logRequests: true, dataDir: "/tmp/x" });
  t.match(loadConfig(["--port", "2000", "--log-requests=false"], env), { port: 2000, logRequests: false });
  t.equal(loadConfig(["--log-requests"], {}).logRequests, true);
  t.equal(loadConfig(["--journal-bytes=1GiB"], {}).journalBytes, 2 ** 30);
});

t.test("a burst is a multiple of the rate, and the rate if it is not told", async (t) => {
  t.match(loadConfig(["--rate-limit=50"], {}), { rateLimit: 50, rateLimitBurst: 50 });
  t.match(loadConfig([], { RATE_LIMIT: "50", RATE_LIMIT_BURST: "100" }), { rateLimit: 50, rateLimitBurst: 100 });
  t.match(refusal(["--rate-limit=50", "--rate-limit-burst=75"]), /^RATE_LIMIT_BURST: must be a multiple of RATE_LIMIT/);
  t.match(refusal(["--rate-limit-burst=75"]), /^RATE_LIMIT_BURST: must be a multiple of RATE_LIMIT/);
});

t.test("traces are asked for by the variables of OpenTelemetry", async (t) => {
  const endpoint = "http://collector:4318";
  for (const [env, tracing] of [
    [{}, undefined],
    [{ OTEL_SERVICE_NAME: "a" }, undefined],
    [{ OTEL_TRACES_EXPORTER: "none", OTEL_EXPORTER_OTLP_ENDPOINT: endpoint }, undefined],
    [{ OTEL_SDK_DISABLED: "TRUE", OTEL_EXPORTER_OTLP_ENDPOINT: endpoint }, undefined],
    [{ OTEL_TRACES_EXPORTER: "otlp" }, { protocol: "http/protobuf" }],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint }, { protocol: "http/protobuf" }],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" }, { protocol: "http/json" }],
    [
      {
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/protobuf",
      },
      { protocol: "http/protobuf" },
    ],
  ] as [Record<string, string>, object | undefined][]) {
    t.same(loadConfig([], env).tracing, tracing, JSON.stringify(env));
  }
  for (const [env, message] of [
    [{ OTEL_TRACES_EXPORTER: "zipkin" }, /^OTEL_TRACES_EXPORTER: must be otlp or none, not "zipkin"/],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" }, /^OTEL_EXPORTER_OTLP_ENDPOINT: must be an http or https URL/],
    [
      { OTEL_TRACES_EXPORTER: "otlp", OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" },
      /^OTEL_EXPORTER_OTLP_PROTOCOL: must be one of http\/protobuf, http\/json, not "grpc"/,
    ],
  ] as [Record<string, string>, RegExp][]) {
    t.match(refusal([], env), message);
  }
});

t.test("files are adopted under names", async (t) => {
  t.same(loadConfig(["--map", "a=/x", "--map=b=y=z"], {}).map, [
    { name: "a", path: "/x" },
    { name: "b", path: resolve("y=z") },
  ]);
  t.same(loadConfig([], { MAP: "a=/x,b=/y" }).map, [
    { name: "a", path: "/x" },
    { name: "b", path: "/y" },
  ]);
  for (const bad of ["a", "=x", "a=", "A=/x", "a..b=/x"]) t.match(refusal(["--map", bad]), /^--map: /, bad);
  t.match(refusal(["--map=a=/x", "--map=a=/y"]), /^MAP: a is given twice/);
});

t.test("tokens, from values and files", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "holdfast-config-"));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "token");
  writeFileSync(file, "from-a-file\n");
  t.equal(loadConfig(["--auth-token-file", file], {}).authToken, "from-a-file");
  t.equal(loadConfig([], { AUTH_TOKEN_FILE: file }).authToken, "from-a-file");
  t.equal(loadConfig(["--auth-token=from-a-flag"], { AUTH_TOKEN_FILE: file }).authToken, "from-a-flag");
  t.match(refusal([], { AUTH_TOKEN_FILE: join(directory, "none") }), /^AUTH_TOKEN_FILE: ENOENT/);
  t.match(refusal([], { AUTH_TOKEN: "12345678", AUTH_TOKEN_FILE: file }), /^AUTH_TOKEN and AUTH_TOKEN_FILE: /);
  for (const bad of ["short", "with space", "ümlaut-token", "x".repeat(513)]) {
    const message = refusal([], { AUTH_TOKEN: bad });
    t.match(message, /^AUTH_TOKEN: must be/);
    t.notMatch(message, new RegExp(bad), "a secret is never printed");
  }
  t.match(refusal([], { AUTH_TOKEN_READ: "12345678" }), /^AUTH_TOKEN_READ: needs AUTH_TOKEN/);
  t.match(refusal([], { AUTH_TOKEN_READ: "12345678", AUTH_TOKEN: "12345678" }), /^AUTH_TOKEN_READ: must differ/);
  t.match(refusal([], { AUTH: "none", AUTH_TOKEN: "12345678" }), /^AUTH: is none/);
});

t.test("who can connect from elsewhere needs a token", async (t) => {
  for (const host of ["127.0.0.1", "127.8.8.8", "::1", "localhost"]) {
    t.equal(loadConfig(["--host", host], {}).authToken, undefined, host);
  }
  t.equal(loadConfig(["--host=0.0.0.0", "--socket-path=/run/x"], {}).authToken, undefined);
  t.equal(loadConfig(["--host=0.0.0.0", "--auth=none"], {}).authToken, undefined);
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "example.org"]) {
    const made = loadConfig(["--host", host], {});
    t.equal(made.authTokenGenerated, true, host);
    t.match(made.authToken, /^[\w-]{32}$/);
    t.not(loadConfig(["--host", host], {}).authToken, made.authToken);
  }
  const given = loadConfig(["--host=0.0.0.0", "--auth-token=mine-alone"], {});
  t.match(given, { authToken: "mine-alone", authTokenGenerated: false });
  t.equal(readyLink(given, 8080), "http://localhost:8080/docs#token=mine-alone");
  t.equal(readyLink(loadConfig(["--host=::1"], {}), 81), "http://[::1]:81/docs");
});

t.test("what can't be used is one line that names it", async (t) => {
  const cases: [string[], RegExp][] = [
    [["--nope"], /^--nope: no such setting/],
    [["serve"], /^serve: no such setting/],
    [["--port"], /^--port: needs a value/],
    [["--port=x"], /^--port: must be a whole number from 0 to 65535, not "x"/],
    [["--port=70000"], /^--port: /],
    [["--port=1KiB"], /^--port: /],
    [["--port=1", "--port=2"], /^--port: given twice/],
    [["--standby=maybe"], /^--standby: must be true or false/],
    [["--log-level=loud"], /^--log-level: must be one of debug, info/],
    [["--journal-bytes=1MiB"], /^JOURNAL_BYTES: must be at least 4 x BATCH_BYTES_MAX/],
    [["--drain-lame-duck-ms=300"], /^DRAIN_LAME_DUCK_MS: must be at most DRAIN_BODY_GRACE_MS/],
    [["--drain-body-grace-ms=700"], /^DRAIN_BODY_GRACE_MS: must be at most DRAIN_SOFT_MS/],
    [["--drain-soft-ms=9000"], /^DRAIN_SOFT_MS: must be at most DRAIN_HARD_MS/],
  ];
  for (const [argv, expected] of cases) {
    const message = refusal(argv);
    t.match(message, expected);
    t.notMatch(message, /\n/);
  }
});

t.test("help lists every setting with its default and range", async (t) => {
  const { print } = loadConfig(["--help"], { PORT: "nonsense-is-not-looked-at".slice(0, 0) });
  for (const text of [
    "--data-dir, DATA_DIR",
    "--auth-token-file, AUTH_TOKEN_FILE",
    "default 67108864 bytes",
    "(default 600 ms, 0 to 600000)",
    "one of drain immediate",
  ]) {
    t.ok(print?.includes(text), text);
  }
  t.match(loadConfig(["--version"], {}).print, /^holdfast \d+\.\d+\.\d+$/);
});
