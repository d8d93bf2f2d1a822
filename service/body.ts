// body.ts - request bodies: JSON, and those that are bytes into one buffer, up to a limit; held against their digest.
import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import { verifyContentDigest } from "./digests.js";
import { Problem } from "./errors.js";

/** The routes of `app` take JSON under this name. Like Fastify's own parser but for what it says about a mistake. */
export function takeJson(app: FastifyInstance, mediaType: string): void {
  app.addContentTypeParser(mediaType, { parseAs: "string" }, ({ headers }, text, done) => {
    let body: unknown;
    try {
      body = JSON.parse(text as string);
    } catch (error) {
      done(new Problem("malformed-json", text.length === 0 ? "the body is empty" : (error as Error).message));
      return;
    }
    if (headers["content-digest"] === undefined) done(null, body);
    else verifyContentDigest(headers, Buffer.from(text)).then(() => done(null, body), done);
  });
}

/**
 * Reads a body whole and calls `done` once: with its bytes, which are what Content-Digest says if it says something. With a
 * Content-Length the bytes go straight to their place; without one they are gathered.
 */
export function readBody(
  from: Readable,
  headers: IncomingHttpHeaders,
  bytesMax: number,
  done: (error: Error | null, body?: Buffer) => void,
): void {
  const announced = headers["content-length"] === undefined ? undefined : Number(headers["content-length"]);
  if (announced !== undefined && announced > bytesMax) {
    done(tooLarge(bytesMax, announced));
    return;
  }
  const body = announced === undefined ? undefined : Buffer.allocUnsafe(announced);
  const chunks: Buffer[] = [];
  let length = 0;

  const finish = (error: Error | null, whole?: Buffer) => {
    from.removeListener("data", onData).removeListener("end", onEnd).removeListener("error", finish);
    if (whole === undefined || headers["content-digest"] === undefined) done(error, whole);
    else verifyContentDigest(headers, whole).then(() => done(null, whole), done);
  };
  const onData = (chunk: Buffer) => {
    length += chunk.length;
    if (length > bytesMax) return finish(tooLarge(bytesMax, length));
    if (body === undefined) chunks.push(chunk);
    else chunk.copy(body, length - chunk.length);
  };
  // Node's parser has seen to it that an announced body is as long as it says.
  const onEnd = () => finish(null, body ?? Buffer.concat(chunks, length));
  from.on("data", onData).on("end", onEnd).on("error", finish);
}

function tooLarge(limit: number, actual: number | undefined): Problem {
  const failures = [{ code: "body-too-large", limit, ...(actual !== undefined && { actual }) }];
  return new Problem("body-too-large", `the body may have ${limit} bytes`, {
    failures,
    headers: { connection: "close" },
  });
}
