// How good the proposals get with more labels: words, and a small chart of a line over a logarithmic axis, with the band
// that it may lie in.

import { make } from "./elements.js";

/**
 * How many proposals are right with so many labels: the share, and what it very likely lies between, from 0 to 1.
 *
 * @typedef {{ labels: number, accuracy: number, low: number, high: number }} Point
 */

/** @typedef {{ points: Point[], advice: string }} Curve the points by rising numbers of labels */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560; // of the chart, in its own units, as all that follows
const HEIGHT = 260;
const MARGIN = { left: 46, right: 14, top: 12, bottom: 40 };
const APART = 26; // the least distance of two numbers below the axis
const LEVELS = 5; // horizontal lines from 0 to 100 %

/**
 * @param {Curve} curve
 * @param {string} methods how it was measured
 */
export function drawCurve({ points, advice }, methods) {
  const note =
    "The accuracy with fewer of your labels, measured on labelled pictures that were left out. It says " +
    "nothing about pictures of kinds that have no label. The band is the 95 % " +
    "interval of each value.";
  return make(
    "div",
    { class: "curve" },
    make("p", {}, make("strong", {}, advice)),
    points.length ? plot(points) : null,
    make("p", { class: "note" }, note),
    methods ? make("p", { class: "note" }, methods) : null,
  );
}

/** @param {Point[]} points */
function plot(points) {
  const { left, right, top, bottom } = MARGIN;
  const first = Math.log(points[0].labels);
  const span = Math.max(1e-9, Math.log(points[points.length - 1].labels) - first);
  const across = (/** @type {number} */ labels) => left + ((Math.log(labels) - first) / span) * (WIDTH - left - right);
  const floor = Math.max(0, Math.floor(Math.min(...points.map((point) => point.low)) * LEVELS) / LEVELS);
  const up = (/** @type {number} */ share) => top + ((1 - share) / (1 - floor)) * (HEIGHT - top - bottom);
  const line = (/** @type {(point: Point) => number} */ share) =>
    points.map((point) => `${across(point.labels)},${up(share(point))}`);
  const told = points.map((point) => `${point.labels} labels, ${percent(point.accuracy)} right`).join("; ");
  return shape(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      class: "plot",
      role: "img",
      "aria-label": `Accuracy by number of labels: ${told}`,
    },
    ...rules(floor, up),
    ...numbers(points, across),
    shape("text", { x: (left + WIDTH - right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "labels"),
    shape("polygon", {
      points: [...line((point) => point.high), ...line((point) => point.low).reverse()].join(" "),
      class: "range",
    }),
    shape("polyline", { points: line((point) => point.accuracy).join(" "), class: "line" }),
    ...points.map((point) =>
      shape(
        "circle",
        { cx: across(point.labels), cy: up(point.accuracy), r: 4, class: "dot" },
        shape("title", {}, hintOf(point)),
      ),
    ),
  );
}

/**
 * The horizontal lines, and what they stand for.
 *
 * @param {number} floor the lowest share
 * @param {(share: number) => number} up
 */
function rules(floor, up) {
  const drawn = [];
  for (let level = Math.round(floor * LEVELS); level <= LEVELS; level += 1) {
    const y = up(level / LEVELS);
    drawn.push(
      shape("line", { x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y, y2: y, class: "rule" }),
      shape("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, `${(100 / LEVELS) * level} %`),
    );
  }
  return drawn;
}

/**
 * The numbers below the axis, as far as they have room.
 *
 * @param {Point[]} points
 * @param {(labels: number) => number} across
 */
function numbers(points, across) {
  const drawn = [];
  let free = Number.NEGATIVE_INFINITY;
  for (const { labels } of points) {
    const x = across(labels);
    if (x - free < APART) continue;
    drawn.push(shape("text", { x, y: HEIGHT - MARGIN.bottom + 18, "text-anchor": "middle" }, String(labels)));
    free = x;
  }
  return drawn;
}

/** @param {Point} point */
function hintOf({ labels, accuracy, low, high }) {
  return `${labels} labels: ${percent(accuracy)} right (95 % interval: ${percent(low)} to ${percent(high)})`;
}

/** @param {number} share */
function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(string | Node)} children
 */
function shape(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, entry] of Object.entries(attributes)) node.setAttribute(key, String(entry));
  node.append(...children);
  return node;
}
