// frame.ts - the layout of native/frame.h, and a writer that reuses its memory. A test holds the numbers equal to the
// header's. It knows bytes only; what an operation means is batch-encoder.ts.

export const opKinds = {
  guard_generation: 1,
  guard_value: 2,
  guard_bytes: 3,
  guard_digest: 4,
  guard_etag: 5,
  read: 16,
  write: 17,
  fill: 18,
  copy: 19,
  load: 20,
  store: 21,
  exchange: 22,
  add: 23,
  bit_and: 24,
  bit_or: 25,
  bit_xor: 26,
  min: 27,
  max: 28,
  cas: 29,
  append: 30,
} as const;

/** Members of the C++ enums in their order. */
export const compares = ["eq", "lt", "le", "gt", "ge", "ne"] as const;
export const overflows = ["fail", "wrap", "saturate"] as const;
export const mismatches = ["abort", "continue"] as const;
export const algorithms = ["sha-256", "crc32c"] as const;
export const waits = ["region", "fast", "ordered", "durable"] as const;

export const frameMagic = 0x31424648;
export const answerMagic = 0x31414648;
export const frameVersion = 1;
export const frameHeaderBytes = 64;
export const frameRegionBytes = 72;
export const frameOpBytes = 48;
export const answerHeaderBytes = 40;
export const answerRegionBytes = 40;
export const answerResultBytes = 24;
export const answerFailureBytes = 24;
export const regionNameBytesMax = 64;
export const regionBytesMax = 2 ** 40;
export const regionsPerBatchMax = 64;
export const patternBytesMax = 4096;
export const etagBytes = 24;

export const frameDryRun = 1;
export const frameHasKey = 2;
export const opBigEndian = 1;
export const opNegative = 2;
export const opNegate = 4;
export const opCondition = 8;
export const answerCommitted = 1;
export const answerReplayed = 2;
const branchNone = 2;
export const resultSwapped = 1;
export const resultOverflowed = 2;

/** An answer that says nothing but why nothing was done. `code`: a number of native/status.h. */
export function refusalAnswer(code: number): Uint8Array {
  const answer = Buffer.alloc(answerHeaderBytes);
  answer.writeUInt32LE(answerMagic, 0);
  answer.writeUInt16LE(code, 4);
  answer.writeUInt8(branchNone, 6);
  return answer;
}

/** The names of a frame's regions; none if it can't be one, which the core will say. */
export function frameRegions(frame: Uint8Array): string[] {
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
  if (bytes.length < frameHeaderBytes) return [];
  const count = bytes.readUInt16LE(12);
  if (count > regionsPerBatchMax || bytes.length < frameHeaderBytes + count * frameRegionBytes) return [];
  return Array.from({ length: count }, (_, region) => {
    const at = frameHeaderBytes + region * frameRegionBytes;
    return bytes.toString("latin1", at + 8, at + 8 + Math.min(bytes.readUInt16LE(at), regionNameBytesMax));
  });
}

/** How many operations a frame says to have; 0 if it can't be one. */
export function frameOps(frame: Uint8Array): number {
  return frame.length < frameHeaderBytes ? 0 : Buffer.from(frame.buffer, frame.byteOffset).readUInt32LE(16);
}

/** How long the answer to a frame is to wait. Undefined: it can't be one. */
export function frameWait(frame: Uint8Array): (typeof waits)[number] | undefined {
  return waits[frame[8] ?? waits.length];
}

/** Whether a frame names this region and no other. What else is wrong with it is the core's to say. */
export function namesOnly(frame: Uint8Array, region: string): boolean {
  const bytes = Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength);
  if (bytes.length < frameHeaderBytes + frameRegionBytes) return false;
  const at = frameHeaderBytes;
  return (
    bytes.readUInt16LE(12) === 1 &&
    bytes.readUInt16LE(at) === region.length &&
    bytes.toString("latin1", at + 8, at + 8 + region.length) === region
  );
}

/** Rounds up to the next multiple of 8, where every structure starts. */
export const align8 = (bytes: number) => (bytes + 7) & ~7;

/** What a writer keeps between frames: most frames fit, and a pool of them stays small. */
const keptBytesMax = 1 << 20;
const initialBytes = 16 << 10;

/**
 * Builds one frame in memory that the next one takes over. Positions are byte offsets from the frame's start and stay
 * valid while it grows. Little-endian hosts only, as the storage core.
 */
export class FrameWriter {
  bytes!: Buffer;
  private words!: Uint32Array;
  private view: Uint8Array = new Uint8Array();
  length = 0;

  constructor() {
    this.allocate(initialBytes);
  }

  private allocate(bytes: number): void {
    // Its own ArrayBuffer, so that the words are aligned.
    this.bytes = Buffer.allocUnsafeSlow(bytes);
    this.words = new Uint32Array(this.bytes.buffer);
  }

  /** Starts over with `regionCount` empty region slots behind the header. */
  begin(regionCount: number): void {
    if (this.bytes.length > keptBytesMax) this.allocate(initialBytes);
    this.length = frameHeaderBytes + regionCount * frameRegionBytes;
    this.words.fill(0, 0, this.length >> 2);
  }

  region(index: number, name: string): void {
    const at = frameHeaderBytes + index * frameRegionBytes;
    this.words[at >> 2] = name.length;
    this.bytes.write(name, at + 8, "latin1");
  }

  /** Appends an entry with all fields zero but these, and returns its position. */
  entry(kind: number, type: number, flags: number, mode: number, region: number, region2: number): number {
    const at = this.length;
    this.reserve(frameOpBytes);
    const word = at >> 2;
    const { words } = this;
    words[word] = kind | (type << 8) | (flags << 16) | (mode << 24);
    words[word + 1] = region | (region2 << 16);
    for (let i = word + 2; i < word + 12; i++) words[i] = 0;
    this.length = at + frameOpBytes;
    return at;
  }

  /** Sets an entry's offset. The other three 64-bit fields follow it. */
  offset(entry: number, value: number): void {
    this.number(entry + 16, value);
  }
  extent(entry: number, value: number): void {
    this.number(entry + 24, value);
  }
  a(entry: number, low: number, high: number): void {
    this.words[(entry + 32) >> 2] = low;
    this.words[(entry + 36) >> 2] = high;
  }
  b(entry: number, low: number, high: number): void {
    this.words[(entry + 40) >> 2] = low;
    this.words[(entry + 44) >> 2] = high;
  }

  /** Writes a non-negative safe integer as 64 bits. */
  number(at: number, value: number): void {
    this.words[at >> 2] = value >>> 0;
    this.words[(at + 4) >> 2] = Math.floor(value / 2 ** 32);
  }

  /** Makes room for at most `bytes` behind the last entry, to be taken with `data`. Returns where they go. */
  room(bytes: number): number {
    this.reserve(align8(bytes));
    return this.length;
  }

  /** Takes the first `bytes` of the room as the entry's data and zeroes the padding. */
  data(entry: number, bytes: number): void {
    this.words[(entry + 8) >> 2] = bytes;
    const end = this.length + align8(bytes);
    for (let at = this.length + bytes; at < end; at++) this.bytes[at] = 0;
    this.length = end;
  }

  /** Drops everything from `position` on. */
  rewind(position: number): void {
    this.length = position;
  }

  /** Fills the header in and returns the frame; it is valid until the next begin(). */
  finish(
    regionCount: number,
    guardCount: number,
    opCount: number,
    elseCount: number,
    wait: number,
    flags: number,
    key: Uint8Array | undefined,
    fingerprint: Uint8Array | undefined,
  ): Uint8Array {
    const { words } = this;
    words[0] = frameMagic;
    words[1] = frameVersion | ((flags | (key === undefined ? 0 : frameHasKey)) << 16);
    words[2] = wait;
    words[3] = regionCount | (guardCount << 16);
    words[4] = opCount;
    words[5] = elseCount;
    if (key !== undefined && fingerprint !== undefined) {
      this.bytes.set(key, 24);
      this.bytes.set(fingerprint, 40);
    }
    this.number(56, this.length);
    // Frames of one shape are as long as each other.
    if (this.view.length !== this.length || this.view.buffer !== this.bytes.buffer) {
      this.view = new Uint8Array(this.bytes.buffer, 0, this.length);
    }
    return this.view;
  }

  private reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.bytes.length) return;
    const old = this.bytes;
    this.allocate(align8(Math.max(needed, old.length * 2)));
    old.copy(this.bytes, 0, 0, this.length);
  }
}
