// A screen of the page, and what its script must provide: the counterpart of app/screens/screen.py.
//
// The script of the screen `key` is `key.js`, an ES module. It exports
//
//     export function open(page) { new ThisScreen(page).start(); }
//
// which the page calls once the screen's element is there (see app/scripts.py); `page` is the Page of channel.js. A
// screen that is mounted again is opened again, and several screens share their modules: so state lives in objects that
// `open` makes, never in a module.
//
// ThisScreen extends Screen and provides
//
// - draw(): draws `this.value`, what the screen's Python `draw` returned, into `this.parts`;
// - `this.asides[name]`, for each aside of the Python: takes its answer, which leaves the screen as it is.
//
// What a person does goes to the server as `this.act({ do: NAME, … })`, NAME being one of the screen's Python `actions`;
// an aside is asked for by `this.channel.beside({ do: NAME, … })`, and one of its Python `functions` by
// `this.channel.ask(NAME, value)`.

import { Channel } from "./channel.js";
import { make, one } from "./elements.js";
import { whenIndexed } from "./indexed.js";

/** @typedef {import("./channel.js").Page} Page */
/** @typedef {(page: Page) => void} Open what a screen's script exports as `open` */
/** @typedef {{ kind: "done" | "error", text: string }} Message what the last action did, or why it didn't */
/** @typedef {{ name: string, type?: string, text?: string, href?: string }} Download a file: its text, or where it is */
/** @typedef {{ step: string, done: number, total: number | null }} Running work in the background */

/**
 * What every screen's Python answers; a screen adds what its `draw` returns.
 *
 * @typedef {object} Answer
 * @property {string} screen the key
 * @property {number} turn rises with every answer of the session
 * @property {Message | null} message
 * @property {boolean} looked the page looked by itself, nobody did anything
 * @property {boolean} [gone] the collection is; there is nothing else to draw
 * @property {Download | null} [download] a file to be saved, once
 * @property {Running | null} [running]
 * @property {boolean} [waiting] worth looking again, as when work is running
 */

/** @typedef {{ aside: string, error?: string, [field: string]: any }} Aside an answer that leaves the screen as it is */

const AGAIN = 700; // milliseconds from one look at running work to the next

/** @template {Answer} Value */
export class Screen {
  /** @param {Page} page */
  constructor(page) {
    this.channel = new Channel(page);
    this.board = one(page.element, ".massl-board");
    this.parts = {
      told: make("div", { class: "told", role: "status" }), // what a screen reader says; it has to stay in place
      head: make("div", { class: "head" }),
      message: make("div", { class: "message error", role: "alert" }),
      main: make("div", { class: "content" }),
      foot: make("div", { class: "foot" }),
    };
    /** @type {Record<string, (answer: any) => void>} takes an aside's answer, by the aside's name */
    this.asides = {};
    /** @type {Value | null} */
    this.latest = null;
    /** @type {(() => void) | null} called once, when all that was done has been answered */
    this.afterwards = null;
    this.downloaded = 0; // the turn of the last file that was saved
    this.looking = 0;
  }

  /** Draws `value`. */
  draw() {
    throw new Error("a screen draws itself");
  }

  /** Puts the screen into the page and begins to listen. */
  start() {
    const { told, head, message, main, foot } = this.parts;
    this.board.replaceChildren(told, head, message, main, foot);
    this.channel.onbusy = (busy) => this.showBusy(busy);
    this.channel.onsilence = () => this.complain("No answer. Is massl still running? Reload the page to try again.");
    whenIndexed(() => this.refresh());
    this.channel.listen((answer) => this.take(answer));
  }

  /** Whether there has been an answer yet. */
  get answered() {
    return this.latest !== null;
  }

  /**
   * What is to be drawn.
   *
   * @returns {Value}
   * @throws {Error} there has been no answer yet
   */
  get value() {
    if (!this.latest) throw new Error("nothing to draw yet");
    return this.latest;
  }

  /** What the last action did, as a sentence; empty where it failed, or nothing was done. */
  get done() {
    return this.value.message?.kind === "done" ? this.value.message.text : "";
  }

  /** @param {import("./channel.js").Action} action */
  act(action) {
    this.channel.act(action);
  }

  /**
   * Says an error where nobody overlooks it. (What was done is told in the bar, where the hand just was.)
   *
   * @param {string} text
   */
  complain(text) {
    const { message } = this.parts;
    message.replaceChildren(...(text ? [make("span", {}, text)] : []));
    if (text) message.scrollIntoView({ block: "nearest" });
  }

  /** @param {boolean} busy */
  showBusy(busy) {
    if (busy) this.board.setAttribute("aria-busy", "true");
    else this.board.removeAttribute("aria-busy");
  }

  /** Whether it is in sight. */
  visible() {
    return this.board.isConnected && this.board.offsetParent !== null;
  }

  /** While work goes on somewhere, looks again from time to time: only on the screen that is in sight. */
  lookAgain() {
    clearTimeout(this.looking);
    if (!this.value.running && !this.value.waiting) return;
    this.looking = setTimeout(() => {
      if (this.visible() && this.channel.answered) this.channel.beside({ do: "look" });
      else this.lookAgain();
    }, AGAIN);
  }

  /**
   * Takes an answer of the server.
   *
   * @param {Value | Aside} answer
   */
  take(answer) {
    if ("aside" in answer) {
      if (answer.error) this.complain(answer.error);
      this.asides[answer.aside]?.(answer);
      return;
    }
    if (answer.gone) {
      this.channel.drop(); // it may come back: whoever tries again is answered
      this.complain(answer.message?.text ?? "");
      return;
    }
    // The page looked by itself and there is nothing new to say: what was said last stays.
    const silent = this.latest !== null && answer.looked && !answer.message;
    this.latest = silent ? { ...answer, message: this.value.message } : answer;
    this.channel.arrived();
    this.draw();
    if (!silent) this.complain(answer.message?.kind === "error" ? answer.message.text : "");
    if (answer.download && answer.turn > this.downloaded) {
      this.downloaded = answer.turn;
      save(answer.download);
    }
    if (!this.channel.waiting.length) {
      const { afterwards } = this;
      this.afterwards = null;
      afterwards?.();
    }
    this.channel.settle();
  }

  /** Pictures came in, or went: shown at once, unless somebody is in the middle of something. */
  refresh() {
    const selecting = this.board.classList.contains("choosing");
    if (this.visible() && !selecting && !this.board.hasAttribute("aria-busy")) this.act({ do: "start" });
  }
}

/**
 * Shows the screen with this title, by its tab.
 *
 * @param {string} title
 */
export function openScreen(title) {
  const tabs = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".massl-tabs button[role=tab]"));
  const tab = [...tabs].find((each) => each.textContent?.trim() === title);
  if (tab && tab.getAttribute("aria-selected") !== "true") setTimeout(() => tab.click(), 0);
}

/** @param {Download} download */
function save(download) {
  const text = new Blob([download.text ?? ""], { type: `${download.type};charset=utf-8` });
  const url = download.href || URL.createObjectURL(text);
  const link = make("a", { href: url, download: download.name });
  document.body.append(link);
  link.click();
  link.remove();
  if (!download.href) setTimeout(() => URL.revokeObjectURL(url), 10000);
}
