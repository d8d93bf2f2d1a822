// etags.ts - entity tags: `"<incarnation>.<meta generation>.<generation>"`. The incarnation is new for every creation,
// so that a region that was deleted and made again never has an old tag.
import type { Etag } from "../../native/index.js";

export type { Etag };
/** What If-Match or If-None-Match names: tags of ours (foreign ones can match nothing), or anything that exists. */
export type EtagCondition = readonly Etag[] | "*";

export function formatEtag(of: Etag): string {
  return `"${of.incarnation}.${of.metaGeneration}.${of.generation}"`;
}

const own = /^(\d{1,16})\.(\d{1,16})\.(\d{1,16})$/;
// One entity tag and what separates it from the next (RFC 9110, 8.8.3 and 5.6.1).
const next = /[ \t]*(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)/y;

/**
 * Parses the value of If-Match or If-None-Match; undefined when it is neither `*` nor a list of entity tags. With
 * `strong`, weak tags are left out: they never match strongly.
 */
export function parseEtags(value: string, { strong }: { strong: boolean }): EtagCondition | undefined {
  if (value.trim() === "*") return "*";
  const tags: Etag[] = [];
  next.lastIndex = 0;
  while (next.lastIndex < value.length) {
    const match = next.exec(value);
    if (match === null) return undefined;
    if (match[1] !== undefined && strong) continue;
    const parts = own.exec(match[2]!);
    if (parts === null) continue;
    tags.push({ incarnation: Number(parts[1]), metaGeneration: Number(parts[2]), generation: Number(parts[3]) });
  }
  return value.trim() === "" ? undefined : tags;
}

export function etagMatches(condition: EtagCondition, current: Etag): boolean {
  return (
    condition === "*" ||
    condition.some(
      (tag) =>
        tag.generation === current.generation &&
        tag.metaGeneration === current.metaGeneration &&
        tag.incarnation === current.incarnation,
    )
  );
}
