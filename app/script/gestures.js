// What hands do on the map: move, pinch, encircle, click, hover, turn the wheel, and press keys.

/** @typedef {import("./plane.js").Spot} Spot */

const CLICK = 5; // pixels of the screen that a hand may move in a click
const STEP = 60; // pixels of the screen that an arrow key moves

export class Gestures {
  /** @param {import("./plane.js").Plane} plane */
  constructor(plane) {
    this.plane = plane;
    /** @type {Spot[] | null} of the lasso that is being drawn */
    this.path = null;
    /** @type {"pan" | "pinch" | "lasso" | null} */
    this.moving = null;
    /** @type {{ x: number, y: number, still: boolean } | null} where the hand went down, and whether it stayed there */
    this.down = null;
    this.lasso = false; // whether dragging draws a lasso
    this.aim = false; // the cross in the middle, while the map is moved by keys
    /** @type {Map<number, Spot>} where each finger is, by pointer */
    this.fingers = new Map();
    this.listen(plane.canvas);
  }

  /** @param {boolean} on */
  useLasso(on) {
    this.lasso = on;
    this.plane.canvas.classList.toggle("lasso", on);
  }

  /** @param {HTMLCanvasElement} canvas */
  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => this.onDown(event));
    canvas.addEventListener("pointermove", (event) => this.onMove(event));
    canvas.addEventListener("pointerup", (event) => this.onUp(event));
    canvas.addEventListener("pointercancel", (event) => this.onUp(event));
    canvas.addEventListener("pointerleave", () => !this.fingers.size && this.plane.onhover?.(null, 0, 0));
    canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("blur", () => {
      this.aim = false;
      this.plane.redraw();
    });
  }

  /**
   * Where an event is, in pixels of the canvas.
   *
   * @param {MouseEvent} event
   * @returns {Spot}
   */
  spotOf(event) {
    const { canvas, ratio } = this.plane;
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  hover(x, y) {
    const { plane } = this;
    plane.onhover?.(plane.nearest(x, y), x / plane.ratio, y / plane.ratio);
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (event.button !== 0) return;
    this.plane.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.spotOf(event);
    this.fingers.set(event.pointerId, [x, y]);
    this.aim = false;
    if (this.fingers.size === 2) {
      this.path = null;
      this.moving = "pinch";
    } else if (this.fingers.size === 1) {
      this.moving = this.lasso || event.shiftKey ? "lasso" : "pan";
      this.path = this.moving === "lasso" ? [[x, y]] : null;
      this.down = { x, y, still: true };
    }
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const { plane, down } = this;
    const [x, y] = this.spotOf(event);
    const before = this.fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") this.hover(x, y);
      return;
    }
    // A lasso ends where it began: what counts is whether the hand has ever been away.
    if (down && Math.hypot(x - down.x, y - down.y) > CLICK * plane.ratio) down.still = false;
    if (this.moving === "pinch" && this.fingers.size === 2) this.pinch(event.pointerId, before, [x, y]);
    else if (this.moving === "pan") plane.pan(x - before[0], y - before[1]);
    else if (this.moving === "lasso") {
      this.path?.push([x, y]);
      plane.redraw();
    }
    this.fingers.set(event.pointerId, [x, y]);
    plane.onhover?.(null, 0, 0);
  }

  /**
   * @param {number} pointer the finger that moved, from `from` to `to`
   * @param {Spot} from
   * @param {Spot} to
   */
  pinch(pointer, [bx, by], [x, y]) {
    const [[ox, oy]] = [...this.fingers].filter(([key]) => key !== pointer).map(([, spot]) => spot);
    const before = Math.hypot(bx - ox, by - oy);
    const after = Math.hypot(x - ox, y - oy);
    this.plane.pan((x - bx) / 2, (y - by) / 2);
    if (before > 1) this.plane.zoom(after / before, (x + ox) / 2, (y + oy) / 2);
  }

  /** @param {PointerEvent} event */
  onUp(event) {
    const { plane, moving, path } = this;
    if (!this.fingers.delete(event.pointerId)) return;
    const [x, y] = this.spotOf(event);
    if (this.fingers.size) return;
    this.moving = null;
    this.path = null;
    plane.redraw();
    if (event.type === "pointercancel") return;
    if (this.down?.still && moving !== "pinch") {
      plane.onpick?.(plane.nearest(x, y), event);
      this.hover(x, y);
    } else if (moving === "lasso" && path && path.length > 2) plane.onlasso?.(plane.inside(path), event);
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    event.preventDefault();
    const turned = Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1)));
    this.plane.zoom(Math.exp(-turned / 240), ...this.spotOf(event));
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { plane } = this;
    const step = STEP * plane.ratio;
    const [x, y] = [plane.width / 2, plane.height / 2];
    const { key } = event;
    if (key === "ArrowLeft") plane.pan(step, 0);
    else if (key === "ArrowRight") plane.pan(-step, 0);
    else if (key === "ArrowUp") plane.pan(0, step);
    else if (key === "ArrowDown") plane.pan(0, -step);
    else if (key === "+" || key === "=") plane.zoom(1.4);
    else if (key === "-") plane.zoom(1 / 1.4);
    else if (key === "0" || key === "Home") plane.fit();
    else if (key === " " || key === "Enter") {
      const id = plane.nearest(x, y);
      if (id !== null) plane.onpick?.(id, { shiftKey: true });
    } else return;
    event.preventDefault();
    this.aim = true;
    this.hover(x, y);
    plane.redraw();
  }
}
