// The screen "Search and label": asking by a picture that is dropped, pasted, chosen or clicked.

const MAX_UPLOAD = 50 * 1024 * 1024; // as in server.py
const clickSelects = false;

function openTile(tile) {
  act({ do: "similar", image: tile.id });
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

const file = make("input", {
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

function drawHead() {
  const pick = (text, kind) => button(text, () => file.click(), { class: kind });
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
  parts.head.replaceChildren(
    file,
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
  );
}

drawing.push(drawHead);

function onPaste(event) {
  if (!visible() || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
  const files = [...(event.clipboardData ? event.clipboardData.files : [])];
  if (files.length) {
    event.preventDefault();
    ask(files);
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
  ask(event.dataTransfer.files);
});
