// ui.ts - the console's files, as they lie in ui/. They are read when somebody first asks for the console: a start reads
// nothing of it.
import { readdirSync, readFileSync } from "node:fs";
import { extname } from "node:path";
import type { FastifyInstance } from "fastify";
import { Problem } from "./errors.js";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** This file runs from dist/service/. */
const folder = new URL("../../ui/", import.meta.url);

interface Page {
  type: string;
  bytes: Buffer;
}

/** Only these names are served: a path that a client sends never reaches the file system. */
function readPages(): Map<string, Page> {
  const pages = new Map<string, Page>();
  for (const name of readdirSync(folder)) {
    const type = types[extname(name)];
    if (type !== undefined) pages.set(name, { type, bytes: readFileSync(new URL(name, folder)) });
  }
  return pages;
}

export function addConsole(app: FastifyInstance): void {
  let pages: Map<string, Page> | undefined;
  for (const url of ["/ui", "/ui/:file"]) {
    app.route<{ Params: { file?: string } }>({
      method: "GET",
      url,
      config: { access: "open" },
      handler: (request, reply) => {
        pages ??= readPages();
        const page = pages.get(request.params.file ?? "index.html");
        if (page === undefined) throw new Problem("route-not-found");
        reply.header("content-type", page.type).send(page.bytes);
      },
    });
  }
}
