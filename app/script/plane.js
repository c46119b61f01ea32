// Points on a canvas: drawn, moved about, zoomed into, picked and encircled. Knows nothing of where they come from.
// Every frame looks at every point once and writes its pixels itself: a hundred thousand take a few milliseconds.

const chosen = new Set(); // ids of the selected pictures
const marking = []; // functions that follow the selection

function mark() {
  board.classList.toggle("choosing", chosen.size > 0);
  plane.select(chosen);
  for (const each of marking) each();
}

function clear() {
  chosen.clear();
  mark();
}

const CELL = 76; // pixels of the screen from one small picture to the next
const REACH = 14; // pixels of the screen, in which a point is meant
const CLICK = 5; // pixels that a hand may move in a click
const KEPT = 600; // pictures that are kept

// What the plane is told: points(), colours(), select(). What it tells: onpick(id, event), onlasso(ids, event),
// onhover(id or null, x, y).
function makePlane() {
  const canvas = make("canvas", { class: "plane", tabindex: "0", role: "application", "aria-roledescription": "map" });
  const context = canvas.getContext("2d", { alpha: false });
  let ids = new Uint32Array(0);
  let xs = new Float32Array(0); // from 0 to 1
  let ys = new Float32Array(0);
  let paint = new Uint8Array(0); // a place in palette
  let palette = new Uint32Array([0xff888888]);
  let faint = new Uint8Array(256); // kinds that step back
  let order = new Uint32Array(0); // in which points are drawn: what stands out comes last
  let selected = new Uint8Array(0);
  let at = new Map(); // id to place
  let view = { scale: 1, left: 0, top: 0 }; // pixels of the canvas = place * scale + left
  let fitted = true; // nobody has moved it yet
  let width = 1, height = 1, ratio = 1;
  let pixels = null, words = null;
  let colours = { ground: 0xffffffff, ink: 0xff000000 };
  let small = false; // whether small pictures are shown
  let path = null; // of the lasso
  let moving = null;
  let down = null; // where the hand went down, and whether it has stayed there
  let lasso = false;
  let asked = 0;
  let aim = false; // the cross in the middle, while it is moved by keys
  const pictures = new Map();
  const cells = new Map(); // by level: which point stands for each cell
  const fingers = new Map();
  const told = { onpick: null, onlasso: null, onhover: null };

  function redraw() {
    if (!asked) asked = requestAnimationFrame(draw);
  }

  function size() {
    const box = canvas.getBoundingClientRect();
    if (!box.width || !box.height) return;
    ratio = Math.min(2, window.devicePixelRatio || 1);
    const wide = Math.round(box.width * ratio), high = Math.round(box.height * ratio);
    if (wide !== width || high !== height || !pixels) {
      const before = { width, height };
      width = canvas.width = wide;
      height = canvas.height = high;
      pixels = context.createImageData(width, height);
      words = new Uint32Array(pixels.data.buffer);
      if (fitted) fit();
      else {
        view.left += (width - before.width) / 2;
        view.top += (height - before.height) / 2;
      }
    }
    redraw();
  }

  function fit() {
    fitted = true;
    const scale = 0.94 * Math.min(width, height * 1.35);
    view = { scale, left: (width - scale) / 2, top: (height - Math.min(scale, height * 0.94)) / 2 };
    view.tall = Math.min(scale, height * 0.94) / scale; // y is pressed a little where the screen is wide
    redraw();
  }

  function sx(place) {
    return xs[place] * view.scale + view.left;
  }
  function sy(place) {
    return ys[place] * view.scale * view.tall + view.top;
  }

  function zoom(factor, x, y) {
    const scale = Math.max(0.4 * Math.min(width, height), Math.min(view.scale * factor, 400 * Math.max(width, height)));
    const by = scale / view.scale;
    view.left = x - (x - view.left) * by;
    view.top = y - (y - view.top) * by;
    view.scale = scale;
    fitted = false;
    redraw();
  }

  function pan(x, y) {
    view.left += x;
    view.top += y;
    fitted = false;
    redraw();
  }

  function mix(one, other) {
    return (0xff000000 | ((((one & 0xfefefe) >>> 1) + ((other & 0xfefefe) >>> 1)) & 0xffffff)) >>> 0;
  }

  function radius() {
    const zoomed = view.scale / Math.max(width, height);
    const room = Math.sqrt((width * height) / Math.max(1, ids.length)) * 0.2;
    return Math.max(0.75 * ratio, Math.min(6 * ratio, room * Math.sqrt(zoomed)));
  }

  // The places within a disc, as steps in words: whole ones, and those at its edge.
  function disc(r) {
    const whole = [], edge = [];
    const reach = Math.ceil(r);
    for (let y = -reach; y <= reach; y += 1)
      for (let x = -reach; x <= reach; x += 1) {
        const far = Math.hypot(x, y);
        if (far <= r - 0.35) whole.push(y * width + x);
        else if (far <= r + 0.35) edge.push(y * width + x);
      }
    return { whole: Int32Array.from(whole), edge: Int32Array.from(edge), reach };
  }

  function stamp(shape, x, y, colour) {
    if (x < shape.reach || y < shape.reach || x >= width - shape.reach || y >= height - shape.reach) return;
    const middle = y * width + x;
    for (const step of shape.whole) words[middle + step] = colour;
    for (const step of shape.edge) words[middle + step] = mix(words[middle + step], colour);
  }

  function draw() {
    asked = 0;
    if (!pixels) return;
    words.fill(colours.ground);
    const r = radius();
    const dot = disc(r), thin = disc(Math.max(0.75, r * 0.7)), ring = disc(r + 2.4 * ratio);
    const tall = view.scale * view.tall;
    const some = chosen.size > 0;
    for (let turn = 0; turn < order.length; turn += 1) {
      const place = order[turn];
      const x = (xs[place] * view.scale + view.left) | 0;
      const y = (ys[place] * tall + view.top) | 0;
      if (x < 0 || y < 0 || x >= width || y >= height || selected[place]) continue;
      const back = faint[paint[place]];
      stamp(back ? thin : dot, x, y, back || some ? mix(colours.ground, palette[paint[place]]) : palette[paint[place]]);
    }
    if (some)
      for (const shape of [ring, dot])
        for (let turn = 0; turn < order.length; turn += 1) {
          const place = order[turn];
          if (selected[place]) stamp(shape, sx(place) | 0, sy(place) | 0, shape === ring ? colours.ink : palette[paint[place]]);
        }
    context.putImageData(pixels, 0, 0);
    if (small) drawPictures();
    if (path) drawPath();
    if (aim) drawAim();
  }

  // Small pictures: one for each cell of a grid that moves and grows with the map, so that none flickers.
  function drawPictures() {
    const level = Math.ceil(Math.log2((CELL * ratio) / view.scale));
    const cell = 2 ** level;
    let standing = cells.get(level);
    if (!standing) {
      standing = new Map();
      for (let place = 0; place < ids.length; place += 1) {
        if (faint[paint[place]]) continue;
        const column = Math.floor(xs[place] / cell), row = Math.floor((ys[place] * view.tall) / cell);
        const far = (xs[place] / cell - column - 0.5) ** 2 + ((ys[place] * view.tall) / cell - row - 0.5) ** 2;
        const key = row * 4194304 + column;
        const best = standing.get(key);
        if (!best || far < best.far) standing.set(key, { place, far });
      }
      cells.set(level, standing);
    }
    const side = cell * view.scale;
    const first = { x: Math.floor(-view.left / side), y: Math.floor(-view.top / side) };
    const last = { x: Math.ceil((width - view.left) / side), y: Math.ceil((height - view.top) / side) };
    const most = Math.min(0.82 * side, 96 * ratio);
    for (let row = first.y; row <= last.y; row += 1)
      for (let column = first.x; column <= last.x; column += 1) {
        const found = standing.get(row * 4194304 + column);
        if (!found) continue;
        const picture = pictureOf(ids[found.place]);
        if (!picture) continue;
        const fits = most / Math.max(picture.naturalWidth, picture.naturalHeight);
        const wide = picture.naturalWidth * fits, high = picture.naturalHeight * fits;
        const x = (column + 0.5) * side + view.left - wide / 2, y = (row + 0.5) * side + view.top - high / 2;
        context.fillStyle = css(selected[found.place] ? colours.ink : palette[paint[found.place]]);
        const frame = (selected[found.place] ? 4 : 2) * ratio;
        context.fillRect(x - frame, y - frame, wide + 2 * frame, high + 2 * frame);
        context.drawImage(picture, x, y, wide, high);
      }
  }

  function pictureOf(id) {
    let picture = pictures.get(id);
    if (picture) {
      pictures.delete(id);
      pictures.set(id, picture); // the latest last
    } else if (!moving) {
      picture = new Image();
      picture.onload = redraw;
      picture.src = `thumbnail/${id}`;
      pictures.set(id, picture);
      if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
    }
    return picture && picture.complete && picture.naturalWidth ? picture : null;
  }

  function drawPath() {
    context.beginPath();
    for (const [x, y] of path) context.lineTo(x, y);
    context.closePath();
    context.lineWidth = 2 * ratio;
    context.strokeStyle = css(colours.ink);
    context.fillStyle = `${css(colours.ink)}22`;
    context.fill();
    context.stroke();
  }

  function drawAim() {
    const x = width / 2, y = height / 2, arm = 12 * ratio;
    context.lineWidth = 2 * ratio;
    context.strokeStyle = css(colours.ink);
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    context.moveTo(x, y - arm);
    context.lineTo(x, y + arm);
    context.stroke();
  }

  // Finding ----------------------------------------------------------------------------------------------------------

  function nearest(x, y) {
    let best = -1, reach = (REACH * ratio) ** 2;
    const tall = view.scale * view.tall;
    for (let place = 0; place < ids.length; place += 1) {
      const dx = xs[place] * view.scale + view.left - x;
      if (dx * dx > reach || faint[paint[place]] === 2) continue;
      const dy = ys[place] * tall + view.top - y;
      const far = dx * dx + dy * dy;
      if (far <= reach) {
        best = place;
        reach = far;
      }
    }
    return best;
  }

  function inside(line) {
    const step = Math.max(1, Math.floor(line.length / 200));
    const corners = line.filter((corner, index) => index % step === 0);
    const left = Math.min(...corners.map((c) => c[0])), right = Math.max(...corners.map((c) => c[0]));
    const top = Math.min(...corners.map((c) => c[1])), bottom = Math.max(...corners.map((c) => c[1]));
    const found = [];
    for (let place = 0; place < ids.length; place += 1) {
      const x = sx(place), y = sy(place);
      if (x < left || x > right || y < top || y > bottom) continue;
      let odd = false;
      for (let one = 0, other = corners.length - 1; one < corners.length; other = one, one += 1) {
        const [ax, ay] = corners[one], [bx, by] = corners[other];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(ids[place]);
    }
    return found;
  }

  // Hands ------------------------------------------------------------------------------------------------------------

  function where(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  }

  function hover(x, y) {
    const place = ids.length ? nearest(x, y) : -1;
    if (told.onhover) told.onhover(place < 0 ? null : ids[place], x / ratio, y / ratio);
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, where(event));
    aim = false;
    if (fingers.size === 2) {
      path = null;
      moving = "pinch";
    } else if (fingers.size === 1) {
      const [x, y] = where(event);
      moving = lasso || event.shiftKey ? "lasso" : "pan";
      path = moving === "lasso" ? [[x, y]] : null;
      down = { x, y, still: true };
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = where(event);
    if (!fingers.has(event.pointerId)) {
      if (event.pointerType !== "touch") hover(x, y);
      return;
    }
    const [bx, by] = fingers.get(event.pointerId);
    if (down && Math.hypot(x - down.x, y - down.y) > CLICK * ratio) down.still = false; // a lasso ends where it began
    if (moving === "pinch" && fingers.size === 2) {
      const [other] = [...fingers].filter(([key]) => key !== event.pointerId).map(([, place]) => place);
      const before = Math.hypot(bx - other[0], by - other[1]), after = Math.hypot(x - other[0], y - other[1]);
      pan((x - bx) / 2, (y - by) / 2);
      if (before > 1) zoom(after / before, (x + other[0]) / 2, (y + other[1]) / 2);
    } else if (moving === "pan") pan(x - bx, y - by);
    else if (moving === "lasso") {
      path.push([x, y]);
      redraw();
    }
    fingers.set(event.pointerId, [x, y]);
    if (told.onhover) told.onhover(null, 0, 0);
  });
  function up(event) {
    if (!fingers.delete(event.pointerId)) return;
    const [x, y] = where(event);
    const was = moving, line = path;
    if (fingers.size) return;
    moving = null;
    path = null;
    redraw();
    if (event.type === "pointercancel") return;
    if (down && down.still && was !== "pinch") {
      const place = nearest(x, y);
      if (told.onpick) told.onpick(place < 0 ? null : ids[place], event);
      hover(x, y);
    } else if (was === "lasso" && line.length > 2 && told.onlasso) told.onlasso(inside(line), event);
  }
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => told.onhover && !fingers.size && told.onhover(null, 0, 0));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(Math.exp(-Math.max(-120, Math.min(120, event.deltaY * (event.deltaMode ? 30 : 1))) / 240), ...where(event));
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 60 * ratio;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.4, width / 2, height / 2);
    else if (event.key === "-") zoom(1 / 1.4, width / 2, height / 2);
    else if (event.key === "0" || event.key === "Home") fit();
    else if (event.key === " " || event.key === "Enter") {
      const place = nearest(width / 2, height / 2);
      if (place >= 0 && told.onpick) told.onpick(ids[place], { shiftKey: true });
    } else return;
    event.preventDefault();
    aim = true;
    hover(width / 2, height / 2);
    redraw();
  });
  canvas.addEventListener("blur", () => {
    aim = false;
    redraw();
  });
  new ResizeObserver(size).observe(canvas);

  function css(colour) {
    const part = (shift) => ((colour >>> shift) & 255).toString(16).padStart(2, "0");
    return `#${part(0)}${part(8)}${part(16)}`;
  }

  function sort() {
    const late = (place) => (faint[paint[place]] ? 0 : paint[place] === 255 ? 1 : paint[place] === 254 ? 2 : 3);
    const counts = [0, 0, 0, 0, 0];
    for (let place = 0; place < ids.length; place += 1) counts[late(place) + 1] += 1;
    for (let level = 1; level < 5; level += 1) counts[level] += counts[level - 1];
    order = new Uint32Array(ids.length);
    for (let place = 0; place < ids.length; place += 1) order[counts[late(place)]++] = place;
  }

  return {
    canvas,
    told,
    // Other points. Those that were there before glide to their new places, unless somebody wants no motion.
    points(newIds, places) {
      const newXs = new Float32Array(newIds.length), newYs = new Float32Array(newIds.length);
      for (let place = 0; place < newIds.length; place += 1) {
        newXs[place] = places[2 * place] / 65535;
        newYs[place] = 1 - places[2 * place + 1] / 65535;
      }
      const oldXs = xs, oldYs = ys, before = at;
      ids = newIds;
      at = new Map();
      for (let place = 0; place < ids.length; place += 1) at.set(ids[place], place);
      paint = new Uint8Array(ids.length).fill(255);
      cells.clear();
      const still = !before.size || window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      xs = newXs.slice();
      ys = newYs.slice();
      sort();
      this.select(chosen);
      if (still) return redraw();
      const fromX = newXs.slice(), fromY = newYs.slice();
      for (let place = 0; place < ids.length; place += 1) {
        const was = before.get(ids[place]);
        if (was === undefined) continue;
        fromX[place] = oldXs[was];
        fromY[place] = oldYs[was];
      }
      const began = performance.now(), own = xs;
      const glide = () => {
        if (xs !== own) return; // others came
        const done = Math.min(1, (performance.now() - began) / 900);
        const eased = 1 - (1 - done) ** 3;
        for (let place = 0; place < ids.length; place += 1) {
          xs[place] = fromX[place] + (newXs[place] - fromX[place]) * eased;
          ys[place] = fromY[place] + (newYs[place] - fromY[place]) * eased;
        }
        cells.clear();
        redraw();
        if (done < 1) requestAnimationFrame(glide);
      };
      glide();
    },
    // The colour of each point: a place in a palette of "#rrggbb". `back`: kinds that step back.
    colours(of, hexes, back, ground, ink) {
      const word = (hex) => {
        const [r, g, b] = [1, 3, 5].map((from) => parseInt(hex.slice(from, from + 2), 16));
        return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
      };
      palette = new Uint32Array(256);
      hexes.forEach((hex, kind) => (palette[kind] = hex ? word(hex) : 0));
      if (of.length === ids.length) paint = of;
      faint = back;
      cells.clear();
      colours = { ground: word(ground), ink: word(ink) };
      sort();
      redraw();
    },
    select(wanted) {
      selected = new Uint8Array(ids.length);
      for (const id of wanted) if (at.has(id)) selected[at.get(id)] = 1;
      redraw();
    },
    has: (id) => at.has(id),
    inView: () => [...ids].filter((id, place) => sx(place) >= 0 && sy(place) >= 0 && sx(place) < width && sy(place) < height),
    ofKind: (kind) => [...ids].filter((id, place) => paint[place] === kind),
    small(on) {
      small = on;
      redraw();
    },
    lasso(on) {
      lasso = on;
      canvas.classList.toggle("lasso", on);
    },
    zoom: (factor) => zoom(factor, width / 2, height / 2),
    fit,
    size,
    // Where a picture is on the screen, in pixels of the page from the canvas's corner; for tests and for the eye.
    where: (id) => (at.has(id) ? [sx(at.get(id)) / ratio, sy(at.get(id)) / ratio] : null),
  };
}

const plane = makePlane();
