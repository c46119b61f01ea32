// How a grid shows its pictures: how large, whole in rows or cut to squares, with or without the names of the files. The
// browser remembers it, for all grids.

import { button, make, source } from "./elements.js";
import { keep, recall } from "./remembered.js";

const LEAST = 72; // pixels of a row's height, as all that follows
const MOST = 320;
const USUAL = 112;
const SHARP = 200; // from here on a thumbnail is too small to fill it

export class GridView {
  /** @param {HTMLElement} board of the screen; it has the size as `--size`, and says the rest in its data */
  constructor(board) {
    this.board = board;
    const said = Number(recall("side"));
    this.side = said >= LEAST && said <= MOST ? said : USUAL;
    this.shown = this.kind; // of the pictures that are there
    this.squares = recall("squares") === "yes";
    this.names = recall("names") === "yes";
    this.slider = make("input", {
      type: "range",
      min: LEAST,
      max: MOST,
      step: "8",
      "aria-label": "Size of the pictures",
      title: "Size of the pictures",
      oninput: () => {
        this.side = Number(this.slider.value);
        keep("side", this.slider.value);
        this.apply();
      },
    });
    this.square = button("Squares", () => {
      this.squares = !this.squares;
      keep("squares", this.squares ? "yes" : "no");
      this.apply();
    });
    this.square.title = "Cut the pictures to squares";
    this.name = button("Names", () => {
      this.names = !this.names;
      keep("names", this.names ? "yes" : "no");
      this.apply();
    });
    this.name.title = "Show the names of the files";
    for (const each of [this.square, this.name]) each.classList.add("toggle");
    this.opener = button("View", () => this.unfold(!this.node.classList.contains("open")));
    this.opener.classList.add("toggle", "fold");
    this.opener.title = "How the pictures are shown";
    this.node = make(
      "div",
      { class: "view", role: "group", "aria-label": "How the pictures are shown" },
      this.opener,
      make("div", { class: "choices" }, this.slider, this.square, this.name),
    );
    this.unfold(false);
    document.addEventListener("pointerdown", (event) => {
      if (!this.node.contains(source(event))) this.unfold(false);
    });
    this.node.addEventListener("keydown", (event) => event.key === "Escape" && this.unfold(false));
    this.apply();
  }

  /**
   * Shows the choices below their button, which only a narrow window has.
   *
   * @param {boolean} open
   */
  unfold(open) {
    this.node.classList.toggle("open", open);
    this.opener.setAttribute("aria-expanded", String(open));
  }

  apply() {
    const { board, side, squares, names } = this;
    this.slider.value = String(side);
    this.square.setAttribute("aria-pressed", String(squares));
    this.name.setAttribute("aria-pressed", String(names));
    board.style.setProperty("--size", `${side}px`);
    board.dataset.grid = squares ? "squares" : "rows";
    board.dataset.names = names ? "on" : "off";
    if (this.kind !== this.shown) this.sharpen();
  }

  /** Which of a picture's copies is large enough. */
  get kind() {
    return this.side >= SHARP ? "preview" : "thumbnail";
  }

  /**
   * The address of a picture, as large as it is shown.
   *
   * @param {import("./tiles.js").Tile} tile
   */
  source(tile) {
    return `${this.kind}/${tile.id}`;
  }

  /** Has the pictures that are there already come as large as they are shown; those out of sight wait until near. */
  sharpen() {
    this.shown = this.kind;
    const images = /** @type {NodeListOf<HTMLImageElement>} */ (this.board.querySelectorAll(".tiles .picture img"));
    for (const image of images) {
      const wanted = image.src.replace(/(thumbnail|preview)(?=\/\d+$)/, this.shown);
      if (wanted !== image.src) image.src = wanted;
    }
  }
}
