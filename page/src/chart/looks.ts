// How a candle looks by what is known of it, and the colours, which are the style sheet's.

import type { Candle } from "../data/wire";

/** Solid: verified. Hollow: pending or running. Dashed: filled in without evidence. Final: the exchange has none. */
export type Look = "solid" | "hollow" | "dashed" | "final";

export function lookOf(candle: Candle): Look {
  if (candle.origin === "unmatched") return "final";
  if (candle.closed && (candle.origin === "filled" || candle.origin === "seed") && !candle.verified) return "dashed";
  return candle.closed && candle.verified ? "solid" : "hollow";
}

export interface Palette {
  readonly ground: string;
  readonly text: string;
  readonly faint: string;
  readonly line: string;
  readonly up: string;
  readonly down: string;
  readonly flat: string;
  readonly mark: string;
  readonly buy: string;
  readonly sell: string;
  readonly label: string;
  readonly font: string;
}

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    ground: read("ground"),
    text: read("text"),
    faint: read("faint"),
    line: read("grid"),
    up: read("up"),
    down: read("down"),
    flat: read("flat"),
    mark: read("mark"),
    buy: read("buy"),
    sell: read("sell"),
    label: read("label"),
    font: read("font"),
  };
}
