// What every page does besides being read: switches without a reload, times in the reader's own zone, asking before
// what cannot be undone. Everything here also works without it.

import { rememberSignedIn, showTimes } from "./shared.js";

const root = document.documentElement;

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
  // Who comes back signed in should not see the public front page first; it forgets when it was not so.
  if (event.target.closest("a[href^='/services/portal/sign-in/hub']")) rememberSignedIn(true);
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
  const action = form.getAttribute("action") ?? "";
  if (action.endsWith("/sign-out")) rememberSignedIn(false);
  else if (/^\/services\/passport\/(sign-in|link)$/.test(action)) rememberSignedIn(true);
});

// Coming back by the browser's history must not find the buttons still disabled.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const button of document.querySelectorAll("button[aria-busy]")) {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
});

// Who asked for it on the page before is not asked again; coming back by the browser's history asks.
const form = document.querySelector("form[data-send-now]");
if (form && performance.getEntriesByType("navigation")[0]?.type === "navigate") form.requestSubmit();

applyTheme(root.dataset.theme || "auto");
showTimes();
// A part that was away may be back; this address, not what was sent to it, is asked for again.
const away = document.querySelector("[data-look-again]");
if (away) setTimeout(() => location.replace(location.href), Number(away.dataset.lookAgain) * 1000);
// A form that came back: typing goes on where something is wrong.
document.querySelector("[aria-invalid=true]")?.focus();
setInterval(() => showTimes(), 30000);
