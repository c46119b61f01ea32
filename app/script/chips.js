// What is searched with: a chip for each example, to turn it into one to be unlike, to search by a part of it, or to take
// it out.

import { button, make } from "./elements.js";
import { bare } from "./question.js";
import { placeAt } from "./region.js";

/** @typedef {import("./question.js").Example} Example */

/** @typedef {Example & { name: string, src: string, large: string, part: number[] | null }} Shown an example, drawn */

const FEW = 2; // examples that have room for their names

export class Chips {
  /**
   * @param {import("./region.js").Region} region where a part is drawn
   * @param {(examples: Example[]) => void} ask searches with these
   */
  constructor(region, ask) {
    this.region = region;
    this.ask = ask;
  }

  /** @param {{ examples: Shown[], note: string }} asked */
  draw({ examples, note }) {
    const own = examples.some((example) => example.upload);
    return [
      make(
        "ul",
        { class: examples.length > FEW ? "chips many" : "chips", "aria-label": "Searched with" },
        examples.map((example, at) => this.drawChip(example, at, examples)),
      ),
      note ? make("span", {}, note) : null,
      own ? make("span", {}, "Searched with an upload: this address can't be shared.") : null,
    ];
  }

  /**
   * @param {Shown} example
   * @param {number} at its place among the examples
   * @param {Shown[]} examples
   */
  drawChip(example, at, examples) {
    const { name } = example;
    const wanted = example.weight > 0;
    const replace = (/** @type {Partial<Example>} */ changes) =>
      this.ask(examples.map(bare).map((other, place) => (place === at ? { ...other, ...changes } : other)));
    return make(
      "li",
      { class: wanted ? "chip" : "chip minus" },
      button(wanted ? "+" : "−", () => replace({ weight: -example.weight }), {
        class: "sign",
        title: wanted
          ? "Results are like this picture. Click for less like it"
          : "Results are less like this picture. Click for more like it",
        "aria-label": wanted ? `Like ${name}; click for less like it` : `Less like ${name}; click for more like it`,
      }),
      drawExample(example),
      make("span", { class: "name", title: name }, name.split("/").pop()),
      button("Part", () => this.region.open(example, (part) => replace({ part })), {
        class: example.part ? "link set" : "link",
        "aria-label": `Search by a part of ${name}`,
      }),
      button("×", () => this.ask(examples.map(bare).filter((_, other) => other !== at)), {
        class: "remove",
        "aria-label": `Remove ${name} from the search`,
      }),
    );
  }
}

/** @param {Shown} example */
function drawExample(example) {
  const image = make("img", { class: "asked", src: example.src, alt: `Searched with: ${example.name}` });
  if (!example.part) return make("div", { class: "look", title: example.name }, image);
  const frame = make("span", { class: "box" });
  placeAt(frame, example.part);
  return make("div", { class: "look", title: example.name }, make("span", { class: "sheet" }, image, frame));
}
