// Runs before the first paint, so that nothing jumps: what this browser remembers of appearance and of being signed in.
(() => {
  const root = document.documentElement;
  root.classList.add("ac-js");
  const chosen = /(?:^|; )astrocloud-theme=(light|dark|auto)/.exec(document.cookie);
  if (chosen) root.dataset.theme = chosen[1];
  try {
    if (localStorage.getItem("astrocloud-signed-in")) root.dataset.session = "likely";
  } catch {
    // Storage may be closed to us; then the page shows its public face first.
  }
})();
