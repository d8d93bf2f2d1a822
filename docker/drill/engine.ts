// engine.ts - the few calls of the Docker Engine API that a drill makes, over the engine's unix socket, with times of our
// own. Podman answers the same calls. It knows nothing of what runs in a container.
//
// No client library: the common ones bring install scripts, and one of them stops with a grace of 0.
import { EventEmitter } from "node:events";
import { type IncomingMessage, request } from "node:http";

/** Old enough for every engine in use; podman's compatible API takes it too. */
const apiVersion = "/v1.40";

/** An answer of the engine that is not a success. */
export class EngineError extends Error {
  override name = "EngineError";
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface ContainerState {
  Status: string;
  Running: boolean;
  OOMKilled: boolean;
  Pid: number;
  ExitCode: number;
  Error: string;
}

export interface ContainerView {
  Id: string;
  RestartCount: number;
  State: ContainerState;
  NetworkSettings: { IPAddress: string; Networks?: Record<string, { IPAddress: string }> };
}

interface DieEvent {
  timeNano: number;
  Actor: { Attributes: { exitCode: string } };
}

export class Engine {
  constructor(readonly socketPath: string) {}

  /** One call. Resolves the parsed answer, or undefined when it has no JSON. @throws EngineError */
  async call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const raw = body instanceof Buffer ? body : body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const response = await this.#open(method, path, raw, body instanceof Buffer ? "application/x-tar" : undefined);
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString("utf8");
    if (response.statusCode! >= 400) throw new EngineError(response.statusCode!, messageOf(text));
    return (response.headers["content-type"]?.includes("json") && text !== "" ? JSON.parse(text) : undefined) as T;
  }

  #open(method: string, path: string, body?: Buffer, type = "application/json"): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = request(
        {
          socketPath: this.socketPath,
          method,
          path: `${apiVersion}${path}`,
          headers:
            body === undefined
              ? { host: "engine" }
              : { host: "engine", "content-type": type, "content-length": body.length },
        },
        resolve,
      );
      call.on("error", reject);
      call.end(body);
    });
  }

  version(): Promise<{ Version: string; ApiVersion: string }> {
    return this.call("GET", "/version");
  }

  async create(name: string, spec: object): Promise<string> {
    const made = await this.call<{ Id: string }>("POST", `/containers/create?name=${name}`, spec);
    return made.Id;
  }

  start(id: string): Promise<void> {
    return this.call("POST", `/containers/${id}/start`);
  }

  stop(id: string, graceS: number): Promise<void> {
    return this.call("POST", `/containers/${id}/stop?t=${graceS}`);
  }

  kill(id: string, signal: string): Promise<void> {
    return this.call("POST", `/containers/${id}/kill?signal=${signal}`);
  }

  pause(id: string): Promise<void> {
    return this.call("POST", `/containers/${id}/pause`);
  }

  unpause(id: string): Promise<void> {
    return this.call("POST", `/containers/${id}/unpause`);
  }

  inspect(id: string): Promise<ContainerView> {
    return this.call("GET", `/containers/${id}/json`);
  }

  /** Also while it runs. One that is gone already is no error. */
  async remove(id: string): Promise<void> {
    try {
      await this.call("DELETE", `/containers/${id}?force=1&v=1`);
    } catch (error) {
      if (!(error instanceof EngineError) || error.status !== 404) throw error;
    }
  }

  /** Its data goes to `dir` of the engine's machine, if that is given. */
  async createVolume(name: string, dir?: string): Promise<void> {
    const bind = dir === undefined ? {} : { DriverOpts: { type: "none", o: "bind", device: dir } };
    await this.call("POST", "/volumes/create", { Name: name, Labels: { "holdfast.drill": "1" }, ...bind });
  }

  async removeVolume(name: string): Promise<void> {
    await this.call("DELETE", `/volumes/${name}?force=1`);
  }

  /** Puts one file into a container that has not been started. `path` is absolute, its folder exists. */
  async putFile(id: string, path: string, content: Buffer): Promise<void> {
    const slash = path.lastIndexOf("/");
    const archive = tarOf(path.slice(slash + 1), content);
    await this.call(
      "PUT",
      `/containers/${id}/archive?path=${encodeURIComponent(path.slice(0, slash) || "/")}`,
      archive,
    );
  }

  /** What the container writes from then on, line by line ("line"), until it ends ("end"). */
  async logs(id: string, sinceMs: number): Promise<EventEmitter> {
    const since = (sinceMs / 1000).toFixed(6);
    const response = await this.#open("GET", `/containers/${id}/logs?follow=1&stdout=1&stderr=1&since=${since}`);
    const lines = new EventEmitter();
    let pending = Buffer.alloc(0);
    const texts = new Map<number, string>();
    response.on("data", (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      // Frames of the engine: stream, three zeros, length (big-endian), bytes.
      while (pending.length >= 8 && pending.length >= 8 + pending.readUInt32BE(4)) {
        const length = pending.readUInt32BE(4);
        const stream = pending[0]!;
        const parts = `${texts.get(stream) ?? ""}${pending.toString("utf8", 8, 8 + length)}`.split("\n");
        pending = pending.subarray(8 + length);
        texts.set(stream, parts.pop()!);
        for (const line of parts) lines.emit("line", line);
      }
    });
    response.on("error", () => lines.emit("end"));
    response.on("end", () => lines.emit("end"));
    return lines;
  }

  /**
   * Resolves the engine's own time of the container's end, in milliseconds, and the exit code, as soon as it is told of it.
   * The second event's name is podman's. Not by inspect(): a restart policy may have started it again by then.
   */
  async died(id: string): Promise<{ done: Promise<{ atMs: number; code: number }>; close(): void }> {
    const filters = encodeURIComponent(JSON.stringify({ container: [id], event: ["die", "died"] }));
    const response = await this.#open("GET", `/events?filters=${filters}`);
    let text = "";
    const done = new Promise<{ atMs: number; code: number }>((resolve, reject) => {
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString("utf8");
        const end = text.indexOf("\n");
        if (end === -1) return;
        const { timeNano, Actor } = JSON.parse(text.slice(0, end)) as DieEvent;
        resolve({
          atMs: timeNano / 1e6,
          code: Number(Actor.Attributes.exitCode),
        });
        response.destroy();
      });
      response.on("error", reject);
      response.on("end", () => reject(new Error("the engine ended its events")));
    });
    // Nobody waits for it after close().
    done.catch(() => {});
    return { done, close: () => response.destroy() };
  }
}

function messageOf(text: string): string {
  try {
    return (JSON.parse(text) as { message: string }).message;
  } catch {
    return text;
  }
}

/** A ustar archive of one file. */
function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, "0")}\0`;
  header.write(name, 0);
  header.write(octal(0o644, 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(content.length, 12), 124);
  header.write(octal(0, 12), 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\u000000", 257);
  header.write(
    octal(
      header.reduce((sum, byte) => sum + byte, 0),
      7,
    ),
    148,
  );
  return Buffer.concat([header, content, Buffer.alloc((512 - (content.length % 512)) % 512), Buffer.alloc(1024)]);
}
