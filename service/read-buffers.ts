// read-buffers.ts - the buffers of long reads, used again and again.
//
// A new buffer of a megabyte costs more than what fills it: the kernel hands it out page by page, and V8, which sees the
// memory that lies outside of its heap, marks the whole heap every few of them. That was two thirds of a long GET.
import type { ServerResponse } from "node:http";
import type { ReadResult, Store } from "./store/store.js";

/** Shorter ones are cheap as they are. */
const pooledBytesMin = 128 << 10;

export class ReadBuffers {
  readonly #idle = new Map<number, Buffer[]>();
  #idleBytes = 0;

  /** `idleBytesMax`: what is kept for later; the rest is left to the garbage collector. */
  constructor(private readonly idleBytesMax: number) {}

  /**
   * Store.read(), into a buffer that belongs to `response` until that is closed: whatever is made of the bytes must be sent
   * with it, or be a copy.
   */
  read(store: Store, name: string, offset: number, length: number, response: ServerResponse) {
    if (length < pooledBytesMin) return store.read(name, offset, length);
    const buffer = this.#take(length);
    const read = store.read(name, offset, length, buffer.subarray(0, length));
    // A client may go while a thread still fills it.
    if (read instanceof Promise) return read.finally(() => this.#giveAfter(response, buffer)) as Promise<ReadResult>;
    this.#giveAfter(response, buffer);
    return read;
  }

  /** Powers of two, so that reads of about the same length share. */
  #take(length: number): Buffer {
    const bytes = 2 ** Math.ceil(Math.log2(length));
    const buffer = this.#idle.get(bytes)?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(bytes);
    this.#idleBytes -= bytes;
    return buffer;
  }

  /** A response closes when the kernel has its last byte, or nobody wants it any more. */
  #giveAfter(response: ServerResponse, buffer: Buffer): void {
    if (response.closed) this.#give(buffer);
    else response.once("close", () => this.#give(buffer));
  }

  #give(buffer: Buffer): void {
    if (this.#idleBytes + buffer.length > this.idleBytesMax) return;
    const idle = this.#idle.get(buffer.length) ?? [];
    this.#idle.set(buffer.length, idle);
    idle.push(buffer);
    this.#idleBytes += buffer.length;
  }
}
