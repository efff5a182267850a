// Which symbols the list shows and in which order: pure, so that thousands are sorted without touching the page.

import type { OverviewRow } from "../data/wire";

export const COLUMNS = ["symbol", "last", "change", "volume", "spark", "state"] as const;
export type SortKey = "symbol" | "change" | "volume" | "state";

export interface Order {
  readonly key: SortKey;
  readonly down: boolean;
}

/** What is most worth a look first: not trading, then most pending. */
export function urgency(row: OverviewRow): number {
  return (isTrading(row) ? 0 : 1_000_000) + row.pending;
}

export const isTrading = (row: OverviewRow): boolean => row.status.toUpperCase() === "TRADING";

export function arrange(
  all: readonly OverviewRow[],
  search: string,
  order: Order,
  wanted: ((symbol: string) => boolean) | null,
): OverviewRow[] {
  const text = search.trim().toUpperCase().replaceAll("/", "");
  const found = all.filter((row) => (!wanted || wanted(row.symbol)) && (!text || row.symbol.toUpperCase().includes(text)));
  const bySymbol = (a: OverviewRow, b: OverviewRow): number => (a.symbol < b.symbol ? -1 : a.symbol > b.symbol ? 1 : 0);
  const sign = order.down ? -1 : 1;
  if (order.key === "symbol") found.sort((a, b) => sign * bySymbol(a, b));
  else {
    const value = valueOf(order.key);
    const keys = new Map(found.map((row) => [row, value(row)]));
    // What has no value stands last either way.
    found.sort((a, b) => {
      const [x, y] = [keys.get(a) as number, keys.get(b) as number];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || bySymbol(a, b);
      return sign * (x - y) || bySymbol(a, b);
    });
  }
  // Names that begin with what is searched come first.
  return text ? [...found.filter((row) => row.symbol.startsWith(text)), ...found.filter((row) => !row.symbol.startsWith(text))] : found;
}

function valueOf(key: Exclude<SortKey, "symbol">): (row: OverviewRow) => number {
  if (key === "state") return urgency;
  if (key === "change") return (row) => row.change_24h_pct ?? Number.NaN;
  return (row) => (row.quote_volume_24h === null ? Number.NaN : Number(row.quote_volume_24h));
}
