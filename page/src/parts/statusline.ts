// The first line: is what stands below true now? Live or how old, how late the last minute closed, how much is verified, what comes next.

import type { ServerTime } from "../data/time";
import type { MarketStatus, Status } from "../data/wire";
import { h, on, s, set, text } from "../dom";
import { clock, count, lag, share, span, type Zone } from "../format";
import { t } from "../words";

const MINUTE_MS = 60_000;
/** A market whose newest closed minute ended longer ago than this is behind. */
export const BEHIND_MS = 90_000;

export type Health = "live" | "waiting" | "stale" | "trouble";

/** How the page stands, from what was heard and when. */
export interface Standing {
  readonly health: Health;
  readonly word: string;
  /** Why it is not live, in one short text. */
  readonly why: string;
}

export function standingOf(status: Status | null, market: MarketStatus | null, silentMs: number, limitMs: number, nowMs: number): Standing {
  if (!status) {
    const why = silentMs > limitMs ? t("age", { age: span(silentMs) }) : "";
    return { health: silentMs > limitMs ? "stale" : "waiting", word: t("waiting"), why };
  }
  if (silentMs > limitMs) return { health: "stale", word: t("stale"), why: t("age", { age: span(silentMs) }) };
  const newest = market ? newestOf(market) : null;
  if (newest && nowMs - newest > BEHIND_MS) {
    return { health: "trouble", word: t("behind"), why: t("ageShort", { age: span(nowMs - newest) }) };
  }
  if (!status.ready) {
    const starting = !newest;
    const why = status.missing.join("; ") || market?.phase || "";
    return { health: starting ? "waiting" : "trouble", word: t(starting ? "starting" : "notReady"), why };
  }
  return { health: "live", word: t("live"), why: "" };
}

/** The end of the newest minute that is closed; where klagg only reads a database, that is durable. */
const newestOf = (market: MarketStatus): number | null => market.boundary_ms ?? market.durable_ms;

export interface StatusHost {
  readonly time: ServerTime;
  zone(): Zone;
  setMarket(market: string): void;
}

export class StatusLine {
  readonly element: HTMLElement;
  private readonly dot = h("span", { class: "dot", "aria-hidden": "true" });
  private readonly word = h("strong", { class: "word" });
  private readonly why = h("span", { class: "why" });
  private readonly market = h("select", { class: "market" });
  private readonly symbols = h("span", { class: "fact symbols" });
  private readonly closed = h("span", { class: "fact closed" });
  private readonly verified = h("span", { class: "fact verified-share" });
  private readonly history = h("span", { class: "fact history-share", hidden: true });
  private readonly next = h("span", { class: "next-text" });
  private readonly pie = s("circle", { class: "pie", cx: 8, cy: 8, r: 3.5, pathLength: 60 });
  private readonly nextFact: HTMLElement;
  private said = "";

  constructor(
    private readonly host: StatusHost,
    controls: HTMLElement,
  ) {
    const ring = s("svg", { class: "ring", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("circle", { class: "ring-rim", cx: 8, cy: 8, r: 7 }), this.pie);
    this.nextFact = h("span", { class: "fact next" }, ring, this.next);
    this.element = h(
      "header",
      { class: "status" },
      h("span", { class: "standing", role: "status", "aria-live": "polite" }, this.dot, this.word, this.why),
      this.market,
      this.symbols,
      this.closed,
      this.verified,
      this.history,
      this.nextFact,
      controls,
    );
    on(this.market, "change", () => this.host.setMarket(this.market.value));
  }

  /** Everything that status tells. */
  show(standing: Standing, status: Status | null, market: MarketStatus | null): void {
    this.stand(standing);
    set(this.market, { "aria-label": t("market") });
    const names = status?.markets.map((one) => one.market) ?? [];
    if (names.join() !== this.said) {
      this.said = names.join();
      this.market.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
      this.market.classList.toggle("single", names.length < 2);
      this.market.disabled = names.length < 2;
    }
    if (!market) return;
    if (this.market.value !== market.market) this.market.value = market.market;
    text(this.symbols, t("symbolsShort", { n: count(market.symbols) }));
    set(this.symbols, { title: t("symbols", { n: count(market.symbols) }) });
    const newest = newestOf(market);
    const time = newest ? clock(newest - MINUTE_MS, this.host.zone()) : "–";
    if (market.boundary_ms === null) this.closed.replaceChildren(`${time} ${t("durable")}`);
    else {
      const [closed, durable] = [h("b", {}, lag(market.closed_lag_ms)), h("b", {}, lag(market.durable_lag_ms))];
      this.closed.replaceChildren(`${t("closed", { time })} `, closed, ` ${t("durable")} `, durable);
    }
    set(this.closed, { title: t("closedTitle") });
    this.verified.replaceChildren(
      `${t("verified")} `,
      h("b", {}, share(market.verified_share)),
      market.pending === null ? "" : ` (${t("pendingCount", { n: count(market.pending) })})`,
    );
    set(this.verified, { title: t("verifiedTitle"), hidden: market.verified_share === null });
    this.sayHistory(market);
    set(this.nextFact, { title: t("nextTitle") });
  }

  private sayHistory({ history_progress: progress }: MarketStatus): void {
    this.history.hidden = progress === null;
    if (!progress) return;
    const { done, total, left_s: left } = progress;
    const known = total > 0 ? Math.floor((100 * done) / total) : 0;
    this.history.replaceChildren(`${t("history")} `, h("b", {}, `${known}%`));
    set(this.history, { title: t("historyLeft", { done: count(done), total: count(total), left: left === null ? "–" : span(left * 1_000) }) });
  }

  /** Live, or not and why: told every second. */
  stand(standing: Standing): void {
    this.element.dataset["health"] = standing.health;
    text(this.word, standing.word);
    text(this.why, standing.why);
    this.why.hidden = standing.why === "";
  }

  /** The countdown to the next minute. */
  tick(known: boolean): void {
    const left = MINUTE_MS - (this.host.time.now() % MINUTE_MS);
    text(this.next, known ? `${t("next")} ${Math.ceil(left / 1_000)}s` : `${t("next")} –`);
    // The ring is a circle drawn as a pie: its dash is the part of the minute that is over.
    this.pie.setAttribute("stroke-dasharray", known ? `${(60 - left / 1_000).toFixed(1)} 60` : "0 60");
  }
}
