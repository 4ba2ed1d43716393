// Where the list has its entries from: a folder, in pages fetched when they come into sight; or what was told whole.

import { ask } from "./files-kit.js";

const PAGE = 200;
const KEPT = 60;

/** A folder in one order, as the service keeps it under the name of a view. */
export class FolderSource {
  /** `changed(source)`: more is here; `failed(error)`; `renewed(source)`: the folder had to be read anew. */
  constructor(path, wish, { changed, failed, renewed }) {
    this.path = path;
    this.wish = wish;
    this.told = { changed, failed, renewed };
    this.total = 0;
    this.view = "";
    this.pages = new Map();
    this.asked = new Map();
    this.folder = null;
    this.stale = false;
  }

  query(first, more = {}) {
    const { sort, descending, match, hidden } = this.wish;
    return { path: this.path, sort, order: descending ? "desc" : "asc", q: match, hidden: hidden ? "1" : "", first, count: PAGE, view: this.view, ...more };
  }

  /** Read the folder; return the position of the entry `at` where that was asked for. */
  async open({ at, signal } = {}) {
    const told = await ask("GET", "/list", { query: this.query(0, { at }), signal });
    this.view = told.view;
    this.total = told.total;
    this.folder = told.folder;
    this.stale = told.stale;
    this.pages.set(0, told.entries);
    return told.at ?? undefined;
  }

  entry(index) {
    if (index < 0 || index >= this.total) return null;
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  need(first, last) {
    this.wanted = [Math.floor(first / PAGE), Math.floor(Math.max(first, last - 1) / PAGE)];
    clearTimeout(this.timer);
    // While the list flies past, nothing is fetched; what stays in sight is.
    this.timer = setTimeout(() => this.fetchWanted(), 40);
  }

  fetchWanted() {
    const [from, to] = this.wanted;
    for (const [page, asked] of this.asked) if (page < from || page > to) asked.abort();
    for (let page = from; page <= to; page += 1) {
      if (!this.pages.has(page) && !this.asked.has(page) && page * PAGE < this.total) this.fetchPage(page);
    }
  }

  async fetchPage(page) {
    const asked = new AbortController();
    this.asked.set(page, asked);
    try {
      const told = await ask("GET", "/list", { query: this.query(page * PAGE), signal: asked.signal });
      this.asked.delete(page);
      if (told.view !== this.view) {
        this.told.renewed(this);
        return;
      }
      this.pages.delete(page);
      this.pages.set(page, told.entries);
      while (this.pages.size > KEPT) this.pages.delete(this.pages.keys().next().value);
      this.stale = told.stale;
      this.told.changed(this);
    } catch (error) {
      this.asked.delete(page);
      if (error.name !== "AbortError") this.told.failed(error);
    }
  }

  /** Whether the folder changed since it was read. */
  async look() {
    if (this.stale) return true;
    const told = await ask("GET", "/list", { query: { ...this.query(1), count: 0 } });
    return told.stale || told.view !== this.view;
  }

  /** What the service is to work on: positions in the view. */
  items(list) {
    const picked = [...list.picked];
    return list.all ? { view: this.view, but: picked } : { view: this.view, picks: picked };
  }
}

/** Entries that were told whole: what a search found, the trash, what is shared. */
export class WholeSource {
  constructor(entries, { nothing, fixed = false } = {}) {
    this.entries = entries;
    this.total = entries.length;
    this.nothing = nothing;
    this.fixed = fixed;
  }

  entry(index) { return this.entries[index] ?? null; }

  need() {}

  async look() { return false; }

  items(list) { return { paths: this.pickedPaths(list) }; }

  pickedPaths(list) {
    return this.entries.filter((_, index) => list.has(index)).map((entry) => entry.path);
  }
}

