// Dark or light: the system's, until somebody says otherwise.

import { one } from "./dom.js";

export function theme(changed) {
  const choice = one("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = choice.value || (dark.matches ? "dark" : "light");
    changed();
  };
  try {
    choice.value = localStorage.getItem("theme") ?? "";
  } catch {
    // A browser that keeps nothing goes by the system.
  }
  choice.addEventListener("change", () => {
    try {
      localStorage.setItem("theme", choice.value);
    } catch {
      // As above.
    }
    apply();
  });
  dark.addEventListener("change", apply);
  apply();
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
