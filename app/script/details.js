// One picture looked at: what is known of it, labelled ones like it, and why it was found.

const details = make("dialog", { class: "details", tabindex: "-1", "aria-label": "About this picture" });
let looked = null; // the tile that is looked at
let heated = null; // the answer that says why it was found
let warm = true; // whether that is shown
const DIM = 225; // of 255: how dark the part that is least alike becomes; a colour would be lost on a picture of that colour

function openDetails(tile) {
  looked = tile;
  heated = null;
  drawDetails({ name: tile.path, src: tile.src, facts: [], neighbours: [] });
  if (!details.isConnected) {
    board.append(details);
    details.addEventListener("keydown", step);
    details.addEventListener("click", (event) => event.target === details && details.close());
  }
  if (!details.open) details.showModal();
  trigger("act", { do: "details", image: tile.id });
}

// The picture before or after it in the grid, by the arrow keys.
function step(event) {
  if (!/^Arrow(Left|Right)$/.test(event.key) || event.target.matches("input[type=text]")) return;
  const tiles = value.sections.flatMap((section) => section.tiles).filter((tile) => !outOfSight(tile));
  const at = tiles.findIndex((tile) => tile.id === looked.id);
  const next = tiles[at + (event.key === "ArrowLeft" ? -1 : 1)];
  if (at >= 0 && next) openDetails(next);
}

function drawDetails(answer) {
  const leave = (what) => () => {
    details.close();
    what();
  };
  const image = make("img", { src: answer.src, alt: answer.name });
  const sheet = make("div", { class: "sheet" }, image);
  const picture = make("div", { class: "look" }, sheet);
  fitWhenLoaded(image, sheet, 64);
  image.addEventListener("error", () => image.remove()); // the small one stays, and the words beside it say why
  // The small one stands in until the large one is there.
  if (answer.src !== looked.src) sheet.style.background = `center / contain no-repeat url("${looked.src}")`;
  if (answer.ratio) fitSheet(sheet, answer.ratio, 64);
  const path = make("input", { type: "text", readonly: true, value: answer.path || "", "aria-label": "Path of the file" });
  const copy = button("Copy path", async () => {
    path.select();
    try {
      await navigator.clipboard.writeText(answer.path);
    } catch {
      document.execCommand("copy"); // without https the clipboard is closed to scripts, but not to a selection
    }
    copy.textContent = "Copied";
  });
  const why = make("p", { class: "why", role: "status" });
  details.replaceChildren(
    make(
      "div",
      { class: "sides" },
      make("div", { class: "left" }, picture, why),
      make(
        "div",
        { class: "right" },
        make("h2", {}, answer.name),
        answer.trouble ? make("p", { class: "trouble", role: "alert" }, answer.trouble) : null,
        answer.match ? make("p", { class: "calm" }, answer.match) : null,
        answer.path ? make("div", { class: "path" }, path, copy) : null,
        make(
          "dl",
          {},
          answer.facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]),
        ),
        make(
          "div",
          { class: "buttons" },
          button("More like this", leave(() => openTile(looked)), { class: "main" }),
          value.asked ? button("+ Also like this", leave(() => add(looked, 1))) : null,
          value.asked ? button("− Less like this", leave(() => add(looked, -1))) : null,
          button("Search by a part", leave(() => openRegion(asExample(looked), (part) => ask([{ image: looked.id, weight: 1, part }])))),
        ),
        answer.neighbours.length ? make("h3", {}, "Labelled pictures most like it") : null,
        make(
          "ul",
          { class: "neighbours" },
          answer.neighbours.map((tile) =>
            make(
              "li",
              {},
              make(
                "button",
                { type: "button", title: tile.path, onclick: () => openDetails(tile) },
                make("img", { src: tile.src, alt: "" }),
                make("span", { class: "name" }, tile.label || ""),
                make("span", { class: "calm" }, tile.score),
              ),
            ),
          ),
        ),
        answer.path && !answer.neighbours.length
          ? make("p", { class: "calm" }, "Once pictures are labelled, the labelled ones most like it stand here.")
          : null,
      ),
    ),
    make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => details.close() }, "×"),
  );
  drawWhy();
  // What had the focus may be gone: without one in the dialog its keys would do nothing.
  if (details.open && !details.contains(document.activeElement)) details.focus();
}

function drawWhy() {
  const sheet = details.querySelector(".sheet");
  const why = details.querySelector(".why");
  for (const old of sheet.querySelectorAll("canvas")) old.remove();
  if (!heated) return why.replaceChildren();
  const shown = make("input", {
    type: "checkbox",
    checked: warm,
    onchange: (event) => {
      warm = event.target.checked;
      drawWhy();
      details.querySelector(".why input").focus();
    },
  });
  why.replaceChildren(
    ...(heated.cosines ? [make("label", {}, shown, make("strong", {}, "Why it was found"))] : []),
    make("span", { class: "calm" }, heated.said),
  );
  if (!heated.cosines || !warm) return;
  const rows = heated.cosines;
  const all = rows.flat();
  const highest = Math.max(...all);
  const span = Math.max(highest - Math.min(...all), 0.15); // a picture that is alike all over shall look so
  const canvas = make("canvas", { width: rows[0].length, height: rows.length, "aria-hidden": "true" });
  const pixels = canvas.getContext("2d").createImageData(rows[0].length, rows.length);
  all.forEach((cosine, at) => pixels.data.set([2, 6, 23, DIM * ((highest - cosine) / span) ** 0.8], 4 * at));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  ["left", "top", "width", "height"].forEach((side, at) => (canvas.style[side] = `${100 * heated.part[at]}%`));
  sheet.append(canvas);
}

asides.details = (answer) => {
  if (!looked || answer.image !== looked.id || !details.open) return;
  drawDetails(answer);
  if (answer.why) trigger("act", { do: "why", image: answer.image });
};

asides.why = (answer) => {
  if (!looked || answer.image !== looked.id) return;
  heated = answer;
  drawWhy();
};
