// batch-stream.ts - many batches over one request: taken off its body one after another, run and answered in their order
// while more come in.
//
// Nothing is gathered: while the client does not read its answers, or enough batches wait for the disk, no more of the body
// is read, and TCP holds the client back. When the service stops, no more batches are taken; those that were are answered.
import { Readable } from "node:stream";

/** Batches that wait for the disk at once: as many as make a flush worth while. */
const waitingMax = 256;
/** Their answers' bytes together, unless one alone is as long. */
const waitingBytesMax = 16 << 20;
/** Answers are handed on in pieces of this. */
const answerBytes = 64 << 10;

/** Cuts a body into batches. */
export interface Splitter<Unit> {
  add(chunk: Buffer): void;
  /** Nothing is added any more. */
  end(): void;
  /** The next batch; undefined until there is more. */
  next(): Unit | undefined;
  /** What follows can't be told from what went wrong: nothing more is taken. */
  readonly broken: boolean;
}

export interface BatchStreamParts<Unit, Answer extends string | Buffer> {
  body: Readable;
  splitter: Splitter<Unit>;
  /** Runs a batch. What is wrong with it is an answer, too; an error ends the stream. */
  run(unit: Unit): Answer | Promise<Answer>;
  /**
   * Asked after a run that gave a promise. `canBeOvertaken`: the next batch has to wait for its answer; `bytes`: how long that
   * answer may be.
   */
  waiting(): { canBeOvertaken: boolean; bytes: number };
  join(answers: Answer[]): string | Buffer;
  stopSignal: AbortSignal;
  /** The last answer when the service stops: neither its batch nor those after it were taken. */
  farewell(): Answer;
}

export class BatchStream<Unit, Answer extends string | Buffer> extends Readable {
  /** The body was left before its end. */
  leftBody = false;
  private readonly slots: { answer: Answer | undefined }[] = [];
  private ready: Answer[] = [];
  private readyBytes = 0;
  private bodyEnded = false;
  private wanted = true;
  private scheduled = false;
  /** The next batch waits for the answer to the last. */
  private held = false;
  private waitingBytes = 0;
  private over = false;
  /** At a stop: some batches are not taken. */
  private left: boolean | undefined;

  constructor(private readonly parts: BatchStreamParts<Unit, Answer>) {
    super({ highWaterMark: 4 * answerBytes });
    const { body, splitter, stopSignal } = parts;
    body.on("data", (chunk: Buffer) => {
      if (this.over) return;
      splitter.add(chunk);
      this.advance();
    });
    body.on("end", () => {
      splitter.end();
      this.bodyEnded = true;
      this.advance();
    });
    // The client went away: what was taken is carried out, and nobody is there to be told.
    body.on("error", () => this.destroy());
    body.on("close", () => {
      if (!this.bodyEnded && !this.over) this.destroy();
    });
    stopSignal.addEventListener("abort", this.advanceSoon);
    this.advanceSoon();
  }

  override _read(): void {
    this.wanted = true;
    this.advanceSoon();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.finish();
    done(error);
  }

  /** Once a turn of the event loop, however many answers it brings: a flush settles many. */
  private readonly advanceSoon = () => {
    if (this.scheduled || this.over) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      this.advance();
    });
  };

  private advance(): void {
    if (this.over) return;
    const { body, splitter, stopSignal } = this.parts;
    const stopping = stopSignal.aborted;
    // Looked at once: a batch that is there then is left.
    if (stopping) this.left ??= !this.bodyEnded || (!splitter.broken && splitter.next() !== undefined);
    let starved = false;
    for (;;) {
      while (this.slots[0]?.answer !== undefined) this.give(this.slots.shift()!.answer!);
      if (stopping || splitter.broken || this.over || !this.wanted || this.isFull()) break;
      const unit = splitter.next();
      starved = unit === undefined;
      if (unit === undefined) break;
      this.start(unit);
    }
    if (this.over) return;
    this.hand();
    if (this.slots.length === 0 && (stopping || splitter.broken || (starved && this.bodyEnded))) {
      if (this.left === true && !splitter.broken) this.push(this.parts.join([this.parts.farewell()]));
      this.leftBody = !this.bodyEnded;
      this.finish();
      this.push(null);
    } else if (starved) {
      body.resume();
    } else {
      body.pause();
    }
  }

  private start(unit: Unit): void {
    const answer = this.run(unit);
    if (answer === undefined) return;
    if (!(answer instanceof Promise)) {
      if (this.slots.length === 0) this.give(answer);
      else this.slots.push({ answer });
      return;
    }
    const slot: { answer: Answer | undefined } = { answer: undefined };
    this.slots.push(slot);
    const { canBeOvertaken, bytes } = this.parts.waiting();
    this.held = canBeOvertaken;
    this.waitingBytes += bytes;
    answer.then(
      (later) => {
        slot.answer = later;
        this.waitingBytes -= bytes;
        if (canBeOvertaken) this.held = false;
        this.advanceSoon();
      },
      (error) => this.destroy(error),
    );
  }

  /** A batch without an answer would put all those after it in the wrong places: then there are none. */
  private run(unit: Unit): Answer | Promise<Answer> | undefined {
    try {
      return this.parts.run(unit);
    } catch (error) {
      this.destroy(error as Error);
      return undefined;
    }
  }

  private isFull(): boolean {
    return this.held || this.slots.length >= waitingMax || this.waitingBytes >= waitingBytesMax;
  }

  private give(answer: Answer): void {
    this.ready.push(answer);
    this.readyBytes += answer.length;
    if (this.readyBytes >= answerBytes) this.hand();
  }

  private hand(): void {
    if (this.ready.length === 0) return;
    const { ready } = this;
    this.ready = [];
    this.readyBytes = 0;
    this.wanted = false;
    if (this.push(this.parts.join(ready))) this.wanted = true;
  }

  private finish(): void {
    this.over = true;
    this.parts.stopSignal.removeEventListener("abort", this.advanceSoon);
  }
}

const newline = 0x0a;
const carriageReturn = 0x0d;
const nothing = Buffer.alloc(0);

/** A line that is longer than a batch may be; `actual` bytes long. */
export interface TooLong {
  actual: number;
}

/** Lines of text, without those that are empty. */
export class LineSplitter implements Splitter<string | TooLong> {
  readonly broken = false;
  private readonly chunks: Buffer[] = [];
  /** Where the next line starts in the first chunk. */
  private from = 0;
  /** The beginning of a line that goes on in the next chunk; of one that is too long, only its length. */
  private held: Buffer[] = [];
  private heldBytes = 0;
  private ended = false;

  constructor(private readonly bytesMax: number) {}

  add(chunk: Buffer): void {
    this.chunks.push(chunk);
  }

  end(): void {
    this.ended = true;
  }

  next(): string | TooLong | undefined {
    for (;;) {
      const chunk = this.chunks[0];
      if (chunk === undefined) {
        return this.ended && !this.isEmpty(nothing, 0, 0) ? this.line(nothing, 0, 0) : undefined;
      }
      const end = chunk.indexOf(newline, this.from);
      if (end === -1) {
        this.hold(chunk.subarray(this.from));
        this.chunks.shift();
        this.from = 0;
        continue;
      }
      const start = this.from;
      this.from = end + 1;
      if (!this.isEmpty(chunk, start, end)) return this.line(chunk, start, end);
      this.held = [];
      this.heldBytes = 0;
    }
  }

  private isEmpty(chunk: Buffer, start: number, end: number): boolean {
    const bytes = this.heldBytes + end - start;
    return bytes === 0 || (bytes === 1 && (this.held[0]?.[0] ?? chunk[start]) === carriageReturn);
  }

  private hold(part: Buffer): void {
    this.heldBytes += part.length;
    if (this.heldBytes > this.bytesMax) this.held = [];
    else if (part.length > 0) this.held.push(part);
  }

  private line(chunk: Buffer, start: number, end: number): string | TooLong {
    const bytes = this.heldBytes + end - start;
    const { held } = this;
    this.held = [];
    this.heldBytes = 0;
    if (bytes > this.bytesMax) return { actual: bytes };
    if (held.length === 0) return chunk.toString("utf8", start, end);
    return Buffer.concat([...held, chunk.subarray(start, end)]).toString("utf8");
  }
}

/** In front of each frame and answer: its length in bytes, and 32 bits that are 0. */
const prefixBytes = 8;

/** A prefix that can't be one of a frame. */
export interface NoFrame {
  code: "malformed_batch" | "batch_too_large";
}

/** Frames with their length in front. */
export class FrameSplitter implements Splitter<Buffer | NoFrame> {
  broken = false;
  private readonly chunks: Buffer[] = [];
  private bytes = 0;
  private ended = false;

  constructor(
    private readonly bytesMin: number,
    private readonly bytesMax: number,
  ) {}

  add(chunk: Buffer): void {
    this.chunks.push(chunk);
    this.bytes += chunk.length;
  }

  end(): void {
    this.ended = true;
  }

  next(): Buffer | NoFrame | undefined {
    if (this.bytes < prefixBytes) return this.ended && this.bytes > 0 ? this.refuse("malformed_batch") : undefined;
    const prefix = this.front(prefixBytes);
    const length = prefix.readUInt32LE(0);
    if (prefix.readUInt32LE(4) !== 0 || length < this.bytesMin) return this.refuse("malformed_batch");
    if (length > this.bytesMax) return this.refuse("batch_too_large");
    if (this.bytes < prefixBytes + length) return this.ended ? this.refuse("malformed_batch") : undefined;
    const whole = this.front(prefixBytes + length);
    this.bytes -= whole.length;
    const first = this.chunks[0]!;
    if (first.length === whole.length) this.chunks.shift();
    else this.chunks[0] = first.subarray(whole.length);
    return whole.subarray(prefixBytes);
  }

  /** The first `length` bytes, in one piece. As many must be there. */
  private front(length: number): Buffer {
    if (this.chunks[0]!.length < length) {
      const parts: Buffer[] = [];
      for (let gathered = 0; gathered < length; ) {
        const part = this.chunks.shift()!;
        parts.push(part);
        gathered += part.length;
      }
      this.chunks.unshift(Buffer.concat(parts));
    }
    return this.chunks[0]!.subarray(0, length);
  }

  private refuse(code: NoFrame["code"]): NoFrame {
    this.broken = true;
    return { code };
  }
}

/** An answer with its length in front. A copy: the answer may be overwritten by the next one. */
export function framed(answer: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(prefixBytes + answer.length);
  bytes.writeUInt32LE(answer.length, 0);
  bytes.writeUInt32LE(0, 4);
  bytes.set(answer, prefixBytes);
  return bytes;
}
