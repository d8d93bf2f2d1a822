// documentation.ts - the routes of the OpenAPI document and of Swagger UI, answered by a second instance of the app that is
// built when somebody first asks. Its plugins collect and render what serving never needs; loading them with the service
// was a third of the time that a start takes.
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

/** `build`: the same app with the documentation's plugins, not listening. */
export function addDocumentation(app: FastifyInstance, build: () => Promise<FastifyInstance>): void {
  let documented: Promise<FastifyInstance> | undefined;
  app.addHook("onClose", async () => (await documented)?.close());

  const forward = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    documented ??= build();
    const { method, url, headers } = request;
    const answer = await (await documented).inject({ method: method as "GET", url, headers });
    // What is about this connection and this request is this instance's.
    const { connection: _connection, date: _date, "request-id": _id, ...kept } = answer.headers;
    return reply.code(answer.statusCode).headers(kept).send(answer.rawPayload);
  };
  for (const url of ["/openapi.json", "/docs", "/docs/*"]) {
    app.route({ method: "GET", url, config: { access: "open" }, handler: forward });
  }
}
