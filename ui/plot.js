// plot.js - a line that grows to the right, as many samples as fit into a minute.

const samplesMax = 240;

/** @typedef {{ color: string, width?: number, fill?: boolean }} Line in the colour of a CSS property */

/** Makes a canvas as sharp as the screen is. @param {HTMLCanvasElement} canvas */
export function contextOf(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** @param {string} name @returns {string} */
export const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Plot {
  #canvas;
  #lines;
  #top;
  /** @type {number[][]} */
  #samples = [];

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {readonly Line[]} lines
   * @param {"range" | "zero"} floor "range": the least sample is the bottom, for numbers that only grow
   */
  constructor(canvas, lines, floor) {
    this.#canvas = canvas;
    this.#lines = lines;
    this.#top = floor;
  }

  /** @param {readonly number[]} values one for each line */
  add(values) {
    this.#samples.push([...values]);
    if (this.#samples.length > samplesMax) this.#samples.shift();
    this.draw();
  }

  clear() {
    this.#samples = [];
    this.draw();
  }

  draw() {
    const { context, width, height } = contextOf(this.#canvas);
    const all = this.#samples.flat();
    if (all.length === 0) return;
    const bottom = this.#top === "zero" ? 0 : Math.min(...all);
    const span = Math.max(1, Math.max(...all) - bottom);
    const x = (/** @type {number} */ at) => width - ((this.#samples.length - 1 - at) / (samplesMax - 1)) * width;
    const y = (/** @type {number} */ value) => height - 2 - ((value - bottom) / span) * (height - 6);
    this.#lines.forEach(({ color, width: thickness = 1.5, fill }, line) => {
      context.beginPath();
      this.#samples.forEach((values, at) => {
        context.lineTo(x(at), y(values[line] ?? 0));
      });
      context.strokeStyle = context.fillStyle = cssColor(color);
      context.lineWidth = thickness;
      context.lineJoin = "round";
      context.stroke();
      if (fill !== true) return;
      context.lineTo(width, height);
      context.lineTo(x(0), height);
      context.globalAlpha = 0.15;
      context.fill();
      context.globalAlpha = 1;
    });
  }
}
