// Choosing a part of a picture: drawn with mouse or finger, or typed.

const region = make("dialog", { class: "region", "aria-label": "Search by a part of the picture" });
let box = null; // x, y, width, height as shares of the picture

// As large as its column is wide, and at most so many hundredths of the window high; whatever is laid over it fits too.
function fitSheet(sheet, ratio, height) {
  sheet.style.aspectRatio = ratio;
  sheet.style.width = `min(100%, calc(${height}vh * ${ratio}))`;
}

function fitWhenLoaded(image, sheet, height) {
  image.addEventListener("load", () => fitSheet(sheet, image.naturalWidth / image.naturalHeight, height));
}

function openRegion(picture, use) {
  box = picture.part ? [...picture.part] : null;
  const frame = make("div", { class: "box", hidden: true });
  const image = make("img", { src: picture.large, alt: `The picture ${picture.name}`, draggable: "false" });
  const stage = make("div", { class: "stage" }, image, frame);
  image.addEventListener("error", () => {
    stage.replaceWith(make("p", { class: "trouble", role: "alert" }, "This picture can't be shown: its file is gone, or has changed since it was indexed."));
    for (const each of [...fields, search]) each.disabled = true;
  });
  fitWhenLoaded(image, stage, 56);
  const names = ["From the left", "From the top", "Width", "Height"];
  const fields = names.map((name, at) =>
    make("input", {
      type: "number",
      min: at < 2 ? "0" : "1",
      max: at < 2 ? "99" : "100",
      step: "1",
      "aria-label": `${name}, in percent`,
      oninput: () => {
        const given = fields.map((field) => Number(field.value) / 100);
        if (given.every(Number.isFinite) && given[2] > 0 && given[3] > 0) show(given, false);
      },
    }),
  );
  const search = button("Search by this part", () => finish(box), { class: "main" });

  function show(wanted, write) {
    const [x, y] = [Math.min(Math.max(wanted[0], 0), 0.99), Math.min(Math.max(wanted[1], 0), 0.99)];
    box = [x, y, Math.min(wanted[2], 1 - x), Math.min(wanted[3], 1 - y)];
    frame.hidden = false;
    search.disabled = false;
    ["left", "top", "width", "height"].forEach((side, at) => (frame.style[side] = `${100 * box[at]}%`));
    if (write) fields.forEach((field, at) => (field.value = Math.round(100 * box[at])));
  }

  function finish(part) {
    region.close();
    use(part);
  }

  let from = null;
  const at = (event) => {
    const around = stage.getBoundingClientRect();
    const share = (here, start, size) => Math.min(1, Math.max(0, (here - start) / size));
    return [share(event.clientX, around.left, around.width), share(event.clientY, around.top, around.height)];
  };
  stage.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    from = at(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    const size = [Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])];
    if (size[0] > 0.01 && size[1] > 0.01) show([Math.min(from[0], to[0]), Math.min(from[1], to[1]), ...size], true);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (from = null));

  region.replaceChildren(
    make("h2", {}, "Search by a part of the picture"),
    make("p", { class: "calm" }, "Draw a box around what matters, with the mouse or a finger, or type where it is, in percent."),
    stage,
    make(
      "div",
      { class: "fields" },
      names.map((name, at) => make("label", {}, name, fields[at])),
    ),
    make(
      "div",
      { class: "buttons" },
      search,
      button("The whole picture", () => finish(null)),
      button("Cancel", () => region.close()),
    ),
  );
  search.disabled = true;
  if (!region.isConnected) board.append(region);
  region.showModal();
  if (box) show(box, true);
  fields[0].focus();
}
