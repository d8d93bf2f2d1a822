// streams.test.ts - requests without an end, and a service that ends: event streams and long polls say goodbye and hold nothing
// up; a stream of batches is answered to where it ends, and sent again it is exact.
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
  t.equal(service.stderr, "", "as many as there may be are no leak that Node warns of");
  await service.remove();
});

const lines = { "content-type": "application/x-ndjson", "idempotency-key": "stream" };
const count = 1500;
const line = `${JSON.stringify({ ops: [{ op: "add", offset: 0, type: "u64", value: 1 }] })}\n`;

interface LineAnswer {
  generation?: number;
  replayed?: boolean;
  code?: string;
}

/** Sends every line, slowly enough to be met in the middle, and tells each answer as it comes. */
async function sendStream(service: ServiceProcess, onAnswer: (answered: number) => void): Promise<LineAnswer[]> {
  const { port } = service;
  const path = "/v1/regions/demo/batches";
  const asked = request({ port, host: "127.0.0.1", path, method: "POST", headers: lines, agent: false });
  asked.on("error", () => {});
  const sending = (async () => {
    for (let sent = 0; sent < count && !asked.destroyed; sent += 50) {
      asked.write(line.repeat(50));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    asked.end();
  })();
  let text = "";
  try {
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    for await (const chunk of response.setEncoding("utf8")) {
      text += chunk;
      onAnswer(text.split("\n").length - 1);
    }
  } catch {
    // Cut: what has come is what counts.
  }
  asked.destroy();
  await sending;
  const whole = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
  return whole.slice(0, -1).map((answer) => JSON.parse(answer));
}

async function createRegion(service: ServiceProcess, durability: string): Promise<void> {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ name: "demo", size: 4096, durability });
  const answer = await fetch(`http://127.0.0.1:${service.port}/v1/regions`, { method: "POST", headers, body });
  if (answer.status !== 201) throw new Error(await answer.text());
}

async function cell(service: ServiceProcess): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${service.port}/v1/regions/demo/cells/0`);
  return Number(((await answer.json()) as { value: string }).value);
}

for (const durability of ["fast", "durable"]) {
  t.test(
    `a stream of ${durability} batches that was killed and is sent again is exact`,
    { timeout: 120_000 },
    async (t) => {
      let service = await ServiceProcess.ready();
      await createRegion(service, durability);
      let answered = 0;
      for (const at of [300, 900]) {
        let killed = false;
        const answers = await sendStream(service, (soFar) => {
          if (soFar < at || killed) return;
          killed = true;
          service.kill("SIGKILL");
        });
        t.ok(killed && answers.length < count, `killed after ${answers.length} of ${count} answers`);
        answered = Math.max(answered, answers.length);
        t.ok(
          answers.every(({ generation }, i) => generation === i + 1),
          "each line made its generation, once",
        );
        await service.ended;
        service = await ServiceProcess.ready({ dir: service.dir });
        const value = await cell(service);
        t.ok(value >= answered && value <= count, `${value} batches are there, ${answered} were answered`);
        answered = value;
      }
      const answers = await sendStream(service, () => {});
      t.equal(answers.length, count);
      t.equal(answers.filter(({ replayed }) => replayed).length, answered, "what was there is answered as it was");
      t.equal(await cell(service), count);
      await service.remove();
    },
  );
}

t.test("a stream that meets a stop is answered to where it ends", async (t) => {
  const service = await ServiceProcess.ready({ flags });
  await createRegion(service, "durable");
  let stopped: Promise<{ code: number | null; ms: number }> | undefined;
  const answers = await sendStream(service, (soFar) => {
    if (soFar > 300) stopped ??= service.stop();
  });
  const done = answers.filter(({ code }) => code !== "draining");
  t.ok(done.length < answers.length, "the last lines say where the stream ends");
  t.ok(
    done.every(({ generation }, i) => generation === i + 1 && answers[i] === done[i]),
    "and none of them is followed by a batch that was run",
  );
  const end = await stopped;
  t.equal(end?.code, 0);
  t.match(service.find("drained"), { cut: 0 });
  const again = await ServiceProcess.ready({ dir: service.dir });
  t.equal(await cell(again), done.length, "nothing was run that is not answered");
  await again.remove();
});
