// A list of any length: what is in sight is in the page, the rest is a number. Entries come from a source, in pages.
//
// A source has `total`, `entry(index)` (an entry, `null` for one that went, `undefined` for one not fetched yet) and
// `need(first, last)`, which fetches and calls `list.render()` when there is more to show.

import { announce } from "./shared.js";
import { count, el, icon, iconButton, moment, pageAddress, size, sortOf, t } from "./files-kit.js";

const ROW = (width) => (width < 34 * 16 ? 56 : 42);  // as the style has it: narrow rows have two lines
const TALLEST = 8_000_000;  // browsers give up on elements much taller than this
const SPARE = 8;

export class FileList {
  /** `actions`: open(entry), menu(entry, x, y), changed(), sort(by), drop(event, entry), drag(event). */
  constructor(place, actions) {
    this.actions = actions;
    this.source = { total: 0, entry: () => null, need: () => {} };
    this.picked = new Set();
    this.all = false;
    this.cursor = 0;
    this.anchor = 0;
    this.row = 42;
    this.sorted = true;
    this.dates = "column-date";
    this.sorting = { by: "name", descending: false };
    this.head = el("div", { class: "fi-row fi-head", role: "row" });
    this.spacer = el("div", { class: "fi-spacer" });
    this.window = el("div", { class: "fi-window", role: "rowgroup" });
    this.spacer.append(this.window);
    this.empty = el("div", { class: "fi-empty" });
    this.scroller = el("div", { class: "fi-scroller" }, this.spacer, this.empty);
    this.grid = el("div", {
      class: "fi-grid", role: "grid", tabindex: "0", "aria-multiselectable": "true", "aria-label": t("listing"), id: "fi-grid", "aria-busy": "true",
      onkeydown: (event) => this.key(event),
    }, el("div", { role: "rowgroup" }, this.head), this.scroller);
    place.replaceChildren(this.grid);
    this.scroller.addEventListener("scroll", () => this.soon(), { passive: true });
    this.window.addEventListener("click", (event) => this.click(event));
    this.window.addEventListener("dblclick", (event) => this.doubleClick(event));
    this.window.addEventListener("contextmenu", (event) => this.contextMenu(event));
    this.window.addEventListener("dragstart", (event) => this.actions.drag(event, this.entryAt(event.target)));
    new ResizeObserver(() => {
      const row = ROW(this.scroller.clientWidth);
      if (row !== this.row) this.window.replaceChildren();
      this.row = row;
      this.render();
    }).observe(this.scroller);
    this.drawHead();
  }

  /** Show `source` from its beginning; `keep` leaves place and cursor as they are. */
  show(source, { keep = false, cursor } = {}) {
    this.source = source;
    this.picked.clear();
    this.all = false;
    if (!keep) { this.cursor = 0; this.anchor = 0; this.scroller.scrollTop = 0; }
    this.cursor = Math.min(cursor ?? this.cursor, Math.max(0, source.total - 1));
    this.grid.setAttribute("aria-rowcount", source.total + 1);
    this.empty.hidden = source.total > 0;
    this.empty.replaceChildren(...(source.total ? [] : source.nothing?.() ?? []));
    this.window.replaceChildren();
    this.render();
    if (cursor !== undefined) this.reveal(cursor);
    this.actions.changed();
  }

  // ---- Where things are ----------------------------------------------------------------------------------------------

  get height() { return this.source.total * this.row; }

  get scale() {
    const shown = this.scroller.clientHeight || 1;
    return this.height <= TALLEST ? 1 : (this.height - shown) / (TALLEST - shown);
  }

  get top() { return this.scroller.scrollTop * this.scale; }

  /** Scroll until the row `index` is in sight. */
  reveal(index) {
    const shown = this.scroller.clientHeight;
    const from = index * this.row;
    let top = this.top;
    if (from < top) top = from;
    else if (from + this.row > top + shown) top = from + this.row - shown;
    else return;
    this.scroller.scrollTop = top / this.scale;
    this.render();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.render(); });
  }

  render() {
    const total = this.source.total;
    const shown = this.scroller.clientHeight;
    this.spacer.style.height = `${Math.min(this.height, TALLEST)}px`;
    const top = this.top;
    const first = Math.max(0, Math.floor(top / this.row) - SPARE);
    const last = Math.min(total, Math.ceil((top + shown) / this.row) + SPARE);
    this.window.style.transform = `translateY(${this.scroller.scrollTop + first * this.row - top}px)`;
    const rows = new Map([...this.window.children].map((row) => [Number(row.dataset.index), row]));
    const wanted = [];
    for (let index = first; index < last; index += 1) {
      const entry = this.source.entry(index);
      const state = entry === undefined ? "waiting" : entry === null ? "gone" : "there";
      let row = rows.get(index);
      if (!row || row.dataset.state !== state || row.entry !== entry) row = this.drawRow(index, entry, state);
      this.mark(row, index);
      wanted.push(row);
    }
    const focused = this.window.contains(document.activeElement);
    // A row that stays is not touched: a button that is pressed on it would be let go on nothing.
    const kept = new Set(wanted);
    for (const row of [...this.window.children]) if (!kept.has(row)) row.remove();
    let at = this.window.firstElementChild;
    for (const row of wanted) {
      if (row === at) at = at.nextElementSibling;
      else this.window.insertBefore(row, at);
    }
    if (focused && !this.window.contains(document.activeElement)) this.grid.focus({ preventScroll: true });
    this.grid.setAttribute("aria-activedescendant", total ? `fi-row-${this.cursor}` : "");
    this.source.need(first, last);
  }

  // ---- Drawing -------------------------------------------------------------------------------------------------------

  drawHead() {
    const cells = [["name", "column-name"], ["size", "column-size"], ["date", this.dates]].map(([by, key]) => {
      const now = this.sorted && this.sorting.by === by;
      return el("div", {
        class: `fi-cell fi-${by}`, role: "columnheader",
        "aria-sort": now ? (this.sorting.descending ? "descending" : "ascending") : "none",
      }, !this.sorted ? el("span", {}, t(key)) : el("button", { type: "button", class: "fi-sort", onclick: () => this.actions.sort(by) },
        t(key), now ? el("span", { "aria-hidden": "true" }, this.sorting.descending ? " ↓" : " ↑") : null));
    });
    const all = el("input", { type: "checkbox", "aria-label": t("select-all"), onchange: (event) => this.pickAll(event.target.checked) });
    this.allBox = all;
    this.head.replaceChildren(el("div", { class: "fi-cell fi-check", role: "columnheader" }, all), ...cells,
      el("div", { class: "fi-cell fi-more", role: "columnheader" }, el("span", { class: "ac-hidden" }, t("actions"))));
  }

  drawRow(index, entry, state) {
    const row = el("div", { class: `fi-row fi-${state}`, role: "row", id: `fi-row-${index}`, "aria-rowindex": index + 2 });
    row.dataset.index = index;
    row.dataset.state = state;
    row.entry = entry;
    row.style.height = `${this.row}px`;
    if (state !== "there") {
      row.append(el("div", { class: "fi-cell fi-check", role: "gridcell" }),
        el("div", { class: "fi-cell fi-name", role: "gridcell" }, el("span", { class: "ac-soft" }, state === "gone" ? t("gone") : "…")));
      return row;
    }
    const kind = sortOf(entry);
    row.draggable = !this.source.fixed;
    const about = [size(entry.size), moment(entry.when ?? entry.modified)].filter(Boolean).join(" · ");
    const name = kind === "folder"
      ? el("a", { class: "fi-label", href: pageAddress(entry.leads?.path ?? entry.path), tabindex: "-1", draggable: "false" }, entry.name)
      : el("span", { class: "fi-label" }, entry.name);
    row.append(
      el("div", { class: "fi-cell fi-check", role: "gridcell" },
        el("input", { type: "checkbox", tabindex: "-1", "aria-label": t("select-one", { name: entry.name }) })),
      el("div", { class: "fi-cell fi-name", role: "gridcell" },
        el("span", { class: `fi-kind fi-kind-${kind}` }, icon(kind), entry.kind === "link" ? el("span", { class: "ac-hidden" }, t("kind-link")) : null),
        el("span", { class: "fi-texts" }, name,
          entry.note ? el("span", { class: "fi-where" }, entry.note) : null,
          el("span", { class: "fi-small" }, about)),
        entry.locked ? badge("lock", t("is-locked")) : null,
        entry.shared ? badge("shared", t("is-shared")) : null,
        entry.public ? badge("globe", t("is-public")) : null),
      el("div", { class: "fi-cell fi-size", role: "gridcell" }, size(entry.size)),
      el("div", { class: "fi-cell fi-date", role: "gridcell" }, moment(entry.when ?? entry.modified)),
      el("div", { class: "fi-cell fi-more", role: "gridcell" },
        iconButton("more", t("actions-of", { name: entry.name }), (event) => {
          const box = event.currentTarget.getBoundingClientRect();
          this.moveTo(index, { pick: !this.has(index) });
          this.actions.menu(entry, box.right, box.bottom);
        }, { tabindex: "-1" })),
    );
    return row;
  }

  mark(row, index) {
    const on = this.has(index);
    row.setAttribute("aria-selected", on);
    row.classList.toggle("fi-cursor", index === this.cursor);
    const box = row.querySelector("input");
    if (box) box.checked = on;
  }

  // ---- What is picked ------------------------------------------------------------------------------------------------

  has(index) { return this.all !== this.picked.has(index); }

  get pickedCount() { return this.all ? this.source.total - this.picked.size : this.picked.size; }

  /** The picked entries as far as they are here: all of them when there are few. */
  get pickedEntries() {
    const found = [];
    const indices = this.all ? Array.from({ length: Math.min(this.source.total, 5000) }, (_, index) => index) : [...this.picked];
    for (const index of indices.sort((a, b) => a - b)) {
      const entry = this.has(index) ? this.source.entry(index) : null;
      if (entry) found.push(entry);
    }
    return found;
  }

  clear() { this.all = false; this.picked.clear(); this.told(); }

  pickAll(on) {
    this.all = on;
    this.picked.clear();
    this.told();
    announce(t("selected", { count: count(this.pickedCount) }));
  }

  toggle(index) {
    if (this.picked.has(index)) this.picked.delete(index);
    else this.picked.add(index);
  }

  range(from, to) {
    this.all = false;
    this.picked.clear();
    for (let index = Math.min(from, to); index <= Math.max(from, to); index += 1) this.picked.add(index);
  }

  told() {
    for (const row of this.window.children) this.mark(row, Number(row.dataset.index));
    this.allBox.checked = this.source.total > 0 && this.pickedCount === this.source.total;
    this.allBox.indeterminate = this.pickedCount > 0 && !this.allBox.checked;
    this.actions.changed();
  }

  /** Put the cursor on `index`. */
  moveTo(index, { pick = true, extend = false, add = false } = {}) {
    if (!this.source.total) return;
    index = Math.max(0, Math.min(this.source.total - 1, index));
    this.cursor = index;
    if (extend) this.range(this.anchor, index);
    else {
      this.anchor = index;
      if (add) this.toggle(index);
      else if (pick) this.range(index, index);
    }
    this.reveal(index);
    this.told();
    this.grid.setAttribute("aria-activedescendant", `fi-row-${index}`);
  }

  // ---- Mouse and keys ------------------------------------------------------------------------------------------------

  indexAt(target) {
    const row = target.closest?.(".fi-row[data-index]");
    return row ? Number(row.dataset.index) : -1;
  }

  entryAt(target) {
    const index = this.indexAt(target);
    return index < 0 ? null : this.source.entry(index);
  }

  click(event) {
    const index = this.indexAt(event.target);
    const entry = this.source.entry(index);
    if (index < 0 || !entry || event.target.closest(".fi-icon-button")) return;
    // The first click of a double click may open a preview, which moves the rows: the second is for the same entry.
    if (event.detail > 1 && !event.target.closest(".fi-check")) { event.preventDefault(); return; }
    this.pressed = null;
    this.grid.focus({ preventScroll: true });
    if (event.target.closest(".fi-check")) {
      if (event.target.tagName !== "INPUT") event.preventDefault();
      this.moveTo(index, { add: !event.shiftKey, extend: event.shiftKey });
      return;
    }
    if (event.target.closest("a") && (event.ctrlKey || event.metaKey || event.shiftKey || event.button)) return;
    event.preventDefault();
    const opens = event.target.closest(".fi-label") && !(event.ctrlKey || event.metaKey || event.shiftKey);
    this.moveTo(index, { extend: event.shiftKey, add: event.ctrlKey || event.metaKey });
    if (opens) this.actions.open(entry);
    else this.pressed = entry;
  }

  doubleClick(event) {
    if (this.pressed && !event.target.closest(".fi-check, .fi-icon-button")) this.actions.open(this.pressed);
  }

  contextMenu(event) {
    const index = this.indexAt(event.target);
    const entry = this.source.entry(index);
    if (!entry) return;
    event.preventDefault();
    this.moveTo(index, { pick: !this.has(index) });
    this.actions.menu(entry, event.clientX, event.clientY);
  }

  key(event) {
    if (event.target !== this.grid) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.row) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const extend = event.shiftKey;
    if (event.key in moves && !event.altKey) {
      event.preventDefault();
      const by = moves[event.key];
      const to = by === Infinity ? this.source.total - 1 : by === -Infinity ? 0 : this.cursor + by;
      this.moveTo(to, { extend, pick: !event.ctrlKey });
      return;
    }
    const entry = this.source.entry(this.cursor);
    if (event.key === " ") { event.preventDefault(); this.moveTo(this.cursor, { add: true }); }
    else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") { event.preventDefault(); this.pickAll(true); }
    else if (event.key === "Escape") this.clear();
    else if (event.key === "Enter" && entry) { event.preventDefault(); this.actions.open(entry); }
    else if (event.key === "ContextMenu" || (event.shiftKey && event.key === "F10")) {
      event.preventDefault();
      const box = document.getElementById(`fi-row-${this.cursor}`)?.getBoundingClientRect();
      if (entry && box) this.actions.menu(entry, box.left + 40, box.bottom);
    } else this.actions.key?.(event, entry);
  }
}

function badge(name, label) {
  return el("span", { class: "fi-mark", title: label }, icon(name), el("span", { class: "ac-hidden" }, label));
}
