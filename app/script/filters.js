// The filters of a search: labels, tags, folders, days and what pictures bring with them, in a panel that folds away: at the side, or on a phone a sheet at
// the lower end of the window.

import { button, drawLong, make, sync } from "./elements.js";
import { keep, recall } from "./remembered.js";

/** @typedef {import("./question.js").Filters} Filters */

/** @typedef {{ value: string, text: string }} Entry one that can be chosen, and what it is called */

/** @typedef {"labels" | "folders" | "tags" | "quality hints" | "cameras"} Key what the filters are called that are chosen from a list */

/**
 * What there is to choose from.
 *
 * @typedef {object} Choices
 * @property {{ path: string, name: string, count: number }[]} folders
 * @property {string[]} quality hints of which one must be about a picture
 * @property {{ name: string, count: number }[]} tags
 * @property {{ name: string, count: number }[]} cameras
 * @property {number} stars the most that a picture has
 * @property {string[]} orientations
 * @property {string} first the day of the oldest picture
 * @property {string} last
 */

const LONG = 12; // entries, from which on one types to find some
const PHONE = "(max-width: 760px)"; // as in find.css

export class FilterPanel {
  /** @param {(changes: Partial<Filters>) => void} ask searches with other filters */
  constructor(ask) {
    this.ask = ask;
    this.folders = new Chooser("folders", (wanted) => ask({ folders: wanted }));
    this.labels = new Chooser("labels", (wanted) => ask({ labels: wanted }));
    this.quality = new Chooser("quality hints", (wanted) => ask({ quality: wanted }), false);
    this.tags = new Chooser("tags", (wanted) => ask({ tags: wanted }));
    this.tagging = make(
      "select",
      { class: "sort", "aria-label": "Which of these tags" },
      make("option", { value: "all" }, "with all of these"),
      make("option", { value: "any" }, "with any of these"),
      make("option", { value: "none" }, "with none of these"),
    );
    this.tagging.addEventListener("change", () => ask({ tagging: this.tagging.value }));
    this.cameras = new Chooser("cameras", (wanted) => ask({ cameras: wanted }), false);
    this.rating = make("select", { "aria-label": "At least so many stars" });
    this.rating.addEventListener("change", () => ask({ rating: Number(this.rating.value) }));
    this.orientation = make("select", { "aria-label": "Orientation of the pictures" });
    this.orientation.addEventListener("change", () => ask({ orientation: this.orientation.value }));
    this.named = make("input", {
      type: "search",
      placeholder: "Words in the path",
      "aria-label": "Words that the path of a picture has, such as a place",
    });
    this.named.addEventListener("change", () => ask({ named: this.named.value.trim() }));
    this.moreSaid = make("span", {}, "More filters");
    this.more = make(
      "details",
      { class: "choice" },
      make("summary", {}, this.moreSaid),
      make("div", { class: "panel more" }, this.named, this.cameras.node, this.rating, this.orientation),
    );
    this.since = this.day("From", "since");
    this.until = this.day("Until", "until");
    this.days = make(
      "div",
      { class: "days", role: "group", "aria-label": "Days" },
      make("label", {}, make("span", {}, "From"), this.since),
      make("label", {}, make("span", {}, "Until"), this.until),
    );
    this.node = make("aside", { class: "filters", "aria-label": "Filters", id: "massl-filters" });
    this.sheet = false; // whether the sheet is in sight; never before somebody asks, as it lies over the pictures
    this.count = 0;
    this.counted = 0; // of these, those below "More filters"
    this.elsewhere = 0; // of these filters, those that are seen without the panel
    this.phone = matchMedia(PHONE);
    this.phone.addEventListener("change", () => this.fold());
    this.toggle = this.drawButton();
    this.head = make(
      "div",
      { class: "sheet-head" },
      make("h2", {}, "Filters"),
      this.clear(["Clear"]),
      button("Show the pictures", () => this.close(), { class: "main" }),
    );
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.phone.matches && this.sheet) this.close();
    });
  }

  /** Whether the filters are in sight: as somebody left them, and else where there are some. */
  unfolded() {
    if (this.phone.matches) return this.sheet;
    const said = recall("filters");
    return said !== null ? said === "open" : this.count > this.elsewhere;
  }

  fold() {
    const open = this.unfolded();
    this.node.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
  }

  close() {
    this.sheet = false;
    this.fold();
    this.toggle.focus({ preventScroll: true });
  }

  drawButton() {
    const change = () => {
      const open = !this.unfolded();
      if (this.phone.matches) this.sheet = open;
      else keep("filters", open ? "open" : "folded");
      this.fold();
    };
    const { count } = this;
    return button(count ? `Filters (${count})` : "Filters", change, {
      class: count ? "plain toggle set" : "plain toggle",
      "aria-controls": this.node.id,
    });
  }

  /** @param {import("./elements.js").Child[]} text */
  clear(text) {
    return button(text, () => this.ask(NONE), { class: "link clear" });
  }

  /** The button that opens and folds the panel, and the one that takes all filters away. */
  drawToggle() {
    this.toggle = this.drawButton();
    this.fold();
    const clear = this.count ? this.clear(["Clear", drawLong(" filters")]) : null;
    return make("div", { class: "narrowing" }, this.toggle, clear);
  }

  /**
   * Whether that is the button that opens the panel.
   *
   * @param {Element | null} node
   */
  toggles(node) {
    return node === this.toggle;
  }

  /**
   * @param {Filters} filters
   * @param {Choices} choices
   * @param {import("./labels.js").Class[]} classes
   * @param {boolean} settled whether nothing else was chosen meanwhile, that the server has not answered yet
   * @param {boolean} dated whether the days can be seen elsewhere, on the time line
   */
  draw(filters, choices, classes, settled, dated) {
    this.count = countOf(filters);
    this.elsewhere = dated ? this.count - countOf({ ...filters, since: "", until: "" }) : 0;
    const named = (/** @type {{ name: string, count: number }} */ { name, count }) => `${name} (${count})`;
    const folders = choices.folders.map((entry) => ({ value: entry.path, text: named(entry) }));
    const labels = classes.map((entry) => ({ value: entry.name, text: named(entry) }));
    const tags = choices.tags.map((entry) => ({ value: entry.name, text: named(entry) }));
    this.folders.update(filters.folders, folders, settled);
    this.labels.update(filters.labels, labels, settled);
    const hints = choices.quality.map((name) => ({ value: name, text: name }));
    this.quality.update(filters.quality, hints, settled);
    this.tags.update(filters.tags, tags, settled);
    this.tagging.value = filters.tagging;
    if (filters.tags.length) this.tags.panel.prepend(this.tagging);
    else this.tagging.remove();
    for (const [input, day] of /** @type {const} */ ([
      [this.since, filters.since],
      [this.until, filters.until],
    ])) {
      input.min = choices.first;
      input.max = choices.last;
      if (document.activeElement !== input) input.value = day;
      input.parentElement?.classList.toggle("set", Boolean(day));
    }
    this.drawOfPicture(filters, choices, settled);
    const lists = [
      folders.length ? this.folders.node : null,
      labels.length ? this.labels.node : null,
      tags.length ? this.tags.node : null,
      this.quality.node,
    ];
    sync(this.node, [this.head, ...lists.filter((node) => node !== null), this.days, this.more]);
  }

  /**
   * What pictures bring with them: words in the path, cameras, stars, and how they lie.
   *
   * @param {Filters} filters
   * @param {Choices} choices
   * @param {boolean} settled
   */
  drawOfPicture(filters, choices, settled) {
    const cameras = choices.cameras.map(({ name, count }) => ({ value: name, text: `${name} (${count})` }));
    this.cameras.update(filters.cameras, cameras, settled);
    if (document.activeElement !== this.named) this.named.value = filters.named;
    this.named.classList.toggle("set", Boolean(filters.named));
    const most = Math.max(choices.stars, filters.rating);
    const stars = Array.from({ length: most }, (_, place) => {
      const least = place + 1;
      return { value: String(least), text: `${"★".repeat(least)}${least < 5 ? " or more" : ""}` };
    });
    choose(this.rating, [{ value: "0", text: "Any rating" }, ...stars], String(filters.rating), "0");
    const lying = choices.orientations.map((name) => ({ value: name, text: name }));
    choose(this.orientation, [{ value: "", text: "Any orientation" }, ...lying], filters.orientation, "");
    this.cameras.node.hidden = !cameras.length && !filters.cameras.length;
    this.rating.hidden = !most;
    const { named, cameras: by, rating, orientation } = filters;
    const count = by.length + [named, rating, orientation].filter(Boolean).length;
    this.moreSaid.textContent = count ? `More filters (${count})` : "More filters";
    this.more.classList.toggle("set", count > 0);
    if (count && !this.counted) this.more.open = true; // a filter that is not seen would be puzzling
    this.counted = count;
  }

  /**
   * @param {string} name
   * @param {"since" | "until"} key
   */
  day(name, key) {
    const input = make("input", {
      type: "date",
      "aria-label": `${name} this day, when it was taken, or by file modification time where that is not known`,
      // Of a year that is being typed every digit is told: that of 2 A.D. is not what is meant.
      onchange: () => {
        if (!input.value || input.value >= "1000") this.ask({ [key]: input.value });
      },
    });
    return input;
  }
}

/**
 * How many filters there are.
 *
 * @param {Filters} filters
 */
function countOf({ labels, folders, tags, quality, cameras, ...others }) {
  const lists = labels.length + folders.length + tags.length + quality.length + cameras.length;
  const { since, until, rating, orientation, named } = others;
  return lists + [since, until, rating, orientation, named].filter(Boolean).length;
}

/**
 * Fills a list of which one is chosen.
 *
 * @param {HTMLSelectElement} select
 * @param {Entry[]} entries
 * @param {string} value the one that is
 * @param {string} any the one that filters nothing
 */
function choose(select, entries, value, any) {
  select.replaceChildren(...entries.map((entry) => make("option", { value: entry.value }, entry.text)));
  select.value = value;
  select.classList.toggle("set", value !== any);
}

/** No filter. @type {Filters} */
const NONE = {
  labels: [],
  folders: [],
  tags: [],
  tagging: "all",
  quality: [],
  cameras: [],
  rating: 0,
  orientation: "",
  named: "",
  since: "",
  until: "",
};

// Several of some: a list of boxes to tick. It stays while all else is drawn anew, and so do its place and the focus.
class Chooser {
  /**
   * @param {Key} many what they are called
   * @param {(wanted: string[]) => void} ask is told whenever others are wanted
   * @param {boolean} [open] whether it is unfolded at first
   */
  constructor(many, ask, open = true) {
    this.many = many;
    this.ask = ask;
    /** @type {Entry[]} */
    this.entries = [];
    /** @type {Set<string>} */
    this.wanted = new Set();
    this.drawn = ""; // tells the entries in the list from others
    this.list = make("ul", {});
    this.search = make("input", { type: "search", "aria-label": `Search the ${many}`, oninput: () => this.narrow() });
    this.all = button(`All ${many}`, () => this.put([]), { class: "link" });
    this.said = make("span", {});
    this.summary = make("summary", {}, this.said);
    this.panel = make("div", { class: "panel", role: "group" }, this.search, this.list);
    this.node = make("details", { class: "choice", open }, this.summary, this.panel);
    this.node.addEventListener("toggle", () => this.node.open && this.drawList());
  }

  /**
   * @param {string[]} current those that are chosen
   * @param {Entry[]} entries
   * @param {boolean} settled
   */
  update(current, entries, settled) {
    const gone = current.filter((each) => !entries.some((entry) => entry.value === each));
    this.entries = [...gone.map((each) => ({ value: each, text: each })), ...entries];
    if (settled) this.wanted = new Set(current);
    if (JSON.stringify(this.entries) !== this.drawn) this.drawList();
    else this.tick();
    this.say();
  }

  say() {
    const { many, wanted } = this;
    const [first] = wanted;
    const text = wanted.size === 1 ? first : wanted.size ? `${wanted.size} ${many}` : `All ${many}`;
    this.said.textContent = text;
    this.summary.setAttribute("aria-label", `Only these ${many}: ${text}`);
    this.summary.title = [...wanted].join(", ");
    this.panel.setAttribute("aria-label", `Only these ${many}`);
    this.node.classList.toggle("set", wanted.size > 0);
    if (wanted.size) this.panel.append(this.all);
    else this.all.remove();
  }

  /** @param {Iterable<string>} wanted */
  put(wanted) {
    this.wanted = new Set(wanted);
    this.tick();
    this.say();
    this.ask([...this.wanted]);
  }

  boxes() {
    return /** @type {NodeListOf<HTMLInputElement>} */ (this.list.querySelectorAll("input"));
  }

  tick() {
    for (const box of this.boxes()) box.checked = this.wanted.has(box.value);
  }

  drawList() {
    const { wanted, entries, list } = this;
    const at = document.activeElement;
    const focused = at instanceof HTMLInputElement && list.contains(at) ? at.value : null;
    this.drawn = JSON.stringify(entries);
    // Those that are chosen first: among hundreds they would not be found again.
    const chosen = entries.filter((entry) => wanted.has(entry.value));
    const others = entries.filter((entry) => !wanted.has(entry.value));
    list.replaceChildren(...[...chosen, ...others].map((entry) => this.drawEntry(entry)));
    this.search.placeholder = `Search ${entries.length.toLocaleString("en")} ${this.many}`;
    this.search.hidden = entries.length <= LONG;
    this.narrow();
    if (focused !== null) [...this.boxes()].find((box) => box.value === focused)?.focus({ preventScroll: true });
  }

  /** @param {Entry} entry */
  drawEntry({ value, text }) {
    const box = make("input", {
      type: "checkbox",
      value,
      checked: this.wanted.has(value),
      onchange: () => {
        this.put(box.checked ? [...this.wanted, value] : [...this.wanted].filter((each) => each !== value));
      },
    });
    return make("li", {}, make("label", { title: value }, box, make("span", {}, text)));
  }

  narrow() {
    const sought = this.search.hidden ? "" : this.search.value.trim().toLowerCase();
    for (const item of /** @type {HTMLCollectionOf<HTMLElement>} */ (this.list.children)) {
      item.hidden = !item.textContent?.toLowerCase().includes(sought);
    }
  }
}
