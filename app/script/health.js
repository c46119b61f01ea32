// The screen "Health": facts, what was passed over, other encoders and sizes, and which command would help. There is
// nothing to press that would change anything: commands are there to be copied.

const told = make("span", { role: "status" });
const far = make("progress", { max: "1" });
const progress = make("div", { class: "progress" }, told, far, button("Stop", () => act({ do: "stop" }))); // one at a time
let drawn = ""; // what the main part shows

function drawProgress() {
  for (const { running } of value.others) {
    if (!running) continue;
    told.textContent = `${running.step} …`;
    far.setAttribute("aria-label", running.step);
    if (running.total) far.value = running.done / running.total;
    else far.removeAttribute("value");
  }
}

function drawHead() {
  const running = value.running;
  parts.head.replaceChildren(
    make(
      "div",
      { class: "ask" },
      make(
        "div",
        { class: "words" },
        make("strong", {}, "How the collection is"),
        make("span", { role: "status" }, running ? `${running.step} …` : value.problem || "What it is made of, and how far to trust it."),
      ),
      running ? null : make("div", { class: "buttons" }, button("Look again", () => act({ do: "again" }))),
    ),
  );
}

function card(entry) {
  const facts = entry.facts.flatMap((fact) => [
    make("dt", {}, fact.name),
    make("dd", { title: fact.hint || null }, fact.value),
  ]);
  const rows = entry.figures.map((row) => make("tr", {}, make("th", { scope: "row" }, row.name), make("td", {}, row.value)));
  const figures = rows.length
    ? make("details", {}, make("summary", { class: "note" }, entry.about), make("table", {}, make("tbody", {}, rows)))
    : null;
  return make("section", { class: "card", "aria-label": entry.title }, make("h2", {}, entry.title), make("dl", {}, facts), figures);
}

function finding(entry) {
  const meter = entry.meter
    ? make("meter", { min: 0, max: 1, value: entry.meter.value, low: entry.meter.low, high: entry.meter.high, optimum: 0, "aria-label": entry.title })
    : null;
  const examples = entry.examples.map((tile) => {
    const image = make("img", { src: tile.src, alt: tile.path, title: tile.path, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.remove());
    return make("li", {}, image);
  });
  return make(
    "section",
    { class: "card wide", "aria-label": entry.title },
    make("h2", {}, entry.title),
    meter,
    entry.lines.map((line, place) => make("p", { class: place ? "note" : "said" }, line)),
    examples.length ? make("ul", { class: "examples", "aria-label": "Those most unlike the rest" }, examples) : null,
  );
}

// What could take the encoder's place. Comparing only looks; what would change something is a command to be copied.
function other(entry) {
  const tiles = (some) =>
    some.map((tile) => {
      const image = make("img", { src: tile.src, alt: tile.path, title: tile.label ? `${tile.path} (${tile.label})` : tile.path, loading: "lazy", decoding: "async" });
      image.addEventListener("error", () => image.remove());
      return make("li", {}, image);
    });
  const row = (name, some) => make("div", { class: "row" }, make("span", { class: "note" }, name), make("ul", { class: "examples", "aria-label": name }, tiles(some)));
  const bars = entry.bars.map((bar) =>
    make("div", { class: "measure" }, make("span", {}, bar.name), make("progress", { max: "1", value: String(bar.share), "aria-label": bar.name }), make("strong", {}, bar.text)),
  );
  return make(
    "section",
    { class: "card wide other", "aria-label": entry.title },
    make("h2", {}, entry.title),
    make("dl", {}, entry.facts.flatMap((fact) => [make("dt", {}, fact.name), make("dd", { title: fact.hint || null }, fact.value)])),
    entry.running
      ? progress
      : value.waiting
        ? null
        : button(entry.compared ? "Compare again" : "Compare on my pictures", () => act({ do: "compare", place: entry.place, encoder: entry.encoder }), {
            class: entry.compared ? "plain" : "main",
            "aria-label": `${entry.compared ? "Compare again" : "Compare on my pictures"}: ${entry.name}`,
          }),
    entry.lines.length ? make("p", { class: "said" }, entry.lines[0]) : null,
    bars.length ? make("div", { class: "measures" }, bars) : null,
    entry.lines.slice(1).map((line) => make("p", { class: "note" }, line)),
    entry.sights.map((sight) =>
      make("div", { class: "sight" }, row("Most like", [sight.picture]), make("div", { class: "both" }, row("With the encoder in use", sight.present), row(`With ${entry.name}`, sight.other))),
    ),
    make("p", { class: "note" }, "To search and label with it from now on (every picture is embedded anew; labels stay):"),
    make("code", { tabindex: "0", title: "Click to select, then copy into a terminal" }, entry.command),
  );
}

function advice(entry) {
  return make(
    "section",
    { class: "card wide advice", "aria-label": "What would help" },
    make("h2", {}, "What would help"),
    make("p", { class: "said" }, `${entry.why}.`),
    entry.commands.map((command) => make("code", { tabindex: "0", title: "Click to select, then copy into a terminal" }, command)),
  );
}

function drawSkipped() {
  if (!value.skipped.length) return null;
  const rows = value.skipped.map((item) => make("tr", {}, make("td", {}, item.path), make("td", {}, item.reason)));
  return make(
    "section",
    { class: "skipped", "aria-label": "Files passed over" },
    make(
      "header",
      {},
      make("h2", {}, "Files passed over"),
      button("Download as CSV", () => act({ do: "csv" })),
    ),
    make("ul", { class: "reasons" }, value.reasons.map((entry) => make("li", {}, `${entry.count.toLocaleString("en")} × ${entry.reason}`))),
    make("div", { class: "rows" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "File"), make("th", {}, "Why"))), make("tbody", {}, rows))),
    value.more ? button("Show more", () => act({ do: "more" }), { class: "plain more" }) : null,
  );
}

function drawMain() {
  drawProgress();
  // Left as it is where it shows the same: a button that is replaced while it is being pressed is not pressed, and what
  // was selected to be copied is not copied.
  const others = value.others.map((entry) => ({ ...entry, running: Boolean(entry.running) }));
  const wanted = JSON.stringify([value.advice, value.drift, value.cards, value.skipped, value.more, value.waiting, others]);
  if (wanted === drawn) return;
  drawn = wanted;
  parts.main.replaceChildren(
    make(
      "div",
      { class: "cards" },
      value.advice.map(advice),
      value.others.filter((entry) => entry.trained).map(other),
      value.drift.filter((entry) => entry.notable).map(finding),
      value.cards.map(card),
      value.drift.filter((entry) => !entry.notable).map(finding),
      value.others.filter((entry) => !entry.trained).map(other),
    ),
    drawSkipped() || "",
  );
}

drawing.push(drawHead, drawMain, lookAgain);
