/** What was found, as elements over the picture and as rows of a list. Names go in by `textContent` alone. */

/** @typedef {{label: number, id: number, name: string, score: number, box: number[]}} Detection */
// A box is x0, y0, x1, y1 in pixels of the picture as stored; width and height are the stored picture's.
/** @typedef {{name: ?string, width: number, height: number, detections: Detection[]}} Result */

/** A hue for a class: neighbours in the list lie far apart on the wheel. */
const hue = (label) => (label * 137.508 + 25) % 360;

/** A new element in the class's colour. */
export function coloured(kind, css, label) {
  const made = document.createElement(kind);
  made.className = css;
  made.style.setProperty("--hue", hue(label));
  return made;
}

const percent = (part, whole) => `${(100 * part) / whole}%`;

/** A detection's box, placed in shares of the picture: right and sharp at every size of it. */
export function draw({ label, box: [x0, y0, x1, y1] }, { width, height }) {
  const made = coloured("div", "box", label);
  made.style.left = percent(x0, width);
  made.style.top = percent(y0, height);
  made.style.width = percent(x1 - x0, width);
  made.style.height = percent(y1 - y0, height);
  return made;
}

/** Its name and score, above the box where there is room, and towards the middle of the picture. */
export function tag({ label, name, score, box: [x0, y0, x1] }, { width, height }) {
  const made = coloured("span", "tag", label);
  made.textContent = `${name} ${score.toFixed(2)}`;
  made.style.setProperty("--top", percent(y0, height));
  if (x0 + x1 <= width) made.style.left = percent(Math.max(x0, 0), width);
  else made.style.right = percent(Math.max(width - x1, 0), width);
  return made;
}

/** Its row in the list; pointing at it marks the box. */
export function row({ label, name, score, box }, drawn) {
  const made = document.createElement("tr");
  for (const words of [name, score.toFixed(2), ...box.map((edge) => edge.toFixed(1))]) {
    made.insertCell().textContent = words;
  }
  made.cells[0].className = "words";
  made.cells[0].prepend(coloured("span", "swatch", label));
  made.onmouseenter = () => drawn.classList.add("pointed");
  made.onmouseleave = () => drawn.classList.remove("pointed");
  return made;
}
