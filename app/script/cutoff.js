// The cut-off of a search: the score below which nothing is shown.

import { make, one } from "./elements.js";
import { drawAll } from "./selection.js";

/**
 * A place of the slider.
 *
 * @typedef {{ score: number, above: number, chance: string }} Level the score, how many pictures have it, what to say
 */

export class CutOff {
  /**
   * @param {import("./screen.js").Screen<import("./find.js").Answer>} screen
   * @param {import("./tiles.js").Tiles} tiles
   * @param {() => void} changed told when somebody has moved it
   */
  constructor(screen, tiles, changed) {
    this.screen = screen;
    this.tiles = tiles;
    this.changed = changed;
    /** @type {number | null} everything is shown */
    this.score = null;
  }

  /** @param {import("./tiles.js").Tile} tile */
  hides(tile) {
    return this.score !== null && tile.value !== undefined && tile.value < this.score;
  }

  level() {
    const { score } = this;
    return score === null ? undefined : this.screen.value.levels.findLast((level) => level.score <= score + 1e-6);
  }

  draw() {
    const { levels } = this.screen.value;
    if (!levels.length) return "";
    const told = make("output", { class: "calm", for: "massl-cut" });
    const slider = make("input", {
      id: "massl-cut",
      type: "range",
      min: "0",
      max: String(levels.length),
      step: "1",
      "aria-label": "Show only pictures at least this similar",
    });
    const tell = () => {
      const level = levels[Number(slider.value) - 1];
      this.score = level ? level.score : null;
      const text = level
        ? `${countOf(level.above)} with a similarity of ${level.score.toFixed(2)} or more; ${level.chance}`
        : "All results are shown, the least similar last";
      told.textContent = text;
      told.classList.toggle("none", !level);
      slider.setAttribute("aria-valuetext", text);
    };
    slider.addEventListener("input", () => {
      tell();
      this.apply();
    });
    slider.addEventListener("change", () => this.changed());
    const level = this.level();
    slider.value = String(level ? levels.indexOf(level) + 1 : 0);
    tell();
    return make("div", { class: "cut" }, make("label", { for: "massl-cut" }, "Minimum similarity"), slider, told);
  }

  /** Hides what is below. Best first: what is hidden begins at one place, and ends with the last. */
  apply() {
    const { main } = this.screen.parts;
    for (const section of this.screen.value.sections) {
      for (const tile of section.tiles) this.tiles.nodeOf(section, tile).hidden = this.hides(tile);
      const seen = this.tiles.seen(section);
      main.querySelector("header .every")?.replaceChildren(...drawAll(seen.length));
      if (main.querySelector(".more")) one(main, ".more").hidden = seen.length < section.tiles.length;
      const note = main.querySelector("header .note");
      const level = this.level();
      if (note) note.textContent = level ? `${countOf(level.above)} above the minimum` : section.note;
      for (const tile of section.tiles) if (this.hides(tile)) this.tiles.selection.put(tile.id, false);
    }
    this.tiles.selection.changed();
  }
}

/** @param {number} number */
function countOf(number) {
  return number === 1 ? "1 picture" : `${number.toLocaleString("en")} pictures`;
}
