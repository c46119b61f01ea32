// What the strip above the screens tells them: there are pictures that they don't show yet.

const news = new EventTarget();

export function tellIndexed() {
  news.dispatchEvent(new Event("indexed"));
}

/** @param {() => void} told */
export function whenIndexed(told) {
  news.addEventListener("indexed", told);
}
