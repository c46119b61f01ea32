// The screen "Label".

import { Details } from "./details.js";
import { button, make, one, source } from "./elements.js";
import { GRID_KEYS, KeySheet, LABEL_KEYS } from "./keys.js";
import { LabelPanel } from "./label-panel.js";
import { LabelBar } from "./labels.js";
import { drawCurve } from "./learning-curve.js";
import { Rubber } from "./rubber.js";
import { Screen } from "./screen.js";
import { Selection } from "./selection.js";
import { drawTool, imageOf, Tiles } from "./tiles.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./tiles.js").Tile} Tile */
/** @typedef {import("./tiles.js").Section} Section */

/** @typedef {"groups" | "different" | "unusual" | "unsure" | "strange" | "sure" | "drawn" | "class" | "check" | "curve"} View */

/**
 * A label that looks wrong, and the labelled pictures that say so.
 *
 * @typedef {object} Suspect
 * @property {Tile} tile
 * @property {string} given its label
 * @property {string} proposed
 * @property {number} probability of the label, in percent, when it is hidden
 * @property {number} proposed_probability
 * @property {Tile[]} neighbours
 */

/**
 * How right the proposals are: as text, or why that isn't known.
 *
 * @typedef {object} Estimate
 * @property {string | null} share
 * @property {string} [interval]
 * @property {string} [about] what the share is of
 * @property {string} [why]
 * @property {number} strange pictures that it says nothing about
 */

/**
 * A class, how many pictures are of it, and what to expect of the proposals.
 *
 * @typedef {{ name: string, labelled: number, proposed: number, expect: string, too_many: boolean }} Share
 */

/**
 * What Label.draw answers.
 *
 * @typedef {import("./tiles.js").Grid & import("./labels.js").Labelling & {
 *   view: View,
 *   views: { key: View, name: string, ready: boolean }[],
 *   advice: { view: View, name: string, text: string, why: string, here: boolean, question?: "kinds" },
 *   estimate: Estimate | null,
 *   shares: Share[],
 *   summary: string[],
 *   methods: string,
 *   sure: number,
 *   only: string,
 *   sorted: boolean,
 *   exports: { key: string, name: string, ready: boolean }[],
 *   sections: Section[],
 *   suspects: Suspect[],
 *   curve: import("./learning-curve.js").Curve | null,
 *   problem: string,
 *   regroup?: boolean,
 *   paging?: { accept: boolean, left: number },
 * }} Answer
 */

/** @type {import("./keys.js").Key[]} */
const KEYS = [["A", "accept the proposals"], ["R", "reject the selected proposals"], ...LABEL_KEYS, ...GRID_KEYS];

/** @extends {Screen<Answer>} */
class LabelScreen extends Screen {
  /** @param {import("./screen.js").Page} page */
  constructor(page) {
    super(page);
    this.selection = new Selection(this.board);
    this.tiles = new Tiles(this, this.selection, {
      clickSelects: true,
      look: (tile) => this.viewer.open(tile),
      tools: (tile) => this.drawTools(tile),
      more: (section) => this.act({ do: "more", section: section.key }),
    });
    this.rubber = new Rubber(this, this.selection);
    this.bar = new LabelBar(this, this.selection, {
      reply: (reply) => this.reply(reply),
      look: (tiles) => this.viewer.compare(tiles),
    });
    this.panel = new LabelPanel(this, new KeySheet(this, KEYS));
    const around = () => this.value.sections.flatMap((section) => section.tiles);
    this.details = new Details(this, { around, look: (tile) => this.viewer.open(tile) });
    this.viewer = new Viewer(this, { around, about: (tile) => this.details.open(tile) });
    this.board.addEventListener("keydown", (event) => this.onKey(event));
    /** @type {Map<string, string>} typed for groups and not given yet, by their pictures: kept over redraws */
    this.names = new Map();
    /** @type {string | undefined} the group in whose field somebody types */
    this.naming = undefined;
    /** @type {(() => void)[]} the buttons of groups, which follow the selection */
    this.counting = [];
    this.selection.follow(() => {
      for (const count of this.counting) count();
    });
  }

  /**
   * Answers the proposals on show, or of the selected pictures: they are answered as they were seen.
   *
   * @param {import("./labels.js").Reply} reply
   */
  reply(reply) {
    const { selection, value } = this;
    if (value.view === "groups" || value.view === "check" || value.view === "curve") return;
    if (value.view === "class" && !selection.size) {
      return this.complain("Select some pictures first. This view has no page to accept.");
    }
    if (reply === "reject" && !selection.size) {
      return this.complain("Select the wrong proposals first, then reject them.");
    }
    const tiles = value.sections.flatMap((section) => section.tiles);
    const meant = tiles.filter((tile) => tile.guess && !tile.label && (!selection.size || selection.has(tile.id)));
    this.act({ do: reply, seen: meant.map((tile) => [tile.id, tile.guess]) });
    selection.clear();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const picture = source(event).closest(".picture");
    if (event.key !== "i" || !(picture instanceof HTMLElement) || event.ctrlKey || event.metaKey || event.altKey)
      return;
    const tiles = this.value.sections.flatMap((section) => section.tiles);
    const tile = tiles.find((each) => each.id === imageOf(picture));
    if (tile) this.details.open(tile);
  }

  /** @param {Tile} tile */
  drawTools(tile) {
    return make(
      "div",
      { class: "tools" },
      drawTool(tile, "⤢", "Look closely (Enter, or double click)", () => this.viewer.open(tile), "sign"),
      drawTool(tile, "i", "About this picture (key i)", () => this.details.open(tile)),
    );
  }

  /** @override */
  draw() {
    this.drawHead();
    this.tiles.draw();
    this.drawMain();
    this.lookAgain();
  }

  drawHead() {
    const { value } = this;
    const { head, main } = this.parts;
    const typing = main.querySelector(".naming input:focus"); // before what it is part of is drawn anew
    this.naming = typing instanceof HTMLElement ? typing.dataset.group : undefined;
    this.board.dataset.view = value.view;
    // Held, and not taken from under the hand: drawn when it is let go.
    if (head.querySelector("input:active, button:active")) {
      document.addEventListener("pointerup", () => setTimeout(() => this.drawHead()), { once: true });
      return;
    }
    const views = value.views.map((view) =>
      button(view.name, () => this.act({ do: "view", view: view.key }), {
        class: "order",
        disabled: !view.ready,
        "aria-pressed": String(view.key === value.view),
      }),
    );
    const orders = make("div", { class: "orders", role: "group", "aria-label": "Views" }, views);
    const slides = value.sorted && (value.view === "sure" || value.view === "class");
    head.replaceChildren(
      this.panel.draw(),
      make(
        "div",
        { class: "steer" },
        orders,
        value.sorted && (value.view === "sure" || value.view === "unsure") ? this.drawOnly() : null,
        slides ? this.drawDoubt() : null,
      ),
      value.running ? drawRunning(value.running) : "",
      value.problem ? make("p", { class: "note", role: "status" }, value.problem) : "",
    );
    const pressed = views.find((each) => each.getAttribute("aria-pressed") === "true");
    if (pressed) orders.scrollLeft = pressed.offsetLeft - orders.clientWidth / 3; // in sight on a phone, too
  }

  /** The one class whose proposals are listed, or whose likeliest pictures are. */
  drawOnly() {
    const { shares, only, view } = this.value;
    const options = shares.map(({ name, proposed }) => make("option", { value: name }, `${name} (${proposed})`));
    const chooser = make(
      "select",
      {
        class: "sort",
        "aria-label": view === "sure" ? "Proposals of this class" : "Likeliest of this class",
        disabled: !shares.length,
      },
      make("option", { value: "" }, "All classes"),
      options,
    );
    chooser.value = only;
    chooser.addEventListener("change", () => this.act({ do: "only", only: chooser.value }));
    return chooser;
  }

  drawDoubt() {
    const said = make("output", {}, `${this.value.sure} %`);
    const slider = make("input", {
      type: "range",
      min: "0",
      max: "99",
      value: this.value.sure,
      "aria-label": "Minimum probability, in percent",
      oninput: () => {
        said.textContent = `${slider.value} %`;
      },
      onchange: () => {
        this.act({ do: "sure", sure: Number(slider.value) });
      },
    });
    const text = "Min. probability";
    return make("label", { class: "doubt" }, make("span", {}, text), slider, said);
  }

  drawMain() {
    const { value } = this;
    const { main } = this.parts;
    this.counting = [];
    if (value.view === "groups") this.drawNames();
    if (value.paging) main.append(this.drawPaging(value.paging));
    if (value.view === "check") main.prepend(...value.suspects.map((suspect) => this.drawSuspect(suspect)));
    if (value.curve) main.prepend(drawCurve(value.curve, value.methods));
    this.panel.show(main);
  }

  drawNames() {
    const { value } = this;
    const { main } = this.parts;
    const sections = main.querySelectorAll(":scope > section");
    value.sections.forEach((section, place) => {
      const head = one(sections[place], "header");
      head.querySelector(".link")?.remove();
      head.append(this.drawNaming(section));
    });
    const fields = /** @type {NodeListOf<HTMLInputElement>} */ (main.querySelectorAll(".naming input"));
    const field = [...fields].find((each) => each.dataset.group === this.naming);
    if (field) field.focus({ preventScroll: true });
    const names = value.classes.map((entry) => make("option", { value: entry.name }));
    main.append(make("datalist", { id: "massl-classes" }, names));
    if (!value.regroup) return;
    main.append(button("Find new groups", () => this.act({ do: "regroup" }), { class: "plain more" }));
  }

  /**
   * A name for all pictures of a group that are on show, or for those of them that are selected.
   *
   * @param {Section} section
   */
  drawNaming(section) {
    const free = section.tiles.filter((tile) => !tile.label).map((tile) => tile.id);
    const meant = () => {
      const picked = free.filter((id) => this.selection.has(id));
      return picked.length ? picked : free;
    };
    const group = section.tiles.map((tile) => tile.id).join(); // whatever its number is by now
    const field = make("input", {
      type: "text",
      list: "massl-classes",
      placeholder: "Name of this class",
      "aria-label": `Name for ${section.title}`,
      "data-group": group,
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => {
        this.names.set(group, field.value);
      },
    });
    field.value = this.names.get(group) || "";
    const name = () => {
      const given = field.value.trim();
      if (!given) this.complain("Type a name for the class first.");
      if (!given || this.bar.tooLong(given)) return field.focus({ preventScroll: true });
      this.names.delete(group);
      this.act({ do: "label", images: meant(), label: field.value });
      this.selection.clear();
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key !== "Enter") return;
      event.preventDefault();
      name();
    });
    const go = button("", name);
    const count = () => {
      const { length } = meant();
      go.textContent = length === free.length ? `Name these ${length}` : `Name the ${length} selected`;
    };
    count();
    this.counting.push(count);
    return make("div", { class: "naming" }, field, go);
  }

  /** @param {{ accept: boolean, left: number }} paging */
  drawPaging({ accept, left }) {
    const content = ["Accept this page ", make("kbd", {}, "A")];
    return make(
      "div",
      { class: "paging" },
      accept ? button(content, () => this.reply("accept"), { class: "main" }) : null,
      button("Skip this page", () => this.act({ do: "next" })),
      make("span", { class: "note" }, `${left.toLocaleString("en")} unlabelled`),
    );
  }

  /** @param {Suspect} suspect */
  drawSuspect({ tile, given, proposed, probability, proposed_probability, neighbours }) {
    const note =
      `Predicted from the other labels: ${given} ${probability} %, ${proposed} ${proposed_probability} %. ` +
      `The nearest pictures labelled “${proposed}”:`;
    const change = { do: "label", images: [tile.id], label: proposed };
    return make(
      "article",
      { class: "suspect", "aria-label": `Is ${tile.name} really ${given}?` },
      drawFigure(tile, tile.name, () => this.viewer.compare([tile])),
      make(
        "div",
        { class: "evidence" },
        make("strong", {}, `Labelled “${given}”, looks like “${proposed}”`),
        make("span", { class: "note" }, note),
        make(
          "div",
          { class: "near" },
          neighbours.map((near) => drawFigure(near, near.score, () => this.viewer.compare([tile, near]))),
        ),
        make(
          "div",
          { class: "buttons" },
          button(`Change to “${proposed}”`, () => this.act(change)),
          button(`Keep “${given}”`, () => this.act({ do: "keep", images: [tile.id] })),
        ),
      ),
    );
  }
}

/** @param {import("./screen.js").Running} running */
function drawRunning({ step, done, total }) {
  return make(
    "div",
    { class: "pending", role: "status" },
    make("progress", total ? { max: total, value: done } : {}),
    make("span", {}, total ? `${step}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : `${step} …`),
  );
}

/**
 * @param {Tile} tile
 * @param {string | undefined} text
 * @param {() => void} look looks at it closely
 */
function drawFigure(tile, text, look) {
  const image = make("img", { src: tile.src, alt: tile.name, title: tile.path, loading: "lazy" });
  const closely = { type: "button", "aria-label": `Look closely at ${tile.path}`, onclick: look };
  return make("figure", {}, make("button", closely, image), make("figcaption", {}, text));
}

/** @type {import("./screen.js").Open} */
export function open(page) {
  new LabelScreen(page).start();
}
