// Images that are compressed tile by tile (FITS standard 4.0, section 10): RICE_1, GZIP_1, GZIP_2 and tiles that are not
// compressed, with numbers that are quantized or not. Of the file all tiles are fetched, but only those are unpacked of
// which something is shown.

import { Broken } from "./files-preview.js";

const LARGEST = 64 << 20;       // bytes of tiles
const PIXELS = 100_000_000;     // that are unpacked for one view
const TILE = 20_000_000;        // and of one tile
const RICE = { 1: [3, 6, 8], 2: [4, 14, 16], 4: [5, 25, 32] };  // bits of a block's code, the code of plain numbers, their bits
const NONE = -2147483647;       // quantized: no number, and exactly zero
const ZERO = -2147483646;

/** Return the axes and a reader of the image in `part`, or nothing when it is compressed in a way that is not read here. */
export function tiledImage(file, part, fields) {
  const header = part.header;
  const how = String(header.get("ZCMPTYPE") ?? "").trim();
  if (!["RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "NOCOMPRESS"].includes(how)) return null;
  const axes = numbered(header, "ZNAXIS", header.get("ZNAXIS"), () => 0);
  const tile = numbered(header, "ZTILE", axes.length, (axis) => (axis ? 1 : axes[0]));
  const bits = header.get("ZBITPIX");
  if (axes.length < 2 || ![8, 16, 32, 64, -32, -64].includes(bits) || tile.some((side) => side < 1)) throw new Broken();
  const settings = new Map(Array.from({ length: 9 }, (_, index) => [header.get(`ZNAME${index + 1}`), header.get(`ZVAL${index + 1}`)]));
  const column = (name) => fields.find((field) => field.name.toUpperCase() === name);
  const heap = part.data + (header.get("THEAP") ?? part.axes[0] * part.axes[1]);
  const size = header.get("PCOUNT") ?? 0;
  if (size > LARGEST || part.axes[0] * part.axes[1] > LARGEST) return null;
  const image = { how, axes, tile, bits, column, block: settings.get("BLOCKSIZE") ?? 32, bytes: settings.get("BYTEPIX") ?? 4, header };
  let fetched = null;
  return {
    axes,
    async pixels(plane, { step, columns, rows, signal }) {
      fetched ??= Promise.all([file.read(part.data, part.data + part.axes[0] * part.axes[1]), file.read(heap, heap + size)]);
      const [table, data] = await fetched.catch((error) => { fetched = null; throw error; });
      return unpack(image, part, new DataView(table.buffer, table.byteOffset, table.byteLength), data, { plane, step, columns, rows, signal });
    },
  };
}

const numbered = (header, name, many, otherwise) => Array.from({ length: Math.min(99, many ?? 0) }, (_, index) => {
  const value = header.get(name + (index + 1)) ?? otherwise(index);
  if (!Number.isSafeInteger(value) || value < 0) throw new Broken();
  return value;
});

async function unpack(image, part, table, data, { plane, step, columns, rows, signal }) {
  const { axes, tile } = image;
  const [width, height] = axes;
  if (tile.slice(2).some((side) => side > 1)) throw new Broken();  // a tile of many planes is nothing that programs write
  const across = Math.ceil(width / tile[0]);
  const down = Math.ceil(height / tile[1]);
  if (across * down > part.axes[1] || part.axes[0] < 8) throw new Broken();
  const found = new Float64Array(columns * rows).fill(NaN);
  let done = 0;
  for (let y = 0, number = plane * across * down; y < down; y += 1) {
    const [top, tall] = [y * tile[1], Math.min(tile[1], height - y * tile[1])];
    const first = Math.ceil(top / step);
    for (let x = 0; x < across; x += 1, number += 1) {
      const [left, wide] = [x * tile[0], Math.min(tile[0], width - x * tile[0])];
      if (first * step >= top + tall || Math.ceil(left / step) * step >= left + wide) continue;
      done += wide * tall;
      if (done > PIXELS || wide * tall > TILE || number >= part.axes[1]) throw new Broken();
      const values = await tileAt(image, table, number * part.axes[0], data, number, wide * tall);
      for (let row = first; row * step < top + tall; row += 1) {
        for (let column = Math.ceil(left / step); column * step < left + wide; column += 1) {
          found[row * columns + column] = values[(row * step - top) * wide + column * step - left];
        }
      }
      // The page is not to stand still meanwhile.
      if (done % 4_000_000 < wide * tall) await new Promise((resolve) => { setTimeout(resolve); });
      if (signal.aborted) throw new DOMException("stopped", "AbortError");
    }
  }
  return found;
}

async function tileAt(image, table, row, data, number, many) {
  const packed = (name) => {
    const field = image.column(name);
    if (!field || !"PQ".includes(field.code)) return null;
    const [length, from] = field.code === "P" ? [table.getInt32(row + field.at), table.getInt32(row + field.at + 4)] : [Number(table.getBigInt64(row + field.at)), Number(table.getBigInt64(row + field.at + 8))];
    // Lengths are in elements: bytes, but where a tile is kept as plain numbers.
    const bytes = length * ({ I: 2, J: 4, E: 4, D: 8, K: 8 }[field.element] ?? 1);
    if (!length) return null;
    if (from < 0 || bytes < 0 || from + bytes > data.length) throw new RangeError();
    return data.subarray(from, from + bytes);
  };
  const number_ = (name) => { const field = image.column(name); return field ? scalar(table, row + field.at, field.code) : image.header.get(name); };
  let values;
  let exact = true;
  const main = packed("COMPRESSED_DATA");
  if (main) {
    values = image.how.startsWith("RICE") ? rice(main, many, image.block, image.bytes) : plainNumbers(image.how === "NOCOMPRESS" ? main : await gunzip(main, many * 8), many, image, image.how === "GZIP_2");
    exact = image.bits > 0 || number_("ZSCALE") === undefined;
  } else {
    const other = packed("GZIP_COMPRESSED_DATA");
    const plain = other ? await gunzip(other, many * 8) : packed("UNCOMPRESSED_DATA");
    if (!plain) return new Float64Array(many).fill(NaN);
    values = plainNumbers(plain, many, { ...image, stored: image.bits }, false);
  }
  const blank = number_("ZBLANK") ?? image.header.get("BLANK");
  if (!exact) return restored(values, { scale: number_("ZSCALE"), zero: number_("ZZERO") ?? 0, blank: blank ?? NONE, header: image.header, number });
  const [scale, zero] = [image.header.get("BSCALE") ?? 1, image.header.get("BZERO") ?? 0];
  return Float64Array.from(values, (value) => (image.bits > 0 && value === blank ? NaN : value * scale + zero));
}

const scalar = (view, at, code) => ({ D: () => view.getFloat64(at), E: () => view.getFloat32(at), J: () => view.getInt32(at), I: () => view.getInt16(at), K: () => Number(view.getBigInt64(at)) }[code] ?? (() => { throw new Broken(); }))();

/** Return what is packed in `packed`, which has at most `limit` bytes. */
async function gunzip(packed, limit) {
  const found = [];
  let length = 0;
  try {
    for (const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")).getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) break;
      found.push(value);
      length += value.length;
      if (length > limit) throw new RangeError();
    }
  } catch { throw new Broken(); }
  return new Uint8Array(await new Blob(found).arrayBuffer());
}

/** Return the numbers in `data`; their size is what is there for each. `shuffled`: all first bytes come first, and so on. */
function plainNumbers(data, many, image, shuffled) {
  const size = data.length / many;
  if (![1, 2, 4, 8].includes(size)) throw new Broken();
  let bytes = data;
  if (shuffled && size > 1) {
    bytes = new Uint8Array(data.length);
    for (let part = 0, from = 0; part < size; part += 1) for (let index = 0; index < many; index += 1, from += 1) bytes[index * size + part] = data[from];
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const floats = image.bits < 0 && size === -image.bits / 8 && (image.stored || !(image.column("ZSCALE") || image.header.has("ZSCALE")));
  const read = floats ? { 4: (at) => view.getFloat32(at), 8: (at) => view.getFloat64(at) } : { 1: (at) => view.getUint8(at), 2: (at) => view.getInt16(at), 4: (at) => view.getInt32(at), 8: (at) => Number(view.getBigInt64(at)) };
  const found = new Float64Array(many);
  for (let index = 0; index < many; index += 1) found[index] = read[size](index * size);
  return found;
}

/** Undo RICE_1: of each number how it differs from the one before, in blocks with so many low bits as they are. */
export function rice(data, many, block, bytes) {
  const [codeBits, plain, bits] = RICE[bytes] ?? [];
  if (!codeBits || !(block > 0)) throw new Broken();
  const found = new Float64Array(many);
  let at = 0;
  let held = 0;      // the byte that is being read
  let left = 0;      // how many of its bits are not read yet
  const take = (wanted) => {
    let value = 0;
    while (wanted) {
      if (!left) { if (at >= data.length) throw new RangeError(); held = data[at]; at += 1; left = 8; }
      const now = Math.min(left, wanted);
      value = (value << now) | ((held >> (left - now)) & ((1 << now) - 1));
      left -= now;
      wanted -= now;
    }
    return value >>> 0;
  };
  const zeros = () => {
    let many_ = 0;
    for (;;) {
      if (!left) { if (at >= data.length) throw new RangeError(); held = data[at]; at += 1; left = 8; }
      const rest = held & ((1 << left) - 1);
      if (rest) {
        const ahead = Math.clz32(rest) - (32 - left);
        left -= ahead + 1;
        return many_ + ahead;
      }
      many_ += left;
      left = 0;
    }
  };
  const wrap = bytes === 1 ? (value) => value & 255 : bytes === 2 ? (value) => value << 16 >> 16 : (value) => value | 0;
  let last = wrap(take(bits));
  for (let from = 0; from < many; from += block) {
    const code = take(codeBits) - 1;
    for (let index = from; index < Math.min(many, from + block); index += 1) {
      if (code >= 0) {
        const more = code === plain ? take(bits) : (zeros() << code | take(code)) >>> 0;
        last = wrap(last + (more & 1 ? ~(more >>> 1) : more >>> 1));
      }
      found[index] = last;
    }
  }
  return found;
}

// The standard's own sequence (appendix I): what was added to each number before it was rounded is taken away again.
let sequence = null;
function chance(index) {
  if (!sequence) {
    sequence = new Float32Array(10000);
    for (let number = 0, seed = 1; number < 10000; number += 1) { seed = 16807 * seed % 2147483647; sequence[number] = seed / 2147483647; }
  }
  return sequence[index];
}

function restored(values, { scale, zero, blank, header, number }) {
  const how = String(header.get("ZQUANTIZ") ?? "NO_DITHER").trim();
  const dithers = how.startsWith("SUBTRACTIVE_DITHER");
  let row = dithers ? (number + (header.get("ZDITHER0") ?? 1) - 1) % 10000 : 0;
  let at = dithers ? Math.floor(chance(row) * 500) : 0;
  return values.map((value) => {
    const added = dithers ? chance(at) - 0.5 : 0;
    if (dithers) {
      at += 1;
      if (at === 10000) { row = (row + 1) % 10000; at = Math.floor(chance(row) * 500); }
    }
    if (value === blank) return NaN;
    if (how === "SUBTRACTIVE_DITHER_2" && value === ZERO) return 0;
    return (value - added) * scale + zero;
  });
}
