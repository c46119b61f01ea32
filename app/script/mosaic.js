// Small pictures on the map: one for each cell of a grid that moves and grows with it, so that none flickers.

import { hexOf } from "./raster.js";

/** @typedef {{ place: number, far: number }} Standing which point stands for a cell, and how far off its middle it is */

const CELL = 76; // pixels of the screen from one small picture to the next
const LARGEST = 96; // pixels of the screen
const KEPT = 600; // pictures that are kept
const COLUMNS = 2 ** 22; // more than a grid ever has: a cell's key is row * COLUMNS + column

export class Mosaic {
  /** @param {import("./plane.js").Plane} plane */
  constructor(plane) {
    this.plane = plane;
    this.shown = false;
    /** @type {Map<number, HTMLImageElement>} by id, the latest last */
    this.pictures = new Map();
    /** @type {Map<number, Map<number, Standing>>} by level of the grid */
    this.cells = new Map();
  }

  /** @param {boolean} on */
  show(on) {
    this.shown = on;
    this.plane.redraw();
  }

  /** Points or colours are others: which point stands for a cell has to be found anew. */
  forget() {
    this.cells.clear();
  }

  draw() {
    if (!this.shown) return;
    const { view, width, height, ratio } = this.plane;
    const level = Math.ceil(Math.log2((CELL * ratio) / view.scale));
    const standing = this.standing(level);
    const side = 2 ** level * view.scale;
    const firstColumn = Math.floor(-view.left / side);
    const lastColumn = Math.ceil((width - view.left) / side);
    const lastRow = Math.ceil((height - view.top) / side);
    for (let row = Math.floor(-view.top / side); row <= lastRow; row += 1)
      for (let column = firstColumn; column <= lastColumn; column += 1) {
        const found = standing.get(row * COLUMNS + column);
        if (!found) continue;
        const x = (column + 0.5) * side + view.left;
        const y = (row + 0.5) * side + view.top;
        this.drawPicture(found.place, x, y, Math.min(0.82 * side, LARGEST * ratio));
      }
  }

  /**
   * @param {number} place of the point
   * @param {number} x of the middle
   * @param {number} y
   * @param {number} most pixels that it may be wide and high
   */
  drawPicture(place, x, y, most) {
    const { context, ids, selected, palette, paint, ink, ratio } = this.plane;
    const picture = this.pictureOf(ids[place]);
    if (!picture) return;
    const fits = most / Math.max(picture.naturalWidth, picture.naturalHeight);
    const wide = picture.naturalWidth * fits;
    const high = picture.naturalHeight * fits;
    const left = x - wide / 2;
    const top = y - high / 2;
    const frame = (selected[place] ? 4 : 2) * ratio;
    context.fillStyle = hexOf(selected[place] ? ink : palette[paint[place]]);
    context.fillRect(left - frame, top - frame, wide + 2 * frame, high + 2 * frame);
    context.drawImage(picture, left, top, wide, high);
  }

  /**
   * By cell, the point nearest to its middle; of points that step back none.
   *
   * @param {number} level
   */
  standing(level) {
    const known = this.cells.get(level);
    if (known) return known;
    const { ids, xs, ys, paint, faint, view } = this.plane;
    const cell = 2 ** level;
    const standing = new Map();
    for (let place = 0; place < ids.length; place += 1) {
      if (faint[paint[place]]) continue;
      const x = xs[place] / cell;
      const y = (ys[place] * view.tall) / cell;
      const column = Math.floor(x);
      const row = Math.floor(y);
      const far = (x - column - 0.5) ** 2 + (y - row - 0.5) ** 2;
      const key = row * COLUMNS + column;
      const best = standing.get(key);
      if (!best || far < best.far) standing.set(key, { place, far });
    }
    this.cells.set(level, standing);
    return standing;
  }

  /**
   * The picture of a point, or null while it is being fetched.
   *
   * @param {number} id
   */
  pictureOf(id) {
    const known = this.pictures.get(id);
    if (known) {
      this.pictures.delete(id);
      this.pictures.set(id, known); // the latest last
      return known.complete && known.naturalWidth ? known : null;
    }
    if (this.plane.gestures.moving) return null;
    const picture = new Image();
    picture.onload = () => this.plane.redraw();
    picture.src = `thumbnail/${id}`;
    this.pictures.set(id, picture);
    const [oldest] = this.pictures.keys();
    if (this.pictures.size > KEPT) this.pictures.delete(oldest);
    return null;
  }
}
