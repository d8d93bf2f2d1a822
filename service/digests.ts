// digests.ts - digests of bytes by name, and the fields of RFC 9530 that carry them. What is long is hashed on another
// thread.
import { createHash, type Hash, webcrypto } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { crc32c } from "../native/index.js";
import { Problem } from "./errors.js";
import { invalid } from "./headers.js";
import { parseDictionary } from "./structured-fields.js";

/** Names of RFC 9530's registry. Those that are for integrity against accidents only come last. */
export const digestAlgorithms = ["sha-256", "sha-512", "crc32c"] as const;
export type DigestAlgorithm = (typeof digestAlgorithms)[number];

/** The event loop can spare the time for this: about 0.1 ms with SHA instructions. */
const hereBytesMax = 128 << 10;

/** CRC-32C has four bytes, the most significant one first. `bytes` must not change before a promise settles. */
export function digestOf(algorithm: DigestAlgorithm, bytes: Uint8Array): Buffer | Promise<Buffer> {
  if (algorithm !== "crc32c" && bytes.length > hereBytesMax) {
    return webcrypto.subtle.digest(algorithm.toUpperCase(), bytes).then((digest) => Buffer.from(digest));
  }
  return new RunningDigest(algorithm).update(bytes).finish();
}

/** A digest of bytes that come one after the other. */
class RunningDigest {
  private readonly hash: Hash | undefined;
  private crc = 0;

  constructor(readonly algorithm: DigestAlgorithm) {
    this.hash = algorithm === "crc32c" ? undefined : createHash(algorithm.replace("-", ""));
  }

  update(bytes: Uint8Array): this {
    if (this.hash === undefined) this.crc = crc32c(bytes, this.crc);
    else this.hash.update(bytes);
    return this;
  }

  finish(): Buffer {
    if (this.hash !== undefined) return this.hash.digest();
    const digest = Buffer.alloc(4);
    digest.writeUInt32BE(this.crc);
    return digest;
  }
}

/** The value of Content-Digest or Repr-Digest. */
export const digestField = (algorithm: DigestAlgorithm, digest: Buffer): string =>
  `${algorithm}=:${digest.toString("base64")}:`;

/** Digests of Content-Digest by algorithms that are known here; others are ignored. @throws Problem header-invalid */
function contentDigests(headers: IncomingHttpHeaders): [DigestAlgorithm, Buffer][] {
  const members = dictionary("Content-Digest", headers["content-digest"]);
  return digestAlgorithms.flatMap((algorithm): [DigestAlgorithm, Buffer][] => {
    const item = members?.get(algorithm)?.item;
    if (item === undefined) return [];
    if (item.kind !== "bytes") throw invalid("Content-Digest", "a byte sequence for each algorithm");
    return [[algorithm, item.value]];
  });
}

/** Resolves when a body is what its Content-Digest says, or has none. @throws Problem digest-mismatch, header-invalid */
export async function verifyContentDigest(headers: IncomingHttpHeaders, body: Uint8Array): Promise<void> {
  for (const [algorithm, expected] of contentDigests(headers)) {
    compare(algorithm, expected, await digestOf(algorithm, body));
  }
}

/** The same for a body that comes in pieces. Undefined: there is nothing to verify. @throws Problem header-invalid */
export function contentDigestCheck(
  headers: IncomingHttpHeaders,
): { update(chunk: Uint8Array): void; verify(): void } | undefined {
  const running = contentDigests(headers).map(([algorithm, expected]) => ({
    expected,
    digest: new RunningDigest(algorithm),
  }));
  if (running.length === 0) return undefined;
  return {
    update: (chunk) => {
      for (const { digest } of running) digest.update(chunk);
    },
    verify: () => {
      for (const { expected, digest } of running) compare(digest.algorithm, expected, digest.finish());
    },
  };
}

function compare(algorithm: DigestAlgorithm, expected: Buffer, found: Buffer): void {
  if (expected.equals(found)) return;
  const failures = [
    {
      code: "digest-mismatch",
      detail: algorithm,
      limit: digestField(algorithm, expected),
      actual: digestField(algorithm, found),
    },
  ];
  throw new Problem("digest-mismatch", `the body's ${algorithm} is not that of Content-Digest`, { failures });
}

/**
 * The algorithm that a Want-Content-Digest or Want-Repr-Digest likes best among those that are known here. Undefined: the
 * field is not there, or wants none of them. @throws Problem header-invalid
 */
export function wantedDigest(
  header: "Want-Content-Digest" | "Want-Repr-Digest",
  value: string | string[] | undefined,
): DigestAlgorithm | undefined {
  const members = dictionary(header, value);
  if (members === undefined) return undefined;
  let best: DigestAlgorithm | undefined;
  let most = 0;
  for (const algorithm of digestAlgorithms) {
    const item = members.get(algorithm)?.item;
    if (item === undefined) continue;
    if (item.kind !== "integer" || item.value < 0 || item.value > 10)
      throw invalid(header, "ALGORITHM=0 to ALGORITHM=10");
    if (item.value > most) {
      best = algorithm;
      most = item.value;
    }
  }
  return best;
}

function dictionary(header: string, value: string | string[] | undefined) {
  if (value === undefined) return undefined;
  const members = parseDictionary(String(value));
  if (members === undefined) throw invalid(header, "a dictionary (RFC 9651), as in sha-256=...");
  return members;
}
