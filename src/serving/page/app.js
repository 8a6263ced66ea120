/**
 * The service's page: pictures go to the service once, with a low threshold; the slider, the classes and the
 * boxes are the browser's affair from then on. Every word from a file or a model goes in by `textContent`.
 */

/** @typedef {import("./drawing.js").Result} Result */
/** @typedef {import("./drawing.js").Detection} Detection */
/**
 * @typedef {object} Picture
 * @property {File} file
 * @property {"waiting" | "asking" | "done" | "failed"} status
 * @property {AbortController} removed
 * @property {HTMLElement} card
 * @property {string} url of the browser's own copy
 * @property {Result} [result]
 * @property {Error} [error]
 */

import { coloured, draw, row, tag } from "./drawing.js";
import { ask, askAbout, explain, megabytes, useToken } from "./service.js";

const element = (id) => document.getElementById(id);

const LEAST_SCORE = Number(element("threshold").min); // what the service is asked for
const AT_ONCE = 3; // pictures under way
const MANY_CLASSES = 20; // from so many on there is a field to find one

const state = {
  model: null, // what `GET /model` says
  /** @type {Picture[]} */
  pictures: [],
  /** @type {Set<number>} labels that are switched off */
  off: new Set(),
  threshold: LEAST_SCORE,
};

/** Read the model's card and set the page up by it. */
async function start() {
  try {
    const model = await ask("model");
    state.model = model;
    const [height, width] = model.input_size_hw;
    document.title = `${model.name}: detector`;
    element("model").textContent = model.name;
    element("about").textContent =
      `${model.classes.length} classes; the model looks at pictures in ${width} × ${height} pixels.`;
    element("limits").textContent =
      `each up to ${megabytes(model.max_upload_bytes)}, ${model.max_pixels / 1e6} megapixels`;
    element("token-form").hidden = !model.token_required;
    element("threshold").value = model.threshold;
    state.threshold = Number(element("threshold").value);
    listClasses();
    refresh();
    sendWaiting();
  } catch (error) {
    if (error.status === 401) element("token-form").hidden = false;
    say(explain(error));
  }
}

/** @param {Iterable<File>} files */
function add(files) {
  for (const file of files) {
    const card = element("picture-template").content.cloneNode(true).firstElementChild;
    const url = URL.createObjectURL(file);
    const picture = { file, url, card, status: "waiting", removed: new AbortController() };
    const find = (css) => card.querySelector(css);
    find("h2").textContent = file.name;
    find("img").alt = file.name;
    find("img").src = picture.url;
    find("img").onerror = ({ target }) => {
      target.hidden = true;
      showPicture(picture);
    };
    find(".remove").ariaLabel = `Remove ${file.name}`;
    find(".remove").onclick = () => remove([picture]);
    find(".again").onclick = () => sendAgain([picture]);
    find(".enlarge").onclick = ({ target }) => {
      target.ariaPressed = card.classList.toggle("large");
    };
    state.pictures.push(picture);
    element("pictures").append(card);
  }
  refresh();
  sendWaiting();
}

/** @param {Picture[]} pictures */
function remove(pictures) {
  const last = pictures.at(-1).card;
  const next = last.nextElementSibling ?? pictures[0].card.previousElementSibling;
  state.pictures = state.pictures.filter((picture) => !pictures.includes(picture));
  for (const { removed, url, card } of pictures) {
    removed.abort();
    URL.revokeObjectURL(url);
    card.remove();
  }
  (next?.querySelector(".remove") ?? element("files")).focus();
  refresh();
  sendWaiting();
}

/** @param {Picture[]} pictures */
function sendAgain(pictures) {
  for (const picture of pictures) picture.status = "waiting";
  refresh();
  sendWaiting();
}

/** Keep a few pictures under way. */
function sendWaiting() {
  if (!state.model) return;
  const free = AT_ONCE - state.pictures.filter((picture) => picture.status === "asking").length;
  state.pictures.filter((picture) => picture.status === "waiting").slice(0, Math.max(free, 0)).forEach(send);
}

/** @param {Picture} picture */
async function send(picture) {
  picture.status = "asking";
  showPicture(picture);
  try {
    picture.result = await askAbout(picture.file, LEAST_SCORE, state.model, picture.removed.signal);
    picture.status = "done";
  } catch (error) {
    picture.error = error;
    picture.status = "failed";
    if (error.status === 401) element("token-form").hidden = false;
  }
  if (!picture.removed.signal.aborted) refresh();
  sendWaiting();
}

/** @returns {Detection[]} of a picture, what the slider and the classes let through, best first */
function shown(picture) {
  if (picture.status !== "done") return [];
  const { detections } = picture.result;
  return detections.filter(({ score, label }) => score >= state.threshold && !state.off.has(label));
}

/** List the model's classes, each with its switch. */
function listClasses() {
  element("classes").replaceChildren(...state.model.classes.map(({ label, name }) => {
    const row = element("class-template").content.cloneNode(true).firstElementChild;
    row.querySelector(".swatch").replaceWith(coloured("span", "swatch", label));
    row.querySelector(".name").textContent = name;
    row.querySelector("input").checked = !state.off.has(label);
    row.querySelector("input").onchange = ({ target }) => {
      state.off[target.checked ? "delete" : "add"](label);
      refresh();
    };
    return row;
  }));
  element("find").hidden = state.model.classes.length < MANY_CLASSES;
}

/** Switch all classes on or off. */
function switchAll(on) {
  state.off = new Set(on ? [] : state.model?.classes.map(({ label }) => label));
  for (const box of element("classes").querySelectorAll("input")) box.checked = on;
  refresh();
}

/** Bring the page in line with the state. */
function refresh() {
  const { pictures, model } = state;
  element("threshold-value").textContent = state.threshold.toFixed(2);
  pictures.forEach(showPicture);
  const done = pictures.filter((picture) => picture.status === "done");
  const counts = new Map();
  for (const { score, label } of done.flatMap((picture) => picture.result.detections)) {
    if (score >= state.threshold) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  [...element("classes").children].forEach((row, index) => {
    const count = counts.get(model.classes[index].label) ?? 0;
    row.querySelector(".count").textContent = count || "";
    row.classList.toggle("nothing", count === 0);
  });
  element("empty").hidden = pictures.length > 0;
  element("download").disabled = done.length === 0;
  element("clear").disabled = pictures.length === 0;
  const failed = pictures.filter((picture) => picture.status === "failed").length;
  const total = done.reduce((sum, picture) => sum + shown(picture).length, 0);
  if (!model) return;
  const some = `${done.length} of ${pictures.length} pictures done${failed ? `, ${failed} failed` : ""}`;
  say(pictures.length ? `${some}; ${total} detections shown.` : "Ready.");
}

/** Put words where a screen reader speaks them, and only where they are new. */
function say(words) {
  if (element("status").textContent !== words) element("status").textContent = words;
}

/** @param {Picture} picture */
function showPicture(picture) {
  const { card, status, result } = picture;
  const find = (css) => card.querySelector(css);
  const detections = shown(picture);
  card.dataset.status = status;
  card.ariaBusy = status === "asking";
  find(".stage").hidden = status === "failed";
  find(".enlarge").hidden = status !== "done";
  find(".again").hidden = status !== "failed";
  find("details").hidden = status !== "done";
  find(".message").textContent = {
    waiting: "Waits for its turn.",
    asking: "Sent, waiting for the answer.",
    done: find("img").hidden ? "This browser cannot show such a picture; its boxes stand alone." : "",
    failed: picture.error ? explain(picture.error) : "",
  }[status];
  find(".message").hidden = !find(".message").textContent;
  if (status !== "done") return find(".boxes").replaceChildren();
  find(".stage").style.setProperty("--width", result.width);
  find(".stage").style.setProperty("--height", result.height);
  find("summary").textContent = `${detections.length} of ${result.detections.length} detections shown`;
  const boxes = detections.map((detection) => draw(detection, result));
  const tags = detections.map((detection) => tag(detection, result));
  find(".boxes").replaceChildren(...boxes.toReversed(), ...tags.toReversed());
  find("tbody").replaceChildren(...detections.map((detection, index) => row(detection, boxes[index])));
}

/** Save what is shown, of all pictures. */
function download() {
  const done = state.pictures.filter((picture) => picture.status === "done");
  const failed = state.pictures.filter((picture) => picture.status === "failed");
  const told = {
    model: state.model.name,
    threshold: state.threshold,
    classes_off: state.model.classes.filter(({ label }) => state.off.has(label)).map(({ name }) => name),
    results: done.map((picture) => ({
      name: picture.file.name,
      width: picture.result.width,
      height: picture.result.height,
      detections: shown(picture),
    })),
    failed: failed.map(({ file, error }) => ({ name: file.name, reason: explain(error) })),
  };
  const url = URL.createObjectURL(new Blob([JSON.stringify(told, null, 2)], { type: "application/json" }));
  Object.assign(document.createElement("a"), { href: url, download: "detections.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

element("files").onchange = ({ target }) => {
  add([...target.files]);
  target.value = ""; // so that the same file can be chosen again
};
element("threshold").oninput = ({ target }) => {
  state.threshold = Number(target.value);
  refresh();
};
element("all").onclick = () => switchAll(true);
element("none").onclick = () => switchAll(false);
element("find").oninput = ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  state.model.classes.forEach(({ name }, index) => {
    element("classes").children[index].hidden = !name.toLowerCase().includes(wanted);
  });
};
element("download").onclick = download;
element("clear").onclick = () => remove(state.pictures);
element("token-form").onsubmit = (event) => {
  event.preventDefault();
  useToken(element("token").value);
  if (!state.model) return start();
  sendAgain(state.pictures.filter(({ status, error }) => status === "failed" && error.status === 401));
};
window.addEventListener("paste", (event) => add(event.clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    const over = kind === "dragover" || (kind === "dragleave" && event.relatedTarget !== null);
    document.body.classList.toggle("dragging", over);
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
start();
