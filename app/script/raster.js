// Points as pixels: discs written into the memory of a picture, a colour a 32-bit word. A hundred thousand take a few
// milliseconds, which no drawing of the canvas's own does.

/**
 * The places within a disc, as steps in words: whole ones, and those at its edge.
 *
 * @typedef {{ whole: Int32Array, edge: Int32Array, reach: number }} Disc
 */

export class Raster {
  /** @param {ImageData} pixels to be written */
  constructor(pixels) {
    this.pixels = pixels;
    this.words = new Uint32Array(pixels.data.buffer);
    this.width = pixels.width;
    this.height = pixels.height;
  }

  /**
   * @param {number} wanted its radius in pixels; from 1.25 on it is rounded, as only radii of a half look round: others have
   *   a pixel on each axis that stands out, and are taken for diamonds
   * @returns {Disc}
   */
  disc(wanted) {
    const whole = [];
    const edge = [];
    const [radius, soft] = wanted < 1.25 ? [wanted, 0.35] : [Math.floor(wanted) + 0.5, 0.25];
    const reach = Math.ceil(radius);
    for (let y = -reach; y <= reach; y += 1)
      for (let x = -reach; x <= reach; x += 1) {
        const far = Math.hypot(x, y);
        if (far <= radius - soft) whole.push(y * this.width + x);
        else if (far <= radius + soft) edge.push(y * this.width + x);
      }
    return { whole: Int32Array.from(whole), edge: Int32Array.from(edge), reach };
  }

  /**
   * Writes a disc, if it lies in the picture as a whole.
   *
   * @param {Disc} disc
   * @param {number} x of its middle, a whole number as y
   * @param {number} y
   * @param {number} colour
   */
  stamp(disc, x, y, colour) {
    const { words, width, height } = this;
    const { whole, edge, reach } = disc;
    if (x < reach || y < reach || x >= width - reach || y >= height - reach) return;
    const middle = y * width + x;
    for (const step of whole) words[middle + step] = colour;
    for (const step of edge) words[middle + step] = mix(words[middle + step], colour);
  }
}

/**
 * Half one colour, half the other, as words.
 *
 * @param {number} one
 * @param {number} other
 */
export function mix(one, other) {
  return (0xff000000 | ((((one & 0xfefefe) >>> 1) + ((other & 0xfefefe) >>> 1)) & 0xffffff)) >>> 0;
}

/**
 * The word of a colour "#rrggbb".
 *
 * @param {string} hex
 */
export function wordOf(hex) {
  const [r, g, b] = [1, 3, 5].map((from) => Number.parseInt(hex.slice(from, from + 2), 16));
  return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
}

/**
 * The colour "#rrggbb" of a word.
 *
 * @param {number} word
 */
export function hexOf(word) {
  const part = (/** @type {number} */ shift) => ((word >>> shift) & 255).toString(16).padStart(2, "0");
  return `#${part(0)}${part(8)}${part(16)}`;
}
