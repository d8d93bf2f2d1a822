// config.ts - flags and environment -> one typed Config. The only reader of the environment, and it decides nothing
// but values: no file is opened except a token's, no address is bound.
//
// A setting is one row of `settings`: its flag is its environment name in lower case (DATA_DIR, --data-dir), a flag
// wins over the environment, and an empty environment variable counts as unset.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { regionBytesMax } from "./store/frame.js";
import { isRegionName } from "./store/region-name.js";
import { name, version } from "./version.js";

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

interface Row {
  env: string;
  type: "string" | "integer" | "boolean" | "choice" | "list";
  /** What a number counts. `bytes` also takes KiB, MiB and GiB. */
  unit?: "bytes" | "ms" | "s";
  default: string | number | boolean | undefined | readonly string[];
  min?: number;
  max?: number;
  choices?: readonly string[];
  /** Also readable from the file that NAME_FILE names; never printed. */
  secret?: boolean;
  about: string;
}

const text = (env: string, fallback: string, about: string) =>
  ({ env, type: "string", default: fallback, about }) as const satisfies Row;
const integer = (
  env: string,
  unit: Row["unit"],
  fallback: number,
  [min, max]: readonly [number, number],
  about: string,
) => ({ env, type: "integer", unit, default: fallback, min, max, about }) as const satisfies Row;
const flag = (env: string, fallback: boolean, about: string) =>
  ({ env, type: "boolean", default: fallback, about }) as const satisfies Row;
const secret = (env: string, about: string) =>
  ({ env, type: "string", default: undefined, secret: true, about }) as const satisfies Row;
const choice = <const C extends readonly string[]>(env: string, choices: C, fallback: C[number], about: string) =>
  ({ env, type: "choice", choices, default: fallback, about }) as const satisfies Row;

const settings = {
  host: text("HOST", "127.0.0.1", "address to listen on"),
  port: integer("PORT", undefined, 8080, [0, 65535], "TCP port to listen on; 0 takes a free one"),
  socketPath: {
    env: "SOCKET_PATH",
    type: "string",
    default: undefined,
    about: "listen on this unix socket instead of HOST and PORT",
  } as const satisfies Row,
  dataDir: text("DATA_DIR", "./data", "directory of the store"),
  map: {
    env: "MAP",
    type: "list",
    default: [],
    about:
      "NAME=PATH: adopt an existing file as a region, in place (repeatable; in the environment separated by commas)",
  } as const satisfies Row,
  authToken: secret("AUTH_TOKEN", "bearer token for reading and writing"),
  authTokenRead: secret("AUTH_TOKEN_READ", "bearer token for reading only"),
  auth: choice(
    "AUTH",
    ["token", "none"],
    "token",
    "none: ask nobody for a token, whatever HOST is. token: without AUTH_TOKEN, one is made unless HOST is a loopback address; a service manager's socket beyond loopback needs one",
  ),
  logLevel: choice("LOG_LEVEL", ["debug", "info", "warn", "error", "silent"], "info", "least severe lines to log"),
  logRequests: flag("LOG_REQUESTS", false, "log a line for every request (costs about half of the throughput)"),
  standby: flag("STANDBY", true, "wait as a hot standby while another process holds the store; false: exit at once"),
  allowAnyFileSystem: flag(
    "ALLOW_ANY_FILE_SYSTEM",
    false,
    "open a store on a file system that is not known to keep its promises",
  ),

  regionsMax: integer("REGIONS_MAX", undefined, 1024, [1, 65536], "regions in the store"),
  regionBytesMax: integer("REGION_BYTES_MAX", "bytes", 64 * GiB, [1, regionBytesMax], "size of a region"),
  snapshotsMax: integer("SNAPSHOTS_MAX", undefined, 64, [0, 1024], "snapshots of each region"),
  batchOpsMax: integer("BATCH_OPS_MAX", undefined, 4096, [1, 65535], "operations of a batch"),
  batchGuardsMax: integer("BATCH_GUARDS_MAX", undefined, 256, [1, 4096], "guards of a batch"),
  batchBytesMax: integer("BATCH_BYTES_MAX", "bytes", 8 * MiB, [4 * KiB, 256 * MiB], "bytes that a batch writes"),
  rangesMax: integer("RANGES_MAX", undefined, 64, [1, 1024], "ranges of one GET"),
  readBytesMax: integer("READ_BYTES_MAX", "bytes", 8 * MiB, [4 * KiB, 256 * MiB], "bytes read at one point in time"),
  viewBytesMax: integer("VIEW_BYTES_MAX", "bytes", 64 * KiB, [16, MiB], "bytes of one view"),
  changesKeptMax: integer(
    "CHANGES_KEPT_MAX",
    undefined,
    1024,
    [1, 65_536],
    "changes of each region that are remembered for readers of its changes",
  ),
  eventStreamsMax: integer("EVENT_STREAMS_MAX", undefined, 256, [0, 65_536], "event streams that are open at once"),
  eventCommentMs: integer(
    "EVENT_COMMENT_MS",
    "ms",
    15_000,
    [10, 3_600_000],
    "how often an event stream without events says that it is alive",
  ),
  idempotencyKeysMin: integer(
    "IDEMPOTENCY_KEYS_MIN",
    undefined,
    10_000,
    [0, 1_000_000],
    "idempotency outcomes kept at least",
  ),
  idempotencySecondsMin: integer(
    "IDEMPOTENCY_SECONDS_MIN",
    "s",
    600,
    [0, 86_400],
    "how long an idempotency outcome is kept at least",
  ),
  requestIdleMsMax: integer(
    "REQUEST_IDLE_MS_MAX",
    "ms",
    60_000,
    [100, 3_600_000],
    "a connection on which nothing moves for this long during a request is answered 408 and closed",
  ),

  rateLimit: integer(
    "RATE_LIMIT",
    undefined,
    0,
    [0, 1_000_000],
    "requests a second that a client may make on the average, operations aside; 0: as many as it likes",
  ),
  rateLimitBurst: integer(
    "RATE_LIMIT_BURST",
    undefined,
    0,
    [0, 1_000_000],
    "requests that it may make at once, a multiple of RATE_LIMIT; 0: RATE_LIMIT",
  ),

  journalBytes: integer(
    "JOURNAL_BYTES",
    "bytes",
    64 * MiB,
    [64 * KiB, 64 * GiB],
    "size of the journal, at least 4 x BATCH_BYTES_MAX",
  ),
  flushIntervalMs: integer(
    "FLUSH_INTERVAL_MS",
    "ms",
    50,
    [1, 60_000],
    "an `ordered` batch survives power loss after at most this",
  ),
  checkpointIntervalMs: integer(
    "CHECKPOINT_INTERVAL_MS",
    "ms",
    5000,
    [10, 3_600_000],
    "time between checkpoints; also one when the journal is half full",
  ),
  fullWaitMsMax: integer(
    "FULL_WAIT_MS_MAX",
    "ms",
    1000,
    [0, 60_000],
    "how long a batch waits for space in a full journal before its 503",
  ),

  shutdownMode: choice(
    "SHUTDOWN_MODE",
    ["drain", "immediate"],
    "drain",
    "on TERM. drain: answer what is in flight. immediate: exit as soon as no batch is in its critical section",
  ),
  drainLameDuckMs: integer(
    "DRAIN_LAME_DUCK_MS",
    "ms",
    100,
    [0, 600_000],
    "after TERM, how long new connections are still answered",
  ),
  drainBodyGraceMs: integer(
    "DRAIN_BODY_GRACE_MS",
    "ms",
    250,
    [0, 600_000],
    "after TERM, how long a request body may still arrive",
  ),
  drainSoftMs: integer("DRAIN_SOFT_MS", "ms", 600, [0, 600_000], "after TERM, when HTTP is cut (exit 75)"),
  drainHardMs: integer(
    "DRAIN_HARD_MS",
    "ms",
    8000,
    [0, 600_000],
    "after TERM, when a running batch is left to recovery (exit 70)",
  ),
} as const satisfies Record<string, Row>;

type Value<R> = R extends { type: "choice"; choices: readonly (infer C)[] }
  ? C
  : R extends { type: "integer" }
    ? number
    : R extends { type: "boolean" }
      ? boolean
      : R extends { type: "list" }
        ? readonly Mapping[]
        : R extends { default: string }
          ? string
          : string | undefined;

/** A file that is adopted as a region. `path` is absolute. */
export interface Mapping {
  name: string;
  path: string;
}

/** Traces for OpenTelemetry; what else there is to set about them its SDK reads from the environment itself. */
export interface TracingConfig {
  protocol: (typeof tracingProtocols)[number];
}

const tracingProtocols = ["http/protobuf", "http/json"] as const;

export type Config = { readonly [K in keyof typeof settings]: Value<(typeof settings)[K]> } & {
  /** The token was made for this run because HOST is not a loopback address: main shows it once. */
  readonly authTokenGenerated: boolean;
  /** Undefined: none of the variables of OpenTelemetry asks for traces. */
  readonly tracing: TracingConfig | undefined;
  /** --help or --version: print this and exit 0. Nothing else of the Config was checked. */
  readonly print: string | undefined;
};

/** A setting that can't be used. The message is one line that names it. Exit code 78. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

const rows = Object.entries(settings) as [keyof typeof settings, Row][];
const flagOf = (env: string) => `--${env.toLowerCase().replaceAll("_", "-")}`;
const rowByFlag = new Map<string, Row>();
for (const [, row] of rows) {
  rowByFlag.set(flagOf(row.env), row);
  if (row.secret) rowByFlag.set(flagOf(`${row.env}_FILE`), row);
}

/**
 * Reads the settings. `argv` without the program's own name.
 * @throws ConfigError
 */
export function loadConfig(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Config {
  const given = readFlags(argv);
  const values: Record<string, unknown> = { authTokenGenerated: false, print: given.print };
  for (const [key, row] of rows) {
    const source = sourceOf(row, given.flags, env);
    values[key] = source === undefined ? row.default : parse(row, source.text, source.name);
  }
  const config = values as unknown as { -readonly [K in keyof Config]: Config[K] };
  if (config.print !== undefined) return config;
  config.tracing = tracingOf(env);
  config.dataDir = resolve(config.dataDir);
  checkTogether(config);
  if (config.rateLimitBurst === 0) config.rateLimitBurst = config.rateLimit;
  if (config.authToken === undefined && config.auth === "token" && !isPrivateAddress(config)) {
    config.authToken = randomBytes(24).toString("base64url");
    config.authTokenGenerated = true;
  }
  return Object.freeze(config);
}

/**
 * Others than this machine can connect to this address, and nobody is asked for a token. HOST has decided by its text; a socket
 * of a service manager is bound to whatever that was told. `address` is undefined for a unix socket.
 */
export function isUnguarded(config: Config, address: string | undefined): boolean {
  return config.auth === "token" && config.authToken === undefined && address !== undefined && !isLoopback(address);
}

/** A link that a person can open as it stands. The token travels in the fragment, which no server or log ever sees. */
export function readyLink(config: Config, port: number): string {
  const host = config.host === "0.0.0.0" || config.host === "::" ? "localhost" : config.host;
  const authority = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
  return `http://${authority}/docs${config.authToken === undefined ? "" : `#token=${config.authToken}`}`;
}

function readFlags(argv: readonly string[]): { flags: Map<string, string[]>; print: string | undefined } {
  const flags = new Map<string, string[]>();
  let print: string | undefined;
  const rest = [...argv];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    if (argument === "--help" || argument === "-h") {
      print = helpText();
      continue;
    }
    if (argument === "--version") {
      print = `${name} ${version}`;
      continue;
    }
    const equals = argument.indexOf("=");
    const flagName = equals === -1 ? argument : argument.slice(0, equals);
    const row = rowByFlag.get(flagName);
    if (row === undefined) {
      throw new ConfigError(`${flagName}: no such setting (--help lists them all)`);
    }
    let value = equals === -1 ? undefined : argument.slice(equals + 1);
    // `--standby` alone means true; every other setting takes the next argument.
    value ??= row.type === "boolean" ? "true" : rest.shift();
    if (value === undefined) throw new ConfigError(`${flagName}: needs a value`);
    const list = flags.get(flagName) ?? [];
    if (list.length > 0 && row.type !== "list") throw new ConfigError(`${flagName}: given twice`);
    flags.set(flagName, [...list, value]);
  }
  return { flags, print };
}

function sourceOf(
  row: Row,
  flags: Map<string, string[]>,
  env: Readonly<Record<string, string | undefined>>,
): { name: string; text: string[] } | undefined {
  const candidates = [
    { name: flagOf(row.env), text: flags.get(flagOf(row.env)), file: false },
    { name: flagOf(`${row.env}_FILE`), text: flags.get(flagOf(`${row.env}_FILE`)), file: true },
    { name: row.env, text: env[row.env] ? [env[row.env] as string] : undefined, file: false },
    {
      name: `${row.env}_FILE`,
      text: env[`${row.env}_FILE`] ? [env[`${row.env}_FILE`] as string] : undefined,
      file: true,
    },
  ];
  for (const [index, candidate] of candidates.entries()) {
    if (candidate.text === undefined || (candidate.file && row.secret !== true)) continue;
    // The same source naming both the token and its file is a mistake worth stopping for.
    const twin = candidates[index + 1];
    if (row.secret && !candidate.file && twin?.text !== undefined) {
      throw new ConfigError(`${candidate.name} and ${twin.name}: give one of them`);
    }
    return {
      name: candidate.name,
      text: candidate.file ? [readSecret(candidate.name, candidate.text[0]!)] : candidate.text,
    };
  }
  return undefined;
}

function readSecret(from: string, path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new ConfigError(`${from}: ${(error as Error).message}`);
  }
}

function parse(row: Row, given: string[], from: string): unknown {
  const value = given[0]!;
  switch (row.type) {
    case "boolean":
      if (value === "true" || value === "1") return true;
      if (value === "false" || value === "0") return false;
      throw new ConfigError(`${from}: must be true or false, not ${JSON.stringify(value)}`);
    case "choice":
      if (row.choices!.includes(value)) return value;
      throw new ConfigError(`${from}: must be one of ${row.choices!.join(", ")}, not ${JSON.stringify(value)}`);
    case "integer":
      return integerOf(row, value, from);
    case "list":
      return given.flatMap((entry) => entry.split(",")).map((entry) => mappingOf(entry, from));
    case "string":
      if (row.secret) return tokenOf(value, from);
      return value;
  }
}

function integerOf(row: Row, value: string, from: string): number {
  const match = /^(\d{1,15})(KiB|MiB|GiB)?$/.exec(value);
  const factors: Record<string, number> = { KiB, MiB, GiB };
  const number =
    match === null || (match[2] !== undefined && row.unit !== "bytes")
      ? Number.NaN
      : Number(match[1]) * (factors[match[2] ?? ""] ?? 1);
  if (number >= row.min! && number <= row.max!) return number;
  const unit = row.unit === undefined ? "" : ` ${row.unit}`;
  throw new ConfigError(
    `${from}: must be a whole number from ${row.min} to ${row.max}${unit}, not ${JSON.stringify(value)}`,
  );
}

function mappingOf(entry: string, from: string): Mapping {
  const equals = entry.indexOf("=");
  const region = entry.slice(0, equals);
  const path = entry.slice(equals + 1);
  if (equals === -1 || path === "") throw new ConfigError(`${from}: must be NAME=PATH, not ${JSON.stringify(entry)}`);
  if (!isRegionName(region)) throw new ConfigError(`${from}: ${JSON.stringify(region)} can't be a region's name`);
  return { name: region, path: resolve(path) };
}

/** The characters that RFC 6750 lets a bearer token have; the length that the constant-time comparison has room for. */
function tokenOf(value: string, from: string): string {
  if (/^[A-Za-z0-9._~+/-]{8,512}=*$/.test(value) && value.length <= 512) return value;
  throw new ConfigError(`${from}: must be 8 to 512 characters of A-Z a-z 0-9 . _ ~ + / - and = at the end`);
}

function checkTogether(config: Config): void {
  if (config.auth === "none" && (config.authToken ?? config.authTokenRead) !== undefined) {
    throw new ConfigError("AUTH: is none, but a token is set");
  }
  if (config.authTokenRead !== undefined && config.authToken === undefined) {
    throw new ConfigError("AUTH_TOKEN_READ: needs AUTH_TOKEN too, or nobody could write");
  }
  if (config.authTokenRead !== undefined && config.authTokenRead === config.authToken) {
    throw new ConfigError("AUTH_TOKEN_READ: must differ from AUTH_TOKEN");
  }
  if (config.journalBytes < 4 * config.batchBytesMax) {
    throw new ConfigError(`JOURNAL_BYTES: must be at least 4 x BATCH_BYTES_MAX (${4 * config.batchBytesMax} bytes)`);
  }
  // The window that is told to clients has whole seconds. NaN without a rate, as a burst of nothing is.
  if (config.rateLimitBurst !== 0 && config.rateLimitBurst % config.rateLimit !== 0) {
    throw new ConfigError(`RATE_LIMIT_BURST: must be a multiple of RATE_LIMIT (${config.rateLimit})`);
  }
  const order = ["drainLameDuckMs", "drainBodyGraceMs", "drainSoftMs", "drainHardMs"] as const;
  for (const [index, key] of order.entries()) {
    const next = order[index + 1];
    if (next !== undefined && config[key] > config[next]) {
      throw new ConfigError(`${settings[key].env}: must be at most ${settings[next].env} (${config[next]} ms)`);
    }
  }
  const names = config.map.map((mapping) => mapping.name);
  const twice = names.find((candidate, index) => names.indexOf(candidate) !== index);
  if (twice !== undefined) throw new ConfigError(`MAP: ${twice} is given twice`);
}

/**
 * Traces are asked for by an endpoint or by the name of the exporter. The standard's own default, a collector on this machine
 * that nobody named, would load all of it for everybody.
 */
function tracingOf(given: Readonly<Record<string, string | undefined>>): TracingConfig | undefined {
  const first = (...names: string[]) =>
    names.map((env) => ({ env, value: given[env] ?? "" })).find(({ value }) => value !== "");
  const exporter = first("OTEL_TRACES_EXPORTER");
  const endpoint = first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
  if (given.OTEL_SDK_DISABLED?.toLowerCase() === "true" || exporter?.value === "none") return undefined;
  if (exporter === undefined && endpoint === undefined) return undefined;
  if (exporter !== undefined && exporter.value !== "otlp") {
    throw new ConfigError(`${exporter.env}: must be otlp or none, not ${JSON.stringify(exporter.value)}`);
  }
  if (
    endpoint !== undefined &&
    !/^https?:$/.test(URL.canParse(endpoint.value) ? new URL(endpoint.value).protocol : "")
  ) {
    throw new ConfigError(`${endpoint.env}: must be an http or https URL, not ${JSON.stringify(endpoint.value)}`);
  }
  const asked = first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
  const protocol = tracingProtocols.find((known) => known === (asked?.value ?? tracingProtocols[0]));
  if (protocol !== undefined) return { protocol };
  throw new ConfigError(
    `${asked?.env}: must be one of ${tracingProtocols.join(", ")}, not ${JSON.stringify(asked?.value)}`,
  );
}

/** Nobody but this machine can connect. */
function isPrivateAddress(config: Config): boolean {
  return config.socketPath !== undefined || config.host === "localhost" || isLoopback(config.host);
}

function isLoopback(address: string): boolean {
  return address === "::1" || (isIP(address) === 4 && address.startsWith("127."));
}

function helpText(): string {
  const lines = [
    `${name} ${version}: memory-mapped files over HTTP; no kill can tear a batch.`,
    "",
    "  npm start -- [flags]",
    "",
    "Each setting is a flag and an environment variable; the flag wins. Sizes take KiB, MiB, GiB.",
    "",
  ];
  for (const [, row] of rows) {
    const unit = row.unit === undefined ? "" : ` ${row.unit}`;
    const names = row.secret
      ? `${flagOf(row.env)}, ${row.env}, or a file: ${flagOf(`${row.env}_FILE`)}, ${row.env}_FILE`
      : `${flagOf(row.env)}, ${row.env}`;
    const range =
      row.type === "integer"
        ? `, ${row.min} to ${row.max}`
        : row.type === "choice"
          ? `, one of ${row.choices!.join(" ")}`
          : "";
    const fallback = row.default === undefined || Array.isArray(row.default) ? "none" : `${String(row.default)}${unit}`;
    lines.push(`  ${names}`, `      ${row.about} (default ${fallback}${range})`);
  }
  lines.push(
    "  OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER, OTEL_SERVICE_NAME, OTEL_SDK_DISABLED, OTEL_...",
    "      the environment variables of OpenTelemetry: with an endpoint, or otlp as the exporter, traces are sent by OTLP/HTTP",
  );
  lines.push("  --help", "      this text", "  --version", "      name and version");
  return lines.join("\n");
}
