// The screen "Sort into classes".

const clickSelects = true;

function drawHead() {
  const sorted = value.sections.length > 0;
  const go = button(sorted ? "Sort again" : "Sort everything", () => act({ do: "classify" }), {
    class: !sorted || value.behind ? "main" : "plain",
    disabled: !value.ready,
  });
  const orders = (value.orders || []).map((order) =>
    button(order.name, () => act({ do: "order", order: order.key }), {
      class: "order",
      "aria-pressed": String(order.key === value.order),
    }),
  );
  parts.head.replaceChildren(
    make(
      "div",
      { class: "ask" },
      make(
        "div",
        { class: "words" },
        make("strong", {}, "Sort every picture into your classes"),
        value.summary.length
          ? value.summary.map((line) => make("span", {}, line))
          : make("span", {}, "A few labelled pictures of each class are enough to sort all the others."),
        value.behind ? make("span", { class: "behind" }, "Labels have changed since: sort again to see their effect.") : null,
      ),
      make(
        "div",
        { class: "buttons" },
        go,
        sorted ? button("Download as CSV", () => act({ do: "csv" })) : null,
      ),
    ),
    orders.length ? make("div", { class: "orders", role: "group", "aria-label": "Order" }, orders) : "",
  );
}

drawing.push(drawHead);
