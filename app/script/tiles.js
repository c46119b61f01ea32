// Grids of pictures: drawing and selecting them. A screen's own script says what a click on a picture does, openTile, and
// whether clicking selects, clickSelects. It may add buttons to a tile, tileTools, leave some out of sight, cutsOff,
// and fetch further ones in its own way, fetchMore.

const chosen = new Set(); // ids of the selected pictures
let anchor = null; // where a range selection starts

// Selecting ---------------------------------------------------------------------------------------------------------

function pictures() {
  return [...board.querySelectorAll(".tile:not([hidden]) .picture")];
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
  const ids = section.tiles.filter((tile) => !outOfSight(tile)).map((tile) => tile.id);
  const every = ids.every((id) => chosen.has(id));
  for (const id of ids) choose(id, !every);
  mark();
}

function outOfSight(tile) {
  return typeof cutsOff === "function" && cutsOff(tile);
}

// Shows the selection without drawing everything again.
function mark() {
  for (const tile of board.querySelectorAll(".tile")) {
    const on = chosen.has(Number(tile.dataset.image));
    tile.classList.toggle("chosen", on);
    tile.querySelector(".tick").setAttribute("aria-checked", String(on));
  }
  board.classList.toggle("choosing", chosen.size > 0);
  for (const each of marking) each();
}

const marking = []; // functions that follow the selection

// Drawing -----------------------------------------------------------------------------------------------------------

// Tiles are kept from one drawing to the next, so that pictures don't flicker.
const kept = new Map();

function showMore(section) {
  if (typeof fetchMore === "function") fetchMore();
  else act({ do: "more", section: section.key });
}

function nodeOf(section, tile) {
  const key = `${section.key}\n${tile.id}`;
  const wanted = JSON.stringify(tile);
  let entry = kept.get(key);
  if (!entry || entry.wanted !== wanted) {
    entry = { wanted, node: drawTile(tile) };
    kept.set(key, entry);
  }
  return entry.node;
}

function drawSections() {
  const used = new Set();
  const drawn = value.sections.map((section) => {
    const tiles = section.tiles.map((tile) => {
      used.add(`${section.key}\n${tile.id}`);
      return nodeOf(section, tile);
    });
    return make(
      "section",
      { "aria-label": section.title },
      make(
        "header",
        {},
        make("h2", {}, section.title),
        make("span", { class: "note" }, section.note),
        section.tiles.length ? button(`Select all ${section.tiles.length} shown`, () => chooseAll(section), { class: "link" }) : null,
      ),
      section.tiles.length
        ? make("ul", { class: "tiles" }, tiles)
        : make("p", { class: "nothing" }, "None."),
      section.more ? button("Show more", () => showMore(section), { class: "plain more" }) : null,
    );
  });
  for (const key of kept.keys()) if (!used.has(key)) kept.delete(key);
  const empty = value.empty ? [make("p", { class: "empty" }, value.empty)] : [];
  parts.main.replaceChildren(...drawn, ...empty);
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
    const selecting = chosen.size > 0 || event.shiftKey || event.ctrlKey || event.metaKey || clickSelects;
    if (selecting) toggle(event.currentTarget, event);
    else openTile(tile);
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
    make("div", { class: "frame" }, picture, tick, typeof tileTools === "function" ? tileTools(tile) : null, tile.label ? make("span", { class: "badge", title: `Labelled ${tile.label}` }, tile.label) : null),
    caption,
    tile.bandName
      ? make("div", { class: `band ${tile.band}`, title: tile.hint || "" }, [tile.bandName, tile.chance].filter(Boolean).join(" · "))
      : null,
  );
}

drawing.push(() => {
  const here = new Set(value.sections.flatMap((section) => section.tiles.map((tile) => tile.id)));
  for (const id of [...chosen]) if (!here.has(id)) chosen.delete(id);
  const focused = document.activeElement && board.contains(document.activeElement) ? document.activeElement : null;
  const back = focused && focused.dataset.image;
  drawSections();
  mark();
  if (back) {
    const again = board.querySelector(`.picture[data-image="${Number(back)}"]`) || pictures()[0];
    if (again) again.focus({ preventScroll: true });
  }
});

// Keyboard ----------------------------------------------------------------------------------------------------------

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
