// Elements of the page. File names, labels and messages are anyone's: they are only ever set as text or as attributes,
// never as HTML.

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, entry] of Object.entries(attributes || {})) {
    if (entry === null || entry === undefined || entry === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), entry);
    else node.setAttribute(key, entry === true ? "" : entry);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

function button(text, onclick, attributes) {
  return make("button", { type: "button", class: "plain", onclick, ...attributes }, text);
}
