// Theme, title and icon: what of the page shows even where its tab is not looked at.

import type { Health } from "./parts/statusline";
import type { Theme } from "./state";

const dark = window.matchMedia("(prefers-color-scheme: dark)");

const ICONS: Readonly<Record<Health, string>> = {
  live: new URL("./icons/live.svg", import.meta.url).href,
  waiting: new URL("./icons/waiting.svg", import.meta.url).href,
  stale: new URL("./icons/stale.svg", import.meta.url).href,
  trouble: new URL("./icons/trouble.svg", import.meta.url).href,
};

export function applyTheme(theme: Theme): void {
  document.documentElement.dataset["theme"] = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
}

export function onSystemTheme(listener: () => void): void {
  dark.addEventListener("change", listener);
}

let shownHealth: Health | null = null;

export function applyHealth(health: Health, title: string): void {
  if (document.title !== title) document.title = title;
  if (health === shownHealth) return;
  shownHealth = health;
  document.body.dataset["health"] = health;
  const icon = document.getElementById("favicon");
  if (icon instanceof HTMLLinkElement) icon.href = ICONS[health];
}
