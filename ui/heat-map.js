// heat-map.js - a region as squares that are hot where it was just written to.
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

export class HeatMap {
  #canvas;
  #size = 0;
  #squareBytes = squareBytesMin;
  #columns = 1;
  #side = 8;
  #heat = new Float64Array(0);
  #at = 0;
  #drawing = false;
  #window = { offset: 0, length: 0 };

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(offset: number) => void} choose a square was clicked
   */
  constructor(canvas, choose) {
    this.#canvas = canvas;
    canvas.addEventListener("click", ({ offsetX, offsetY }) => {
      const column = Math.floor(offsetX / (this.#side + gap));
      const square = Math.floor(offsetY / (this.#side + gap)) * this.#columns + column;
      if (column < this.#columns && square < this.#heat.length) choose(square * this.#squareBytes);
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
    this.#layOut();
  }

  get size() {
    return this.#size;
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
    const [still, hot, frame] = ["--square", "--hot", "--accent"].map(cssColor);
    const first = Math.floor(this.#window.offset / this.#squareBytes);
    const last = Math.floor((this.#window.offset + this.#window.length - 1) / this.#squareBytes);
    this.#heat.forEach((heat, square) => {
      const x = (square % this.#columns) * (this.#side + gap);
      const y = Math.floor(square / this.#columns) * (this.#side + gap);
      context.globalAlpha = 1;
      context.fillStyle = still ?? "";
      context.fillRect(x, y, this.#side, this.#side);
      if (heat > 0) {
        context.globalAlpha = Math.min(1, heat);
        context.fillStyle = hot ?? "";
        context.fillRect(x, y, this.#side, this.#side);
      }
      if (square >= first && square <= last) {
        context.globalAlpha = 1;
        context.fillStyle = frame ?? "";
        context.fillRect(x, y + this.#side, this.#side, gap);
      }
    });
  }
}
