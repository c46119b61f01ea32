// The filters of a search: labels, folders and days.

import { button, make, source } from "./elements.js";

/** @typedef {import("./question.js").Filters} Filters */

/** @typedef {{ value: string, text: string }} Entry one that can be chosen, and what it is called */

/** @typedef {"labels" | "folders"} Key of the filters that are chosen from a list */

/**
 * What there is to choose from.
 *
 * @typedef {object} Choices
 * @property {{ path: string, name: string, count: number }[]} folders
 * @property {string} first the day of the oldest picture
 * @property {string} last
 */

const LONG = 12; // entries, from which on one types to find some

export class FilterBar {
  /** @param {(changes: Partial<Filters>) => void} ask searches with other filters */
  constructor(ask) {
    this.ask = ask;
    /** @type {Key | null} the filter that the keyboard is at, which is about to be drawn anew */
    this.closed = null;
    /** @type {Partial<Record<Key, Chooser>>} kept while somebody chooses in one, whatever else is drawn anew */
    this.choosers = {};
    document.addEventListener("pointerdown", (event) => {
      const at = source(event);
      for (const { node } of Object.values(this.choosers)) if (node.open && !node.contains(at)) node.open = false;
    });
  }

  /**
   * @param {Filters} filters
   * @param {Choices} choices
   * @param {import("./labels.js").Class[]} classes
   */
  draw(filters, choices, classes) {
    const named = (/** @type {{ name: string, count: number }} */ { name, count }) => `${name} (${count})`;
    const folders = choices.folders.map((entry) => ({ value: entry.path, text: named(entry) }));
    const labels = classes.map((entry) => ({ value: entry.name, text: named(entry) }));
    const any = filters.labels.length || filters.folders.length || filters.since || filters.until;
    const none = { labels: [], folders: [], since: "", until: "" };
    return make(
      "div",
      { class: "filters", role: "group", "aria-label": "Filters" },
      folders.length ? this.chooser(["folder", "folders"], "folders", filters.folders, folders) : null,
      labels.length ? this.chooser(["label", "labels"], "labels", filters.labels, labels) : null,
      this.day("From", "since", filters, choices),
      this.day("Until", "until", filters, choices),
      any ? button("Clear filters", () => this.ask(none), { class: "link" }) : null,
    );
  }

  /** Gives the keyboard back to the filter that it was at before all was drawn anew. */
  focusAgain() {
    const chooser = this.closed ? this.choosers[this.closed] : undefined;
    if (chooser && document.activeElement === document.body) chooser.focus();
    this.closed = null;
  }

  /**
   * @param {string} name
   * @param {"since" | "until"} key
   * @param {Filters} filters
   * @param {Choices} choices
   */
  day(name, key, filters, choices) {
    const input = make("input", {
      type: "date",
      value: filters[key],
      min: choices.first,
      max: choices.last,
      "aria-label": `${name} this day, by file modification time`,
      // Of a year that is being typed every digit is told: that of 2 A.D. is not what is meant.
      onchange: () => {
        if (!input.value || input.value >= "1000") this.ask({ [key]: input.value });
      },
    });
    return make("label", { class: filters[key] ? "date set" : "date" }, name, input);
  }

  /**
   * @param {[string, string]} names what they are called, one and many
   * @param {Key} key
   * @param {string[]} current those that are chosen
   * @param {Entry[]} entries
   */
  chooser(names, key, current, entries) {
    const gone = current.filter((each) => !entries.some((entry) => entry.value === each));
    const all = [...gone.map((each) => ({ value: each, text: each })), ...entries];
    const shows = JSON.stringify([current, all]);
    const before = this.choosers[key];
    if (before && (before.node.open || before.shows === shows)) return before.node;
    const chooser = new Chooser(names[1], current, all, shows);
    chooser.onopen = () => {
      for (const other of Object.values(this.choosers)) if (other !== chooser) other.node.open = false;
    };
    chooser.onclose = () => {
      this.closed = key;
    };
    chooser.onchange = (wanted) => this.ask({ [key]: wanted });
    this.choosers[key] = chooser;
    return chooser.node;
  }
}

// Several of some: a list of boxes to tick, asked for when it is closed.
class Chooser {
  /**
   * @param {string} many what they are called
   * @param {string[]} current those that are chosen
   * @param {Entry[]} entries
   * @param {string} shows tells it from another
   */
  constructor(many, current, entries, shows) {
    this.current = current;
    this.entries = entries;
    this.shows = shows;
    this.wanted = new Set(current);
    this.onopen = () => {};
    this.onclose = () => {};
    /** @type {(wanted: string[]) => void} */
    this.onchange = () => {};
    this.list = make("ul", {});
    this.search = make("input", {
      type: "search",
      placeholder: `Search ${entries.length.toLocaleString("en")} ${many}`,
      "aria-label": `Search the ${many}`,
      oninput: () => this.narrow(),
    });
    const said = current.length === 1 ? current[0] : current.length ? `${current.length} ${many}` : `All ${many}`;
    this.node = make(
      "details",
      { class: current.length ? "choice set" : "choice", ontoggle: () => this.toggled() },
      make(
        "summary",
        { title: current.join(", ") || null, "aria-label": `Only these ${many}: ${said}` },
        make("span", {}, said),
      ),
      make(
        "div",
        { class: "panel", role: "group", "aria-label": `Only these ${many}` },
        entries.length > LONG ? this.search : null,
        this.list,
        make(
          "div",
          { class: "buttons" },
          button(`All ${many}`, () => {
            this.wanted.clear();
            this.close();
          }),
          button("Show", () => this.close(), { class: "main" }),
        ),
      ),
    );
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && source(event).tagName === "INPUT") this.close();
      if (event.key !== "Escape" || !this.node.open) return;
      event.stopPropagation();
      this.close();
    });
  }

  focus() {
    this.node.querySelector("summary")?.focus();
  }

  close() {
    this.node.open = false;
    this.onclose();
    this.focus();
  }

  toggled() {
    const { wanted, entries } = this;
    if (this.node.open) {
      this.onopen();
      // Those that are chosen first: among hundreds they would not be found again.
      const chosen = entries.filter((entry) => wanted.has(entry.value));
      const others = entries.filter((entry) => !wanted.has(entry.value));
      this.list.replaceChildren(...[...chosen, ...others].map((entry) => this.drawEntry(entry)));
    } else if (wanted.size !== this.current.length || this.current.some((each) => !wanted.has(each))) {
      this.onchange([...wanted]);
    }
  }

  /** @param {Entry} entry */
  drawEntry(entry) {
    const tick = make("input", {
      type: "checkbox",
      checked: this.wanted.has(entry.value),
      onchange: () => {
        this.wanted[tick.checked ? "add" : "delete"](entry.value);
      },
    });
    return make("li", {}, make("label", {}, tick, make("span", {}, entry.text)));
  }

  narrow() {
    const sought = this.search.value.trim().toLowerCase();
    for (const item of /** @type {HTMLCollectionOf<HTMLElement>} */ (this.list.children)) {
      item.hidden = !item.textContent?.toLowerCase().includes(sought);
    }
  }
}
