// The screen "Duplicates": groups of files side by side, and what is decided about them.

import { drawCommand } from "./commands.js";
import { button, make, unbroken } from "./elements.js";
import { Screen } from "./screen.js";
import { orSentence } from "./tiles.js";
import { Viewer } from "./viewer.js";

/**
 * A file of a group.
 *
 * @typedef {object} File
 * @property {number} id
 * @property {string} src
 * @property {string} name
 * @property {string} path
 * @property {"suggested" | "chosen" | "both" | "copy"} role what is to become of it
 * @property {string} pixels
 * @property {string} bytes
 * @property {string} date
 * @property {string} note
 * @property {string[]} tags what a person is to see before anything is done, as "Mirrored"
 * @property {boolean} apart whether it may be said to be no copy
 */

/**
 * Files that show the same.
 *
 * @typedef {object} Group
 * @property {string} key
 * @property {number} image the first
 * @property {string} title
 * @property {"open" | "decided" | "kept"} kind
 * @property {File[]} files
 * @property {number} rest how many more there are
 */

/**
 * What DuplicatesScreen.draw answers.
 *
 * @typedef {import("./screen.js").Answer & {
 *   problem: string,
 *   found: boolean,
 *   stale: boolean,
 *   empty: string,
 *   summary: string[],
 *   groups: Group[],
 *   filter?: string,
 *   filters: { key: string, name: string, count: number }[],
 *   exact: number,
 *   more: boolean,
 *   plan: boolean,
 *   apply: string,
 *   undo: boolean,
 * }} Answer
 */

const ROLES = { suggested: "Suggested to keep", chosen: "Kept", both: "Kept", copy: "" };

/** @extends {Screen<Answer>} */
class DuplicatesScreen extends Screen {
  /** @param {import("./screen.js").Page} page */
  constructor(page) {
    super(page);
    this.told = make("span", { role: "status" });
    this.meter = make("progress", { max: 100 });
    const stop = button("Stop", () => this.act({ do: "stop" }));
    this.progress = make("div", { class: "progress" }, this.told, this.meter, stop);
    this.headed = ""; // what the head shows
    this.viewer = new Viewer(this, { around: () => [] });
    /** @type {Map<string, { wanted: string, node: HTMLElement }>} groups, from one drawing to the next: pictures don't
     *   flicker, and the hand stays where it is */
    this.groups = new Map();
  }

  /** @override */
  draw() {
    this.drawHead();
    this.drawGroups();
    this.parts.foot.replaceChildren(...(this.done ? [make("p", { class: "done" }, this.done)] : []));
    this.lookAgain();
  }

  /** @param {import("./screen.js").Running} running */
  drawProgress(running) {
    const share = running.total ? Math.round((100 * running.done) / running.total) : null;
    this.told.textContent = share === null ? `${running.step} …` : `${running.step}: ${share} %`;
    this.meter.setAttribute("aria-label", running.step);
    if (share === null) this.meter.removeAttribute("value");
    else this.meter.value = share;
  }

  drawHead() {
    const { running, summary, stale, problem, found, undo, filters, filter, exact, plan, apply } = this.value;
    this.parts.told.textContent = this.done;
    if (running) this.drawProgress(running);
    // Left as it is where it shows the same: a button that is replaced while it is being pressed is not pressed.
    const wanted = JSON.stringify([Boolean(running), summary, stale, problem, found, undo, filters, filter, exact]);
    if (wanted === this.headed) return;
    this.headed = wanted;
    const orders = filters.map((entry) =>
      button(`${entry.name} ${entry.count.toLocaleString("en")}`, () => this.act({ do: "filter", filter: entry.key }), {
        class: "order",
        "aria-pressed": String(entry.key === filter),
      }),
    );
    const which = make("div", { class: "orders", role: "group", "aria-label": "Which groups" }, orders);
    this.parts.head.replaceChildren(
      make(
        "div",
        { class: "ask" },
        this.drawWords(),
        orders.length ? which : null,
        this.drawButtons(),
        plan ? this.drawApply(apply) : null,
        running ? this.progress : null,
      ),
    );
  }

  drawWords() {
    const { running, summary, stale, problem } = this.value;
    const about = "Identical files and edited copies: resized, cropped, brightened, recompressed. Nothing is deleted.";
    const behind = "The index has changed since the groups were found. Search again to see all duplicates.";
    const [title, ...lines] = summary.length ? summary : ["Files that show the same picture", about];
    return make(
      "div",
      { class: "words" },
      make("strong", {}, title),
      lines.map((line) => make("span", {}, line)),
      stale && !running ? make("span", { class: "behind" }, behind) : null,
      problem ? make("span", { class: "behind" }, problem) : null,
    );
  }

  /**
   * The command that acts on the plan, below the sentence that says where to run it.
   *
   * @param {string} apply
   */
  drawApply(apply) {
    const where = "Nothing is deleted here. Download the plan, then run this where the plan is:";
    return make("div", { class: "apply" }, make("span", { class: "note" }, where), drawCommand(apply));
  }

  drawButtons() {
    const { running, found, stale, undo, plan, exact } = this.value;
    const find = () => this.act({ do: "find" });
    const accept = () => this.act({ do: "exact" });
    const acceptTitle = "Keep the suggested file of each group in which all files have the same content";
    return make(
      "div",
      { class: "buttons" },
      running || (found && !stale) ? null : button(found ? "Search again" : "Find duplicates", find, { class: "main" }),
      exact
        ? button(`Accept all exact copies (${exact.toLocaleString("en")})`, accept, {
            title: acceptTitle,
            class: "main",
          })
        : null,
      undo ? button("Undo", () => this.act({ do: "undo" }), { title: "Undo the last decision" }) : null,
      plan ? button("Download the plan as CSV", () => this.act({ do: "csv" })) : null,
    );
  }

  /**
   * @param {File} file
   * @param {File} first of its group, which it is looked at beside
   */
  drawFile(file, first) {
    const image = make("img", {
      src: file.src,
      alt: file.name,
      loading: "lazy",
      decoding: "async",
      draggable: "false",
    });
    orSentence(image);
    const role = ROLES[file.role];
    const beside = file === first ? [file] : [first, file];
    const name = file === first ? `Look closely at ${file.path}` : `Look at ${file.path} beside ${first.path}`;
    const tags = file.tags.map((tag) => make("span", { class: "tag" }, tag));
    return make(
      "li",
      { class: `file ${file.role}` },
      make(
        "div",
        { class: "frame" },
        make(
          "button",
          {
            type: "button",
            class: "picture",
            title: file === first ? "Look closely" : "Side by side",
            "aria-label": name,
            onclick: () => this.viewer.compare(beside.map((each) => ({ ...each, label: null }))),
          },
          image,
        ),
        role ? make("span", { class: "role" }, role) : null,
        tags.length ? make("div", { class: "tags" }, tags) : null,
      ),
      make("div", { class: "path", title: file.path }, unbroken(file.path)),
      make(
        "div",
        { class: "facts" },
        [file.pixels, file.bytes, file.date].map((fact) => make("span", {}, fact)),
      ),
      make("div", { class: "note" }, file.note),
      make("div", { class: "decide" }, this.drawDeciding(file)),
    );
  }

  /** @param {File} file */
  drawDeciding(file) {
    return [
      file.role === "both" || file.role === "chosen"
        ? null
        : button("Keep this one", () => this.act({ do: "choose", image: file.id }), {
            class: file.role === "suggested" ? "main" : "plain",
            "aria-label": `Keep this one: ${file.path}`,
          }),
      file.apart
        ? button("Not a copy", () => this.act({ do: "apart", image: file.id }), {
            class: "plain",
            "aria-label": `Not a copy: ${file.path}`,
          })
        : null,
    ];
  }

  /** @param {Group} group */
  drawGroup({ image, title, kind, files, rest }) {
    const decide =
      kind === "open"
        ? button("Keep all", () => this.act({ do: "both", image }), { "aria-label": `Keep all: ${title}` })
        : button("Decide again", () => this.act({ do: "forget", image }));
    const more = `and ${rest.toLocaleString("en")} more, listed in the plan`;
    return make(
      "section",
      { class: `group ${sizeOf(files.length + rest)}`, "aria-label": title },
      make("header", {}, make("h2", {}, title), decide),
      make(
        "ul",
        { class: "files" },
        files.map((file) => this.drawFile(file, files[0])),
      ),
      rest ? make("p", { class: "nothing" }, more) : null,
    );
  }

  drawGroups() {
    const { groups, empty, more } = this.value;
    const next = new Map();
    for (const group of groups) {
      const wanted = JSON.stringify(group);
      const before = this.groups.get(group.key);
      next.set(group.key, before?.wanted === wanted ? before : { wanted, node: this.drawGroup(group) });
    }
    this.groups = next;
    this.parts.main.replaceChildren(
      ...[...next.values()].map((entry) => entry.node),
      ...(empty ? [make("p", { class: "empty" }, empty)] : []),
      ...(more ? [button("Show more", () => this.act({ do: "more" }), { class: "plain more" })] : []),
    );
  }
}

/**
 * How much of the width a group of so many files takes.
 *
 * @param {number} files
 */
function sizeOf(files) {
  if (files <= 2) return "pair";
  return files <= 4 ? "few" : "many";
}

/** @type {import("./screen.js").Open} */
export function open(page) {
  new DuplicatesScreen(page).start();
}
