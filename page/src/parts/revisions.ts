// The history of one candle: every revision with what changed in it and when that became known.

import * as api from "../data/api";
import type { Candle } from "../data/wire";
import { clock, day, openTime, stepOf, type Zone } from "../format";
import { h } from "../dom";
import { t } from "../words";
import { showDialog, table } from "./dialog";

const NUMBERS = ["open", "high", "low", "close", "volume", "taker_buy_volume", "trades"] as const;

export function showHistory(market: string, candle: Candle, zone: Zone): void {
  const time = openTime(candle.open_time_ms, stepOf(candle.interval), zone);
  const place = h("div", { role: "status" }, t("loading"));
  showDialog(t("historyOf", { symbol: candle.symbol, interval: candle.interval, time }), "history", place);
  api.candle(market, candle.symbol, candle.interval, candle.open_time_ms).then(
    (found) => place.replaceChildren(revisionTable(found.history, zone)),
    (error: unknown) => place.replaceChildren(t("failed", { why: error instanceof Error ? error.message : String(error) })),
  );
}

function revisionTable(history: readonly Partial<Candle>[], zone: Zone): Node {
  if (history.length === 0) return h("p", {}, t("historyNone"));
  const oldestFirst = [...history].sort((a, b) => (a.revision ?? 0) - (b.revision ?? 0));
  const rows = oldestFirst.map((one, index) => {
    const before = oldestFirst[index - 1];
    const known = one.known_ms ? `${day(one.known_ms, zone)} ${clock(one.known_ms, zone, true)}` : "–";
    const numbers = NUMBERS.map((name) => {
      const value = one[name];
      const changed = before !== undefined && String(before[name]) !== String(value);
      return h("td", { class: changed ? "num changed" : "num" }, value === undefined || value === null ? "–" : String(value));
    });
    return [h("td", { class: "num" }, String(one.revision ?? "–")), known, one.origin ?? "–", one.verified ? "✓" : "◌", ...numbers];
  });
  const names = [t("open"), t("high"), t("low"), t("close"), t("volume"), t("taker"), t("trades")];
  return table(["▴", t("historyKnown"), "origin", "", ...names], rows);
}
