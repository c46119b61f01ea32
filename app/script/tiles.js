// Grids of pictures: drawing and selecting them.

import { button, make, one, source } from "./elements.js";
import { drawAll } from "./selection.js";

/**
 * A picture, as app/screens/tiles.py describes it; a screen adds what else it knows.
 *
 * @typedef {object} Tile
 * @property {number} id
 * @property {string} src
 * @property {string} name of the file
 * @property {string} path
 * @property {string | null} label
 * @property {string} [score] its similarity, or the probability of its proposal
 * @property {number} [value] the similarity
 * @property {string} [band] how good a match that is
 * @property {string} [bandName]
 * @property {string} [chance]
 * @property {string} [hint]
 * @property {string} [guess] the class that is proposed
 * @property {string} [heading] that stands before it, where a month or a folder begins
 * @property {string} [proposal] the tag that is proposed
 * @property {string} [doubt] why its probability is low
 * @property {number} [ratio] width by height
 * @property {number[] | null} [box] the part that was found: left, top, width and height, shares of the picture's sides
 */

/**
 * Pictures below one heading.
 *
 * @typedef {{ key: string, title: string, note: string, tiles: Tile[], more: boolean }} Section
 */

/** @typedef {import("./screen.js").Answer & { sections: Section[], empty: string }} Grid what is drawn */

/**
 * What a screen says of its pictures.
 *
 * @typedef {object} Manners
 * @property {boolean} clickSelects
 * @property {boolean} [over] whether scores and labels stand on the pictures, not below them
 * @property {(tile: Tile) => void} [open] what a click does where it doesn't select
 * @property {(tile: Tile) => string} [source] the address of the picture, where it isn't that of the thumbnail
 * @property {(tile: Tile) => void} look looks at it closely
 * @property {(tile: Tile) => HTMLElement} [tools] buttons on a picture
 * @property {(tile: Tile) => boolean} [cutsOff] whether it is left out of sight
 * @property {(section: Section) => void} more fetches further ones
 */

const NARROWEST = 0.4; // width by height, of a tile
const WIDEST = 3;
const DOUBLE = 250; // milliseconds in which a second click makes a double click of the first

export class Tiles {
  /**
   * @param {import("./screen.js").Screen<any>} screen whose value is a Grid
   * @param {import("./selection.js").Selection} selection
   * @param {Manners} manners
   */
  constructor(screen, selection, manners) {
    this.screen = screen;
    this.board = screen.board;
    this.selection = selection;
    this.manners = manners;
    /** @type {Map<string, { wanted: string, node: HTMLElement }>} from one drawing to the next: pictures don't flicker */
    this.kept = new Map();
    this.opening = 0; // the timer of a click that may become a double click
    selection.follow(() => this.mark());
    this.board.addEventListener("keydown", (event) => this.onKey(event));
    // A button answers Space when it is let go: without this the picture would be searched for as well.
    this.board.addEventListener("keyup", (event) => {
      if (event.key === " " && source(event).closest(".picture")) event.preventDefault();
    });
  }

  /** @returns {Section[]} */
  get sections() {
    return this.screen.value.sections;
  }

  // Selecting ---------------------------------------------------------------------------------------------------------

  pictures() {
    const found = this.board.querySelectorAll(".tile:not([hidden]) .picture");
    return [.../** @type {NodeListOf<HTMLElement>} */ (found)];
  }

  /**
   * @param {HTMLElement} picture
   * @param {MouseEvent | KeyboardEvent} [event]
   */
  toggle(picture, event) {
    const { selection } = this;
    const id = imageOf(picture);
    const all = this.pictures();
    const from = all.findIndex((other) => imageOf(other) === selection.anchor);
    if (event?.shiftKey && from >= 0) {
      const to = all.indexOf(picture);
      for (const other of all.slice(Math.min(from, to), Math.max(from, to) + 1)) selection.put(imageOf(other), true);
    } else {
      selection.put(id, !selection.has(id));
      selection.anchor = id;
    }
    selection.changed();
  }

  /** @param {Section} section */
  chooseAll(section) {
    const ids = this.seen(section).map((tile) => tile.id);
    const every = ids.every((id) => this.selection.has(id));
    for (const id of ids) this.selection.put(id, !every);
    this.selection.changed();
  }

  /**
   * Those that are not left out of sight.
   *
   * @param {Section} section
   */
  seen(section) {
    return section.tiles.filter((tile) => !this.manners.cutsOff?.(tile));
  }

  /** Shows the selection without drawing everything again. */
  mark() {
    for (const tile of this.board.querySelectorAll(".tile")) {
      const on = this.selection.has(imageOf(/** @type {HTMLElement} */ (tile)));
      tile.classList.toggle("chosen", on);
      one(tile, ".tick").setAttribute("aria-checked", String(on));
    }
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  draw() {
    const here = new Set(this.sections.flatMap((section) => section.tiles.map((tile) => tile.id)));
    for (const id of [...this.selection.ids]) if (!here.has(id)) this.selection.put(id, false);
    const focused = document.activeElement;
    const back = focused instanceof HTMLElement && this.board.contains(focused) ? focused.dataset.image : undefined;
    this.drawSections();
    this.selection.changed();
    if (back) {
      const again = this.board.querySelector(`.picture[data-image="${Number(back)}"]`) || this.pictures()[0];
      if (again instanceof HTMLElement) again.focus({ preventScroll: true });
    }
  }

  /**
   * The element of a picture; another only when there is something else to show.
   *
   * @param {Section} section
   * @param {Tile} tile
   */
  nodeOf(section, tile) {
    const key = keyOf(section, tile);
    const wanted = JSON.stringify(tile);
    let entry = this.kept.get(key);
    if (!entry || entry.wanted !== wanted) {
      entry = { wanted, node: this.drawTile(tile) };
      this.kept.set(key, entry);
    }
    return entry.node;
  }

  /**
   * The elements of pictures, with the headings between them.
   *
   * @param {Section} section
   * @param {Tile[]} tiles
   */
  nodesOf(section, tiles) {
    return tiles.flatMap((tile) => {
      const heading = tile.heading ? [make("li", { class: "heading" }, make("h3", {}, tile.heading))] : [];
      return [...heading, this.nodeOf(section, tile)];
    });
  }

  drawSections() {
    const drawn = this.sections.map((section) => this.drawSection(section));
    const used = new Set(this.sections.flatMap((section) => section.tiles.map((tile) => keyOf(section, tile))));
    for (const key of this.kept.keys()) if (!used.has(key)) this.kept.delete(key);
    const empty = this.screen.value.empty ? [make("p", { class: "empty" }, this.screen.value.empty)] : [];
    this.screen.parts.main.replaceChildren(...drawn, ...empty);
    this.pictures().forEach((picture, position) => {
      picture.setAttribute("tabindex", position ? "-1" : "0");
    });
  }

  /** @param {Section} section */
  drawSection(section) {
    const { title, note, tiles, more } = section;
    const nodes = this.nodesOf(section, tiles);
    return make(
      "section",
      { "aria-label": title },
      make(
        "header",
        {},
        make("h2", {}, title),
        make("span", { class: "note" }, note),
        tiles.length ? button(drawAll(tiles.length), () => this.chooseAll(section), { class: "link every" }) : null,
      ),
      tiles.length ? make("ul", { class: "tiles" }, nodes) : make("p", { class: "nothing" }, "None."),
      more ? button("Show more", () => this.manners.more(section), { class: "plain more" }) : null,
    );
  }

  /** @param {Tile} tile */
  drawTile(tile) {
    const guess = tile.guess && !tile.label ? tile.guess : null;
    const picture = this.drawPicture(tile, guess);
    const tick = make("button", {
      type: "button",
      class: "tick",
      role: "checkbox",
      "aria-checked": "false",
      "aria-label": `Select ${tile.name}`,
      tabindex: "-1",
      onclick: (event) => this.toggle(picture, event),
    });
    const badge = tile.label ? make("span", { class: "badge", title: `Labelled ${tile.label}` }, tile.label) : null;
    const score = tile.score ? make("span", { class: `score ${tile.band || ""}` }, tile.score) : null;
    const name = make("span", { class: "name", title: tile.path }, guess || tile.name);
    const tools = this.manners.tools?.(tile);
    const attributes = { class: "tile", "data-image": tile.id, style: `--ratio: ${shapeOf(tile)}` };
    if (this.manners.over) {
      const marks = make("div", { class: "marks" }, drawBand(tile), score, badge);
      return make(
        "li",
        attributes,
        make("div", { class: "frame" }, picture, marks, tick, tools),
        make("div", { class: "caption" }, name),
      );
    }
    return make(
      "li",
      attributes,
      make("div", { class: "frame" }, picture, tick, tools, badge),
      make("div", { class: "caption" }, name, score),
      tile.doubt ? make("div", { class: "doubtful" }, tile.doubt) : null,
    );
  }

  /**
   * @param {Tile} tile
   * @param {string | null} guess
   */
  drawPicture(tile, guess) {
    const spoken = [
      tile.name,
      tile.bandName ? `${tile.bandName}, similarity ${tile.score}` : null,
      guess ? `probably ${guess}, ${tile.score}` : null,
      tile.proposal ? `probably tagged ${[tile.proposal, tile.score].filter(Boolean).join(", ")}` : null,
      tile.label ? `labelled ${tile.label}` : null,
      tile.box ? "found by the framed part" : null,
    ];
    const image = make("img", {
      src: this.manners.source?.(tile) ?? tile.src,
      alt: spoken.filter(Boolean).join(", "),
      loading: "lazy",
      decoding: "async",
      draggable: "false",
    });
    orSentence(image);
    const title = [tile.path, tile.hint].filter(Boolean).join("\n");
    return make(
      "button",
      {
        type: "button",
        class: "picture",
        "data-image": tile.id,
        title,
        onclick: (event) => {
          const { clickSelects, open } = this.manners;
          const keys = event.shiftKey || event.ctrlKey || event.metaKey;
          if (this.selection.size > 0 || keys || clickSelects) this.toggle(event.currentTarget, event);
          else if (event.detail < 2 && open) {
            // Of a double click, the first click is no search of its own.
            clearTimeout(this.opening);
            this.opening = setTimeout(() => open(tile), event.detail ? DOUBLE : 0);
          }
        },
        ondblclick: () => {
          clearTimeout(this.opening);
          this.manners.look(tile);
        },
      },
      image,
      drawPart(tile),
    );
  }

  // Keyboard ----------------------------------------------------------------------------------------------------------

  /**
   * Moves the focus to the picture that a key leads to.
   *
   * @param {HTMLElement} picture where it is
   * @param {string} key
   */
  move(picture, key) {
    const all = this.pictures();
    const here = all.indexOf(picture);
    let to = here;
    if (key === "ArrowLeft") to = here - 1;
    else if (key === "ArrowRight") to = here + 1;
    else if (key === "Home") to = 0;
    else if (key === "End") to = all.length - 1;
    else {
      const beyond = nextRow(all, picture, key === "ArrowDown");
      if (beyond === null) return;
      to = beyond;
    }
    const next = all[Math.max(0, Math.min(all.length - 1, to))];
    for (const other of all) other.setAttribute("tabindex", other === next ? "0" : "-1");
    next.focus();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const picture = source(event).closest(".picture");
    if (!(picture instanceof HTMLElement)) return;
    const held = event.ctrlKey || event.metaKey || event.altKey;
    const at = this.sections.flatMap((section) => section.tiles).find((tile) => tile.id === imageOf(picture));
    if (event.key === " ") {
      event.preventDefault();
      this.toggle(picture, event);
    } else if (event.key === "Enter" && !held && at) {
      event.preventDefault();
      this.manners.look(at);
    } else if (/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key)) {
      event.preventDefault();
      if (event.shiftKey && this.selection.anchor === null) this.toggle(picture);
      this.move(picture, event.key);
      if (event.shiftKey && document.activeElement instanceof HTMLElement) this.toggle(document.activeElement, event);
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      for (const other of this.pictures()) this.selection.put(imageOf(other), true);
      this.selection.changed();
    }
  }
}

/**
 * How wide a tile is, by its height: very long pictures are cut a little, or they would be a line.
 *
 * @param {Tile} tile
 */
function shapeOf({ ratio }) {
  return Math.max(NARROWEST, Math.min(WIDEST, ratio || 1));
}

/** @param {Tile} tile */
function drawBand({ band, bandName, chance }) {
  if (!bandName) return null;
  return make(
    "span",
    { class: `band ${band}` },
    bandName,
    chance ? make("span", { class: "chance" }, `\u00a0· ${chance}`) : null,
  );
}

/**
 * A button on a picture; the keyboard has keys for what it does.
 *
 * @param {Tile} tile
 * @param {string} text
 * @param {string} name
 * @param {() => void} onclick
 * @param {"sign" | ""} kind a sign is left out where there is no room for it
 */
export function drawTool(tile, text, name, onclick, kind = "") {
  const attributes = { type: "button", class: kind, tabindex: "-1", title: name, onclick };
  return make("button", { ...attributes, "aria-label": `${name}: ${tile.name}` }, text);
}

/** @param {HTMLElement} node */
export function imageOf(node) {
  return Number(node.dataset.image);
}

/**
 * A frame around the part that was found, to be laid over the picture: an image of the same shape, which whatever fits
 * the picture into its place fits as well.
 *
 * @param {Tile} tile
 */
export function drawPart({ box, ratio }) {
  if (!box || !ratio) return null;
  const [width, height] = [Math.round(1000 * ratio), 1000];
  const thick = Math.max(width, height) / 60;
  const [x, y, across, down] = [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
  const frame = (/** @type {string} */ colour, /** @type {number} */ stroke) =>
    `<rect x="${x + thick / 2}" y="${y + thick / 2}" width="${Math.max(1, across - thick)}" ` +
    `height="${Math.max(1, down - thick)}" fill="none" stroke="${colour}" stroke-width="${stroke}"/>`;
  const drawn =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `${frame("black", thick)}${frame("white", thick / 2)}</svg>`;
  return make("img", {
    class: "part",
    src: `data:image/svg+xml,${encodeURIComponent(drawn)}`,
    alt: "",
    draggable: "false",
  });
}

/**
 * Puts a sentence in the place of a picture that can't be shown.
 *
 * @param {HTMLImageElement} image
 */
export function orSentence(image) {
  image.addEventListener("error", () => {
    image.replaceWith(make("span", { class: "missing" }, "This picture can't be shown"));
  });
}

/**
 * @param {Section} section
 * @param {Tile} tile
 */
function keyOf(section, tile) {
  return `${section.key}\n${tile.id}`;
}

/**
 * The place of the nearest picture in the row above or below: rows differ in length where one class ends.
 *
 * @param {HTMLElement[]} all
 * @param {HTMLElement} picture
 * @param {boolean} down
 */
function nextRow(all, picture, down) {
  const box = picture.getBoundingClientRect();
  const rows = all
    .map((other, index) => ({ index, at: other.getBoundingClientRect() }))
    .filter(({ at }) => (down ? at.top > box.top + 4 : at.top < box.top - 4));
  if (!rows.length) return null;
  const tops = rows.map(({ at }) => at.top);
  const top = down ? Math.min(...tops) : Math.max(...tops);
  const far = (/** @type {{ at: DOMRect }} */ { at }) => Math.abs(at.left - box.left);
  const row = rows.filter(({ at }) => Math.abs(at.top - top) < 4);
  return row.reduce((best, other) => (far(other) < far(best) ? other : best)).index;
}
