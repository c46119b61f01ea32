// The screen "Map": every picture a point, like ones together.

import { make } from "./elements.js";
import { KeySheet, LABEL_KEYS } from "./keys.js";
import { LabelBar } from "./labels.js";
import { bytes, MapColours } from "./map-colours.js";
import { MapTools } from "./map-tools.js";
import { Picked } from "./picked.js";
import { Plane } from "./plane.js";
import { openScreen, Screen } from "./screen.js";
import { Selection } from "./selection.js";
import { Viewer } from "./viewer.js";

/**
 * What MapScreen.draw answers; the first five are also what its function "status" does.
 *
 * @typedef {import("./labels.js").Labelling & {
 *   version: string,
 *   count: number,
 *   note: string,
 *   making: number | null,
 *   waiting: boolean,
 *   by: "label" | "folder" | "group" | "match" | "unusual",
 *   ways: { key: string, name: string }[],
 *   coloured: string,
 *   most: number,
 *   go: string,
 *   subset: { most: number, ways: string[] },
 *   chosen: number[],
 *   empty: string,
 *   match?: Match,
 * }} Answer
 */

/**
 * How alike pictures are to the search that was asked last.
 *
 * @typedef {object} Match
 * @property {string} ids 32-bit numbers, in base64; empty if nothing was asked
 * @property {string} scores bytes, in base64
 * @property {string} said
 * @property {string} [low]
 * @property {string} [high]
 */

/** @type {import("./keys.js").Key[]} */
const KEYS = [
  ["← → ↑ ↓", "move the map"],
  ["+ − 0", "closer, farther, all of it"],
  ["Space", "select the picture in the middle"],
  ["Shift+drag", "draw around pictures to select them"],
  ["Esc", "select none"],
  ...LABEL_KEYS,
];
const PAUSE = 1500; // milliseconds between two questions how far the better map is
const PASSING = 70; // milliseconds that a hand stays before it is told what it is over

/** @extends {Screen<Answer>} */
class MapScreen extends Screen {
  /** @param {import("./screen.js").Page} page */
  constructor(page) {
    super(page);
    this.selection = new Selection(this.board);
    this.plane = new Plane(this.selection.ids);
    this.selection.follow(() => this.plane.select(this.selection.ids));
    this.viewer = new Viewer(this, { around: () => [] });
    this.bar = new LabelBar(this, this.selection, { look: (tiles) => this.viewer.compare(tiles) });
    this.picked = new Picked(this, this.selection, this.bar);
    this.tools = new MapTools(this.plane, {
      colourBy: (by) => this.act({ do: "by", by }),
      chooseAll: () => this.choose(this.plane.inView(), {}),
    });
    this.tools.bar.append(new KeySheet(this, KEYS).node);
    this.colours = new MapColours(this, this.plane);
    this.version = ""; // of the points that are shown
    this.fetching = false;
    this.timer = 0; // of the next question how far the better map is; 0 for none
    /** @type {number | null} the picture that the hand is over */
    this.hovering = null;
    this.plane.onpick = (id, keys) => this.pick(id, keys);
    this.plane.onlasso = (ids, keys) => {
      this.choose(ids, { altKey: keys.altKey, shiftKey: keys.shiftKey && this.tools.lassoing });
    };
    this.plane.onhover = (id, x, y) => this.hover(id, x, y);
    const dark = new MutationObserver(() => this.answered && this.version && this.colours.draw());
    dark.observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  // Selecting ---------------------------------------------------------------------------------------------------------

  /**
   * Selects these alone; with Shift these too, with Alt all but these.
   *
   * @param {number[]} ids
   * @param {import("./plane.js").Keys} keys
   */
  choose(ids, { shiftKey, altKey }) {
    if (!shiftKey && !altKey) this.selection.ids.clear();
    for (const id of ids) this.selection.put(id, !altKey);
    this.selection.changed();
  }

  /**
   * @param {number | null} id
   * @param {import("./plane.js").Keys} keys
   */
  pick(id, keys) {
    const { selection } = this;
    if (id === null) {
      if (selection.size && !keys.shiftKey) selection.clear();
    } else if (keys.shiftKey || keys.ctrlKey || keys.metaKey) {
      selection.put(id, !selection.has(id));
      selection.changed();
    } else this.choose([id], {});
  }

  /**
   * Shows what the hand is over.
   *
   * @param {number | null} id
   * @param {number} x in pixels of the screen, from the map's corner
   * @param {number} y
   */
  async hover(id, x, y) {
    this.hovering = id;
    if (id === null) return this.tools.hideCard();
    if (!this.picked.known.has(id)) {
      await new Promise((resume) => setTimeout(resume, PASSING)); // a hand that passes by asks nothing
      if (this.hovering !== id) return;
      try {
        await this.picked.fetch([id]);
      } catch {
        return;
      }
    }
    const tile = this.picked.known.get(id);
    if (this.hovering === id && tile) this.tools.showCard(tile, x, y);
  }

  // Fetching ----------------------------------------------------------------------------------------------------------

  /** Points once a version, colours once a change of labels: neither at a click. */
  async fetchWhatChanged() {
    if (this.fetching || !this.visible()) return;
    this.fetching = true;
    try {
      if (this.value.version !== this.version) await this.fetchPoints();
      const current = await this.colours.fetch(this.version);
      if (current !== this.version) this.value.version = current; // another map meanwhile: once more, below
    } catch (error) {
      return this.complain(messageOf(error));
    } finally {
      this.fetching = false;
      this.board.dataset.version = this.version;
    }
    if (this.value.version !== this.version) this.fetchWhatChanged();
  }

  async fetchPoints() {
    const points = await this.channel.ask("points");
    const ids = new Uint32Array(bytes(points.ids).buffer);
    this.plane.points(ids, new Uint16Array(bytes(points.places).buffer));
    this.version = this.value.version = points.version;
    this.colours.forget();
    for (const id of [...this.selection.ids]) if (!this.plane.has(id)) this.selection.put(id, false);
  }

  /** Asks how far a better map is, for as long as there is one to come. */
  async follow() {
    this.timer = 0;
    if (!this.board.isConnected) return;
    if (this.visible()) {
      try {
        Object.assign(this.value, await this.channel.ask("status"));
        this.tools.tell(this.value);
        await this.fetchWhatChanged();
      } catch (error) {
        return this.complain(messageOf(error));
      }
    }
    this.followLater();
  }

  followLater() {
    if (this.value.waiting && !this.timer) this.timer = setTimeout(() => this.follow(), PAUSE);
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  /** @override */
  draw() {
    const { value, tools, picked } = this;
    if (value.go) {
      // The browser's Back leads here again, and not to what the screen Search showed before.
      history.replaceState({ ...history.state, screen: "Map" }, "");
      openScreen(value.go);
    }
    const { legend } = this.colours;
    if (!tools.stage.isConnected) {
      const about = make("div", { class: "about" }, tools.note, tools.meter);
      this.parts.main.replaceChildren(about, tools.bar, legend, tools.stage, picked.list);
    }
    for (const each of [tools.bar, legend, tools.stage]) each.classList.toggle("hidden", Boolean(value.empty));
    if (value.empty) {
      tools.note.textContent = value.empty;
      return;
    }
    tools.draw(value);
    if (value.chosen.length) {
      this.choose(value.chosen, {}); // the subset that was asked for
      value.chosen = [];
    }
    picked.known.clear(); // labels may be others now
    this.selection.changed();
    this.plane.size();
    this.fetchWhatChanged();
    this.followLater();
  }
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @type {import("./screen.js").Open} */
export function open(page) {
  new MapScreen(page).start();
}
