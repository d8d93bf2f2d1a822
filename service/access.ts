// access.ts - who may do what: bearer tokens, one for reading and writing and one for reading only; and without them, by which
// names a service on loopback answers.
import { timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";
import type { Config } from "./config.js";
import { Problem } from "./errors.js";

/** `open` is for operations and documentation, which never need a token. */
export type Access = "open" | "read" | "write";

type AccessSettings = Pick<Config, "auth" | "authToken" | "authTokenRead" | "host" | "socketPath">;

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
  /** Undefined: it answers by every name. */
  private readonly ownName: string | undefined;
  /** A Host that was looked at; nearly every request has the same. */
  private trustedHost: string | undefined;

  constructor({ auth, authToken, authTokenRead, host, socketPath }: AccessSettings) {
    this.write = authToken === undefined ? undefined : padded(authToken);
    this.read = authTokenRead === undefined ? undefined : padded(authTokenRead);
    this.ownName = auth === "none" || authToken !== undefined || socketPath !== undefined ? undefined : host;
  }

  /** Whether anybody is asked for a token. */
  get required(): boolean {
    return this.write !== undefined;
  }

  /** Undefined: go on. */
  check({ authorization, host }: IncomingHttpHeaders, access: Access): Problem | undefined {
    if (access === "open") return undefined;
    if (this.write === undefined) return this.checkName(host);
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

  /**
   * Whoever owns a name can lead it to this machine's loopback, and then a page of his makes every browser here ask what it
   * likes (DNS rebinding). Such a request says the name; nobody can lead an address elsewhere, or localhost.
   */
  private checkName(host: string | undefined): Problem | undefined {
    if (this.ownName === undefined || host === undefined || host === this.trustedHost) return undefined;
    const name = host.toLowerCase().replace(/:\d*$/, "");
    const isOwn = name === this.ownName.toLowerCase() || /^(?:.*\.)?localhost$/.test(name);
    if (!isOwn && isIP(name.replace(/^\[(.*)\]$/, "$1")) === 0) {
      const cure = "AUTH_TOKEN sets a token, AUTH=none lets every name in";
      return unauthenticated(
        `Without a token only localhost, addresses and HOST are answered, not ${name}: ${cure}`,
        "",
      );
    }
    this.trustedHost = host;
    return undefined;
  }
}

function unauthenticated(detail: string, more: string): Problem {
  return new Problem("unauthenticated", detail, { headers: { "www-authenticate": `Bearer realm="holdfast"${more}` } });
}
