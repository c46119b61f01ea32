// The screen "Search": asking by pictures that are dropped, pasted, chosen or clicked, by parts of them, by several; the
// filters, the cut-off, the further pages, and the address that carries all of it.

const MAX_UPLOAD = 50 * 1024 * 1024; // as in server.py
const AHEAD = "1500px"; // further pictures are fetched so long before they come into sight
const FEW = 4; // examples that have room for their names
const OWN = ["like", "unlike", "label", "under", "since", "until", "cut"]; // in the address
const LONG = 12; // entries of a filter, from which on one types to find some
const clickSelects = false;
let cut = null; // the score below which nothing is shown
let serial = null; // of the question that is shown
let returning = false; // the address is there already: back, forward, or a link that was opened
let arrived = false;
let adding = null; // what the chosen file is for: a new search, or 1 or -1 to add to this one
let fetching = null; // where the page begins that is on its way

// Asking ------------------------------------------------------------------------------------------------------------

function examples() {
  return value.asked ? value.asked.examples.map(bare) : [];
}

// An example as the server takes it.
function bare({ image, content, upload, weight, part }) {
  return { image, content, upload, weight, part };
}

function asExample(tile) {
  return { image: tile.id, name: tile.path, large: `preview/${tile.id}`, weight: 1, part: null };
}

function ask(wanted, filters) {
  // Nothing to be like: what is not wanted means nothing by itself.
  const some = wanted.some((example) => example.weight > 0);
  act({ do: "ask", examples: some ? wanted : [], ...value.filters, ...filters });
}

function openTile(tile) {
  ask([{ image: tile.id, weight: 1 }]);
}

function add(tile, weight) {
  const others = examples().filter((example) => example.image !== tile.id);
  if (weight < 0 && !others.some((example) => example.weight > 0)) {
    return complain("Search for something first; then say what the results should be less like.");
  }
  ask([...others, { image: tile.id, weight }]);
}

async function send(files) {
  const file = [...(files || [])][0];
  const purpose = adding;
  adding = null;
  if (!file) return complain("That was no picture file. Links are not fetched: save the picture first.");
  if (file.size === 0) return complain(`“${file.name}” is empty (0 bytes). Choose another picture.`);
  if (file.size > MAX_UPLOAD) return complain(`“${file.name}” is too large: the limit is 50 MB.`);
  board.setAttribute("aria-busy", "true");
  try {
    // Under a random name: two people may send the same file at once, and each is deleted when it was read.
    const plain = new File([file], `${Math.random().toString(36).slice(2)}.upload`, { type: file.type });
    const sent = await upload(plain);
    if (!sent || !sent.path) throw new Error("no path");
    act({ do: "upload", path: sent.path, name: file.name, add: purpose !== null, weight: purpose });
  } catch (error) {
    board.removeAttribute("aria-busy");
    complain(`“${file.name}” could not be sent. It may be too large, or massl was stopped.`);
  }
}

const file = make("input", {
  type: "file",
  accept: "image/*,.heic,.heif,.avif,.tif,.tiff",
  class: "hidden",
  tabindex: "-1",
  "aria-label": "Choose a picture to search with",
  onchange: (event) => {
    send(event.target.files);
    event.target.value = "";
  },
});

function pick(purpose) {
  adding = purpose;
  file.click();
}

// The head ----------------------------------------------------------------------------------------------------------

function drawHead() {
  parts.head.replaceChildren(file, drawAsk(), drawFilters(), drawCut());
}

function drawAsk() {
  if (!value.asked) {
    return make(
      "div",
      { class: "ask" },
      make("div", { class: "asked none", "aria-hidden": "true" }, "⌕"),
      make(
        "div",
        { class: "words" },
        make("strong", {}, "Find pictures like yours"),
        make("span", {}, "Drop a picture here, paste one, or click any picture below."),
      ),
      make("div", { class: "buttons" }, button("Choose a picture", () => pick(null), { class: "main" })),
    );
  }
  const own = value.asked.examples.some((example) => example.upload);
  return make(
    "div",
    { class: "ask" },
    make(
      "div",
      { class: "words" },
      make("strong", {}, value.asked.examples.length > 1 ? "Pictures like these" : "Pictures like this one"),
      make("ul", { class: value.asked.examples.length > FEW ? "chips many" : "chips" }, value.asked.examples.map(drawChip)),
      value.asked.note ? make("span", {}, value.asked.note) : null,
      own ? make("span", {}, "This search begins with a picture of your own: its address can't be shared.") : null,
    ),
    make(
      "div",
      { class: "buttons" },
      button("All pictures", () => ask([])),
      button("+ Also like…", () => pick(1), { title: "Add a picture of your own that the results should be like, too" }),
      button("− Less like…", () => pick(-1), { title: "Add a picture of your own that the results should not be like" }),
      button("Another picture", () => pick(null), { class: "main" }),
    ),
  );
}

function drawChip(example, at) {
  const others = () => examples().filter((_, other) => other !== at);
  const replace = (changes) => ask(examples().map((other, place) => (place === at ? { ...other, ...changes } : other)));
  const wanted = example.weight > 0;
  const look = make("div", { class: "look", title: example.name }, make("img", { class: "asked", src: example.src, alt: `Searched with: ${example.name}` }));
  const sheet = make("span", { class: "sheet" });
  if (example.part) {
    const frame = make("span", { class: "box" });
    ["left", "top", "width", "height"].forEach((side, place) => (frame.style[side] = `${100 * example.part[place]}%`));
    sheet.append(look.firstChild, frame);
    look.append(sheet);
  }
  return make(
    "li",
    { class: wanted ? "chip" : "chip minus" },
    button(wanted ? "+" : "−", () => replace({ weight: -example.weight }), {
      class: "sign",
      title: wanted ? "The results are like this one. Press for less like it" : "The results are not like this one. Press for like it",
      "aria-label": wanted ? `Like ${example.name}; press for less like it` : `Less like ${example.name}; press for like it`,
    }),
    look,
    make("span", { class: "name", title: example.name }, example.name.split("/").pop()),
    button("Part", () => openRegion(example, (part) => replace({ part })), {
      class: example.part ? "link set" : "link",
      "aria-label": `Search by a part of ${example.name}`,
    }),
    button("×", () => ask(others()), { class: "remove", "aria-label": `Remove ${example.name} from the search` }),
  );
}

let closed = null; // the filter that the keyboard is at, which is about to be drawn anew
const choosers = {}; // by filter: kept while somebody chooses in it, whatever else is drawn anew

// Several of some: a list of boxes to tick, asked for when it is closed. `names` is what they are called, one and many.
function chooser(names, key, entries) {
  const current = value.filters[key];
  const gone = current.filter((each) => !entries.some((entry) => entry.value === each));
  const all = [...gone.map((each) => ({ value: each, text: each })), ...entries];
  const shows = JSON.stringify([current, all]);
  const before = choosers[key];
  if (before && (before.node.open || before.shows === shows)) return before.node;
  const wanted = new Set(current);
  const list = make("ul", {});
  const search = make("input", { type: "search", placeholder: `Find among ${all.length.toLocaleString("en")}`, "aria-label": `Find among the ${names[1]}`, oninput: narrow });
  const close = () => {
    node.open = false;
    closed = key;
    node.querySelector("summary").focus();
  };
  const said = current.length === 1 ? current[0] : current.length ? `${current.length} ${names[1]}` : `All ${names[1]}`;
  const node = make(
    "details",
    { class: current.length ? "choice set" : "choice", ontoggle: toggled },
    make("summary", { title: current.join(", ") || null, "aria-label": `Only these ${names[1]}: ${said}` }, make("span", {}, said)),
    make(
      "div",
      { class: "panel", role: "group", "aria-label": `Only these ${names[1]}` },
      all.length > LONG ? search : null,
      list,
      make(
        "div",
        { class: "buttons" },
        button(`All ${names[1]}`, () => {
          wanted.clear();
          close();
        }),
        button("Show", close, { class: "main" }),
      ),
    ),
  );
  function toggled() {
    if (node.open) {
      for (const other of Object.values(choosers)) if (other.node !== node) other.node.open = false;
      // Those that are chosen first: among hundreds they would not be found again.
      const order = [...all.filter((entry) => wanted.has(entry.value)), ...all.filter((entry) => !wanted.has(entry.value))];
      list.replaceChildren(...order.map(box));
    } else if (wanted.size !== current.length || current.some((each) => !wanted.has(each))) {
      ask(examples(), { [key]: [...wanted] });
    }
  }
  function box(entry) {
    const tick = make("input", { type: "checkbox", checked: wanted.has(entry.value), onchange: () => wanted[tick.checked ? "add" : "delete"](entry.value) });
    return make("li", {}, make("label", {}, tick, make("span", {}, entry.text)));
  }
  function narrow() {
    const sought = search.value.trim().toLowerCase();
    for (const item of list.children) item.hidden = !item.textContent.toLowerCase().includes(sought);
  }
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.tagName === "INPUT") close();
    if (event.key !== "Escape" || !node.open) return;
    event.stopPropagation();
    close();
  });
  choosers[key] = { shows, node };
  return node;
}

document.addEventListener("pointerdown", (event) => {
  for (const { node } of Object.values(choosers)) if (node.open && !node.contains(event.target)) node.open = false;
});

function drawFilters() {
  const { filters, choices } = value;
  const date = (name, key) =>
    make(
      "label",
      { class: filters[key] ? "date set" : "date" },
      name,
      make("input", {
        type: "date",
        value: filters[key],
        min: choices.first,
        max: choices.last,
        "aria-label": `${name} this day, by when the file was last changed`,
        // Of a year that is being typed every digit is told: that of 2 A.D. is not what is meant.
        onchange: (event) => (!event.target.value || event.target.value >= "1000") && ask(examples(), { [key]: event.target.value }),
      }),
    );
  const any = filters.labels.length || filters.folders.length || filters.since || filters.until;
  return make(
    "div",
    { class: "filters", role: "group", "aria-label": "Filters" },
    choices.folders.length
      ? chooser(
          ["folder", "folders"],
          "folders",
          choices.folders.map((entry) => ({ value: entry.path, text: `${entry.name} (${entry.count})` })),
        )
      : null,
    value.classes.length
      ? chooser(
          ["label", "labels"],
          "labels",
          value.classes.map((entry) => ({ value: entry.name, text: `${entry.name} (${entry.count})` })),
        )
      : null,
    date("From", "since"),
    date("Until", "until"),
    any ? button("Clear filters", () => ask(examples(), { labels: [], folders: [], since: "", until: "" }), { class: "link" }) : null,
  );
}

// The cut-off -------------------------------------------------------------------------------------------------------

function cutsOff(tile) {
  return cut !== null && tile.value !== undefined && tile.value < cut;
}

function levelOfCut() {
  return cut === null ? undefined : value.levels.findLast((level) => level.score <= cut + 1e-6);
}

function countOf(number) {
  return number === 1 ? "1 picture" : `${number.toLocaleString("en")} pictures`;
}

function drawCut() {
  if (!value.levels.length) return "";
  const told = make("output", { class: "calm", for: "massl-cut" });
  const slider = make("input", {
    id: "massl-cut",
    type: "range",
    min: "0",
    max: String(value.levels.length),
    step: "1",
    "aria-label": "Show only pictures at least this similar",
  });
  const tell = () => {
    const level = value.levels[Number(slider.value) - 1];
    cut = level ? level.score : null;
    told.textContent = level
      ? `${countOf(level.above)} with a similarity of ${level.score.toFixed(2)} or more; ${level.chance}`
      : "Everything is shown, the least alike last";
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  slider.addEventListener("input", () => {
    tell();
    applyCut();
  });
  slider.addEventListener("change", () => remember(false));
  slider.value = value.levels.indexOf(levelOfCut()) + 1;
  tell();
  return make("div", { class: "cut" }, make("label", { for: "massl-cut" }, "Cut-off"), slider, told);
}

// Best first: what is hidden begins at one place, and ends with the last.
function applyCut() {
  for (const section of value.sections) {
    for (const tile of section.tiles) nodeOf(section, tile).hidden = cutsOff(tile);
    const seen = section.tiles.filter((tile) => !cutsOff(tile));
    const all = parts.main.querySelector("header .link");
    if (all) all.textContent = `Select all ${seen.length} shown`;
    const more = parts.main.querySelector(".more");
    if (more) more.hidden = seen.length < section.tiles.length;
    const note = parts.main.querySelector("header .note");
    const level = levelOfCut();
    if (note) note.textContent = level ? `${countOf(level.above)} above the cut-off` : section.note;
    for (const tile of section.tiles) if (cutsOff(tile)) chosen.delete(tile.id);
  }
  mark();
}

// Further pages -----------------------------------------------------------------------------------------------------

const nearEnd = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && fetchMore(), { rootMargin: AHEAD });

function fetchMore() {
  const section = value.sections[0];
  if (!section.more || fetching === section.tiles.length || !visible()) return;
  fetching = section.tiles.length;
  trigger("act", { do: "more", from: fetching, serial: value.serial });
}

function watchEnd() {
  nearEnd.disconnect();
  const more = parts.main.querySelector(".more:not([hidden])");
  if (more) nearEnd.observe(more);
}

asides.more = (answer) => {
  const section = value.sections[0];
  fetching = null;
  if (answer.serial !== value.serial || answer.from !== section.tiles.length) return;
  section.more = answer.more;
  section.tiles.push(...answer.tiles);
  const fresh = answer.tiles.map((tile) => nodeOf(section, tile));
  for (const node of fresh) node.querySelector(".picture").setAttribute("tabindex", "-1");
  parts.main.querySelector(".tiles").append(...fresh);
  if (!answer.more) parts.main.querySelector(".more").remove();
  applyCut();
  watchEnd();
};

// Tiles -------------------------------------------------------------------------------------------------------------

function tileTools(tile) {
  const tool = (text, name, does, kind) =>
    make("button", { type: "button", class: kind || "", tabindex: "-1", title: name, "aria-label": `${name}: ${tile.name}`, onclick: does }, text);
  return make(
    "div",
    { class: "tools" },
    tile.score ? tool("+", "Also like this one (key +)", () => add(tile, 1), "sign") : null,
    tile.score ? tool("−", "Less like this one (key −)", () => add(tile, -1), "sign") : null,
    tool("i", "About this picture (key i)", () => openDetails(tile)),
  );
}

board.addEventListener("keydown", (event) => {
  const picture = event.target.closest(".picture");
  if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
  const tile = value.sections[0].tiles.find((each) => each.id === Number(picture.dataset.image));
  if (!tile) return;
  if (event.key === "i") openDetails(tile);
  else if (event.key === "+") add(tile, 1);
  else if (event.key === "-" || event.key === "−") add(tile, -1);
});

// The address -------------------------------------------------------------------------------------------------------

// What is shown, as an address says it; an upload has none.
function written() {
  const query = new URLSearchParams(location.search);
  for (const name of OWN) query.delete(name);
  const asked = value.asked ? value.asked.examples : [];
  if (!asked.some((example) => example.upload)) {
    for (const { content, part, weight } of asked) {
      const where = part ? `@${part.map((share) => Number(share.toFixed(3))).join(",")}` : "";
      query.append(weight > 0 ? "like" : "unlike", content + where);
    }
  }
  for (const label of value.filters.labels) query.append("label", label);
  for (const folder of value.filters.folders) query.append("under", folder);
  for (const key of ["since", "until"]) if (value.filters[key]) query.append(key, value.filters[key]);
  if (cut !== null) query.append("cut", cut.toFixed(2));
  return `${location.pathname}${[...query].length ? `?${query}` : ""}${location.hash}`;
}

function read() {
  const query = new URLSearchParams(location.search);
  const example = (text, weight) => {
    const [content, part] = text.split("@");
    return { content, weight, part: part ? part.split(",").map(Number) : null };
  };
  return {
    examples: [...query.getAll("like").map((text) => example(text, 1)), ...query.getAll("unlike").map((text) => example(text, -1))],
    labels: query.getAll("label"),
    folders: query.getAll("under"),
    since: query.get("since") || "",
    until: query.get("until") || "",
    cut: query.has("cut") && Number.isFinite(Number(query.get("cut"))) ? Number(query.get("cut")) : null,
  };
}

function remember(fresh) {
  const state = { ...history.state, massl: { examples: examples(), ...value.filters, cut } };
  if (fresh) delete state.screen; // the one before it may have been left on another screen
  if (fresh) history.pushState(state, "", written());
  else history.replaceState(state, "", written());
}

function goTo({ cut: wanted, ...question }) {
  returning = true;
  cut = wanted;
  act({ do: "ask", ...question });
}

addEventListener("popstate", (event) => {
  if (!board.isConnected) return;
  const state = event.state || {};
  goTo(state.massl || read());
  openScreen(state.screen || "Search");
});

// Before anything is drawn: a new question begins without a cut-off, and has an address of its own.
drawing.unshift(() => {
  if (serial !== null && value.serial !== serial && !returning) cut = null;
});
drawing.push(drawHead);
drawing.push(() => {
  if (closed && choosers[closed] && document.activeElement === document.body) choosers[closed].node.querySelector("summary").focus();
  closed = null;
  applyCut();
  watchEnd();
  if (!arrived) {
    arrived = true;
    serial = value.serial;
    if (OWN.some((name) => new URLSearchParams(location.search).has(name))) goTo(read());
    return;
  }
  if (value.message && value.message.kind === "error") returning = false;
  if (value.serial === serial) return;
  remember(!returning);
  serial = value.serial;
  returning = false;
  fetching = null;
  if (scrollY > 0 && parts.head.getBoundingClientRect().top < 0) parts.head.scrollIntoView({ block: "start" });
});

// Drop and paste ----------------------------------------------------------------------------------------------------

function onPaste(event) {
  if (!visible() || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
  const files = [...(event.clipboardData ? event.clipboardData.files : [])];
  if (files.length) {
    event.preventDefault();
    send(files);
  }
}

document.addEventListener("paste", onPaste);
board.addEventListener("dragover", (event) => {
  event.preventDefault();
  board.classList.add("dropping");
});
board.addEventListener("dragleave", (event) => {
  if (!board.contains(event.relatedTarget)) board.classList.remove("dropping");
});
board.addEventListener("drop", (event) => {
  event.preventDefault();
  board.classList.remove("dropping");
  send(event.dataTransfer.files);
});
