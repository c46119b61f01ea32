// The screen "Health": facts, what was passed over, and which command would help. There is nothing to press that would
// change anything: commands are there to be copied.

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
  const figures = entry.figures.length
    ? [
        make("p", { class: "note" }, entry.about),
        make("table", {}, make("tbody", {}, entry.figures.map((row) => make("tr", {}, make("th", { scope: "row" }, row.name), make("td", {}, row.value))))),
      ]
    : [];
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
  parts.main.replaceChildren(
    make(
      "div",
      { class: "cards" },
      value.advice.map(advice),
      value.drift.filter((entry) => entry.notable).map(finding),
      value.cards.map(card),
      value.drift.filter((entry) => !entry.notable).map(finding),
    ),
    drawSkipped() || "",
  );
}

drawing.push(drawHead, drawMain, lookAgain);
