// The screen "Search": asking by pictures that are dropped, pasted, chosen or clicked, by parts of them, by several; the
// filters, the cut-off, the further pages, and the address that carries all of it.

import { Chips } from "./chips.js";
import { CutOff } from "./cutoff.js";
import { Details } from "./details.js";
import { button, drawLong, make, source, sync } from "./elements.js";
import { FilterPanel } from "./filters.js";
import { GridView } from "./grid-view.js";
import { GRID_KEYS, KeySheet, LABEL_KEYS } from "./keys.js";
import { LabelBar } from "./labels.js";
import { OrderChoice } from "./order-choice.js";
import { Pages } from "./pages.js";
import { bare, inAddress, read, remember } from "./question.js";
import { Region } from "./region.js";
import { Rubber } from "./rubber.js";
import { openScreen, Screen } from "./screen.js";
import { Selection } from "./selection.js";
import { SubsetMenu } from "./subset-menu.js";
import { drawTool, Tiles } from "./tiles.js";
import { TimeLine } from "./time-line.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./question.js").Example} Example */
/** @typedef {import("./question.js").Filters} Filters */
/** @typedef {import("./tiles.js").Tile} Tile */

/**
 * What Find.draw answers.
 *
 * @typedef {import("./tiles.js").Grid & import("./labels.js").Labelling & {
 *   serial: number,
 *   asked: { examples: import("./chips.js").Shown[], note: string } | null,
 *   filters: Filters,
 *   listing: import("./question.js").Listing,
 *   orders: import("./order-choice.js").Order[],
 *   months: import("./time-line.js").Step[],
 *   subset: { most: number, ways: string[], shown: boolean },
 *   choices: import("./filters.js").Choices,
 *   levels: import("./cutoff.js").Level[],
 *   sections: import("./tiles.js").Section[],
 * }} Answer
 */

const MAX_UPLOAD = 50 * 1024 * 1024; // as in app/access/upload_folder.py

/** @type {import("./keys.js").Key[]} */
const KEYS = [
  ["m", "more like the picture"],
  ["+", "also like the picture"],
  ["-", "less like the picture"],
  ["A", "accept the proposed tag for the selected pictures"],
  ["R", "refuse it for them"],
  ...GRID_KEYS,
  ...LABEL_KEYS,
];

/** @extends {Screen<Answer>} */
class FindScreen extends Screen {
  /** @param {import("./screen.js").Page} page */
  constructor(page) {
    super(page);
    /** @type {number | null} of the question that is shown */
    this.serial = null;
    this.returning = false; // the address is there already: back, forward, or a link that was opened
    this.arrived = false;
    /** @type {number | null} what the chosen file is for: a new search, or 1 or -1 to add to this one */
    this.adding = null;
    const selection = new Selection(this.board);
    this.tiles = new Tiles(this, selection, {
      clickSelects: false,
      over: true,
      source: (tile) => this.view.source(tile),
      look: (tile) => this.viewer.open(tile),
      open: (tile) => this.ask([{ image: tile.id, weight: 1 }]),
      tools: (tile) => this.drawTools(tile),
      cutsOff: (tile) => this.cutOff.hides(tile),
      more: () => this.pages.fetch(),
    });
    this.view = new GridView(this.board);
    this.rubber = new Rubber(this, selection);
    this.bar = new LabelBar(this, selection, {
      reply: (reply) => this.reply(reply, [...selection.ids]),
      look: (tiles) => this.viewer.compare(tiles),
    });
    this.region = new Region(this.board);
    this.chips = new Chips(this.region, (examples) => this.ask(examples));
    this.cutOff = new CutOff(this, this.tiles, () => this.remember(false));
    this.pages = new Pages(this, this.tiles, this.cutOff);
    this.filters = new FilterPanel((changes) => this.ask(this.examples(), changes));
    this.taking = new SubsetMenu(selection, (n, by, images) => this.takeSubset(n, by, images));
    this.line = new TimeLine((days) => this.ask(this.examples(), days));
    this.order = new OrderChoice((sort) => this.ask(this.examples(), { sort, proposed: false }));
    this.ways = make("div", { class: "ways" }, this.order.node, this.view.node, new KeySheet(this, KEYS).node);
    this.details = new Details(this, {
      asked: () => this.value.asked !== null,
      open: (tile) => this.ask([{ image: tile.id, weight: 1 }]),
      add: (tile, weight) => this.add(tile, weight),
      part: (tile) => this.askPart(tile),
      around: () => this.around(),
      look: (tile) => this.viewer.open(tile),
    });
    this.viewer = new Viewer(this, { around: () => this.around(), about: (tile) => this.details.open(tile) });
    this.file = this.makeFile();
    this.listen();
  }

  listen() {
    const { board } = this;
    addEventListener("popstate", (event) => {
      if (!board.isConnected) return;
      const state = event.state || {};
      this.goTo(state.massl || read());
      openScreen(state.screen || "Search");
    });
    board.addEventListener("keydown", (event) => this.onKey(event));
    document.addEventListener("paste", (event) => this.onPaste(event));
    board.addEventListener("dragover", (event) => {
      event.preventDefault();
      board.classList.add("dropping");
    });
    board.addEventListener("dragleave", (event) => {
      const to = event.relatedTarget;
      if (!(to instanceof Node && board.contains(to))) board.classList.remove("dropping");
    });
    board.addEventListener("drop", (event) => {
      event.preventDefault();
      board.classList.remove("dropping");
      this.send(event.dataTransfer?.files);
    });
  }

  /** The pictures in sight, in their order. */
  around() {
    return this.value.sections.flatMap((section) => this.tiles.seen(section));
  }

  // Asking ------------------------------------------------------------------------------------------------------------

  /** The examples of the search that is shown, as the server takes them. */
  examples() {
    return this.value.asked ? this.value.asked.examples.map(bare) : [];
  }

  /**
   * @param {Example[]} wanted
   * @param {Partial<Filters & import("./question.js").Listing>} [changes] of the filters, and of what is listed
   */
  ask(wanted, changes) {
    // Nothing to be like: what is not wanted means nothing by itself.
    const some = wanted.some((example) => example.weight > 0);
    this.act({ do: "ask", examples: some ? wanted : [], ...this.value.filters, ...this.value.listing, ...changes });
  }

  /**
   * @param {Tile} tile
   * @param {number} weight
   */
  add(tile, weight) {
    const others = this.examples().filter((example) => example.image !== tile.id);
    if (weight < 0 && !others.some((example) => example.weight > 0)) {
      return this.complain("Search for something first, then choose what the results should be less like.");
    }
    this.ask([...others, { image: tile.id, weight }]);
  }

  /**
   * Answers the proposals of a tag.
   *
   * @param {import("./labels.js").Reply} reply
   * @param {number[]} images
   */
  reply(reply, images) {
    const { listing, filters } = this.value;
    if (!listing.proposed || !images.length) return;
    this.act({ do: reply === "accept" ? "accept tag" : "refuse tag", images, tags: filters.tags[0] });
    this.tiles.selection.clear();
  }

  /**
   * Has a subset chosen of the selected pictures, or of those that are listed, and selects it.
   *
   * @param {number} n
   * @param {string} by
   * @param {number[]} images the selected ones
   */
  takeSubset(n, by, images) {
    this.afterwards = () => {
      if (this.value.message?.kind === "error") return;
      const { selection } = this.tiles;
      selection.clear();
      for (const tile of this.value.sections[0].tiles) selection.put(tile.id, true);
      selection.changed();
    };
    this.act({ do: "subset", n, by, images });
  }

  /** @param {Tile} tile */
  askPart(tile) {
    const picture = { name: tile.path, large: `preview/${tile.id}`, part: null };
    this.region.open(picture, (part) => this.ask([{ image: tile.id, weight: 1, part }]));
  }

  makeFile() {
    const file = make("input", {
      type: "file",
      accept: "image/*,.heic,.heif,.avif,.tif,.tiff",
      class: "hidden",
      tabindex: "-1",
      "aria-label": "Choose a picture to search with",
      onchange: () => {
        this.send(file.files);
        file.value = "";
      },
    });
    return file;
  }

  /** @param {number | null} purpose */
  pick(purpose) {
    this.adding = purpose;
    this.file.click();
  }

  /** @param {Iterable<File> | null | undefined} files of which the first is asked with */
  async send(files) {
    const file = [...(files || [])][0];
    const purpose = this.adding;
    this.adding = null;
    if (!file) return this.complain("That is not a picture file. Links are not fetched; save the picture first.");
    if (file.size === 0) return this.complain(`“${file.name}” is empty (0 bytes). Choose another picture.`);
    if (file.size > MAX_UPLOAD) return this.complain(`“${file.name}” is too large: the limit is 50 MB.`);
    this.showBusy(true);
    try {
      const path = await this.channel.upload(file);
      this.act({ do: "upload", path, name: file.name, add: purpose !== null, weight: purpose });
    } catch {
      this.showBusy(false);
      this.complain(`“${file.name}” could not be uploaded. It may be too large, or massl has stopped.`);
    }
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  /** @override */
  draw() {
    // A new question begins without a cut-off, and has an address of its own.
    if (this.serial !== null && this.value.serial !== this.serial && !this.returning) this.cutOff.score = null;
    this.tiles.draw();
    this.view.apply();
    const { filters, choices, classes, none } = this.value;
    const { main } = this.parts;
    const labels = none.count ? [...classes, none] : classes;
    this.filters.draw(filters, choices, labels, !this.channel.waiting.length, this.value.months.length > 0);
    if (!this.filters.node.isConnected) main.before(this.filters.node);
    this.drawBar();
    const header = main.querySelector("section header");
    header?.querySelector(".note")?.after(this.cutOff.draw());
    header?.classList.toggle("brief", !this.value.listing.proposed); // the order chooser says the title, too
    if (header) this.drawProposing(header);
    if (header && this.value.sections[0].tiles.length) header.append(this.taking.draw(this.value.subset));
    if (header && this.value.months.length) header.append(this.line.draw(this.value.months, filters));
    this.cutOff.apply();
    this.pages.watch();
    this.follow();
    this.lookAgain();
  }

  /**
   * The way to the pictures that probably have the tag that is filtered for, and back.
   *
   * @param {Element} header
   */
  drawProposing(header) {
    const { asked, filters, listing } = this.value;
    if (asked || filters.tags.length !== 1 || filters.tagging !== "all") return;
    const text = listing.proposed ? `Pictures with “${filters.tags[0]}”` : "Propose more";
    header.append(
      button(text, () => this.ask([], { proposed: !listing.proposed }), {
        class: "link",
        title: listing.proposed ? "" : `Pictures that probably have the tag “${filters.tags[0]}” too`,
      }),
    );
  }

  drawBar() {
    const { head } = this.parts;
    this.order.draw(this.value.orders, this.value.listing.sort);
    const back = this.filters.toggles(document.activeElement); // it is drawn anew, and keeps the keyboard
    sync(head, [this.file, this.drawAsk()]);
    if (back) this.filters.toggle.focus({ preventScroll: true });
  }

  /** Has the address follow the question. */
  follow() {
    const { value } = this;
    if (!this.arrived) {
      this.arrived = true;
      this.serial = value.serial;
      if (inAddress()) this.goTo(read());
      return;
    }
    if (value.message?.kind === "error") this.returning = false;
    if (value.serial === this.serial) return;
    this.remember(!this.returning);
    this.serial = value.serial;
    this.returning = false;
    this.pages.fetching = null;
    if (scrollY > 0 && this.board.getBoundingClientRect().top < 0) this.board.scrollIntoView({ block: "start" });
  }

  /** @param {boolean} fresh */
  remember(fresh) {
    const { filters, listing } = this.value;
    remember({ examples: this.examples(), ...filters, ...listing, cut: this.cutOff.score }, fresh);
  }

  /** @param {import("./question.js").Asked} asked */
  goTo({ cut, ...question }) {
    this.returning = true;
    this.cutOff.score = cut;
    this.act({ do: "ask", ...question });
  }

  /** The one bar: what is filtered by, what is searched with, and how the pictures are shown. */
  drawAsk() {
    const { asked } = this.value;
    const choose = asked
      ? button(["Another", drawLong(" picture")], () => this.pick(null), { class: "main" })
      : button([make("span", { class: "but-phone" }, "Choose a "), "picture"], () => this.pick(null), {
          class: "main choose",
          "aria-label": "Choose a picture",
        });
    const words = asked
      ? this.chips.draw(asked)
      : make("span", {}, "Drop or paste a picture", drawLong(", or click one below"), ".");
    return make(
      "div",
      { class: "ask" },
      this.filters.drawToggle(),
      make("div", { class: "words" }, words),
      make(
        "div",
        { class: "buttons" },
        asked ? this.drawAdding() : null,
        choose,
        asked ? button("All pictures", () => this.ask([])) : null,
      ),
      this.ways,
    );
  }

  drawAdding() {
    return [
      button(["+ Also", drawLong(" like…")], () => this.pick(1), {
        title: "Upload a picture that the results should also be like",
      }),
      button(["− Less", drawLong(" like…")], () => this.pick(-1), {
        title: "Upload a picture that the results should be less like",
      }),
    ];
  }

  /** @param {Tile} tile */
  drawTools(tile) {
    const { proposal } = tile;
    if (proposal) {
      return make(
        "div",
        { class: "tools" },
        drawTool(tile, "✓", `Accept “${proposal}” (key A)`, () => this.reply("accept", [tile.id])),
        drawTool(tile, "×", `Not “${proposal}” (key R)`, () => this.reply("reject", [tile.id])),
        drawTool(tile, "i", "About this picture (key i)", () => this.details.open(tile)),
      );
    }
    return make(
      "div",
      { class: "tools" },
      tile.score ? drawTool(tile, "+", "Also like this one (key +)", () => this.add(tile, 1), "sign") : null,
      tile.score ? drawTool(tile, "−", "Less like this one (key −)", () => this.add(tile, -1), "sign") : null,
      drawTool(tile, "i", "About this picture (key i)", () => this.details.open(tile)),
    );
  }

  // Hands -------------------------------------------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const picture = source(event).closest(".picture");
    if (!(picture instanceof HTMLElement) || event.ctrlKey || event.metaKey || event.altKey) return;
    const tile = this.value.sections[0].tiles.find((each) => each.id === Number(picture.dataset.image));
    if (!tile) return;
    if (event.key === "i") this.details.open(tile);
    else if (event.key === "m") this.ask([{ image: tile.id, weight: 1 }]);
    else if (event.key === "+") this.add(tile, 1);
    else if (event.key === "-" || event.key === "−") this.add(tile, -1);
  }

  /** @param {ClipboardEvent} event */
  onPaste(event) {
    if (!this.visible() || /^(INPUT|TEXTAREA)$/.test(source(event).tagName)) return;
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    this.send(files);
  }
}

/** @type {import("./screen.js").Open} */
export function open(page) {
  new FindScreen(page).start();
}
