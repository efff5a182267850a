// One chart with its head: loads candles, follows the feed, says what is under the cross-hair.

import * as api from "../data/api";
import { KEPT, Series } from "../data/series";
import type { ServerTime } from "../data/time";
import type { Candle } from "../data/wire";
import { type DrawingListener, Drawing } from "../chart/chart";
import { h, on, set, text } from "../dom";
import { countdown, stepOf, type Zone } from "../format";
import { INTERVALS, type Pane } from "../state";
import { t } from "../words";
import { Legend } from "./legend";
import { showHistory } from "./revisions";

const PAGE = 500;
const FIRST_PAGE = 600;
/** Candles that may wait for the first page; past it they are in the page itself. */
const EARLY = 100;
/** How long after its end a candle may still be told as running. */
const LATE_MS = 10_000;

export interface PaneHost {
  readonly time: ServerTime;
  market(): string;
  zone(): Zone;
  /** The digits of a symbol's prices, where they are known. */
  scale(symbol: string): number | null;
  chose(pane: ChartPane): void;
  changedInterval(pane: ChartPane): void;
}

export class ChartPane implements DrawingListener {
  readonly element: HTMLElement;
  readonly series = new Series();
  private readonly drawing: Drawing;
  private readonly canvas: HTMLElement;
  private readonly title = h("h2", { class: "pane-symbol" });
  private readonly buttons = new Map<string, HTMLButtonElement>();
  private readonly legend = new Legend();
  private readonly notice = h("div", { class: "pane-notice", role: "status" });
  private readonly group: HTMLElement;
  private loading: AbortController | null = null;
  private older = false;
  private exhausted = false;
  /** klagg knows no such series: only another choice helps. */
  private unknown = false;
  /** What the feed told before the first page was there. */
  private early: Candle[] = [];
  /** The candle that the keyboard or the cross-hair is on. */
  private inspectedMs: number | null = null;

  constructor(
    readonly number: number,
    public pane: Pane,
    private readonly host: PaneHost,
  ) {
    this.canvas = h("div", { class: "pane-canvas", tabindex: 0, role: "img" });
    this.group = h("div", { class: "segments", role: "group" });
    for (const interval of INTERVALS) {
      const button = h("button", { type: "button", "data-interval": interval }, interval);
      on(button, "click", () => {
        this.host.chose(this);
        this.setInterval(interval);
      });
      this.buttons.set(interval, button);
      this.group.append(button);
    }
    this.element = h(
      "section",
      { class: "pane" },
      h("header", { class: "pane-head" }, this.title, this.group, this.legend.element),
      h("div", { class: "pane-body" }, this.canvas, this.notice),
    );
    this.drawing = new Drawing(this.canvas, this);
    on(this.element, "pointerdown", () => this.host.chose(this));
    on(this.element, "focusin", () => this.host.chose(this));
    on(this.canvas, "keydown", (event) => this.key(event));
    on(this.canvas, "blur", () => {
      this.drawing.point(null);
      this.inspected(null);
    });
    this.translate();
  }

  translate(): void {
    this.drawing.setZone(this.host.zone());
    set(this.element, { "aria-label": t("chart", { n: this.number + 1 }) });
    set(this.group, { "aria-label": t("interval") });
    set(this.canvas, { "aria-label": t("chartLabel", { symbol: this.pane.symbol, interval: this.pane.interval }) });
    this.sayHead();
    this.sayLegend();
  }

  repaint(): void {
    this.drawing.repaint();
    this.draw(false);
  }

  mark(active: boolean): void {
    this.element.classList.toggle("active", active);
  }

  setSymbol(symbol: string): void {
    if (symbol === this.pane.symbol) return;
    this.pane.symbol = symbol;
    this.begin();
  }

  setInterval(interval: string): void {
    if (interval === this.pane.interval) return;
    this.pane.interval = interval;
    this.begin();
    this.host.changedInterval(this);
  }

  /** Another series: what was shown goes at once, so that no number stands under a wrong name. */
  begin(): void {
    this.series.clear();
    this.early = [];
    this.exhausted = false;
    this.unknown = false;
    this.inspectedMs = null;
    this.translate();
    this.draw(true);
    void this.load(true);
  }

  /** Load the newest candles; what is shown stays, and what has changed meanwhile is put right. */
  async load(fresh = false): Promise<void> {
    this.loading?.abort();
    const mine = (this.loading = new AbortController());
    const { symbol, interval } = this.pane;
    if (!symbol) return;
    if (fresh) this.say(t("loading"));
    try {
      const newest = this.series.last?.open_time_ms;
      const missed = newest === undefined ? 0 : Math.ceil((this.host.time.now() - newest) / stepOf(interval)) + 10;
      const limit = Math.min(1_000, Math.max(FIRST_PAGE, missed));
      const answer = await api.candles(this.host.market(), symbol, interval, limit, undefined, mine.signal);
      if (mine.signal.aborted) return;
      const first = answer.candles[0];
      // After a long absence the new page may not reach back to what is shown: a hole would look like no time at all.
      if (first && newest !== undefined && first.open_time_ms > newest + stepOf(interval) * 1.5) {
        this.series.clear();
        this.exhausted = false;
      }
      this.series.takeAll([...answer.candles, ...this.early]);
      this.early = [];
      this.draw(fresh || newest === undefined);
      this.say(this.series.last ? "" : t("noCandles", { symbol, interval }));
    } catch (error) {
      if (!mine.signal.aborted) this.failed(error);
    } finally {
      if (this.loading === mine) this.loading = null;
    }
  }

  /** Ask again where there is nothing yet: klagg may have been starting. */
  loadMissing(): void {
    if (!this.series.last && !this.loading && !this.unknown) void this.load();
  }

  /** There may be older candles than before: history is being loaded. */
  grown(): void {
    this.exhausted = false;
    if (this.series.last) void this.load();
  }

  async wantsOlder(): Promise<void> {
    const { first } = this.series;
    if (this.older || this.exhausted || !first || this.series.all.length >= KEPT) return;
    this.older = true;
    const { symbol, interval } = this.pane;
    try {
      const answer = await api.candles(this.host.market(), symbol, interval, PAGE, first.open_time_ms);
      if (symbol !== this.pane.symbol || interval !== this.pane.interval) return;
      const before = answer.candles.filter((one) => one.open_time_ms < first.open_time_ms);
      this.exhausted = before.length === 0;
      if (!this.exhausted) {
        this.series.takeAll(before);
        this.draw(false);
      }
    } catch {
      // The next scroll asks again; the status line tells of a klagg that does not answer.
    } finally {
      this.older = false;
    }
  }

  /** What the feed tells of any candle. */
  take(candle: Candle): void {
    if (candle.symbol !== this.pane.symbol || candle.interval !== this.pane.interval) return;
    const { last } = this.series;
    if (!last) {
      if (this.early.length < EARLY) this.early.push(candle);
      return;
    }
    if (!this.series.take(candle)) return;
    this.drawing.update(candle, candle.open_time_ms < last.open_time_ms);
    if (this.series.trim()) this.draw(false);
    if (this.inspectedMs === null || this.inspectedMs === candle.open_time_ms) this.sayLegend();
  }

  /** Called every second and with the feed: the time that is left. */
  tick(live: boolean): void {
    const { last } = this.series;
    const left = last && !last.closed ? last.close_time_ms + 1 - this.host.time.now() : Number.NEGATIVE_INFINITY;
    // A candle that should have closed long ago runs no more: klagg may only read a database that nobody writes to.
    const runs = live && left > -LATE_MS;
    this.drawing.count(runs ? countdown(left) : "", last?.close);
  }

  inspected(openMs: number | null): void {
    if (openMs === this.inspectedMs) return;
    this.inspectedMs = openMs;
    this.sayLegend();
  }

  chosen(openMs: number): void {
    const candle = this.series.at(openMs);
    if (candle && candle.revision > 0) showHistory(this.host.market(), candle, this.host.zone());
  }

  /** For the tests: what is drawn, and where. */
  snapshot(): Record<string, unknown> {
    const { last } = this.series;
    return {
      ...this.pane,
      candles: this.series.all,
      drawn: this.drawing.drawn(),
      range: this.drawing.range(),
      spots: this.series.all.slice(-40).map((one) => [one.open_time_ms, this.drawing.spot(one)]),
      last,
    };
  }

  destroy(): void {
    this.loading?.abort();
    this.drawing.destroy();
    this.element.remove();
  }

  private draw(fresh: boolean): void {
    this.drawing.show(this.series.all, this.pane.interval, this.host.scale(this.pane.symbol), fresh);
    this.sayLegend();
  }

  private sayHead(): void {
    text(this.title, this.pane.symbol || "–");
    for (const [interval, button] of this.buttons) set(button, { "aria-pressed": String(interval === this.pane.interval) });
  }

  private sayLegend(): void {
    const candle = (this.inspectedMs === null ? undefined : this.series.at(this.inspectedMs)) ?? this.series.last;
    this.legend.show(candle, this.host.zone());
  }

  private say(what: string): void {
    this.notice.replaceChildren(what);
    this.notice.hidden = what === "";
  }

  private failed(error: unknown): void {
    if (this.series.last) return;
    this.unknown = error instanceof api.Refused && error.status === 404;
    const again = h("button", { type: "button" }, t("retry"));
    on(again, "click", () => void this.load(true));
    this.notice.replaceChildren(t("failed", { why: error instanceof Error ? error.message : String(error) }), " ", again);
    this.notice.hidden = false;
  }

  private key(event: KeyboardEvent): void {
    const all = this.series.all;
    const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -all.length, End: all.length };
    if (event.key === "Enter" && this.inspectedMs !== null) {
      const candle = this.series.at(this.inspectedMs);
      if (candle) showHistory(this.host.market(), candle, this.host.zone());
      return;
    }
    const step = steps[event.key];
    if (step === undefined || all.length === 0) return;
    event.preventDefault();
    const from = this.inspectedMs === null ? all.length : this.series.place(this.inspectedMs);
    const place = Math.max(0, Math.min(all.length - 1, from + step));
    const candle = all[place] as Candle;
    this.drawing.reveal(place);
    this.drawing.point(candle);
    this.inspected(candle.open_time_ms);
  }
}
