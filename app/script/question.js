// What is searched for: examples to be like or unlike, and filters; as the server takes it, and as the address says it.

/**
 * A picture to be like, or unlike: one of the collection by its id or the first digits of its content's hash, or an
 * upload by its token.
 *
 * @typedef {object} Example
 * @property {number} [image]
 * @property {string} [content]
 * @property {string} [upload]
 * @property {number} weight 1, or -1 for unlike
 * @property {import("./region.js").Part | null} [part]
 */

/**
 * What the pictures must be: of one of these labels, in one of these folders, with these tags, as `tagging` says: "all",
 * "any" or "none" of them; `quality` are hints such as "blurred", of which one must be about them.
 *
 * @typedef {object} Filters
 * @property {string[]} labels
 * @property {string[]} folders
 * @property {string[]} tags
 * @property {string} tagging
 * @property {string[]} quality
 * @property {string[]} cameras of which one took them
 * @property {number} rating the least stars, 1 to 5; 0 for any
 * @property {string} orientation
 * @property {string} named words that the path has, all of them
 * @property {string} since
 * @property {string} until
 */

/**
 * What is listed of these, and in which order (empty: the usual one). `proposed` are the pictures that probably have the
 * one tag that is filtered for, too.
 *
 * @typedef {{ sort: string, proposed: boolean }} Listing
 */

/** @typedef {{ examples: Example[], cut: number | null }} Search examples, and the cut-off of what is shown */

/** @typedef {Filters & Listing & Search} Asked all of it */

// In the address.
const OWN = [
  "like",
  "unlike",
  "label",
  "tag",
  "tagging",
  "under",
  "quality",
  "camera",
  "rating",
  "orientation",
  "named",
  "since",
  "until",
  "sort",
  "proposed",
  "cut",
];

/**
 * An example as the server takes it.
 *
 * @param {Example} example
 * @returns {Example}
 */
export function bare({ image, content, upload, weight, part }) {
  return { image, content, upload, weight, part };
}

/** Whether the page's address asks for something. */
export function inAddress() {
  const query = new URLSearchParams(location.search);
  return OWN.some((name) => query.has(name));
}

/**
 * The address of what is shown; an upload has none.
 *
 * @param {Asked} asked
 */
export function written(asked) {
  const query = new URLSearchParams(location.search);
  for (const name of OWN) query.delete(name);
  if (!asked.examples.some((example) => example.upload)) {
    for (const { content, part, weight } of asked.examples) {
      const where = part ? `@${part.map((share) => Number(share.toFixed(3))).join(",")}` : "";
      query.append(weight > 0 ? "like" : "unlike", `${content}${where}`);
    }
  }
  for (const label of asked.labels) query.append("label", label);
  for (const tag of asked.tags) query.append("tag", tag);
  if (asked.tags.length && asked.tagging !== "all") query.append("tagging", asked.tagging);
  for (const folder of asked.folders) query.append("under", folder);
  for (const hint of asked.quality) query.append("quality", hint);
  for (const camera of asked.cameras) query.append("camera", camera);
  if (asked.rating) query.append("rating", String(asked.rating));
  if (asked.orientation) query.append("orientation", asked.orientation);
  if (asked.named) query.append("named", asked.named);
  if (asked.since) query.append("since", asked.since);
  if (asked.until) query.append("until", asked.until);
  if (asked.sort) query.append("sort", asked.sort);
  if (asked.proposed) query.append("proposed", "1");
  if (asked.cut !== null) query.append("cut", asked.cut.toFixed(2));
  return `${location.pathname}${[...query].length ? `?${query}` : ""}${location.hash}`;
}

/**
 * What the page's address asks for.
 *
 * @returns {Asked}
 */
export function read() {
  const query = new URLSearchParams(location.search);
  const example = (/** @type {string} */ text, /** @type {number} */ weight) => {
    const [content, part] = text.split("@");
    return { content, weight, part: part ? part.split(",").map(Number) : null };
  };
  const cut = Number(query.get("cut"));
  return {
    examples: [
      ...query.getAll("like").map((text) => example(text, 1)),
      ...query.getAll("unlike").map((text) => example(text, -1)),
    ],
    labels: query.getAll("label"),
    folders: query.getAll("under"),
    quality: query.getAll("quality"),
    tags: query.getAll("tag"),
    tagging: query.get("tagging") || "all",
    cameras: query.getAll("camera"),
    rating: Number(query.get("rating") || 0),
    orientation: query.get("orientation") || "",
    named: query.get("named") || "",
    since: query.get("since") || "",
    until: query.get("until") || "",
    sort: query.get("sort") || "",
    proposed: query.has("proposed"),
    cut: query.has("cut") && Number.isFinite(cut) ? cut : null,
  };
}

/**
 * Puts what is shown into the address, and into what the browser's Back comes back to.
 *
 * @param {Asked} asked
 * @param {boolean} fresh a step of its own in the browser's history
 */
export function remember(asked, fresh) {
  const state = { ...history.state, massl: asked };
  if (fresh) delete state.screen; // the one before it may have been left on another screen
  if (fresh) history.pushState(state, "", written(asked));
  else history.replaceState(state, "", written(asked));
}
