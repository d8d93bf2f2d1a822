// raw-client.ts - one TCP connection that speaks just enough HTTP/1.1 to know at which byte a request was lost.
import { once } from "node:events";
import { connect, type Socket } from "node:net";

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
  /** Informational statuses that came before. */
  early: number[];
  /** The server says that it closes the connection. */
  closes: boolean;
}

/** `refused`: nobody listens, nothing was sent. `dropped`: established, and then ended without the answer. */
export class Lost extends Error {
  constructor(
    readonly how: "refused" | "dropped",
    readonly code: string,
  ) {
    super(`${how}: ${code}`);
  }
}

export class RawClient {
  readonly socket: Socket;
  received = "";
  #end: string | undefined;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    // Bodies of these tests are ASCII.
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      this.received += text;
      this.#wake();
    });
    socket.on("end", () => this.#ended("end"));
    socket.on("error", (error: NodeJS.ErrnoException) => this.#ended(error.code ?? "error"));
    socket.on("close", () => this.#ended("close"));
  }

  /** @throws Lost refused */
  static async connect(port: number): Promise<RawClient> {
    const socket = connect({ port, host: "127.0.0.1" });
    try {
      await once(socket, "connect");
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "error";
      throw new Lost(code === "ECONNREFUSED" ? "refused" : "dropped", code);
    }
    return new RawClient(socket);
  }

  /** Why the connection ended; undefined while it is open. */
  get end(): string | undefined {
    return this.#end;
  }

  send(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** @throws Lost dropped */
  async request(method: string, path: string, body = "", headers: Record<string, string> = {}): Promise<Answer> {
    const all = {
      host: "localhost",
      ...(body && { "content-type": "application/json", "content-length": `${body.length}` }),
      ...headers,
    };
    const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    this.send(`${method} ${path} HTTP/1.1\r\n${head.join("")}\r\n${body}`);
    return this.answer();
  }

  /** The next answer. @throws Lost dropped */
  async answer(): Promise<Answer> {
    const early: number[] = [];
    for (;;) {
      const head = await this.#upTo("\r\n\r\n");
      const [first = "", ...rest] = head.split("\r\n");
      const status = Number(first.split(" ")[1]);
      if (status < 200) {
        early.push(status);
        continue;
      }
      const headers = Object.fromEntries(
        rest.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
      );
      const body = await this.#take(Number(headers["content-length"] ?? 0));
      return { status, headers, body, early, closes: headers.connection === "close" };
    }
  }

  async closed(): Promise<string> {
    while (this.#end === undefined) await this.#change();
    return this.#end;
  }

  destroy(): void {
    this.socket.destroy();
  }

  async #upTo(mark: string): Promise<string> {
    while (!this.received.includes(mark)) await this.#more();
    const at = this.received.indexOf(mark);
    const text = this.received.slice(0, at);
    this.received = this.received.slice(at + mark.length);
    return text;
  }

  async #take(length: number): Promise<string> {
    while (this.received.length < length) await this.#more();
    const text = this.received.slice(0, length);
    this.received = this.received.slice(length);
    return text;
  }

  async #more(): Promise<void> {
    if (this.#end !== undefined) throw new Lost("dropped", this.#end);
    await this.#change();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #ended(how: string): void {
    this.#end ??= how;
    this.#wake();
  }
}
