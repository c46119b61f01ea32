// The further pages of a search: each is fetched before its place comes into sight.

/** @typedef {import("./find.js").Answer} Answer */

/**
 * What the aside "more" answers.
 *
 * @typedef {{ serial: number | null, from: number, more: boolean, tiles: import("./tiles.js").Tile[] }} Page
 */

const AHEAD = "1500px"; // further pictures are fetched so long before they come into sight

export class Pages {
  /**
   * @param {import("./screen.js").Screen<Answer>} screen
   * @param {import("./tiles.js").Tiles} tiles
   * @param {import("./cutoff.js").CutOff} cutOff
   */
  constructor(screen, tiles, cutOff) {
    this.screen = screen;
    this.tiles = tiles;
    this.cutOff = cutOff;
    /** @type {number | null} where the page begins that is on its way */
    this.fetching = null;
    this.nearEnd = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.fetch(), {
      rootMargin: AHEAD,
    });
    screen.asides.more = (answer) => this.take(answer);
  }

  fetch() {
    const { serial, sections } = this.screen.value;
    const [section] = sections;
    if (!section.more || this.fetching === section.tiles.length || !this.screen.visible()) return;
    this.fetching = section.tiles.length;
    this.screen.channel.beside({ do: "more", from: this.fetching, serial });
  }

  /** Waits for the end of what is drawn to come near. */
  watch() {
    this.nearEnd.disconnect();
    const more = this.screen.parts.main.querySelector(".more:not([hidden])");
    if (more) this.nearEnd.observe(more);
  }

  /** @param {Page} page */
  take(page) {
    const { serial, sections } = this.screen.value;
    const { main } = this.screen.parts;
    const [section] = sections;
    this.fetching = null;
    if (page.serial !== serial || page.from !== section.tiles.length) return;
    section.more = page.more;
    section.tiles.push(...page.tiles);
    const fresh = this.tiles.nodesOf(section, page.tiles);
    for (const node of fresh) node.querySelector(".picture")?.setAttribute("tabindex", "-1");
    main.querySelector(".tiles")?.append(...fresh);
    if (!page.more) main.querySelector(".more")?.remove();
    this.cutOff.apply();
    this.watch();
  }
}
