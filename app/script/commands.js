// Commands to be copied into a terminal.

import { button, make } from "./elements.js";

const SAID = 2000; // milliseconds that the button says what it did

/**
 * A command, with a button that copies it.
 *
 * @param {string} command
 */
export function drawCommand(command) {
  // An option is never broken after its hyphens, where half of it would look like another; long paths are broken anywhere.
  const parts = command.split(/(?<= )(?=--)/).flatMap((part) => {
    const [option, ...rest] = part.split(" ");
    return part.startsWith("--") ? [make("span", { class: "unbroken" }, option), ` ${rest.join(" ")}`] : [part];
  });
  const code = make("code", { tabindex: "0" }, parts);
  const copy = button("Copy", async () => {
    copy.textContent = (await copied(command, code)) ? "Copied" : "Selected";
    setTimeout(() => {
      copy.textContent = "Copy";
    }, SAID);
  });
  copy.setAttribute("aria-live", "polite");
  copy.title = "Copy the command";
  return make("div", { class: "command" }, code, copy);
}

/**
 * Copies a text. Browsers have a clipboard only for pages of this machine or by HTTPS; elsewhere the text is selected, for
 * the keys.
 *
 * @param {string} text
 * @param {Node} shown where it stands
 */
async function copied(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection()?.selectAllChildren(shown);
    return false;
  }
}
