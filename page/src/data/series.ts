// The candles of one chart, by open time, with what a later telling may change of them.

import type { Candle } from "./wire";

/** Candles that one chart keeps; older ones are not asked for past it. */
export const KEPT = 20_000;

export class Series {
  private sorted: Candle[] = [];

  get all(): readonly Candle[] {
    return this.sorted;
  }

  get first(): Candle | undefined {
    return this.sorted[0];
  }

  get last(): Candle | undefined {
    return this.sorted.at(-1);
  }

  clear(): void {
    this.sorted = [];
  }

  /** Forgets the oldest candles past the bound, once they are some: a page that is open for weeks. True if it did. */
  trim(): boolean {
    if (this.sorted.length <= KEPT * 1.1) return false;
    this.sorted = this.sorted.slice(-KEPT);
    return true;
  }

  /** The place of the first candle that opens at `openMs` or later. */
  place(openMs: number): number {
    let low = 0;
    let high = this.sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.sorted[middle] as Candle).open_time_ms < openMs) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  at(openMs: number): Candle | undefined {
    const found = this.sorted[this.place(openMs)];
    return found?.open_time_ms === openMs ? found : undefined;
  }

  /** Takes one candle unless what is known of it is newer; true if it was taken. */
  take(candle: Candle): boolean {
    const place = this.place(candle.open_time_ms);
    const known = this.sorted[place];
    if (known?.open_time_ms !== candle.open_time_ms) {
      this.sorted.splice(place, 0, candle);
      return true;
    }
    if (!supersedes(candle, known)) return false;
    this.sorted[place] = candle;
    return true;
  }

  /** Takes a page of candles, in any order. */
  takeAll(candles: readonly Candle[]): void {
    const merged = new Map(this.sorted.map((one) => [one.open_time_ms, one]));
    for (const candle of candles) {
      const known = merged.get(candle.open_time_ms);
      if (!known || supersedes(candle, known)) merged.set(candle.open_time_ms, candle);
    }
    this.sorted = [...merged.values()].sort((a, b) => a.open_time_ms - b.open_time_ms);
  }
}

/** A closed candle stays closed, a later revision stays, and what was verified stays so within its revision. */
function supersedes(next: Candle, known: Candle): boolean {
  if (next.closed !== known.closed) return next.closed;
  if (!next.closed) return next.trades >= known.trades;
  if (next.revision !== known.revision) return next.revision > known.revision;
  return next.verified || !known.verified;
}
