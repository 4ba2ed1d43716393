// What several scripts use. It does nothing by itself: each page loads page.js by an address with its version, others
// import without one, and a script that comes by two addresses runs twice.

const language = document.documentElement.lang || "en";

/** Keep, for early.js, whether somebody is signed in, so that the front page begins with the right face. */
export function rememberSignedIn(signedIn) {
  try {
    if (signedIn) localStorage.setItem("astrocloud-signed-in", "1");
    else localStorage.removeItem("astrocloud-signed-in");
  } catch {
    // Storage may be closed to us; then the public face shows for a moment at each visit.
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
