// The hub's pages: stages of a start, tokens.

import { announce, rememberSignedIn, showTimes } from "./shared.js";

const hub = document.querySelector("meta[name=astrocloud-hub]")?.dataset ?? {};

/** Ask the hub's REST API as the person who is signed in. */
async function api(method, path, body) {
  const address = `${hub.baseUrl}api/${path}?_xsrf=${encodeURIComponent(hub.xsrf)}`;
  const answer = await fetch(address, {
    method,
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "same-origin",
  });
  const text = await answer.text();
  let document = {};
  try { document = text ? JSON.parse(text) : {}; } catch { /* the hub's empty answers are no JSON */ }
  // The platform's own answers have a detail in the reader's language; JupyterHub's have a message in English.
  if (!answer.ok) throw Object.assign(new Error(document.detail ?? ""), { status: answer.status });
  return document;
}

// ---- A start -------------------------------------------------------------------------------------------------------

function watchStart(section) {
  const told = section.dataset;
  const bar = section.querySelector("progress");
  const steps = section.querySelector("[data-steps]");
  const elapsed = section.querySelector("[data-elapsed]");
  const began = Date.now();
  const clock = setInterval(() => { elapsed.textContent = `${Math.round((Date.now() - began) / 1000)} s`; }, 1000);
  const next = new URLSearchParams(location.search).get("next");
  if (next) section.querySelector("[data-try-again]").search = new URLSearchParams({ next });

  /** Add a stage, or change the last one's words when it is the same stage. */
  function step(event) {
    const last = steps.lastElementChild;
    const same = last && (event.stage ? last.dataset.stage === event.stage : last.dataset.text === event.message);
    const item = same ? last : document.createElement("li");
    item.dataset.stage = event.stage ?? "";
    item.dataset.text = event.message;
    const text = document.createElement("span");
    text.textContent = event.message;
    item.replaceChildren(text);
    if (!same) {
      steps.append(item);
      announce(event.message);
    }
  }

  function fail(event) {
    clearInterval(clock);
    document.title = told.failedTitle;
    const heading = section.querySelector("h1");
    heading.textContent = told.failedTitle;
    section.querySelector("[data-lead]").hidden = true;
    bar.classList.add("ac-progress-failed");
    delete steps.dataset.running;
    steps.dataset.failed = "";
    // JupyterHub puts its own English words before the reason.
    const reason = (event.message ?? "").replace(/^Spawn failed:?\s*/, "");
    const text = document.createElement("p");
    text.textContent = reason === "Spawn cancelled" ? told.cancelled : reason || told.failedUnknown;
    const box = document.createElement("div");
    box.className = "ac-alert ac-alert-critical ac-spaced";
    const inner = document.createElement("div");
    inner.append(text);
    if (event.code) {
      const code = document.createElement("p");
      code.className = "ac-fine";
      code.append(Object.assign(document.createElement("code"), { textContent: event.code }));
      inner.append(code);
    }
    box.append(inner);
    section.querySelector("[data-failure]").replaceChildren(box);
    section.querySelector("[data-while-running]").hidden = true;
    section.querySelector("[data-after-failure]").hidden = false;
    heading.focus();
  }

  const source = new EventSource(told.progressUrl);
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.progress !== undefined) bar.value = event.progress;
    if (event.ready) {
      source.close();
      location.reload();  // the hub sends on from here, to the page that was asked for
    } else if (event.failed) {
      source.close();
      fail(event);
    } else if (event.message === "Server requested") step({ stage: "requested", message: told.requested });
    else if (event.message) step(event);
  };
  source.onerror = () => {
    announce(told.lost);
    // Closed: the hub refused (it was started anew, or the start is over); what this page is now, the hub knows.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 1000);
  };

  section.querySelector("[data-call-off]").addEventListener("click", async (event) => {
    event.currentTarget.setAttribute("aria-busy", "true");
    event.currentTarget.disabled = true;
    source.close();
    try {
      await api("DELETE", told.address);
    } finally {
      location.assign("/");
    }
  });
}

// ---- Tokens --------------------------------------------------------------------------------------------------------

function manageTokens(told) {
  const form = document.getElementById("request-token-form");
  const area = document.querySelector("#token-area > div");
  const sayFailed = (error) => {
    const known = { 400: told.failedScopes, 403: told.failedSignedOut, 404: told.failedGone }[error.status];
    const other = error.status ? told.failedOther.replace("{status}", error.status) : told.failedNetwork;
    window.alert(told.failed.replace("{reason}", error.status && error.message ? error.message : known ?? other));
  };

  /** Show the lists as they are now, without touching the form or the new token. */
  async function showLists() {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    const fetched = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("token-lists");
    if (!answer.ok || !fetched) return;
    const place = document.getElementById("token-lists");
    place.replaceChildren(...document.adoptNode(fetched).childNodes);
    showTimes(place);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    const fields = new FormData(form);
    const scopes = [...fields.getAll("scope"), ...String(fields.get("scopes")).split(/[\s,]+/)].filter(Boolean);
    const body = { note: fields.get("note") || told.note, expires_in: Number(fields.get("expires")) || null };
    if (scopes.length) body.scopes = scopes;
    try {
      const made = await api("POST", `users/${encodeURIComponent(hub.user)}/tokens`, body);
      const result = document.getElementById("token-result");
      result.textContent = made.token;
      area.hidden = false;
      form.reset();
      const copy = area.querySelector("[data-copy]");
      copy.textContent = copy.dataset.label;
      result.focus();
      await showLists();
      area.scrollIntoView({ block: "nearest" });
    } catch (error) {
      sayFailed(error);
    }
    setTimeout(() => { button.disabled = false; button.removeAttribute("aria-busy"); });
  });

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const code = document.getElementById(copy.dataset.copy);
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        window.getSelection().selectAllChildren(code);  // no clipboard for us: one keystroke copies it
        return;
      }
      copy.textContent = copy.dataset.copied;
      announce(copy.dataset.copied);
      return;
    }
    const revoke = event.target.closest("[data-revoke]");
    if (!revoke || !window.confirm(told.revokeQuestion)) return;
    const row = revoke.closest("[data-token-id]");
    revoke.disabled = true;
    try {
      await api("DELETE", `users/${encodeURIComponent(hub.user)}/tokens/${encodeURIComponent(row.dataset.tokenId)}`);
      await showLists();
      document.getElementById("your-tokens").focus();
    } catch (error) {
      revoke.disabled = false;
      sayFailed(error);
    }
  });
}

// ---- Which page is this? -------------------------------------------------------------------------------------------

const start = document.querySelector("[data-start]");
if (start) watchStart(start);

const tokens = document.querySelector("[data-tokens]");
if (tokens) manageTokens(tokens.dataset);

const go = document.querySelector("[data-go]");
if (go) setTimeout(() => location.assign(go.dataset.go), Number(go.dataset.after) * 1000);

// A reload of an error page must not count as one more redirect.
const address = new URL(location.href);
if (address.searchParams.has("redirects")) {
  address.searchParams.delete("redirects");
  history.replaceState({}, "", address);
}

for (const element of document.querySelectorAll("[data-forget]")) {
  element.addEventListener("click", () => rememberSignedIn(false));
}
if (document.querySelector("[data-signed-out]")) rememberSignedIn(false);
