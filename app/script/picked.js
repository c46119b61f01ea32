// The selected pictures of the map, in a strip below it; and what is known of single pictures.

import { button, make } from "./elements.js";
import { SubsetMenu } from "./subset-menu.js";

/** @typedef {import("./tiles.js").Tile} Tile */

const REMEMBERED = 4000; // tiles
const FIRST = 24; // shown, before the server has said how many

export class Picked {
  /**
   * @param {import("./screen.js").Screen<import("./map.js").Answer>} screen
   * @param {import("./selection.js").Selection} selection
   * @param {import("./labels.js").LabelBar} bar
   */
  constructor(screen, selection, bar) {
    this.screen = screen;
    this.selection = selection;
    this.bar = bar;
    this.list = make("div", { class: "picked" });
    this.taking = new SubsetMenu(selection, (n, by, images) => screen.act({ do: "subset", n, by, images }));
    /** @type {Map<number, Tile>} by id */
    this.known = new Map();
    selection.follow(() => this.draw());
  }

  /**
   * Asks for what is shown of pictures.
   *
   * @param {number[]} images
   * @throws {Error} there was no answer
   */
  async fetch(images) {
    for (const tile of (await this.screen.channel.ask("pictures", { images })).tiles) this.known.set(tile.id, tile);
  }

  async draw() {
    const { screen, selection, known } = this;
    const wanted = [...selection.ids].slice(0, screen.answered ? screen.value.most : FIRST);
    const missing = wanted.filter((id) => !known.has(id));
    if (missing.length) {
      try {
        await this.fetch(missing);
      } catch (error) {
        return screen.complain(error instanceof Error ? error.message : String(error));
      }
    }
    if (known.size > REMEMBERED) known.clear();
    const tiles = wanted.flatMap((id) => (selection.has(id) ? (known.get(id) ?? []) : []));
    if (screen.answered) screen.value.sections = [{ tiles }]; // where the bar that labels looks for what is selected
    this.list.replaceChildren(...(selection.size ? this.drawSelected(tiles) : []));
    this.bar.draw();
  }

  /** @param {Tile[]} tiles those that are shown */
  drawSelected(tiles) {
    const { selection, screen } = this;
    const { size } = selection;
    return [
      make(
        "header",
        {},
        make("h2", {}, size === 1 ? "1 picture selected" : `${size.toLocaleString("en")} pictures selected`),
        size > tiles.length ? make("span", { class: "note" }, `the first ${tiles.length} shown`) : null,
        button("Search with these", () => screen.act({ do: "search", images: [...selection.ids] }), {
          class: "main",
        }),
        button("Clear", () => selection.clear()),
        size > 2 && screen.answered ? this.taking.draw(screen.value.subset) : null,
      ),
      make(
        "ul",
        { class: "strip" },
        tiles.map((tile) => this.drawTile(tile)),
      ),
    ];
  }

  /** @param {Tile} tile */
  drawTile(tile) {
    const takeOut = () => {
      this.selection.put(tile.id, false);
      this.selection.changed();
    };
    return make(
      "li",
      {},
      make(
        "button",
        {
          type: "button",
          class: "picture",
          "data-image": tile.id,
          title: `${tile.path}\nRemove it from the selection`,
          "aria-label": `${tile.name}: remove it from the selection`,
          onclick: takeOut,
        },
        make("img", { src: tile.src, alt: "", loading: "lazy", decoding: "async" }),
      ),
      make("span", { class: "name" }, tile.name),
      tile.label ? make("span", { class: "badge" }, tile.label) : null,
    );
  }
}
