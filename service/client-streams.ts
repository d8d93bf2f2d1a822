// client-streams.ts - answers without an end, for client.ts: the changes of a region as server-sent events, and streams of
// batches as lines of JSON. Both go on where they were when a connection is lost.
import { randomUUID } from "node:crypto";
import type { ClientRequest } from "node:http";
import type { Change, Problem } from "../openapi/types.js";
import { ConnectionError, linesOf, type Opened, ProblemError, Retries, type RetryOptions } from "./client-http.js";

/** Changes up to `generation` are not known one by one: the region has to be read anew. */
export interface Reset {
  kind: "reset";
  generation: number;
  /** The least generation that changes are known from. */
  oldest: number;
}

/** What became of a batch of a stream. */
export type StreamedAnswer<Body> = {
  /** Which batch, from 0. */
  index: number;
} & (
  | {
      body: Body;
      /** It had been run, and its answer had been lost. */
      replayed: boolean;
      problem?: undefined;
    }
  | { problem: Problem; body?: undefined; replayed?: undefined }
);

/** Ends `opened` when `signal` is aborted, until it is disposed of. */
function until(signal: AbortSignal | undefined, opened: Opened): () => void {
  const cut = () => opened.call.destroy();
  signal?.addEventListener("abort", cut);
  if (signal?.aborted) cut();
  return () => {
    signal?.removeEventListener("abort", cut);
    cut();
  };
}

/** What `promise` gives; undefined when `signal` is aborted first. Nothing is left on the signal, which may outlive many waits. */
function unlessAborted<Result>(signal: AbortSignal | undefined, promise: Promise<Result>): Promise<Result | undefined> {
  return new Promise((resolve, reject) => {
    const cut = () => resolve(undefined);
    if (signal?.aborted) cut();
    else signal?.addEventListener("abort", cut, { once: true });
    promise.then(resolve, reject).finally(() => signal?.removeEventListener("abort", cut));
  });
}

/** What a wait for another attempt came to nothing of is the caller's own wish. */
async function goOn(retries: Retries, signal: AbortSignal | undefined, error: unknown, msMin = 0): Promise<boolean> {
  if (!(error instanceof ConnectionError || error instanceof ProblemError)) throw error;
  try {
    await retries.after(error, msMin);
    return true;
  } catch {
    if (signal?.aborted) return false;
    throw error;
  }
}

// ---- changes -------------------------------------------------------------------------------------------------------

interface ServerSentEvent {
  kind: string;
  id: string | undefined;
  data: string;
  /** How long to wait before the connection is opened again, if it was told. */
  retryMs: number | undefined;
}

/** Events with and without data, as the service writes them: one line each for id, event, data and retry. */
async function* eventsOf(opened: Opened): AsyncGenerator<ServerSentEvent> {
  let fields = new Map<string, string>();
  for await (const text of linesOf(opened)) {
    const line = text.replace(/\r$/, "");
    if (line !== "") {
      const [, field, value] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? [];
      // Nothing before the colon: a comment.
      if (field) fields.set(field, value ?? "");
      continue;
    }
    if (fields.size === 0) continue;
    const retry = fields.get("retry");
    yield {
      kind: fields.get("event") ?? "",
      id: fields.get("id"),
      data: fields.get("data") ?? "",
      retryMs: retry === undefined ? undefined : Number(retry),
    };
    fields = new Map();
  }
}

/** `connect`: opens the stream of what comes after an event, or after a generation. */
export async function* followChanges(
  connect: (lastEventId: string) => Promise<Opened>,
  since: number,
  options: RetryOptions,
): AsyncGenerator<Change | Reset, void, void> {
  const { signal } = options;
  const retries = new Retries(options);
  let last = String(since);
  let isKnown = false;
  while (!signal?.aborted) {
    let retryMs = 0;
    let failure: unknown;
    try {
      const opened = await connect(last);
      const close = until(signal, opened);
      try {
        isKnown = true;
        retries.progressed();
        for await (const { kind, id, data, retryMs: told } of eventsOf(opened)) {
          retryMs = told ?? retryMs;
          if (kind === "delete") return;
          if (id === undefined) continue;
          last = id;
          yield (kind === "reset" ? { kind, ...JSON.parse(data) } : JSON.parse(data)) as Change | Reset;
        }
        // After `bye` or `overflow`.
        failure = opened.lost("ended");
      } finally {
        close();
      }
    } catch (error) {
      failure = error;
    }
    const isGone = failure instanceof ProblemError && failure.problem?.code === "region-not-found";
    // Deleted while nobody was connected.
    if (isGone && isKnown) return;
    if (signal?.aborted || !(await goOn(retries, signal, failure, retryMs))) return;
  }
}

// ---- batches -------------------------------------------------------------------------------------------------------

/** A request has so many lines at most: what has been answered of it stands in front again when it is repeated. */
const linesMax = 4096;
/** In the place of a line whose answer is known: the key of a line is made of its place. Refused, and does nothing. */
const placeholder = "{}\n";
/** Codes of lines that are worth sending again: they were not run, or are just being run. */
const unsettled = ["draining", "idempotency-in-progress"];

/** What the caller gives, taken one at a time; the next one may be waited for by an attempt that is over. */
class Source<Batch> {
  #next: Promise<IteratorResult<Batch>> | undefined;
  readonly #iterator: Iterator<Batch> | AsyncIterator<Batch>;

  constructor(batches: Iterable<Batch> | AsyncIterable<Batch>) {
    this.#iterator = Symbol.asyncIterator in batches ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]();
  }

  /** The one that `take` will give. */
  peek(): Promise<IteratorResult<Batch>> {
    this.#next ??= (async () => this.#iterator.next())();
    return this.#next;
  }

  take(): void {
    this.#next = undefined;
  }

  /** Not waited for: an iterator that is asked for more ends after it has given that, which may be never. */
  close(): void {
    const ignore = () => {};
    Promise.resolve(this.#iterator.return?.()).catch(ignore);
  }
}

/** One request's worth of lines under one key, and what is known of them. */
class Segment<Batch> {
  readonly key = randomUUID();
  answered = 0;
  /** Sent and not answered, or to be sent. */
  readonly lines: string[] = [];
  #isEnded = false;
  /** Why the caller's batches ended before their end. */
  sourceError: { error: unknown } | undefined;

  constructor(private readonly source: Source<Batch>) {}

  get isDone(): boolean {
    return this.#isEnded && this.lines.length === 0;
  }

  /** No more lines are added. */
  end(): void {
    this.#isEnded = true;
  }

  /** Everything that is known, and then what comes; ends the request's body after it. Returns when the request is over. */
  async write(call: ClientRequest): Promise<void> {
    await put(call, placeholder.repeat(this.answered));
    // Answers may come meanwhile and take lines away: a copy.
    for (const line of [...this.lines]) await put(call, line);
    while (!this.#isEnded && !call.destroyed) {
      let line: string | undefined;
      try {
        line = await this.nextLine(call);
      } catch (error) {
        this.sourceError = { error };
        call.destroy();
      }
      if (line !== undefined) await put(call, line);
    }
    if (!call.destroyed) call.end();
  }

  private async nextLine(call: ClientRequest): Promise<string | undefined> {
    const { value, done } = await this.source.peek();
    // Another attempt waits for it, too, and that one takes it.
    if (call.destroyed) return undefined;
    if (done) {
      this.#isEnded = true;
      return undefined;
    }
    this.source.take();
    const line = `${JSON.stringify(value)}\n`;
    this.lines.push(line);
    if (this.answered + this.lines.length >= linesMax) this.#isEnded = true;
    return line;
  }
}

/** Resolves when more may be written, or nothing more can be. */
async function put(call: ClientRequest, text: string): Promise<void> {
  if (call.destroyed || text === "" || call.write(text)) return;
  await new Promise<void>((resolve) => {
    const goOn = () => {
      call.off("drain", goOn);
      call.off("close", goOn);
      resolve();
    };
    call.on("drain", goOn);
    call.on("close", goOn);
  });
}

/** `connect`: opens a stream under a key. */
export async function* sendBatches<Batch, Body>(
  connect: (key: string) => Promise<Opened>,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  options: RetryOptions,
): AsyncGenerator<StreamedAnswer<Body>, void, void> {
  const { signal } = options;
  const source = new Source(batches);
  let index = 0;
  try {
    while ((await unlessAborted(signal, source.peek()))?.done !== true) {
      if (signal?.aborted) return;
      const segment = new Segment(source);
      const retries = new Retries(options);
      while (!segment.isDone) {
        let failure: unknown;
        try {
          const opened = await connect(segment.key);
          const close = until(signal, opened);
          void segment.write(opened.call);
          try {
            let known = segment.answered;
            for await (const line of linesOf(opened)) {
              if (known-- > 0) continue;
              const answer = answerOf<Body>(line);
              if (unsettled.includes(answer.problem?.code ?? "")) {
                throw new ProblemError(answer.problem!.status, answer.problem, {});
              }
              segment.lines.shift();
              segment.answered += 1;
              retries.progressed();
              yield { index: index++, ...answer };
            }
            failure = opened.lost("ended");
          } finally {
            close();
          }
        } catch (error) {
          failure = error;
        }
        if (segment.sourceError !== undefined) throw segment.sourceError.error;
        if (signal?.aborted) return;
        // Everything is answered: a connection that was lost while there was nothing to send lost nothing.
        if (segment.lines.length === 0) {
          if (segment.answered > 0) segment.end();
          if (segment.isDone) break;
        }
        if (!(await goOn(retries, signal, failure))) return;
      }
    }
  } finally {
    source.close();
  }
}

function answerOf<Body>(line: string) {
  const { replayed = false, ...rest } = JSON.parse(line) as { replayed?: boolean; code?: string };
  return "code" in rest ? { problem: rest as Problem } : { body: rest as Body, replayed };
}
