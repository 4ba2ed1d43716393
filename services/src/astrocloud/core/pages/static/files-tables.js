// The heads of tables: CSV and its like, VOTable (TABLEDATA, BINARY, BINARY2), Parquet. Only the beginning of a file is
// fetched; of Parquet its end, where it says what is where, and the pages of the first rows.

import { count, el, t } from "./files-kit.js";
import { Broken, bytes, part, tableOf, without } from "./files-preview.js";

const HEAD = 512 << 10;
const ROWS = 50;

export async function showTable(entry, signal) {
  if (/\.(parquet|pq)$/i.test(entry.name)) return (await import("./files-parquet.js")).showParquet(entry, signal);
  const text = new TextDecoder().decode(await bytes(entry, 0, HEAD, signal));
  const cut = entry.size > HEAD;
  if (/\.(vot|votable)$/i.test(entry.name)) return votable(text, entry, cut);
  return separated(text, entry, cut);
}

function told(columns, rows, total, entry, length) {
  const label = total === null ? t("preview-rows-some", { shown: count(rows.length), columns: count(columns.length) }) : t("preview-rows", { shown: count(rows.length), total: count(total), columns: count(columns.length) });
  return [el("p", { class: "ac-fine" }, label), tableOf(columns, rows, label), length ? part(length, entry.size) : ""];
}

// ---- CSV -------------------------------------------------------------------------------------------------------------

function separated(text, entry, cut) {
  const lines = text.replace(/^\ufeff/, "").split(/\r?\n/);
  // ECSV and many others have remarks in front.
  let from = 0;
  while (from < lines.length && (/^#/.test(lines[from]) || !lines[from].trim())) from += 1;
  const rest = lines.slice(from).join("\n");
  const first = lines[from] ?? "";
  const mark = /\.tsv$/i.test(entry.name) ? "\t" : [",", "\t", ";", " "].reduce((best, each) => (first.split(each).length > first.split(best).length ? each : best));
  const rows = records(rest, mark, ROWS + 2);
  if (cut && rows.length <= ROWS + 1) rows.pop();  // its last record is cut
  const columns = (rows.shift() ?? []).map((name) => ({ name }));
  return told(columns, rows.slice(0, ROWS), !cut && rows.length <= ROWS ? rows.length : null, entry, cut ? HEAD : 0);
}

/** Return at most `limit` records of `text`; fields may be quoted. */
function records(text, mark, limit) {
  const found = [];
  let record = [];
  let field = "";
  let quoted = false;
  for (let at = 0; at < text.length && found.length < limit; at += 1) {
    const char = text[at];
    if (quoted) {
      if (char !== '"') field += char;
      else if (text[at + 1] === '"') { field += '"'; at += 1; } else quoted = false;
    } else if (char === '"' && field === "") quoted = true;
    else if (char === mark) { if (mark !== " " || field) record.push(field); field = ""; } else if (char === "\n") {
      record.push(field);
      if (record.length > 1 || record[0] !== "") found.push(record);
      record = [];
      field = "";
    } else field += char;
  }
  if (found.length < limit && (field || record.length)) found.push([...record, field]);
  return found;
}

// ---- VOTable ---------------------------------------------------------------------------------------------------------
// Cut somewhere, it is no XML any more: hence tag by tag, and of entities only the five of XML.

const plainText = (text) => without(text, "<![CDATA[", "]]>", { kept: true }).replace(/&(lt|gt|amp|quot|apos|#\d+|#x[0-9a-f]+);/gi, (whole, name) => {
  const known = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" }[name.toLowerCase()];
  if (known) return known;
  const code = name[1] === "x" || name[1] === "X" ? parseInt(name.slice(2), 16) : Number(name.slice(1));
  return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
});

const attributesOf = (tag) => Object.fromEntries([...tag.matchAll(/(?<![\w:])([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g)].map(([, name, one, other]) => [name, plainText(one ?? other)]));

// No pattern may read on behind the next "<" in vain: of a hostile text that would be each time all of it.
function votable(text, entry, cut) {
  text = without(text, "<!--", "-->");
  if (!/<(\w+:)?VOTABLE[\s>]/.test(text)) throw new Broken();
  const table = text.search(/<(\w+:)?TABLE[\s>]/);
  if (table < 0) throw new Broken();
  const data = text.slice(table).search(/<(\w+:)?(DATA)[\s>]/);
  const head = data < 0 ? text.slice(table) : text.slice(table, table + data);
  const fields = [...head.matchAll(/<(?:\w+:)?FIELD\b([^<>]*)>/g)].map(([, tag]) => attributesOf(tag));
  const rows = Number(attributesOf(/<(?:\w+:)?TABLE\b([^<>]*)>/.exec(head)?.[1] ?? "").nrows ?? NaN);
  const columns = fields.map((field) => ({ name: field.name ?? field.ID ?? "", unit: field.unit ?? "" }));
  const body = data < 0 ? "" : text.slice(table + data);
  const binary = /<(?:\w+:)?(BINARY2?)\b[^<>]*>\s*<(?:\w+:)?STREAM\b([^<>]*)>([A-Za-z0-9+/=\s]*)/.exec(body);
  const found = binary ? binaryRows(binary[1] === "BINARY2", binary[2], binary[3], fields) : textRows(body);
  const total = Number.isFinite(rows) ? rows : !cut && found.length < ROWS ? found.length : null;
  return told(columns, found, total, entry, cut ? HEAD : 0);
}

function textRows(body) {
  const found = [];
  for (const rest of body.split(/<(?:\w+:)?TR\b[^<>]*>/, ROWS + 1).slice(1)) {
    const end = rest.search(/<\/(?:\w+:)?TR>/);
    if (end < 0) break;  // the last row is cut
    const cells = rest.slice(0, end).split(/<(?:\w+:)?TD\b([^<>]*)>/);  // what is before, then attributes and a text of each
    found.push(cells.flatMap((attributes, index) => (index % 2 ? [attributes.endsWith("/") ? "" : cellText(cells[index + 1])] : [])));
  }
  return found;
}

function cellText(text) {
  const end = text.search(/<\/(?:\w+:)?TD>/);
  return plainText(end < 0 ? text : text.slice(0, end)).trim();
}

const SIZES = { boolean: 1, bit: 1, unsignedByte: 1, short: 2, int: 4, long: 8, char: 1, unicodeChar: 2, float: 4, double: 8, floatComplex: 8, doubleComplex: 16 };

function binaryRows(flags, stream, text, fields) {
  if (/encoding\s*=\s*["'](?!base64)/.test(stream)) return [];
  const packed = text.replace(/\s/g, "");
  let raw;
  try { raw = atob(packed.slice(0, packed.length - packed.length % 4)); } catch { throw new Broken(); }
  const data = Uint8Array.from(raw, (char) => char.charCodeAt(0));
  const view = new DataView(data.buffer);
  const found = [];
  let at = 0;
  try {
    while (found.length < ROWS && at < data.length) {
      const none = flags ? data.subarray(at, at + Math.ceil(fields.length / 8)) : null;
      if (flags) at += Math.ceil(fields.length / 8);
      const row = fields.map((field, index) => {
        const size = SIZES[field.datatype];
        if (!size) throw new Broken();
        let many = 1;
        if (/\*/.test(field.arraysize ?? "")) { many = view.getInt32(at); at += 4; } else if (field.arraysize) many = field.arraysize.split("x").reduce((product, each) => product * Number(each), 1);
        if (!(many >= 0 && many < 1e7)) throw new Broken();
        const text_ = field.datatype === "char" || field.datatype === "unicodeChar";
        const from = at;
        at += field.datatype === "bit" ? Math.ceil(many / 8) : many * size;
        if (at > data.length) throw new RangeError();
        if (none && (none[index >> 3] >> (7 - (index & 7))) & 1) return "";
        if (text_) return new TextDecoder(size === 2 ? "utf-16be" : "utf-8").decode(data.subarray(from, Math.min(at, from + 400))).replace(/\0.*$/s, "");
        const values = Array.from({ length: Math.min(many, 6) }, (_, item) => scalar(view, from + item * size, field.datatype));
        return field.arraysize ? `[${values.join(", ")}${many > 6 ? ", …" : ""}]` : values[0];
      });
      found.push(row);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // the last row is cut
  }
  return found;
}

function scalar(view, at, type) {
  const number = (value, digits) => (Number.isFinite(value) ? String(Number(value.toPrecision(digits))) : Number.isNaN(value) ? "" : String(value));
  return {
    boolean: () => ({ 84: "T", 116: "T", 49: "T", 70: "F", 102: "F", 48: "F" }[view.getUint8(at)] ?? ""), bit: () => (view.getUint8(at) ? "1" : "0"),
    unsignedByte: () => String(view.getUint8(at)), short: () => String(view.getInt16(at)), int: () => String(view.getInt32(at)), long: () => String(view.getBigInt64(at)),
    float: () => number(view.getFloat32(at), 7), double: () => number(view.getFloat64(at), 15),
    floatComplex: () => `${number(view.getFloat32(at), 7)}, ${number(view.getFloat32(at + 4), 7)}`, doubleComplex: () => `${number(view.getFloat64(at), 12)}, ${number(view.getFloat64(at + 8), 12)}`,
  }[type]();
}

export { told as tableTold };
