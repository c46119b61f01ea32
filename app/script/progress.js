// The strip above the screens: how far the index is. Asks server.progress() again and again while there is something to
// wait for, and tells the screens (the event "massl-indexed") when there are pictures that they don't show yet.

const strip = element.querySelector(".massl-progress");
const PAUSE = 1500; // milliseconds between two questions
const FRESH = 15000; // milliseconds between two redrawings, while pictures come in
let indexed = null;
let told = 0;
let running = false;
let silent = 0; // questions in a row that were not answered

function show(state) {
  const text = make("span", {}, state.text);
  const meter =
    state.kind === "running"
      ? make("progress", { max: "1", value: state.share === null ? null : String(state.share), "aria-label": "How far the index is" })
      : button("×", () => show({ text: "", kind: "done" }), { class: "link", "aria-label": "Close", title: "Close" });
  strip.replaceChildren(...(state.text ? [text, meter] : []));
  strip.className = `massl-progress ${state.kind}`;
}

function tell() {
  told = Date.now();
  document.dispatchEvent(new CustomEvent("massl-indexed"));
}

async function look() {
  let state;
  try {
    state = await server.progress();
    if (state.error) return show({ text: state.error, kind: "error" });
    silent = 0;
  } catch (error) {
    silent += 1;
    if (silent >= 4) return show({ text: "No answer. Is massl still running? Reload the page to try again.", kind: "error" });
    return setTimeout(look, PAUSE * silent);
  }
  const was = running;
  running = state.kind === "running";
  show(state);
  const grew = indexed !== null && state.indexed !== indexed;
  if ((was && !running) || (grew && (!indexed || Date.now() - told > FRESH))) tell();
  indexed = state.indexed;
  if (running) setTimeout(look, PAUSE);
}

look();
