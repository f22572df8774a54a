// What a search has found, as elements of the page. `pick` is called with the place of the image that is clicked.

import { element } from "./api.js";

// The nearest image of a moment, with the other views of that moment.
export function hitCard(hit, pick) {
  return element("article", { class: "hit" },
    element("button", { onclick: () => pick(hit.image), "data-image": hit.image, title: "continue the search from here" },
      element("img", { src: `/api/gallery/${hit.image}/image`, alt: "" }),
      element("div", { class: "hit-text" }, element("b", {}, `${hit.subject} · ${hit.sequence}`),
        element("span", {}, `${hit.time.toFixed(1)} s · view ${hit.view}`),
        near(hit.distance, "distance between the embeddings, 0 to 2"))),
    viewButtons(hit.others, pick));
}

// A stretch that shows a movement, as a strip of a few of its images.
export function movementCard(hit, pick) {
  return element("article", { class: "hit" },
    element("button", { onclick: () => pick(hit.image), "data-image": hit.image, title: "continue the search from its first image" },
      element("div", { class: "film" }, ...hit.strip.map((place) => element("img", { src: `/api/gallery/${place}/image`, alt: "" }))),
      element("div", { class: "hit-text" }, element("b", {}, `${hit.subject} · ${hit.sequence}`),
        element("span", {}, `${hit.time.toFixed(1)} to ${hit.until.toFixed(1)} s · view ${hit.view}`),
        near(hit.distance, "mean distance between the embeddings, 0 to 2"))));
}

export function viewButtons(others, pick) {
  return element("div", { class: "views" }, ...others.slice(0, 4).map((other) => element(
    "button", { onclick: () => pick(other.image), title: `the same moment in view ${other.view}` },
    element("img", { src: `/api/gallery/${other.image}/image`, alt: `view ${other.view}` }))));
}

// A bar that is the longer the nearer something is.
function near(distance, title) {
  const bar = element("i");
  bar.style.setProperty("--share", `${Math.max(3, 100 * (1 - distance / 1.41)).toFixed(0)}%`);
  return element("span", { class: "near", title }, bar, distance.toFixed(2));
}
