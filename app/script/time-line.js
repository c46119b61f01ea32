// The time line: a slim bar for each month, or year, that leads to the pictures of it.

import { button, make } from "./elements.js";

/**
 * A month or a year that has pictures.
 *
 * @typedef {object} Step
 * @property {string} since its first day
 * @property {string} until its last
 * @property {string} name
 * @property {number} count of pictures
 */

export class TimeLine {
  /** @param {(days: { since: string, until: string }) => void} ask filters by days; empty: by none */
  constructor(ask) {
    this.ask = ask;
    this.said = make("span", { class: "said" });
    this.steps = make("div", { class: "steps", role: "group", "aria-label": "Months and years with pictures" });
    this.steps.addEventListener("keydown", (event) => this.step(event));
    this.node = make("div", { class: "time-line" }, this.steps);
    this.drawn = "";
    this.usual = ""; // what is said where no bar is pointed at
  }

  /**
   * @param {Step[]} steps
   * @param {{ since: string, until: string }} filters
   */
  draw(steps, { since, until }) {
    const wanted = JSON.stringify([steps, since, until]);
    if (wanted === this.drawn) return this.node;
    this.drawn = wanted;
    const focused = this.steps.contains(document.activeElement);
    const most = Math.max(...steps.map((step) => step.count));
    const chosen = steps.findIndex((step) => step.since === since && step.until === until);
    const bars = steps.map((step, place) => {
      const text = `${step.name}: ${step.count.toLocaleString("en")} ${step.count === 1 ? "picture" : "pictures"}`;
      const days = place === chosen ? { since: "", until: "" } : { since: step.since, until: step.until };
      const bar = button(make("span", { class: "height" }), () => this.ask(days), {
        class: "step",
        title: text,
        "aria-label": text,
        "aria-pressed": String(place === chosen),
        tabindex: place === Math.max(0, chosen) ? "0" : "-1",
        onpointerenter: () => this.say(text),
        onpointerleave: () => this.say(""),
      });
      // By the root: else a month of few pictures could not be seen beside one of many.
      bar.style.setProperty("--share", Math.sqrt(step.count / most).toFixed(3));
      return bar;
    });
    this.usual = chosen >= 0 ? bars[chosen].title : "";
    this.steps.replaceChildren(...bars);
    const ends = [steps[0], steps[steps.length - 1]].map((step) => make("span", {}, step.name));
    this.node.replaceChildren(this.steps, make("div", { class: "ends" }, ends[0], this.said, ends[1]));
    this.say("");
    if (focused) bars[Math.max(0, chosen)].focus({ preventScroll: true });
    return this.node;
  }

  /** @param {string} text of the bar that is pointed at; nothing: that is chosen */
  say(text) {
    this.said.textContent = text || this.usual;
  }

  /**
   * Goes along the bars by the arrow keys.
   *
   * @param {KeyboardEvent} event
   */
  step(event) {
    const bars = [...this.steps.querySelectorAll("button")];
    const now = document.activeElement;
    const at = now instanceof HTMLButtonElement ? bars.indexOf(now) : -1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = bars[Math.min(Math.max(to, 0), bars.length - 1)];
    bars[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    this.say(next.title);
  }
}
