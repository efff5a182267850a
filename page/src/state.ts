// What the viewer has chosen. The address keeps what is worth sharing, the browser what is a matter of taste.

import type { Zone } from "./format";
import type { Language } from "./words";

export const INTERVALS = ["1m", "5m", "30m", "1h", "4h", "1d", "1w"] as const;
export type Theme = "auto" | "light" | "dark";

export interface Pane {
  symbol: string;
  interval: string;
}

export interface Choice {
  market: string;
  panes: Pane[];
  active: number;
  theme: Theme;
  zone: Zone;
  language: Language;
}

/** A tiny store in the browser that may be forbidden or full: then a choice lasts as long as the page. */
export const memory = {
  get(name: string): string | null {
    try {
      return localStorage.getItem(`klagg.${name}`);
    } catch {
      return null;
    }
  },
  set(name: string, value: string): void {
    try {
      localStorage.setItem(`klagg.${name}`, value);
    } catch {
      // Nothing to be done about it, and nothing depends on it.
    }
  },
};

const oneOf = <T extends string>(value: string | null, known: readonly T[]): T | null =>
  known.includes(value as T) ? (value as T) : null;

export function readChoice(address: URLSearchParams): Choice {
  const interval = (name: string): string => oneOf(address.get(name), INTERVALS) ?? "1m";
  const panes: Pane[] = [{ symbol: address.get("symbol") ?? "", interval: interval("interval") }];
  const second = address.get("symbol2");
  if (second !== null) panes.push({ symbol: second, interval: interval("interval2") });
  const themes = ["auto", "light", "dark"] as const;
  const languages = ["en", "zh"] as const;
  return {
    market: address.get("market") ?? "",
    panes,
    active: 0,
    theme: oneOf(address.get("theme"), themes) ?? oneOf(memory.get("theme"), themes) ?? "auto",
    zone: oneOf(address.get("tz") ?? memory.get("tz"), ["utc", "local"] as const) ?? "utc",
    language:
      oneOf(address.get("lang") ?? memory.get("lang"), languages) ??
      (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"),
  };
}

/** Writes the choice into the address, in place: going back leaves the page rather than undoing a click. */
export function writeAddress(choice: Choice): void {
  const query = new URLSearchParams();
  if (choice.market) query.set("market", choice.market);
  const [first, second] = choice.panes;
  if (first?.symbol) query.set("symbol", first.symbol);
  if (first) query.set("interval", first.interval);
  if (second) {
    query.set("symbol2", second.symbol);
    query.set("interval2", second.interval);
  }
  if (choice.theme !== "auto") query.set("theme", choice.theme);
  if (choice.zone !== "utc") query.set("tz", choice.zone);
  history.replaceState(null, "", `${location.pathname}?${query}`);
}

export class Stars {
  private chosen: Set<string>;

  constructor(private readonly market: string) {
    this.chosen = new Set((memory.get(`stars.${market}`) ?? "").split(",").filter(Boolean));
  }

  has(symbol: string): boolean {
    return this.chosen.has(symbol);
  }

  toggle(symbol: string): void {
    if (!this.chosen.delete(symbol)) this.chosen.add(symbol);
    memory.set(`stars.${this.market}`, [...this.chosen].join(","));
  }
}
