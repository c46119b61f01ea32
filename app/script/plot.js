// A small chart: a line over a logarithmic axis, with the band that it may lie in.

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, entry] of Object.entries(attributes)) node.setAttribute(key, entry);
  node.append(...children);
  return node;
}

// points: [{x, y, low, high, hint}], x rising and above 0; y, low and high from 0 to 1.
function plot(points, xName, spoken) {
  const width = 560, height = 260, left = 46, right = 14, top = 12, bottom = 40;
  const first = Math.log(points[0].x), last = Math.log(points[points.length - 1].x);
  const across = (x) => left + ((Math.log(x) - first) / Math.max(1e-9, last - first)) * (width - left - right);
  const floor = Math.max(0, Math.floor(Math.min(...points.map((point) => point.low)) * 5) / 5);
  const up = (y) => top + ((1 - y) / (1 - floor)) * (height - top - bottom);
  const chart = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": spoken });
  for (let level = Math.round(floor * 5); level <= 5; level += 1) {
    const y = up(level / 5);
    chart.append(
      shape("line", { x1: left, x2: width - right, y1: y, y2: y, class: "rule" }),
      shape("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, `${level * 20} %`),
    );
  }
  let free = -Infinity;
  for (const point of points) {
    const x = across(point.x);
    if (x - free < 26) continue;
    chart.append(shape("text", { x, y: height - bottom + 18, "text-anchor": "middle" }, String(point.x)));
    free = x;
  }
  chart.append(shape("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xName));
  const highs = points.map((point) => `${across(point.x)},${up(point.high)}`);
  const lows = points.map((point) => `${across(point.x)},${up(point.low)}`).reverse();
  chart.append(
    shape("polygon", { points: [...highs, ...lows].join(" "), class: "range" }),
    shape("polyline", { points: points.map((point) => `${across(point.x)},${up(point.y)}`).join(" "), class: "line" }),
    ...points.map((point) =>
      shape("circle", { cx: across(point.x), cy: up(point.y), r: 4, class: "dot" }, shape("title", {}, point.hint)),
    ),
  );
  return chart;
}
