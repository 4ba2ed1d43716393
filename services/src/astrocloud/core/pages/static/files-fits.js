// FITS (standard 4.0): headers, images and tables. Headers are read block by block; of an image only every so-many-th
// pixel is fetched when it is larger than the preview, of a table its first rows.

import { canonical, count, el, settings, size, t } from "./files-kit.js";
import { Broken, bytes, tableOf } from "./files-preview.js";
import { gridOf, worldOf } from "./files-wcs.js";

const BLOCK = 2880;
const CARDS_BYTES = 4 << 20;   // a longer header is none
const PARTS = 200;
const UNPACKED = 256 << 20;
const SIDE = 1000;
const ROWS = 50;
const ITEM = { 8: 1, 16: 2, 32: 4, 64: 8, "-32": 4, "-64": 8 };

export async function showFits(entry, signal, body) {
  const file = /\.gz$/i.test(entry.name) ? await unpacked(entry, signal) : { size: entry.size, read: (from, to) => bytes(entry, from, Math.min(to, entry.size), signal), entry };
  const parts = [await partAt(file, 0)];
  const place = el("div", {});
  const choice = el("select", { id: "fi-part", onchange: () => show(parts[choice.value]) });
  const list = () => {
    const now = choice.value;
    choice.replaceChildren(...parts.map((part, index) => el("option", { value: index }, `${index}: ${titleOf(part)}`)));
    choice.value = now || 0;
  };
  let shown = 0;
  async function show(part) {
    const mine = shown += 1;
    const made = await contents(file, part, entry, signal).catch((error) => [el("p", { role: "alert" }, t("preview-failed", { reason: error instanceof Broken || error instanceof RangeError ? t("preview-broken") : error.message }))]);
    if (mine === shown && !signal.aborted) place.replaceChildren(...made, cardsOf(part));
  }
  // The first part that has something to see is shown; the others are listed as they are found.
  while (!parts.at(-1).hasData && parts.at(-1).next < file.size && parts.length < PARTS) {
    try { parts.push(await partAt(file, parts.at(-1).next)); } catch { break; }
  }
  list();
  const first = parts.findIndex((part) => part.hasData);
  choice.value = Math.max(0, first);
  await show(parts[Math.max(0, first)]);
  (async () => {
    while (parts.at(-1).next < file.size && parts.length < PARTS && !signal.aborted) {
      try { parts.push(await partAt(file, parts.at(-1).next)); } catch { break; }
    }
    if (!signal.aborted) list();
  })();
  body.replaceChildren();
  return [file.cut ? el("p", { class: "ac-fine" }, t("fits-cut-off", { size: size(file.size) })) : "", el("div", { class: "fi-controls" }, el("label", { for: "fi-part" }, t("fits-part")), choice), place];
}

/** Return a compressed file unpacked in memory, as far as a preview goes. */
async function unpacked(entry, signal) {
  if (entry.size > (64 << 20)) throw new Error(t("preview-large", { size: size(entry.size) }));
  const packed = await bytes(entry, 0, entry.size, signal);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const found = [];
  let length = 0;
  let cut = false;
  try {
    for (const reader = stream.getReader(); !cut;) {
      const { value, done } = await reader.read();
      if (done) break;
      found.push(value);
      length += value.length;
      cut = length > UNPACKED;
    }
  } catch { throw new Broken(); }
  const all = new Uint8Array(await new Blob(found).arrayBuffer());
  return { size: all.length, cut, read: async (from, to) => all.subarray(from, to) };
}

// ---- Headers ---------------------------------------------------------------------------------------------------------

async function partAt(file, start) {
  let text = "";
  const decoder = new TextDecoder("latin1");
  let end = -1;
  let length = 0;
  for (let fetched = 4 * BLOCK; end < 0; fetched *= 4) {
    const data = await file.read(start + length, start + length + fetched);
    text += decoder.decode(data);
    length += data.length;
    if (start === 0 && !text.startsWith("SIMPLE  =")) throw new Broken();
    if (start > 0 && !text.startsWith("XTENSION=")) throw new Broken();
    for (let at = 0; at + 80 <= text.length; at += 80) if (/^END {77}/.test(text.slice(at, at + 80))) { end = at; break; }
    if (end < 0 && (data.length < fetched || length > CARDS_BYTES)) throw new Broken();
  }
  const cards = [];
  for (let at = 0; at < end; at += 80) cards.push(text.slice(at, at + 80).trimEnd());
  const header = valuesOf(cards);
  const data = start + Math.ceil((end + 80) / BLOCK) * BLOCK;
  const axes = Array.from({ length: Math.min(999, header.get("NAXIS") ?? 0) }, (_, index) => header.get(`NAXIS${index + 1}`) ?? 0);
  if (axes.some((axis) => !Number.isSafeInteger(axis) || axis < 0)) throw new Broken();
  const item = ITEM[header.get("BITPIX")];
  if (!item) throw new Broken();
  const groups = header.get("GROUPS") === true && axes[0] === 0 ? axes.slice(1) : axes;
  const elements = axes.length ? groups.reduce((product, axis) => product * axis, 1) : 0;
  const length_ = item * (header.get("GCOUNT") ?? 1) * ((header.get("PCOUNT") ?? 0) + elements);
  if (!Number.isFinite(length_) || length_ < 0) throw new Broken();
  const kind = String(header.get("XTENSION") ?? "IMAGE").trim();
  return { start, cards, header, data, axes, item, kind, hasData: elements > 0, next: data + Math.ceil(length_ / BLOCK) * BLOCK };
}

function valuesOf(cards) {
  const found = new Map();
  let last = "";
  for (const card of cards) {
    const name = card.slice(0, 8).trim();
    if (name === "CONTINUE" && last) {
      const more = /'((?:[^']|'')*)'/.exec(card);
      if (more) found.set(last, String(found.get(last)).replace(/&$/, "") + more[1].replace(/''/g, "'").trimEnd());
      continue;
    }
    last = "";
    if (card.slice(8, 10) !== "= ") continue;
    const text = card.slice(10);
    const string = /^\s*'((?:[^']|'')*)'/.exec(text);
    if (string) { found.set(name, string[1].replace(/''/g, "'").trimEnd()); last = name; continue; }
    const bare = text.split("/")[0].trim();
    if (bare === "T" || bare === "F") found.set(name, bare === "T");
    else if (bare !== "" && Number.isFinite(Number(bare.replace(/[dD]/, "e")))) found.set(name, Number(bare.replace(/[dD]/, "e")));
  }
  return found;
}

function titleOf(part) {
  const name = part.header.get("EXTNAME");
  return [name, shapeOf(part)].filter(Boolean).join(" · ");
}

function shapeOf(part) {
  if (!part.hasData) return t("fits-empty");
  if (!isTiled(part) && (part.kind === "BINTABLE" || part.kind === "TABLE")) return t("fits-table", { rows: count(part.axes[1] ?? 0), columns: part.header.get("TFIELDS") ?? 0 });
  const bits = part.header.get(isTiled(part) ? "ZBITPIX" : "BITPIX");
  const axes = isTiled(part) ? part.axes.map((_, index) => part.header.get(`ZNAXIS${index + 1}`)).concat(part.header.get("ZNAXIS3") ?? []) : part.axes;
  return t("fits-image", { shape: axes.join(" × "), type: bits < 0 ? `float${-bits}` : bits === 8 ? "uint8" : `int${bits}` });
}

const cardsOf = (part) => el("details", { open: !part.hasData }, el("summary", {}, t("fits-header", { count: part.cards.length })), el("pre", { class: "fi-cards", tabindex: "0" }, part.cards.join("\n")));

async function contents(file, part, entry, signal) {
  if (!part.hasData) return [];
  if (isTiled(part)) {
    const { tiledImage } = await import("./files-tiles.js");
    const tiled = tiledImage(file, part, fieldsOf(part));
    return tiled ? image(file, part, entry, signal, tiled) : [el("p", {}, t("fits-compressed", { type: part.header.get("ZCMPTYPE") ?? "?" }))];
  }
  if (part.kind === "BINTABLE") return tableHead(file, part);
  if (part.kind === "TABLE") return textTable(file, part);
  if (part.kind === "IMAGE") return part.axes.length === 1 ? [] : image(file, part, entry, signal);
  return [];
}

// ---- Images ----------------------------------------------------------------------------------------------------------

const isTiled = (part) => part.kind === "BINTABLE" && part.header.get("ZIMAGE") === true;

/** Show an image; `tiled` reads one that is compressed. */
async function image(file, part, entry, signal, tiled = null) {
  const { axes } = tiled ?? part;
  const [width, height] = axes;
  const planes = axes.slice(2).reduce((product, axis) => product * axis, 1);
  const step = Math.max(1, Math.ceil(Math.max(width, height) / SIDE));
  const columns = Math.ceil(width / step);
  const rows = Math.ceil(height / step);
  const canvas = el("canvas", { width: columns, height: rows, role: "img", "aria-label": t("fits-alt", { name: entry.name, shape: `${width} × ${height}` }) });
  const overlay = el("canvas", { "aria-hidden": "true" });
  const world = worldOf(part.header);
  let pixels = null;

  const option = (value, key) => el("option", { value }, key);
  const plane = el("input", { type: "number", min: "1", max: String(planes), value: "1", onchange: () => fetchPlane() });
  const stretch = el("select", { onchange: draw }, ...["linear", "sqrt", "asinh", "log"].map((name) => option(name, t(`stretch-${name}`))));
  const cut = el("select", { onchange: draw }, ...["99.5", "99", "98", "95", "90", "100"].map((value) => option(value, `${value} %`)));
  const invert = el("input", { type: "checkbox", onchange: draw });
  const grid = el("input", { type: "checkbox", checked: Boolean(world), disabled: !world, onchange: drawGrid });
  stretch.value = "asinh";

  async function fetchPlane() {
    const number = Math.min(planes, Math.max(1, Number(plane.value) || 1)) - 1;
    pixels = tiled ? await tiled.pixels(number, { step, columns, rows, signal }) : await plainPixels(number);
    draw();
  }

  async function plainPixels(number) {
    const found = numbers(await sample(file, part, entry, { width, height, step, columns, rows, plane: number, signal }), part);
    // What the file has no more is no zero.
    const here = Math.floor((file.size - part.data) / part.item) - number * width * height;
    for (let row = Math.min(rows, Math.max(0, Math.floor(here / width / step))); row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) if (row * step * width + column * step >= here) found[row * columns + column] = NaN;
    }
    return found;
  }

  function draw() {
    paint(canvas, pixels, columns, rows, { part: Number(cut.value), how: stretch.value, inverted: invert.checked });
    drawGrid();
  }

  function drawGrid() {
    overlay.width = 760;
    overlay.height = Math.round(overlay.width * rows / columns);
    const pen = overlay.getContext("2d");
    pen.clearRect(0, 0, overlay.width, overlay.height);
    if (world && grid.checked) sketch(pen, gridOf(world, width, height), overlay.width / width, overlay.height / height, height);
  }

  await fetchPlane();
  const controls = el("div", { class: "fi-controls" },
    planes > 1 ? el("label", {}, t("fits-plane"), plane, ` / ${count(planes)}`) : "",
    el("label", {}, t("fits-stretch"), stretch), el("label", {}, t("fits-cut"), cut),
    el("label", {}, invert, t("fits-invert")), el("label", {}, grid, t("fits-grid")));
  const place = el("output", { class: "ac-fine ac-num" });
  const frame = el("div", { class: "fi-canvas" }, canvas, overlay);
  frame.addEventListener("pointermove", (event) => {
    const box = frame.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width * width, height - (event.clientY - box.top) / box.height * height];
    const value = pixels[Math.min(rows - 1, Math.max(0, Math.floor(y / step))) * columns + Math.min(columns - 1, Math.max(0, Math.floor(x / step)))];
    place.textContent = `x ${Math.floor(x) + 1}, y ${Math.floor(y) + 1} : ${Number(value?.toPrecision(6))}${world ? ` · ${skyText(world, x + 0.5, y + 0.5)}` : ""}`;
  });
  return [frame, el("p", { class: "fi-readout" }, place), controls,
    !tiled && !file.cut && part.data + width * height * planes * part.item > file.size ? el("p", { class: "ac-fine" }, t("fits-short")) : "",
    step > 1 ? el("p", { class: "ac-fine" }, t("fits-sampled", { step })) : "",
    world ? "" : el("p", { class: "ac-fine" }, t("fits-no-sky"))];
}

function skyText(world, x, y) {
  const [lon, lat] = world.toSky(x, y);
  if (!Number.isFinite(lon + lat)) return "";
  return world.hours ? `${Math.floor(lon / 15)}h${String(Math.floor(lon * 4 % 60)).padStart(2, "0")}m${(lon * 240 % 60).toFixed(1)}s ${lat.toFixed(4)}°` : `${lon.toFixed(4)}° ${lat.toFixed(4)}°`;
}

/** Return the bytes of every `step`th pixel of one plane. */
async function sample(file, part, entry, { width, height, step, columns, rows, plane, signal }) {
  const offset = part.data + plane * width * height * part.item;
  if (!file.entry || step === 1 && width * height * part.item <= (8 << 20)) {
    const whole = await file.read(offset, offset + width * height * part.item);
    if (step === 1) return padded(whole, columns * rows * part.item);
    const found = new Uint8Array(columns * rows * part.item);
    for (let row = 0, to = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1, to += part.item) {
        const from = (row * step * width + column * step) * part.item;
        found.set(whole.subarray(from, from + part.item), to);
      }
    }
    return found;
  }
  const asked = new URL(`${settings.api}/sample`, location.origin);
  for (const [name, value] of Object.entries({ path: canonical(entry.path), offset, item: part.item, width, height, step })) asked.searchParams.set(name, value);
  const answer = await fetch(asked, { headers: { Accept: "application/json" }, signal });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return new Uint8Array(await answer.arrayBuffer());
}

function padded(data, length) {
  if (data.length === length) return data;
  const found = new Uint8Array(length);
  found.set(data.subarray(0, length));
  return found;
}

/** Return the numbers in `data`, scaled; what is no number is NaN. */
function numbers(data, part) {
  const bits = part.header.get("BITPIX");
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const many = Math.floor(data.byteLength / part.item);
  const found = new Float64Array(many);
  const read = {
    8: (at) => view.getUint8(at), 16: (at) => view.getInt16(at), 32: (at) => view.getInt32(at), 64: (at) => Number(view.getBigInt64(at)),
    "-32": (at) => view.getFloat32(at), "-64": (at) => view.getFloat64(at),
  }[bits];
  const number = (name, otherwise) => (typeof part.header.get(name) === "number" ? part.header.get(name) : otherwise);
  const [scale, zero, blank] = [number("BSCALE", 1), number("BZERO", 0), bits > 0 ? number("BLANK", NaN) : NaN];
  for (let index = 0; index < many; index += 1) {
    const value = read(index * part.item);
    found[index] = value === blank ? NaN : value * scale + zero;
  }
  return found;
}

function paint(canvas, pixels, columns, rows, { part, how, inverted }) {
  const sorted = Float64Array.from(pixels.filter(Number.isFinite)).sort();
  const outside = (1 - part / 100) / 2;
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))] ?? 0;
  const [low, high] = [at(outside), at(1 - outside)];
  const range = high - low || 1;
  const curve = {
    linear: (x) => x, sqrt: Math.sqrt, asinh: (x) => Math.asinh(10 * x) / Math.asinh(10), log: (x) => Math.log1p(1000 * x) / Math.log1p(1000),
  }[how];
  const pen = canvas.getContext("2d");
  const made = pen.createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    const from = (rows - 1 - row) * columns;  // the first row of FITS is the lowest
    for (let column = 0; column < columns; column += 1) {
      const value = pixels[from + column];
      const to = (row * columns + column) * 4;
      if (!Number.isFinite(value)) { made.data[to + 3] = 0; continue; }
      const grey = 255 * curve(Math.min(1, Math.max(0, (value - low) / range)));
      made.data[to] = made.data[to + 1] = made.data[to + 2] = inverted ? 255 - grey : grey;
      made.data[to + 3] = 255;
    }
  }
  pen.putImageData(made, 0, 0);
}

function sketch(pen, lines, sx, sy, height) {
  const point = ([x, y]) => [(x - 0.5) * sx, (height - y + 0.5) * sy];
  pen.lineWidth = 1;
  pen.font = "13px system-ui, sans-serif";
  for (const line of lines) {
    const points = line.points.map(point);
    if (points.length < 2) continue;
    pen.strokeStyle = line.of === "lon" ? "rgb(120 220 255 / 75%)" : "rgb(255 205 120 / 75%)";
    pen.beginPath();
    points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
    // The label stands where the line comes into the image.
    const { width, height: tall } = pen.canvas;
    const inner = points.filter(([x, y]) => x > 4 && y > 14 && x < width - 64 && y < tall - 6);
    if (!inner.length) continue;
    const [x, y] = line.of === "lon" ? inner.reduce((a, b) => (a[1] > b[1] ? a : b)) : inner.reduce((a, b) => (a[0] < b[0] ? a : b));
    pen.strokeStyle = "rgb(0 0 0 / 80%)";
    pen.lineWidth = 3;
    pen.strokeText(line.label, x + 4, y - 4);
    pen.lineWidth = 1;
    pen.fillStyle = "#fff";
    pen.fillText(line.label, x + 4, y - 4);
  }
}

// ---- Tables ----------------------------------------------------------------------------------------------------------

const SIZES = { L: 1, X: 0, B: 1, I: 2, J: 4, K: 8, A: 1, E: 4, D: 8, C: 8, M: 16, P: 8, Q: 16 };

function fieldsOf(part) {
  const text = (name) => { const value = part.header.get(name); return value === undefined ? "" : String(value); };
  const found = [];
  let at = 0;
  for (let number = 1; number <= Math.min(999, part.header.get("TFIELDS") ?? 0); number += 1) {
    const form = /^\s*(\d*)([LXBIJKAEDCMPQ])([A-Z]?)/.exec(text(`TFORM${number}`));
    if (!form) throw new Broken();
    const many = form[1] === "" ? 1 : Number(form[1]);
    const width = form[2] === "X" ? Math.ceil(many / 8) : many * SIZES[form[2]];
    const number_ = (name, otherwise) => (typeof part.header.get(name + number) === "number" ? part.header.get(name + number) : otherwise);
    found.push({ name: text(`TTYPE${number}`) || `col${number}`, unit: text(`TUNIT${number}`), many, code: form[2], element: form[3], at, scale: number_("TSCAL", 1), zero: number_("TZERO", 0), none: number_("TNULL", null) });
    at += width;
  }
  return found;
}

async function tableHead(file, part) {
  const [width, rows] = part.axes;
  const fields = fieldsOf(part);
  const shown = Math.min(rows, ROWS, Math.max(1, Math.floor((4 << 20) / Math.max(1, width))));
  const data = await file.read(part.data, part.data + shown * width);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const made = Array.from({ length: Math.floor(data.byteLength / width) }, (_, row) => fields.map((field) => valueAt(view, row * width + field.at, field)));
  return headOf(fields, made, rows);
}

function headOf(fields, made, rows) {
  const label = t("preview-rows", { shown: count(made.length), total: count(rows), columns: count(fields.length) });
  return [el("p", { class: "ac-fine" }, label), tableOf(fields, made, label)];
}

function valueAt(view, at, field) {
  const { code, many } = field;
  if (code === "A") return new TextDecoder("latin1").decode(new Uint8Array(view.buffer, view.byteOffset + at, Math.min(many, 200))).replace(/\0.*$/s, "").trimEnd();
  if (code === "P" || code === "Q") return many ? `[${code === "P" ? view.getInt32(at) : view.getBigInt64(at)}]` : "";
  if (code === "X") return Array.from({ length: Math.min(many, 64) }, (_, bit) => (view.getUint8(at + (bit >> 3)) >> (7 - (bit & 7))) & 1).join("");
  const read = {
    L: (o) => ({ 84: "T", 70: "F" }[view.getUint8(o)] ?? ""), B: (o) => view.getUint8(o), I: (o) => view.getInt16(o), J: (o) => view.getInt32(o), K: (o) => view.getBigInt64(o),
    E: (o) => view.getFloat32(o), D: (o) => view.getFloat64(o),
    C: (o) => `${brief(view.getFloat32(o), 7)}, ${brief(view.getFloat32(o + 4), 7)}`, M: (o) => `${brief(view.getFloat64(o), 12)}, ${brief(view.getFloat64(o + 8), 12)}`,
  }[code];
  const values = Array.from({ length: Math.min(many, 6) }, (_, index) => {
    const value = read(at + index * SIZES[code]);
    if (typeof value === "string") return value;
    if (field.none !== null && Number(value) === field.none) return "";
    if (typeof value === "bigint") return field.scale === 1 ? String(value + BigInt(field.zero)) : String(Number(value) * field.scale + field.zero);
    return brief(value * field.scale + field.zero, code === "E" ? 7 : 15);
  });
  return many === 1 ? values[0] ?? "" : `[${values.join(", ")}${many > 6 ? ", …" : ""}]`;
}

const brief = (value, digits) => (Number.isFinite(value) ? String(Number(value.toPrecision(digits))) : String(value));

async function textTable(file, part) {
  const [width, rows] = part.axes;
  const fields = [];
  for (let number = 1; number <= Math.min(999, part.header.get("TFIELDS") ?? 0); number += 1) {
    const form = /^[AIFED](\d+)/.exec(String(part.header.get(`TFORM${number}`) ?? ""));
    if (!form) throw new Broken();
    fields.push({ name: String(part.header.get(`TTYPE${number}`) ?? `col${number}`), unit: String(part.header.get(`TUNIT${number}`) ?? ""), at: (part.header.get(`TBCOL${number}`) ?? 1) - 1, width: Number(form[1]) });
  }
  const text = new TextDecoder("latin1").decode(await file.read(part.data, part.data + Math.min(rows, ROWS) * width));
  const made = Array.from({ length: Math.min(rows, ROWS) }, (_, row) => fields.map(({ at, width: wide }) => text.slice(row * width + at, row * width + at + wide).trim()));
  return headOf(fields, made, rows);
}

