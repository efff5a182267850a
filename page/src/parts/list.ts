// The list of symbols. Only the rows in sight exist: thousands cost what thirty do.

import type { Candle, OverviewRow } from "../data/wire";
import { h, on, s, set, text } from "../dom";
import { brief, percent } from "../format";
import { memory, type Stars } from "../state";
import { t } from "../words";
import { type Order, type SortKey, arrange, isTrading } from "./rows";
import { sparkPath } from "./spark";

const ROW_PX = 28;
/** Rows beyond the edges that are kept ready. */
const SPARE = 4;
const SPARK = { width: 64, height: 18 };

export interface ListHost {
  stars(): Stars;
  /** A symbol was chosen, by a click or a key. */
  chose(symbol: string): void;
  /** Other symbols are in sight. */
  seen(symbols: readonly string[]): void;
}

interface RowView {
  readonly element: HTMLElement;
  readonly star: HTMLButtonElement;
  readonly symbol: HTMLElement;
  readonly last: HTMLElement;
  readonly change: HTMLElement;
  readonly volume: HTMLElement;
  readonly line: SVGPathElement;
  readonly state: HTMLElement;
  /** What it shows, in short. */
  shows: string;
}

export class SymbolList {
  readonly element: HTMLElement;
  private all: readonly OverviewRow[] = [];
  private rows: OverviewRow[] = [];
  private readonly live = new Map<string, Candle>();
  private readonly views: RowView[] = [];
  private readonly search = h("input", { type: "search", autocomplete: "off", spellcheck: "false", class: "search" });
  private readonly watch = h("button", { type: "button", class: "watch", "aria-pressed": "false" }, "★");
  private readonly count = h("span", { class: "count", "aria-live": "polite" });
  private readonly heads = new Map<SortKey, HTMLButtonElement>();
  private readonly headCells: HTMLElement[] = [];
  private readonly frame: HTMLElement;
  private readonly space = h("div", { class: "rows-space", role: "rowgroup" });
  private readonly empty = h("p", { class: "rows-empty" });
  private order: Order = { key: "volume", down: true };
  private onlyStars = memory.get("watch") === "1";
  private selected = "";
  private seen = "";
  private due = false;

  constructor(private readonly host: ListHost) {
    this.frame = h("div", { class: "rows", role: "grid", tabindex: 0 }, this.head(), this.space, this.empty);
    this.element = h(
      "section",
      { class: "list" },
      h("div", { class: "list-tools" }, this.search, this.watch, this.count),
      this.frame,
    );
    on(this.search, "input", () => this.rearrange(true));
    on(this.search, "keydown", (event) => this.searchKey(event));
    on(this.watch, "click", () => {
      this.onlyStars = !this.onlyStars;
      memory.set("watch", this.onlyStars ? "1" : "0");
      this.rearrange(true);
    });
    on(this.frame, "keydown", (event) => {
      const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 };
      const step = steps[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.move(step);
    });
    this.frame.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(this.frame);
    this.translate();
  }

  translate(): void {
    set(this.element, { "aria-label": t("list") });
    set(this.frame, { "aria-label": t("list") });
    set(this.search, { "aria-label": t("search"), placeholder: t("searchHint") });
    set(this.watch, { "aria-label": t("watch"), title: t("watch") });
    const names = [t("colSymbol"), t("colLast"), t("colChange"), t("colVolume"), t("colSpark"), t("colState")];
    this.headCells.forEach((cell, index) => text(cell, names[index] ?? ""));
    for (const [key, button] of this.heads) {
      set(button, { title: t("sortBy", { what: button.textContent ?? key }) });
    }
    for (const view of this.views) view.shows = "";
    this.rearrange(false);
  }

  show(all: readonly OverviewRow[]): void {
    const first = this.all.length === 0;
    this.all = all;
    this.live.clear();
    this.rearrange(false);
    if (first) this.reveal();
  }

  /** A running minute of a row in sight: its last price, between two overviews. */
  take(candle: Candle): void {
    if (candle.interval !== "1m") return;
    this.live.set(candle.symbol, candle);
    this.later();
  }

  select(symbol: string): void {
    this.selected = symbol;
    this.reveal();
    this.later();
  }

  focusSearch(): void {
    this.search.focus();
    this.search.select();
  }

  /** The symbol some rows on, chosen. */
  move(step: number): void {
    if (this.rows.length === 0) return;
    const at = this.rows.findIndex((row) => row.symbol === this.selected);
    const next = this.rows[at < 0 ? 0 : Math.max(0, Math.min(this.rows.length - 1, at + step))];
    if (next && next.symbol !== this.selected) this.host.chose(next.symbol);
  }

  toggleStar(symbol: string): void {
    this.host.stars().toggle(symbol);
    this.rearrange(false);
  }

  sort(key: SortKey): void {
    const down = this.order.key === key ? !this.order.down : key !== "symbol";
    this.order = { key, down };
    this.rearrange(true);
  }

  /** The first symbol in order, for a page that was opened without one. */
  get firstSymbol(): string | undefined {
    return this.rows[0]?.symbol ?? this.all[0]?.symbol;
  }

  get symbols(): readonly string[] {
    return this.rows.map((row) => row.symbol);
  }

  private head(): HTMLElement {
    const row = h("div", { class: "row row-head", role: "row" });
    const keys: (SortKey | null)[] = ["symbol", null, "change", "volume", null, "state"];
    for (const key of keys) {
      const cell = h("div", { role: "columnheader" });
      if (key) {
        const button = h("button", { type: "button", "data-sort": key });
        on(button, "click", () => this.sort(key));
        this.heads.set(key, button);
        cell.append(button);
        this.headCells.push(button);
      } else {
        const name = h("span");
        cell.append(name);
        this.headCells.push(name);
      }
      row.append(cell);
    }
    return row;
  }

  private rearrange(toTop: boolean): void {
    const stars = this.host.stars();
    this.rows = arrange(this.all, this.search.value, this.order, this.onlyStars ? (symbol) => stars.has(symbol) : null);
    this.space.style.height = `${this.rows.length * ROW_PX}px`;
    this.element.style.setProperty("--rows", String(Math.max(3, this.rows.length)));
    if (toTop) this.frame.scrollTop = 0;
    set(this.frame, { "aria-rowcount": this.rows.length + 1 });
    set(this.watch, { "aria-pressed": String(this.onlyStars) });
    text(this.count, t("shown", { n: this.rows.length, all: this.all.length }));
    text(this.empty, this.onlyStars && !this.search.value ? t("noStars") : t("noMatch"));
    this.empty.hidden = this.rows.length > 0 || this.all.length === 0;
    for (const [key, button] of this.heads) {
      const how = this.order.key === key ? (this.order.down ? "descending" : "ascending") : "none";
      set(button.parentElement as HTMLElement, { "aria-sort": how });
    }
    this.later();
  }

  private reveal(): void {
    const at = this.rows.findIndex((row) => row.symbol === this.selected);
    if (at < 0) return;
    const { scrollTop, clientHeight } = this.frame;
    const room = clientHeight - ROW_PX;
    const top = at * ROW_PX;
    const above = scrollTop - top;
    const below = top + ROW_PX - scrollTop - room;
    if (above <= 0 && below <= 0) return;
    // Step by step at the edge; from further away into the middle.
    if (Math.max(above, below) > 2 * ROW_PX) this.frame.scrollTop = top - (room - ROW_PX) / 2;
    else this.frame.scrollTop = above > 0 ? top : top + ROW_PX - room;
  }

  private later(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.draw();
    });
  }

  private draw(): void {
    const top = this.frame.scrollTop;
    const first = Math.max(0, Math.floor(top / ROW_PX) - SPARE);
    const last = Math.min(this.rows.length, Math.ceil((top + this.frame.clientHeight) / ROW_PX) + SPARE);
    const needed = Math.max(0, last - first);
    while (this.views.length < needed) this.views.push(this.make());
    // A row keeps its view while it is in sight, so that scrolling by one redraws one.
    this.views.forEach((view, slot) => {
      const count = this.views.length;
      const index = first + ((((slot - first) % count) + count) % count);
      const row = index < last ? this.rows[index] : undefined;
      view.element.hidden = !row;
      if (row) this.fill(view, row, index);
    });
    const seen = this.rows.slice(first, last).map((row) => row.symbol);
    const key = seen.join();
    if (key !== this.seen) {
      this.seen = key;
      this.host.seen(seen);
    }
    const at = this.rows.findIndex((row) => row.symbol === this.selected);
    set(this.frame, { "aria-activedescendant": at >= first && at < last ? `row-${at}` : null });
  }

  private make(): RowView {
    const star = h("button", { type: "button", class: "star", tabindex: -1 });
    const symbol = h("span", { class: "symbol" });
    const line = s("path", { class: "spark-line" });
    const last = h("div", { role: "gridcell", class: "num last" });
    const change = h("div", { role: "gridcell", class: "num change" });
    const volume = h("div", { role: "gridcell", class: "num volume" });
    const state = h("div", { role: "gridcell", class: "state" });
    const svg = s("svg", { class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, "aria-hidden": "true" }, line);
    const element = h(
      "div",
      { class: "row", role: "row" },
      h("div", { role: "gridcell", class: "name" }, star, symbol),
      last,
      change,
      volume,
      h("div", { role: "gridcell", class: "spark-cell" }, svg),
      state,
    );
    const view: RowView = { element, star, symbol, last, change, volume, line, state, shows: "" };
    on(star, "click", (event) => {
      event.stopPropagation();
      this.toggleStar(view.symbol.textContent ?? "");
    });
    on(element, "click", () => this.host.chose(view.symbol.textContent ?? ""));
    this.space.append(element);
    return view;
  }

  private fill(view: RowView, row: OverviewRow, index: number): void {
    const { element } = view;
    const place = `translateY(${index * ROW_PX}px)`;
    if (element.style.transform !== place) element.style.transform = place;
    const chosen = row.symbol === this.selected;
    set(element, { id: `row-${index}`, "aria-rowindex": index + 2, "aria-selected": String(chosen) });
    text(view.last, this.live.get(row.symbol)?.close ?? row.last ?? "–");
    const starred = this.host.stars().has(row.symbol);
    const shows = keyOf(row, starred);
    if (view.shows === shows) return;
    view.shows = shows;
    text(view.symbol, row.symbol);
    set(view.symbol, { title: row.symbol });
    text(view.star, starred ? "★" : "☆");
    set(view.star, { "aria-pressed": String(starred), "aria-label": t(starred ? "unstar" : "star", { symbol: row.symbol }) });
    text(view.change, percent(row.change_24h_pct));
    view.change.className = `num change ${signOf(row.change_24h_pct)}`;
    text(view.volume, brief(row.quote_volume_24h === null ? null : Number(row.quote_volume_24h)));
    set(view.line, { d: sparkPath(row.spark, SPARK.width, SPARK.height) });
    const trend = (row.spark.at(-1) ?? 0) - (row.spark[0] ?? 0);
    view.line.setAttribute("class", `spark-line ${signOf(trend)}`);
    const trading = isTrading(row);
    text(view.state, trading ? (row.pending > 0 ? `◌ ${row.pending}` : "✓") : "■");
    view.state.className = `state ${trading ? (row.pending > 0 ? "pending" : "verified") : "halted"}`;
    const said = trading ? (row.pending > 0 ? t("rowState", { n: row.pending }) : t("rowVerified")) : t("notTrading", { status: row.status });
    set(view.state, { title: said, "aria-label": said });
  }

  private searchKey(event: KeyboardEvent): void {
    if (event.key === "Escape") {
      this.search.value = "";
      this.rearrange(true);
      this.search.blur();
    } else if (event.key === "Enter") {
      const [first] = this.rows;
      if (first) {
        this.search.value = "";
        this.rearrange(false);
        this.host.chose(first.symbol);
        this.search.blur();
      }
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      this.frame.focus();
    }
  }
}

/** Whether what a row shows, but for its price, is still the same. */
function keyOf(row: OverviewRow, starred: boolean): string {
  const { symbol, status, change_24h_pct: change, quote_volume_24h: volume, pending, last_minute_ms: minute, spark } = row;
  return `${symbol}|${starred}|${status}|${change}|${volume}|${pending}|${minute}|${spark.length}|${spark.at(-1)}`;
}

const signOf = (value: number | null): string => (value === null || value === 0 ? "" : value > 0 ? "up" : "down");
