// batch-streams.ts - streams of batches, as lines of JSON or as frames: what is said of them, and how one is answered.
import { Socket } from "node:net";
import type { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { BatchStream, FrameSplitter, framed, LineSplitter, type NoFrame, type TooLong } from "../batch-stream.js";
import { textOfMany, textOfOne } from "../batch-text.js";
import { Problem, problemBody, toProblem } from "../errors.js";
import { idempotencyKeyText, pathOf, refuseConditions, refuseDigest, refuseKey } from "../headers.js";
import { linger } from "../linger.js";
import type { IdempotencyKey } from "../store/batch-encoder.js";
import { type BatchOutcome, refuseFrame } from "../store/batches.js";
import { frameHeaderBytes } from "../store/frame.js";
import { idempotencyKey } from "../store/idempotency.js";
import type { RouteContext } from "./context.js";
import { endless, type json } from "./describe.js";

const linesType = "application/x-ndjson";
const framesType = "application/vnd.holdfast.batch";
export const streamTypes = [linesType, framesType] as const;

export const streamsAbout = [
  `With \`Content-Type: ${linesType}\` a stream: one batch a line in, its answer or problem a line out, in order, while more lines come in. The status is 200, and each line says what became of its batch. An Idempotency-Key covers every line: sent again, the same lines get the same answers, with \`"replayed":true\`. When the service stops, the last lines are the problem \`draining\`: their batches and those after them were not run.`,
  `With \`Content-Type: ${framesType}\` the same in binary: frames of \`native/frame.h\`, each with its length in front. ARCHITECTURE.md has the layout.`,
];

const linesExample =
  '{"ops":[{"op":"write","offset":64,"data":"SGVsbG8="}]}\n{"ops":[{"op":"add","offset":8,"type":"u64","value":"1"}]}\n';
const answersExample =
  '{"committed":true,"branch":"ops","generation":1,"durableGeneration":1,"results":[{"bytes":5}]}\n{"committed":true,"branch":"ops","generation":2,"durableGeneration":2,"results":[{"old":"0","new":"1","overflowed":false}]}\n';

/** What the document says of a body, beside the schema that Fastify is told. */
export const bodyOf = (schema: object) => ({
  content: {
    "application/json": { schema },
    [linesType]: { schema: { ...endless, examples: [linesExample] } },
    [framesType]: { schema: { ...endless, format: "binary" } },
  },
});

export function answersOf(answer: ReturnType<typeof json>): ReturnType<typeof json> {
  const streams = {
    [linesType]: { schema: endless, example: answersExample },
    [framesType]: { schema: { ...endless, format: "binary" } },
  };
  return { ...answer, content: { ...answer.content, ...streams } };
}

/** Answers a request whose body is a stream. `region`: the one of its path. */
export function streamBatches(
  context: RouteContext,
  request: FastifyRequest,
  reply: FastifyReply,
  region: string | undefined,
): FastifyReply {
  refuseConditions(request.headers, "each batch of a stream has guards");
  refuseDigest(request.headers, "batches of a stream land before its end");
  const isLines = request.headers["content-type"]!.toLowerCase().startsWith(linesType);
  const answers = isLines ? lines(context, request, region) : frames(context, request, region);
  const { socket } = request.raw;
  reply.raw.once("finish", () => {
    // Injected requests have no socket of their own.
    if (!answers.leftBody || !(socket instanceof Socket)) return;
    request.raw.resume();
    // What has arrived whole is in nobody's way: the connection goes on.
    if (!request.raw.complete) linger(socket);
  });
  reply.header("content-type", isLines ? linesType : framesType).send(answers);
  // Some clients send nothing before they have seen the head.
  reply.raw.flushHeaders();
  return reply;
}

function lines(context: RouteContext, request: FastifyRequest, region: string | undefined) {
  const { batchBodyBytesMax } = context;
  const batches = context.batchesOf(request);
  const store = context.store();
  const textOf = region === undefined ? textOfMany : textOfOne;
  const lineOf = (outcome: BatchOutcome) => `${textOf(outcome, outcome.replayed ? ',"replayed":true' : "")}\n`;
  const lineOfProblem = (error: unknown) => problemLine(request, error);
  const keyOfLine = keysOfLines(request);
  return new BatchStream<string | TooLong, string>({
    body: request.body as Readable,
    splitter: new LineSplitter(batchBodyBytesMax),
    run: (line) => {
      try {
        const key = keyOfLine?.(line);
        const outcome = batches.run(store, parseLine(line, batchBodyBytesMax), region, undefined, key);
        return outcome instanceof Promise ? outcome.then(lineOf, lineOfProblem) : lineOf(outcome);
      } catch (error) {
        return lineOfProblem(error);
      }
    },
    waiting: () => ({ canBeOvertaken: store.canBeOvertaken, bytes: context.batches.waitingBytes }),
    join: (answers) => answers.join(""),
    stopSignal: context.lifecycle.stopSignal,
    farewell: () =>
      lineOfProblem(new Problem("draining", "The service is stopping. This batch and those after it were not run.")),
  });
}

function frames(context: RouteContext, request: FastifyRequest, region: string | undefined) {
  const { batchBodyBytesMax } = context;
  const batches = context.batchesOf(request);
  const store = context.store();
  refuseKey(request.headers, "a frame has its own");
  return new BatchStream<Buffer | NoFrame, Buffer>({
    body: request.body as Readable,
    splitter: new FrameSplitter(frameHeaderBytes, batchBodyBytesMax),
    run: (frame) => {
      if (!Buffer.isBuffer(frame)) return framed(refuseFrame(frame.code));
      const answer = batches.runFrame(store, frame, region);
      return answer instanceof Promise ? answer.then(framed) : framed(answer);
    },
    waiting: () => ({ canBeOvertaken: store.canBeOvertaken, bytes: context.batches.waitingBytes }),
    join: (answers) => Buffer.concat(answers),
    stopSignal: context.lifecycle.stopSignal,
    farewell: () => framed(refuseFrame("draining")),
  });
}

function parseLine(line: string | TooLong, limit: number): unknown {
  if (typeof line !== "string") {
    const failures = [{ code: "body-too-large", limit, actual: line.actual }];
    throw new Problem("body-too-large", `a line may have ${limit} bytes`, { failures });
  }
  try {
    return JSON.parse(line);
  } catch (error) {
    throw new Problem("malformed-json", (error as Error).message);
  }
}

function problemLine(request: FastifyRequest, error: unknown): string {
  const problem = toProblem(error) ?? new Problem("internal");
  const path = pathOf(request);
  if (problem.code === "internal") {
    request.log.error({ requestId: request.id, method: request.method, path, err: error }, "a line failed");
  }
  return `${JSON.stringify(problemBody(problem, path, request.id))}\n`;
}

/** Each line's key is made of the request's and of its place among the lines. */
function keysOfLines({ headers, url }: FastifyRequest): ((line: string | TooLong) => IdempotencyKey) | undefined {
  const text = idempotencyKeyText(headers);
  if (text === undefined) return undefined;
  let count = 0;
  return (line) => idempotencyKey(`line ${++count}`, url, text, [String(line)]);
}
