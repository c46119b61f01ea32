// The choice of an order of the pictures.

import { make } from "./elements.js";

/** @typedef {{ key: string, name: string, group: string }} Order those of a group stand together, below its name */

export class OrderChoice {
  /** @param {(key: string) => void} ask has the pictures put in another order */
  constructor(ask) {
    this.node = make("select", { class: "sort", "aria-label": "Order of the pictures" });
    this.node.addEventListener("change", () => ask(this.node.value));
  }

  /**
   * @param {Order[]} orders
   * @param {string} sort the one they are in
   */
  draw(orders, sort) {
    const drawn = (/** @type {string} */ wanted) =>
      orders.filter(({ group }) => group === wanted).map(({ key, name }) => make("option", { value: key }, name));
    const groups = [...new Set(orders.map(({ group }) => group))].filter(Boolean);
    const below = groups.map((group) => make("optgroup", { label: group }, drawn(group)));
    this.node.replaceChildren(...drawn(""), ...below);
    this.node.value = sort;
  }
}
