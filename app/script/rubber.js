// Selecting pictures by drawing a rectangle around them with the mouse.

const band = make("div", { class: "rubber", "aria-hidden": "true" });
let drag = null;

function within(box) {
  return drag.boxes.filter(
    (other) => other.left < box.right && other.right > box.left && other.top < box.bottom && other.bottom > box.top,
  );
}

function stretch(event) {
  const x = event.clientX + window.scrollX;
  const y = event.clientY + window.scrollY;
  if (!drag.drawn && Math.hypot(x - drag.x, y - drag.y) < 8) return; // a click by an unsteady hand
  if (!drag.drawn) {
    drag.drawn = true;
    drag.before = new Set(chosen);
    // Measured once: asking the browser at every move would be slow with thousands of pictures.
    drag.boxes = [...board.querySelectorAll(".tile")].map((tile) => {
      const at = tile.getBoundingClientRect();
      return {
        id: Number(tile.dataset.image),
        left: at.left + window.scrollX,
        right: at.right + window.scrollX,
        top: at.top + window.scrollY,
        bottom: at.bottom + window.scrollY,
      };
    });
    document.body.append(band);
    document.body.classList.add("massl-dragging");
  }
  const box = { left: Math.min(x, drag.x), right: Math.max(x, drag.x), top: Math.min(y, drag.y), bottom: Math.max(y, drag.y) };
  band.style.left = `${box.left}px`;
  band.style.top = `${box.top}px`;
  band.style.width = `${box.right - box.left}px`;
  band.style.height = `${box.bottom - box.top}px`;
  const touched = new Set(within(box).map((other) => other.id));
  for (const { id } of drag.boxes) choose(id, drag.before.has(id) || touched.has(id));
  mark();
}

function release() {
  window.removeEventListener("pointermove", stretch);
  window.removeEventListener("pointerup", release);
  window.removeEventListener("pointercancel", release);
  band.remove();
  document.body.classList.remove("massl-dragging");
  if (drag && drag.drawn) {
    // The click that ends it is not meant for the picture below.
    const swallow = (event) => {
      event.stopPropagation();
      event.preventDefault();
    };
    window.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => window.removeEventListener("click", swallow, { capture: true }), 50);
  }
  drag = null;
}

board.addEventListener("pointerdown", (event) => {
  // Fingers scroll; only a mouse draws.
  if (event.pointerType !== "mouse" || event.button !== 0 || event.shiftKey) return;
  if (!event.target.closest(".content") || event.target.closest("input, select, a, button:not(.picture)")) return;
  drag = { x: event.clientX + window.scrollX, y: event.clientY + window.scrollY, drawn: false };
  window.addEventListener("pointermove", stretch);
  window.addEventListener("pointerup", release);
  window.addEventListener("pointercancel", release);
});
