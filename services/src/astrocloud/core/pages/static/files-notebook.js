// A notebook for reading: text, code and outputs as they were saved. Made of plain text; of HTML outputs only tables are
// made anew, cell by cell. No script of a notebook can run, because none ever becomes part of the page.

import { el, plain, size, t } from "./files-kit.js";
import { Broken, bytes } from "./files-preview.js";

const LARGEST = 32 << 20;
const CELLS = 400;

const joinedText = (value) => (Array.isArray(value) ? value.join("") : typeof value === "string" ? value : "");
// Colours of a terminal have no place here.
const bare = (text) => text.replace(/\x1b\[[0-9;]*[A-Za-z]/g, "");

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
  return [el("div", { role: "document", "aria-label": plain(entry.path) }, ...document.cells.slice(0, CELLS).map(cell))];
}

function cell(given, index) {
  const source = joinedText(given?.source);
  if (given?.cell_type === "markdown") return el("div", { class: "fi-cell-block" }, ...markdown(source));
  const block = el("div", { class: "fi-cell-block fi-cell-code", role: "group", "aria-label": t("notebook-cell", { number: given?.execution_count ?? index + 1 }) }, el("pre", {}, el("code", {}, source)));
  const outputs = Array.isArray(given?.outputs) ? given.outputs : [];
  if (outputs.length) block.append(el("div", { class: "fi-cell-out", role: "group", "aria-label": t("notebook-output") }, ...outputs.map(output)));
  return block;
}

function output(given) {
  if (given?.output_type === "stream") return el("pre", {}, bare(joinedText(given.text)));
  if (given?.output_type === "error") return el("pre", {}, bare((given.traceback ?? []).map(joinedText).join("\n") || `${given.ename}: ${given.evalue}`));
  const data = given?.data ?? {};
  for (const type of ["image/png", "image/jpeg", "image/gif", "image/webp"]) {
    const text = joinedText(data[type]).replace(/\s/g, "");
    if (text && /^[A-Za-z0-9+/=]+$/.test(text)) return el("img", { src: `data:${type};base64,${text}`, alt: joinedText(data["text/plain"]) || t("notebook-output") });
  }
  const svg = joinedText(data["image/svg+xml"]);
  if (svg) return el("img", { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`, alt: joinedText(data["text/plain"]) || t("notebook-output") });
  const html = joinedText(data["text/html"]);
  const tables = html ? tablesIn(html) : [];
  if (tables.length) return el("div", { class: "ac-table-wrap" }, ...tables);
  const text = joinedText(data["text/plain"]);
  if (text) return el("pre", {}, bare(text));
  return el("p", { class: "ac-fine" }, t("notebook-hidden", { type: Object.keys(data).join(", ") || "?" }));
}

const ENTITIES = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'", nbsp: "\u00a0", minus: "−", plusmn: "±", deg: "°" };
const bareText = (html) => html.replace(/<[^>]*>/g, "").replace(/&(?:#(\d+)|(\w+));/g, (whole, code, name) => (code ? String.fromCodePoint(Math.min(Number(code), 0x10ffff)) : ENTITIES[name] ?? whole)).trim();

/** Return the tables of an HTML output, made anew from their texts. Not even a parser of HTML sees it, only these patterns. */
function tablesIn(html) {
  const found = [...html.replace(/<!--[\s\S]*?-->/g, "").matchAll(/<table\b[^>]*>([\s\S]*?)<\/table\s*>/gi)].slice(0, 5);
  return found.map(([, table]) => el("table", {}, ...table.split(/<tr\b[^>]*>/i).slice(1, 201).map((row) => el("tr", {},
    ...[...row.matchAll(/<(t[hd])\b[^>]*>([\s\S]*?)(?=<\/?t[hdr]\b|<\/?t(?:body|head|able)\b|$)/gi)].slice(0, 100).map(([, tag, cell]) => el(tag.toLowerCase(), {}, bareText(cell)))))));
}

// ---- Markdown, as far as notebooks mostly use it ----------------------------------------------------------------------

function markdown(text) {
  const made = [];
  let lines = [];
  const flush = () => { if (lines.length) made.push(el("p", {}, ...inline(lines.join("\n")))); lines = []; };
  const all = text.split("\n");
  for (let index = 0; index < all.length; index += 1) {
    const line = all[index];
    const heading = /^(#{1,6})\s+(.*?)#*$/.exec(line);
    const item = /^\s*(?:[-*+]|\d+[.)])\s+(.*)$/.exec(line);
    if (/^\s*(```|~~~)/.test(line)) {
      flush();
      const code = [];
      while (index + 1 < all.length && !/^\s*(```|~~~)/.test(all[index + 1])) code.push(all[index += 1]);
      index += 1;
      made.push(el("pre", {}, el("code", {}, code.join("\n"))));
    } else if (heading) {
      flush();
      made.push(el(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2])));
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

const MARKS = /(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*|!?\[[^\]]*\]\([^)\s]*\))/;

function inline(text) {
  return text.split(MARKS).map((piece) => {
    if (/^`.+`$/.test(piece)) return el("code", {}, piece.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(piece)) return el("strong", {}, piece.slice(2, -2));
    if (/^\*.+\*$/.test(piece)) return el("em", {}, piece.slice(1, -1));
    const link = /^!?\[([^\]]*)\]\(([^)\s]*)\)$/.exec(piece);
    if (!link) return piece;
    return /^https?:\/\//.test(link[2]) && !piece.startsWith("!") ? el("a", { href: link[2], rel: "noopener noreferrer", target: "_blank" }, link[1]) : link[1];
  });
}
