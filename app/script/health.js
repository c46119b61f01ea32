// The screen "Health": facts, what was passed over, other encoders and sizes, and which command would help. There is
// nothing to press that would change anything: commands are there to be copied.

import { drawCommand } from "./commands.js";
import { button, make, unbroken } from "./elements.js";
import { Screen } from "./screen.js";

/** @typedef {import("./tiles.js").Tile} Tile */
/** @typedef {import("./screen.js").Running} Running */
/** @typedef {{ name: string, value: string, hint?: string, href?: string }} Fact with where its value leads */

/** @typedef {{ title: string, facts: Fact[], about: string, figures: Fact[] }} Card facts, and a table of figures */

/**
 * Something that was found out.
 *
 * @typedef {object} Finding
 * @property {string} title
 * @property {string[]} lines the first is the answer
 * @property {Tile[]} examples
 * @property {boolean} notable
 * @property {{ value: number, low: number, high: number }} [meter]
 */

/**
 * An encoder, or a size, that could take the place of the present one.
 *
 * @typedef {object} Other
 * @property {number} place
 * @property {string} encoder
 * @property {string} name
 * @property {string} title
 * @property {boolean} trained here, by massl train
 * @property {Fact[]} facts
 * @property {Running | null} running the comparison
 * @property {boolean} compared
 * @property {string[]} lines what the comparison comes to; the first is the answer
 * @property {{ name: string, share: number, text: string }[]} bars
 * @property {{ picture: Tile, present: Tile[], other: Tile[] }[]} sights what is most like a picture to either
 * @property {string} command
 */

/** @typedef {{ why: string, commands: string[] }} Advice */

/**
 * What HealthScreen.draw answers.
 *
 * @typedef {import("./screen.js").Answer & {
 *   problem: string,
 *   numbers: Fact[],
 *   classes: { name: string, count: number }[],
 *   cards: Card[],
 *   drift: Finding[],
 *   advice: Advice[],
 *   others: Other[],
 *   skipped: { path: string, reason: string }[],
 *   reasons: { reason: string, count: number }[],
 *   more: boolean,
 * }} Answer
 */

/** @extends {Screen<Answer>} */
class HealthScreen extends Screen {
  /** @param {import("./screen.js").Page} page */
  constructor(page) {
    super(page);
    this.told = make("span", { role: "status" });
    this.meter = make("progress", { max: "1" });
    const stop = button("Stop", () => this.act({ do: "stop" }));
    this.progress = make("div", { class: "progress" }, this.told, this.meter, stop); // of one comparison at a time
    this.drawn = ""; // what the main part shows
  }

  /** @override */
  draw() {
    this.drawHead();
    this.drawProgress();
    this.drawMain();
    this.lookAgain();
  }

  drawProgress() {
    for (const { running } of this.value.others) {
      if (!running) continue;
      this.told.textContent = `${running.step} …`;
      this.meter.setAttribute("aria-label", running.step);
      if (running.total) this.meter.value = running.done / running.total;
      else this.meter.removeAttribute("value");
    }
  }

  drawHead() {
    const { running, problem, numbers } = this.value;
    const text = running ? `${running.step} …` : problem;
    const again = button("Refresh", () => this.act({ do: "again" }));
    const large = numbers.map(({ name, value, hint }) =>
      make(
        "div",
        { class: "number" },
        make("dt", {}, name),
        make("dd", {}, make("strong", { class: "large" }, value), make("span", { class: "note" }, hint)),
      ),
    );
    this.parts.head.replaceChildren(
      make(
        "div",
        { class: "ask" },
        make("dl", { class: "numbers", "aria-label": "Collection health" }, large),
        make("span", { class: "note", role: "status" }, text),
        running ? null : make("div", { class: "buttons" }, again),
      ),
    );
  }

  drawMain() {
    const { value } = this;
    // Left as it is where it shows the same: a button that is replaced while it is being pressed is not pressed, and
    // what was selected to be copied is not copied.
    const others = value.others.map((entry) => ({ ...entry, running: Boolean(entry.running) }));
    const wanted = JSON.stringify([
      value.advice,
      value.drift,
      value.cards,
      value.classes,
      value.skipped,
      value.more,
      value.waiting,
      others,
    ]);
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    const drawOther = (/** @type {Other} */ entry) => this.drawOther(entry);
    const notable = value.drift.filter((entry) => entry.notable);
    const rest = value.drift.filter((entry) => !entry.notable);
    const trained = value.others.filter((entry) => entry.trained);
    const sizes = value.others.filter((entry) => !entry.trained);
    this.parts.main.replaceChildren(
      ...drawCards([...value.advice.map(drawAdvice), ...trained.map(drawOther), ...notable.map(drawFinding)]),
      ...drawCards([value.classes.length ? drawClasses(value.classes) : null, ...value.cards.map(drawCard)], "packed"),
      ...drawCards([...rest.map(drawFinding), ...sizes.map(drawOther)]),
      this.drawSkipped(),
    );
  }

  /**
   * What could take the encoder's place. Comparing only looks; what would change something is a command to be copied.
   *
   * @param {Other} entry
   */
  drawOther(entry) {
    const { title, facts, lines, bars, sights, name, command } = entry;
    const about = "To switch to it, run this command. It embeds every picture again; labels stay.";
    return make(
      "section",
      { class: sights.length ? "card wide other" : "card other", "aria-label": title },
      make("h2", {}, title),
      make("dl", {}, drawFacts(facts)),
      entry.running ? this.progress : this.value.waiting ? null : this.drawCompare(entry),
      lines.length ? make("p", { class: "said" }, lines[0]) : null,
      bars.length ? make("div", { class: "measures" }, bars.map(drawBar)) : null,
      lines.slice(1).map((line) => make("p", { class: "note" }, line)),
      sights.map((sight) =>
        make(
          "div",
          { class: "sight" },
          drawRow("Similar to", [sight.picture]),
          make("div", { class: "both" }, drawRow("Current encoder", sight.present), drawRow(name, sight.other)),
        ),
      ),
      make("p", { class: "note" }, about),
      drawCommand(command),
    );
  }

  /** @param {Other} entry */
  drawCompare({ place, encoder, name, compared, trained }) {
    const text = compared ? "Compare again" : "Compare on my pictures";
    return button(text, () => this.act({ do: "compare", place, encoder }), {
      class: trained && !compared ? "main" : "plain",
      "aria-label": `${text}: ${name}`,
    });
  }

  drawSkipped() {
    const { skipped, reasons, more } = this.value;
    if (!skipped.length) return "";
    const rows = skipped.map((item) => make("tr", {}, make("td", {}, item.path), make("td", {}, item.reason)));
    const head = make("tr", {}, make("th", {}, "File"), make("th", {}, "Reason"));
    return make(
      "section",
      { class: "skipped", "aria-label": "Skipped files" },
      make(
        "header",
        {},
        make("h2", {}, "Skipped files"),
        button("Download as CSV", () => this.act({ do: "csv" })),
      ),
      make(
        "ul",
        { class: "reasons" },
        reasons.map((entry) => make("li", {}, `${entry.count.toLocaleString("en")} × ${entry.reason}`)),
      ),
      make("div", { class: "rows" }, make("table", {}, make("thead", {}, head), make("tbody", {}, rows))),
      more ? button("Show more", () => this.act({ do: "more" }), { class: "plain more" }) : null,
    );
  }
}

/** @param {Fact[]} facts */
function drawFacts(facts) {
  return facts.flatMap(({ name, value, hint, href }) => [
    make("dt", {}, name),
    make("dd", { title: hint || null }, href ? make("a", { href }, value) : unbroken(value)),
  ]);
}

/**
 * Cards beside each other: so many in a row that none of it stays empty.
 *
 * @param {(HTMLElement | null)[]} cards
 * @param {"packed" | ""} kind packed ones stand below each other where they are low
 */
function drawCards(cards, kind = "") {
  return cards.some(Boolean) ? [make("div", { class: `cards ${kind}` }, cards)] : [];
}

/** @param {{ name: string, count: number }[]} classes */
function drawClasses(classes) {
  const most = Math.max(...classes.map((each) => each.count));
  const bars = classes.map(({ name, count }) =>
    make(
      "li",
      {},
      make("span", { class: "name", title: name }, name),
      make(
        "div",
        { class: "bar-of", "aria-hidden": "true" },
        make("span", { class: "labelled", style: `width: ${(100 * count) / most}%` }),
      ),
      make("span", { class: "count" }, count.toLocaleString("en")),
    ),
  );
  return make(
    "section",
    { class: "card", "aria-label": "Classes" },
    make("h2", {}, "Labelled pictures by class"),
    make("ul", { class: "shares" }, bars),
  );
}

/** @param {Card} card */
function drawCard({ title, facts, about, figures }) {
  const rows = figures.map((row) => make("tr", {}, make("th", { scope: "row" }, row.name), make("td", {}, row.value)));
  return make(
    "section",
    { class: "card", "aria-label": title },
    make("h2", {}, title),
    make("dl", {}, drawFacts(facts)),
    rows.length
      ? make("details", {}, make("summary", { class: "note" }, about), make("table", {}, make("tbody", {}, rows)))
      : null,
  );
}

/** @param {Finding} finding */
function drawFinding({ title, lines, examples, meter }) {
  const pictures = examples.map((tile) => drawExample(tile, tile.path));
  return make(
    "section",
    { class: examples.length ? "card wide" : "card", "aria-label": title },
    make("h2", {}, title),
    meter
      ? make("meter", {
          min: 0,
          max: 1,
          value: meter.value,
          low: meter.low,
          high: meter.high,
          optimum: 0,
          "aria-label": title,
        })
      : null,
    lines.map((line, place) => make("p", { class: place ? "note" : "said" }, line)),
    pictures.length
      ? make("ul", { class: "examples", "aria-label": "Most different from the others" }, pictures)
      : null,
  );
}

/**
 * @param {string} name
 * @param {Tile[]} tiles
 */
function drawRow(name, tiles) {
  const pictures = tiles.map((tile) => drawExample(tile, tile.label ? `${tile.path} (${tile.label})` : tile.path));
  return make(
    "div",
    { class: "row" },
    make("span", { class: "note" }, name),
    make("ul", { class: "examples", "aria-label": name }, pictures),
  );
}

/**
 * @param {Tile} tile
 * @param {string} title
 */
function drawExample(tile, title) {
  const image = make("img", { src: tile.src, alt: tile.path, title, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.remove());
  return make("li", {}, image);
}

/** @param {Other["bars"][number]} bar */
function drawBar({ name, share, text }) {
  return make(
    "div",
    { class: "measure" },
    make("span", {}, name),
    make("progress", { max: "1", value: share, "aria-label": name }),
    make("strong", {}, text),
  );
}

/** @param {Advice} advice */
function drawAdvice({ why, commands }) {
  return make(
    "section",
    { class: "card wide advice", "aria-label": "Recommendations" },
    make("h2", {}, "Recommendations"),
    make("p", { class: "said" }, `${why}.`),
    commands.map(drawCommand),
  );
}

/** @type {import("./screen.js").Open} */
export function open(page) {
  new HealthScreen(page).start();
}
