// reference.ts - what a drill is compared with: a Fastify service that stops the way most do, with a signal listener that
// calls close(). It answers the drill's requests and keeps nothing.
import Fastify from "fastify";

const app = Fastify({ logger: false });
app.get("/readyz", async () => ({ state: "ready" }));
app.get("/livez", async () => ({ state: "ready" }));

process.once("SIGTERM", () => {
  void app.close().then(() => process.exit(0));
});

await app.listen({ host: process.env.HOST ?? "0.0.0.0", port: Number(process.env.PORT ?? 8080) });
