// The grid of pictures, and the controls around it. Runs once a board, as the body of a function of
// (element, trigger, props, server, upload, watch); see gradio.HTML. What to draw comes as props.value from view.py;
// what was done goes back with trigger("act", {do: ...}) to actions.py.
//
// File names, labels and messages are anyone's: they are only ever set as text or as attributes, never as HTML.

const board = element.querySelector(".massl-board");
const screenName = board.dataset.screen;
const MAX_UPLOAD = 50 * 1024 * 1024; // as in server.py
const chosen = new Set(); // ids of the selected pictures
let value = null;
let anchor = null; // where a range selection starts
let draft = ""; // the class name being typed, kept over redraws
let downloaded = 0;

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, entry] of Object.entries(attributes || {})) {
    if (entry === null || entry === undefined || entry === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), entry);
    else node.setAttribute(key, entry === true ? "" : entry);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

function button(text, onclick, attributes) {
  return make("button", { type: "button", class: "plain", onclick, ...attributes }, text);
}

// Acting ------------------------------------------------------------------------------------------------------------

let waiting = null;

function act(what) {
  board.setAttribute("aria-busy", "true");
  clearTimeout(waiting);
  // An answer that never comes (the server was stopped) must not leave the page looking busy for ever.
  waiting = setTimeout(() => {
    board.removeAttribute("aria-busy");
    complain("No answer. Is massl still running? Reload the page to try again.");
  }, 120000);
  trigger("act", what);
}

function label(name) {
  name = name.trim();
  if (!name) return;
  if (!chosen.size) return complain("Select some pictures first: the circle in a picture's corner, or Space.");
  draft = "";
  act({ do: "label", images: [...chosen], label: name });
  clear();
}

function withChosen(what) {
  if (!chosen.size) return;
  act({ do: what, images: [...chosen] });
  clear();
}

async function ask(files) {
  const file = [...(files || [])][0];
  if (!file) return complain("That was no picture file. Links are not fetched: save the picture first.");
  if (file.size === 0) return complain(`“${file.name}” is empty (0 bytes). Choose another picture.`);
  if (file.size > MAX_UPLOAD) return complain(`“${file.name}” is too large: the limit is 50 MB.`);
  board.setAttribute("aria-busy", "true");
  try {
    // Under a random name: two people may send the same file at once, and each is deleted when it was read.
    const plain = new File([file], `${Math.random().toString(36).slice(2)}.upload`, { type: file.type });
    const sent = await upload(plain);
    if (!sent || !sent.path) throw new Error("no path");
    act({ do: "upload", path: sent.path, name: file.name });
  } catch (error) {
    board.removeAttribute("aria-busy");
    complain(`“${file.name}” could not be sent. It may be too large, or massl was stopped.`);
  }
}

// Selecting ---------------------------------------------------------------------------------------------------------

function pictures() {
  return [...board.querySelectorAll(".picture")];
}

function choose(id, on) {
  if (on) chosen.add(id);
  else chosen.delete(id);
}

function toggle(picture, event) {
  const id = Number(picture.dataset.image);
  const all = pictures();
  const from = all.findIndex((other) => other.dataset.image === anchor);
  if (event && event.shiftKey && from >= 0) {
    const to = all.indexOf(picture);
    for (const other of all.slice(Math.min(from, to), Math.max(from, to) + 1)) choose(Number(other.dataset.image), true);
  } else {
    choose(id, !chosen.has(id));
    anchor = picture.dataset.image;
  }
  mark();
}

function clear() {
  chosen.clear();
  anchor = null;
  mark();
}

function chooseAll(section) {
  const ids = section.tiles.map((tile) => tile.id);
  const every = ids.every((id) => chosen.has(id));
  for (const id of ids) choose(id, !every);
  mark();
}

// Shows the selection without drawing everything again.
function mark() {
  for (const tile of board.querySelectorAll(".tile")) {
    const on = chosen.has(Number(tile.dataset.image));
    tile.classList.toggle("chosen", on);
    tile.querySelector(".tick").setAttribute("aria-checked", String(on));
  }
  board.classList.toggle("choosing", chosen.size > 0);
  drawBar();
}

// Drawing -----------------------------------------------------------------------------------------------------------

const parts = {};

function build() {
  parts.file = make("input", {
    type: "file",
    accept: "image/*,.heic,.heif,.avif,.tif,.tiff",
    class: "hidden",
    tabindex: "-1",
    "aria-label": "Choose a picture to search with",
    onchange: (event) => {
      ask(event.target.files);
      event.target.value = "";
    },
  });
  parts.head = make("div", { class: "head" });
  parts.message = make("div", { class: "message error", role: "alert" });
  parts.sections = make("div", { class: "sections" });
  parts.bar = make("div", { class: "bar", role: "region", "aria-label": "Label the selected pictures" });
  // What a screen reader says: it has to stay in place, while the bar is drawn anew.
  parts.told = make("div", { class: "told", role: "status" });
  board.replaceChildren(parts.told, parts.file, parts.head, parts.message, parts.sections, parts.bar);
}

// An error, where nobody overlooks it. (What was done is told in the bar, where the hand just was.)
function complain(text) {
  parts.message.replaceChildren(...(text ? [make("span", {}, text)] : []));
  if (text) parts.message.scrollIntoView({ block: "nearest" });
}

function draw() {
  board.removeAttribute("aria-busy");
  clearTimeout(waiting);
  const focused = document.activeElement && board.contains(document.activeElement) ? document.activeElement : null;
  const back = focused && focused.dataset.image;
  parts.head.replaceChildren(...(value.screen === "find" ? findHead() : sortHead()));
  complain(value.message && value.message.kind === "error" ? value.message.text : "");
  drawSections();
  mark();
  if (back) {
    const again = board.querySelector(`.picture[data-image="${Number(back)}"]`) || pictures()[0];
    if (again) again.focus({ preventScroll: true });
  }
  if (value.download && value.turn > downloaded) {
    downloaded = value.turn;
    save(value.download);
  }
}

function findHead() {
  const pick = (text, kind) => button(text, () => parts.file.click(), { class: kind });
  const asked = value.asked;
  const look = asked
    ? make("img", { class: "asked", src: asked.src, alt: `The picture searched with: ${asked.name}` })
    : make("div", { class: "asked none", "aria-hidden": "true" }, "⌕");
  const words = asked
    ? make("div", { class: "words" }, make("strong", {}, "Pictures like this one"), make("span", { class: "name" }, asked.name))
    : make(
        "div",
        { class: "words" },
        make("strong", {}, "Find pictures like yours"),
        make("span", {}, "Drop a picture here, paste one, or click any picture below."),
      );
  const sizes = make(
    "select",
    { "aria-label": "Pictures a page", onchange: (event) => act({ do: "size", size: Number(event.target.value) }) },
    value.pages.map((size) => make("option", { value: size, selected: size === value.page }, `Show ${size}`)),
  );
  return [
    make(
      "div",
      { class: "ask" },
      look,
      words,
      make(
        "div",
        { class: "buttons" },
        asked ? button("All pictures", () => act({ do: "browse" })) : null,
        pick(asked ? "Another picture" : "Choose a picture", "main"),
        sizes,
      ),
    ),
  ];
}

function sortHead() {
  const sorted = value.sections.length > 0;
  const go = button(sorted ? "Sort again" : "Sort everything", () => act({ do: "classify" }), {
    class: !sorted || value.behind ? "main" : "plain",
    disabled: !value.ready,
  });
  const orders = (value.orders || []).map((order) =>
    button(order.name, () => act({ do: "order", order: order.key }), {
      class: "order",
      "aria-pressed": String(order.key === value.order),
    }),
  );
  return [
    make(
      "div",
      { class: "ask" },
      make(
        "div",
        { class: "words" },
        make("strong", {}, "Sort every picture into your classes"),
        value.summary.length
          ? value.summary.map((line) => make("span", {}, line))
          : make("span", {}, "A few labelled pictures of each class are enough to sort all the others."),
        value.behind ? make("span", { class: "behind" }, "Labels have changed since: sort again to see their effect.") : null,
      ),
      make(
        "div",
        { class: "buttons" },
        go,
        sorted ? button("Download as CSV", () => act({ do: "csv" })) : null,
      ),
    ),
    orders.length ? make("div", { class: "orders", role: "group", "aria-label": "Order" }, orders) : null,
  ].filter(Boolean);
}

// Tiles are kept from one drawing to the next, so that pictures don't flicker.
const kept = new Map();

function drawSections() {
  const used = new Set();
  const drawn = value.sections.map((section) => {
    const tiles = section.tiles.map((tile) => {
      const key = `${section.key}\n${tile.id}`;
      used.add(key);
      const wanted = JSON.stringify(tile);
      let entry = kept.get(key);
      if (!entry || entry.wanted !== wanted) {
        entry = { wanted, node: drawTile(tile) };
        kept.set(key, entry);
      }
      return entry.node;
    });
    return make(
      "section",
      { "aria-label": section.title },
      make(
        "header",
        {},
        make("h2", {}, section.title),
        make("span", { class: "note" }, section.note),
        section.tiles.length ? button(`Select all ${section.tiles.length}`, () => chooseAll(section), { class: "link" }) : null,
      ),
      section.tiles.length
        ? make("ul", { class: "tiles" }, tiles)
        : make("p", { class: "nothing" }, "None."),
      section.more ? button("Show more", () => act({ do: "more", section: section.key }), { class: "plain more" }) : null,
    );
  });
  for (const key of kept.keys()) if (!used.has(key)) kept.delete(key);
  const empty = value.empty ? [make("p", { class: "empty" }, value.empty)] : [];
  parts.sections.replaceChildren(...drawn, ...empty);
  const first = pictures();
  first.forEach((picture, position) => picture.setAttribute("tabindex", position ? "-1" : "0"));
}

function drawTile(tile) {
  const guess = tile.guess && !tile.label ? tile.guess : null;
  const described = [tile.path, tile.hint].filter(Boolean).join("\n");
  const spoken = [
    tile.name,
    tile.bandName ? `${tile.bandName}, similarity ${tile.score}` : null,
    guess ? `probably ${guess}, ${tile.score}` : null,
    tile.label ? `labelled ${tile.label}` : null,
  ].filter(Boolean);
  const image = make("img", { src: tile.src, alt: spoken.join(", "), loading: "lazy", decoding: "async", draggable: "false" });
  image.addEventListener("error", () => {
    image.replaceWith(make("span", { class: "missing" }, "This picture can't be shown"));
  });
  const click = (event) => {
    const selecting = chosen.size > 0 || event.shiftKey || event.ctrlKey || event.metaKey || screenName === "sort";
    if (selecting) toggle(event.currentTarget, event);
    else act({ do: "similar", image: tile.id });
  };
  const picture = make("button", { type: "button", class: "picture", "data-image": tile.id, title: described, onclick: click }, image);
  const tick = make("button", {
    type: "button",
    class: "tick",
    role: "checkbox",
    "aria-checked": "false",
    "aria-label": `Select ${tile.name}`,
    tabindex: "-1",
    onclick: (event) => toggle(picture, event),
  });
  const caption = make(
    "div",
    { class: "caption" },
    make("span", { class: "name", title: tile.path }, guess || tile.name),
    tile.score
      ? make("span", { class: `score ${tile.band || ""}`, title: tile.hint || "" }, tile.score)
      : null,
  );
  return make(
    "li",
    { class: "tile", "data-image": tile.id },
    make("div", { class: "frame" }, picture, tick, tile.label ? make("span", { class: "badge", title: `Labelled ${tile.label}` }, tile.label) : null),
    caption,
    tile.bandName ? make("div", { class: `band ${tile.band}` }, tile.bandName) : null,
  );
}

function drawBar() {
  if (!value) return;
  parts.bar.classList.toggle("hidden", !value.sections.some((section) => section.tiles.length));
  const any = chosen.size > 0;
  const typed = parts.bar.querySelector("input");
  const typing = typed && document.activeElement === typed;
  const input = make("input", {
    type: "text",
    maxlength: "100",
    placeholder: "Name of a class",
    "aria-label": "Name of a class for the selected pictures",
    autocomplete: "off",
    spellcheck: "false",
  });
  input.value = draft;
  input.addEventListener("input", () => (draft = input.value));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      label(input.value);
    } else if (event.key === "Escape") input.blur();
    event.stopPropagation();
  });
  const classes = value.classes.map((entry, position) =>
    make(
      "button",
      {
        type: "button",
        class: "class",
        disabled: !any,
        title: position < 9 ? `Label the selected pictures “${entry.name}” (key ${position + 1})` : `Label the selected pictures “${entry.name}”`,
        onclick: () => label(entry.name),
      },
      position < 9 ? make("kbd", {}, String(position + 1)) : null,
      make("span", { class: "name" }, entry.name),
      make("span", { class: "count" }, String(entry.count)),
    ),
  );
  const done = value.message && value.message.kind === "done" ? value.message.text : "";
  const hint = value.classes.length
    ? "Select pictures to label them"
    : "Select pictures by the circle in their corner, then name their class";
  parts.told.textContent = any ? `${chosen.size} selected` : done;
  const guessed = value.sections.some((section) => section.tiles.some((tile) => chosen.has(tile.id) && tile.guess && !tile.label));
  const labelled = value.sections.some((section) => section.tiles.some((tile) => chosen.has(tile.id) && tile.label));
  parts.bar.replaceChildren(
    make(
      "div",
      { class: "state" },
      any
        ? [make("strong", {}, `${chosen.size} selected`), button("Clear", clear, { class: "link" })]
        : make("span", {}, done || hint),
      value.undo ? button("Undo", () => act({ do: "undo" }), { class: "link", title: `Undo: ${value.undo}` }) : null,
    ),
    make("div", { class: "classes" }, classes),
    make(
      "div",
      { class: "give" },
      any && guessed ? button("Accept predictions", () => withChosen("accept"), { class: "main" }) : null,
      any ? input : null,
      any ? button("Label", () => label(input.value), { class: guessed ? "plain" : "main" }) : null,
      any && labelled ? button("Remove label", () => withChosen("unlabel")) : null,
    ),
  );
  if (typing && any) input.focus();
}

function save(download) {
  const url = URL.createObjectURL(new Blob([download.text], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: url, download: download.name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// Keyboard, drop, paste ---------------------------------------------------------------------------------------------

function visible() {
  return board.isConnected && board.offsetParent !== null;
}

function move(picture, key) {
  const all = pictures();
  const here = all.indexOf(picture);
  const box = picture.getBoundingClientRect();
  let to = here;
  if (key === "ArrowLeft") to = here - 1;
  else if (key === "ArrowRight") to = here + 1;
  else if (key === "Home") to = 0;
  else if (key === "End") to = all.length - 1;
  else {
    // The nearest picture in the row above or below: rows differ in length where one class ends.
    const down = key === "ArrowDown";
    const rows = all
      .map((other, index) => ({ index, at: other.getBoundingClientRect() }))
      .filter(({ at }) => (down ? at.top > box.top + 4 : at.top < box.top - 4));
    if (!rows.length) return;
    const top = down ? Math.min(...rows.map(({ at }) => at.top)) : Math.max(...rows.map(({ at }) => at.top));
    const row = rows.filter(({ at }) => Math.abs(at.top - top) < 4);
    to = row.reduce((best, other) => (Math.abs(other.at.left - box.left) < Math.abs(best.at.left - box.left) ? other : best)).index;
  }
  const next = all[Math.max(0, Math.min(all.length - 1, to))];
  for (const other of all) other.setAttribute("tabindex", other === next ? "0" : "-1");
  next.focus();
}

board.addEventListener("keydown", (event) => {
  const picture = event.target.closest(".picture");
  if (!picture) return;
  if (event.key === " ") {
    event.preventDefault();
    toggle(picture, event);
  } else if (/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(event.key)) {
    event.preventDefault();
    const before = picture;
    if (event.shiftKey && anchor === null) toggle(before);
    move(picture, event.key);
    if (event.shiftKey) toggle(document.activeElement, event);
  } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    for (const other of pictures()) choose(Number(other.dataset.image), true);
    mark();
  }
});
// A button answers Space when it is let go: without this the picture would be searched for as well.
board.addEventListener("keyup", (event) => {
  if (event.key === " " && event.target.closest(".picture")) event.preventDefault();
});

function onKey(event) {
  if (!visible() || !value || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  if (event.key === "Escape" && chosen.size) clear();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && value.undo) {
    event.preventDefault();
    act({ do: "undo" });
  } else if (/^[1-9]$/.test(event.key) && chosen.size && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const entry = value.classes[Number(event.key) - 1];
    if (entry) label(entry.name);
  }
}

function onPaste(event) {
  if (!visible() || screenName !== "find" || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
  const files = [...(event.clipboardData ? event.clipboardData.files : [])];
  if (files.length) {
    event.preventDefault();
    ask(files);
  }
}

document.addEventListener("keydown", onKey);
document.addEventListener("paste", onPaste);
if (screenName === "find") {
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
    ask(event.dataTransfer.files);
  });
}

// -------------------------------------------------------------------------------------------------------------------

build();

function update() {
  if (!props.value || typeof props.value !== "object") return;
  value = props.value;
  const here = new Set(value.sections.flatMap((section) => section.tiles.map((tile) => tile.id)));
  for (const id of [...chosen]) if (!here.has(id)) chosen.delete(id);
  draw();
}

watch("value", update);
update();
