// Selecting pictures by drawing a rectangle around them with the mouse.

import { make, source } from "./elements.js";
import { imageOf } from "./tiles.js";

/** @typedef {{ left: number, right: number, top: number, bottom: number }} Box in pixels of the document */

const UNSTEADY = 8; // pixels that a hand may move in a click

export class Rubber {
  /**
   * @param {import("./screen.js").Screen<any>} screen
   * @param {import("./selection.js").Selection} selection
   */
  constructor(screen, selection) {
    this.board = screen.board;
    this.selection = selection;
    this.band = make("div", { class: "rubber", "aria-hidden": "true" });
    this.board.addEventListener("pointerdown", (event) => {
      // Fingers scroll; only a mouse draws.
      if (event.pointerType !== "mouse" || event.button !== 0 || event.shiftKey) return;
      const at = source(event);
      if (!at.closest(".content") || at.closest("input, select, a, button:not(.picture)")) return;
      this.begin(event);
    });
  }

  /** @param {PointerEvent} began */
  begin(began) {
    const drag = new Drag(this, began);
    const stretch = (/** @type {PointerEvent} */ event) => drag.stretch(event);
    const release = () => {
      window.removeEventListener("pointermove", stretch);
      window.removeEventListener("pointerup", release);
      window.removeEventListener("pointercancel", release);
      drag.end();
    };
    window.addEventListener("pointermove", stretch);
    window.addEventListener("pointerup", release);
    window.addEventListener("pointercancel", release);
  }
}

// One rectangle, from pressing the button to letting it go.
class Drag {
  /**
   * @param {Rubber} rubber
   * @param {PointerEvent} began
   */
  constructor(rubber, began) {
    this.rubber = rubber;
    const [x, y] = placeOf(began);
    this.x = x;
    this.y = y;
    this.drawn = false; // not yet: it may be a click
    /** @type {Set<number>} what was selected when it began */
    this.before = new Set();
    /** @type {(Box & { id: number })[]} */
    this.boxes = [];
  }

  draw() {
    const { board, selection, band } = this.rubber;
    this.drawn = true;
    this.before = new Set(selection.ids);
    // Measured once: asking the browser at every move would be slow with thousands of pictures.
    const tiles = /** @type {NodeListOf<HTMLElement>} */ (board.querySelectorAll(".tile"));
    this.boxes = [...tiles].map((tile) => {
      const at = tile.getBoundingClientRect();
      return {
        id: imageOf(tile),
        left: at.left + window.scrollX,
        right: at.right + window.scrollX,
        top: at.top + window.scrollY,
        bottom: at.bottom + window.scrollY,
      };
    });
    document.body.append(band);
    document.body.classList.add("massl-dragging");
  }

  /** @param {PointerEvent} event */
  stretch(event) {
    const { selection, band } = this.rubber;
    const [x, y] = placeOf(event);
    if (!this.drawn && Math.hypot(x - this.x, y - this.y) < UNSTEADY) return;
    if (!this.drawn) this.draw();
    const left = Math.min(x, this.x);
    const right = Math.max(x, this.x);
    const top = Math.min(y, this.y);
    const bottom = Math.max(y, this.y);
    band.style.left = `${left}px`;
    band.style.top = `${top}px`;
    band.style.width = `${right - left}px`;
    band.style.height = `${bottom - top}px`;
    for (const box of this.boxes) {
      const touched = box.left < right && box.right > left && box.top < bottom && box.bottom > top;
      selection.put(box.id, touched || this.before.has(box.id));
    }
    selection.changed();
  }

  end() {
    this.rubber.band.remove();
    document.body.classList.remove("massl-dragging");
    if (!this.drawn) return;
    // The click that ends it is not meant for the picture below.
    const swallow = (/** @type {MouseEvent} */ event) => {
      event.stopPropagation();
      event.preventDefault();
    };
    window.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => window.removeEventListener("click", swallow, { capture: true }), 50);
  }
}

/**
 * Where a hand is, in pixels of the document.
 *
 * @param {PointerEvent} event
 */
function placeOf(event) {
  return [event.clientX + window.scrollX, event.clientY + window.scrollY];
}
