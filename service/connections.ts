// connections.ts - every connection of the HTTP server and what is open on it, so that a stop can end each of them
// politely and in time.
//
// Node's own close() waits for ever on a connection with no bytes, half a head or half a body, and Fastify's can only wait or
// cut everything. Here each connection is idle (nothing asked), arriving (part of a request's head is there) or busy (a
// request is open), and the lifecycle ends them in that order. It never decides when.
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { Problem, problemBody } from "./errors.js";
import { answerRaw } from "./fallbacks.js";
import { problemType, securityHeaders } from "./headers.js";
import { linger, lingerAfter } from "./linger.js";

/**
 * A client that was answered, or connected, this shortly before the stop is expected to ask again; and any that connects
 * later has something to ask.
 */
const expectedMs = 100;

interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
}

interface Connection {
  exchanges: Set<Exchange>;
  /** The last answer's end, or when it was opened. Milliseconds of performance.now(). */
  idleSince: number;
  /** What had been received by then: more than this is the beginning of another request. */
  idleBytes: number;
  /** Told 503 while bytes of its request were still to come. */
  refused: boolean;
}

/** What became of the requests that were open at the first signal or came after it. */
export interface Outcomes {
  answered: number;
  /** Answered 503. */
  refused: number;
  /** Connections that were ended with a request open on them. */
  cut: number;
  /** The client went away by itself. */
  aborted: number;
}

export class Connections {
  readonly outcomes: Outcomes = { answered: 0, refused: 0, cut: 0, aborted: 0 };
  readonly #connections = new Map<Socket, Connection>();
  readonly #server: Server;
  #closing = false;
  #closingSince = 0;

  /** Before the server listens, and before anything else listens to its requests. */
  constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => this.#opened(socket));
    server.prependListener("request", (request, response) => this.#asked({ request, response }));
    server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
      // While stopping, the request is refused on its head alone: 503 in place of 100, and no body is asked for.
      if (!this.#closing) response.writeContinue();
      server.emit("request", request, response);
    });
  }

  /** Connections that are open. */
  get open(): number {
    return this.#connections.size;
  }

  /** Connections with a request on them, or a part of one. */
  get active(): number {
    let active = 0;
    for (const [socket, connection] of this.#connections) if (!this.#isIdle(socket, connection)) active += 1;
    return active;
  }

  /** Requests that have not been answered to the end. */
  get requests(): number {
    let requests = 0;
    for (const connection of this.#connections.values()) requests += connection.exchanges.size;
    return requests;
  }

  /** From now on every answer closes its connection, also those that were asked for before. */
  closeWhenAnswered(): void {
    this.#closing = true;
    this.#closingSince = performance.now();
    for (const connection of this.#connections.values()) {
      if (connection.exchanges.size > 0) this.#closeAfterLast(connection);
    }
  }

  /** Connections that the kernel had accepted before the listener was closed become the server's. */
  adopt(descriptors: readonly number[]): void {
    for (const fd of descriptors) {
      const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
      // As the server does with those that it accepts itself.
      socket.setNoDelay(true);
      this.#server.emit("connection", socket);
    }
  }

  /**
   * Ends connections on which nothing is asked; while `patient`, only those of which nothing is expected. Each is looked at
   * once more after the event loop has polled, so that a request that had come while JavaScript was busy is read: an
   * unread one would be answered with a reset.
   */
  sweep(patient: boolean): void {
    const silent: [Socket, Connection][] = [];
    for (const [socket, connection] of this.#connections) {
      const expected = connection.idleSince > this.#closingSince - expectedMs;
      if (!(patient && expected) && this.#isIdle(socket, connection)) silent.push([socket, connection]);
    }
    if (silent.length === 0) return;
    afterPoll(() => {
      for (const [socket, connection] of silent) if (this.#isIdle(socket, connection)) socket.destroy();
    });
  }

  /** Answers 503 to every request of which a part has still not arrived. */
  refuseLate(): void {
    for (const [socket, connection] of this.#connections) {
      if (connection.refused) continue;
      if (connection.exchanges.size === 0) {
        if (socket.bytesRead > connection.idleBytes) this.#refuseHead(socket, connection);
        continue;
      }
      for (const exchange of connection.exchanges) {
        if (!exchange.request.complete && !exchange.response.headersSent) this.#refuseBody(connection, exchange);
      }
    }
  }

  /** Ends every connection. Requests that were open on them are counted as cut. */
  cut(): void {
    for (const [socket, connection] of this.#connections) {
      this.outcomes.cut += connection.exchanges.size;
      connection.exchanges.clear();
      socket.destroy();
    }
  }

  #isIdle(socket: Socket, connection: Connection): boolean {
    return connection.exchanges.size === 0 && !connection.refused && socket.bytesRead <= connection.idleBytes;
  }

  #opened(socket: Socket): void {
    this.#connections.set(socket, {
      exchanges: new Set(),
      idleSince: performance.now(),
      idleBytes: 0,
      refused: false,
    });
    socket.once("close", () => this.#connections.delete(socket));
  }

  #asked(exchange: Exchange): void {
    const socket = exchange.request.socket;
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.exchanges.add(exchange);
    if (this.#closing) this.#closeAfterLast(connection);
    // Emitted once for each response, whether it was sent to its end or not.
    exchange.response.on("close", () => {
      if (!connection.exchanges.delete(exchange)) return;
      connection.idleSince = performance.now();
      connection.idleBytes = socket.bytesRead;
      if (this.#closing) this.#count(exchange.response);
    });
  }

  #count(response: ServerResponse): void {
    if (!response.writableFinished) this.outcomes.aborted += 1;
    else if (response.statusCode === 503) this.outcomes.refused += 1;
    else this.outcomes.answered += 1;
  }

  /**
   * Only the last of several pipelined requests closes: a client ignores what comes after a `Connection: close`, and
   * would never learn of a batch that was committed.
   */
  #closeAfterLast(connection: Connection): void {
    const exchanges = [...connection.exchanges];
    const last = exchanges.pop();
    for (const { response } of exchanges) if (!response.headersSent) response.removeHeader("connection");
    // An answer under way keeps its connection open; the next sweep ends it.
    if (last === undefined || last.response.headersSent) return;
    last.response.setHeader("connection", "close");
    lingerAfter(last.request);
  }

  #refuseHead(socket: Socket, connection: Connection): void {
    connection.refused = true;
    this.outcomes.refused += 1;
    answerRaw(socket, late());
    linger(socket);
  }

  #refuseBody(connection: Connection, { request, response }: Exchange): void {
    connection.refused = true;
    // Whoever reads the body fails with this, and the app's error handler writes the answer as it writes all others.
    if (request.listenerCount("error") > 0) request.emit("error", Object.assign(late(), { statusCode: 503 }));
    // Nobody reads it, or has not answered.
    setImmediate(() => {
      if (response.headersSent || response.destroyed) return;
      const problem = late();
      const body = JSON.stringify(problemBody(problem, request.url ?? "/", "none"));
      const headers = { ...securityHeaders, ...problem.headers, "content-type": problemType, connection: "close" };
      response.writeHead(503, { ...headers, "content-length": Buffer.byteLength(body) });
      response.end(body);
    });
  }
}

/**
 * Calls back when the event loop has polled every descriptor that is watched now. One setImmediate is not enough: set while
 * the loop polls, it comes before descriptors that were added meanwhile are looked at.
 */
function afterPoll(callback: () => void): void {
  setImmediate(() => setImmediate(callback));
}

function late(): Problem {
  return new Problem("draining", "The service is stopping and the request had not arrived whole. Nothing was written.");
}
