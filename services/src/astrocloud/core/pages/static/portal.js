// The front page: fetches what is the reader's own from below /services/portal/, where the session cookie is, and looks
// at the servers again while they change. Without scripts, /services/portal/home shows the same as one page.

import { announce, rememberSignedIn, showTimes } from "./shared.js";

const root = document.documentElement;
const home = document.getElementById("home");

function remember(signedIn) {
  rememberSignedIn(signedIn);
  if (signedIn) root.dataset.session = "likely";
  else delete root.dataset.session;
}

/** Put each part of a fetched fragment where it belongs. */
function place(html) {
  const fetched = new DOMParser().parseFromString(html, "text/html");
  for (const part of fetched.querySelectorAll("template[data-for]")) {
    const target = document.getElementById(part.dataset.for);
    if (target) target.replaceChildren(document.importNode(part.content, true));
  }
  showTimes();
}

async function fetchHome() {
  const answer = await fetch(home.dataset.source, { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
  if (answer.status === 204) {
    remember(false);  // nobody is signed in
    signInSilently(answer.headers.get("X-Sign-In"));
    return;
  }
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  place(await answer.text());
  remember(true);
  for (const element of document.querySelectorAll("[data-public]")) element.hidden = true;
}

/** Go through the hub once in a browser session when it knows this browser: then nobody has to click "Sign in". */
function signInSilently(address) {
  if (!address || sessionStorage.getItem("astrocloud-tried")) return;
  sessionStorage.setItem("astrocloud-tried", "1");
  remember(true);  // no public face on the way
  location.replace(address);
}

/** Fetch what is the reader's own, again and again while the hub is away. */
async function showHome() {
  try {
    await fetchHome();
  } catch {
    sayFailed();
    setTimeout(showHome, 4000);
    return;
  }
  home.querySelector(":scope > [role=alert]")?.remove();
  schedule();
}

function sayFailed() {
  if (home.querySelector(":scope > [role=alert]")) return;
  delete root.dataset.session;
  const message = document.createElement("p");
  message.className = "ac-alert ac-alert-warning";
  message.setAttribute("role", "alert");
  message.textContent = home.dataset.failed;
  home.replaceChildren(message);
}

// ---- Servers -------------------------------------------------------------------------------------------------------

function states() {
  const found = new Map();
  for (const element of document.querySelectorAll("#servers [data-server]")) {
    found.set(element.dataset.server, element.dataset.announce);
  }
  return found;
}

/** Show the fetched servers, keep the focus where it was, and say what changed. */
function showServers(html) {
  const place = document.getElementById("servers");
  if (!place || place.dataset.shown === html) return;
  const before = states();
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  place.innerHTML = html;
  place.dataset.shown = html;
  showTimes(place);
  if (focused) {
    const again = [...place.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === focused);
    (again ?? place.querySelector("h2"))?.focus?.();
  }
  followServers();
  const changed = [...states()].filter(([name, text]) => before.get(name) !== text).map(([, text]) => text);
  if (changed.length) announce(changed.join(". "));
}

/** Let the panels that start something say what would happen now. */
function followServers() {
  const told = document.querySelector("[data-servers]").dataset;
  const active = new Set(told.active.split(" "));
  for (const label of document.querySelectorAll("[data-start-label]")) {
    label.textContent = active.has(label.dataset.startLabel) ? label.dataset.another : label.dataset.first;
  }
  const full = "full" in told;
  for (const element of document.querySelectorAll("[data-room]")) element.hidden = full;
  for (const element of document.querySelectorAll("[data-no-room]")) element.hidden = !full;
}

async function lookAgain() {
  const place = document.getElementById("servers");
  if (!place || document.hidden) return;
  try {
    const answer = await fetch(place.dataset.source, { headers: { "X-Fragment": "1" }, credentials: "same-origin" });
    if (answer.status === 401) location.reload();
    else if (answer.ok) showServers(await answer.text());
  } catch {
    // Out of reach for a moment; the next look will tell.
  }
}

function schedule() {
  const busy = document.querySelector("#servers [data-busy]");
  setTimeout(async () => {
    await lookAgain();
    schedule();
  }, busy ? 1500 : 20000);
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (event.defaultPrevented || !("inline" in form.dataset) || !document.getElementById("servers")) return;
  event.preventDefault();
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { "X-Fragment": "1" },
      credentials: "same-origin",
    });
    if (answer.ok) {
      showServers(await answer.text());
      return;
    }
    const problem = await answer.json();
    window.alert(problem.detail ?? problem.title);
    delete document.getElementById("servers").dataset.shown;  // the same again, with working buttons
    await lookAgain();
  } catch {
    form.submit();
  }
});

document.addEventListener("visibilitychange", lookAgain);

if (home) showHome();
else schedule();
