// Elements of the page. File names, labels and messages are anyone's: they are only ever set as text or as attributes,
// never as HTML.

/** @typedef {string | Node | null | undefined | false} Child what an element may hold; nothing is left out */

/**
 * Attributes by name. True is an attribute without a value; null, undefined and false are left out. A name that begins
 * with "on" is a listener.
 *
 * @typedef {{
 *   onclick?: (event: MouseEvent & { currentTarget: HTMLElement }) => unknown,
 *   onchange?: (event: Event) => unknown,
 *   oninput?: (event: Event) => unknown,
 *   ondblclick?: (event: MouseEvent) => unknown,
 *   ontoggle?: (event: Event) => unknown,
 *   [name: string]: string | number | boolean | null | undefined | ((event: never) => unknown),
 * }} Attributes
 */

/**
 * Makes an element.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, entry] of Object.entries(attributes)) {
    if (entry === null || entry === undefined || entry === false) continue;
    if (typeof entry === "function") node.addEventListener(key.slice(2), /** @type {EventListener} */ (entry));
    else node.setAttribute(key, entry === true ? "" : String(entry));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

/**
 * Makes a button that does something.
 *
 * @param {Child | Child[]} content
 * @param {Attributes["onclick"]} onclick
 * @param {Attributes} [attributes]
 */
export function button(content, onclick, attributes) {
  return make("button", { type: "button", class: "plain", onclick, ...attributes }, content);
}

/**
 * The element that an event came from; what comes from none (the document) is as from its body.
 *
 * @param {Event} event
 * @returns {Element}
 */
export function source(event) {
  return event.target instanceof Element ? event.target : document.body;
}

/**
 * The first element within another that a selector names.
 *
 * @template {Element} [Kind=HTMLElement]
 * @param {ParentNode} within
 * @param {string} selector
 * @returns {Kind}
 * @throws {Error} there is none
 */
export function one(within, selector) {
  const found = within.querySelector(selector);
  if (!found) throw new Error(`nothing here is ${selector}`);
  return /** @type {Kind} */ (found);
}

/**
 * The drawing context of a canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 * @throws {Error} the browser has none left
 */
export function drawingOn(canvas, settings) {
  const context = canvas.getContext("2d", settings);
  if (!context) throw new Error("this browser draws on no canvas");
  return context;
}

/**
 * A text whose day and time stay in one line, and whose long words break before slashes and after underscores.
 *
 * @param {string} text
 */
export function unbroken(text) {
  const parts = text.split(/(?<=_)|(?=\/)/).flatMap((part, place) => (place ? [make("wbr", {}), part] : [part]));
  return make("span", { class: /^\d{4}-\d\d-\d\d/.test(text) ? "unbroken" : null }, ...parts);
}

/**
 * A part of a text for which a narrow window has no room.
 *
 * @param {string} text
 */
export function drawLong(text) {
  return make("span", { class: "long" }, text);
}

/**
 * Has an element hold these nodes and no others; those that are there already stay where they are, with what has the
 * focus in them.
 *
 * @param {HTMLElement} holder
 * @param {Node[]} nodes
 */
export function sync(holder, nodes) {
  for (const old of [...holder.childNodes]) if (!nodes.includes(old)) old.remove();
  nodes.forEach((node, place) => {
    const here = holder.childNodes[place] ?? null;
    if (here !== node) holder.insertBefore(node, here);
  });
}
