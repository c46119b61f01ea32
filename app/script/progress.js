// The strip above the screens: how far the index is. Asks server.progress() often while there is something to wait for,
// and from time to time always: the index may be changed from elsewhere, and massl be stopped. Tells the screens (the
// event "massl-indexed") when there are pictures that they don't show yet.

const strip = element.querySelector(".massl-progress");
const PAUSE = 1500; // milliseconds between two questions
const SELDOM = 10000; // milliseconds, when nothing is going on
const FRESH = 15000; // milliseconds between two redrawings, while pictures come in
let generation = null; // of the collection, as last heard
let indexed = 0;
let shown = null; // what the server last gave to show: closed, it stays closed until there is something else
let told = 0;
let running = false;
let waiting = null;
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

function showOnce(state) {
  const text = `${state.kind} ${state.text}`;
  if (state.kind !== "running" && text === shown) return;
  shown = text;
  show(state);
}

async function look() {
  clearTimeout(waiting);
  let pause = SELDOM;
  if (!document.hidden || running) {
    try {
      pause = take(await server.progress());
    } catch (error) {
      silent += 1;
      pause = silent < 4 ? PAUSE * silent : SELDOM;
      if (silent === 4) showOnce({ text: "No answer. Is massl still running? Reload the page to try again.", kind: "error" });
    }
  }
  clearTimeout(waiting);
  if (strip.isConnected) waiting = setTimeout(look, pause);
}

// Shows an answer; returns after how long to ask again. Gradio gives nothing where the server doesn't answer.
function take(state) {
  if (!state) throw new Error("no answer");
  silent = 0;
  if (state.error) {
    showOnce({ text: state.error, kind: "error" });
    return SELDOM;
  }
  const was = running;
  running = state.kind === "running";
  showOnce(state);
  const changed = generation !== null && state.generation !== generation;
  const due = !running || !indexed || Date.now() - told > FRESH;
  if ((was && !running) || (changed && due)) tell();
  generation = state.generation;
  indexed = state.indexed;
  return running ? PAUSE : SELDOM;
}

document.addEventListener("visibilitychange", () => !document.hidden && look());
look();
