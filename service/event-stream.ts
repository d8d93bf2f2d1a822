// event-stream.ts - a region's changes as server-sent events (WHATWG HTML, 9.2), and the streams that are open.
//
// A stream keeps one number, the generation that it has told; what comes next is read out of the feed when the connection
// takes more. So a slow reader costs no memory, and is told when the feed has forgotten what it did not fetch in time.
import { Readable } from "node:stream";
import type { Change, Changes, Watcher } from "./store/change-feed.js";

/** Changes that are put together at once; a reader that takes them gets more. */
const changesAtOnce = 64;
const retryMs = 2000;
/** After a stop the next instance, or this one's successor, is there soon. */
const retryAfterStopMs = 1000;
/** For a peer's kernel to refuse what it was sent. */
const refusalMs = 100;

/** A region's part of the feed, and what is told of a change. */
export interface EventSource {
  incarnation(): number;
  read(since: number, limit: number): Changes;
  describe(items: readonly Change[]): readonly object[];
  watch(watcher: Watcher): () => void;
}

/** `id`: what a reader that comes back names, so that it is not told of another region as if it were the same one. */
const event = (kind: string, data: object, id?: string) =>
  `${id === undefined ? "" : `id: ${id}\n`}event: ${kind}\ndata: ${JSON.stringify(data)}\n\n`;

export class EventStreams {
  private readonly open = new Set<EventStream>();
  private timer: NodeJS.Timeout | undefined;

  /** When `stopSignal` aborts, every stream says goodbye and ends. */
  constructor(
    private readonly streamsMax: number,
    private readonly commentMs: number,
    private readonly stopSignal: AbortSignal,
  ) {
    stopSignal.addEventListener("abort", () => {
      for (const stream of this.open) stream.bye();
    });
  }

  get count(): number {
    return this.open.size;
  }

  get full(): boolean {
    return this.open.size >= this.streamsMax;
  }

  /**
   * `since`: the generation that the reader has, `isOther` if that is of another region of the name; what it can't be told of
   * any more is a `reset`.
   */
  start(source: EventSource, since: number, isOther = false): EventStream {
    const stream = new EventStream(source, since, isOther);
    this.open.add(stream);
    this.timer ??= setInterval(() => this.tick(), this.commentMs);
    stream.once("close", () => {
      this.open.delete(stream);
      if (this.open.size > 0) return;
      clearInterval(this.timer);
      this.timer = undefined;
    });
    if (this.stopSignal.aborted) stream.bye();
    return stream;
  }

  private tick(): void {
    for (const stream of this.open) stream.comment();
  }
}

export class EventStream extends Readable {
  private told: number;
  private readonly unwatch: () => void;
  /** The connection takes more and there was nothing to give. */
  private hungry = false;
  /** Comments that were due since the connection last took something. */
  private stalled = 0;
  private over = false;

  constructor(
    private readonly source: EventSource,
    since: number,
    isOther: boolean,
  ) {
    super();
    this.told = since;
    this.push(`retry: ${retryMs}\n\n`);
    const { gap, oldest, newest } = source.read(since, 0);
    if (gap || isOther) {
      this.told = newest;
      this.push(event("reset", { generation: newest, oldest }, this.idOf(newest)));
    }
    this.unwatch = source.watch({
      changed: () => this.changed(),
      removed: () => this.finish("delete", {}),
    });
  }

  override _read(): void {
    this.stalled = 0;
    this.pump();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.over = true;
    this.unwatch();
    done(error);
  }

  bye(): void {
    if (this.over) return;
    this.push(`retry: ${retryAfterStopMs}\n`);
    this.finish("bye", {});
  }

  /**
   * The reader has closed its side, or all of its connection, which looks the same. The kernel of one that is gone refuses
   * the first comment, and so the second one ends the stream.
   */
  probe(): void {
    const comment = () => {
      if (this.hungry) this.comment();
    };
    comment();
    setTimeout(comment, refusalMs).unref();
  }

  /** Time for a sign of life. A reader that has taken nothing since the last but one is gone. */
  comment(): void {
    if (this.over || !this.hungry) {
      if (++this.stalled > 2) this.destroy();
      return;
    }
    this.hungry = this.push(":\n\n");
  }

  private changed(): void {
    if (this.hungry) this.pump();
    else if (!this.over && this.source.read(this.told, 0).gap) this.overflow();
  }

  private pump(): void {
    if (this.over) return;
    this.hungry = false;
    const { gap, items } = this.source.read(this.told, changesAtOnce);
    if (gap) {
      this.overflow();
      return;
    }
    const last = items.at(-1);
    if (last === undefined) {
      this.hungry = true;
      return;
    }
    this.told = last.generation;
    const data = this.source.describe(items);
    this.push(items.map(({ generation, kind }, i) => event(kind, data[i]!, this.idOf(generation))).join(""));
  }

  private idOf(generation: number): string {
    return `${this.source.incarnation()}.${generation}`;
  }

  private overflow(): void {
    this.finish("overflow", { generation: this.told });
  }

  private finish(kind: string, data: object): void {
    if (this.over) return;
    this.over = true;
    this.unwatch();
    this.push(event(kind, data));
    this.push(null);
  }
}
