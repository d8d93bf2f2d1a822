// backends.ts - where a drilled service runs: a process, process 1 of a PID namespace, a container of an engine. All give
// the same: start, signal, freeze, stop with a grace, and how and when it ended. What is done to it is scenarios.ts's.
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { Agent } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { exchange } from "../../service/client.js";
import { Engine, EngineError } from "./engine.js";
import type { BackendName } from "./flags.js";
import type { Target } from "./load.js";

export type Signal = "SIGTERM" | "SIGINT" | "SIGKILL" | "SIGUSR2";

/** How to start it. Equal launches of a container start the same container again. */
export interface Launch {
  env?: Record<string, string>;
  /** JavaScript that runs in the process before the service does. */
  preload?: string;
  /** A script of this folder that runs in place of the service. */
  script?: string;
  /** Containers only. */
  stopSignal?: string;
  init?: boolean;
  memoryBytes?: number;
  restart?: "on-failure" | "always";
}

export interface Ended {
  /** 128 + n after signal n. */
  code: number;
  oom: boolean;
  /** Milliseconds since the epoch. */
  atMs: number;
}

export interface Line {
  atMs: number;
  text: string;
  /** The members of a JSON line. */
  json: Record<string, unknown> | undefined;
}

/** Data that outlives the processes on it, and where its service answers. */
export interface Site {
  /** Changed in place by a start: a container may get another address. */
  readonly target: Target;
  start(launch: Launch): Promise<Instance>;
  /** What is left of it; everything it started is gone. */
  remove(): Promise<void>;
}

export interface Instance {
  readonly lines: readonly Line[];
  readonly startedAtMs: number;
  readonly ended: Promise<Ended>;
  signal(signal: Signal): Promise<void>;
  pause(): Promise<void>;
  unpause(): Promise<void>;
  /** TERM, then KILL after the grace; resolves when whoever does this says that it is done. */
  stop(graceS: number): Promise<void>;
  /** As this machine numbers it; 0 if it is not on this machine. */
  hostPid(): Promise<number>;
  /** Waits until it runs again without having been started by us; false when it does not within the time. */
  restarted(msMax: number): Promise<boolean>;
}

export interface Backend {
  readonly name: BackendName;
  /** Of an engine's containers: the drilled process is number 1 of its namespace. */
  readonly isFirstProcess: boolean;
  readonly isContainer: boolean;
  /** A sentence why it can't be used here. */
  missing(): Promise<string | undefined>;
  /** With `diskBytes`, on a file system of its own of this size, in memory; that needs root. */
  site(diskBytes?: number): Promise<Site>;
  /** A second site on the same data. */
  twin(site: Site): Promise<Site>;
}

/** Of the Dockerfile. */
const imageUser = 10001;
const root = fileURLToPath(new URL("../../../", import.meta.url));
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
export const now = (): number => performance.timeOrigin + performance.now();

function lineOf(text: string): Line {
  let json: Record<string, unknown> | undefined;
  if (text.startsWith("{")) {
    try {
      json = JSON.parse(text) as Record<string, unknown>;
    } catch {
      // Cut by a kill.
    }
  }
  return { atMs: now(), text, json };
}

function nodeOptions(launch: Launch): Record<string, string> {
  if (launch.preload === undefined) return {};
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(launch.preload)}` };
}

/** A folder for data, below DRILL_DIR or the folder for temporary files. */
class DataDir {
  readonly path = mkdtempSync(join(process.env.DRILL_DIR ?? tmpdir(), "holdfast-drill-"));
  readonly #isMounted: boolean;

  constructor(diskBytes: number | undefined) {
    this.#isMounted = diskBytes !== undefined;
    if (!this.#isMounted) return;
    // The image's user owns it.
    const options = `size=${diskBytes},mode=0755,uid=${imageUser},gid=${imageUser}`;
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "holdfast-drill", this.path]);
  }

  remove(): void {
    if (this.#isMounted) execFileSync("umount", [this.path]);
    rmSync(this.path, { recursive: true, force: true });
  }
}

// ---- processes ----

const signalNumbers: Record<string, number> = {
  SIGINT: 2,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGKILL: 9,
  SIGUSR2: 12,
  SIGSEGV: 11,
  SIGTERM: 15,
};

class ProcessInstance implements Instance {
  readonly lines: Line[] = [];
  readonly startedAtMs = now();
  readonly ended: Promise<Ended>;
  readonly #child: ChildProcess;
  readonly #inNamespace: boolean;
  #over = false;

  constructor(command: string[], env: Record<string, string>, inNamespace: boolean) {
    this.#inNamespace = inNamespace;
    this.#child = spawn(command[0]!, command.slice(1), { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      createInterface({ input: stream }).on("line", (text) => this.lines.push(lineOf(text)));
    }
    this.ended = new Promise((resolve, reject) => {
      this.#child.on("error", reject);
      let atMs = 0;
      this.#child.on("exit", () => {
        this.#over = true;
        atMs = now();
      });
      // Its last lines have come by then.
      this.#child.on("close", (code, signal) => {
        // unshare means to die of its child's signal, which it can't of a KILL: it says so and ends with 1.
        const isKilled = inNamespace && code === 1 && this.lines.some(({ text }) => text.startsWith("unshare: "));
        resolve({ code: isKilled ? 137 : (code ?? 128 + (signalNumbers[signal!] ?? 0)), oom: false, atMs });
      });
    });
  }

  async hostPid(): Promise<number> {
    const pid = this.#child.pid!;
    if (!this.#inNamespace) return pid;
    // unshare forks; its child is number 1 of the namespace.
    for (let tries = 0; tries < 500 && !this.#over; ++tries) {
      try {
        const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
        if (children !== "") return Number(children.split(" ")[0]);
      } catch {
        return 0;
      }
      await sleep(1);
    }
    return 0;
  }

  async #send(signal: NodeJS.Signals): Promise<void> {
    const pid = await this.hostPid();
    if (this.#over || pid === 0) return;
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  signal(signal: Signal): Promise<void> {
    return this.#send(signal);
  }

  // Nobody does that here.
  async restarted(): Promise<boolean> {
    return false;
  }

  pause(): Promise<void> {
    return this.#send("SIGSTOP");
  }

  unpause(): Promise<void> {
    return this.#send("SIGCONT");
  }

  async stop(graceS: number): Promise<void> {
    await this.#send("SIGTERM");
    const timer = setTimeout(() => void this.#send("SIGKILL"), graceS * 1000);
    await this.ended;
    clearTimeout(timer);
  }
}

class ProcessBackend implements Backend {
  readonly isContainer = false;
  readonly isFirstProcess: boolean;

  constructor(
    readonly name: "process" | "pidns",
    readonly environment: Record<string, string>,
  ) {
    this.isFirstProcess = name === "pidns";
  }

  async missing(): Promise<string | undefined> {
    if (!existsSync(join(root, "dist/service/main.js"))) return 'the service is not built: "npm run build"';
    if (this.name === "process") return undefined;
    const tried = spawnSync("unshare", [...namespaceFlags(), "true"], { encoding: "utf8" });
    return tried.status === 0
      ? undefined
      : `unshare: ${tried.stderr || tried.error?.message || "no PID namespaces"}`.trim();
  }

  async site(diskBytes?: number): Promise<Site> {
    const dir = new DataDir(diskBytes);
    return this.#siteOn(dir.path, () => dir.remove());
  }

  twin(site: Site): Promise<Site> {
    return this.#siteOn((site as Site & { dir: string }).dir);
  }

  async #siteOn(dir: string, remove?: () => void): Promise<Site & { dir: string }> {
    const target = { host: "127.0.0.1", port: await freePort() };
    const started: ProcessInstance[] = [];
    return {
      dir,
      target,
      start: async (launch) => {
        const script = launch.script === undefined ? "dist/service/main.js" : `dist/docker/drill/${launch.script}`;
        const env = {
          PATH: process.env.PATH ?? "",
          ...this.environment,
          HOST: "127.0.0.1",
          PORT: String(target.port),
          DATA_DIR: dir,
          ...nodeOptions(launch),
          ...launch.env,
        };
        const command = [
          ...(this.name === "pidns" ? ["unshare", ...namespaceFlags()] : []),
          process.execPath,
          join(root, script),
        ];
        const instance = new ProcessInstance(command, env, this.name === "pidns");
        started.push(instance);
        return instance;
      },
      remove: async () => {
        for (const instance of started) {
          await instance.unpause();
          await instance.signal("SIGKILL");
          await instance.ended;
        }
        remove?.();
      },
    };
  }
}

function namespaceFlags(): string[] {
  const flags = ["--pid", "--fork", "--mount-proc", "--kill-child"];
  return process.getuid?.() === 0 ? flags : ["--user", "--map-root-user", ...flags];
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

// ---- containers ----

export interface ContainerOptions {
  image: string;
  /** Where it listens inside. */
  port: number;
  /** Where its volume goes. */
  dataDir: string;
  /** Reach it through a published port of 127.0.0.1 rather than at the container's own address. */
  published: boolean;
  /** The image is this service's: it gets its settings, and the least rights. */
  own: boolean;
}

class ContainerBackend implements Backend {
  readonly isFirstProcess = true;
  readonly isContainer = true;

  constructor(
    readonly name: "docker" | "podman",
    readonly engine: Engine,
    readonly environment: Record<string, string>,
    readonly options: ContainerOptions,
  ) {}

  async missing(): Promise<string | undefined> {
    try {
      await this.engine.version();
    } catch (error) {
      return `no engine answers at ${this.engine.socketPath}: ${(error as Error).message}`;
    }
    try {
      await this.engine.call("GET", `/images/${encodeURIComponent(this.options.image)}/json`);
    } catch {
      return `there is no image ${this.options.image}: "docker build -t ${this.options.image} ."`;
    }
    return undefined;
  }

  async site(diskBytes?: number): Promise<Site> {
    const volume = `holdfast-drill-${randomBytes(4).toString("hex")}`;
    const dir = diskBytes === undefined ? undefined : new DataDir(diskBytes);
    await this.engine.createVolume(volume, dir?.path);
    return this.#siteOn(volume, async () => {
      await this.engine.removeVolume(volume);
      dir?.remove();
    });
  }

  twin(site: Site): Promise<Site> {
    return this.#siteOn((site as Site & { volume: string }).volume);
  }

  async #siteOn(volume: string, remove?: () => Promise<void>): Promise<Site & { volume: string }> {
    const { options, engine } = this;
    const target = { host: "127.0.0.1", port: options.published ? await freePort() : options.port };
    const made: string[] = [];
    let last = { key: "", id: "" };
    return {
      volume,
      target,
      start: async (launch) => {
        const key = JSON.stringify(launch);
        if (last.key !== key) {
          if (last.id !== "") await engine.remove(last.id);
          const id = await engine.create(
            `${volume}-${randomBytes(3).toString("hex")}`,
            this.#spec(volume, launch, target),
          );
          made.push(id);
          last = { key, id };
          if (launch.script !== undefined) {
            const content = readFileSync(join(root, "dist/docker/drill", launch.script));
            await engine.putFile(id, `/app/dist/service/${launch.script}`, content);
          }
        }
        const instance = await ContainerInstance.start(engine, last.id);
        if (!options.published) target.host = await addressOf(engine, last.id);
        return instance;
      },
      remove: async () => {
        for (const id of made) await engine.remove(id);
        await remove?.();
      },
    };
  }

  #spec(volume: string, launch: Launch, target: Target): object {
    const { options } = this;
    const env = { ...(options.own ? this.environment : {}), ...nodeOptions(launch), ...launch.env };
    const exposed = `${options.port}/tcp`;
    // A script is put into the container's own layer, which must be writable for that.
    const hardened = options.own && launch.script === undefined;
    return {
      Image: options.image,
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      ...(launch.script === undefined ? {} : { Entrypoint: ["node", `/app/dist/service/${launch.script}`] }),
      ...(launch.stopSignal === undefined ? {} : { StopSignal: launch.stopSignal }),
      ...(hardened ? { User: String(imageUser) } : {}),
      ExposedPorts: { [exposed]: {} },
      Labels: { "holdfast.drill": "1" },
      HostConfig: {
        Mounts: [{ Type: "volume", Source: volume, Target: options.dataDir }],
        ...(options.published
          ? { PortBindings: { [exposed]: [{ HostIp: "127.0.0.1", HostPort: String(target.port) }] } }
          : {}),
        ...(hardened ? { ReadonlyRootfs: true, CapDrop: ["ALL"], SecurityOpt: ["no-new-privileges"] } : {}),
        ...(launch.init ? { Init: true } : {}),
        ...(launch.memoryBytes === undefined ? {} : { Memory: launch.memoryBytes, MemorySwap: launch.memoryBytes }),
        ...(launch.restart === undefined ? {} : { RestartPolicy: { Name: launch.restart } }),
      },
    };
  }
}

async function addressOf(engine: Engine, id: string): Promise<string> {
  const { NetworkSettings } = await engine.inspect(id);
  const own = Object.values(NetworkSettings.Networks ?? {}).map((network) => network.IPAddress);
  return [NetworkSettings.IPAddress, ...own].find(Boolean) ?? "127.0.0.1";
}

class ContainerInstance implements Instance {
  readonly lines: Line[] = [];
  readonly startedAtMs: number;
  readonly ended: Promise<Ended>;

  readonly #restartsBefore: number;

  private constructor(
    readonly engine: Engine,
    readonly id: string,
    startedAtMs: number,
    restartsBefore: number,
    ended: Promise<Ended>,
  ) {
    this.#restartsBefore = restartsBefore;
    this.startedAtMs = startedAtMs;
    this.ended = ended;
  }

  static async start(engine: Engine, id: string): Promise<ContainerInstance> {
    // Before the start, so that no end is missed.
    const death = await engine.died(id);
    const startedAtMs = now();
    await engine.start(id);
    const { RestartCount } = await engine.inspect(id);
    const ended = death.done.then(async ({ atMs, code }) => {
      const { State } = await engine.inspect(id);
      return { code, oom: State.OOMKilled, atMs };
    });
    ended.catch(() => {});
    const instance = new ContainerInstance(engine, id, startedAtMs, RestartCount, ended);
    const lines = await engine.logs(id, startedAtMs);
    lines.on("line", (text: string) => instance.lines.push(lineOf(text)));
    return instance;
  }

  async #unlessOver(call: Promise<void>): Promise<void> {
    try {
      await call;
    } catch (error) {
      // "is not running": it ended first. Podman says so with 500.
      if (!(error instanceof EngineError) || !(error.status === 409 || /state improper/.test(error.message)))
        throw error;
    }
  }

  signal(signal: Signal): Promise<void> {
    return this.#unlessOver(this.engine.kill(this.id, signal));
  }

  pause(): Promise<void> {
    return this.#unlessOver(this.engine.pause(this.id));
  }

  unpause(): Promise<void> {
    return this.#unlessOver(this.engine.unpause(this.id));
  }

  stop(graceS: number): Promise<void> {
    return this.engine.stop(this.id, graceS);
  }

  async hostPid(): Promise<number> {
    return (await this.engine.inspect(this.id)).State.Pid;
  }

  async restarted(msMax: number): Promise<boolean> {
    for (const until = now() + msMax; now() < until; await sleep(10)) {
      const { RestartCount, State } = await this.engine.inspect(this.id);
      if (RestartCount > this.#restartsBefore && State.Running && State.Pid !== 0) return true;
    }
    return false;
  }
}

/** Where the engine of this user listens. */
function engineSocket(name: "docker" | "podman"): string {
  const variable = name === "docker" ? process.env.DOCKER_HOST : process.env.CONTAINER_HOST;
  if (variable?.startsWith("unix://")) return variable.slice("unix://".length);
  if (name === "docker") return "/var/run/docker.sock";
  const own = `/run/user/${process.getuid?.() ?? 0}/podman/podman.sock`;
  return existsSync(own) ? own : "/run/podman/podman.sock";
}

export function makeBackend(
  name: BackendName,
  environment: Record<string, string>,
  options: ContainerOptions,
): Backend {
  if (name === "process" || name === "pidns") return new ProcessBackend(name, environment);
  return new ContainerBackend(name, new Engine(engineSocket(name)), environment, options);
}

/** Polls until the path is answered 200. Resolves the time of the answer, or undefined when it ended or took too long. */
export async function waitUntilReady(
  target: Target,
  instance: Instance,
  path: string,
  msMax: number,
): Promise<number | undefined> {
  const agent = new Agent({ keepAlive: false });
  let over = false;
  instance.ended.then(
    () => {
      over = true;
    },
    () => {
      over = true;
    },
  );
  const until = now() + msMax;
  while (!over && now() < until) {
    const { answer } = await exchange(target, agent, { method: "GET", path }, { connectMs: 1000, answerMs: 1000 });
    if (answer !== undefined && answer.status < 300) return now();
    await sleep(4);
  }
  return undefined;
}
