// Light or dark: the system's choice until someone presses the button, which is then remembered by this browser.

const KEY = "isochrone.theme";
type Theme = "light" | "dark";

const prefersDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

export function currentTheme(): Theme {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return prefersDark() ? "dark" : "light";
}

export function restoreTheme(): void {
  const chosen = localStorage.getItem(KEY);
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}

export function toggleTheme(): void {
  const next: Theme = currentTheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem(KEY, next);
}
