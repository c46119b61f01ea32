// The strip above the screens: how far the index is. Asks the server often while there is something to wait for, and
// from time to time always: the index may be changed from elsewhere, and massl be stopped. Tells the screens when there
// are pictures that they don't show yet.

import { Channel, Refusal } from "./channel.js";
import { button, make, one } from "./elements.js";
import { tellIndexed } from "./indexed.js";
import { keep, recall } from "./remembered.js";

/**
 * What Progress.progress answers.
 *
 * @typedef {object} State
 * @property {string} text empty: nothing to say
 * @property {"running" | "done" | "error"} kind
 * @property {number | null} share of the work that is done, from 0 to 1
 * @property {number} indexed pictures
 * @property {string} generation of the collection
 */

/** @typedef {Pick<State, "text" | "kind"> & { share?: number | null }} Said what the strip shows of it */

const PAUSE = 1500; // milliseconds between two questions
const SELDOM = 10000; // milliseconds, when nothing is going on
const FRESH = 15000; // milliseconds between two redrawings, while pictures come in
const SILENT = 4; // questions in a row that are not answered, before the strip says so

class Strip {
  /** @param {import("./channel.js").Page} page */
  constructor(page) {
    this.channel = new Channel(page);
    this.strip = one(page.element, ".massl-progress");
    /** @type {string | null} as last heard */
    this.generation = null;
    this.indexed = 0;
    /** @type {string | null} what the server last gave to show: closed, it stays closed until there is something else */
    this.shown = null;
    this.told = 0; // when the screens were, in milliseconds
    this.running = false;
    this.timer = 0;
    this.unanswered = 0; // questions in a row
  }

  start() {
    document.addEventListener("visibilitychange", () => !document.hidden && this.look());
    this.look();
  }

  /** @param {Said} said */
  show(said) {
    const { share } = said;
    const meter =
      said.kind === "running"
        ? make("progress", { max: "1", value: share ?? null, "aria-label": "Indexing progress" })
        : button("×", () => this.show({ text: "", kind: "done" }), {
            class: "link",
            "aria-label": "Close",
            title: "Close",
          });
    this.strip.replaceChildren(...(said.text ? [make("span", {}, said.text), meter] : []));
    this.strip.className = `massl-progress ${said.kind}`;
  }

  /**
   * Shows what there is to say; of what is done, only what this browser has not been told yet.
   *
   * @param {State} state
   */
  tell(state) {
    const news = `${state.generation} ${state.text}`;
    const known = state.kind === "done" && state.text && this.shown === null && recall("told") === news;
    if (known) this.shown = `${state.kind} ${state.text}`;
    else this.showOnce(state);
    if (state.kind === "done" && state.text) keep("told", news);
  }

  /** @param {Said} said */
  showOnce(said) {
    const text = `${said.kind} ${said.text}`;
    if (said.kind !== "running" && text === this.shown) return;
    this.shown = text;
    this.show(said);
  }

  /** Asks, and again after a while. */
  async look() {
    clearTimeout(this.timer);
    const pause = !document.hidden || this.running ? await this.ask() : SELDOM;
    clearTimeout(this.timer);
    if (this.strip.isConnected) this.timer = setTimeout(() => this.look(), pause);
  }

  /** Asks once; returns after how many milliseconds to ask again. */
  async ask() {
    try {
      return this.take(await this.channel.ask("progress"));
    } catch (error) {
      if (error instanceof Refusal) {
        this.unanswered = 0;
        this.showOnce({ text: error.message, kind: "error" });
        return SELDOM;
      }
      this.unanswered += 1;
      const text = "No answer. Is massl still running? Reload the page to try again.";
      if (this.unanswered === SILENT) this.showOnce({ text, kind: "error" });
      return this.unanswered < SILENT ? PAUSE * this.unanswered : SELDOM;
    }
  }

  /** @param {State} state */
  take(state) {
    this.unanswered = 0;
    const was = this.running;
    this.running = state.kind === "running";
    this.tell(state);
    const changed = this.generation !== null && state.generation !== this.generation;
    const due = !this.running || !this.indexed || Date.now() - this.told > FRESH;
    if ((was && !this.running) || (changed && due)) {
      this.told = Date.now();
      tellIndexed();
    }
    this.generation = state.generation;
    this.indexed = state.indexed;
    return this.running ? PAUSE : SELDOM;
  }
}

/** @type {import("./screen.js").Open} */
export function open(page) {
  new Strip(page).start();
}
