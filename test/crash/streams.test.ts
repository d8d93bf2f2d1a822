// streams.test.ts - answers without an end, when the service is told to stop: they say goodbye and hold nothing up.
import { once } from "node:events";
import { get, type IncomingMessage, request } from "node:http";
import t from "tap";
import { ServiceProcess } from "../service-process.js";

/** Whoever is waited for is waited for until the grace or the deadline; a busy machine is far from both. */
const flags = ["--drain-body-grace-ms=10000", "--drain-soft-ms=20000", "--drain-hard-ms=30000"];
const stopMsMax = 5000;

t.test("event streams and long polls end with the service, in time", async (t) => {
  const service = await ServiceProcess.ready({ flags });
  const headers = { "content-type": "application/json", connection: "close" };
  const create = request({ port: service.port, host: "127.0.0.1", path: "/v1/regions", method: "POST", headers });
  create.end(JSON.stringify({ name: "demo", size: 4096 }));
  const [created] = (await once(create, "response")) as [IncomingMessage];
  t.equal(created.statusCode, 201);
  created.resume();
  const open = async (path: string, accept: string) => {
    const agent = false;
    const asked = get({ port: service.port, host: "127.0.0.1", path, agent, headers: { accept } });
    const text = (async () => {
      const [response] = (await once(asked, "response")) as [IncomingMessage];
      let body = "";
      for await (const chunk of response.setEncoding("utf8")) body += chunk;
      return body;
    })();
    if (!asked.writableFinished) await once(asked, "finish");
    return text;
  };
  const texts: Promise<string>[] = [];
  for (let i = 0; i < 20; i++) {
    texts.push(open("/v1/regions/demo/changes", "text/event-stream"));
    texts.push(open("/v1/regions/demo/changes?wait=60", "application/json"));
  }
  // Not by fetch, which keeps its connections: a client that asked a moment ago is waited for.
  while (JSON.parse(await open("/v1/status", "application/json")).inFlight < 41) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }

  const end = await service.stop();
  t.equal(end.code, 0, "nothing was cut");
  t.ok(end.ms < stopMsMax, `the stop took ${end.ms.toFixed(0)} ms`);
  for (const [i, text] of (await Promise.all(texts)).entries()) {
    if (i % 2 === 0) t.match(text, /event: bye\ndata: \{\}\n\n$/);
    else t.same(JSON.parse(text).items, []);
  }
  t.match(service.find("drained"), { cut: 0, aborted: 0 });
  await service.remove();
});
