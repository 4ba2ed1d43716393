// Runs before the first paint, so that nothing jumps: what this browser remembers of appearance and of being signed in.
(() => {
  const root = document.documentElement;
  root.classList.add("ac-js");
  const chosen = /(?:^|; )astrocloud-theme=(light|dark|auto)/.exec(document.cookie);
  if (chosen) root.dataset.theme = chosen[1];
  // JupyterHub's own pages (Bootstrap) ask for this name.
  const dark = root.dataset.theme === "dark" || (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.bsTheme = dark ? "dark" : "light";
  try {
    if (localStorage.getItem("astrocloud-signed-in")) root.dataset.session = "likely";
  } catch {
    // Storage may be closed to us; then the page shows its public face first.
  }
})();
