// The bar of the screen "Label": how right the proposals are, in one large number, and what to do next. A bar for each
// class and what explains the number unfold below it.

import { button, make } from "./elements.js";
import { keep, recall } from "./remembered.js";

/** @typedef {import("./label.js").Answer} Answer */

export class LabelPanel {
  /**
   * @param {import("./screen.js").Screen<Answer> & { drawHead: () => void }} screen
   * @param {import("./keys.js").KeySheet} keys
   */
  constructor(screen, keys) {
    this.screen = screen;
    this.keys = keys;
    this.exporting = make("details", { class: "menu" });
    /** @type {string | null} the class that somebody wants to see, in the view by class */
    this.sought = null;
    this.explained = recall("explained") === "yes";
  }

  get value() {
    return this.screen.value;
  }

  draw() {
    const { value } = this;
    return make(
      "div",
      { class: value.advice.here ? "ask here" : "ask" },
      this.drawEstimate(),
      this.drawAdvice(),
      make(
        "div",
        { class: "buttons" },
        this.drawNext(),
        value.summary.length ? this.drawUnfold() : null,
        value.exports.length ? this.drawExports() : null,
        this.keys.node,
      ),
      value.summary.length && this.explained ? this.drawExplained() : null,
    );
  }

  drawEstimate() {
    const { estimate } = this.value;
    if (!estimate) return null;
    const { share, interval, about, why, strange } = estimate;
    const many = `${strange.toLocaleString("en")} unlike all labelled`;
    const go = () => this.screen.act({ do: "view", view: "strange" });
    return make(
      "div",
      { class: "estimate", role: "group", "aria-label": "Estimated accuracy" },
      make("strong", { class: "large" }, share ?? "?"),
      make(
        "div",
        { class: "beside" },
        make("span", {}, share ? about : "accuracy not known yet"),
        make("span", { class: "note" }, share ? interval : why),
        strange
          ? button(many, go, {
              class: "link",
              title: "List the pictures that are unlike every labelled one. The accuracy says nothing about them",
            })
          : null,
      ),
    );
  }

  drawAdvice() {
    const { advice } = this.value;
    return make("div", { class: "words" }, make("strong", {}, advice.text), make("span", {}, advice.why));
  }

  drawNext() {
    const { advice } = this.value;
    const { screen } = this;
    if (advice.question === "kinds") {
      return [
        button("Yes, every kind", () => screen.act({ do: "kinds", all: true }), { class: "main" }),
        button("No, or not sure", () => screen.act({ do: "kinds", all: false })),
      ];
    }
    const go = () => screen.act({ do: "view", view: advice.view });
    return advice.here ? null : button(`Go to: ${advice.name}`, go, { class: "main" });
  }

  drawExports() {
    const { exports, download } = this.value;
    const choices = exports.map((entry) =>
      button(entry.name, () => this.screen.act({ do: "export", format: entry.key }), {
        class: "choice",
        disabled: !entry.ready,
        title: entry.ready ? "" : "Needs two labelled classes",
      }),
    );
    if (download) this.exporting.open = false;
    this.exporting.replaceChildren(
      make("summary", { class: "plain" }, "Export"),
      make("div", { class: "choices" }, choices),
    );
    return this.exporting;
  }

  /** Of each class how many pictures are labelled and proposed; all bars are to one scale. */
  drawShares() {
    const { shares, none } = this.value;
    const most = Math.max(1, ...shares.map((each) => each.labelled + each.proposed));
    const part = (/** @type {string} */ kind, /** @type {number} */ count) =>
      make("span", { class: kind, style: `width: ${(100 * count) / most}%` });
    const seek = (/** @type {string} */ name) => {
      this.sought = name;
      this.screen.act({ do: "view", view: "class" });
    };
    const bars = shares.map(({ name, labelled, proposed, expect, too_many }) =>
      make(
        "li",
        {
          title: `${name}: ${labelled.toLocaleString("en")} labelled, ${expect}`,
          class: too_many ? "too-many" : null,
        },
        make("button", { type: "button", class: "name", onclick: () => seek(name) }, name),
        make("span", { class: "count" }, `${labelled.toLocaleString("en")} labelled`),
        make("div", { class: "bar-of", "aria-hidden": "true" }, part("labelled", labelled), part("proposed", proposed)),
        make("span", { class: "expect" }, too_many ? "⚠ " : "", expect),
      ),
    );
    const rest = none.count
      ? make("li", {}, make("span", { class: "name" }, none.name), make("span", { class: "count" }, String(none.count)))
      : null;
    return make("ul", { class: "shares", "aria-label": "Labelled and proposed pictures of each class" }, bars, rest);
  }

  /** The button that unfolds the classes, which warns of those that are proposed too often. */
  drawUnfold() {
    const many = this.value.shares.filter((each) => each.too_many).length;
    const warning = many === 1 ? "A class is proposed too often" : `${many} classes are proposed too often`;
    const unfold = () => {
      this.explained = !this.explained;
      keep("explained", this.explained ? "yes" : "no");
      this.screen.drawHead();
      const drawn = this.screen.board.querySelector(".unfold");
      if (drawn instanceof HTMLElement) drawn.focus({ preventScroll: true });
    };
    return button([many ? "⚠ " : "", "Classes"], unfold, {
      class: "plain unfold",
      "aria-expanded": String(this.explained),
      title: many ? warning : "Labelled and proposed pictures of each class, and how the accuracy was measured",
    });
  }

  drawExplained() {
    const { shares, summary, methods } = this.value;
    return make(
      "div",
      { class: "explained" },
      shares.length ? this.drawShares() : null,
      [...summary, methods].filter(Boolean).map((line) => make("p", { class: "note" }, line)),
    );
  }

  /**
   * Brings the class that was asked for into sight, once it is drawn.
   *
   * @param {HTMLElement} main what holds the classes
   */
  show(main) {
    if (this.sought === null || this.value.view !== "class") return;
    const sections = /** @type {NodeListOf<HTMLElement>} */ (main.querySelectorAll(":scope > section"));
    const section = [...sections].find((each) => each.getAttribute("aria-label") === this.sought);
    section?.scrollIntoView({ block: "start" });
    if (section) this.sought = null;
  }
}
