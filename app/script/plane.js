// Points on a canvas: drawn, moved about and zoomed into, picked and encircled. Knows nothing of where they come from.
// Every frame looks at every point once and writes its pixels itself. Loops over all points read what they need into
// variables first: that is what keeps a hundred thousand smooth.

import { drawingOn, make } from "./elements.js";
import { Gestures } from "./gestures.js";
import { Mosaic } from "./mosaic.js";
import { hexOf, mix, Raster, wordOf } from "./raster.js";

/** @typedef {[number, number]} Spot x and y in pixels of the canvas */

/** @typedef {{ altKey?: boolean, shiftKey?: boolean, ctrlKey?: boolean, metaKey?: boolean }} Keys held meanwhile */

const REACH = 14; // pixels of the screen, in which a point is meant
const GLIDE = 900; // milliseconds that points take to their new places
export const OTHERS = 254; // the kind of what has no colour of its own
export const NONE = 255; // the kind of what belongs to none
const HIDDEN = 2; // in `faint`: steps back so far that it can't be picked

export class Plane {
  /** @param {ReadonlySet<number>} chosen ids of the selected points, as they are whenever it is drawn */
  constructor(chosen) {
    this.chosen = chosen;
    this.canvas = make("canvas", {
      class: "plane",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "map",
    });
    this.context = drawingOn(this.canvas, { alpha: false });
    this.ids = new Uint32Array(0);
    this.xs = new Float32Array(0); // from 0 to 1, as ys
    this.ys = new Float32Array(0);
    this.paint = new Uint8Array(0); // the kind of each point: a place in palette
    this.palette = new Uint32Array([0xff888888]);
    this.faint = new Uint8Array(256); // kinds that step back
    this.order = new Uint32Array(0); // in which points are drawn: what stands out comes last
    this.selected = new Uint8Array(0);
    /** @type {Map<number, number>} id to place */
    this.at = new Map();
    this.view = { scale: 1, left: 0, top: 0, tall: 1 }; // pixels of the canvas = place * scale + left
    this.fitted = true; // nobody has moved it yet
    this.width = 1;
    this.height = 1;
    this.ratio = 1;
    /** @type {Raster | null} none before there is a size */
    this.raster = null;
    this.ground = 0xffffffff;
    this.ink = 0xff000000;
    this.asked = 0; // the frame that is to come
    /** @type {((id: number | null, keys: Keys) => void) | null} told which point was clicked, null for none */
    this.onpick = null;
    /** @type {((ids: number[], keys: Keys) => void) | null} told what was encircled */
    this.onlasso = null;
    /** @type {((id: number | null, x: number, y: number) => void) | null} told what the hand is over, and where */
    this.onhover = null;
    this.mosaic = new Mosaic(this);
    this.gestures = new Gestures(this);
    new ResizeObserver(() => this.size()).observe(this.canvas);
  }

  // What is shown -----------------------------------------------------------------------------------------------------

  /**
   * Shows other points. Those that were there before glide to their new places, unless somebody wants no motion.
   *
   * @param {Uint32Array<ArrayBuffer>} ids
   * @param {Uint16Array} places x and y of each, from 0 to 65535, y upwards
   */
  points(ids, places) {
    const xs = new Float32Array(ids.length);
    const ys = new Float32Array(ids.length);
    const at = new Map();
    for (let place = 0; place < ids.length; place += 1) {
      xs[place] = places[2 * place] / 65535;
      ys[place] = 1 - places[2 * place + 1] / 65535;
      at.set(ids[place], place);
    }
    const before = { xs: this.xs, ys: this.ys, at: this.at };
    this.ids = ids;
    this.at = at;
    this.paint = new Uint8Array(ids.length).fill(NONE);
    this.mosaic.forget();
    this.xs = xs;
    this.ys = ys;
    this.sort();
    this.select(this.chosen);
    if (!before.at.size || window.matchMedia("(prefers-reduced-motion: reduce)").matches) return this.redraw();
    this.glide(before);
  }

  /** @param {{ xs: Float32Array, ys: Float32Array, at: Map<number, number> }} before */
  glide(before) {
    const { ids, xs: newXs, ys: newYs } = this;
    const fromX = newXs.slice();
    const fromY = newYs.slice();
    for (let place = 0; place < ids.length; place += 1) {
      const was = before.at.get(ids[place]);
      if (was === undefined) continue;
      fromX[place] = before.xs[was];
      fromY[place] = before.ys[was];
    }
    const xs = newXs.slice();
    const ys = newYs.slice();
    this.xs = xs;
    this.ys = ys;
    const began = performance.now();
    const step = () => {
      if (this.xs !== xs) return; // others came
      const done = Math.min(1, (performance.now() - began) / GLIDE);
      const eased = 1 - (1 - done) ** 3;
      for (let place = 0; place < ids.length; place += 1) {
        xs[place] = fromX[place] + (newXs[place] - fromX[place]) * eased;
        ys[place] = fromY[place] + (newYs[place] - fromY[place]) * eased;
      }
      this.mosaic.forget();
      this.redraw();
      if (done < 1) requestAnimationFrame(step);
    };
    step();
  }

  /**
   * Colours the points.
   *
   * @param {Uint8Array<ArrayBuffer>} kinds of each: a place in the palette
   * @param {(string | undefined)[]} palette of "#rrggbb"
   * @param {Uint8Array<ArrayBuffer>} back by kind: 1 for one that steps back, 2 for one that can't be picked either
   * @param {{ ground: string, ink: string }} colours of the ground, and of what is drawn on top of all
   */
  colours(kinds, palette, back, { ground, ink }) {
    this.palette = new Uint32Array(256);
    palette.forEach((hex, kind) => {
      this.palette[kind] = hex ? wordOf(hex) : 0;
    });
    if (kinds.length === this.ids.length) this.paint = kinds;
    this.faint = back;
    this.mosaic.forget();
    this.ground = wordOf(ground);
    this.ink = wordOf(ink);
    this.sort();
    this.redraw();
  }

  /** @param {Iterable<number>} wanted */
  select(wanted) {
    this.selected = new Uint8Array(this.ids.length);
    for (const id of wanted) {
      const place = this.at.get(id);
      if (place !== undefined) this.selected[place] = 1;
    }
    this.redraw();
  }

  /** Puts the points in the order of drawing. */
  sort() {
    const { ids, paint, faint } = this;
    const late = (/** @type {number} */ kind) => (faint[kind] ? 0 : kind === NONE ? 1 : kind === OTHERS ? 2 : 3);
    const counts = [0, 0, 0, 0, 0];
    for (let place = 0; place < ids.length; place += 1) counts[late(paint[place]) + 1] += 1;
    for (let level = 1; level < 5; level += 1) counts[level] += counts[level - 1];
    this.order = new Uint32Array(ids.length);
    for (let place = 0; place < ids.length; place += 1) this.order[counts[late(paint[place])]++] = place;
  }

  // The view ----------------------------------------------------------------------------------------------------------

  /** Takes the size that the canvas has in the page. */
  size() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.round(box.width * this.ratio);
    const height = Math.round(box.height * this.ratio);
    if (width !== this.width || height !== this.height || !this.raster) {
      const { view } = this;
      view.left += this.fitted ? 0 : (width - this.width) / 2;
      view.top += this.fitted ? 0 : (height - this.height) / 2;
      this.width = this.canvas.width = width;
      this.height = this.canvas.height = height;
      this.raster = new Raster(this.context.createImageData(width, height));
      if (this.fitted) this.fit();
    }
    this.redraw();
  }

  /** Shows all. */
  fit() {
    const { width, height } = this;
    this.fitted = true;
    const scale = 0.94 * Math.min(width, height * 1.35);
    const high = Math.min(scale, height * 0.94); // y is pressed a little where the screen is wide
    this.view = { scale, left: (width - scale) / 2, top: (height - high) / 2, tall: high / scale };
    this.redraw();
  }

  /**
   * @param {number} factor
   * @param {number} [x] of what stays where it is, as y; by default the middle
   * @param {number} [y]
   */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const { view, width, height } = this;
    const least = 0.4 * Math.min(width, height);
    const scale = Math.max(least, Math.min(view.scale * factor, 400 * Math.max(width, height)));
    const by = scale / view.scale;
    view.left = x - (x - view.left) * by;
    view.top = y - (y - view.top) * by;
    view.scale = scale;
    this.fitted = false;
    this.redraw();
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  pan(x, y) {
    this.view.left += x;
    this.view.top += y;
    this.fitted = false;
    this.redraw();
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  redraw() {
    if (!this.asked) this.asked = requestAnimationFrame(() => this.draw());
  }

  radius() {
    const { width, height } = this;
    const zoomed = this.view.scale / Math.max(width, height);
    const room = Math.sqrt((width * height) / Math.max(1, this.ids.length)) * 0.2;
    return Math.max(0.75 * this.ratio, Math.min(6 * this.ratio, room * Math.sqrt(zoomed)));
  }

  draw() {
    this.asked = 0;
    const { raster } = this;
    if (!raster) return;
    raster.words.fill(this.ground);
    this.drawPoints(raster);
    if (this.chosen.size) this.drawSelected(raster);
    this.context.putImageData(raster.pixels, 0, 0);
    this.mosaic.draw();
    if (this.gestures.path) this.drawPath(this.gestures.path);
    if (this.gestures.aim) this.drawAim();
  }

  /** @param {Raster} raster */
  drawPoints(raster) {
    const { order, xs, ys, selected, paint, palette, faint, ground, width, height } = this;
    const { scale, left, top } = this.view;
    const tall = scale * this.view.tall;
    const some = this.chosen.size > 0;
    const radius = this.radius();
    const dot = raster.disc(radius);
    const thin = raster.disc(Math.max(0.75, radius * 0.7));
    for (let turn = 0; turn < order.length; turn += 1) {
      const place = order[turn];
      const x = (xs[place] * scale + left) | 0;
      const y = (ys[place] * tall + top) | 0;
      if (x < 0 || y < 0 || x >= width || y >= height || selected[place]) continue;
      const back = faint[paint[place]];
      const colour = palette[paint[place]];
      raster.stamp(back ? thin : dot, x, y, back || some ? mix(ground, colour) : colour);
    }
  }

  /**
   * The selected points, above all others: first all their rings, then the dots.
   *
   * @param {Raster} raster
   */
  drawSelected(raster) {
    const { order, xs, ys, selected, paint, palette, ink } = this;
    const { scale, left, top } = this.view;
    const tall = scale * this.view.tall;
    const radius = this.radius();
    const ring = raster.disc(radius + 2.4 * this.ratio);
    const dot = raster.disc(radius);
    for (const shape of [ring, dot])
      for (let turn = 0; turn < order.length; turn += 1) {
        const place = order[turn];
        if (!selected[place]) continue;
        const x = (xs[place] * scale + left) | 0;
        const y = (ys[place] * tall + top) | 0;
        raster.stamp(shape, x, y, shape === ring ? ink : palette[paint[place]]);
      }
  }

  /** @param {Spot[]} path */
  drawPath(path) {
    const { context } = this;
    const ink = hexOf(this.ink);
    context.beginPath();
    for (const [x, y] of path) context.lineTo(x, y);
    context.closePath();
    context.lineWidth = 2 * this.ratio;
    context.strokeStyle = ink;
    context.fillStyle = `${ink}22`;
    context.fill();
    context.stroke();
  }

  /** The cross in the middle. */
  drawAim() {
    const { context } = this;
    const x = this.width / 2;
    const y = this.height / 2;
    const arm = 12 * this.ratio;
    context.lineWidth = 2 * this.ratio;
    context.strokeStyle = hexOf(this.ink);
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    context.moveTo(x, y - arm);
    context.lineTo(x, y + arm);
    context.stroke();
  }

  // Finding -----------------------------------------------------------------------------------------------------------

  /**
   * Where the point at a place of `ids` is.
   *
   * @param {number} place
   * @returns {Spot}
   */
  spot(place) {
    const { scale, left, top, tall } = this.view;
    return [this.xs[place] * scale + left, this.ys[place] * scale * tall + top];
  }

  /**
   * The id of the point that is meant by a spot, or null.
   *
   * @param {number} x
   * @param {number} y
   */
  nearest(x, y) {
    const { ids, xs, ys, paint, faint } = this;
    const { scale, left, top } = this.view;
    const tall = scale * this.view.tall;
    let best = -1;
    let reach = (REACH * this.ratio) ** 2;
    for (let place = 0; place < ids.length; place += 1) {
      const dx = xs[place] * scale + left - x;
      if (dx * dx > reach || faint[paint[place]] === HIDDEN) continue;
      const dy = ys[place] * tall + top - y;
      const far = dx * dx + dy * dy;
      if (far <= reach) {
        best = place;
        reach = far;
      }
    }
    return best < 0 ? null : ids[best];
  }

  /**
   * The ids of the points within a line that is closed.
   *
   * @param {Spot[]} line
   */
  inside(line) {
    const skip = Math.max(1, Math.floor(line.length / 200));
    const corners = line.filter((_, index) => index % skip === 0);
    const left = Math.min(...corners.map(([x]) => x));
    const right = Math.max(...corners.map(([x]) => x));
    const top = Math.min(...corners.map(([, y]) => y));
    const bottom = Math.max(...corners.map(([, y]) => y));
    const found = [];
    for (let place = 0; place < this.ids.length; place += 1) {
      const [x, y] = this.spot(place);
      if (x < left || x > right || y < top || y > bottom) continue;
      let odd = false;
      for (let one = 0, other = corners.length - 1; one < corners.length; other = one, one += 1) {
        const [ax, ay] = corners[one];
        const [bx, by] = corners[other];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(this.ids[place]);
    }
    return found;
  }

  /** @param {number} id */
  has(id) {
    return this.at.has(id);
  }

  /** The ids of the points that are in sight. */
  inView() {
    const { width, height } = this;
    return [...this.ids].filter((_, place) => {
      const [x, y] = this.spot(place);
      return x >= 0 && y >= 0 && x < width && y < height;
    });
  }
}
