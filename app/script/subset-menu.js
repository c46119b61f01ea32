// The menu that takes a subset: how many pictures, and how they are chosen.

import { button, make } from "./elements.js";

const USUAL = 100; // pictures

/** @type {Record<string, string>} */
const EXPLAINED = {
  diverse: "Diverse: far from each other",
  typical: "Typical: from the middle of each group",
  balanced: "Balanced: equally many of each label or folder",
};

export class SubsetMenu {
  /**
   * @param {import("./selection.js").Selection} selection
   * @param {(n: number, by: string, images: number[]) => void} take has a subset chosen, of these images if there are any
   */
  constructor(selection, take) {
    this.selection = selection;
    this.take = take;
    this.number = make("input", {
      type: "number",
      min: "1",
      value: String(USUAL),
      "aria-label": "Number of pictures in the subset",
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        event.stopPropagation();
        if (event.key === "Enter") this.go();
        else if (event.key === "Escape") this.close();
      },
    });
    this.by = make("select", { class: "sort", "aria-label": "How the subset is chosen" });
    this.said = make("p", {});
    this.node = make(
      "details",
      {
        class: "taking",
        onkeydown: (/** @type {KeyboardEvent} */ event) => {
          if (event.key !== "Escape" || !this.node.open) return;
          event.stopPropagation(); // the selection, which it would end, is what the menu is about
          this.close();
        },
      },
      make("summary", { class: "link" }, "Take a subset…"),
      make(
        "div",
        { class: "choices" },
        this.said,
        make("label", {}, "Pictures ", this.number),
        this.by,
        button("Select them", () => this.go(), { class: "main" }),
      ),
    );
    selection.follow(() => this.say());
  }

  close() {
    this.node.open = false;
    this.node.querySelector("summary")?.focus();
  }

  /** @param {{ most: number, ways: string[] }} subset */
  draw({ most, ways }) {
    this.number.max = String(most);
    if (!this.by.options.length) {
      this.by.append(...ways.map((way) => make("option", { value: way }, EXPLAINED[way] ?? way)));
    }
    this.say();
    return this.node;
  }

  say() {
    const { size } = this.selection;
    if (size > 1 && Number(this.number.value) >= size) this.number.value = String(Math.ceil(size / 2));
    this.said.textContent = size
      ? `Of the ${size.toLocaleString("en")} selected, without near copies`
      : "Of the pictures listed here, without near copies";
  }

  go() {
    if (!this.number.reportValidity() || !this.number.value) return;
    this.node.open = false;
    this.take(Number(this.number.value), this.by.value, [...this.selection.ids]);
  }
}
