// One picture as large as the window, or two side by side; closer by a click, the wheel or keys, moved by dragging. What
// is done to one of two is done to the other.

import { make } from "./elements.js";

/** @typedef {import("./tiles.js").Tile} Tile */

/**
 * @typedef {object} Uses
 * @property {() => Tile[]} around the pictures in sight, in their order: the arrow keys lead through them
 * @property {(tile: Tile) => void} [about] opens what is known of one
 */

const CLOSE = 3; // times as large, by a click
const CLOSEST = 12;
const STEP = 1.25; // times, by a turn of the wheel
const SWEEP = 60; // pixels that a finger moves to go to the next picture
const STILL = 5; // pixels that a hand may move in a click

/** @type {Viewer | null} the last one that was opened, on whatever screen */
let inFront = null;

// Before any screen asks for it: to them Back from a picture is no step. One is open at a time.
addEventListener(
  "popstate",
  (event) => {
    if (!inFront?.above) return;
    event.stopImmediatePropagation();
    inFront.onBack();
  },
  { capture: true },
);

export class Viewer {
  /**
   * @param {import("./screen.js").Screen<any>} screen
   * @param {Uses} uses
   */
  constructor(screen, uses) {
    this.board = screen.board;
    this.uses = uses;
    /** @type {Tile[]} what is looked at, one or two */
    this.tiles = [];
    /** @type {Tile[]} what the arrow keys lead through */
    this.around = [];
    this.scale = 1;
    this.x = 0; // of the picture's middle from that of its place, in pixels
    this.y = 0;
    this.stage = make("div", { class: "shots" });
    this.title = make("strong", {});
    this.place = make("span", { class: "place", role: "status" });
    this.dialog = make(
      "dialog",
      { class: "viewer", tabindex: "-1", "aria-label": "Full-size view" },
      make("header", {}, this.title, this.place, this.tools()),
      this.stage,
    );
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("close", () => {
      this.stage.replaceChildren();
      this.leaving = this.above;
      if (this.leaving) history.back();
    });
    this.leaving = false; // on the way back to what was there before
    this.above = false; // a step of its own in the browser's history, which Back takes back
    this.stage.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.onDown(event));
  }

  tools() {
    const { uses } = this;
    const tool = (
      /** @type {string} */ text,
      /** @type {string} */ name,
      /** @type {() => void} */ onclick,
      kind = "",
    ) => make("button", { type: "button", class: kind, title: name, "aria-label": name, onclick }, text);
    return make(
      "div",
      { class: "tools" },
      tool("‹", "Picture before (Left)", () => this.step(-1), "alone"),
      tool("›", "Next picture (Right)", () => this.step(1), "alone"),
      tool("−", "Smaller (−)", () => this.zoom(1 / 2)),
      tool("+", "Larger (+)", () => this.zoom(2)),
      uses.about ? tool("i", "About this picture (i)", () => this.about(), "alone") : null,
      tool("×", "Close (Esc)", () => this.dialog.close()),
    );
  }

  /** @param {Tile} tile */
  open(tile) {
    this.around = this.uses.around();
    this.show([tile]);
  }

  /**
   * One picture, or two side by side; more are not looked at.
   *
   * @param {Tile[]} tiles
   */
  compare(tiles) {
    if (tiles.length === 1) return this.open(tiles[0]);
    this.around = [];
    this.show(tiles.slice(0, 2));
  }

  /** @param {Tile[]} tiles */
  show(tiles) {
    const { dialog, board, around } = this;
    this.tiles = tiles;
    this.scale = 1;
    this.x = this.y = 0;
    const at = around.findIndex((tile) => tile.id === tiles[0].id);
    this.title.textContent = tiles.map((tile) => tile.path).join("  |  ");
    this.place.textContent = tiles.length === 1 && at >= 0 ? `${at + 1} of ${around.length}` : "";
    dialog.classList.toggle("two", tiles.length > 1);
    this.stage.replaceChildren(...tiles.map(drawShot));
    if (!dialog.isConnected) board.append(dialog);
    if (!dialog.open) {
      dialog.showModal();
      if (!this.above) history.pushState(history.state, "");
      this.above = true;
      inFront = this;
    }
    dialog.focus();
    for (const next of [around[at + 1], around[at - 1]]) if (at >= 0 && next) new Image().src = addressOf(next);
  }

  /** @param {1 | -1} by */
  step(by) {
    if (this.tiles.length > 1) return;
    const at = this.around.findIndex((tile) => tile.id === this.tiles[0].id);
    const next = this.around[at + by];
    if (at >= 0 && next) this.show([next]);
  }

  about() {
    const [tile] = this.tiles;
    this.dialog.close();
    this.uses.about?.(tile);
  }

  // Closer ------------------------------------------------------------------------------------------------------------

  /**
   * @param {number} times larger
   * @param {number} [x] what stays in place, in pixels from the middle
   * @param {number} [y]
   */
  zoom(times, x = 0, y = 0) {
    const scale = Math.max(1, Math.min(CLOSEST, this.scale * times));
    const by = scale / this.scale;
    this.scale = scale;
    this.move(x + (this.x - x) * by, y + (this.y - y) * by);
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  move(x, y) {
    const shots = /** @type {NodeListOf<HTMLElement>} */ (this.stage.querySelectorAll(".shot"));
    const { clientWidth, clientHeight } = shots[0];
    const across = (clientWidth * (this.scale - 1)) / 2; // its edges stay outside
    const down = (clientHeight * (this.scale - 1)) / 2;
    this.x = Math.max(-across, Math.min(across, x));
    this.y = Math.max(-down, Math.min(down, y));
    for (const shot of shots) {
      const image = shot.querySelector("img");
      if (image) image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    }
    this.dialog.classList.toggle("close", this.scale > 1);
  }

  /**
   * Where a hand is, in pixels from the middle of the picture's place.
   *
   * @param {MouseEvent} event
   */
  spotOf(event) {
    const shot = event.target instanceof Element ? event.target.closest(".shot") : null;
    const box = (shot ?? this.stage).getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    event.preventDefault();
    const [x, y] = this.spotOf(event);
    this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, x, y);
  }

  /** @param {PointerEvent} began */
  onDown(began) {
    if (began.button !== 0) return;
    began.preventDefault(); // no ghost of the picture is dragged along
    const { x, y } = this;
    let still = true;
    const drag = (/** @type {PointerEvent} */ event) => {
      const [right, down] = [event.clientX - began.clientX, event.clientY - began.clientY];
      if (Math.hypot(right, down) > STILL) still = false;
      if (!still) this.move(x + right, y + down);
    };
    const drop = (/** @type {PointerEvent} */ event) => {
      window.removeEventListener("pointermove", drag);
      window.removeEventListener("pointerup", drop);
      window.removeEventListener("pointercancel", drop);
      const [right, down] = this.spotOf(began);
      const swept = event.clientX - began.clientX;
      if (still && this.dialog.open) this.zoom(this.scale > 1 ? 1 / this.scale : CLOSE, right, down);
      else if (this.scale === 1 && Math.abs(swept) > SWEEP) this.step(swept < 0 ? 1 : -1);
    };
    window.addEventListener("pointermove", drag);
    window.addEventListener("pointerup", drop);
    window.addEventListener("pointercancel", drop);
  }

  /** Closes on the browser's Back, which leads nowhere else then. */
  onBack() {
    this.above = this.leaving && this.dialog.open; // opened again meanwhile
    this.leaving = false;
    if (this.above) history.pushState(history.state, "");
    else if (this.dialog.open) this.dialog.close();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") this.step(-1);
    else if (event.key === "ArrowRight") this.step(1);
    else if (event.key === "+") this.zoom(2);
    else if (event.key === "-" || event.key === "−") this.zoom(1 / 2);
    else if (event.key === "0") this.zoom(1 / this.scale);
    else if (event.key === "i" && this.tiles.length === 1 && this.uses.about) this.about();
    else return;
    event.preventDefault();
  }
}

/** @param {Tile} tile */
function addressOf(tile) {
  return `full/${tile.id}`;
}

/** @param {Tile} tile */
function drawShot(tile) {
  const image = make("img", { src: addressOf(tile), alt: tile.path, draggable: "false" });
  image.style.background = `center / contain no-repeat url("${tile.src}")`; // until it is there
  const said = make("figcaption", {}, tile.label ? `${tile.path}, labelled ${tile.label}` : tile.path);
  const shot = make("div", { class: "shot" }, image);
  image.addEventListener("error", () => {
    shot.replaceChildren(make("p", {}, "This picture can't be shown: its file is gone or was changed."));
  });
  image.addEventListener("load", () => {
    image.style.background = "";
  });
  return make("figure", {}, shot, said);
}
