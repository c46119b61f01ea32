// The screen "Map": every picture a point, like ones together.

const LIGHT = ["#0f766e", "#d97706", "#4f46e5", "#dc2626", "#65a30d", "#c026d3", "#0284c7", "#92400e", "#e11d79", "#15803d", "#6d28d9", "#a16207"];
const DARK = ["#2dd4bf", "#fbbf24", "#818cf8", "#f87171", "#a3e635", "#e879f9", "#38bdf8", "#fb923c", "#f472b6", "#4ade80", "#c4b5fd", "#fde047"];
const OTHERS = 254; // of kinds without a colour of their own
const NONE = 255;
const RAMP = 32; // steps of colour from the weakest match to the best
const PAUSE = 1500; // milliseconds between two questions how far the better map is

const state = { version: null, coloured: null, fetching: false, legend: [], of: new Uint8Array(0), only: new Set(), count: 0, ids: null };
const known = new Map(); // id to tile
let shownTiles = [];
let lookingAgain = null;
let hovering = null;

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function ask(name, data) {
  const answer = await server[name](data === undefined ? null : data);
  if (!answer || answer.error) throw new Error(answer ? answer.error : "No answer.");
  return answer;
}

// Layout --------------------------------------------------------------------------------------------------------------

const card = make("div", { class: "card hidden", "aria-hidden": "true" });
const hint = make("p", { class: "hint" });
const legend = make("div", { class: "legend", role: "group", "aria-label": "Colours" });
const tools = make("div", { class: "tools" });
const list = make("div", { class: "picked" });
const note = make("p", { class: "note", role: "status" });
const meter = make("progress", { max: "1", class: "hidden", "aria-label": "How far the better map is" });
plane.canvas.setAttribute("aria-label", "Map of the pictures. Arrow keys move it, plus and minus zoom, 0 shows all, Space selects the picture in the middle.");

function tool(text, title, onclick, attributes) {
  return button(text, onclick, { title, class: "plain tool", ...attributes });
}

const hand = tool("Move", "Drag to move the map, click to select a picture", () => useLasso(false), { "aria-pressed": "true" });
const rope = tool("Lasso", "Draw around pictures to select them (or hold Shift and drag)", () => useLasso(true), { "aria-pressed": "false" });
const faces = tool("Pictures", "Show small pictures on the map", () => useFaces(faces.getAttribute("aria-pressed") !== "true"), { "aria-pressed": "false" });
const by = make("select", { "aria-label": "Colour by", onchange: () => act({ do: "by", by: by.value }) });

function useLasso(on) {
  hand.setAttribute("aria-pressed", String(!on));
  rope.setAttribute("aria-pressed", String(on));
  plane.lasso(on);
}

function useFaces(on) {
  faces.setAttribute("aria-pressed", String(on));
  plane.small(on);
}

tools.append(
  make("div", { class: "pair", role: "group", "aria-label": "What dragging does" }, hand, rope),
  tool("Select all in view", "Select every picture that the map shows now", () => add(plane.inView(), {})),
  faces,
  make(
    "div",
    { class: "pair", role: "group", "aria-label": "Zoom" },
    tool("−", "Zoom out (−)", () => plane.zoom(1 / 1.5), { "aria-label": "Zoom out" }),
    tool("+", "Zoom in (+)", () => plane.zoom(1.5), { "aria-label": "Zoom in" }),
    tool("All", "Show the whole map (0)", () => plane.fit()),
  ),
  make("label", { class: "by" }, "Colour by ", by),
);
const stage = make("div", { class: "stage" }, plane.canvas, card, hint);

// Selecting -----------------------------------------------------------------------------------------------------------

function add(ids, event) {
  if (!event.shiftKey && !event.altKey) chosen.clear();
  for (const id of ids) {
    if (event.altKey) chosen.delete(id);
    else chosen.add(id);
  }
  mark();
}

plane.told.onlasso = (ids, event) => add(ids, { altKey: event.altKey, shiftKey: event.shiftKey && rope.getAttribute("aria-pressed") === "true" });
plane.told.onpick = (id, event) => {
  if (id === null) return chosen.size && !event.shiftKey ? clear() : undefined;
  if (event.shiftKey || event.ctrlKey || event.metaKey) {
    if (chosen.has(id)) chosen.delete(id);
    else chosen.add(id);
    return mark();
  }
  add([id], {});
};

marking.push(showPicked);
async function showPicked() {
  const wanted = [...chosen].slice(0, value ? value.most : 24);
  const missing = wanted.filter((id) => !known.has(id));
  if (missing.length) {
    try {
      for (const tile of (await ask("pictures", { images: missing })).tiles) known.set(tile.id, tile);
    } catch (error) {
      return complain(error.message);
    }
  }
  if (known.size > 4000) known.clear();
  const still = wanted.filter((id) => chosen.has(id)).map((id) => known.get(id)).filter(Boolean);
  shownTiles = still;
  // The bar that labels looks here for what is selected; it stays in sight without, with what was done and the undoing.
  if (value) value.sections = [{ key: "picked", tiles: still.length ? still : [{ id: -1 }] }];
  list.replaceChildren(
    ...(chosen.size
      ? [
          make(
            "header",
            {},
            make("h2", {}, chosen.size === 1 ? "1 picture selected" : `${chosen.size.toLocaleString("en")} pictures selected`),
            chosen.size > still.length ? make("span", { class: "note" }, `the first ${still.length} shown`) : null,
            button("Search with these", () => act({ do: "search", images: [...chosen] }), { class: "main" }),
            button("Clear", clear, { class: "plain" }),
          ),
          make("ul", { class: "strip" }, still.map(drawPicked)),
        ]
      : []),
  );
  drawBar();
  const said = bar.querySelector(".state > span");
  if (said && /circle/.test(said.textContent)) said.textContent = "Select pictures on the map to name their class";
}

function drawPicked(tile) {
  const image = make("img", { src: tile.src, alt: "", loading: "lazy", decoding: "async" });
  const take = () => {
    chosen.delete(tile.id);
    mark();
  };
  return make(
    "li",
    {},
    make(
      "button",
      { type: "button", class: "picture", "data-image": tile.id, title: `${tile.path}\nTake it out of the selection`, "aria-label": `${tile.name}: take it out of the selection`, onclick: take },
      image,
    ),
    make("span", { class: "name" }, tile.name),
    tile.label ? make("span", { class: "badge" }, tile.label) : null,
  );
}

plane.told.onhover = async (id, x, y) => {
  hovering = id;
  if (id === null) return card.classList.add("hidden");
  if (!known.has(id)) {
    await new Promise((resume) => setTimeout(resume, 70)); // a hand that passes by asks nothing
    if (hovering !== id) return;
    try {
      for (const tile of (await ask("pictures", { images: [id] })).tiles) known.set(tile.id, tile);
    } catch (error) {
      return;
    }
  }
  const tile = known.get(id);
  if (hovering !== id || !tile) return;
  card.replaceChildren(
    make("img", { src: tile.src, alt: "" }),
    make("strong", {}, tile.name),
    make("span", {}, tile.label ? `Labelled ${tile.label}` : tile.path),
  );
  card.classList.remove("hidden");
  const box = stage.getBoundingClientRect();
  card.style.left = `${Math.max(4, x + 190 > box.width ? x - 186 : x + 16)}px`;
  card.style.top = `${Math.max(4, Math.min(y + 12, box.height - card.offsetHeight - 8))}px`;
};

// Colours ---------------------------------------------------------------------------------------------------------------

function theme() {
  const style = getComputedStyle(board);
  const dark = document.body.classList.contains("dark") || Boolean(board.closest(".dark"));
  return {
    dark,
    hues: dark ? DARK : LIGHT,
    ground: dark ? "#0b0f19" : "#ffffff",
    ink: dark ? "#f8fafc" : "#0f172a",
    none: dark ? "#566073" : "#b4bdca",
    others: dark ? "#94a3b8" : "#7c8798",
    line: style.borderColor,
  };
}

function colour() {
  const { hues, ground, ink, none, others, dark } = theme();
  const palette = [];
  const back = new Uint8Array(256);
  palette[OTHERS] = others;
  palette[NONE] = none;
  if (value && value.by === "match") {
    const from = dark ? [30, 64, 120] : [186, 214, 240], to = dark ? [253, 224, 71] : [190, 24, 60];
    for (let step = 0; step < RAMP; step += 1) {
      const share = step / (RAMP - 1);
      palette[step] = `#${from.map((low, at) => Math.round(low + (to[at] - low) * share).toString(16).padStart(2, "0")).join("")}`;
    }
    back[NONE] = 1;
  } else hues.forEach((hue, kind) => (palette[kind] = hue));
  if (state.only.size) for (const entry of state.legend) back[entry.kind] = state.only.has(entry.kind) ? 0 : 2;
  plane.colours(state.of, palette, back, ground, ink);
  drawLegend(palette);
}

function drawLegend(palette) {
  if (value.by === "match") {
    const match = value.match || {};
    const ramp = make("span", { class: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${palette[0]}, ${palette[RAMP - 1]})`;
    legend.replaceChildren(...(match.ids ? [make("span", {}, match.low), ramp, make("span", {}, match.high)] : []), make("span", { class: "said" }, match.said || ""));
    return;
  }
  legend.replaceChildren(
    ...state.legend.map((entry) => {
      const dot = make("span", { class: "dot" });
      dot.style.background = palette[entry.kind];
      return make(
        "button",
        {
          type: "button",
          class: "kind",
          "aria-pressed": String(state.only.has(entry.kind)),
          title: `Show ${entry.name} alone`,
          onclick: () => {
            if (!state.only.delete(entry.kind)) state.only.add(entry.kind);
            colour();
          },
        },
        dot,
        make("span", { class: "name" }, entry.name),
        make("span", { class: "count" }, entry.count.toLocaleString("en")),
      );
    }),
  );
}

// Fetching --------------------------------------------------------------------------------------------------------------

// Points once a version, colours once a change of labels: neither at a click.
async function fetchWhatChanged() {
  if (state.fetching || !visible()) return;
  state.fetching = true;
  try {
    if (value.version !== state.version) {
      const points = await ask("points");
      const places = bytes(points.places), ids = bytes(points.ids);
      state.ids = new Uint32Array(ids.buffer);
      plane.points(state.ids, new Uint16Array(places.buffer));
      state.version = value.version = points.version;
      state.coloured = null;
      for (const id of [...chosen]) if (!plane.has(id)) chosen.delete(id);
    }
    if (value.by === "match") {
      state.of = new Uint8Array(state.ids.length).fill(NONE);
      const match = value.match;
      if (match && match.ids) {
        const at = new Map([...state.ids].map((id, place) => [id, place]));
        const scores = bytes(match.scores);
        new Uint32Array(bytes(match.ids).buffer).forEach((id, rank) => {
          if (at.has(id)) state.of[at.get(id)] = Math.floor((scores[rank] * (RAMP - 1)) / 255);
        });
      }
      state.coloured = "match";
      state.only.clear();
      colour();
    } else if (state.coloured !== value.coloured) {
      const kinds = await ask("kinds", { by: value.by });
      if (kinds.version === state.version) {
        if (state.coloured === null || !state.coloured.startsWith(value.by)) state.only.clear();
        state.of = bytes(kinds.of);
        state.legend = kinds.legend;
        state.coloured = value.coloured;
        colour();
      } else value.version = kinds.version; // another map meanwhile: once more, below
    }
  } catch (error) {
    complain(error.message);
  } finally {
    state.fetching = false;
  }
  board.dataset.version = state.version || "";
  if (value.version !== state.version) fetchWhatChanged();
}

async function follow() {
  lookingAgain = null;
  if (!board.isConnected) return;
  if (visible()) {
    try {
      Object.assign(value, await ask("status"));
      tell();
      await fetchWhatChanged();
    } catch (error) {
      return complain(error.message);
    }
  }
  if (value.waiting && !lookingAgain) lookingAgain = setTimeout(follow, PAUSE);
}

function tell() {
  note.textContent = value.note;
  meter.classList.toggle("hidden", value.making === null);
  if (value.making !== null) meter.value = value.making;
}

drawing.push(() => {
  if (value.go) {
    // The browser's Back leads here again, and not to what the screen Search showed before.
    history.replaceState({ ...history.state, screen: "Map" }, "");
    openScreen(value.go);
  }
  if (!stage.isConnected) parts.main.replaceChildren(make("div", { class: "about" }, note, meter), tools, legend, stage, list);
  for (const each of [tools, legend, stage]) each.classList.toggle("hidden", Boolean(value.empty));
  if (value.empty) {
    note.textContent = value.empty;
    return;
  }
  by.replaceChildren(...value.ways.map((way) => make("option", { value: way.key, selected: way.key === value.by }, way.name)));
  hint.textContent = "Drag to move, scroll to zoom, hover to see a picture. Draw a lasso to select.";
  known.clear(); // labels may be others now
  tell();
  mark();
  plane.size();
  fetchWhatChanged();
  if (value.waiting && !lookingAgain) lookingAgain = setTimeout(follow, PAUSE);
});

new MutationObserver(() => value && state.version && colour()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
