// The bar that labels the selected pictures, and its keys.

import { button, make, source } from "./elements.js";

/** @typedef {{ name: string, count: number }} Class a class, and how many pictures have its label */

/**
 * What the bar shows, as app/screens/label_actions.py gives it.
 *
 * @typedef {import("./screen.js").Answer & {
 *   classes: Class[],
 *   none: Class,
 *   undo: string | null,
 *   sections: Pick<import("./tiles.js").Section, "tiles">[],
 * }} Labelling
 */

/** @typedef {"accept" | "reject"} Reply what is said to a proposal */

/**
 * What a screen lets the bar do beside labelling.
 *
 * @typedef {object} Uses
 * @property {(reply: Reply) => void} [reply] answers the proposals on show
 * @property {(tiles: import("./tiles.js").Tile[]) => void} [look] looks at one or two pictures closely
 */

const MAX_LABEL = 100; // characters

export class LabelBar {
  /**
   * @param {import("./screen.js").Screen<any>} screen whose value is a Labelling
   * @param {import("./selection.js").Selection} selection
   * @param {Uses} [uses]
   */
  constructor(screen, selection, { reply, look } = {}) {
    this.screen = screen;
    this.selection = selection;
    this.reply = reply;
    this.look = look;
    this.tags = ""; // those given last, which T gives again
    this.draft = ""; // the class name being typed, kept over redraws
    this.bar = make("div", { class: "bar", role: "region", "aria-label": "Label the selected pictures" });
    document.addEventListener("keydown", (event) => this.onKey(event));
    selection.follow(() => this.draw());
  }

  /** @returns {Labelling} */
  get value() {
    return this.screen.value;
  }

  /**
   * Whether a name is longer than one can be; the screen says so then. Said, not cut: what is left of a name that was
   * cut is another name.
   *
   * @param {string} name
   */
  tooLong(name) {
    const length = [...name].length;
    if (length <= MAX_LABEL) return false;
    const said = length.toLocaleString("en");
    this.screen.complain(`That name has ${said} characters; a class name can have ${MAX_LABEL}. Nothing was labelled.`);
    return true;
  }

  /** @param {string} given */
  label(given) {
    const name = given.trim();
    if (!name) return this.screen.complain("Type a name for the class first.");
    if (!this.selection.size) {
      return this.screen.complain("Select some pictures first: the circle in a picture's corner, or Space.");
    }
    if (this.tooLong(name)) return;
    this.draft = "";
    this.screen.act({ do: "label", images: [...this.selection.ids], label: name });
    this.selection.clear();
  }

  /** @param {string} given tags, with commas between */
  tag(given) {
    const tags = given.trim();
    if (!tags) return this.screen.complain("Type a tag first, or several with commas between.");
    if (!this.selection.size) return this.screen.complain("Select some pictures first.");
    this.tags = tags;
    this.draft = "";
    this.screen.act({ do: "tag", images: [...this.selection.ids], tags });
    this.selection.clear();
  }

  unlabel() {
    if (!this.selection.size) return;
    this.screen.act({ do: "unlabel", images: [...this.selection.ids] });
    this.selection.clear();
  }

  /** Stands where something is selected; else a line of it says what was done, for as long as it can be undone. */
  draw() {
    const { bar, selection, value } = this;
    if (!bar.isConnected) this.screen.parts.foot.replaceChildren(bar);
    const any = selection.size > 0;
    bar.classList.toggle("hidden", !any && !this.screen.done && !value.undo);
    bar.classList.toggle("said", !any);
    const typed = bar.querySelector("input");
    const typing = typed && document.activeElement === typed;
    const input = this.drawInput();
    this.screen.parts.told.textContent = any ? selection.said : this.screen.done;
    bar.replaceChildren(
      this.drawState(),
      make(
        "div",
        { class: "classes" },
        value.classes.map((entry, position) => this.drawClass(entry, position < 9 ? String(position + 1) : null)),
        value.classes.length ? this.drawClass(value.none, "0") : null,
      ),
      make("div", { class: "give" }, any ? this.drawGiving(input) : null),
    );
    if (typing && any) input.focus();
  }

  /** @param {HTMLInputElement} input */
  drawGiving(input) {
    const { selection, value, look } = this;
    const tiles = value.sections.flatMap((section) => section.tiles).filter((tile) => selection.has(tile.id));
    const guessed = tiles.some((tile) => tile.proposal || (tile.guess && !tile.label));
    const reply = guessed ? this.reply : undefined;
    const closely = selection.size === tiles.length && tiles.length < 3 ? look : undefined;
    return [
      reply ? button(["Accept ", make("kbd", {}, "A")], () => reply("accept"), { class: "main" }) : null,
      reply ? button(["Reject ", make("kbd", {}, "R")], () => reply("reject")) : null,
      closely ? button(tiles.length > 1 ? "Side by side" : "Look closely", () => closely(tiles)) : null,
      input,
      button("Label", () => this.label(input.value), { class: guessed ? "plain" : "main" }),
      button(["Tag ", make("kbd", {}, "T")], () => this.tag(input.value || this.tags), {
        title: this.tags ? `Tag as typed, or “${this.tags}” again` : "Give what is typed as tags, with commas between",
      }),
      tiles.some((tile) => tile.label) ? button("Remove label", () => this.unlabel()) : null,
    ];
  }

  drawState() {
    const { selection, value } = this;
    return make(
      "div",
      { class: "state" },
      selection.size
        ? [make("strong", {}, selection.said), button("Clear", () => this.selection.clear(), { class: "link" })]
        : make("span", {}, this.screen.done || (value.undo && `Last step: ${value.undo}`)),
      value.undo
        ? button("Undo", () => this.screen.act({ do: "undo" }), { class: "link", title: `Undo: ${value.undo}` })
        : null,
    );
  }

  drawInput() {
    const input = make("input", {
      type: "text",
      placeholder: "Class or tags",
      "aria-label": "Name of a class for the selected pictures, or tags with commas between",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => {
        this.draft = input.value;
      },
    });
    input.value = this.draft;
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.label(input.value);
      } else if (event.key === "Escape") input.blur();
      event.stopPropagation();
    });
    return input;
  }

  /**
   * @param {Class} entry
   * @param {string | null} key that gives it to the selected pictures
   */
  drawClass(entry, key) {
    const does = `Label the selected pictures “${entry.name}”`;
    return make(
      "button",
      {
        type: "button",
        class: `class${key === "0" ? " none" : ""}`,
        disabled: !this.selection.size,
        title: key ? `${does} (key ${key})` : does,
        onclick: () => this.label(entry.name),
      },
      key ? make("kbd", {}, key) : null,
      make("span", { class: "name" }, entry.name),
      make("span", { class: "count" }, String(entry.count)),
    );
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const { screen, selection, reply } = this;
    if (!screen.visible() || !screen.answered || /^(INPUT|TEXTAREA|SELECT)$/.test(source(event).tagName)) return;
    if (document.querySelector("dialog[open]")) return; // its keys are its own
    const held = event.ctrlKey || event.metaKey || event.altKey;
    if (event.key === "Escape" && selection.size) selection.clear();
    else if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      screen.act({ do: "undo" });
    } else if (/^[1-9]$/.test(event.key) && selection.size && !held) {
      const entry = this.value.classes[Number(event.key) - 1];
      if (entry) this.label(entry.name);
    } else if (event.key === "0" && this.value.classes.length && selection.size && !held) {
      this.label(this.value.none.name);
    } else if (/^[tT]$/.test(event.key) && selection.size && !held) {
      event.preventDefault(); // or it would be typed
      if (this.tags) this.tag(this.tags);
      else this.bar.querySelector("input")?.focus();
    } else if (reply && /^[aArR]$/.test(event.key) && !held) {
      event.preventDefault();
      reply(event.key.toLowerCase() === "a" ? "accept" : "reject");
    } else if (reply && event.key === "Enter" && !source(event).closest("button, a, summary")) reply("accept");
  }
}
