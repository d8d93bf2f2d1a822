// listener.ts - the listening socket as an object: one of our own, or one that a service manager holds.
//
// It is made natively and handed to the HTTP server as a descriptor, so that closing it can first empty its accept queue.
import { lstatSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { backlog, lifecycle as nativeProcess } from "../native/lifecycle.js";

/** Where a service manager's first socket is (sd_listen_fds). */
const inheritedFd = 3;

export interface ListenerOptions {
  host: string;
  port: number;
  socketPath: string | undefined;
}

export class Listener {
  readonly #fd: number;
  /** Somebody else listens on it as well: its queue is theirs to answer. */
  readonly #shared: boolean;
  readonly #path: string | undefined;
  readonly #inode: bigint | undefined;

  private constructor(fd: number, shared: boolean, path: string | undefined) {
    this.#fd = fd;
    this.#shared = shared;
    this.#path = path;
    this.#inode = path === undefined ? undefined : inodeOf(path);
  }

  /** Listens; nobody accepts before serve(). @throws ListenError */
  static open(options: ListenerOptions): Listener {
    if (nativeProcess.inheritedListeners() > 0) return new Listener(inheritedFd, true, undefined);
    if (options.socketPath !== undefined) {
      return new Listener(nativeProcess.listenUnix(options.socketPath), false, options.socketPath);
    }
    return new Listener(nativeProcess.listenTcp(options.host, options.port), false, undefined);
  }

  /**
   * The server accepts from the event loop's next turn on: who is called back by this can still refuse. For a unix socket
   * the port is 0 and there is no host.
   */
  async serve(server: Server): Promise<{ host?: string; port: number; address: string }> {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      // Node calls listen() once more; with its own backlog it would cut ours down.
      server.listen({ fd: this.#fd, backlog }, () => {
        server.removeListener("error", reject);
        resolve();
      });
    });
    const bound = server.address();
    if (bound === null || typeof bound === "string") return { port: 0, address: this.#path ?? bound ?? "" };
    const { family, address, port } = bound;
    return { host: address, port, address: family === "IPv6" ? `[${address}]:${port}` : `${address}:${port}` };
  }

  /** New clients are no longer let in, those whose handshake is under way are. Returns the ones that waited. */
  dropNew(): number[] {
    if (this.#shared) return [];
    if (this.#path === undefined) nativeProcess.dropNew(this.#fd);
    // A successor may have put its own socket there already.
    else if (inodeOf(this.#path) === this.#inode) rmSync(this.#path, { force: true });
    return nativeProcess.acceptAll(this.#fd);
  }

  /** Nobody can connect any more. Returns those who waited. */
  close(): number[] {
    return nativeProcess.closeListener(this.#fd, this.#shared);
  }
}

function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}
