// Previews: each kind of file by a reader of its own, which makes elements of plain text only. Nothing of a file is ever
// taken for markup or run, and of a large file only what is shown is fetched.

import { announce } from "./shared.js";
import { button, el, fileAddress, icon, iconButton, moment, plain, reason, Refused, size, sortOf, t } from "./files-kit.js";

const place = document.getElementById("fi-preview");
const TEXT_BYTES = 256 << 10;

let now = null;
let asked = null;

export const previewed = () => now;

export function closePreview() {
  asked?.abort();
  now = null;
  place.hidden = true;
  place.replaceChildren();
  place.parentElement.classList.remove("fi-viewing");
}

/** Return the bytes of `entry` from `from` to before `to`. */
export async function bytes(entry, from, to, signal) {
  const answer = await fetch(fileAddress(entry.path), {
    headers: { Range: `bytes=${from}-${Math.max(from, to - 1)}`, Accept: "application/json" }, credentials: "same-origin", signal,
  });
  if (answer.status === 416) return new Uint8Array();
  if (!answer.ok) {
    let document = null;
    try { document = await answer.json(); } catch { /* told by the status */ }
    throw new Refused(answer.status, document, `HTTP ${answer.status}`);
  }
  const found = new Uint8Array(await answer.arrayBuffer());
  return answer.status === 206 ? found : found.subarray(from, to);
}

/** A reader says so when a file is not what its name says. */
export class Broken extends Error {}

const readers = {
  text: showText,
  image: showImage,
  notebook: async (...given) => (await import("./files-notebook.js")).showNotebook(...given),
  sky: async (...given) => (await import("./files-fits.js")).showFits(...given),
  table: async (...given) => (await import("./files-tables.js")).showTable(...given),
};

/** Show what is in the file `entry`. */
export async function showPreview(entry, { actions = [] } = {}) {
  closePreview();
  now = entry;
  asked = new AbortController();
  const { signal } = asked;
  const aim = entry.leads ?? entry;
  const body = el("div", { "aria-busy": "true" }, el("p", { class: "ac-soft" }, t("preview-loading")));
  place.replaceChildren(
    el("header", {}, el("h2", { id: "fi-preview-title" }, entry.name), iconButton("close", t("close"), () => { closePreview(); document.getElementById("fi-grid").focus(); })),
    el("p", { class: "fi-facts" }, el("span", {}, size(aim.size)), el("span", {}, moment(aim.modified)), el("span", {}, aim.type ?? "")),
    el("div", { class: "ac-actions" },
      el("a", { class: "ac-button ac-button-plain", href: fileAddress(entry.path), download: "" }, icon("download"), el("span", {}, t("download"))), ...actions),
    body);
  place.hidden = false;
  place.parentElement.classList.add("fi-viewing");
  place.scrollTop = 0;
  place.focus({ preventScroll: true });
  announce(`${t("preview")}: ${entry.name}`);
  const reader = readers[sortOf(entry)];
  try {
    const made = reader ? await reader({ ...aim, path: entry.path, name: entry.name }, signal, body) : [el("p", {}, t("preview-none"))];
    if (!signal.aborted && made) body.replaceChildren(...made);
  } catch (error) {
    if (signal.aborted) return;
    const text = error instanceof Broken || error instanceof RangeError ? t("preview-broken") : reason(error);
    body.replaceChildren(el("p", { role: "alert" }, t("preview-failed", { reason: text })),
      error instanceof Broken ? "" : button(t("retry"), () => showPreview(entry, { actions })));
  } finally {
    body.removeAttribute("aria-busy");
  }
}

async function showText(entry, signal) {
  const data = await bytes(entry, 0, TEXT_BYTES, signal);
  if (data.subarray(0, 8192).includes(0)) return [el("p", {}, t("preview-none"))];
  return [part(data.length, entry.size), el("pre", { tabindex: "0", "aria-label": plain(entry.path) }, bare(new TextDecoder().decode(data)))];
}

async function showImage(entry) {
  if (!/^image\/(png|jpeg|gif|webp|bmp|svg\+xml|avif)$/.test(entry.type)) return [el("p", {}, t("preview-none"))];
  // An image runs no script, an SVG neither when it is shown as an image.
  const image = el("img", { src: fileAddress(entry.path), alt: entry.name });
  await new Promise((resolve, reject) => {
    image.addEventListener("load", resolve);
    image.addEventListener("error", () => reject(new Broken()));
  });
  return [image, el("p", { class: "ac-fine" }, `${image.naturalWidth} × ${image.naturalHeight}`)];
}

/**
 * Return `text` without a terminal's colours and other signs that nothing is written with: for each that no font has, a
 * browser looks through all of them, and a page full of these stands still for a minute.
 */
export const bare = (text) => text.replace(/\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, "");

/** Say that only a part is shown, where that is so. */
export function part(shown, whole) {
  return shown < whole ? el("p", { class: "ac-fine" }, t("preview-part", { shown: size(shown), size: size(whole) })) : "";
}

const LONGEST = 1000;  // characters of one cell
const short = (text) => { const found = bare(text); return found.length > LONGEST ? `${found.slice(0, LONGEST)}…` : found; };

/** Return a table: `columns` are `{name, unit}`, `rows` arrays of texts. */
export function tableOf(columns, rows, label) {
  return el("div", { class: "ac-table-wrap", tabindex: "0", role: "region", "aria-label": label }, el("table", { class: "ac-table" },
    el("thead", {}, el("tr", {}, ...columns.map(({ name, unit }) => el("th", { scope: "col" }, short(name), unit ? el("small", {}, short(unit)) : "")))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(short).map((value) => el("td", { title: value.length > 40 ? value : undefined }, value)))))));
}

/** Return `text` without what is between `open` and `close`, which are left out, too; or with it, when it is to be `kept`. */
export function without(text, open, close, { kept = false } = {}) {
  const found = [];
  let at = 0;
  for (let from = text.indexOf(open); from >= 0; from = text.indexOf(open, at)) {
    const to = text.indexOf(close, from + open.length);
    if (to < 0) break;
    found.push(text.slice(at, from), kept ? text.slice(from + open.length, to) : "");
    at = to + close.length;
  }
  return found.join("") + text.slice(at);
}
