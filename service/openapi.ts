// openapi.ts - the OpenAPI document, made from the routes' own schemas, and Swagger UI over it.
import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { FastifyInstance } from "fastify";
import { jsonType } from "./headers.js";
import { json, openProblems, problems, rateLimitHeaders, tags } from "./routes/describe.js";
import { description, version } from "./version.js";

/** Registers what listens to routes being added: before any route. */
export async function addOpenapi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "holdfast",
        version,
        summary: description,
        description:
          "Named files, mapped into memory, that are read and written over HTTP. Every change is a batch: it lands whole or not at all, whatever kills the service, and its answer tells its generation. Errors are `application/problem+json`.",
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      servers: [{ url: "/", description: "This server" }],
      tags: [
        { name: tags.regions, description: "Named mapped files." },
        { name: tags.batches, description: "Operations that land together or not at all." },
        { name: tags.content, description: "Plain bytes, by ranges." },
        { name: tags.snapshots, description: "Bytes of a region as they were, and the way back to them." },
        { name: tags.service, description: "What the service tells about itself." },
        { name: tags.operations, description: "For those who run it. They never need a token." },
      ],
      components: {
        headers: rateLimitHeaders,
        securitySchemes: {
          bearer: {
            type: "http",
            scheme: "bearer",
            description: "One token for reading and writing, one for reading only.",
          },
        },
      },
    },
    // Components keep their names; the default is def-0, def-1, ...
    refResolver: { buildLocalReference: (schema, _base, _fragment, index) => String(schema.$id ?? `def-${index}`) },
    convertConstToEnum: false,
    transformObject: (made) => finished("openapiObject" in made ? made.openapiObject : made.swaggerObject),
    transform: ({ schema, url, route }) => {
      const access = route.config?.access ?? "open";
      const hide = schema === undefined || schema.hide === true;
      // An empty requirement says that a server without tokens asks for none.
      const security: Record<string, string[]>[] = access === "open" ? [] : [{ bearer: [] }, {}];
      const body = route.config?.body;
      return { schema: { ...schema, ...(body !== undefined && { body }), hide, security }, url };
    },
  });
}

/** The document's own route, and the pages. */
export async function addDocs(app: FastifyInstance): Promise<void> {
  let text: string | undefined;
  app.route({
    method: "GET",
    url: "/openapi.json",
    config: { access: "open" },
    schema: {
      operationId: "getOpenapi",
      summary: "This document",
      description: "The API in OpenAPI 3.1.",
      tags: [tags.service],
      response: {
        200: {
          ...json("The document.", "Problem"),
          content: { "application/json": { schema: { type: "object", additionalProperties: true } } },
        },
        ...problems(...openProblems),
      },
    },
    handler: (_request, reply) => {
      text ??= openapiText(app);
      reply.header("content-type", jsonType).send(text);
    },
  });
  await app.register(swaggerUi, {
    routePrefix: "/docs",
    staticCSP: false,
    uiConfig: {
      deepLinking: false,
      docExpansion: "list",
      displayRequestDuration: true,
      tryItOutEnabled: true,
      persistAuthorization: false,
      onComplete: takeToken,
    },
    theme: { title: "holdfast" },
  });
}

/**
 * Runs in the browser, inside the function that made `ui`; the plugin puts the text of it there. A link with #token=...
 * is ready to use, and the fragment never leaves the browser.
 */
const takeToken = Object.assign(() => {}, {
  toString: () => `() => {
      const token = new URLSearchParams(location.hash.slice(1)).get("token");
      if (token === null) return;
      ui.preauthorizeApiKey("bearer", token);
      history.replaceState(null, "", location.pathname);
    }`,
});

interface Parameter {
  required?: boolean;
  example?: unknown;
  schema?: object;
}

/** What the plugin does not write by itself. */
function finished<D extends object>(document: D): D {
  walk(document, (node) => {
    const { type, minimum, maximum } = node;
    if ([type].flat().includes("integer")) {
      // For generators of clients that would take 32 bits otherwise.
      const fits = Number(minimum) >= -(2 ** 31) && Number(maximum) < 2 ** 31;
      node.format = fits ? "int32" : "int64";
    }
    // How the routes of batches name a body's schema, so that Fastify has nothing to validate.
    if (Array.isArray(node.allOf) && node.allOf.length === 1) {
      Object.assign(node, node.allOf[0]);
      delete node.allOf;
    }
    // The plugin's own suffix, against a clash with the GET of the same route.
    if (typeof node.operationId === "string") node.operationId = node.operationId.replace(/-head$/, "");
    if (isLimited(node)) {
      for (const response of Object.values(node.responses)) {
        for (const name of Object.keys(rateLimitHeaders)) {
          response.headers = { ...response.headers, [name]: { $ref: `#/components/headers/${name}` } };
        }
      }
    }
    if (Array.isArray(node.parameters)) {
      for (const parameter of node.parameters as Parameter[]) {
        const { required, example, schema } = parameter;
        if (required === true || example === undefined) continue;
        // Swagger UI fills an example of the parameter in: conditions that nobody asked for.
        parameter.schema = { ...schema, examples: [example] };
        delete parameter.example;
      }
    }
  });
  return document;
}

/** An operation whose requests a rate limit counts. */
function isLimited(
  node: Record<string, unknown>,
): node is { responses: Record<string, { headers?: Record<string, object> }> } {
  return typeof node.responses === "object" && node.responses !== null && "429" in node.responses;
}

function walk(node: unknown, visit: (node: Record<string, unknown>) => void): void {
  if (typeof node !== "object" || node === null) return;
  if (!Array.isArray(node)) visit(node as Record<string, unknown>);
  for (const member of Object.values(node)) walk(member, visit);
}

/** As openapi/openapi.json has it. */
export function openapiText(app: FastifyInstance): string {
  return `${JSON.stringify(app.swagger(), null, 2)}\n`;
}
