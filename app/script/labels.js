// The bar that labels the selected pictures, and its keys.

const MAX_LABEL = 100; // characters
let draft = ""; // the class name being typed, kept over redraws
let answer = null; // on a screen that proposes classes: answers "accept" or "reject" to the proposals on show

// Said, not cut: what is left of a name that was cut is another name.
function tooLong(name) {
  const long = [...name].length > MAX_LABEL;
  if (long) complain(`That name has ${[...name].length.toLocaleString()} characters, and a class can have ${MAX_LABEL}. Nothing was labelled.`);
  return long;
}

function label(name) {
  name = name.trim();
  if (!name) return complain("Type a name for the class first.");
  if (!chosen.size) return complain("Select some pictures first: the circle in a picture's corner, or Space.");
  if (tooLong(name)) return;
  draft = "";
  act({ do: "label", images: [...chosen], label: name });
  clear();
}

function withChosen(what) {
  if (!chosen.size) return;
  act({ do: what, images: [...chosen] });
  clear();
}

const bar = make("div", { class: "bar", role: "region", "aria-label": "Label the selected pictures" });

function drawBar() {
  if (!bar.isConnected) parts.foot.replaceChildren(bar);
  bar.classList.toggle("hidden", !value.sections.some((section) => section.tiles.length));
  const any = chosen.size > 0;
  const typed = bar.querySelector("input");
  const typing = typed && document.activeElement === typed;
  const input = make("input", {
    type: "text",
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
  bar.replaceChildren(
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
      any && guessed && answer ? button(["Accept ", make("kbd", {}, "A")], () => answer("accept"), { class: "main" }) : null,
      any && guessed && answer ? button(["Reject ", make("kbd", {}, "R")], () => answer("reject")) : null,
      any ? input : null,
      any ? button("Label", () => label(input.value), { class: guessed ? "plain" : "main" }) : null,
      any && labelled ? button("Remove label", () => withChosen("unlabel")) : null,
    ),
  );
  if (typing && any) input.focus();
}

function onKey(event) {
  if (!visible() || !value || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  if (document.querySelector("dialog[open]")) return; // its keys are its own
  if (event.key === "Escape" && chosen.size) clear();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    event.preventDefault();
    act({ do: "undo" });
  } else if (/^[1-9]$/.test(event.key) && chosen.size && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const entry = value.classes[Number(event.key) - 1];
    if (entry) label(entry.name);
  } else if (answer && /^[aArR]$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    answer(event.key.toLowerCase() === "a" ? "accept" : "reject");
  } else if (answer && event.key === "Enter" && !event.target.closest("button, a, summary")) answer("accept");
}

document.addEventListener("keydown", onKey);
marking.push(drawBar);
