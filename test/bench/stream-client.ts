// test/bench/stream-client.ts - sends batches of one 64 B write over streams, for as long as it is told, and counts the
// answers. A process of its own, so that it can be pinned to its core. Prints {answers, seconds}.
//
//   node stream-client.js PORT CONNECTIONS SECONDS lines|frames SEED
import { once } from "node:events";
import { request } from "node:http";
import { framed } from "../../service/batch-stream.js";
import { BatchEncoder } from "../../service/store/batch-encoder.js";
import { cases, requestsOf, scattered } from "./cases.js";

const [port, connections, seconds, kind, seed] = process.argv.slice(2);
const isLines = kind === "lines";
const work = cases.find(({ name }) => name === "write64")!;
const encoder = new BatchEncoder({ opsMax: 1, guardsMax: 1 });
const newline = 0x0a;
/** Sent and not answered, of one connection: what sockets hold beyond that would only make the run longer. */
const unansweredMax = 8192;

/** The same batches that are sent one a request elsewhere, in one piece. */
const requests = requestsOf(work, Number(seed));
const pieceBatches = requests.length;
const piece = Buffer.concat(
  requests.map(({ body }) => {
    if (isLines) return Buffer.concat([body!, Buffer.from("\n")]);
    const frame = encoder.encode(JSON.parse(body!.toString()), scattered.name, undefined, undefined);
    if (frame === undefined) throw new Error(JSON.stringify(encoder.failures));
    return framed(frame);
  }),
);

async function generation(): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${port}/v1/regions/${scattered.name}`);
  return ((await answer.json()) as { generation: number }).generation;
}

let stopping = false;
let answered = 0;
const stop: (() => void)[] = [];

async function stream(): Promise<void> {
  const outgoing = request({
    port: Number(port),
    host: "127.0.0.1",
    method: "POST",
    path: work.request(() => 0).path,
    headers: { "content-type": isLines ? "application/x-ndjson" : "application/vnd.holdfast.batch" },
    agent: false,
  });
  let unanswered = 0;
  const send = () => {
    while (!stopping && unanswered < unansweredMax && !outgoing.writableNeedDrain) {
      unanswered += pieceBatches;
      outgoing.write(piece);
    }
    if (stopping && !outgoing.writableEnded) outgoing.end();
  };
  outgoing.on("drain", send);
  stop.push(send);
  send();
  const [incoming] = await once(outgoing, "response");
  if (incoming.statusCode !== 200) throw new Error(`the stream was answered ${incoming.statusCode}`);
  // Frames of one shape have answers of one length, which the first one tells.
  let bytes = 0;
  let answerBytes = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    let count = 0;
    if (isLines) {
      for (let at = chunk.indexOf(newline); at !== -1; at = chunk.indexOf(newline, at + 1)) count++;
    } else {
      answerBytes ||= 8 + chunk.readUInt32LE(0);
      bytes += chunk.length;
      count = Math.floor(bytes / answerBytes);
      bytes %= answerBytes;
    }
    answered += count;
    unanswered -= count;
    send();
  }
}

const before = await generation();
const since = performance.now();
const streams = Array.from({ length: Number(connections) }, stream);
setTimeout(() => {
  stopping = true;
  for (const end of stop) end();
}, Number(seconds) * 1000);
await Promise.all(streams);
const took = (performance.now() - since) / 1000;
const committed = (await generation()) - before;
if (committed !== answered) throw new Error(`${answered} answers, but ${committed} batches were committed`);
process.stdout.write(`${JSON.stringify({ answers: answered, seconds: took })}\n`);
