// How klagg itself is doing, as small charts of the last ten minutes.

import type { MarketStatus, Ops } from "../data/wire";
import { h, s, set, text } from "../dom";
import { brief, span } from "../format";
import { t, type Word } from "../words";
import { sparkPath } from "./spark";

type Values = readonly (number | null)[];

interface Measure {
  readonly name: string;
  readonly word: Word;
  readonly show: (value: number) => string;
  /** The newest value where the status has a better one than the series. */
  readonly now: (market: MarketStatus) => number | null;
}

function ms(value: number): string {
  if (value < 1_000) return `${brief(Math.round(value * 10) / 10)} ms`;
  return value < 60_000 ? `${(value / 1_000).toFixed(1)} s` : span(value);
}

const MEASURES: readonly Measure[] = [
  { name: "offset_ms", word: "opsOffset", show: (v) => `${v > 0 ? "+" : v < 0 ? "−" : ""}${ms(Math.abs(v))}`, now: (m) => m.offset_ms },
  { name: "tick_lag_ms", word: "opsTick", show: ms, now: (m) => m.tick_lag_p99_ms },
  { name: "trades_per_s", word: "opsTrades", show: brief, now: (m) => m.trades_per_s },
  { name: "feed_age_ms", word: "opsFeed", show: ms, now: () => null },
  { name: "weight_used", word: "opsWeight", show: brief, now: (m) => m.weight_used },
  { name: "write_ms", word: "opsWrite", show: ms, now: (m) => m.write_p99_ms },
  { name: "pending", word: "opsPending", show: brief, now: (m) => m.pending },
];

const WIDTH = 120;
const HEIGHT = 30;
/** Lines of one small chart: more connections than this are told by their worst. */
const LINES = 8;

interface Tile {
  readonly element: HTMLElement;
  readonly label: HTMLElement;
  readonly value: HTMLElement;
  readonly svg: SVGSVGElement;
}

export class OpsCharts {
  readonly element: HTMLElement;
  private readonly title = h("h2");
  private readonly tiles = new Map<string, Tile>();
  private readonly eta: Tile;
  private readonly row = h("div", { class: "tiles" });
  private readonly none = h("p", { class: "hint", hidden: true });
  private ops: Ops | null = null;
  private market: MarketStatus | null = null;

  constructor() {
    for (const { name } of MEASURES) this.tiles.set(name, this.tile());
    this.eta = this.tile();
    this.eta.svg.remove();
    this.element = h("section", { class: "strip ops" }, h("header", {}, this.title), this.row, this.none);
    this.translate();
  }

  translate(): void {
    text(this.title, t("ops"));
    set(this.element, { "aria-label": t("ops") });
    text(this.none, t("opsNone"));
    for (const { name, word } of MEASURES) text((this.tiles.get(name) as Tile).label, t(word));
    text(this.eta.label, t("opsEta"));
    this.draw();
  }

  show(ops: Ops | null, market: MarketStatus | null): void {
    this.ops = ops;
    this.market = market;
    this.draw();
  }

  private tile(): Tile {
    const label = h("span", { class: "tile-label" });
    const value = h("span", { class: "tile-value" });
    const svg = s("svg", { class: "tile-chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const element = h("div", { class: "tile" }, h("div", { class: "tile-head" }, label, value), svg);
    this.row.append(element);
    return { element, label, value, svg };
  }

  private draw(): void {
    const { ops, market } = this;
    const some = ops !== null && Object.values(ops.series).some((series) => (isOne(series) ? series : Object.values(series)).length > 0);
    this.none.hidden = some || market === null;
    this.row.hidden = !some;
    for (const measure of MEASURES) {
      const tile = this.tiles.get(measure.name) as Tile;
      const series = ops?.series[measure.name];
      const measured: Values[] = series === undefined ? [] : isOne(series) ? [series] : worst(Object.values(series));
      const lines = measured.map(held);
      const known = lines.flat().filter((value): value is number => value !== null);
      const newest = lines.map((line) => line.findLast((value) => value !== null) ?? null).filter((value): value is number => value !== null);
      const now = (market && measure.now(market)) ?? (newest.length ? Math.max(...newest) : null);
      text(tile.value, now === null ? "–" : this.limit(measure, now));
      const high = known.length ? known.reduce((a, b) => Math.max(a, b)) : 0;
      const low = known.length ? Math.min(0, known.reduce((a, b) => Math.min(a, b))) : 0;
      const range = { low, high: high > low ? high : low + 1 };
      while (tile.svg.children.length > lines.length) tile.svg.lastElementChild?.remove();
      while (tile.svg.children.length < lines.length) tile.svg.append(s("path", { class: "tile-line" }));
      lines.forEach((line, index) => set(tile.svg.children[index] as Element, { d: sparkPath(line, WIDTH, HEIGHT, range) }));
      const told = known.length && now !== null ? t("opsMax", { name: t(measure.word), value: measure.show(now), max: measure.show(high) }) : "";
      const title = measure.name === "feed_age_ms" ? [told, ...this.connections()].filter(Boolean).join("\n") : told;
      set(tile.element, { title: title || null });
    }
    const eta = market?.repair_eta_s ?? null;
    text(this.eta.value, eta === null ? "–" : eta <= 0 ? t("done") : span(eta * 1_000));
  }

  /** A line for each connection: its name, the age of its data, its last trouble. */
  private connections(): string[] {
    return (this.market?.connections ?? []).map(({ name, feed_age_ms: age, last_trouble: trouble }) => {
      return `${name}  ${age === null ? "–" : ms(age)}${trouble ? `  ${trouble}` : ""}`;
    });
  }

  private limit(measure: Measure, now: number): string {
    const limit = measure.name === "weight_used" ? this.market?.weight_limit : null;
    return limit ? `${brief(now)} / ${brief(limit)}` : measure.show(now);
  }
}

/** A value holds until the next is measured: a write once a minute is a line, not a dot; before the first there is nothing. */
function held(line: Values): Values {
  let last: number | null = null;
  return line.map((value) => (last = value ?? last));
}

const isOne = (series: Values | Readonly<Record<string, Values>>): series is Values => Array.isArray(series);

function worst(lines: readonly Values[]): Values[] {
  const peak = (line: Values): number => line.reduce<number>((high, value) => Math.max(high, value ?? 0), 0);
  return lines.length <= LINES ? [...lines] : [...lines].sort((a, b) => peak(b) - peak(a)).slice(0, LINES);
}
