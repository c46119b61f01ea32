// The sheet of a screen's keys, behind "?".

import { make, source } from "./elements.js";

/** @typedef {[string, string]} Key the key, and what it does */

export class KeySheet {
  /**
   * @param {import("./screen.js").Screen<any>} screen
   * @param {Key[]} keys
   */
  constructor(screen, keys) {
    this.screen = screen;
    this.dialog = make(
      "dialog",
      { class: "keys", tabindex: "-1", "aria-label": "Keys" },
      make("h2", {}, "Keys"),
      make(
        "dl",
        {},
        [...keys, /** @type {Key} */ (["?", "this list"])].flatMap(([key, does]) => [
          make(
            "dt",
            {},
            key.split(" ").map((each) => make("kbd", {}, each)),
          ),
          make("dd", {}, does),
        ]),
      ),
    );
    const close = () => this.dialog.close();
    this.dialog.append(make("button", { type: "button", class: "close", "aria-label": "Close", onclick: close }, "×"));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.node = make(
      "button",
      {
        type: "button",
        class: "plain round keys-button",
        title: "Keys (?)",
        "aria-label": "Keys",
        onclick: () => this.open(),
      },
      "?",
    );
    document.addEventListener("keydown", (event) => {
      if (event.key !== "?" || !screen.visible() || event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = source(event).matches("input:not([type=checkbox], [type=range]), textarea, select");
      if (!typing && !document.querySelector("dialog[open]")) this.open();
    });
  }

  open() {
    if (!this.dialog.isConnected) this.screen.board.append(this.dialog);
    this.dialog.showModal();
    this.dialog.focus();
  }
}

/** Those of every grid of pictures. @type {Key[]} */
export const GRID_KEYS = [
  ["← → ↑ ↓ Home End", "to another picture"],
  ["Enter", "look at the picture closely"],
  ["i", "about the picture"],
  ["Space", "select the picture, or no longer"],
  ["Shift+arrows", "select several"],
  ["Ctrl+A", "select all"],
  ["Esc", "select none"],
];

/** Those that label what is selected. @type {Key[]} */
export const LABEL_KEYS = [
  ["1–9", "label the selected pictures as this class"],
  ["0", "label them as none of these"],
  ["T", "give them the tags given last"],
  ["Ctrl+Z", "undo"],
];
