// The panel of uploads and other work: what is under way, how far it is, and a way to end it.

import { announce } from "./shared.js";
import { ask, count, el, iconButton, reason, size, t } from "./files-kit.js";

const panel = document.getElementById("fi-tasks");
const list = el("ul", {});
const title = el("h2", { id: "fi-tasks-title" }, t("tasks"));
const tools = el("span", {});
panel.append(el("header", {}, title, tools, iconButton("close", t("hide"), () => { hidden = true; draw(); })), list);

let hidden = false;
const rows = new Map();  // key -> row; the newest stands first
const ROWS = 60;         // more rows than this are counted, not shown

export function setTools(...buttons) { tools.replaceChildren(...buttons); }

/** Show, or change, the row `key`: `{name, text, part (0 to 1 or null), bad, buttons}`; the order is by `first`. */
export function row(key, told) {
  let item = rows.get(key);
  if (!item) {
    item = { element: el("li", {}), bar: el("progress", { class: "ac-progress", max: "1" }), name: el("span", { class: "fi-task-name" }), text: el("p", { class: "fi-task-text" }), buttons: el("span", {}) };
    item.element.append(el("div", { class: "fi-task-line" }, item.name, item.buttons), item.bar, item.text);
    rows.set(key, item);
    hidden = false;
    if (rows.size <= ROWS) list.append(item.element);
  }
  item.name.textContent = told.name;
  item.name.title = told.name;
  item.bar.hidden = told.part === undefined;
  item.bar.setAttribute("aria-label", told.name);
  if (told.part === null) item.bar.removeAttribute("value");
  else if (told.part !== undefined) item.bar.value = told.part;
  item.text.textContent = told.text ?? "";
  item.text.classList.toggle("fi-bad", Boolean(told.bad));
  const now = (told.buttons ?? []).map(([symbol, label]) => symbol + label).join("|");
  if (item.now !== now) {
    item.now = now;
    item.buttons.replaceChildren(...(told.buttons ?? []).map(([symbol, label, act]) => iconButton(symbol, `${label}: ${told.name}`, act)));
  }
  draw();
}

export function drop(key) {
  rows.get(key)?.element.remove();
  if (!rows.delete(key)) return;
  for (const item of rows.values()) {
    if (list.childElementCount >= ROWS) break;
    if (!item.element.isConnected) list.append(item.element);
  }
  draw();
}

export const has = (key) => rows.has(key);

function draw() {
  panel.hidden = hidden || rows.size === 0;
}

/** Follow the work `job` to its end and say what became of it; returns the last that was told. */
export async function follow(job, { say = true } = {}) {
  const key = `work-${job.id}`;
  const stop = () => ask("DELETE", `/work/${job.id}`).catch(() => {});
  let wait = 300;
  while (job.phase === "running") {
    const part = job.total_bytes ? job.done_bytes / job.total_bytes : job.total ? job.done / job.total : null;
    const text = job.total_bytes ? t("work-progress", { done: size(job.done_bytes), total: size(job.total_bytes) }) : t("work-progress", { done: count(job.done ?? 0), total: count(job.total ?? 0) });
    row(key, { name: `${t(`work-${job.do}`)} ${job.name ?? ""}`, text, part, buttons: [["close", t("cancel"), stop]] });
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    wait = Math.min(2000, wait * 1.3);
    try {
      job = await ask("GET", `/work/${job.id}`);
    } catch (error) {
      row(key, { name: t(`work-${job.do}`), text: reason(error), part: null, bad: true });
      if (error.status) throw error;  // nobody knows it any more; while nobody answers, it is asked again
    }
  }
  const problems = job.problems ?? [];
  const ends = () => [["close", t("hide"), () => drop(key)]];
  if (job.phase === "stopped") row(key, { name: t(`work-${job.do}`), text: t("work-stopped"), buttons: ends() });
  else if (job.phase === "failed") row(key, { name: t(`work-${job.do}`), text: t("work-failed", { reason: job.error }), bad: true, buttons: ends() });
  else if (problems.length) {
    const text = `${t("work-problems", { count: count(job.failed) })}: ${problems.slice(0, 3).map((each) => `${each.name}: ${each.detail}`).join(" · ")}`;
    row(key, { name: t(`work-${job.do}`), text, bad: true, buttons: ends() });
    announce(text);
  } else drop(key);
  const skipped = job.skipped ? ` · ${t("work-skipped", { count: count(job.skipped) })}` : "";
  if (say && job.phase === "done" && job.done) announce(t(`done-${job.do}`, { count: count(job.done - (job.skipped ?? 0)) }) + skipped);
  return job;
}

