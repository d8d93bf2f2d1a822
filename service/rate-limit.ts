// rate-limit.ts - so many requests for each client, told in the fields of draft-ietf-httpapi-ratelimit-headers. Loaded only
// when RATE_LIMIT is set: counting costs every request about a quarter of its time.
//
// A client is an IPv4 address or an IPv6 network of 64 bits; everybody on a unix socket is one. It has RATE_LIMIT_BURST
// requests in a window that begins with its first one, and then the next window.
import rateLimit from "@fastify/rate-limit";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Problem } from "./errors.js";

/** Counts a request and tells its client what is left. Rejects with the Problem rate-limited when nothing was. */
export type RateLimit = (request: FastifyRequest, reply: FastifyReply) => Promise<void>;

export interface RateLimitOptions {
  /** Requests of a client a second, on the average. */
  rateLimit: number;
  /** Requests of a client in a window: a multiple of `rateLimit`. */
  rateLimitBurst: number;
  socketPath: string | undefined;
}

/** The name of the one policy that there is. */
const policy = '"default"';

export async function addRateLimit(app: FastifyInstance, options: RateLimitOptions): Promise<RateLimit> {
  const { rateLimit: perSecond, rateLimitBurst: burst, socketPath } = options;
  const windowSeconds = burst / perSecond;
  await app.register(rateLimit, {
    // Nothing is added to routes by the plugin: its fields are those of an older draft, and the gate knows which routes count.
    global: false,
    max: burst,
    timeWindow: windowSeconds * 1000,
    // A peer of a unix socket has no address.
    ...(socketPath !== undefined && { keyGenerator: () => "socket" }),
  });
  const count = app.createRateLimit();
  const policies = `${policy};q=${burst};w=${windowSeconds}`;
  return async (request, reply) => {
    const counted = await count(request);
    // Only of clients on a list of exceptions, and there is none.
    if (counted.isAllowed) return;
    const { remaining, ttlInSeconds, isExceeded } = counted;
    reply.header("ratelimit-policy", policies);
    reply.header("ratelimit", `${policy};r=${remaining};t=${ttlInSeconds}`);
    if (!isExceeded) return;
    throw new Problem("rate-limited", `a client has ${burst} requests in ${windowSeconds} s`, {
      failures: [{ code: "rate-limited", limit: burst }],
      headers: { "retry-after": String(ttlInSeconds) },
    });
  };
}
