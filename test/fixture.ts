// fixture.ts - a store in a directory of its own with the service's app over it, and after every test a full check that
// what the store says of itself, what it keeps and what it finds again after a restart are the same.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, type IncomingMessage, request as send } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FastifyInstance, InjectOptions } from "fastify";
import t, { type Test } from "tap";
import { Store } from "../native/index.js";
import { buildApp } from "../service/app.js";
import { type Config, loadConfig } from "../service/config.js";
import type { LifecycleState, LifecycleView, Refusal } from "../service/lifecycle-view.js";
import { checkAgainstDocument } from "./contract.js";

/** A lifecycle whose state a test sets; otherwise it is ready. */
class SettableLifecycle implements LifecycleView {
  current: LifecycleState = "ready";
  admitted = 0;
  state = () => this.current;
  since = () => 0;
  closing = () => !["starting", "standby", "ready"].includes(this.current);
  admit(mutating: boolean): Refusal | undefined {
    if (this.current === "starting" || this.current === "standby") return this.current;
    if (this.closing() && mutating) return "draining";
    this.admitted++;
    return undefined;
  }
  finished(): void {
    this.admitted--;
  }
  inFlight = () => this.admitted;
  gateDepth = () => 0;
  statusDetail = () => ({});
  private readonly stopping = new AbortController();
  readonly stopSignal = this.stopping.signal;
  /** As the first signal does. */
  stop(): void {
    this.current = "lameduck";
    this.stopping.abort();
  }
}

export interface Call {
  headers?: Record<string, string>;
  /** An object is sent as JSON, a string or bytes as they are. */
  body?: unknown;
}

export interface Answer {
  status: number;
  headers: Record<string, string>;
  bytes: Buffer;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what a test expects of a body is what it asserts about it.
  json: any;
}

export class Fixture {
  app!: FastifyInstance;
  store: Store | undefined;
  /** Set: calls go over sockets, as a client's do, and not through Fastify's own door. */
  private agent: Agent | undefined;
  readonly lifecycle = new SettableLifecycle();
  readonly config: Config;
  readonly directory = mkdtempSync(join(tmpdir(), "holdfast-test-"));

  constructor(flags: readonly string[]) {
    // Small, so that limits are reached and stores open quickly.
    const small = ["--batch-bytes-max=256KiB", "--read-bytes-max=256KiB", "--journal-bytes=2MiB", "--log-level=silent"];
    const merged = [...small.filter((flag) => !flags.some((given) => given.startsWith(flag.split("=")[0]!))), ...flags];
    this.config = loadConfig([...merged, "--allow-any-file-system", `--data-dir=${this.directory}`], {});
  }

  openStore(): Promise<Store> {
    return Store.open({ ...this.config, dir: this.directory });
  }

  /** Every answer is held against the OpenAPI document: its status, media type, headers and body. */
  async call(method: string, url: string, { headers = {}, body }: Call = {}): Promise<Answer> {
    const isJson = body !== undefined && typeof body !== "string" && !Buffer.isBuffer(body);
    const request: InjectOptions = {
      method: method as "GET",
      url,
      headers: { ...(isJson && { "content-type": "application/json" }), ...headers },
    };
    if (body !== undefined) request.payload = isJson ? JSON.stringify(body) : (body as string | Buffer);
    const answer = toAnswer(await (this.agent === undefined ? this.app.inject(request) : this.overSocket(request)));
    await checkAgainstDocument(this.app, method, url, answer);
    return answer;
  }

  async listen(): Promise<void> {
    await this.app.listen({ host: "127.0.0.1", port: 0 });
    this.agent = new Agent({ keepAlive: true });
  }

  async close(): Promise<void> {
    this.agent?.destroy();
    await this.app.close();
  }

  private async overSocket({ method, url, headers, payload }: InjectOptions): Promise<Received> {
    const { port } = this.app.server.address() as AddressInfo;
    const path = url as string;
    const sent = send({ host: "127.0.0.1", port, method, path, headers, agent: this.agent! }).end(payload);
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    const parts: Buffer[] = [];
    for await (const part of response) parts.push(part as Buffer);
    return { statusCode: response.statusCode!, headers: response.headers, rawPayload: Buffer.concat(parts) };
  }

  get = (url: string, headers?: Record<string, string>) => this.call("GET", url, { ...(headers && { headers }) });
  post = (url: string, body: unknown, headers?: Record<string, string>) =>
    this.call("POST", url, { body, ...(headers && { headers }) });

  /** A region with a name of its own, or the one that is asked for. */
  async region(name: string, size: number, more: object = {}): Promise<void> {
    const { status, text } = await this.post("/v1/regions", { name, size, ...more });
    if (status !== 201) throw new Error(`the region was not created: ${text}`);
  }

  batch(name: string, batch: object, headers?: Record<string, string>): Promise<Answer> {
    return this.post(`/v1/regions/${name}/batches`, batch, headers);
  }

  /** Everything that a restart must not change. */
  async facts(store: Store): Promise<unknown> {
    await store.flush();
    const facts = [];
    for (const name of store.names()) {
      const { durableGeneration: _, ...info } = store.info(name)!;
      const digest = createHash("sha256");
      for (let at = 0; at < info.size; at += this.config.readBytesMax) {
        digest.update((await store.read(name, at, Math.min(this.config.readBytesMax, info.size - at))).bytes);
      }
      facts.push({ ...info, digest: digest.digest("hex"), snapshots: store.snapshots(name) });
    }
    return facts;
  }

  /** Closes the store, opens it again and compares. */
  async check(t: Test): Promise<void> {
    if (this.store === undefined) return;
    // A connection that a test cut is told of a moment later.
    for (let tries = 0; this.lifecycle.admitted > 0 && tries < 200; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    t.equal(this.lifecycle.admitted, 0, "every request that was let in is finished");
    const before = await this.facts(this.store);
    const { committed, applied, checkpoint } = this.store.status();
    t.ok(checkpoint <= applied && applied <= committed, "checkpoint <= applied <= committed");
    await this.store.close();
    this.store = undefined;
    const again = await this.openStore();
    const { clean, redone, faulted } = again.status().recovery;
    t.match({ clean, redone, faulted }, { clean: true, redone: 0, faulted: [] }, "the store was closed in order");
    t.same(await this.facts(again), before, "a restart changes nothing");
    await again.close();
  }
}

/** A test with a store of its own. `flags` as on the command line. What the test leaves is checked when it ends. */
export function storeTest(name: string, body: (t: Test, f: Fixture) => Promise<void>, ...flags: string[]): void {
  t.test(name, async (t) => {
    const fixture = new Fixture(flags);
    t.teardown(() => rmSync(fixture.directory, { recursive: true, force: true }));
    fixture.store = await fixture.openStore();
    fixture.app = await buildApp({ config: fixture.config, store: () => fixture.store, lifecycle: fixture.lifecycle });
    try {
      await body(t, fixture);
    } finally {
      await fixture.close();
      await fixture.check(t);
    }
  });
}

interface Received {
  statusCode: number;
  headers: object;
  rawPayload: Buffer;
}

function toAnswer({ statusCode, headers, rawPayload }: Received): Answer {
  const text = rawPayload.toString();
  const named = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
  const isJson = /^application\/(?:problem\+)?json/.test(named["content-type"] ?? "");
  return {
    status: statusCode,
    headers: named,
    bytes: rawPayload,
    text,
    json: isJson && text !== "" ? JSON.parse(text) : undefined,
  };
}
