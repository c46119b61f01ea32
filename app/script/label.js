// The screen "Label".

const clickSelects = true;

// The proposals on show, or of the selected pictures: they are answered as they were seen.
answer = (what) => {
  if (value.view === "groups" || value.view === "check" || value.view === "curve") return;
  if (value.view === "class" && !chosen.size) return complain("Select some pictures first; a whole page is accepted in a queue.");
  if (what === "reject" && !chosen.size) return complain("Select the pictures that are proposed wrongly first, then reject them.");
  const tiles = value.sections.flatMap((section) => section.tiles);
  const meant = tiles.filter((tile) => tile.guess && !tile.label && (!chosen.size || chosen.has(tile.id)));
  act({ do: what, seen: meant.map((tile) => [tile.id, tile.guess]) });
  clear();
};

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function drawHead() {
  const typing = parts.main.querySelector(".naming input:focus"); // before what it is part of is drawn anew
  naming = typing ? typing.dataset.group : null;
  board.dataset.view = value.view;
  // Held, and not taken from under the hand: drawn when it is let go.
  if (parts.head.querySelector("input:active, button:active")) {
    return document.addEventListener("pointerup", () => setTimeout(drawHead), { once: true });
  }
  const views = value.views.map((view) =>
    button(view.name, () => act({ do: "view", view: view.key }), {
      class: "order",
      disabled: !view.ready,
      "aria-pressed": String(view.key === value.view),
    }),
  );
  const advice = value.advice;
  const lines = value.summary.map((line) => make("span", {}, line));
  const open = parts.head.querySelector("details[open]") !== null;
  parts.head.replaceChildren(
    make(
      "div",
      { class: "ask" },
      make(
        "div",
        { class: "words" },
        make("strong", {}, advice.text),
        make("span", {}, advice.why),
        lines.length ? make("div", { class: "estimate", title: value.methods }, lines) : null,
      ),
      make(
        "div",
        { class: "buttons" },
        advice.here ? null : button(`Go to: ${advice.name}`, () => act({ do: "view", view: advice.view }), { class: "main" }),
        value.exports.length ? drawExports(open && !value.download) : null,
      ),
    ),
    make(
      "div",
      { class: "steer" },
      make("div", { class: "orders", role: "group", "aria-label": "What to look at" }, views),
      value.sorted && (value.view === "sure" || value.view === "class") ? drawBarOfDoubt() : null,
    ),
    value.running ? drawRunning() : "",
    value.problem ? make("p", { class: "note", role: "status" }, value.problem) : "",
  );
}

function drawExports(open) {
  return make(
    "details",
    { class: "menu", open },
    make("summary", { class: "plain" }, "Export"),
    make(
      "div",
      { class: "choices" },
      value.exports.map((entry) => 
        button(entry.name, () => act({ do: "export", format: entry.key }), {
          class: "choice",
          disabled: !entry.ready,
          title: entry.ready ? "" : "Needs labels of two classes",
        }),
      ),
    ),
  );
}

function drawBarOfDoubt() {
  const said = make("output", {}, `${value.sure} %`);
  const slider = make("input", {
    type: "range",
    min: "0",
    max: "99",
    value: value.sure,
    "aria-label": "The least probability of a class, in percent",
    oninput: (event) => (said.textContent = `${event.target.value} %`),
    onchange: (event) => act({ do: "sure", sure: Number(event.target.value) }),
  });
  return make("label", { class: "doubt" }, make("span", {}, "Leave without a class what is less sure than"), slider, said);
}

function drawRunning() {
  const { step, done, total } = value.running;
  return make(
    "div",
    { class: "pending", role: "status" },
    make("progress", total ? { max: total, value: done } : {}),
    make("span", {}, total ? `${step}: ${done.toLocaleString()} of ${total.toLocaleString()}` : `${step} …`),
  );
}

// A name for all pictures of a group that are on show, or for those of them that are selected.
function drawNaming(section) {
  const free = section.tiles.filter((tile) => !tile.label).map((tile) => tile.id);
  const meant = () => {
    const picked = free.filter((id) => chosen.has(id));
    return picked.length ? picked : free;
  };
  const group = section.tiles.map((tile) => tile.id).join(); // whatever its number is by now
  const field = make("input", {
    type: "text",
    list: "massl-classes",
    placeholder: "Name of this class",
    "aria-label": `Name for ${section.title}`,
    "data-group": group,
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => names.set(group, field.value),
  });
  field.value = names.get(group) || "";
  const name = () => {
    if (!field.value.trim()) complain("Type a name for the class first.");
    if (!field.value.trim() || tooLong(field.value.trim())) return field.focus({ preventScroll: true });
    names.delete(group);
    act({ do: "label", images: meant(), label: field.value });
    clear();
  };
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") {
      event.preventDefault();
      name();
    }
  });
  const go = button("", name, { class: "plain" });
  const count = () => {
    go.textContent = meant().length === free.length ? `Name these ${free.length}` : `Name the ${meant().length} selected`;
  };
  count();
  counting.push(count);
  return make("div", { class: "naming" }, field, go);
}

const names = new Map(); // typed for groups and not given yet, by their pictures: kept over redraws
let naming = null; // the group in whose field somebody types
let counting = []; // the buttons of groups that follow the selection
marking.push(() => counting.forEach((count) => count()));

function drawMain() {
  counting = [];
  if (value.view === "groups") {
    const sections = parts.main.querySelectorAll(":scope > section");
    value.sections.forEach((section, place) => {
      const head = sections[place].querySelector("header");
      head.querySelector(".link")?.remove();
      head.append(drawNaming(section));
    });
    const field = [...parts.main.querySelectorAll(".naming input")].find((each) => each.dataset.group === naming);
    if (field) field.focus({ preventScroll: true });
    parts.main.append(
      make("datalist", { id: "massl-classes" }, value.classes.map((entry) => make("option", { value: entry.name }))),
    );
    if (value.regroup) parts.main.append(button("Look for new groups", () => act({ do: "regroup" }), { class: "plain more" }));
  }
  if (value.paging) parts.main.append(drawPaging());
  if (value.view === "check") parts.main.prepend(...value.suspects.map(drawSuspect));
  if (value.curve) parts.main.prepend(drawCurve());
}

function drawPaging() {
  return make(
    "div",
    { class: "paging" },
    value.paging.accept ? button(["Accept this page ", make("kbd", {}, "A")], () => answer("accept"), { class: "main" }) : null,
    button("Skip this page", () => act({ do: "next" })),
    make("span", { class: "note" }, `${value.paging.left.toLocaleString()} without a label`),
  );
}

function drawSuspect(suspect) {
  const figure = (tile, text) =>
    make("figure", {}, make("img", { src: tile.src, alt: tile.name, title: tile.path, loading: "lazy" }), make("figcaption", {}, text));
  return make(
    "article",
    { class: "suspect", "aria-label": `Is ${suspect.tile.name} really ${suspect.given}?` },
    figure(suspect.tile, suspect.tile.name),
    make(
      "div",
      { class: "evidence" },
      make("strong", {}, `Labelled “${suspect.given}”, looks like “${suspect.proposed}”`),
      make(
        "span",
        { class: "note" },
        `With its own label hidden: ${suspect.given} ${suspect.probability} %, ${suspect.proposed} ${suspect.proposed_probability} %. ` +
          `The nearest pictures labelled “${suspect.proposed}”:`,
      ),
      make("div", { class: "near" }, suspect.neighbours.map((tile) => figure(tile, tile.score))),
      make(
        "div",
        { class: "buttons" },
        button(`Change to “${suspect.proposed}”`, () => act({ do: "label", images: [suspect.tile.id], label: suspect.proposed })),
        button(`Keep “${suspect.given}”`, () => act({ do: "keep", images: [suspect.tile.id] })),
      ),
    ),
  );
}

function drawCurve() {
  const { points, advice } = value.curve;
  const told = points.map((point) => `${point.labels} labels, ${percent(point.accuracy)} right`).join("; ");
  return make(
    "div",
    { class: "curve" },
    make("p", {}, make("strong", {}, advice)),
    points.length
      ? plot(
          points.map((point) => ({
            x: point.labels,
            y: point.accuracy,
            low: point.low,
            high: point.high,
            hint: `${point.labels} labels: ${percent(point.accuracy)} right (very likely ${percent(point.low)} to ${percent(point.high)})`,
          })),
          "labels",
          `Share of right proposals by number of labels: ${told}`,
        )
      : null,
    make("p", { class: "note" }, "Measured with ever fewer of your labels, on labelled pictures that were hidden. The band is where each figure very likely lies."),
    value.methods ? make("p", { class: "note" }, value.methods) : null,
  );
}

drawing.unshift(drawHead);
drawing.push(drawMain, lookAgain);
