// version.ts - what this build calls itself.
import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  name: string;
  version: string;
  description: string;
};

export const name = manifest.name;
export const version = manifest.version;
export const description = manifest.description;
