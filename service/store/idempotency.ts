// idempotency.ts - how a client's Idempotency-Key becomes the key under which the store journals an outcome.
//
// A key belongs to one kind of change of one resource: the same text sent to another path is another key. The
// fingerprint tells a retry (same request) from a reuse (another request under the same key).
import { hash } from "node:crypto";
import type { IdempotencyKey } from "./batch-encoder.js";

const bytes = 16;

/** `change` is what the request does (its method), `path` what it does it to, `parts` everything else that matters. */
export function idempotencyKey(
  change: string,
  path: string,
  key: string,
  parts: readonly (string | Uint8Array)[],
): IdempotencyKey {
  return { key: digest([change, path, key]), fingerprint: digest([change, path, ...parts]) };
}

/** Every part is preceded by its length, so that no two lists run together into the same bytes. */
function digest(parts: readonly (string | Uint8Array)[]): Uint8Array {
  const buffers = parts.flatMap((part) => {
    const data = typeof part === "string" ? Buffer.from(part) : part;
    return [Buffer.from(`${data.length}:`), data];
  });
  return hash("sha256", Buffer.concat(buffers), "buffer").subarray(0, bytes);
}
