// The head of a Parquet file: its schema from the end of the file, then the first pages of each column. Flat columns of
// plain types, plain or by a dictionary, not compressed or by Snappy or gzip; what is not read is said to be there.

import { bytes, Broken } from "./files-preview.js";
import { tableTold } from "./files-tables.js";
import { el, t } from "./files-kit.js";

const ROWS = 50;
const FOOTER = 64 << 10;
const FOOTER_LIMIT = 16 << 20;
const PAGES_LIMIT = 1 << 20;
const COLUMNS = 60;

export async function showParquet(entry, signal) {
  if (entry.size < 12) throw new Broken();
  let tail = await bytes(entry, Math.max(0, entry.size - FOOTER), entry.size, signal);
  const end = new DataView(tail.buffer, tail.byteOffset + tail.length - 8, 8);
  if (new TextDecoder().decode(tail.subarray(-4)) !== "PAR1") throw new Broken();
  const length = end.getUint32(0, true);
  if (length > FOOTER_LIMIT || length + 12 > entry.size) throw new Broken();
  if (length + 8 > tail.length) tail = await bytes(entry, entry.size - length - 8, entry.size, signal);
  const meta = new Thrift(tail.subarray(tail.length - 8 - length, tail.length - 8)).struct();
  const schema = (meta[2] ?? []).map((each) => ({ type: each[1], width: each[2], repeated: each[3], name: string(each[4]), children: each[5] ?? 0, converted: each[6], scale: each[7] ?? 0, logical: each[10] }));
  const total = Number(meta[3] ?? 0);
  const leaves = leavesOf(schema);
  const group = meta[4]?.[0];
  const columns = leaves.slice(0, COLUMNS).map((leaf) => ({ name: leaf.path.join("."), unit: typeName(leaf) }));
  const values = [];
  for (const [index, leaf] of leaves.slice(0, COLUMNS).entries()) {
    values.push(group ? await columnHead(entry, group[1][index]?.[3], leaf, signal) : []);
  }
  const shown = Math.min(ROWS, total);
  const rows = Array.from({ length: shown }, (_, row) => values.map((column) => (column === null ? "…" : shownValue(column[row]))));
  const skipped = leaves.length > COLUMNS ? [el("p", { class: "ac-fine" }, leaves.slice(COLUMNS).map((leaf) => leaf.path.join(".")).join(", "))] : [];
  return [...tableTold(columns, rows, total, entry, 0), ...skipped, values.includes(null) ? el("p", { class: "ac-fine" }, t("preview-column-closed")) : ""];
}

const string = (value) => (value instanceof Uint8Array ? new TextDecoder().decode(value) : "");
const TYPES = ["bool", "int32", "int64", "int96", "float", "double", "bytes", "fixed"];
const isText = (leaf) => leaf.converted === 0 || leaf.converted === 4 || leaf.converted === 19 || leaf.logical?.[1] || leaf.logical?.[4] || leaf.logical?.[12];
const typeName = (leaf) => (leaf.type === 6 && isText(leaf) ? "text" : TYPES[leaf.type] ?? "?");

function shownValue(value) {
  if (value === null || value === undefined) return "";
  if (value instanceof Uint8Array) return [...value.subarray(0, 16)].map((each) => each.toString(16).padStart(2, "0")).join("") + (value.length > 16 ? "…" : "");
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(15))) : String(value).slice(0, 400);
}

/** Return the columns of a schema, each with how deep it may be missing or repeated. */
function leavesOf(schema) {
  const found = [];
  let at = 1;
  function walk(children, path, defined, repeated) {
    for (let n = 0; n < children && at < schema.length; n += 1) {
      const node = schema[at];
      at += 1;
      const inner = { path: [...path, node.name], defined: defined + (node.repeated ? 1 : 0), repeats: repeated + (node.repeated === 2 ? 1 : 0) };
      if (node.children) walk(node.children, inner.path, inner.defined, inner.repeats);
      else found.push({ ...node, ...inner });
    }
  }
  walk(schema[0]?.children ?? 0, [], 0, 0);
  return found;
}

/** Return the first values of one column, or null where this reader does not know how. */
async function columnHead(entry, meta, leaf, signal) {
  if (!meta || leaf.repeats) return null;
  const codec = meta[4] ?? 0;
  if (![0, 1, 2].includes(codec)) return null;
  const start = Number(meta[11] || meta[9]) || Number(meta[9]);
  const size = Math.min(Number(meta[7]), PAGES_LIMIT);
  const data = await bytes(entry, start, Math.min(start + size, entry.size), signal);
  const values = [];
  let dictionary = [];
  let at = 0;
  while (at < data.length && values.length < ROWS) {
    const reader = new Thrift(data.subarray(at));
    const header = reader.struct();
    const from = at + reader.at;
    at = from + (header[3] ?? 0);
    if (at > data.length) return values.length ? values : null;
    const packed = data.subarray(from, at);
    try {
      if (header[1] === 2) dictionary = plainValues(await opened(packed, codec, header[2]), leaf, header[7][1]);
      else if (header[1] === 0) values.push(...pageValues(await opened(packed, codec, header[2]), header[5], leaf, dictionary));
      else if (header[1] === 3) values.push(...await pageValues2(packed, codec, header, leaf, dictionary));
    } catch (error) {
      if (error instanceof Closed) return null;
      throw error;
    }
  }
  return values.slice(0, ROWS);
}

class Closed extends Error {}

async function opened(data, codec, length) {
  if (codec === 0) return data;
  if (length > (64 << 20)) throw new Closed();
  if (codec === 1) return snappy(data, length);
  return new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

function pageValues(data, header, leaf, dictionary) {
  const many = header[1];
  let at = 0;
  let levels = null;
  if (leaf.defined) {
    const length = new DataView(data.buffer, data.byteOffset).getUint32(0, true);
    levels = hybrid(data.subarray(4, 4 + length), bits(leaf.defined), Math.min(many, ROWS));
    at = 4 + length;
  }
  return spread(valuesOf(data.subarray(at), header[2], leaf, dictionary, many), levels, leaf, many);
}

async function pageValues2(packed, codec, header, leaf, dictionary) {
  const told = header[8];
  const before = (told[5] ?? 0) + (told[6] ?? 0);
  const levels = leaf.defined ? hybrid(packed.subarray(told[6] ?? 0, before), bits(leaf.defined), Math.min(told[1], ROWS)) : null;
  const rest = told[7] === false ? packed.subarray(before) : await opened(packed.subarray(before), codec, header[2] - before);
  return spread(valuesOf(rest, told[4], leaf, dictionary, told[1]), levels, leaf, told[1]);
}

const bits = (value) => 32 - Math.clz32(value);

function valuesOf(data, encoding, leaf, dictionary, many) {
  if (encoding === 0) return plainValues(data, leaf, Math.min(many, ROWS));
  if (encoding === 2 || encoding === 8) return hybrid(data.subarray(1), data[0], Math.min(many, ROWS)).map((index) => dictionary[index]);
  if (encoding === 3 && leaf.type === 0) return hybrid(data.subarray(4), 1, Math.min(many, ROWS)).map(Boolean);
  throw new Closed();
}

/** Put missing values where they belong. */
function spread(values, levels, leaf, many) {
  if (!levels) return values.slice(0, many);
  let at = 0;
  return levels.map((level) => (level === leaf.defined ? values[(at += 1) - 1] : null));
}

/** Return `many` numbers of `width` bits from a mix of runs and packed bits. */
function hybrid(data, width, many) {
  const found = [];
  let at = 0;
  while (found.length < many && at < data.length) {
    let header = 0;
    for (let shift = 0; ; shift += 7) { const byte = data[at]; at += 1; header += (byte & 127) * 2 ** shift; if (!(byte & 128) || at >= data.length) break; }
    const size = Math.ceil(width / 8);
    if (header % 2 === 0) {
      let value = 0;
      for (let index = 0; index < size; index += 1) value += (data[at + index] ?? 0) * 2 ** (8 * index);
      at += size;
      for (let n = Math.floor(header / 2); n > 0 && found.length < many; n -= 1) found.push(value);
    } else {
      const numbers = Math.floor(header / 2) * 8;
      for (let index = 0; index < numbers && found.length < many; index += 1) {
        let value = 0;
        for (let bit = 0; bit < width; bit += 1) {
          const place = index * width + bit;
          if ((data[at + (place >> 3)] >> (place & 7)) & 1) value += 2 ** bit;
        }
        found.push(value);
      }
      at += numbers * width / 8;
    }
  }
  return found;
}

function plainValues(data, leaf, many) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const found = [];
  let at = 0;
  const width = leaf.width ?? 0;
  while (found.length < many) {
    if (leaf.type === 0) {
      if (found.length >> 3 >= data.length) break;
      found.push(Boolean((data[found.length >> 3] >> (found.length & 7)) & 1));
      continue;
    }
    const size = leaf.type === 6 ? 4 + (at + 4 <= data.length ? view.getUint32(at, true) : 0) : [0, 4, 8, 12, 4, 8, 0, width][leaf.type];
    if (!size || at + size > data.length) break;
    found.push(valueAt(view, data, at, size, leaf));
    at += size;
  }
  return found;
}

function valueAt(view, data, at, size, leaf) {
  switch (leaf.type) {
    case 1: return meaning(view.getInt32(at, true), leaf);
    case 2: return meaning(view.getBigInt64(at, true), leaf);
    case 3: return iso((Number(view.getUint32(at + 8, true)) - 2440588) * 86400000 + Number(view.getBigInt64(at, true)) / 1e6);
    case 4: return Number(view.getFloat32(at, true).toPrecision(7));
    case 5: return view.getFloat64(at, true);
    case 6: return isText(leaf) ? new TextDecoder().decode(data.subarray(at + 4, at + size)) : data.slice(at + 4, at + size);
    default: return data.slice(at, at + size);
  }
}

const iso = (ms) => { const moment = new Date(ms); return Number.isNaN(moment.getTime()) ? String(ms) : moment.toISOString().replace(/T00:00:00\.000Z$/, "").replace(/\.000Z$/, "Z"); };

/** Return a whole number as what it stands for: a date, a time, a decimal. */
function meaning(value, leaf) {
  if (leaf.converted === 6) return iso(Number(value) * 86400000);
  if (leaf.converted === 9) return iso(Number(value));
  if (leaf.converted === 10) return iso(Number(value) / 1000);
  if (leaf.logical?.[8]) { const unit = leaf.logical[8][2] ?? {}; return iso(Number(value) / (unit[1] ? 1 : unit[2] ? 1e3 : 1e6)); }
  if (leaf.converted === 5) return String(Number(value) / 10 ** leaf.scale);
  if (leaf.converted === 13) return String(Number(value) >>> 0);
  if (leaf.converted === 14) return String(BigInt.asUintN(64, BigInt(value)));
  return value;
}

/** Unpack a block of Snappy. */
function snappy(data, length) {
  let at = 0;
  let told = 0;
  for (let shift = 0; shift < 35; shift += 7) { const byte = data[at]; at += 1; told += (byte & 127) * 2 ** shift; if (!(byte & 128)) break; }
  if (told !== length) throw new Broken();
  const out = new Uint8Array(length);
  let to = 0;
  while (at < data.length && to < length) {
    const tag = data[at];
    at += 1;
    let size;
    if ((tag & 3) === 0) {
      size = (tag >> 2) + 1;
      if (size > 60) { const more = size - 60; size = 1; for (let n = 0; n < more; n += 1) size += data[at + n] * 2 ** (8 * n); at += more; }
      if (at + size > data.length || to + size > length) throw new Broken();
      out.set(data.subarray(at, at + size), to);
      at += size;
      to += size;
      continue;
    }
    let back;
    if ((tag & 3) === 1) { size = ((tag >> 2) & 7) + 4; back = ((tag >> 5) << 8) | data[at]; at += 1; } else if ((tag & 3) === 2) { size = (tag >> 2) + 1; back = data[at] | (data[at + 1] << 8); at += 2; } else { size = (tag >> 2) + 1; back = data[at] + data[at + 1] * 256 + data[at + 2] * 65536 + data[at + 3] * 16777216; at += 4; }
    if (!back || back > to || to + size > length) throw new Broken();
    for (let n = 0; n < size; n += 1) out[to + n] = out[to + n - back];
    to += size;
  }
  return out;
}

/** Reads Thrift's compact protocol: a struct is its fields by number. */
class Thrift {
  constructor(data) { this.data = data; this.at = 0; this.depth = 0; }

  byte() {
    if (this.at >= this.data.length) throw new Broken();
    this.at += 1;
    return this.data[this.at - 1];
  }

  number() {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) { const byte = this.byte(); value += (byte & 127) * 2 ** shift; if (!(byte & 128)) return value; }
    throw new Broken();
  }

  signed() { const value = this.number(); return value % 2 ? -(value + 1) / 2 : value / 2; }

  struct() {
    const found = {};
    let last = 0;
    if ((this.depth += 1) > 40) throw new Broken();
    for (;;) {
      const head = this.byte();
      if (!head) break;
      last = head >> 4 ? last + (head >> 4) : this.signed();
      found[last] = this.value(head & 15);
    }
    this.depth -= 1;
    return found;
  }

  value(type) {
    if (type === 1 || type === 2) return type === 1;
    if (type === 3) return this.byte();
    if (type >= 4 && type <= 6) return this.signed();
    if (type === 7) { this.at += 8; return null; }
    if (type === 8) { const length = this.number(); this.at += length; if (this.at > this.data.length) throw new Broken(); return this.data.subarray(this.at - length, this.at); }
    if (type === 9 || type === 10) {
      const head = this.byte();
      const many = head >> 4 === 15 ? this.number() : head >> 4;
      if (many > this.data.length) throw new Broken();
      // In a list a truth value has a byte of its own.
      return Array.from({ length: many }, () => ((head & 15) <= 2 ? this.byte() === 1 : this.value(head & 15)));
    }
    if (type === 12) return this.struct();
    throw new Broken();
  }
}
