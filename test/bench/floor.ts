// test/bench/floor.ts - the floor: a bare Fastify app with compiled schemas that takes the same requests and gives the
// same answers as the service (status, headers and body), and keeps nothing.
//
//   node floor.js PORT
import fastify, { type FastifyReply } from "fastify";
import { scattered, whole } from "./cases.js";

const op = {
  type: "object",
  required: ["op", "offset"],
  additionalProperties: false,
  properties: {
    op: { type: "string", enum: ["write", "add"] },
    offset: { type: "integer", minimum: 0 },
    data: { type: "string" },
    encoding: { type: "string", enum: ["base64", "hex", "utf8"] },
    type: { type: "string", enum: ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"] },
    value: { type: "string" },
    overflow: { type: "string", enum: ["fail", "wrap", "saturate"] },
  },
};
const batch = {
  type: "object",
  required: ["ops"],
  additionalProperties: false,
  properties: { ops: { type: "array", minItems: 1, maxItems: 4096, items: op } },
};
const answer = {
  type: "object",
  properties: {
    committed: { type: "boolean" },
    branch: { type: "string" },
    generation: { type: "integer" },
    durableGeneration: { type: "integer" },
    results: {
      type: "array",
      items: {
        type: "object",
        properties: {
          bytes: { type: "integer" },
          old: { type: "string" },
          new: { type: "string" },
          overflowed: { type: "boolean" },
        },
      },
    },
  },
};

interface Batch {
  ops: { op: "write" | "add"; value?: string }[];
}

const app = fastify({
  logger: false,
  bodyLimit: 16 * 1024 * 1024,
  ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
});
app.addContentTypeParser("application/octet-stream", { parseAs: "buffer" }, (_request, body, done) => done(null, body));

let requests = 0;

/** What the service says with every answer about a region. */
function describe(reply: FastifyReply): FastifyReply {
  return reply.headers({
    "x-content-type-options": "nosniff",
    "request-id": `floor-${(++requests).toString(36)}`,
    etag: `"1795441580518139.1.${generation}"`,
    "region-generation": generation,
    "region-durable-generation": generation,
  });
}

const pieces = Buffer.alloc(scattered.bytes, 1);
const all = Buffer.alloc(whole.bytes, 1);
let generation = 0;

app.get("/readyz", () => ({ status: "ready" }));

app.post<{ Body: Batch }>(
  `/v1/regions/${scattered.name}/batches`,
  { schema: { body: batch, response: { 200: answer } } },
  (request, reply) => {
    generation++;
    const results = request.body.ops.map((one) =>
      one.op === "write" ? { bytes: 64 } : { old: "0", new: one.value, overflowed: false },
    );
    describe(reply).send({ committed: true, branch: "ops", generation, durableGeneration: generation, results });
  },
);

app.put(`/v1/regions/${scattered.name}/content`, (_request, reply) => {
  generation++;
  describe(reply).code(204).send();
});

app.get(`/v1/regions/${scattered.name}/content`, (request, reply) => {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "")!;
  describe(reply)
    .code(206)
    .header("accept-ranges", "bytes")
    .header("cache-control", "no-cache")
    .header("content-type", "application/octet-stream")
    .header("content-range", `bytes ${first}-${last}/${pieces.length}`)
    .send(pieces.subarray(Number(first), Number(last) + 1));
});

app.get(`/v1/regions/${whole.name}/content`, (_request, reply) => {
  describe(reply)
    .header("accept-ranges", "bytes")
    .header("cache-control", "no-cache")
    .header("content-type", "application/octet-stream")
    .send(all);
});

await app.listen({ host: "127.0.0.1", port: Number(process.argv[2]) });
