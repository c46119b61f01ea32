// The colours of the map: what kind each point is of, in which colour a kind is drawn, and the legend.

import { make } from "./elements.js";
import { NONE, OTHERS } from "./plane.js";

/** @typedef {{ name: string, count: number, kind: number }} Kind what a colour stands for, and of how many points */

// A colour for each kind, on white and on black.
const LIGHT = "#0f766e #d97706 #4f46e5 #dc2626 #65a30d #c026d3 #0284c7 #92400e #e11d79 #15803d #6d28d9 #a16207".split(
  " ",
);
const DARK = "#2dd4bf #fbbf24 #818cf8 #f87171 #a3e635 #e879f9 #38bdf8 #fb923c #f472b6 #4ade80 #c4b5fd #fde047".split(
  " ",
);
const RAMP = 32; // steps of colour from the weakest match to the best

const BRIGHT_THEME = {
  hues: LIGHT,
  ground: "#ffffff",
  ink: "#0f172a",
  none: "#b4bdca",
  others: "#7c8798",
  weakest: [186, 214, 240], // red, green and blue, as of the best
  best: [190, 24, 60],
  unusual: ["#b91c1c", "#f97316", "#fbbf24"], // the most unusual first, as it is to be seen first
};
const DARK_THEME = {
  hues: DARK,
  ground: "#0b0f19",
  ink: "#f8fafc",
  none: "#566073",
  others: "#94a3b8",
  weakest: [30, 64, 120],
  best: [253, 224, 71],
  unusual: ["#fde047", "#fb923c", "#b45309"],
};

export class MapColours {
  /**
   * @param {import("./screen.js").Screen<import("./map.js").Answer>} screen
   * @param {import("./plane.js").Plane} plane
   */
  constructor(screen, plane) {
    this.screen = screen;
    this.plane = plane;
    this.legend = make("div", { class: "legend", role: "group", "aria-label": "Colours" });
    /** @type {string | null} what the colours are of, as the server calls it; null: of nothing yet */
    this.coloured = null;
    /** @type {Kind[]} */
    this.kinds = [];
    /** @type {number[] | undefined} the hue of each kind, where it isn't its own place */
    this.hues = undefined;
    this.of = new Uint8Array(0); // the kind of each point
    /** @type {Set<number>} kinds that are shown alone */
    this.only = new Set();
  }

  /** The points are others. */
  forget() {
    this.coloured = null;
  }

  /**
   * Takes other colours where there are some.
   *
   * @param {string} version of the points
   * @returns {Promise<string>} the version that the server has; another than `version` if there is another map now
   */
  async fetch(version) {
    const { by, coloured } = this.screen.value;
    if (by === "match") this.takeMatch();
    else if (this.coloured !== coloured) {
      const answer = await this.screen.channel.ask("kinds", { by });
      if (answer.version !== version) return answer.version;
      if (!this.coloured?.startsWith(this.screen.value.by)) this.only.clear();
      this.of = bytes(answer.of);
      this.kinds = answer.legend;
      this.hues = answer.hues;
      this.coloured = this.screen.value.coloured;
      this.draw();
    }
    return version;
  }

  takeMatch() {
    const { match } = this.screen.value;
    this.of = new Uint8Array(this.plane.ids.length).fill(NONE);
    if (match?.ids) {
      const scores = bytes(match.scores);
      new Uint32Array(bytes(match.ids).buffer).forEach((id, rank) => {
        const place = this.plane.at.get(id);
        if (place !== undefined) this.of[place] = Math.floor((scores[rank] * (RAMP - 1)) / 255);
      });
    }
    this.coloured = "match";
    this.hues = undefined;
    this.only.clear();
    this.draw();
  }

  draw() {
    const dark = document.body.classList.contains("dark") || this.screen.board.closest(".dark") !== null;
    const theme = dark ? DARK_THEME : BRIGHT_THEME;
    const back = new Uint8Array(256);
    /** @type {string[]} */
    let palette = this.screen.value.by === "unusual" ? [...theme.unusual] : [...theme.hues];
    if (this.hues) palette = this.hues.map((hue) => theme.hues[hue]);
    if (this.screen.value.by === "match") {
      palette = rampOf(theme.weakest, theme.best);
      back[NONE] = 1;
    }
    palette[OTHERS] = theme.others;
    palette[NONE] = theme.none;
    if (this.only.size) for (const { kind } of this.kinds) back[kind] = this.only.has(kind) ? 0 : 2;
    this.plane.colours(this.of, palette, back, theme);
    this.drawLegend(palette);
  }

  /** @param {string[]} palette */
  drawLegend(palette) {
    const { by, match } = this.screen.value;
    if (by !== "match") {
      this.legend.replaceChildren(...this.kinds.map((kind) => this.drawKind(kind, palette[kind.kind])));
      return;
    }
    const ramp = make("span", { class: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${palette[0]}, ${palette[RAMP - 1]})`;
    this.legend.replaceChildren(
      ...(match?.ids ? [make("span", {}, match.low), ramp, make("span", {}, match.high)] : []),
      make("span", { class: "said" }, match?.said),
    );
  }

  /**
   * @param {Kind} entry
   * @param {string} colour
   */
  drawKind({ name, count, kind }, colour) {
    const dot = make("span", { class: "dot" });
    dot.style.background = colour;
    return make(
      "button",
      {
        type: "button",
        class: "kind",
        "aria-pressed": String(this.only.has(kind)),
        title: `Show ${name} alone`,
        onclick: () => {
          if (!this.only.delete(kind)) this.only.add(kind);
          this.draw();
        },
      },
      dot,
      make("span", { class: "name" }, name),
      make("span", { class: "count" }, count.toLocaleString("en")),
    );
  }
}

/**
 * Bytes from base64.
 *
 * @param {string} text
 */
export function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * Colours in equal steps from one to another.
 *
 * @param {number[]} from red, green and blue
 * @param {number[]} to
 */
function rampOf(from, to) {
  const colours = [];
  for (let step = 0; step < RAMP; step += 1) {
    const share = step / (RAMP - 1);
    const parts = from.map((low, at) => Math.round(low + (to[at] - low) * share));
    colours.push(`#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`);
  }
  return colours;
}
