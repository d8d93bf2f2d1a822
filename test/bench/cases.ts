// test/bench/cases.ts - what is asked of each contestant: the regions, the cases, and the requests of each case.
//
// Every contestant is sent the same requests. Payloads and offsets vary, because a store may skip a write of equal bytes
// and because a page that is always hot says nothing.

export type Mode = "fast" | "ordered" | "durable";
export const modes: readonly Mode[] = ["fast", "ordered", "durable"];

const KiB = 1024;
const MiB = 1024 * KiB;

/** Written to and read from in pieces. 16 MiB: 4,096 pages, more than stay in a processor's first caches. */
export const scattered = { name: "scattered", bytes: 16 * MiB };
/** Read as a whole. */
export const whole = { name: "whole", bytes: MiB };

export interface Request {
  method: "GET" | "POST" | "PUT";
  path: string;
  headers: Record<string, string>;
  body?: Buffer;
}

export interface Case {
  name: string;
  about: string;
  status: number;
  /** Bytes of the answer's body; undefined where digits make it vary. */
  answerBytes?: number;
  request(random: () => number): Request;
}

const rangePieceBytes = 4 * KiB;
const batchPath = `/v1/regions/${scattered.name}/batches`;
const json = { "content-type": "application/json" };

function randomBytes(length: number, random: () => number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) bytes[i] = random() * 256;
  return bytes;
}

/** An offset in the scattered region at which `bytes` fit, a multiple of `step`. */
function place(bytes: number, step: number, random: () => number): number {
  return Math.floor((random() * (scattered.bytes - bytes)) / step) * step;
}

export const cases: readonly Case[] = [
  {
    name: "write64",
    about: "JSON batch of one 64 B write",
    status: 200,
    request(random) {
      const data = randomBytes(64, random).toString("base64");
      const body = { ops: [{ op: "write", offset: place(64, 8, random), data, encoding: "base64" }] };
      return { method: "POST", path: batchPath, headers: json, body: Buffer.from(JSON.stringify(body)) };
    },
  },
  {
    name: "add10",
    about: "JSON batch of 10 adds",
    status: 200,
    request(random) {
      const ops = Array.from({ length: 10 }, () => {
        const value = String(1 + Math.floor(random() * 1000));
        return { op: "add", offset: place(8, 8, random), type: "u64", value, overflow: "wrap" };
      });
      return { method: "POST", path: batchPath, headers: json, body: Buffer.from(JSON.stringify({ ops })) };
    },
  },
  {
    name: "put4k",
    about: "partial PUT of 4 KiB",
    status: 204,
    answerBytes: 0,
    request(random) {
      const offset = place(rangePieceBytes, 512, random);
      return {
        method: "PUT",
        path: `/v1/regions/${scattered.name}/content`,
        headers: {
          "content-type": "application/octet-stream",
          "content-range": `bytes ${offset}-${offset + rangePieceBytes - 1}/*`,
        },
        body: randomBytes(rangePieceBytes, random),
      };
    },
  },
  {
    name: "get4k",
    about: "range GET of 4 KiB",
    status: 206,
    answerBytes: rangePieceBytes,
    request(random) {
      const offset = place(rangePieceBytes, 512, random);
      return {
        method: "GET",
        path: `/v1/regions/${scattered.name}/content`,
        headers: { range: `bytes=${offset}-${offset + rangePieceBytes - 1}` },
      };
    },
  },
  {
    name: "get1m",
    about: "GET of 1 MiB",
    status: 200,
    answerBytes: whole.bytes,
    request() {
      return { method: "GET", path: `/v1/regions/${whole.name}/content`, headers: {} };
    },
  },
];

/** mulberry32: the same requests for the same seed, in every contestant. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The requests that the client goes round in. */
export function requestsOf(work: Case, seed: number): Request[] {
  const random = seeded(seed);
  return Array.from({ length: 256 }, () => work.request(random));
}

/** A request as its bytes on the wire, so that a client needs no time to put it together. */
export function wireBytes(request: Request): Buffer {
  const lines = [`${request.method} ${request.path} HTTP/1.1`, "host: localhost"];
  for (const [name, value] of Object.entries(request.headers)) lines.push(`${name}: ${value}`);
  if (request.body) lines.push(`content-length: ${request.body.length}`);
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`), request.body ?? Buffer.alloc(0)]);
}
