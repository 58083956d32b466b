// Comfort on pages that are whole without it: a phrase lights its boxes and the other way round, keys lead on,
// and the ticks of the legend stay from page to page.
"use strict";

const all = (selector) => Array.from(document.querySelectorAll(selector));
const keysOf = (element) => (element.dataset.boxes || element.dataset.box || "").split(" ").filter(Boolean);

function light(keys, on) {
  for (const other of all("[data-box], [data-boxes]")) {
    if (keysOf(other).some((key) => keys.includes(key))) other.classList.toggle("lit", on);
  }
}

for (const element of all("[data-box], [data-boxes]")) {
  for (const event of ["pointerenter", "focus"]) element.addEventListener(event, () => light(keysOf(element), true));
  for (const event of ["pointerleave", "blur"]) element.addEventListener(event, () => light(keysOf(element), false));
}

for (const tick of all("#legend input")) {
  const name = "spr-inspect-" + tick.dataset.kind;
  const kept = sessionStorage.getItem(name);
  if (kept) tick.checked = kept === "on";
  tick.addEventListener("change", () => sessionStorage.setItem(name, tick.checked ? "on" : "off"));
}

// A picture of the list that is not there leaves its place empty.
for (const image of all(".thumbnail")) {
  const hide = () => { image.style.visibility = "hidden"; };
  if (image.complete && !image.naturalWidth) hide(); else image.addEventListener("error", hide);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
  const target = { n: "next", p: "previous", "/": "filter-text" }[event.key];
  const element = target && document.getElementById(target);
  if (!element) return;
  event.preventDefault();
  if (target === "filter-text") element.focus(); else element.click();
});
