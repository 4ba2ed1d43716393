// A notebook for reading: text, code and outputs as they were saved. Made of plain text; of HTML outputs only tables are
// made anew, cell by cell. No script of a notebook can run, because none ever becomes part of the page.

import { count, el, plain, size, t } from "./files-kit.js";
import { bare, Broken, bytes, without } from "./files-preview.js";

const LARGEST = 32 << 20;
const CELLS = 400;
const OUTPUTS = 100;            // of one cell
const TEXT = 100_000;           // characters of one text
const ALL_TEXT = 2_000_000;     // and of all that is shown

const joinedText = (value) => (Array.isArray(value) ? value.join("") : typeof value === "string" ? value : "");

let room = 0;

/** Return as much of `text` as is shown of one, told where it is cut; a page of many megabytes would stand still. */
function cutText(given, told = []) {
  const text = bare(given);
  const many = Math.max(0, Math.min(TEXT, room));
  room -= Math.min(many, text.length);
  if (text.length > many) told.push(el("p", { class: "ac-fine" }, t("notebook-cut", { shown: count(many), total: count(text.length) })));
  return text.slice(0, many);
}

export async function showNotebook(entry, signal) {
  if (entry.size > LARGEST) return [el("p", {}, t("preview-large", { size: size(entry.size) }))];
  let document;
  try {
    document = JSON.parse(new TextDecoder().decode(await bytes(entry, 0, entry.size, signal)));
  } catch (error) {
    if (error instanceof SyntaxError) throw new Broken();
    throw error;
  }
  if (!Array.isArray(document?.cells)) throw new Broken();
  room = ALL_TEXT;
  const { cells } = document;
  return [cells.length > CELLS ? el("p", { class: "ac-fine" }, t("notebook-some", { shown: count(CELLS), total: count(cells.length) })) : "",
    el("div", { role: "document", "aria-label": plain(entry.path) }, ...cells.slice(0, CELLS).map(cell))];
}

function cell(given, index) {
  const told = [];
  const source = cutText(joinedText(given?.source), told);
  if (given?.cell_type === "markdown") return el("div", { class: "fi-cell-block" }, ...markdown(source), ...told);
  const block = el("div", { class: "fi-cell-block fi-cell-code", role: "group", "aria-label": t("notebook-cell", { number: given?.execution_count ?? index + 1 }) }, el("pre", {}, el("code", {}, source)), ...told);
  const outputs = Array.isArray(given?.outputs) ? given.outputs : [];
  if (outputs.length) block.append(el("div", { class: "fi-cell-out", role: "group", "aria-label": t("notebook-output") }, ...outputs.slice(0, OUTPUTS).flatMap(output)));
  if (outputs.length > OUTPUTS) block.append(el("p", { class: "ac-fine" }, t("notebook-outputs", { shown: count(OUTPUTS), total: count(outputs.length) })));
  return block;
}

function words(text) {
  const told = [];
  return [el("pre", {}, cutText(text, told)), ...told];
}

/** Return what an error says; programs write its trace as one text or as many. */
function errorText(given) {
  const trace = Array.isArray(given.traceback) ? given.traceback.map(joinedText).join("\n") : joinedText(given.traceback);
  return trace || [given.ename, given.evalue].map(joinedText).filter(Boolean).join(": ");
}

function output(given) {
  if (given?.output_type === "stream") return words(joinedText(given.text));
  if (given?.output_type === "error") return words(errorText(given));
  const data = given?.data && typeof given.data === "object" ? given.data : {};
  for (const type of ["image/png", "image/jpeg", "image/gif", "image/webp"]) {
    const text = joinedText(data[type]).replace(/\s/g, "");
    if (text && /^[A-Za-z0-9+/=]+$/.test(text)) return [el("img", { src: `data:${type};base64,${text}`, alt: joinedText(data["text/plain"]).slice(0, 1000) || t("notebook-output") })];
  }
  const svg = joinedText(data["image/svg+xml"]);
  if (svg) return [el("img", { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg.toWellFormed?.() ?? svg)}`, alt: joinedText(data["text/plain"]).slice(0, 1000) || t("notebook-output") })];
  const html = joinedText(data["text/html"]);
  if (html) {
    const told = [];
    const tables = tablesIn(cutText(html, told));
    if (tables.length) return [el("div", { class: "ac-table-wrap" }, ...tables), ...told];
  }
  const text = joinedText(data["text/plain"]);
  if (text) return words(text);
  return [el("p", { class: "ac-fine" }, t("notebook-hidden", { type: Object.keys(data).slice(0, 10).join(", ") || "?" }))];
}

const ENTITIES = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'", nbsp: "\u00a0", minus: "−", plusmn: "±", deg: "°" };
// Each pattern stops at the next "<", so that none reads a hostile text again and again.
const bareText = (html) => bare(html.replace(/<[^<>]*>/g, "").replace(/&(?:#(\d{1,7})|(\w{1,10}));/g, (whole, code, name) => (code ? String.fromCodePoint(Math.min(Number(code), 0x10ffff)) : ENTITIES[name] ?? whole))).trim();

/** Return the tables of an HTML output, made anew from their texts. Not even a parser of HTML sees it, only these patterns. */
function tablesIn(html) {
  const found = [];
  for (const rest of without(html, "<!--", "-->").split(/<table\b[^<>]*>/i).slice(1)) {
    const end = rest.search(/<\/table\b/i);
    if (end >= 0) found.push(tableFrom(rest.slice(0, end)));
    if (found.length === 5) break;
  }
  return found;
}

function tableFrom(text) {
  return el("table", {}, ...text.split(/<tr\b[^<>]*>/i, 201).slice(1).map((row) => {
    const cells = row.split(/<(t[hd])\b[^<>]*>/i, 201);  // what is before the first, then a tag and a text for each
    return el("tr", {}, ...cells.flatMap((tag, index) => (index % 2 && index + 1 < cells.length
      ? el(tag.toLowerCase(), {}, bareText(cells[index + 1].split(/<\/?t(?:[hdr]|body|head|able)\b/i, 1)[0])) : [])));
  }));
}

// ---- Markdown, as far as notebooks mostly use it ----------------------------------------------------------------------

function markdown(text) {
  const made = [];
  let lines = [];
  const flush = () => { if (lines.length) made.push(el("p", {}, ...inline(lines.join("\n")))); lines = []; };
  const all = text.split("\n");
  for (let index = 0; index < all.length; index += 1) {
    const line = all[index];
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    const item = /^\s*(?:[-*+]|\d+[.)])\s+(.*)$/.exec(line);
    if (/^\s*(```|~~~)/.test(line)) {
      flush();
      const code = [];
      while (index + 1 < all.length && !/^\s*(```|~~~)/.test(all[index + 1])) code.push(all[index += 1]);
      index += 1;
      made.push(el("pre", {}, el("code", {}, code.join("\n"))));
    } else if (heading) {
      flush();
      made.push(el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(withoutEnd(heading[2], "#"))));
    } else if (item) {
      flush();
      if (made.at(-1)?.tagName !== "UL" || !all[index - 1]?.trim()) made.push(el("ul", {}));
      made.at(-1).append(el("li", {}, ...inline(item[1])));
    } else if (!line.trim()) flush();
    else lines.push(line);
  }
  flush();
  return made;
}

const MARKS = /(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*|!?\[[^[\]]*\]\([^()[\]\s]*\))/;

function withoutEnd(text, char) {
  let end = text.length;
  while (end && text[end - 1] === char) end -= 1;
  return text.slice(0, end);
}

function inline(text) {
  return text.split(MARKS).map((piece) => {
    if (/^`.+`$/.test(piece)) return el("code", {}, piece.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(piece)) return el("strong", {}, piece.slice(2, -2));
    if (/^\*.+\*$/.test(piece)) return el("em", {}, piece.slice(1, -1));
    const link = /^!?\[([^[\]]*)\]\(([^()[\]\s]*)\)$/.exec(piece);
    if (!link) return piece;
    return /^https?:\/\//.test(link[2]) && !piece.startsWith("!") ? el("a", { href: link[2], rel: "noopener noreferrer", target: "_blank" }, link[1]) : link[1];
  });
}
