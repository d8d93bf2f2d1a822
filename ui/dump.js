// dump.js - bytes as hex and characters, as `hexdump -C` has them, in which those that just changed stand out.

const hex = (/** @type {number} */ number, /** @type {number} */ digits) => number.toString(16).padStart(digits, "0");
const character = (/** @type {number} */ byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".");

export class Dump {
  #pre;
  #offset = 0;
  #bytes = new Uint8Array(0);
  /** Of each byte the element of its hex and that of its character. @type {[HTMLElement, HTMLElement][]} */
  #cells = [];

  /** @param {HTMLElement} pre */
  constructor(pre) {
    this.#pre = pre;
    pre.addEventListener("animationend", ({ target }) => {
      if (target instanceof Element) target.classList.remove("fresh");
    });
  }

  /** Shows a window of the region from nothing. @param {number} offset @param {Uint8Array<ArrayBuffer>} bytes @param {number} columns */
  show(offset, bytes, columns) {
    this.#offset = offset;
    this.#bytes = bytes;
    this.#cells = [];
    const digits = Math.max(8, hex(offset + bytes.length, 0).length);
    const lines = document.createDocumentFragment();
    for (let at = 0; at < bytes.length; at += columns) {
      const line = document.createElement("div");
      const codes = document.createElement("span");
      const characters = document.createElement("span");
      for (let column = 0; column < columns; column++) {
        if (column > 0) codes.append(column === 8 ? "  " : " ");
        const byte = bytes[at + column];
        if (byte === undefined) {
          codes.append("  ");
          continue;
        }
        const code = document.createElement("b");
        const sign = document.createElement("i");
        code.textContent = hex(byte, 2);
        sign.textContent = character(byte);
        code.className = byte === 0 ? "zero" : "";
        codes.append(code);
        characters.append(sign);
        this.#cells.push([code, sign]);
      }
      const position = document.createElement("span");
      position.className = "position";
      position.textContent = hex(offset + at, digits);
      line.append(position, "  ", codes, "  |", characters, "|\n");
      lines.append(line);
    }
    this.#pre.replaceChildren(lines);
  }

  /**
   * The same window at a later generation. What differs stands out, and so do the ranges that batches wrote to since.
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {readonly { offset: number, length: number }[]} written
   */
  update(bytes, written) {
    const fresh = new Set();
    for (const { offset, length } of written) {
      const first = Math.max(0, offset - this.#offset);
      const end = Math.min(bytes.length, offset + length - this.#offset);
      for (let at = first; at < end; at++) fresh.add(at);
    }
    bytes.forEach((byte, at) => {
      const cells = this.#cells[at];
      if (cells === undefined) return;
      const [code, sign] = cells;
      if (byte !== this.#bytes[at]) {
        fresh.add(at);
        code.textContent = hex(byte, 2);
        sign.textContent = character(byte);
        code.classList.toggle("zero", byte === 0);
      }
      if (!fresh.has(at)) return;
      for (const cell of cells) {
        cell.classList.add("fresh");
        // Begins to fade again.
        for (const fading of cell.getAnimations()) fading.currentTime = 0;
      }
    });
    this.#bytes = bytes;
  }
}
