// Uploads: small files at once, others by tus 1.0.0 in pieces, so that they go on after a lost connection or, when the
// same file is chosen again, after a closed tab. Nothing of a file is visible to others before all of it is there.

import { announce } from "./shared.js";
import { ask, button, count, csrf, el, joined, lastOf, moment, parentOf, plain, reason, Refused, settings, size, t } from "./files-kit.js";
import { drop, has, row, setTools } from "./files-tasks.js";
import { askConflict } from "./files-dialogs.js";

const AT_ONCE = 3;
const SMALL = 1 << 20;
const PIECE = 32 << 20;
const KEY = `astrocloud-uploads-${settings.user}`;

let place = null;  // what tells the page: done(folder), failed(error)
const waiting = [];
const running = new Set();
const stopped = new Set();  // paused, or failed: what a person can take up again
let total = 0;
let finished = 0;
let sequence = 0;

export function begin(told) { place = told; }

const remembered = () => { try { return JSON.parse(localStorage.getItem(KEY) ?? "{}"); } catch { return {}; } };
const remember = (change) => {
  try {
    const known = remembered();
    change(known);
    localStorage.setItem(KEY, JSON.stringify(known));
  } catch { /* storage is closed to us: the upload works, but not after the tab is closed */ }
};
const fingerprint = (path, file) => `${path}|${file.size}|${file.lastModified}`;

// ---- What is to be uploaded ------------------------------------------------------------------------------------------

/**
 * Upload `files` (`{file, below}`: below is the folder path inside `folder`, may be empty) into `folder`. What one file or
 * folder cannot have, as a name that is not allowed, is told of that one; the rest goes on.
 */
export async function upload(folder, files) {
  if (!files.length && !files.folders) return;
  const known = remembered();
  const items = files.map(({ file, below }) => ({ file, into: below ? inside(folder, below) : folder, below }));
  let conflict = "keep";
  const taken = new Map();  // folder path -> {name: {kind, size, free}}
  const refused = new Map();  // folder path -> why it is not there
  try {
    for (const below of new Set([...files.folders ?? [], ...items.map((item) => item.below)].filter(Boolean).sort())) {
      try { await ask("POST", "/folder", { body: { path: folder, name: below, parents: true } }); } catch (error) {
        if (!isOdd(error)) throw error;
        refused.set(inside(folder, below), error);
      }
    }
    const names = new Map([[folder, []]]);
    for (const { file, into } of items) {
      if (!names.has(into)) names.set(into, []);
      names.get(into).push(file.name);
    }
    for (const [path, all] of names) {
      if (refused.has(path)) continue;
      const held = {};
      for (let from = 0; from < all.length; from += 5000) {
        Object.assign(held, (await ask("POST", "/exists", { body: { path, names: all.slice(from, from + 5000) } })).taken);
      }
      taken.set(path, held);
    }
    const asked = items.filter((item) => standsAt(item, taken) && !(fingerprint(joined(item.into, item.file.name), item.file) in known));
    if (asked.length) {
      const same = asked.filter((item) => isSame(item, taken)).length;
      conflict = await askConflict(plain(folder), asked.map((item) => item.file.name), { trash: false, same });
      if (!conflict) return;
    }
  } catch (error) {
    place.failed(error);
    return;
  }
  const made = [];
  for (const item of items) {
    const there = standsAt(item, taken);
    if (there && (conflict === "skip" || conflict === "same" && isSame(item, taken))) continue;
    const replaces = Boolean(there) && conflict === "replace" && there.kind !== "folder";
    const name = there && !replaces ? there.free : item.file.name;
    made.push({ key: `up-${sequence += 1}`, file: item.file, path: joined(item.into, name), replaces, offset: 0, tries: 0, into: folder, error: isBad(item.file.name) ? new BadName() : refused.get(item.into) });
  }
  add(made);
}

const inside = (folder, below) => folder + below.split("/").filter(Boolean).map((part) => `/${encodeURIComponent(part)}`).join("");
/** Whether `error` is about one name, and not about the place or the platform. */
const isOdd = (error) => error instanceof Refused && ["files-bad-name", "vospace-duplicate-node", "vospace-too-deep"].includes(error.code);
const standsAt = (item, taken) => taken.get(item.into)?.[item.file.name];
/** Whether a file of this name and size is there: most likely this one, from a time before. */
const isSame = (item, taken) => { const there = standsAt(item, taken); return there.kind === "file" && there.size === item.file.size; };

function add(made) {
  if (!running.size && !waiting.length && !stopped.size) { total = 0; finished = 0; }
  total += made.length;
  const bad = made.filter((item) => item.error);
  for (const item of bad) { item.state = "failed"; stopped.add(item); }
  for (const item of made) if (!item.error) waiting.push(item);
  for (const item of [...bad, ...made].slice(0, 50)) draw(item);
  if (bad.length) announce(t("upload-failed", { reason: why(bad[0].error) }));
  next();
}

/** Return the files that were dropped, those in folders too. */
export async function dropped(transfer, counting) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  async function walk(entry, below) {
    if (entry instanceof File) { found.push({ file: entry, below }); return; }
    if (entry.isFile) {
      found.push({ file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }), below });
      if (found.length % 500 === 0) counting(found.length);
      return;
    }
    const inner = below ? `${below}/${entry.name}` : entry.name;
    const reader = entry.createReader();
    let empty = true;
    for (;;) {
      const batch = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (!batch.length) break;
      empty = false;
      for (const each of batch) await walk(each, inner);
    }
    if (empty) found.folders = [...(found.folders ?? []), inner];
  }
  for (const entry of entries) if (entry) await walk(entry, "");
  return found;
}

/** Return the files of an `<input>`, of which a folder's have their path. */
export const chosen = (input) => [...input.files].map((file) => {
  const path = file.webkitRelativePath ?? "";
  return { file, below: path.slice(0, Math.max(0, path.lastIndexOf("/"))) };
});

// ---- Doing it --------------------------------------------------------------------------------------------------------

function next() {
  while (running.size < AT_ONCE && waiting.length) {
    const item = waiting.shift();
    running.add(item);
    work(item).finally(() => { running.delete(item); draw(item); next(); });
  }
  tools();
}

async function work(item) {
  item.state = "running";
  item.error = null;
  item.since = performance.now();
  item.from = item.offset;
  draw(item);
  for (;;) {
    item.stop = new AbortController();
    try {
      if (item.file.size <= SMALL && !item.url) await putWhole(item);
      else await putPieces(item);
      item.state = "done";
      finished += 1;
      place.done(item);
      if (!waiting.length && running.size <= 1) announce(t("upload-summary", { done: count(finished), total: count(total) }));
      return;
    } catch (error) {
      if (item.state === "paused" || item.state === "dropped") { if (item.state === "paused") stopped.add(item); return; }
      const lost = !(error instanceof Refused) || error.status >= 500 || error.status === 423 || error.code === "vospace-incomplete" || error.code === "vospace-node-busy";
      if (error instanceof FileChanged || error instanceof BadName || !lost || error.status === 507) {
        item.state = "failed";
        item.error = error;
        stopped.add(item);
        announce(t("upload-failed", { reason: why(error) }));
        return;
      }
      item.tries += 1;
      await pause(item, Math.min(30, 2 ** Math.min(5, item.tries - 1)));
      if (item.state !== "running") { if (item.state === "paused") stopped.add(item); return; }
    }
  }
}

class FileChanged extends Error {}
class BadName extends Error {}
const why = (error) => (error instanceof FileChanged ? t("upload-changed") : error instanceof BadName ? t("upload-bad-name") : reason(error));
const isBad = (name) => /[\x00-\x1f\x7f-\x9f\u2028\u2029]/.test(name) || [".auto", ".null"].includes(name) || new TextEncoder().encode(name).length > 255;

/** Wait `seconds`, or less when the connection comes back or somebody resumes. */
async function pause(item, seconds) {
  for (let left = seconds; left > 0 && item.state === "running"; left -= 1) {
    item.left = left;
    draw(item);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000);
      item.wake = () => { clearTimeout(timer); left = 0; resolve(); };
      window.addEventListener("online", item.wake, { once: true });
    });
  }
  item.left = 0;
}

/** Send one request with progress; resolves with the XMLHttpRequest. */
function send(method, address, headers, body, item, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, address);
    for (const [name, value] of Object.entries({ Accept: "application/json", "X-CSRF-Token": csrf, ...headers })) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress?.(event.loaded);
    request.onload = () => {
      // A 409 that tells the offset is an answer; any other (busy, a name that is taken) is a refusal.
      if (request.status < 400 || request.status === 409 && request.getResponseHeader("Upload-Offset") !== null) { resolve(request); return; }
      let document = null;
      try { document = JSON.parse(request.responseText); } catch { /* told by the status */ }
      reject(new Refused(request.status, document, `HTTP ${request.status}`));
    };
    request.onerror = () => reject(new TypeError("lost"));
    request.ontimeout = request.onerror;
    const stop = () => { request.abort(); reject(new DOMException("stopped", "AbortError")); };
    item.stop.signal.addEventListener("abort", stop, { once: true });
    request.send(body);
  });
}

async function putWhole(item) {
  if (isBad(item.file.name)) throw new BadName();
  await readable(item);
  const headers = item.replaces ? {} : { "If-None-Match": "*" };
  try {
    await send("PUT", settings.files + item.path, { "Content-Type": "application/octet-stream", ...headers }, item.file, item, (loaded) => { item.offset = loaded; draw(item); });
  } catch (error) {
    // The name was free, and now something has it: the very bytes, when only the answer was lost.
    if (!item.tries || error.status !== 412 || !await isThere(item)) throw error;
  }
  item.offset = item.file.size;
}

/** Whether the very bytes of `item` are where they are to be. */
async function isThere(item) {
  const answer = await fetch(settings.files + item.path, { credentials: "same-origin", signal: item.stop.signal });
  if (!answer.ok || Number(answer.headers.get("Content-Length") ?? item.file.size) !== item.file.size) return false;
  const [there, here] = await Promise.all([answer.arrayBuffer(), item.file.arrayBuffer()]);
  const own = new Uint8Array(here);
  return there.byteLength === own.length && new Uint8Array(there).every((byte, at) => byte === own[at]);
}

async function readable(item) {
  try { await item.file.slice(0, 1).arrayBuffer(); } catch { throw new FileChanged(); }
}

const TUS = { "Tus-Resumable": "1.0.0" };
const text64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function putPieces(item) {
  const mark = fingerprint(item.path, item.file);
  item.url ??= remembered()[mark];
  if (item.url) {
    try {
      const told = await send("HEAD", relative(item.url), TUS, null, item);
      item.offset = Number(told.getResponseHeader("Upload-Offset"));
    } catch (error) {
      if (!(error instanceof Refused) || ![403, 404, 410].includes(error.status)) throw error;
      remember((known) => { delete known[mark]; });
      item.url = null;  // it ran out: from the beginning
    }
  }
  if (!item.url) {
    const meta = `uri ${text64(settings.authority + item.path)},replace ${text64(String(item.replaces))}`;
    const told = await send("POST", settings.uploads, { ...TUS, "Upload-Length": String(item.file.size), "Upload-Metadata": meta }, null, item);
    item.url = told.getResponseHeader("Location");
    item.offset = 0;
    remember((known) => { known[mark] = item.url; });
  }
  item.from = item.offset;
  item.since = performance.now();
  // The answer to a PATCH, and nothing else, says that the file is in its place: where all bytes have come and that
  // failed, an empty PATCH asks for it once more.
  for (let placed = false; !placed;) {
    await readable(item);
    const from = item.offset;
    const piece = item.file.slice(from, from + PIECE);
    const headers = { ...TUS, "Upload-Offset": String(from), "Content-Type": "application/offset+octet-stream" };
    const told = await send("PATCH", relative(item.url), headers, piece, item, (loaded) => { item.offset = from + loaded; draw(item); });
    item.offset = Number(told.getResponseHeader("Upload-Offset"));
    item.tries = 0;
    placed = told.status === 204 && item.offset === item.file.size;
  }
  remember((known) => { delete known[mark]; });
  drop(`left-${relative(item.url)}`);
}

/** The service tells whole addresses; this page's own origin is the one that answers it. */
const relative = (url) => new URL(url, location.origin).pathname;

// ---- Pausing, resuming, dropping --------------------------------------------------------------------------------------

function pauseOne(item) {
  const was = item.state;
  item.state = "paused";
  if (was === "running") { item.stop?.abort(); item.wake?.(); } else if (was === undefined) { waiting.splice(waiting.indexOf(item), 1); stopped.add(item); }
  draw(item);
  tools();
}

function resumeOne(item) {
  stopped.delete(item);
  item.state = undefined;
  item.tries = 0;
  waiting.unshift(item);
  draw(item);
  next();
}

async function dropOne(item) {
  const was = item.state;
  item.state = "dropped";
  if (was === "running") { item.stop?.abort(); item.wake?.(); }
  if (was === undefined) waiting.splice(waiting.indexOf(item), 1);
  stopped.delete(item);
  total -= 1;
  drop(item.key);
  tools();
  if (item.url && was !== "done") await discard(item.url, fingerprint(item.path, item.file));
}

async function discard(url, mark) {
  remember((known) => { delete known[mark]; });
  await fetch(relative(url), { method: "DELETE", headers: { ...TUS, "X-CSRF-Token": csrf } }).catch(() => {});
}

export function pauseAll() { for (const item of [...waiting, ...running]) pauseOne(item); }
export function resumeAll() { for (const item of [...stopped]) resumeOne(item); }

function tools() {
  const some = running.size + waiting.length;
  setTools(some > 1 ? button(t("pause-all"), pauseAll, { kind: "quiet" }) : "", stopped.size > 1 ? button(t("resume-all"), resumeAll, { kind: "quiet" }) : "");
  if (total > 1) row("up-summary", { name: t("upload-summary", { done: count(finished), total: count(total) }), text: waiting.length ? t("upload-left", { count: count(waiting.length) }) : "", part: finished / total });
  if (!some && !stopped.size) setTimeout(() => { if (!running.size && !waiting.length && !stopped.size) drop("up-summary"); }, 6000);
}

function draw(item) {
  const { file, state, offset } = item;
  if (state === "dropped") return;
  const name = plain(lastOf(item.path));
  const whole = size(file.size);
  const part = file.size ? offset / file.size : 0;
  const close = ["close", t("cancel"), () => dropOne(item)];
  if (state === "done") {
    row(item.key, { name, text: t("upload-done"), part: 1 });
    setTimeout(() => drop(item.key), total > 20 ? 300 : 5000);
  } else if (state === "running") {
    const rate = (offset - item.from) / Math.max(0.5, (performance.now() - item.since) / 1000);
    const text = item.left ? t("upload-lost", { done: size(offset), size: whole, seconds: item.left }) : t("upload-progress", { done: size(offset), size: whole, rate: size(Math.max(0, rate)) });
    row(item.key, { name, text, part, bad: Boolean(item.left), buttons: [["pause", t("pause"), () => pauseOne(item)], close] });
  } else if (state === "paused") {
    row(item.key, { name, text: t("upload-paused", { done: size(offset), size: whole }), part, buttons: [["play", t("resume"), () => resumeOne(item)], close] });
  } else if (state === "failed") {
    row(item.key, { name, text: t("upload-failed", { reason: why(item.error) }), part, bad: true, buttons: [["play", t("retry"), () => resumeOne(item)], close] });
  } else if (has(item.key) || total <= 50) {
    row(item.key, { name, text: t("upload-waiting"), part, buttons: [["pause", t("pause"), () => pauseOne(item)], close] });
  }
}

window.addEventListener("beforeunload", (event) => {
  if (running.size || waiting.length) { event.preventDefault(); event.returnValue = t("upload-leave"); }
});

// ---- Uploads that an earlier tab left ---------------------------------------------------------------------------------

/** Show the uploads that are not whole, so that choosing the same file goes on with each. */
export async function showUnfinished() {
  let told;
  try { told = (await ask("GET", "/uploads")).uploads; } catch { return; }
  const known = remembered();
  for (const left of told) {
    const url = relative(left.url);
    if ([...running, ...waiting, ...stopped].some((item) => item.url && relative(item.url) === url)) continue;
    const mark = Object.keys(known).find((each) => relative(known[each]) === url);
    const key = `left-${url}`;
    const show = (text, bad) => row(key, {
      name: left.name, text, bad, part: left.size ? left.offset / left.size : 0,
      buttons: [...(mark ? [["play", t("upload-choose"), pick]] : []), ["close", t("upload-discard"), async () => { await discard(left.url, mark); drop(key); place.done({ into: parentOf(left.path) }); }]],
    });
    const input = el("input", { type: "file", hidden: true, onchange: () => {
      const [file] = input.files;
      if (!file) return;
      if (fingerprint(left.path, file) !== mark) { show(t("upload-other", { name: file.name, size: size(file.size) }), true); return; }
      drop(key);
      add([{ key: `up-${sequence += 1}`, file, path: left.path, url: left.url, replaces: left.replaces, offset: left.offset, tries: 0, into: parentOf(left.path) }]);
    } });
    const pick = () => input.click();
    document.getElementById("fi-tasks").append(input);
    input.dataset.upload = left.name;
    show(t(mark ? "upload-unfinished-one" : "upload-unfinished-elsewhere", { done: size(left.offset), size: size(left.size), until: moment(left.until) }), false);
  }
}
