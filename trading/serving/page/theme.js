// Before anything is painted: the theme that was chosen here, else what the system prefers.
"use strict";
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // No storage in this browser: the system's choice holds.
    }
  };
  const apply = (name) => {
    document.documentElement.dataset.theme = name;
    dispatchEvent(new Event("theme"));
  };
  const chosen = () => kept() ?? (system.matches ? "dark" : "light");
  system.addEventListener("change", () => apply(chosen()));
  window.toggleTheme = () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", next);
    } catch {
      // As above: it holds until the page is loaded again.
    }
    apply(next);
  };
  apply(chosen());
})();
