// Which pictures of a screen are selected, and what follows that.

import { drawLong } from "./elements.js";

export class Selection {
  /** @param {HTMLElement} board of the screen; it has the class "choosing" while there are any */
  constructor(board) {
    this.board = board;
    /** @type {Set<number>} */
    this.ids = new Set();
    /** @type {number | null} where a range begins */
    this.anchor = null;
    /** @type {(() => void)[]} */
    this.followers = [];
  }

  /** How many there are, in words. */
  get said() {
    return `${this.size.toLocaleString("en")} selected`;
  }

  get size() {
    return this.ids.size;
  }

  /** @param {number} id */
  has(id) {
    return this.ids.has(id);
  }

  /**
   * Adds a picture or takes it out. As all that change `ids`, whoever does it calls `changed` at the end.
   *
   * @param {number} id
   * @param {boolean} on
   */
  put(id, on) {
    if (on) this.ids.add(id);
    else this.ids.delete(id);
  }

  clear() {
    this.ids.clear();
    this.anchor = null;
    this.changed();
  }

  /** Tells those who follow, in the order in which they came. */
  changed() {
    this.board.classList.toggle("choosing", this.ids.size > 0);
    for (const follow of this.followers) follow();
  }

  /** @param {() => void} follower */
  follow(follower) {
    this.followers.push(follower);
  }
}

/**
 * What a button says that selects all pictures in sight; a phone has room for their number alone.
 *
 * @param {number} count
 */
export function drawAll(count) {
  return ["Select ", drawLong("all "), count.toLocaleString("en"), drawLong(" shown")];
}
