// What every page does besides being read: switches without a reload, times in the reader's own zone, asking before
// what cannot be undone. Everything here also works without it.

const root = document.documentElement;
const language = root.lang || "en";

/** Keep a preference for a year, for every page of the platform. */
function remember(name, value) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${value}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}

function applyTheme(choice) {
  root.dataset.theme = choice;
  for (const link of document.querySelectorAll("[data-theme-choice]")) {
    if (link.dataset.themeChoice === choice) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** Say `text` to a screen reader without moving the focus. */
export function announce(text) {
  const live = document.getElementById("ac-live");
  if (live) live.textContent = text;
}

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function relative(seconds) {
  const words = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS.at(-1);
  return words.format(Math.round(seconds / size), unit);
}

/** Show the times below `place` in the reader's zone; those marked `data-relative` as "3 minutes ago". */
export function showTimes(place = document) {
  const full = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  for (const element of place.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    if ("relative" in element.dataset) {
      element.textContent = relative((moment.getTime() - Date.now()) / 1000);
      element.title = full.format(moment);
    } else if (!("utc" in element.dataset)) {
      element.textContent = full.format(moment);
      element.title = `${moment.toISOString().slice(0, 16).replace("T", " ")} UTC`;
    }
  }
}

document.addEventListener("click", (event) => {
  const theme = event.target.closest("[data-theme-choice]");
  if (theme) {
    event.preventDefault();
    remember("astrocloud-theme", theme.dataset.themeChoice);
    applyTheme(theme.dataset.themeChoice);
    return;
  }
  const tongue = event.target.closest("[data-language]");
  if (tongue && tongue.dataset.language) {
    event.preventDefault();
    remember("astrocloud-lang", tongue.dataset.language);
    location.reload();
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = form.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    return;
  }
  // A second click would ask for the same again; the page that comes back has fresh buttons.
  for (const button of form.querySelectorAll("button[type=submit]")) {
    button.setAttribute("aria-busy", "true");
    setTimeout(() => { button.disabled = true; });
  }
  // `form.action` would be the button of that name where there is one.
  if (form.getAttribute("action")?.endsWith("/sign-out")) {
    try { localStorage.removeItem("astrocloud-signed-in"); } catch { /* nothing was remembered */ }
  }
});

// Coming back by the browser's history must not find the buttons still disabled.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const button of document.querySelectorAll("button[aria-busy]")) {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
});

applyTheme(root.dataset.theme || "auto");
showTimes();
// A form that came back: typing goes on where something is wrong.
document.querySelector("[aria-invalid=true]")?.focus();
setInterval(() => showTimes(), 30000);
