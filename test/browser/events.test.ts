// The browser's own EventSource on a region's changes: each is told once, over lost connections, a gap, a stop and an end.
import t from "tap";
import { cuttingProxy } from "../cutting-proxy.js";
import { freshDir, ServiceProcess } from "../service-process.js";
import { launch, missing, Watched } from "./browser.js";

interface Told {
  event: string;
  id: string;
  data: { generation?: number; oldest?: number; ranges?: { offset: number; length: number }[]; durable?: boolean };
}

/** Runs in the page: an EventSource that notes what it is told, and how often it was opened. */
const listen = `(() => {
  window.told = [];
  window.opened = 0;
  window.events = new EventSource("/v1/regions/demo/changes");
  window.events.onopen = () => window.opened++;
  for (const event of ["batch", "resize", "reset", "overflow", "bye", "delete"]) {
    window.events.addEventListener(event, ({ lastEventId, data }) =>
      window.told.push({ event, id: lastEventId, data: JSON.parse(data) }));
  }
})()`;

t.test("EventSource", { skip: missing }, async (t) => {
  const dir = freshDir();
  const flags = ["--changes-kept-max=4", "--allow-any-file-system"];
  let service = await ServiceProcess.ready({ dir, flags });
  t.teardown(() => service.remove());
  const { port } = service;
  const proxy = await cuttingProxy(t, port);
  const browser = await launch();
  t.teardown(() => browser.close());

  /** Past the proxy: what loses the page's connections loses nothing of these. */
  async function send(method: string, path: string, body?: object): Promise<void> {
    const json = body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
    const response = await fetch(`http://127.0.0.1:${port}/v1/regions${path}`, { method, ...json });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  }
  const write = (offset: number) =>
    send("POST", "/demo/batches", { ops: [{ op: "write", offset, data: "Hello", encoding: "utf8" }] });
  await send("POST", "", { name: "demo", size: 4096 });

  const watched = await Watched.open(browser, `http://127.0.0.1:${proxy.port}/problems`);
  const { page } = watched;
  watched.expect(/ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED_ENCODING/);
  watched.expect(/favicon/);
  const told = async () => (await page.evaluate("window.told")) as Told[];
  /** The page's policy allows no waiting in the page, which would need eval. */
  async function until(expression: string): Promise<void> {
    for (let tries = 0; tries < 600; tries++) {
      if (await page.evaluate(expression)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`never ${expression}; told ${JSON.stringify(await told())}`);
  }
  await page.evaluate(listen);
  await until("window.opened === 1");

  await write(64);
  await until("window.told.length === 1");
  t.match(await told(), [
    { event: "batch", id: /^\d+\.1$/, data: { generation: 1, ranges: [{ offset: 64, length: 5 }], durable: true } },
  ]);

  proxy.cut();
  await write(128);
  await write(192);
  t.equal((await told()).length, 1, "nobody tells a page that has lost its connection");
  await until("window.opened === 2");
  await write(256);
  await until("window.told.length >= 4");
  t.same(
    (await told()).map(({ event, id, data }) => [event, id.split(".")[1], data.generation, data.ranges![0]!.offset]),
    [1, 2, 3, 4].map((generation) => ["batch", String(generation), generation, 64 * generation]),
    "what happened while it was lost is told when it is back, in order, and nothing twice",
  );

  proxy.cut();
  for (let i = 0; i < 8; i++) await write(0);
  await until("window.opened === 3");
  await write(8);
  await until("window.told.length >= 6");
  t.match(
    (await told()).slice(4),
    [
      { event: "reset", id: /\.12$/, data: { generation: 12, oldest: 8 } },
      { event: "batch", id: /\.13$/, data: { generation: 13, ranges: [{ offset: 8, length: 5 }] } },
    ],
    "more than is remembered is a reset, and it goes on from there",
  );

  service.kill("SIGTERM");
  await until("window.told.length >= 7");
  t.match((await told()).slice(6), [{ event: "bye", id: /\.13$/ }], "a stop says goodbye");
  t.equal((await service.ended).code, 0, "and a page that listens does not hold it up");
  // To an EventSource, an answer that is not 200 is the end. One that comes back too early is to see none at all.
  proxy.cuts = Array(1000).fill(0);
  service = await ServiceProcess.ready({ dir, flags: [...flags, `--port=${port}`] });
  proxy.cuts = [];
  await until("window.opened === 4");
  await write(16);
  await until("window.told.length >= 8");
  t.match((await told()).slice(7), [{ event: "batch", id: /\.14$/, data: { ranges: [{ offset: 16, length: 5 }] } }]);

  watched.expect(/status of 404.*\/changes$/);
  await send("DELETE", "/demo");
  await until("window.events.readyState === EventSource.CLOSED");
  t.match((await told()).slice(8), [{ event: "delete" }], "an end is told, and then nobody asks again");
  t.equal((await told()).length, 9, "nothing but that was told");
  t.same(watched.errors, []);
  t.same(watched.foreign, []);
});
