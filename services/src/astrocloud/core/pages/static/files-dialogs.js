// Questions and forms of My files, each in a dialog that keeps the focus and gives it back.

import { announce } from "./shared.js";
import { ask, button, count, el, fileAddress, icon, iconButton, moment, pageAddress, plain, reason, settings, t } from "./files-kit.js";

/** Show a dialog; `build(close)` returns what is in it. The promise is what `close` is called with. */
export function dialog(title, build, { describedBy } = {}) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    let outcome;
    const close = (value) => { outcome = value; box.close(); };
    const heading = el("h2", { id: "fi-dialog-title" }, title);
    const box = el("dialog", { class: "fi-dialog", "aria-labelledby": "fi-dialog-title", "aria-describedby": describedBy });
    box.append(heading, iconButton("close", t("close"), () => close()), ...build(close, heading));
    box.addEventListener("close", () => {
      box.remove();
      if (before?.isConnected) before.focus({ preventScroll: true });
      resolve(outcome);
    });
    document.body.append(box);
    box.showModal();
    (box.querySelector("[autofocus]") ?? box.querySelector("input, select, button.ac-button"))?.focus();
  });
}

const actions = (...buttons) => el("div", { class: "ac-actions" }, ...buttons);
const problem = () => el("p", { class: "ac-error", role: "alert", hidden: true });

function tell(place, error) {
  place.textContent = reason(error);
  place.hidden = false;
}

/** Ask for a text; `go(text)` is tried with it until it succeeds. Returns what `go` returned, or nothing. */
export function askText(title, label, value, go, { select } = {}) {
  return dialog(title, (close) => {
    const input = el("input", { type: "text", id: "fi-text", required: true, maxlength: "255", autocomplete: "off", autofocus: true, spellcheck: "false" });
    input.value = value;
    const wrong = problem();
    const form = el("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        event.stopPropagation();
        wrong.hidden = true;
        try { close(await go(input.value)); } catch (error) { tell(wrong, error); input.focus(); }
      },
    }, el("div", { class: "ac-field" }, el("label", { for: "fi-text" }, label), input, wrong),
    actions(button(t("cancel"), () => close()), el("button", { class: "ac-button ac-button-primary", type: "submit" }, t("save"))));
    // Of a file's name the part before its extension is what is mostly changed.
    setTimeout(() => input.setSelectionRange(0, select ?? value.length));
    return [form];
  });
}

/** Ask before what cannot be undone. */
export function sure(title, text, label) {
  return dialog(title, (close) => [
    el("p", {}, text),
    actions(button(t("cancel"), () => close(false), { autofocus: true }), button(label, () => close(true), { kind: "danger" })),
  ]);
}

/**
 * Ask what to do where names are taken: `keep`, `replace`, `skip`, or nothing to stop; and where so many have the `same`
 * size, `same` to leave just these out and keep both of the others.
 */
export function askConflict(folder, names, { trash = true, same = 0, total = names.length } = {}) {
  const shown = names.slice(0, 5).join(", ") + (total > 5 ? " …" : "");
  return dialog(t("conflict-title"), (close) => {
    const choice = (value, text, checked) => el("label", { class: "ac-radio" },
      el("input", { type: "radio", name: "conflict", value, checked }), el("span", {}, text));
    const form = el("form", {
      onsubmit: (event) => { event.preventDefault(); event.stopPropagation(); close(new FormData(form).get("conflict")); },
    },
    el("p", {}, t("conflict-text", { folder, count: count(total), names: shown })),
    el("fieldset", { class: "ac-stack" },
      same ? choice("same", same === total ? t("conflict-same-all") : t("conflict-same", { count: count(same) }), true) : "",
      choice("keep", t("conflict-keep"), !same),
      choice("replace", t(trash && settings.trashDays ? "conflict-replace" : "conflict-overwrite"), false),
      choice("skip", t("conflict-skip"), false)),
    actions(button(t("cancel"), () => close()), el("button", { class: "ac-button ac-button-primary", type: "submit" }, t("conflict-go"))));
    return [form];
  });
}

/** Ask for a folder, beginning at `start`; returns its path, or nothing. */
export function askFolder(title, label, start, places) {
  return dialog(title, (close) => {
    let here = start;
    const where = el("p", { class: "ac-soft", "aria-live": "polite" });
    const tree = el("div", { class: "fi-tree" });
    const wrong = problem();
    const go = button(label, () => close(here), { kind: "primary" });
    const row = (text, symbol, onclick) => el("button", { type: "button", onclick }, icon(symbol), el("span", {}, text));
    async function show(path) {
      try {
        const told = await ask("GET", "/list", { query: { path, count: 1000 } });
        here = path;
        where.textContent = plain(path);
        go.disabled = !told.folder.writable;
        const depth = path.split("/").length;
        tree.replaceChildren(
          depth > 3 ? row(t("up"), "folder", () => show(path.slice(0, path.lastIndexOf("/")))) : "",
          ...(depth <= 3 ? places.filter((place) => place.path !== path).map((place) => row(plain(place.path), place.kind === "home" ? "home" : "project", () => show(place.path))) : []),
          ...told.entries.filter((entry) => entry?.kind === "folder").map((entry) => row(entry.name, "folder", () => show(entry.path))));
        tree.scrollTop = 0;
        wrong.hidden = true;
      } catch (error) { tell(wrong, error); }
    }
    const make = button(t("new-folder"), async () => {
      const made = await askText(t("new-folder"), t("new-folder-name"), "", (name) => ask("POST", "/folder", { body: { path: here, name } }));
      if (made) show(made.path);
    }, { kind: "quiet", symbol: "newfolder" });
    show(start);
    return [where, tree, wrong, actions(make, button(t("cancel"), () => close()), go)];
  });
}

/** Copy `text`; say so in `place` where there is one. */
export async function copyText(text, place) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "ac-hidden" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");  // where the page is not served securely there is no other clipboard
    area.remove();
  }
  announce(t("copied"));
  if (place) {
    const label = place.querySelector("span") ?? place;
    const was = label.textContent;
    label.textContent = t("copied");
    setTimeout(() => { label.textContent = was; }, 1500);
  }
}

// ---- Sharing ---------------------------------------------------------------------------------------------------------

/** Show with whom `path` is shared, and change it. `watch(job)` follows what takes long. */
export function shareDialog(path, { watch }) {
  return dialog(t("share-title", { name: plain(path).split("/").pop() }), (close, heading) => {
    const place = el("div", {}, el("p", { class: "ac-soft" }, t("preview-loading")));
    const wrong = problem();
    let told = null;
    let changed = false;

    async function load() {
      try {
        told = await ask("GET", "/share", { query: { path } });
        heading.textContent = t("share-title", { name: told.name });
        draw();
      } catch (error) { place.replaceChildren(); tell(wrong, error); }
    }

    async function put(change) {
      wrong.hidden = true;
      try {
        const done = await ask("POST", "/share", { body: { path, ...change } });
        changed = true;
        if (done.id) await watch(done);
        announce(t("done-share"));
        await load();
        return true;
      } catch (error) {
        tell(wrong, error);
        draw();
        return false;
      }
    }

    function holder(name, access, kind) {
      const change = (value) => {
        const held = { ...told[kind] };
        if (value) held[name] = value; else delete held[name];
        return put({ [kind]: held });
      };
      const choice = el("select", { "aria-label": name, onchange: () => change(choice.value) },
        el("option", { value: "read" }, t("access-read")), el("option", { value: "write" }, t("access-write")));
      choice.value = access;
      return el("li", {}, el("span", { class: "fi-who" }, name, kind === "groups" ? el("span", { class: "ac-soft" }, ` (${t("share-group")})`) : ""),
        choice, iconButton("close", t("share-remove", { name }), () => change(null)));
    }

    function linkRow(link) {
      const copy = button(t("link-copy"), () => copyText(link.url, copy));
      return el("li", {}, el("input", { class: "fi-who fi-address", readonly: true, value: link.url, "aria-label": t("share-public-address"), onfocus: (event) => event.target.select() }),
        el("span", { class: "ac-fine" }, t("link-ends", { until: moment(link.until) })), copy,
        button(t("link-revoke"), async () => {
          try { await ask("DELETE", `/links/${link.id}`); announce(t("link-revoked")); await load(); } catch (error) { tell(wrong, error); }
        }, { kind: "danger" }));
    }

    function draw() {
      if (!told.mine) {
        place.replaceChildren(el("p", {}, t("share-owner", { owner: told.owner || "—" })));
        return;
      }
      const held = [...Object.entries(told.people).map(([name, access]) => holder(name, access, "people")),
        ...Object.entries(told.groups).map(([name, access]) => holder(name, access, "groups"))];
      const who = el("input", { type: "text", placeholder: t("share-add"), "aria-label": t("share-add"), list: "fi-groups", autocomplete: "off", spellcheck: "false", autofocus: true });
      const access = el("select", { "aria-label": t("actions") }, el("option", { value: "read" }, t("access-read")), el("option", { value: "write" }, t("access-write")));
      const add = (kind) => who.value.trim() && put({ [kind]: { ...told[kind], [who.value.trim()]: access.value } });
      const form = el("form", { class: "fi-inline", onsubmit: (event) => { event.preventDefault(); event.stopPropagation(); add(told.your_groups.includes(who.value.trim()) ? "groups" : "people"); } },
        who, el("datalist", { id: "fi-groups" }, ...told.your_groups.map((name) => el("option", { value: name }))), access,
        el("button", { type: "submit", class: "ac-button ac-button-primary" }, t("share-add-person")), button(t("share-add-group"), () => add("groups")));
      const open = el("input", { type: "checkbox", id: "fi-public", onchange: () => put({ public: open.checked }) });
      open.checked = told.public;
      const address = settings.origin + (told.kind === "folder" ? pageAddress(path) : fileAddress(path));
      const life = el("select", { "aria-label": t("link-for") },
        ...[[1, t("link-hour")], [24, t("link-day")], [168, t("link-days", { count: 7 })], [720, t("link-days", { count: 30 })], [2160, t("link-days", { count: 90 })]]
          .filter(([hours]) => hours <= told.longest_days * 24).map(([hours, text]) => el("option", { value: hours }, text)));
      life.value = "168";
      if (!life.value) life.selectedIndex = 0;
      const copy = button(t("link-copy"), () => copyText(address, copy));
      place.replaceChildren(
        el("h3", {}, t("share-people")),
        held.length ? el("ul", { class: "fi-people" }, ...held) : el("p", { class: "ac-soft" }, t("share-nobody")),
        form,
        told.kind === "folder" ? el("p", { class: "ac-hint" }, t("share-folder-note")) : "",
        el("h3", {}, t("link-title")),
        el("p", { class: "ac-hint" }, t("link-note")),
        told.links.length ? el("ul", { class: "fi-people" }, ...told.links.map(linkRow)) : "",
        el("div", { class: "fi-inline" }, el("span", {}, t("link-for")), life, button(t("link-make"), async () => {
          try { await ask("POST", "/links", { body: { path, hours: Number(life.value) } }); await load(); } catch (error) { tell(wrong, error); }
        })),
        el("div", { class: "ac-check ac-spaced" }, open, el("label", { for: "fi-public" }, t("share-public"))),
        told.public ? el("div", { class: "fi-inline" }, el("input", { class: "fi-address", readonly: true, value: address, "aria-label": t("share-public-address"), onfocus: (event) => event.target.select() }), copy) : "");
    }

    load();
    return [place, wrong, actions(button(t("close"), () => close(changed)))];
  });
}

