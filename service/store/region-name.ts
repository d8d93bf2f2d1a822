// region-name.ts - the rule for region names, as the storage core has it.

export const regionNamePattern = "^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$";
const pattern = new RegExp(regionNamePattern);

/** The pattern, and no "..": a name is a directory below the store's own and never leaves it. */
export function isRegionName(candidate: string): boolean {
  return pattern.test(candidate) && !candidate.includes("..");
}
