// A screen of the page. It runs once a screen, as the body of a function of (element, trigger, props, server, upload,
// watch); see gradio.HTML. The screen's scripts are joined into that one body: this one, those it builds on, its own, and
// start() last. What to draw comes as props.value from the screen's Python; what was done goes back by act({do: ...}).

const board = element.querySelector(".massl-board");
const parts = {}; // head, message, main, foot: what a screen draws into
const drawing = []; // functions that draw a part of the screen from value
let value = null;
let downloaded = 0;
let waiting = null;
let looking = null;
let answered = true;
const toDo = []; // what was done before the last answer came: one after the other, each on what the last one left

function act(what) {
  if (!answered) {
    toDo.push(what);
    return;
  }
  answered = false;
  board.setAttribute("aria-busy", "true");
  clearTimeout(waiting);
  // An answer that never comes (the server was stopped) must not leave the page looking busy for ever.
  waiting = setTimeout(() => {
    board.removeAttribute("aria-busy");
    answered = true;
    toDo.length = 0;
    complain("No answer. Is massl still running? Reload the page to try again.");
  }, 120000);
  trigger("act", what);
}

// An error, where nobody overlooks it. (What was done is told in the bar, where the hand just was.)
function complain(text) {
  parts.message.replaceChildren(...(text ? [make("span", {}, text)] : []));
  if (text) parts.message.scrollIntoView({ block: "nearest" });
}

function build() {
  parts.told = make("div", { class: "told", role: "status" }); // what a screen reader says; it has to stay in place
  parts.head = make("div", { class: "head" });
  parts.message = make("div", { class: "message error", role: "alert" });
  parts.main = make("div", { class: "content" });
  parts.foot = make("div", { class: "foot" });
  board.replaceChildren(parts.told, parts.head, parts.message, parts.main, parts.foot);
}

function draw(silent) {
  board.removeAttribute("aria-busy");
  clearTimeout(waiting);
  for (const each of drawing) each();
  if (!silent) complain(value.message && value.message.kind === "error" ? value.message.text : "");
  if (value.download && value.turn > downloaded) {
    downloaded = value.turn;
    save(value.download);
  }
  answered = true;
  if (toDo.length) setTimeout(() => toDo.length && answered && act(toDo.shift()));
}

function save(download) {
  const url = download.href || URL.createObjectURL(new Blob([download.text], { type: `${download.type};charset=utf-8` }));
  const link = make("a", { href: url, download: download.name });
  document.body.append(link);
  link.click();
  link.remove();
  if (!download.href) setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function visible() {
  return board.isConnected && board.offsetParent !== null;
}

function openScreen(title) {
  const tab = [...document.querySelectorAll(".massl-tabs button[role=tab]")].find((each) => each.textContent.trim() === title);
  if (tab && tab.getAttribute("aria-selected") !== "true") setTimeout(() => tab.click(), 0);
}

// While work goes on somewhere, look again from time to time: only on the screen that is in sight.
function lookAgain() {
  clearTimeout(looking);
  if (!value.running && !value.waiting) return;
  looking = setTimeout(() => {
    if (visible() && answered) trigger("act", { do: "look" });
    else lookAgain();
  }, 700);
}

function update() {
  if (!props.value || typeof props.value !== "object") return;
  if (props.value.gone) {
    board.removeAttribute("aria-busy");
    clearTimeout(waiting);
    answered = true; // it may come back: whoever tries again is answered
    toDo.length = 0;
    return complain(props.value.message.text);
  }
  if (props.value.aside) return besides(props.value);
  // The page looked by itself and there is nothing new to say: what was said last stays.
  const silent = value !== null && props.value.looked && !props.value.message;
  value = silent ? { ...props.value, message: value.message } : props.value;
  draw(silent);
}

// Pictures came in, or went: shown at once, unless somebody is in the middle of something.
function refresh() {
  const selecting = board.classList.contains("choosing");
  if (visible() && !selecting && !board.hasAttribute("aria-busy")) act({ do: "start" });
}

document.addEventListener("massl-indexed", refresh);

// An answer that leaves the screen as it is: a further page, say. Whoever asks for one adds a function here, by its name.
const asides = {};

function besides(answer) {
  if (answer.error) complain(answer.error);
  const take = asides[answer.aside];
  if (take) take(answer);
}

function start() {
  build();
  watch("value", update);
  update();
}
