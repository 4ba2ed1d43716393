// What the scripts of My files share: settings and texts of the page, making elements, asking the service.

const app = document.getElementById("files");
export const settings = JSON.parse(app.dataset.settings);
const words = JSON.parse(app.dataset.words);
export const csrf = app.dataset.csrf;
export const language = document.documentElement.lang || "en";

/** Return the text `key`, its {names} replaced by `values`. */
export function t(key, values = {}) {
  const text = words[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Return an element: `el("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child)`. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (value === true) made.setAttribute(name, "");
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** Return the drawing `name` of the page. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "ac-icon");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#fi-${name}`);
  svg.append(use);
  return svg;
}

/** Return a button with a drawing and a text. */
export function button(text, onclick, { kind = "plain", symbol, title, ...more } = {}) {
  return el("button", { type: "button", class: `ac-button ac-button-${kind}`, onclick, title, ...more },
    symbol ? icon(symbol) : null, el("span", {}, text));
}

/** Return a button that is a drawing alone, with `label` for who cannot see it. */
export function iconButton(symbol, label, onclick, more = {}) {
  return el("button", { type: "button", class: "fi-icon-button", "aria-label": label, title: label, onclick, ...more }, icon(symbol));
}

// ---- Asking ----------------------------------------------------------------------------------------------------------

/** A refusal: `code` is stable, the message is the service's own sentence. */
export class Refused extends Error {
  constructor(status, document, fallback) {
    super(document?.detail ?? fallback);
    this.status = status;
    this.code = document?.code ?? "";
    this.title = document?.title ?? "";
  }
}

/** Return what went wrong as a sentence with a next step. */
export function reason(error) {
  if (error instanceof Refused) return error.status === 401 ? t("signed-out") : error.message;
  if (error?.name === "AbortError") return t("cancelled");
  return t("unreachable");
}

/** Ask the service; return the JSON it answers. Raises `Refused`, and `TypeError` when nobody answers. */
export async function ask(method, path, { query, body, signal } = {}) {
  const address = new URL(settings.api + path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== "") address.searchParams.set(name, value);
  }
  const headers = { Accept: "application/json", "X-CSRF-Token": csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(address, {
    method, headers, signal, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return null;
  let document = null;
  try { document = await answer.json(); } catch { /* told by the status */ }
  if (!answer.ok) throw new Refused(answer.status, document, `HTTP ${answer.status}`);
  return document;
}

// ---- Paths -----------------------------------------------------------------------------------------------------------
// A path is percent-encoded, as the service tells and takes it; names need not be text.

export const parentOf = (path) => path.slice(0, path.lastIndexOf("/")) || "/";
export const lastOf = (path) => path.slice(path.lastIndexOf("/") + 1);
export const joined = (folder, name) => `${folder === "/" ? "" : folder}/${encodeURIComponent(name)}`;

/** Return `path` for reading; what is no text keeps its encoding. */
export function plain(path) {
  return path.split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  }).join("/");
}

/** Return `path`, whatever wrote it, in the one form that paths are compared in. */
export function canonical(path) {
  return path.split("/").map((part) => {
    try { return encodeURIComponent(decodeURIComponent(part)); } catch { return part; }
  }).join("/");
}

/** Return the address at which the bytes of `path` are. */
export const fileAddress = (path, query = "") => settings.files + ascii(path) + query;

function ascii(path) {
  return path.replace(/[^\x21-\x7e]+/g, encodeURIComponent).replace(/[?#]/g, encodeURIComponent);
}

/** Return the address of this page for the folder `path`; each name in it is encoded once, so that none is ambiguous. */
export const pageAddress = (path) => `${settings.page}?path=${canonical(path).replace(/[&+#?]/g, encodeURIComponent)}`;

/** Return the path in `search`, the query of an address of this page; programs encode slashes and blanks in their own ways. */
export function pathIn(search) {
  const given = /[?&]path=([^&]*)/.exec(search)?.[1] ?? "";
  const names = given.replace(/\+/g, "%20").split(/\/|%2F/i).filter(Boolean);
  return names.length ? canonical(`/${names.join("/")}`) : "";
}

// ---- Numbers and times -----------------------------------------------------------------------------------------------

const number = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat(language);
const date = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });

export const count = (value) => whole.format(value);

/** Return a size as people write it: powers of 1024. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (bytes >= 1024 && power < units.length - 1) { bytes /= 1024; power += 1; }
  return `${number.format(bytes)} ${units[power]}`;
}

/** Return the moment `iso` in the reader's zone. */
export function moment(iso) {
  const value = new Date(iso);
  return Number.isNaN(value.getTime()) ? "" : date.format(value);
}

/** Return what kind of thing an entry is, for its drawing and its preview. */
export function sortOf(entry) {
  if (entry.kind === "folder") return "folder";
  const aim = entry.kind === "link" ? entry.leads : entry;
  if (!aim) return "link";
  if (aim.kind === "folder") return "folder";
  const type = aim.type ?? "";
  const name = entry.name.toLowerCase();
  if (/\.ipynb$/.test(name)) return "notebook";
  if (/\.(fits?|fts)(\.gz|\.fz)?$/.test(name) || type === "application/fits") return "sky";
  if (/\.(vot|votable|csv|tsv|parquet|pq|ecsv)$/.test(name)) return "table";
  if (type.startsWith("image/")) return "image";
  if (/\.(zip|tar|gz|tgz|bz2|xz|zst|7z)$/.test(name)) return "archive";
  if (type.startsWith("text/") || /json|xml|yaml|javascript|x-sh|python/.test(type)) return "text";
  if (/\.(py|md|txt|log|toml|cfg|ini|rst|tex|r|jl|c|h|cpp|f90|sh|sql|reg|dat|pro|par|sex|conv|param|head|hdr)$/.test(name)) return "text";
  return "file";
}
