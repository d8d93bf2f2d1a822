// export.ts - writes openapi/openapi.json, problems.md and types.ts from the service's own routes and problems.
//
//   npm run openapi              writes them
//   npm run openapi -- --check   writes nothing, exits 1 when one of them is stale
import { readFileSync, writeFileSync } from "node:fs";
import { buildApp } from "../service/app.js";
import { loadConfig } from "../service/config.js";
import { problemCodes, problemKinds } from "../service/errors.js";
import type { LifecycleView } from "../service/lifecycle-view.js";
import { openapiText } from "../service/openapi.js";
import { clientTypes } from "./client-types.js";

// The document is the same in every state and with every setting.
const asleep: LifecycleView = {
  state: () => "starting",
  since: () => 0,
  closing: () => false,
  admit: () => "starting",
  finished: () => {},
  inFlight: () => 0,
  gateDepth: () => 0,
  statusDetail: () => ({}),
  stopSignal: new AbortController().signal,
};

/** The generated files by name. */
export async function generate(): Promise<Map<string, string>> {
  const app = await buildApp(
    { config: loadConfig([], {}), store: () => undefined, lifecycle: asleep },
    { documented: true },
  );
  await app.ready();
  const document = openapiText(app);
  await app.close();
  return new Map([
    ["openapi.json", document],
    ["problems.md", problemsText()],
    ["types.ts", await clientTypes(document)],
  ]);
}

function problemsText(): string {
  const rows = problemCodes.map((code) => {
    const { status, title, about, retryable } = problemKinds[code];
    return `| ${status} | \`${code}\` | ${title} | ${about} | ${retryable ? "yes" : "no"} |`;
  });
  return [
    "# Problems",
    "",
    "Every error is `application/problem+json` (RFC 9457) with one of these codes. A code is stable and never changes its",
    "status. This file is generated from `service/errors.ts`.",
    "",
    "| status | code | title | what to do | a retry may help |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

/** The repository's own copy; this file runs from dist/openapi/. */
export const pathOf = (file: string): URL => new URL(`../../openapi/${file}`, import.meta.url);

if (import.meta.url === `file://${process.argv[1]}`) {
  const check = process.argv.includes("--check");
  for (const [file, text] of await generate()) {
    if (!check) {
      writeFileSync(pathOf(file), text);
    } else if (readFileSync(pathOf(file), "utf8") !== text) {
      process.stderr.write(`openapi/${file} is stale: run "npm run openapi"\n`);
      process.exitCode = 1;
    }
  }
}
