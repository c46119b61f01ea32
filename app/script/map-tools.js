// What stands around the points of the map: its tools, the card of the picture that the hand is over, and what is said.

import { button, make } from "./elements.js";

/** @typedef {{ colourBy: (by: string) => void, chooseAll: () => void }} Does what tools do that don't move the map */

const ABOUT =
  "Map of the pictures. Arrow keys move it, plus and minus zoom, 0 shows all, Space selects the picture in the middle.";
const LASSO = "Draw around pictures to select them (or hold Shift and drag)";

export class MapTools {
  /**
   * @param {import("./plane.js").Plane} plane
   * @param {Does} does
   */
  constructor(plane, does) {
    this.plane = plane;
    this.lassoing = false;
    this.card = make("div", { class: "card hidden", "aria-hidden": "true" });
    this.hint = make("p", { class: "hint" });
    this.note = make("p", { class: "note", role: "status" });
    this.meter = make("progress", { max: "1", class: "hidden", "aria-label": "Progress of the better map" });
    this.by = make("select", { "aria-label": "Colour by" });
    this.by.addEventListener("change", () => does.colourBy(this.by.value));
    this.hand = tool("Move", "Drag to move the map, click to select a picture", () => this.useLasso(false), {
      "aria-pressed": "true",
    });
    this.rope = tool("Lasso", LASSO, () => this.useLasso(true), { "aria-pressed": "false" });
    this.faces = tool("Pictures", "Show small pictures on the map", () => this.toggleFaces(), {
      "aria-pressed": "false",
    });
    plane.canvas.setAttribute("aria-label", ABOUT);
    this.stage = make("div", { class: "stage" }, plane.canvas, this.card, this.hint);
    this.bar = make(
      "div",
      { class: "tools" },
      make("div", { class: "pair", role: "group", "aria-label": "What dragging does" }, this.hand, this.rope),
      tool("Select all in view", "Select every picture that the map shows now", () => does.chooseAll()),
      this.faces,
      make(
        "div",
        { class: "pair", role: "group", "aria-label": "Zoom" },
        tool("−", "Zoom out (−)", () => plane.zoom(1 / 1.5), { "aria-label": "Zoom out" }),
        tool("+", "Zoom in (+)", () => plane.zoom(1.5), { "aria-label": "Zoom in" }),
        tool("All", "Show the whole map (0)", () => plane.fit()),
      ),
      make("label", { class: "by" }, "Colour by ", this.by),
    );
  }

  /** @param {boolean} on */
  useLasso(on) {
    this.lassoing = on;
    this.hand.setAttribute("aria-pressed", String(!on));
    this.rope.setAttribute("aria-pressed", String(on));
    this.plane.gestures.useLasso(on);
  }

  toggleFaces() {
    const on = this.faces.getAttribute("aria-pressed") !== "true";
    this.faces.setAttribute("aria-pressed", String(on));
    this.plane.mosaic.show(on);
  }

  /** @param {import("./map.js").Answer} value */
  draw(value) {
    const ways = value.ways.map((way) => make("option", { value: way.key, selected: way.key === value.by }, way.name));
    this.by.replaceChildren(...ways);
    this.hint.textContent = "Drag to move, scroll to zoom, hover to see a picture. Draw a lasso to select.";
    this.tell(value);
  }

  /**
   * Says what is seen, and how far a better map is.
   *
   * @param {Pick<import("./map.js").Answer, "note" | "making">} value
   */
  tell({ note, making }) {
    this.note.textContent = note;
    this.meter.classList.toggle("hidden", making === null);
    if (making !== null) this.meter.value = making;
  }

  /**
   * @param {import("./tiles.js").Tile} tile
   * @param {number} x in pixels of the screen, from the map's corner
   * @param {number} y
   */
  showCard(tile, x, y) {
    const { card } = this;
    card.replaceChildren(
      make("img", { src: tile.src, alt: "" }),
      make("strong", {}, tile.name),
      make("span", {}, tile.label ? `Labelled ${tile.label}` : tile.path),
    );
    card.classList.remove("hidden");
    const box = this.stage.getBoundingClientRect();
    card.style.left = `${Math.max(4, x + 190 > box.width ? x - 186 : x + 16)}px`;
    card.style.top = `${Math.max(4, Math.min(y + 12, box.height - card.offsetHeight - 8))}px`;
  }

  hideCard() {
    this.card.classList.add("hidden");
  }
}

/**
 * @param {string} text
 * @param {string} title
 * @param {() => void} onclick
 * @param {import("./elements.js").Attributes} [attributes]
 */
function tool(text, title, onclick, attributes) {
  return button(text, onclick, { title, class: "plain tool", ...attributes });
}
