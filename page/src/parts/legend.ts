// The candle under the cross-hair, or the newest one, in words: what a chart shows in pixels, for eyes and for screen readers.

import type { Candle } from "../data/wire";
import { h, text } from "../dom";
import { count, openTime, percent, stepOf, type Zone } from "../format";
import { lookOf } from "../chart/looks";
import { t } from "../words";

const PRICES = ["open", "high", "low", "close", "volume"] as const;

export class Legend {
  readonly element = h("div", { class: "legend" });
  private readonly cells = new Map<string, { name: HTMLElement; value: HTMLElement }>();

  constructor() {
    for (const name of ["time", ...PRICES, "change", "taker", "trades", "ids", "origin", "state", "revision"]) {
      const label = h("span", { class: "k" });
      const value = h("span", { class: "v", "data-field": name });
      const pair = h("span", { class: `pair pair-${name}` }, label, value);
      this.cells.set(name, { name: label, value });
      if (name === "taker") this.element.append(h("span", { class: "legend-break" }));
      this.element.append(pair);
    }
  }

  show(candle: Candle | undefined, zone: Zone): void {
    this.element.hidden = candle === undefined;
    if (!candle) return;
    this.element.dataset["openTimeMs"] = String(candle.open_time_ms);
    this.put("time", "", openTime(candle.open_time_ms, stepOf(candle.interval), zone));
    for (const name of PRICES) this.put(name, t(name), candle[name]);
    const [open, close] = [Number(candle.open), Number(candle.close)];
    const change = open > 0 ? (close / open - 1) * 100 : 0;
    this.put("change", "", `${percent(change)}%`, change > 0 ? "up" : change < 0 ? "down" : "");
    const volume = Number(candle.volume);
    this.put("taker", t("taker"), volume > 0 ? `${((100 * Number(candle.taker_buy_volume)) / volume).toFixed(0)}%` : "–");
    this.put("trades", t("trades"), count(candle.trades));
    const [first, last] = [candle.first_trade_id, candle.last_trade_id];
    const known = first !== null && last !== null && last > 0;
    this.put("ids", t("ids"), known ? (first === last ? `${first}` : `${first}–${last}`) : t("noIds"));
    this.put("origin", "", candle.origin ?? "");
    this.put("state", "", stateOf(candle), `state-${lookOf(candle)}`);
    this.put("revision", "", candle.revision > 0 ? `▴ ${t("revision", { n: candle.revision })}` : t("revision", { n: 0 }));
  }

  private put(field: string, name: string, value: string, kind = ""): void {
    const cell = this.cells.get(field);
    if (!cell) return;
    text(cell.name, name);
    text(cell.value, value);
    cell.value.className = kind ? `v ${kind}` : "v";
  }
}

export function stateOf(candle: Candle): string {
  if (!candle.closed) return t("running");
  if (candle.origin === "unmatched") return t("final");
  return candle.verified ? `✓ ${t("verified")}` : `◌ ${t(lookOf(candle) === "dashed" ? "filled" : "pending")}`;
}
