// My files: where one is, what is shown of it, and what can be done with it.

import { announce } from "./shared.js";
import {
  ask, button, canonical, count, el, fileAddress, icon, lastOf, moment, pageAddress, parentOf, pathIn, plain,
  reason, settings, size, sortOf, t,
} from "./files-kit.js";
import { FileList } from "./files-list.js";
import { FolderSource, WholeSource } from "./files-source.js";
import { askConflict, askFolder, askText, copyText, shareDialog, sure } from "./files-dialogs.js";
import { begin, chosen, dropped, showUnfinished, upload } from "./files-upload.js";
import { drop, follow, row } from "./files-tasks.js";
import { closePreview, previewed, showPreview } from "./files-preview.js";

const place = (id) => document.getElementById(id);
const [placesList, quotaPlace, crumbs, toolsPlace, notes, listing] = ["fi-places", "fi-quota", "fi-crumbs", "fi-tools", "fi-notes", "fi-listing"].map(place);
const query = place("fi-q");
const below = place("fi-below");

const state = { view: "folder", path: settings.home, match: "", below: false, hidden: false, folder: null };
let places = [];
let source = new WholeSource([]);
let loading = null;

// ---- The list --------------------------------------------------------------------------------------------------------

const list = new FileList(listing, {
  open,
  menu: showMenu,
  changed: drawTools,
  sort(by) {
    if (state.view !== "folder" || state.below) return;
    list.sorting = { by, descending: list.sorting.by === by ? !list.sorting.descending : by !== "name" };
    list.drawHead();
    load();
  },
  drag(event, entry) {
    if (!entry || state.view !== "folder" || !state.folder?.writable) { event.preventDefault(); return; }
    const index = list.indexAt(event.target);
    if (!list.has(index)) list.moveTo(index);
    event.dataTransfer.setData("text/plain", entry.name);
    event.dataTransfer.effectAllowed = "move";
    dragging = { items: source.items(list), paths: list.pickedEntries.map((each) => each.path) };
  },
  key(event, entry) {
    const keys = {
      Backspace: goUp, F2: () => entry && rename(entry), Delete: () => list.pickedCount && remove(event.shiftKey),
      "/": () => query.focus(), ArrowLeft: () => event.altKey && goUp(),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  },
});
let dragging = null;
document.addEventListener("dragend", () => { dragging = null; });

/** Show what `state` says. `at` is the path of an entry to put the cursor on. */
async function load({ at, keep = false } = {}) {
  loading?.abort();
  loading = new AbortController();
  const { signal } = loading;
  notes.replaceChildren();
  list.grid.setAttribute("aria-busy", "true");
  try {
    const made = await (views[state.view] ?? views.folder)(signal, at);
    if (signal.aborted) return;
    source = made.source;
    drawCrumbs();
    drawPlaces();
    list.sorted = source instanceof FolderSource;
    list.dates = state.view === "trash" ? "column-deleted" : "column-date";
    list.drawHead();
    list.show(source, { keep, cursor: made.cursor });
    if (made.note) note(made.note);
    document.title = `${titleNow()} · ${t("title")}`;
  } catch (error) {
    if (error.name === "AbortError") return;
    source = new WholeSource([]);
    state.folder = null;
    drawCrumbs();
    list.show(source);
    note(t("no-folder", { reason: reason(error) }), { kind: "critical", retry: () => load() });
  } finally {
    if (!signal.aborted) list.grid.removeAttribute("aria-busy");
  }
}

const views = {
  async folder(signal, at) {
    if (state.match && state.below) return found(signal);
    const wish = { sort: list.sorting.by, descending: list.sorting.descending, match: state.match, hidden: state.hidden };
    const made = new FolderSource(state.path, wish, {
      changed: () => { if (source === made) list.render(); },
      failed: (error) => note(reason(error), { kind: "warning", retry: () => load({ keep: true }) }),
      renewed: () => { if (source === made) load({ keep: true }); },
    });
    made.nothing = () => (state.match
      ? [el("p", {}, t("empty-search", { text: state.match }))]
      : [el("p", {}, t("empty")), state.folder?.writable ? el("p", {}, t("empty-drop")) : ""]);
    const cursor = await made.open({ at, signal });
    state.folder = made.folder;
    state.path = canonical(made.folder.path);
    return { source: made, cursor, note: state.folder.writable || state.path.split("/").length < 3 ? "" : t("read-only") };
  },
  async trash(signal) {
    const told = await ask("GET", "/trash", { signal });
    state.folder = null;
    const entries = told.entries.map((entry) => ({ ...entry, when: entry.deleted, note: t("trash-from", { folder: plain(parentOf(entry.origin)), until: moment(entry.until) }) }));
    return { source: new WholeSource(entries, { fixed: true, nothing: () => [el("p", {}, t("empty-trash"))] }), note: t("trash-note", { days: told.days }) };
  },
  async shared(signal) {
    const told = await ask("GET", "/shared", { signal });
    state.folder = null;
    const entries = told.entries.map((entry) => ({ ...entry, note: t("shared-by", { owner: entry.owner, folder: plain(entry.folder) }) }));
    return { source: new WholeSource(entries, { fixed: true, nothing: () => [el("p", {}, t("empty-shared"))] }) };
  },
};

async function found(signal) {
  note(t("searching"));
  const told = await ask("GET", "/search", { query: { path: state.path, q: state.match, hidden: state.hidden ? "1" : "" }, signal });
  notes.replaceChildren();
  const entries = told.entries.map((entry) => ({ ...entry, note: plain(entry.folder) }));
  announce(t("search-found", { count: count(entries.length) }));
  return {
    source: new WholeSource(entries, { fixed: true, nothing: () => [el("p", {}, t("empty-search", { text: state.match }))] }),
    note: told.complete ? "" : t("search-cut", { count: count(entries.length) }),
  };
}

function note(text, { kind = "info", retry } = {}) {
  const box = el("div", { class: `ac-alert ac-alert-${kind}`, role: kind === "info" ? "status" : "alert" }, el("div", {}, el("p", {}, text)));
  if (retry) box.lastChild.append(el("div", { class: "ac-actions" }, button(t("retry"), retry)));
  notes.replaceChildren(box);
}

/** Load again what is shown, the cursor staying where it was. */
async function refresh(at) {
  const here = at ?? list.source.entry(list.cursor)?.path;
  await Promise.all([load({ keep: true, at: state.view === "folder" ? here : undefined }), loadPlaces()]);
}

// A folder that a notebook writes to changes while it is looked at.
setInterval(async () => {
  if (document.hidden || state.view !== "folder" || loading?.signal.aborted || list.pickedCount > 1 || document.querySelector("dialog[open], .fi-menu")) return;
  try { if (await source.look() && list.pickedCount < 2) await refresh(); } catch { /* told when somebody does something */ }
}, 10000);

// ---- Where one is ----------------------------------------------------------------------------------------------------

function address() {
  if (state.view !== "folder") return `${settings.page}?view=${state.view}`;
  const search = state.match ? `&q=${encodeURIComponent(state.match)}${state.below ? "&below=1" : ""}` : "";
  return pageAddress(state.path) + search;
}

function go(change, { at, push = true } = {}) {
  Object.assign(state, { match: "", below: false }, change);
  query.value = state.match;
  closePreview();
  if (push) history.pushState({}, "", address());
  return load({ at });
}

const openFolder = (path, options) => go({ view: "folder", path }, options);

function goUp() {
  if (state.view !== "folder" || state.path.split("/").length <= 2) return;
  openFolder(parentOf(state.path), { at: state.path });
}

function readAddress() {
  const asked = new URLSearchParams(location.search);
  state.view = ["trash", "shared"].includes(asked.get("view")) ? asked.get("view") : "folder";
  state.path = pathIn(location.search) || settings.home || "/";
  state.match = asked.get("q") ?? "";
  state.below = asked.has("below");
  query.value = state.match;
  below.checked = state.below;
}

window.addEventListener("popstate", () => { readAddress(); closePreview(); load(); });

const titleNow = () => (state.view === "folder" ? plain(lastOf(state.path)) || "/" : t(`place-${state.view}`));

function drawCrumbs() {
  place("fi-search").hidden = state.view !== "folder";
  if (state.view !== "folder") {
    crumbs.replaceChildren(el("li", {}, el("b", { "aria-current": "page" }, t(`place-${state.view}`))));
    return;
  }
  const parts = state.path.split("/").filter(Boolean);
  crumbs.replaceChildren(...parts.map((part, index) => {
    const path = `/${parts.slice(0, index + 1).join("/")}`;
    const text = plain(part);
    if (index === parts.length - 1) return el("li", {}, el("b", { "aria-current": "page", title: text }, text));
    const link = el("a", { href: pageAddress(path), title: plain(path), onclick: (event) => follows(event, () => openFolder(path)) }, text);
    takesDrops(link, path);
    return el("li", {}, link);
  }));
}

/** Do `act` for a plain click on a link; a click for a new tab is the browser's. */
function follows(event, act) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  act();
}

let counting = 0;
async function loadPlaces(wait = 1000) {
  if (!settings.user) return;
  clearTimeout(counting);
  let told;
  try { told = await ask("GET", "/places"); } catch { return; }
  ({ places } = told);
  drawPlaces();
  // What notebooks wrote is counted behind the answer; of very much the next look tells.
  if (told.counting.length && wait < 20000) counting = setTimeout(() => loadPlaces(wait * 2), wait);
}

function drawPlaces() {
  const link = (symbol, text, href, now, act, drops) => {
    const made = el("a", { href, "aria-current": now ? "page" : undefined, onclick: (event) => follows(event, act) }, icon(symbol), el("span", {}, text));
    if (drops) takesDrops(made, drops);
    return made;
  };
  const isIn = (path) => state.view === "folder" && (state.path === path || state.path.startsWith(`${path}/`));
  const items = places.map((each) => {
    const path = canonical(each.path);
    return el("li", {}, link(each.kind === "home" ? "home" : "project", each.kind === "home" ? t("place-home") : each.name, pageAddress(path), isIn(path), () => openFolder(path), path));
  });
  const view = (name, symbol) => el("li", { class: name === "shared" ? "fi-gap" : "" }, link(symbol, t(`place-${name}`), `${settings.page}?view=${name}`, state.view === name, () => go({ view: name })));
  const folder = (name, symbol, gap) => el("li", { class: gap ? "fi-gap" : "" }, link(symbol, t(`place-${name}`), pageAddress(`/${name}`), isIn(`/${name}`), () => openFolder(`/${name}`)));
  const own = settings.user ? [view("shared", "shared"), ...(settings.trashDays ? [view("trash", "trash")] : [])] : [];
  placesList.replaceChildren(...items, ...own, folder("archive", "archive", true), folder("course", "notebook"));
  drawQuota();
}

function drawQuota() {
  const here = places.find((each) => canonical(each.path) === state.path || state.path.startsWith(`${canonical(each.path)}/`)) ?? places[0];
  if (!here || here.used_bytes === null) { quotaPlace.replaceChildren(); return; }
  if (!here.limit_bytes) { quotaPlace.replaceChildren(el("p", {}, t("quota-any", { used: size(here.used_bytes) }))); return; }
  const part = here.used_bytes / here.limit_bytes;
  const text = t("quota-of", { used: size(here.used_bytes), limit: size(here.limit_bytes) });
  const bar = el("progress", { class: `ac-progress ${part > 0.95 ? "fi-full" : ""}`, max: "1", "aria-label": text });
  bar.value = part;
  quotaPlace.replaceChildren(el("p", {}, plain(here.path)), bar, el("p", {}, text), part > 0.95 ? el("p", { class: "ac-error" }, t("quota-full")) : "");
}

// ---- What can be done ------------------------------------------------------------------------------------------------

function drawTools() {
  const picked = list.pickedCount;
  const writable = state.view === "folder" && state.folder?.writable;
  const made = [];
  if (writable && !picked) {
    made.push(
      button(t("upload"), (event) => choose(event, [["upload-files", "file", () => pick(false)], ["upload-folder", "folder", () => pick(true)]]), { kind: "primary", symbol: "upload", "aria-haspopup": "menu" }),
      button(t("new-folder"), newFolder, { symbol: "newfolder" }),
    );
  }
  if (!picked && state.view === "folder" && settings.user && !state.below) made.push(labButton(state.path));
  if (!picked && state.view === "trash" && source.total) made.push(button(t("empty-it"), emptyTrash, { kind: "danger", symbol: "trash" }));
  if (picked) {
    const all = actionsFor();
    for (const [key, symbol, act, kind] of all) if (!["open", "address", "rename"].includes(key)) made.push(button(t(key), act, { symbol, kind: kind ?? "plain" }));
    if (all.some(([key]) => key === "address")) made.push(button(t("more"), (event) => choose(event, all.map(([key, symbol, act, kind]) => [key, symbol, act, kind === "danger"])), { symbol: "more", kind: "quiet", "aria-haspopup": "menu" }));
    made.push(el("span", { class: "fi-count" }, t("selected", { count: count(picked) })), button(t("clear"), () => list.clear(), { kind: "quiet" }));
  } else {
    made.push(el("span", { class: "fi-spring" }), el("span", { class: "fi-count", id: "fi-total" }, source.total === 1 ? t("entries-one") : t("entries", { count: count(source.total) })));
    if (state.view === "folder") {
      const box = el("input", { type: "checkbox", onchange: () => { state.hidden = box.checked; load(); } });
      box.checked = state.hidden;
      made.push(el("label", { class: "fi-below" }, box, t("hidden-files")));
    }
  }
  const had = toolsPlace.contains(document.activeElement);
  toolsPlace.replaceChildren(...made);
  if (had) list.grid.focus({ preventScroll: true });
}

/** Return what can be done with what is picked: [text, drawing, act, kind of button]. */
function actionsFor() {
  const picked = list.pickedCount;
  const [one] = picked === 1 ? list.pickedEntries : [];
  if (state.view === "trash") {
    return [["restore", "clock", () => run("restore")], ["delete-forever", "trash", () => remove(true), "danger"]];
  }
  const aim = one?.leads ?? one;
  const found = [];
  if (one) found.push(["open", one.kind === "folder" ? "folder" : "file", () => open(one)]);
  if (one && settings.user) found.push(["open-lab", "lab", () => openLab(aim.path)]);
  found.push(one && sortOf(one) !== "folder" ? ["download", "download", () => download(one)] : ["download-zip", "download", downloadZip]);
  if (state.view !== "folder" || state.below) {
    if (one?.folder) found.push(["show-folder", "folder", () => openFolder(canonical(one.folder), { at: one.path })]);
  }
  if (settings.user) {
    found.push(["copy", "file", () => transfer("copy")]);
    if (state.view === "folder" && (state.folder?.writable || state.below)) {
      found.push(["move", "folder", () => transfer("move")]);
      if (one) found.push(["rename", "text", () => rename(one)]);
    }
  }
  if (one && one.owner === settings.user && settings.user && one.kind !== "link") found.push(["share", "shared", () => share(one.path)]);
  if (one) found.push(["address", "link", () => copyText(settings.authority + one.path)]);
  if (settings.user && state.view === "folder" && (state.folder?.writable || state.below)) found.push(["delete", "trash", () => remove(false), "danger"]);
  return found;
}

let menu = null;

function showMenu(_entry, x, y) {
  popMenu(actionsFor().map(([key, symbol, act, kind]) => [key, symbol, act, kind === "danger"]), x, y);
}

function choose(event, items) {
  const box = event.currentTarget.getBoundingClientRect();
  popMenu(items, box.left, box.bottom + 4);
}

function popMenu(items, x, y) {
  menu?.remove();
  const before = document.activeElement;
  const close = () => { if (!menu) return; menu.remove(); menu = null; before?.focus?.({ preventScroll: true }); };
  menu = el("div", { class: "fi-menu", role: "menu" }, ...items.map(([key, symbol, act, danger]) => el("button", {
    type: "button", role: "menuitem", tabindex: "-1", class: danger ? "fi-danger" : "", onclick: () => { close(); act(); },
  }, icon(symbol), el("span", {}, t(key)))));
  menu.addEventListener("keydown", (event) => {
    const all = [...menu.children];
    const now = all.indexOf(document.activeElement);
    const to = { ArrowDown: (now + 1) % all.length, ArrowUp: (now + all.length - 1) % all.length, Home: 0, End: all.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); all[to].focus(); }
    if (event.key === "Escape" || event.key === "Tab") { event.preventDefault(); close(); }
  });
  document.body.append(menu);
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(4, Math.min(x, innerWidth - width - 4))}px`;
  menu.style.top = `${Math.max(4, Math.min(y, innerHeight - height - 4))}px`;
  menu.firstChild.focus();
  const own = menu;
  setTimeout(() => document.addEventListener("pointerdown", function outside(event) {
    if (own.contains(event.target)) return;
    document.removeEventListener("pointerdown", outside);
    if (menu === own) close();
  }));
}

function open(entry) {
  if (state.view === "trash") return;
  const kind = sortOf(entry);
  if (kind === "folder") openFolder(canonical(entry.leads?.path ?? entry.path));
  else showPreview(entry, { actions: settings.user ? [labButton(entry.path)] : [] });
}

// In JupyterLab the portal opens things, because it starts servers.
const labAddress = (path) => `/services/portal/files/open?path=${encodeURIComponent(plain(path))}`;
const openLab = (path) => location.assign(labAddress(path));
const labButton = (path) => el("a", { class: "ac-button ac-button-plain", href: labAddress(path) }, icon("lab"), el("span", {}, t("open-lab")));

const download = (entry, query = "") => save(fileAddress(entry.path, query));

function save(address) {
  const link = el("a", { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

async function downloadZip() {
  const entries = list.pickedEntries;
  if (list.pickedCount === 1) {
    download({ path: entries[0].leads?.path ?? entries[0].path }, "?view=zip");
    return;
  }
  try {
    save((await ask("POST", "/archive", { body: source.items(list) })).url);
  } catch (error) {
    note(reason(error), { kind: "critical", retry: () => load({ keep: true }) });
  }
}

async function newFolder() {
  const made = await askText(t("new-folder"), t("new-folder-name"), "", (name) => ask("POST", "/folder", { body: { path: state.path, name } }));
  if (made) await refresh(made.path);
}

async function rename(entry) {
  const dot = entry.kind === "file" ? entry.name.lastIndexOf(".") : -1;
  const told = await askText(t("rename"), t("rename-to"), entry.name, (name) => ask("POST", "/rename", { body: { path: entry.path, name } }), { select: dot > 0 ? dot : undefined });
  if (told) await refresh(told.path);
}

/** Do work on what is picked, follow it, and show the folder as it is then. */
async function run(what, more = {}, items = source.items(list)) {
  try {
    const done = await follow(await ask("POST", "/work", { body: { do: what, ...items, ...more } }));
    await refresh(done.results?.[0]);
    return done;
  } catch (error) {
    note(reason(error), { kind: "critical", retry: () => load({ keep: true }) });
    return null;
  }
}

async function transfer(what) {
  const items = source.items(list);
  const start = state.view === "folder" ? state.path : settings.home;
  const target = await askFolder(t("where-to"), t(what === "move" ? "move-here" : "copy-here"), start, places);
  if (target) await transferTo(what, target, items);
}

async function transferTo(what, target, items) {
  try {
    // A copy in its own folder needs no question: it gets a number.
    const taken = await ask("POST", "/exists", { body: { path: target, ...items } });
    const conflict = taken.count ? await askConflict(plain(target), taken.some, { total: taken.count }) : "keep";
    if (conflict) await run(what, { target, conflict }, items);
  } catch (error) {
    note(reason(error), { kind: "critical" });
  }
}

async function remove(forever) {
  const items = source.items(list);
  const picked = list.pickedCount;
  const what = picked === 1 ? t("what-one", { name: list.pickedEntries[0]?.name ?? "" }) : t("what-many", { count: count(picked) });
  const gone = forever || !settings.trashDays;
  if (gone && !await sure(t("delete-forever"), t("delete-forever-sure", { what }), t("delete-forever"))) return;
  closePreview();
  const done = await run(gone ? "delete" : "trash", {}, items);
  if (!gone && done?.results?.length && done.phase === "done") {
    const undo = button(t("undo"), async () => { notes.replaceChildren(); await run("restore", {}, { paths: done.results }); });
    note(t("done-trash", { count: count(done.done) }));
    if (done.results.length === done.done) notes.firstChild.lastChild.append(el("div", { class: "ac-actions" }, undo));
  }
}

async function emptyTrash() {
  if (!await sure(t("empty-it"), t("delete-forever-sure", { what: t("what-many", { count: count(source.total) }) }), t("empty-it"))) return;
  await run("delete", {}, { paths: source.entries.map((entry) => entry.path) });
}

async function share(path) {
  await shareDialog(path, { watch: (job) => follow(job, { say: false }) });
  await refresh(path);
}

// ---- Uploading -------------------------------------------------------------------------------------------------------

let reload = 0;
begin({
  done(item) {
    if (state.view !== "folder" || canonical(item.into) !== state.path) return;
    clearTimeout(reload);
    reload = setTimeout(() => { if (list.pickedCount < 2) refresh(); }, 400);
  },
  failed: (error) => note(reason(error), { kind: "critical" }),
});

function pick(folders) {
  const input = el("input", { type: "file", multiple: true, hidden: true, webkitdirectory: folders, "data-upload": folders ? "folder" : "files" });
  const into = state.path;
  input.addEventListener("change", () => { upload(into, chosen(input)); input.remove(); });
  input.addEventListener("cancel", () => input.remove());
  document.body.append(input);
  input.click();
}

/** Return the folder that something dropped at `event` goes to. */
function dropFolder(event) {
  if (state.view === "trash") return null;
  const entry = list.entryAt(event.target);
  const aim = entry && sortOf(entry) === "folder" ? entry.leads?.path ?? entry.path : null;
  if (aim) return aim;
  return state.view === "folder" && state.folder?.writable ? state.path : null;
}

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
let marked = null;
function mark(element) {
  if (marked === element) return;
  marked?.classList.remove("fi-over");
  element?.classList.add("fi-over");
  marked = element;
}

listing.addEventListener("dragover", (event) => {
  const row = event.target.closest(".fi-row");
  const entry = list.entryAt(event.target);
  const onto = entry && sortOf(entry) === "folder" ? row : null;
  if (hasFiles(event) && dropFolder(event)) {
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    listing.classList.add("fi-dropping");
    listing.dataset.drop = t("drop-here", { folder: plain(dropFolder(event)) });
  } else if (dragging && onto && !dragging.paths.includes(entry.path)) {
    event.preventDefault();
    event.dataTransfer.dropEffect = "move";
  }
  mark(hasFiles(event) || dragging ? onto : null);
});
listing.addEventListener("dragleave", (event) => { if (!listing.contains(event.relatedTarget)) { listing.classList.remove("fi-dropping"); mark(null); } });
listing.addEventListener("drop", async (event) => {
  listing.classList.remove("fi-dropping");
  mark(null);
  const into = dropFolder(event);
  if (!into) return;
  event.preventDefault();
  if (hasFiles(event)) await takeDrop(event, into);
  else if (dragging && into !== state.path) moveDragged(into);
});
// What is dropped beside the list must not replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => { if (hasFiles(event)) event.preventDefault(); });

async function takeDrop(event, into) {
  const reading = (found) => row("reading", { name: plain(into), text: t("upload-reading", { count: count(found) }), part: null });
  try {
    const files = await dropped(event.dataTransfer, reading);
    await upload(into, files);
    if (files.folders || files.some((each) => each.below)) await refresh();
  } catch (error) {
    note(reason(error), { kind: "critical" });
  } finally {
    drop("reading");
  }
}

function moveDragged(target) {
  const { items } = dragging;
  dragging = null;
  transferTo("move", target, items);
}

function takesDrops(element, path) {
  element.addEventListener("dragover", (event) => { if (dragging || hasFiles(event)) { event.preventDefault(); mark(element); } });
  element.addEventListener("dragleave", () => mark(null));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    if (hasFiles(event)) takeDrop(event, path);
    else if (dragging && path !== state.path) moveDragged(path);
  });
}

// ---- Searching -------------------------------------------------------------------------------------------------------

let typing = 0;
function search() {
  clearTimeout(typing);
  Object.assign(state, { view: "folder", match: query.value.trim(), below: below.checked });
  history.replaceState({}, "", address());
  load();
}
query.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, below.checked ? 500 : 200); });
below.addEventListener("change", () => { if (query.value.trim()) search(); });
place("fi-search").addEventListener("submit", (event) => { event.preventDefault(); event.stopPropagation(); search(); list.grid.focus(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && previewed() && !document.querySelector("dialog[open], .fi-menu")) { closePreview(); list.grid.focus(); }
});

// ---- Beginning -------------------------------------------------------------------------------------------------------

async function start() {
  readAddress();
  const asked = new URLSearchParams(location.search);
  const shared = asked.has("share");
  loadPlaces();
  drawPlaces();
  let at;
  if (state.view === "folder" && pathIn(location.search)) {
    // The address may name a file, or a folder to share: then what it is in is shown, and it.
    try {
      const entry = await ask("GET", "/entry", { query: { path: state.path } });
      if (shared || sortOf(entry) !== "folder") { at = canonical(entry.path); state.path = parentOf(at); }
      await load({ at });
      if (at && !shared) open(entry);
    } catch { await load(); }
  } else await load();
  if (shared && at) share(at);
  if (settings.user) showUnfinished();
}

start();
