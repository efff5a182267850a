// The page as a whole: what is asked when, what the feed changes, what the viewer chooses.

import * as api from "./data/api";
import { Feed, type FeedListener } from "./data/feed";
import { Poll } from "./data/poll";
import { ServerTime } from "./data/time";
import type { FeedEvent, MarketStatus, Ops, Status } from "./data/wire";
import { h } from "./dom";
import { span, type Zone } from "./format";
import { onKeys } from "./keys";
import { applyHealth, applyTheme, onSystemTheme } from "./look";
import { Controls } from "./parts/controls";
import { Events } from "./parts/events";
import { showHelp } from "./parts/help";
import { SymbolList } from "./parts/list";
import { Minutes, MINUTES_SHOWN } from "./parts/minutes";
import { OpsCharts } from "./parts/ops";
import { ChartPane } from "./parts/pane";
import { type Standing, StatusLine, standingOf } from "./parts/statusline";
import { type Choice, INTERVALS, type Theme, Stars, memory, readChoice, writeAddress } from "./state";
import { speak } from "./words";

const STATUS_MS = 2_000;
const OVERVIEW_MS = 3_000;
const OVERVIEW_MOST_MS = 15_000;
const MINUTES_MS = 15_000;
const OPS_MS = 5_000;
const EVENTS_MS = 60_000;
/** The feed beats every 5 s: silent for longer, what is shown is stale. Without a connection it is so at once. */
const SILENT_MS = 8_000;
const PARTED_MS = 2_000;
/** Events before the newest that a page begins with, and the most that it asks for at a time. */
const EVENTS_BACK = 20_000;
const EVENTS_PAGE = 2_000;
const EVENT_KINDS = "gap,symbol_added,symbol_retired";
/** What a new viewer sees first where it is traded. */
const FAVOURITE = "BTCUSDT";
const FOLLOW_MS = 120;

export class App implements FeedListener {
  readonly time = new ServerTime();
  private readonly choice: Choice = readChoice(new URLSearchParams(location.search));
  private stars_ = new Stars(this.choice.market);
  private status: Status | null = null;
  private ops: Ops | null = null;
  private scales = new Map<string, number>();
  private standing: Standing = { health: "waiting", word: "", why: "" };
  private heardAt = performance.now();
  private standsConnected = false;
  private wasConnected = false;
  private seen: readonly string[] = [];
  private eventsSeq: number | null = null;
  private followTimer: number | undefined;

  private readonly feed = new Feed(this);
  private readonly controls = new Controls(this);
  private readonly line = new StatusLine(this, this.controls.page);
  private readonly list = new SymbolList({
    stars: () => this.stars_,
    chose: (symbol) => this.setSymbol(symbol),
    seen: (symbols) => {
      this.seen = symbols;
      this.feed.followOpen(this.openInterest());
    },
  });
  private readonly minutes = new Minutes(
    () => this.choice.zone,
    (symbol) => this.setSymbol(symbol),
  );
  private readonly opsCharts = new OpsCharts();
  private readonly events = new Events(() => this.choice.zone);
  private readonly charts = h("div", { class: "charts" });
  private panes: ChartPane[] = [];

  private readonly polls = {
    status: new Poll(STATUS_MS, () => this.askStatus()),
    overview: new Poll(OVERVIEW_MS, () => this.askOverview()),
    minutes: new Poll(MINUTES_MS, async () => {
      const { market } = this.choice;
      const told = await api.minutes(market, MINUTES_SHOWN);
      if (market === this.choice.market) this.minutes.show(told);
    }),
    ops: new Poll(OPS_MS, async () => {
      this.ops = await api.ops(this.choice.market).catch((error: unknown) => {
        if (error instanceof api.Refused) return null;
        throw error;
      });
      this.opsCharts.show(this.ops, this.market_());
    }),
    events: new Poll(EVENTS_MS, () => this.askEvents()),
  };

  start(root: HTMLElement): void {
    speak(this.choice.language);
    applyTheme(this.choice.theme);
    root.replaceChildren(
      this.line.element,
      h(
        "main",
        {},
        h("div", { class: "chart-area" }, this.controls.charts, this.charts),
        this.list.element,
        h("div", { class: "below" }, this.minutes.element, this.opsCharts.element, this.events.element),
      ),
    );
    this.rebuildPanes();
    this.translate();
    onSystemTheme(() => this.repaint());
    onKeys(this.keys());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.refresh();
    });
    window.setInterval(() => this.tick(), 250);
    void this.begin();
  }

  // What the parts ask for

  market(): string {
    return this.choice.market;
  }

  zone(): Zone {
    return this.choice.zone;
  }

  scale(symbol: string): number | null {
    return this.scales.get(symbol) ?? null;
  }

  chose(pane: ChartPane): void {
    if (this.choice.active === pane.number) return;
    this.choice.active = pane.number;
    this.mark();
  }

  changedInterval(): void {
    this.followSoon();
    writeAddress(this.choice);
  }

  setMarket(market: string): void {
    if (market === this.choice.market) return;
    this.choice.market = market;
    this.stars_ = new Stars(market);
    for (const pane of this.choice.panes) pane.symbol = "";
    this.eventsSeq = null;
    // Another market's feed has no number to go on from: it begins as the first one did.
    this.standsConnected = this.wasConnected = false;
    this.events.clear();
    this.list.show([]);
    this.minutes.show([]);
    this.rebuildPanes();
    void this.enter();
  }

  setCharts(count: number): void {
    const { panes } = this.choice;
    if (count === panes.length) return;
    if (count === 2) {
      const next = this.list.symbols.find((symbol) => symbol !== panes[0]?.symbol);
      panes.push({ symbol: next ?? panes[0]?.symbol ?? "", interval: panes[0]?.interval ?? "1m" });
    } else {
      panes.splice(0, panes.length, panes[this.choice.active] ?? (panes[0] as (typeof panes)[number]));
    }
    this.choice.active = panes.length - 1;
    this.rebuildPanes();
    this.follow();
    this.translate();
  }

  setZone(zone: Zone): void {
    this.choice.zone = zone;
    memory.set("tz", zone);
    this.translate();
    for (const pane of this.panes) pane.repaint();
  }

  nextTheme(): void {
    const order: readonly Theme[] = ["auto", "light", "dark"];
    this.choice.theme = order[(order.indexOf(this.choice.theme) + 1) % order.length] as Theme;
    memory.set("theme", this.choice.theme);
    this.repaint();
    this.translate();
  }

  nextLanguage(): void {
    this.choice.language = this.choice.language === "en" ? "zh" : "en";
    memory.set("lang", this.choice.language);
    speak(this.choice.language);
    this.translate();
  }

  help(): void {
    showHelp(this.status?.version ?? "");
  }

  // What the feed tells

  event(event: FeedEvent): void {
    this.heardAt = performance.now();
    if (event.now_ms !== undefined) this.time.told(event.now_ms);
    if (event.candle) {
      for (const pane of this.panes) pane.take(event.candle);
      if (event.kind === "candle_open") this.list.take(event.candle);
    }
    if (event.kind === "candle_revised") this.events.feed([event]);
    else if (event.kind === "barrier_durable" || event.kind === "barrier_verified") this.boundary();
    else if (event.kind === "symbol_added" || event.kind === "symbol_retired") {
      void this.askSymbols().catch(() => undefined);
      for (const pane of this.panes) if (pane.pane.symbol === event.symbol && !pane.series.last) pane.begin();
    }
    else if (event.kind === "cut") {
      this.events.own(this.time.now(), "evCut");
      for (const pane of this.panes) void pane.load();
    }
    if (this.standing.health === "stale") this.tick();
  }

  connected(yes: boolean): void {
    if (yes && !this.standsConnected) {
      if (this.wasConnected) this.events.own(this.time.now(), "evBack");
      this.wasConnected = true;
      this.refresh();
      // Whatever happened while nothing was heard: the newest page puts it right. One that only follows another symbol needs none,
      // since it goes on by number.
      for (const pane of this.panes) void pane.load();
    } else if (!yes && this.standsConnected) this.events.own(this.time.now(), "evLost");
    this.standsConnected = yes;
    this.tick();
  }

  /** For the tests: what the page holds, and nothing to change it by. */
  snapshot(): Record<string, unknown> {
    return {
      choice: structuredClone(this.choice),
      standing: this.standing,
      status: this.status,
      seq: this.feed.seq,
      nowMs: this.time.now(),
      panes: this.panes.map((pane) => pane.snapshot()),
      symbols: this.list.symbols,
    };
  }

  // Asking

  private async begin(): Promise<void> {
    this.polls.status.now();
    await this.known();
    await this.enter();
  }

  /** Until the status is there and with it the market. */
  private async known(): Promise<void> {
    while (!this.market_()) await new Promise((resolve) => window.setTimeout(resolve, 50));
  }

  /** Begin with the chosen market. */
  private async enter(): Promise<void> {
    await this.askSymbols().catch(() => undefined);
    this.polls.overview.now();
    this.polls.minutes.now();
    this.polls.ops.now();
    this.polls.events.now();
    if (this.choice.panes.every((pane) => pane.symbol)) this.open();
  }

  private open(): void {
    this.follow();
    for (const pane of this.panes) pane.begin();
    this.mark();
  }

  private refresh(): void {
    if (!this.market_()) return;
    this.polls.status.soon();
    this.polls.overview.soon();
    this.polls.minutes.soon();
    this.polls.events.soon();
  }

  private boundary(): void {
    if (this.market_()?.history_progress) for (const pane of this.panes) pane.grown();
    this.polls.status.soon();
    this.polls.minutes.soon();
    this.polls.events.soon();
    this.polls.overview.soon();
  }

  private async askStatus(): Promise<void> {
    const status = await api.status();
    const loaded = this.market_()?.history_progress;
    this.status = status;
    if (loaded && this.market_()?.history_progress === null) for (const pane of this.panes) pane.grown();
    this.time.told(status.now_ms);
    // While there is no feed yet, an answer is the sign of life.
    if (!this.wasConnected) this.heardAt = performance.now();
    const { markets } = status;
    if (!markets.some((one) => one.market === this.choice.market)) {
      this.choice.market = markets[0]?.market ?? "";
      this.stars_ = new Stars(this.choice.market);
    }
    this.events.notes(status.notes, this.choice.market);
    this.opsCharts.show(this.ops, this.market_());
    this.tick();
    this.line.show(this.standing, status, this.market_());
  }

  private async askOverview(): Promise<void> {
    const { market } = this.choice;
    const told = await api.overview(market);
    if (market !== this.choice.market) return;
    this.list.show(told.symbols);
    // Thousands of rows are megabytes: those in sight move by the feed, and every boundary asks anew.
    this.polls.overview.everyMs = Math.min(OVERVIEW_MOST_MS, Math.max(OVERVIEW_MS, told.symbols.length * 5));
    if (this.scales.size === 0) await this.askSymbols();
    for (const pane of this.panes) pane.loadMissing();
    if (told.symbols.length === 0 || this.choice.panes.every((pane) => pane.symbol)) return;
    const known = told.symbols.some((row) => row.symbol === FAVOURITE) ? FAVOURITE : this.list.firstSymbol;
    for (const pane of this.choice.panes) pane.symbol ||= known ?? "";
    this.open();
  }

  private async askSymbols(): Promise<void> {
    const rows = await api.symbols(this.choice.market);
    this.scales = new Map(rows.map((row) => [row.symbol, row.price_scale]));
  }

  private async askEvents(): Promise<void> {
    const { market } = this.choice;
    if (this.eventsSeq === null) {
      const newest = (await api.events(market, 0, EVENT_KINDS, 1)).newest_seq;
      this.eventsSeq = Math.max(0, newest - EVENTS_BACK);
    }
    const page = await api.events(market, this.eventsSeq, EVENT_KINDS, EVENTS_PAGE);
    if (market !== this.choice.market) return;
    this.events.feed(page.events);
    this.eventsSeq = page.next_seq;
    if (page.events.length >= EVENTS_PAGE) this.polls.events.soon();
  }

  // Following

  private follow(): void {
    window.clearTimeout(this.followTimer);
    writeAddress(this.choice);
    const { market, panes } = this.choice;
    if (!market || panes.some((pane) => !pane.symbol)) return;
    const interest = { market, symbols: unique(panes.map((pane) => pane.symbol)), intervals: unique(panes.map((pane) => pane.interval)) };
    this.feed.follow(interest, this.openInterest());
  }

  /** Who goes through the list quickly makes one connection, not one for each symbol passed. */
  private followSoon(): void {
    window.clearTimeout(this.followTimer);
    this.followTimer = window.setTimeout(() => this.follow(), FOLLOW_MS);
  }

  private openInterest(): { symbols: readonly string[]; intervals: readonly string[] } {
    const { panes } = this.choice;
    return {
      symbols: unique([...panes.map((pane) => pane.symbol), ...this.seen]),
      intervals: unique(["1m", ...panes.map((pane) => pane.interval)]),
    };
  }

  private setSymbol(symbol: string): void {
    if (!symbol) return;
    this.panes[this.choice.active]?.setSymbol(symbol);
    this.mark();
    this.followSoon();
    writeAddress(this.choice);
  }

  // Drawing

  private rebuildPanes(): void {
    for (const pane of this.panes) pane.destroy();
    this.panes = this.choice.panes.map((pane, number) => new ChartPane(number, pane, this));
    this.charts.replaceChildren(...this.panes.map((pane) => pane.element));
    this.charts.dataset["count"] = String(this.panes.length);
    if (this.market_() && this.choice.panes.every((pane) => pane.symbol)) for (const pane of this.panes) pane.begin();
    this.mark();
  }

  private mark(): void {
    this.panes.forEach((pane, number) => pane.mark(this.panes.length > 1 && number === this.choice.active));
    this.list.select(this.choice.panes[this.choice.active]?.symbol ?? "");
    this.tick();
  }

  private repaint(): void {
    applyTheme(this.choice.theme);
    for (const pane of this.panes) pane.repaint();
  }

  private translate(): void {
    const { panes, zone, theme } = this.choice;
    this.controls.show(panes.length, zone, theme);
    for (const part of [this.list, this.minutes, this.opsCharts, this.events, ...this.panes]) part.translate();
    this.line.show(this.standing, this.status, this.market_());
    writeAddress(this.choice);
    this.tick();
  }

  private tick(): void {
    const silentMs = performance.now() - this.heardAt;
    const limitMs = this.wasConnected && !this.standsConnected ? PARTED_MS : SILENT_MS;
    this.standing = standingOf(this.status, this.market_(), silentMs, limitMs, this.time.now());
    const { health, word, why } = this.standing;
    this.line.stand(this.standing);
    const fresh = health !== "stale" && this.status !== null;
    this.line.tick(fresh);
    for (const pane of this.panes) pane.tick(fresh);
    const pane = this.panes[this.choice.active];
    const close = pane?.series.last?.close;
    const name = close && pane ? `${pane.pane.symbol} ${close}` : this.choice.market;
    const age = health === "stale" ? ` ${span(silentMs)}` : "";
    applyHealth(health, health === "live" ? `${name} · klagg` : `${health === "waiting" ? "…" : "⚠"} ${word}${age} · ${name || why} · klagg`);
  }

  private market_(): MarketStatus | null {
    return this.status?.markets.find((one) => one.market === this.choice.market) ?? null;
  }

  private keys(): Record<string, () => void> {
    const actions: Record<string, () => void> = {
      "/": () => this.list.focusSearch(),
      j: () => this.list.move(1),
      k: () => this.list.move(-1),
      s: () => this.list.toggleStar(this.choice.panes[this.choice.active]?.symbol ?? ""),
      c: () => this.setCharts(this.choice.panes.length === 1 ? 2 : 1),
      x: () => {
        const next = this.panes[(this.choice.active + 1) % this.panes.length];
        if (next) this.chose(next);
      },
      u: () => this.setZone(this.choice.zone === "utc" ? "local" : "utc"),
      t: () => this.nextTheme(),
      "?": () => this.help(),
    };
    INTERVALS.forEach((interval, index) => {
      actions[String(index + 1)] = () => this.panes[this.choice.active]?.setInterval(interval);
    });
    return actions;
  }
}

const unique = (values: readonly string[]): string[] => [...new Set(values)].filter(Boolean);
