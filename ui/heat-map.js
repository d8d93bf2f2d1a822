// heat-map.js - a region as squares: how much of each holds data, how much of it is in memory, and hot where it was just
// written to.
import { contextOf, cssColor } from "./plot.js";

const pageBytes = 4096;
const squaresMax = 1024;
/** A region of fewer pages than this is shown in smaller squares. */
const pagesMin = 64;
const squareBytesMin = 64;
/** After this the heat is half of what it was. */
const halfLifeMs = 4000;
/** Less than this can't be seen. */
const cold = 0.02;
const gap = 2;

/** @typedef {{ offset: number, length: number, dataBytes: number, residentBytes: number }} Slice */
/** @typedef {Slice & { writtenMs: number | undefined }} Square `writtenMs`: how long ago, if it was seen */

/** A little of something is to be seen beside nothing. @param {number} share from 0 to 1 */
const shade = (share) => (share === 0 ? 0 : 0.25 + 0.75 * share);

export class HeatMap {
  #canvas;
  #size = 0;
  #squareBytes = squareBytesMin;
  #columns = 1;
  #side = 8;
  #heat = new Float64Array(0);
  /** When a square was last seen to be written to; 0: not yet. */
  #written = new Float64Array(0);
  /** @type {(Slice | undefined)[]} what the service told of each square, or of the page around a smaller one */
  #slices = [];
  /** The square under the pointer. @type {number | undefined} */
  #pointed;
  #at = 0;
  #drawing = false;
  #window = { offset: 0, length: 0 };

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(offset: number) => void} choose a square was clicked
   */
  constructor(canvas, choose) {
    this.#canvas = canvas;
    const squareAt = (/** @type {MouseEvent} */ { offsetX, offsetY }) => {
      const column = Math.floor(offsetX / (this.#side + gap));
      const square = Math.floor(offsetY / (this.#side + gap)) * this.#columns + column;
      return column < this.#columns && square < this.#heat.length ? square : undefined;
    };
    canvas.addEventListener("click", (event) => {
      const square = squareAt(event);
      if (square !== undefined) choose(square * this.#squareBytes);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.#pointed = squareAt(event);
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointed = undefined;
    });
    new ResizeObserver(() => this.#layOut()).observe(/** @type {Element} */ (canvas.parentElement));
  }

  /** @param {number} size of the region in bytes; its heat is forgotten */
  reset(size) {
    this.#size = size;
    const isSmall = size < pagesMin * pageBytes;
    const [least, squares] = isSmall ? [squareBytesMin, pagesMin] : [pageBytes, squaresMax];
    this.#squareBytes = Math.max(least, 2 ** Math.ceil(Math.log2(size / squares)));
    this.#heat = new Float64Array(Math.ceil(size / this.#squareBytes));
    this.#written = new Float64Array(this.#heat.length);
    this.#slices = new Array(this.#heat.length);
    this.#layOut();
  }

  get size() {
    return this.#size;
  }

  /** What slices are to be as long as: a square, and a page where squares are smaller. */
  get granularity() {
    return Math.max(pageBytes, this.#squareBytes);
  }

  /** @param {readonly Slice[]} slices of this granularity */
  tell(slices) {
    for (const slice of slices) {
      const first = Math.floor(slice.offset / this.#squareBytes);
      const end = Math.min(this.#heat.length, Math.ceil((slice.offset + slice.length) / this.#squareBytes));
      this.#slices.fill(slice, first, end);
    }
    this.#draw();
  }

  /** What is known of the square under the pointer, or else of the one where the window begins. @returns {Square | undefined} */
  get square() {
    const square = this.#pointed ?? Math.floor(this.#window.offset / this.#squareBytes);
    const slice = this.#slices[square];
    if (slice === undefined) return undefined;
    const written = this.#written[square] ?? 0;
    return { ...slice, writtenMs: written === 0 ? undefined : performance.now() - written };
  }

  /** What a square is. */
  get about() {
    const bytes = this.#squareBytes;
    if (bytes === pageBytes) return "a square is a page";
    return bytes < pageBytes ? `a square is ${bytes} bytes` : `a square is ${bytes / pageBytes} pages`;
  }

  /** @param {number} offset @param {number} length */
  mark(offset, length) {
    this.#cool();
    const last = Math.min(this.#heat.length - 1, Math.floor((offset + length - 1) / this.#squareBytes));
    for (let square = Math.floor(offset / this.#squareBytes); square <= last; square++) {
      this.#heat[square] = Math.min(4, (this.#heat[square] ?? 0) + 1);
      this.#written[square] = this.#at;
    }
    this.#draw();
  }

  /** The bytes that are shown beside it. @param {number} offset @param {number} length */
  frame(offset, length) {
    this.#window = { offset, length };
    this.#draw();
  }

  #cool() {
    const now = performance.now();
    const factor = 0.5 ** ((now - this.#at) / halfLifeMs);
    this.#at = now;
    for (let square = 0; square < this.#heat.length; square++) {
      const left = (this.#heat[square] ?? 0) * factor;
      this.#heat[square] = left < cold ? 0 : left;
    }
  }

  #layOut() {
    const count = this.#heat.length;
    const width = this.#canvas.parentElement?.clientWidth ?? 0;
    if (count === 0 || width === 0) return;
    // Big squares for few, small ones for many, and the whole map never much higher than a quarter of its width.
    this.#side = Math.max(5, Math.min(22, Math.floor(Math.sqrt((width * width) / 4 / count)) - gap));
    this.#columns = Math.max(1, Math.floor((width + gap) / (this.#side + gap)));
    // Whoever looks for a square on the canvas finds it by these.
    Object.assign(this.#canvas.dataset, { columns: this.#columns, side: this.#side, gap });
    this.#canvas.style.height = `${Math.ceil(count / this.#columns) * (this.#side + gap)}px`;
    this.#draw();
  }

  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#cool();
      this.#paint();
      if (this.#heat.some((heat) => heat > 0)) this.#draw();
    });
  }

  #paint() {
    const { context } = contextOf(this.#canvas);
    const [hole, data, resident, hot, frame] = ["--hole", "--data", "--resident", "--hot", "--accent"].map(cssColor);
    const inset = Math.max(1, Math.round(this.#side / 4));
    const first = Math.floor(this.#window.offset / this.#squareBytes);
    const last = Math.floor((this.#window.offset + this.#window.length - 1) / this.#squareBytes);
    this.#heat.forEach((heat, square) => {
      const x = (square % this.#columns) * (this.#side + gap);
      const y = Math.floor(square / this.#columns) * (this.#side + gap);
      const { length, dataBytes, residentBytes } = this.#slices[square] ?? {
        length: 1,
        dataBytes: 0,
        residentBytes: 0,
      };
      /** @param {string | undefined} color @param {number} share @param {number} [inside] */
      const fill = (color, share, inside = 0) => {
        if (share === 0) return;
        context.globalAlpha = Math.min(1, share);
        context.fillStyle = color ?? "";
        context.fillRect(x + inside, y + inside, this.#side - 2 * inside, this.#side - 2 * inside);
      };
      fill(hole, 1);
      fill(data, shade(dataBytes / length));
      fill(hot, heat);
      // The middle: a square that is hot still shows whether it is in memory.
      fill(resident, shade(residentBytes / length), inset);
      if (square >= first && square <= last) {
        context.globalAlpha = 1;
        context.fillStyle = frame ?? "";
        context.fillRect(x, y + this.#side, this.#side, gap);
      }
    });
  }
}
