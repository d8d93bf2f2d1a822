// access.ts - who may do what: bearer tokens, one for reading and writing and one for reading only.
import { timingSafeEqual } from "node:crypto";
import type { Config } from "./config.js";
import { Problem } from "./errors.js";

/** `open` is for operations and documentation, which never need a token. */
export type Access = "open" | "read" | "write";

/** Longer tokens can't be configured. */
const tokenBytesMax = 512;

function padded(token: string): Buffer {
  const bytes = Buffer.alloc(tokenBytesMax);
  bytes.write(token, "latin1");
  return bytes;
}

export class Tokens {
  private readonly write: Buffer | undefined;
  private readonly read: Buffer | undefined;
  private readonly presented = Buffer.alloc(tokenBytesMax);

  constructor({ authToken, authTokenRead }: Pick<Config, "authToken" | "authTokenRead">) {
    this.write = authToken === undefined ? undefined : padded(authToken);
    this.read = authTokenRead === undefined ? undefined : padded(authTokenRead);
  }

  /** Whether anybody is asked for a token. */
  get required(): boolean {
    return this.write !== undefined;
  }

  /** Undefined: go on. */
  check(authorization: string | undefined, access: Access): Problem | undefined {
    if (this.write === undefined || access === "open") return undefined;
    if (authorization === undefined) return unauthenticated("A token is needed: Authorization: Bearer TOKEN", "");
    const match = /^bearer +([^\s]+) *$/i.exec(authorization);
    if (match === null || match[1]!.length > tokenBytesMax) {
      return unauthenticated("Authorization must be: Bearer TOKEN", ', error="invalid_request"');
    }
    // Both always compared, over their whole length: the time tells neither which one it was nor how much of it fits.
    this.presented.fill(0);
    this.presented.write(match[1]!, "latin1");
    const mayWrite = timingSafeEqual(this.presented, this.write);
    const mayRead = this.read !== undefined && timingSafeEqual(this.presented, this.read);
    if (mayWrite || (mayRead && access === "read")) return undefined;
    if (mayRead) return new Problem("forbidden");
    return unauthenticated("The token is not valid", ', error="invalid_token"');
  }
}

function unauthenticated(detail: string, more: string): Problem {
  return new Problem("unauthenticated", detail, { headers: { "www-authenticate": `Bearer realm="holdfast"${more}` } });
}
