// The one way from the page to the server and back: every script sends through a Channel, and nothing else here knows
// Gradio. There are three messages, as Gradio gives no single way that all of them could take:
//
// - act() is an event. Only an event is given the state of the session (gr.State), and the queue that it waits in keeps
//   a crowd from the server. Its answer is the next value of the component.
// - ask() is a question (a server function). Gradio gives it no session, and it waits in no queue. So how far the index
//   is can be answered while the queue is full, and a megabyte of points reaches the one who asked and nobody else.
// - upload() is a file, as an event may have two megabytes and a file has many more.

/**
 * What Gradio hands to the script of an HTML component, as a screen's `open` gets it. See gradio.HTML, js_on_load.
 *
 * @typedef {object} Page
 * @property {HTMLElement} element the component's own
 * @property {(what: Action) => void} act triggers the event of that name
 * @property {{ value: unknown }} props
 * @property {Record<string, (data: unknown) => Promise<any>>} server the screen's `functions`, by name
 * @property {(file: File) => Promise<{ path?: string } | null>} upload
 * @property {(name: string, changed: () => void) => void} watch
 */

/**
 * What was done: `do` names one of the screen's actions or asides, all else is what it needs.
 *
 * @typedef {{ do: string, [field: string]: unknown }} Action
 */

const PATIENCE = 120000; // milliseconds; an answer that has not come by then never will (the server was stopped)

export class Channel {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.answered = true;
    /** @type {Action[]} what was done before the last answer came: one after the other, each on what the last one left */
    this.waiting = [];
    this.timer = 0;
    /** @type {(busy: boolean) => void} told when an answer is awaited, and no longer */
    this.onbusy = () => {};
    /** @type {() => void} told when none came */
    this.onsilence = () => {};
  }

  /**
   * Does something, after all that was done before has been answered. Whoever draws the answer calls `settle`.
   *
   * @param {Action} action
   */
  act(action) {
    if (!this.answered) {
      this.waiting.push(action);
      return;
    }
    this.answered = false;
    this.onbusy(true);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.drop();
      this.onsilence();
    }, PATIENCE);
    this.page.act(action);
  }

  /**
   * Asks for something beside what is done: it waits for no answer, and none waits for it.
   *
   * @param {Action} action
   */
  beside(action) {
    this.page.act(action);
  }

  /** The answer has come: nothing is awaited until the next action. */
  arrived() {
    this.onbusy(false);
    clearTimeout(this.timer);
  }

  /** The answer is drawn: what was done meanwhile is next. */
  settle() {
    this.answered = true;
    if (!this.waiting.length) return;
    setTimeout(() => {
      const next = this.answered ? this.waiting.shift() : undefined;
      if (next) this.act(next);
    });
  }

  /** There is no answer: what was done since is forgotten. */
  drop() {
    this.arrived();
    this.answered = true;
    this.waiting.length = 0;
  }

  /**
   * Calls a function with every answer, and with the one that is there already.
   *
   * @param {(answer: any) => void} take
   */
  listen(take) {
    const heard = () => {
      const answer = this.page.props.value;
      if (answer && typeof answer === "object") take(answer);
    };
    this.page.watch("value", heard);
    heard();
  }

  /**
   * Asks one of the screen's `functions`.
   *
   * @param {string} name
   * @param {unknown} [data]
   * @returns {Promise<any>}
   * @throws {Error} the server gave none (Gradio answers nothing then), or it answered with an error
   */
  async ask(name, data = null) {
    const answer = await this.page.server[name](data);
    if (!answer) throw new Error("No answer.");
    if (answer.error) throw new Refusal(answer.error);
    return answer;
  }

  /**
   * Sends a file.
   *
   * @param {File} file
   * @returns {Promise<string>} where it lies now, for the action that reads it
   * @throws {Error} it did not arrive
   */
  async upload(file) {
    // Under a random name: two people may send the same file at once, and each is deleted when it was read.
    const plain = new File([file], `${Math.random().toString(36).slice(2)}.upload`, { type: file.type });
    const sent = await this.page.upload(plain);
    if (!sent?.path) throw new Error("no path");
    return sent.path;
  }
}

/** The server's answer to a question was an error; the message is its sentence. */
export class Refusal extends Error {}
