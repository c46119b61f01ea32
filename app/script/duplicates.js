// The screen "Duplicates": groups of files side by side, and what is decided about them.

const told = make("span", { role: "status" });
const bar = make("progress", { max: 100 });
const progress = make("div", { class: "progress" }, told, bar, button("Stop", () => act({ do: "stop" })));
let headed = ""; // what the head shows

function drawProgress(running) {
  const share = running.total ? Math.round((100 * running.done) / running.total) : null;
  told.textContent = share === null ? `${running.step} …` : `${running.step}: ${share} %`;
  bar.setAttribute("aria-label", running.step);
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
}

function drawHead() {
  const running = value.running;
  parts.told.textContent = value.message && value.message.kind === "done" ? value.message.text : "";
  if (running) drawProgress(running);
  // Left as it is where it shows the same: a button that is replaced while it is being pressed is not pressed.
  const wanted = JSON.stringify([Boolean(running), value.summary, value.stale, value.problem, value.found, value.undo, value.filters, value.filter]);
  if (wanted === headed) return;
  headed = wanted;
  const words = make(
    "div",
    { class: "words" },
    make("strong", {}, "Files that show the same picture"),
    ...(value.summary.length
      ? value.summary.map((line) => make("span", {}, line))
      : [make("span", {}, "The same content, or edited copies: smaller, cut, brighter, compressed again. Nothing is ever deleted.")]),
    value.stale && !running ? make("span", { class: "behind" }, "Pictures have come or gone since: look again to see all.") : null,
    value.problem ? make("span", { class: "behind" }, value.problem) : null,
  );
  const buttons = make(
    "div",
    { class: "buttons" },
    running
      ? null
      : value.found && !value.stale
        ? null
        : button(value.found ? "Look again" : "Find duplicates", () => act({ do: "find" }), { class: "main" }),
    value.undo ? button("Undo", () => act({ do: "undo" }), { title: "Take the last decision back" }) : null,
    value.plan ? button("Download the plan as CSV", () => act({ do: "csv" })) : null,
  );
  const filters = value.filters.map((filter) =>
    button(`${filter.name} ${filter.count.toLocaleString("en")}`, () => act({ do: "filter", filter: filter.key }), {
      class: "order",
      "aria-pressed": String(filter.key === value.filter),
    }),
  );
  parts.head.replaceChildren(
    make("div", { class: "ask" }, words, buttons, running ? progress : null),
    filters.length ? make("div", { class: "orders", role: "group", "aria-label": "Which groups" }, filters) : "",
  );
}

function drawFile(file, group) {
  const roles = { suggested: "Suggested to keep", chosen: "Kept", both: "Kept", copy: "" };
  const image = make("img", { src: file.src, alt: file.name, loading: "lazy", decoding: "async", draggable: "false" });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "missing" }, "This picture can't be shown")));
  const choice =
    file.role === "both" || file.role === "chosen"
      ? null
      : button("Keep this one", () => act({ do: "choose", image: file.id }), {
          class: file.role === "suggested" ? "main" : "plain",
          "aria-label": `Keep this one: ${file.path}`,
        });
  return make(
    "li",
    { class: `file ${file.role}` },
    make("div", { class: "frame" }, image, roles[file.role] ? make("span", { class: "role" }, roles[file.role]) : null),
    make("div", { class: "path", title: file.path }, file.path),
    make("div", { class: "facts" }, make("span", {}, file.pixels), make("span", {}, file.bytes), make("span", {}, file.date)),
    make("div", { class: "note" }, file.note),
    choice,
  );
}

function drawGroup(group) {
  const aside =
    group.kind === "open"
      ? button("Keep all", () => act({ do: "both", image: group.image }), { "aria-label": `Keep all: ${group.title}` })
      : button("Decide again", () => act({ do: "forget", image: group.image }));
  return make(
    "section",
    { class: "group", "aria-label": group.title },
    make("header", {}, make("h2", {}, group.title), aside),
    make("ul", { class: "files" }, group.files.map((file) => drawFile(file, group))),
    group.rest ? make("p", { class: "nothing" }, `and ${group.rest.toLocaleString("en")} more, which the plan lists`) : null,
  );
}

// Groups are kept from one drawing to the next, so that pictures don't flicker and the hand stays where it is.
let groups = new Map();

function drawGroups() {
  const next = new Map();
  for (const group of value.groups) {
    const wanted = JSON.stringify(group);
    const before = groups.get(group.key);
    next.set(group.key, before && before.wanted === wanted ? before : { wanted, node: drawGroup(group) });
  }
  groups = next;
  parts.main.replaceChildren(
    ...[...groups.values()].map((entry) => entry.node),
    ...(value.empty ? [make("p", { class: "empty" }, value.empty)] : []),
    ...(value.more ? [button("Show more", () => act({ do: "more" }), { class: "plain more" })] : []),
  );
}

function drawDone() {
  const done = value.message && value.message.kind === "done" ? value.message.text : "";
  parts.foot.replaceChildren(...(done ? [make("p", { class: "done" }, done)] : []));
}

drawing.push(drawHead, drawGroups, drawDone, lookAgain);
