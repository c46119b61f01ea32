// What the browser remembers of how somebody likes the page: sizes, what is folded. Nothing of the pictures is kept.

const OWN = "massl."; // before each name, as a machine's other pages keep theirs in the same place

/**
 * @param {string} name
 * @returns {string | null} null: nothing, or this browser remembers nothing
 */
export function recall(name) {
  try {
    return localStorage.getItem(OWN + name);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {string} text
 */
export function keep(name, text) {
  try {
    localStorage.setItem(OWN + name, text);
  } catch {
    // A browser that is told to remember nothing: the page works as well, and begins anew next time.
  }
}
