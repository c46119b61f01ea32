// Choosing a part of a picture: drawn with mouse or finger, or typed.

import { button, make } from "./elements.js";

/** @typedef {number[]} Part x, y, width and height of a rectangle, as shares of the picture */

/** @typedef {{ name: string, large: string, part: Part | null }} Chosen the picture, its address, and the part so far */

const NAMES = ["From the left", "From the top", "Width", "Height"];
const SIDES = /** @type {const} */ (["left", "top", "width", "height"]);
const LEAST = 0.01; // of the picture; less is a click

export class Region {
  /** @param {HTMLElement} board of the screen, which holds the dialog */
  constructor(board) {
    this.board = board;
    this.dialog = make("dialog", { class: "region", "aria-label": "Search by a part of the picture" });
  }

  /**
   * Asks for a part.
   *
   * @param {Chosen} picture
   * @param {(part: Part | null) => void} use takes it; null is the whole picture. Called only where one was chosen
   */
  open(picture, use) {
    const choice = new Choice(picture, (part) => {
      this.dialog.close();
      use(part);
    });
    this.dialog.replaceChildren(
      make("h2", {}, "Search by a part of the picture"),
      make(
        "p",
        { class: "calm" },
        "Draw a box around what matters, with the mouse or a finger, or type where it is, in percent.",
      ),
      choice.stage,
      make(
        "div",
        { class: "fields" },
        NAMES.map((name, at) => make("label", {}, name, choice.fields[at])),
      ),
      make(
        "div",
        { class: "buttons" },
        choice.search,
        button("The whole picture", () => choice.use(null)),
        button("Cancel", () => this.dialog.close()),
      ),
    );
    if (!this.dialog.isConnected) this.board.append(this.dialog);
    this.dialog.showModal();
    if (picture.part) choice.show(picture.part, true);
    choice.fields[0].focus();
  }
}

// The picture with its box, and the box in numbers.
class Choice {
  /**
   * @param {Chosen} picture
   * @param {(part: Part | null) => void} use
   */
  constructor(picture, use) {
    this.use = use;
    /** @type {Part | null} */
    this.part = null;
    this.frame = make("div", { class: "box", hidden: true });
    const image = make("img", { src: picture.large, alt: `The picture ${picture.name}`, draggable: "false" });
    this.stage = make("div", { class: "stage" }, image, this.frame);
    this.search = button("Search by this part", () => this.use(this.part), { class: "main", disabled: true });
    this.fields = NAMES.map((name, at) => this.field(name, at));
    image.addEventListener("error", () => this.fail());
    fitWhenLoaded(image, this.stage, 56);
    this.listen();
  }

  /**
   * @param {string} name
   * @param {number} at
   */
  field(name, at) {
    return make("input", {
      type: "number",
      min: at < 2 ? "0" : "1",
      max: at < 2 ? "99" : "100",
      step: "1",
      "aria-label": `${name}, in percent`,
      oninput: () => {
        const given = this.fields.map((field) => Number(field.value) / 100);
        if (given.every(Number.isFinite) && given[2] > 0 && given[3] > 0) this.show(given, false);
      },
    });
  }

  /**
   * @param {Part} wanted cut to the picture
   * @param {boolean} write whether the numbers are to follow
   */
  show(wanted, write) {
    const [x, y] = [Math.min(Math.max(wanted[0], 0), 0.99), Math.min(Math.max(wanted[1], 0), 0.99)];
    const part = [x, y, Math.min(wanted[2], 1 - x), Math.min(wanted[3], 1 - y)];
    this.part = part;
    this.frame.hidden = false;
    this.search.disabled = false;
    placeAt(this.frame, part);
    if (!write) return;
    this.fields.forEach((field, at) => {
      field.value = String(Math.round(100 * part[at]));
    });
  }

  fail() {
    const text = "This picture can't be shown: its file is gone, or has changed since it was indexed.";
    this.stage.replaceWith(make("p", { class: "trouble", role: "alert" }, text));
    for (const each of [...this.fields, this.search]) each.disabled = true;
  }

  listen() {
    const { stage } = this;
    /** @type {number[] | null} */
    let from = null;
    const at = (/** @type {PointerEvent} */ event) => {
      const around = stage.getBoundingClientRect();
      const share = (/** @type {number} */ length) => Math.min(1, Math.max(0, length));
      return [share((event.clientX - around.left) / around.width), share((event.clientY - around.top) / around.height)];
    };
    stage.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      from = at(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      const to = at(event);
      const size = [Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])];
      if (size[0] <= LEAST || size[1] <= LEAST) return;
      this.show([Math.min(from[0], to[0]), Math.min(from[1], to[1]), ...size], true);
    });
    const end = () => {
      from = null;
    };
    stage.addEventListener("pointerup", end);
    stage.addEventListener("pointercancel", end);
  }
}

/**
 * Lays something over a part of what it lies in.
 *
 * @param {HTMLElement} node
 * @param {Part} part
 */
export function placeAt(node, part) {
  SIDES.forEach((side, at) => {
    node.style[side] = `${100 * part[at]}%`;
  });
}

/**
 * Makes an element as large as its column is wide, and at most so many hundredths of the window high; whatever is laid
 * over it fits too.
 *
 * @param {HTMLElement} sheet
 * @param {number} ratio width by height
 * @param {number} height in hundredths of the window's
 */
export function fitSheet(sheet, ratio, height) {
  sheet.style.aspectRatio = String(ratio);
  sheet.style.width = `min(100%, calc(${height}vh * ${ratio}))`;
}

/**
 * As `fitSheet`, with the ratio of a picture as soon as that is known.
 *
 * @param {HTMLImageElement} image
 * @param {HTMLElement} sheet
 * @param {number} height in hundredths of the window's
 */
export function fitWhenLoaded(image, sheet, height) {
  image.addEventListener("load", () => fitSheet(sheet, image.naturalWidth / image.naturalHeight, height));
}
