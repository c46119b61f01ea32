// One picture looked at: what is known of it, labelled ones like it, and why it was found.

import { button, drawingOn, make, one, source, unbroken } from "./elements.js";
import { fitSheet, fitWhenLoaded, placeAt } from "./region.js";
import { drawPart } from "./tiles.js";

/** @typedef {import("./tiles.js").Tile} Tile */

/**
 * What the aside "details" answers.
 *
 * @typedef {object} Facts
 * @property {number} image
 * @property {string} name
 * @property {string} src
 * @property {[string, string][]} facts each a name and a value
 * @property {Tile[]} neighbours labelled pictures most like it
 * @property {string} [path]
 * @property {number} [ratio] width by height
 * @property {string} [trouble] what is wrong with the file
 * @property {string} [match]
 * @property {string[]} [tags]
 * @property {boolean} [why] whether there is a reason why it was found
 */

/**
 * What the aside "proposed tags" answers.
 *
 * @typedef {object} Proposed
 * @property {number} image
 * @property {{ name: string, likely: string }[]} [tags] that it probably has too, and how likely
 */

/**
 * What the aside "why" answers.
 *
 * @typedef {object} Reason
 * @property {number} image
 * @property {string} [title] what is shown; why it matched if left out
 * @property {string} [said]
 * @property {number[][]} [cosines] how bright each patch is, by rows: how alike, or how unusual
 * @property {number[]} [part] of the picture that they cover
 */

/**
 * What can be done with the picture that is looked at.
 *
 * @typedef {object} Uses
 * @property {() => Tile[]} around the pictures in sight, in their order
 * @property {(tile: Tile) => void} look looks at it closely
 * @property {() => boolean} [asked] whether there is a search to add it to
 * @property {(tile: Tile) => void} [open] searches with it
 * @property {(tile: Tile, weight: number) => void} [add] adds it to the search
 * @property {(tile: Tile) => void} [part] searches by a part of it
 */

const DIM = 225; // of 255: how dark the least alike part becomes; a colour would be lost on a picture of that colour
const CONTRAST = 0.15; // the least span of cosines: a picture that is alike all over shall look so
const HEIGHT = 64; // hundredths of the window's, of the picture

export class Details {
  /**
   * @param {import("./screen.js").Screen<any>} screen
   * @param {Uses} uses
   */
  constructor(screen, uses) {
    this.screen = screen;
    this.uses = uses;
    this.dialog = make("dialog", { class: "details", tabindex: "-1", "aria-label": "About this picture" });
    this.dialog.addEventListener("keydown", (event) => this.step(event));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    /** @type {Tile | null} that is looked at */
    this.looked = null;
    /** @type {Reason | null} */
    this.reason = null;
    /** @type {Proposed | null} */
    this.proposed = null;
    this.refused = ""; // why the last tag was not given
    this.warm = true; // whether the reason is shown on the picture
    screen.asides.details = (answer) => this.takeFacts(answer);
    screen.asides.why = (answer) => this.takeReason(answer);
    screen.asides["proposed tags"] = (answer) => this.takeProposed(answer);
  }

  /** @param {Tile} tile */
  open(tile) {
    this.looked = tile;
    this.reason = null;
    this.proposed = null;
    this.refused = "";
    this.draw(tile, { image: tile.id, name: tile.path, src: tile.src, facts: [], neighbours: [] });
    if (!this.dialog.isConnected) this.screen.board.append(this.dialog);
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.dialog.focus();
    }
    this.screen.channel.beside({ do: "details", image: tile.id });
  }

  /** @param {Facts} answer */
  takeFacts(answer) {
    const { looked, dialog } = this;
    if (!looked || answer.image !== looked.id || !dialog.open) return;
    this.draw(looked, answer);
    if (answer.why) this.screen.channel.beside({ do: "why", image: answer.image });
    if (answer.tags) this.screen.channel.beside({ do: "proposed tags", image: answer.image });
  }

  /** @param {Proposed} answer */
  takeProposed(answer) {
    if (answer.image !== this.looked?.id) return;
    this.proposed = answer;
    this.drawProposed();
  }

  /** @param {Reason} answer */
  takeReason(answer) {
    if (answer.image !== this.looked?.id) return;
    this.reason = answer;
    this.drawReason();
  }

  /**
   * Goes to the picture before or after it in the grid, by the arrow keys; looks at it closely, by Enter.
   *
   * @param {KeyboardEvent} event
   */
  step(event) {
    if (event.key === "Enter" && source(event) === this.dialog && this.looked) {
      event.preventDefault();
      return this.look(this.looked);
    }
    if (!/^Arrow(Left|Right)$/.test(event.key) || source(event).matches("input[type=text]")) return;
    const tiles = this.uses.around();
    const at = tiles.findIndex((tile) => tile.id === this.looked?.id);
    const next = tiles[at + (event.key === "ArrowLeft" ? -1 : 1)];
    if (at >= 0 && next) this.open(next);
  }

  /**
   * @param {Tile} looked
   * @param {Facts} answer
   */
  draw(looked, answer) {
    const { dialog } = this;
    const focused = dialog.contains(document.activeElement) ? document.activeElement?.textContent : null;
    dialog.replaceChildren(
      make(
        "div",
        { class: "sides" },
        make(
          "div",
          { class: "left" },
          make("div", { class: "look" }, this.drawSheet(looked, answer)),
          make("p", { class: "why", role: "status" }),
        ),
        make(
          "div",
          { class: "right" },
          make("h2", {}, answer.name),
          answer.trouble ? make("p", { class: "trouble", role: "alert" }, answer.trouble) : null,
          answer.match ? make("p", { class: "calm" }, answer.match) : null,
          answer.path ? drawPath(answer.path) : null,
          make(
            "dl",
            {},
            answer.facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, unbroken(text))]),
          ),
          this.drawTags(answer),
          this.drawButtons(looked),
          this.drawNeighbours(answer),
        ),
      ),
      make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "×"),
    );
    this.drawReason();
    this.drawProposed();
    // What had the focus is gone, perhaps while somebody was pressing it: its like takes the focus. Without a focus in
    // the dialog its keys would do nothing.
    if (!dialog.open || dialog.contains(document.activeElement)) return;
    const like = [...dialog.querySelectorAll("button")].find((one) => one.textContent === focused);
    (like || dialog).focus();
  }

  /**
   * @param {Tile} looked
   * @param {Facts} answer
   */
  drawSheet(looked, answer) {
    const image = make("img", { src: answer.src, alt: answer.name });
    const sheet = make(
      "div",
      { class: "sheet", title: "Look closely", onclick: () => this.look(looked) },
      image,
      drawPart(looked),
    );
    fitWhenLoaded(image, sheet, HEIGHT);
    image.addEventListener("error", () => image.remove()); // the small one stays, and the words beside it say why
    // The small one stands in until the large one is there.
    if (answer.src !== looked.src) sheet.style.background = `center / contain no-repeat url("${looked.src}")`;
    if (answer.ratio) fitSheet(sheet, answer.ratio, HEIGHT);
    return sheet;
  }

  /** @param {Facts} answer */
  drawTags({ image, tags }) {
    if (!tags) return null;
    const change = (/** @type {string} */ what, /** @type {string} */ named) => this.changeTags(image, what, named);
    const input = make("input", {
      type: "text",
      placeholder: "Add tags",
      "aria-label": "Tags to add, with commas between",
      autocomplete: "off",
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        event.stopPropagation();
        if (event.key === "Enter" && input.value.trim()) change("tag", input.value);
      },
    });
    const chips = tags.map((tag) =>
      make(
        "span",
        { class: "tag" },
        unbroken(tag),
        make(
          "button",
          { type: "button", "aria-label": `Remove the tag ${tag}`, onclick: () => change("untag", tag) },
          "×",
        ),
      ),
    );
    const refused = this.refused ? make("p", { class: "trouble", role: "alert" }, this.refused) : null;
    const proposed = make("div", { class: "proposed", role: "group", "aria-label": "Tags that it probably has too" });
    return [make("div", { class: "tags", role: "group", "aria-label": "Tags" }, chips, input, refused), proposed];
  }

  /**
   * Has the tags of the picture changed, then draws what is known of it now.
   *
   * @param {number} image
   * @param {string} what
   * @param {string} named
   */
  changeTags(image, what, named) {
    this.screen.afterwards = () => {
      const { message } = this.screen.value;
      this.refused = message?.kind === "error" ? message.text : "";
      this.screen.channel.beside({ do: "details", image });
    };
    this.screen.act({ do: what, images: [image], tags: named });
  }

  /** The tags that the picture probably has too, to say yes or no to. */
  drawProposed() {
    const { dialog, proposed } = this;
    const place = dialog.querySelector(".proposed");
    if (!place) return;
    const answer = (/** @type {string} */ what, /** @type {string} */ name) => () => {
      if (!proposed?.tags) return;
      this.proposed = { ...proposed, tags: proposed.tags.filter((tag) => tag.name !== name) };
      this.changeTags(proposed.image, what, name);
      this.drawProposed();
      this.dialog.focus();
    };
    const chips = (proposed?.tags ?? []).map(({ name, likely }) =>
      make(
        "span",
        { class: "tag" },
        unbroken(name),
        likely ? make("span", { class: "calm" }, ` ${likely}`) : null,
        make(
          "button",
          { type: "button", "aria-label": `Yes, ${name}`, title: "Yes", onclick: answer("accept tag", name) },
          "✓",
        ),
        make(
          "button",
          { type: "button", "aria-label": `Not ${name}`, title: "Not this one", onclick: answer("refuse tag", name) },
          "×",
        ),
      ),
    );
    place.replaceChildren(...(chips.length ? [make("span", { class: "calm" }, "Probably also"), ...chips] : []));
  }

  /** @param {Tile} looked */
  look(looked) {
    this.dialog.close();
    this.uses.look(looked);
  }

  /** @param {Tile} looked */
  drawButtons(looked) {
    const { open, add, part, asked } = this.uses;
    const leave = (/** @type {() => void} */ what) => () => {
      this.dialog.close();
      what();
    };
    const more = leave(() => open?.(looked));
    const also = add && asked?.();
    return make(
      "div",
      { class: "buttons" },
      open ? button("More like this", more, { class: "main" }) : null,
      button(["Look closely ", make("kbd", {}, "Enter")], () => this.look(looked)),
      also
        ? button(
            "+ Also like this",
            leave(() => add(looked, 1)),
          )
        : null,
      also
        ? button(
            "− Less like this",
            leave(() => add(looked, -1)),
          )
        : null,
      part
        ? button(
            "Search by a part",
            leave(() => part(looked)),
          )
        : null,
    );
  }

  /** @param {Facts} answer */
  drawNeighbours({ path, neighbours }) {
    const text = "When pictures are labelled, the most similar labelled ones appear here.";
    return [
      neighbours.length ? make("h3", {}, "Most similar labelled pictures") : null,
      make(
        "ul",
        { class: "neighbours" },
        neighbours.map((tile) =>
          make(
            "li",
            {},
            make(
              "button",
              { type: "button", title: tile.path, onclick: () => this.open(tile) },
              make("img", { src: tile.src, alt: "" }),
              make("span", { class: "name" }, tile.label || ""),
              make("span", { class: "calm" }, tile.score),
            ),
          ),
        ),
      ),
      path && !neighbours.length ? make("p", { class: "calm" }, text) : null,
    ];
  }

  drawReason() {
    const { dialog, reason } = this;
    const sheet = one(dialog, ".sheet");
    const why = one(dialog, ".why");
    for (const old of sheet.querySelectorAll("canvas")) old.remove();
    if (!reason) return why.replaceChildren();
    const shown = make("input", {
      type: "checkbox",
      checked: this.warm,
      onchange: () => {
        this.warm = shown.checked;
        this.drawReason();
        one(dialog, ".why input").focus();
      },
    });
    const title = make("label", {}, shown, make("strong", {}, reason.title || "Why it matched"));
    why.replaceChildren(...(reason.cosines ? [title] : []), make("span", { class: "calm" }, reason.said));
    if (!reason.cosines || !reason.part || !this.warm) return;
    const canvas = heatMap(reason.cosines);
    placeAt(canvas, reason.part);
    sheet.append(canvas);
  }
}

/** @param {string} text */
function drawPath(text) {
  const path = make("input", { type: "text", readonly: true, value: text, "aria-label": "Path of the file" });
  const copy = button("Copy path", async () => {
    path.select();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      document.execCommand("copy"); // without https the clipboard is closed to scripts, but not to a selection
    }
    copy.textContent = "Copied";
  });
  return make("div", { class: "path" }, path, copy);
}

/**
 * A veil that is clear where the picture is alike.
 *
 * @param {number[][]} rows the cosine of each patch
 */
function heatMap(rows) {
  const all = rows.flat();
  const highest = Math.max(...all);
  const span = Math.max(highest - Math.min(...all), CONTRAST);
  const canvas = make("canvas", { width: rows[0].length, height: rows.length, "aria-hidden": "true" });
  const context = drawingOn(canvas);
  const pixels = context.createImageData(rows[0].length, rows.length);
  all.forEach((cosine, at) => {
    pixels.data.set([2, 6, 23, DIM * ((highest - cosine) / span) ** 0.8], 4 * at);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}
