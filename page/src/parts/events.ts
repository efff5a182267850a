// What has happened, newest first: the service's own notes, and the feed's events that are worth a line.

import type { FeedEvent, Note } from "../data/wire";
import { h, set, text } from "../dom";
import { clock, day, type Zone } from "../format";
import { t } from "../words";

const MINUTE_MS = 60_000;
/** Lines that are kept; older ones go. */
const KEPT = 200;
/** Symbols that a line names when many come or leave at once. */
const NAMED = 5;

interface Line {
  readonly atMs: number;
  readonly key: string;
  readonly kind: string;
  /** Said anew in whatever language is chosen. */
  readonly say: (zone: Zone) => string;
}

export class Events {
  readonly element: HTMLElement;
  private readonly title = h("h2");
  private readonly list = h("ol", { class: "event-list", tabindex: 0 });
  private readonly none = h("p", { class: "hint" });
  private lines: Line[] = [];
  private readonly known = new Set<string>();

  constructor(private readonly zone: () => Zone) {
    this.element = h("section", { class: "strip events" }, h("header", {}, this.title), this.list, this.none);
    this.translate();
  }

  translate(): void {
    text(this.title, t("events"));
    text(this.none, t("eventsNone"));
    set(this.element, { "aria-label": t("events") });
    set(this.list, { "aria-label": t("events") });
    this.draw();
  }

  clear(): void {
    this.lines = [];
    this.known.clear();
    this.draw();
  }

  notes(notes: readonly Note[], market: string): void {
    this.add(
      notes
        .filter((note) => !note.market || note.market === market)
        .map((note) => ({
          atMs: note.at_ms,
          key: `note ${note.at_ms} ${note.event} ${note.text}`,
          kind: "note",
          say: () => note.text || note.event,
        })),
    );
  }

  feed(events: readonly FeedEvent[]): void {
    this.add([...lists(events), ...events.map(lineOf)].filter((line) => line !== null));
  }

  /** What this page itself went through. */
  own(atMs: number, word: "evCut" | "evLost" | "evBack"): void {
    this.add([{ atMs, key: `own ${atMs} ${word}`, kind: "own", say: () => t(word) }]);
  }

  private add(lines: readonly Line[]): void {
    const oldest = this.lines.length >= KEPT ? (this.lines.at(-1)?.atMs ?? 0) : Number.NEGATIVE_INFINITY;
    const fresh = lines.filter((line) => line.atMs > oldest && !this.known.has(line.key));
    if (fresh.length === 0) return;
    for (const line of fresh) this.known.add(line.key);
    this.lines = [...this.lines, ...fresh].sort((a, b) => b.atMs - a.atMs);
    for (const gone of this.lines.splice(KEPT)) this.known.delete(gone.key);
    this.draw();
  }

  private draw(): void {
    const zone = this.zone();
    const today = this.lines[0] ? day(this.lines[0].atMs, zone) : "";
    this.none.hidden = this.lines.length > 0;
    this.list.hidden = this.lines.length === 0;
    this.list.replaceChildren(
      ...this.lines.map((line) => {
        const date = day(line.atMs, zone);
        const time = clock(line.atMs, zone, true);
        return h("li", { class: `event ${line.kind}` }, h("time", {}, date === today ? time : `${date.slice(5)} ${time}`), line.say(zone));
      }),
    );
  }
}

/** Symbols that came or left at the same instant, as at a first start: one line for all of them. */
function lists(events: readonly FeedEvent[]): Line[] {
  const together = new Map<string, FeedEvent[]>();
  for (const event of events) {
    if (event.kind !== "symbol_added" && event.kind !== "symbol_retired") continue;
    const key = `${event.kind} ${event.at_ms}`;
    together.set(key, [...(together.get(key) ?? []), event]);
  }
  return [...together].map(([key, all]) => {
    const [first] = all;
    const kind = first?.kind ?? "";
    const names = all.slice(0, NAMED).map((event) => event.symbol ?? "").join(", ");
    const word = kind === "symbol_added" ? (all.length > 1 ? "evManyAdded" : "evAdded") : all.length > 1 ? "evManyRetired" : "evRetired";
    const symbol = all.length > NAMED ? `${names}, …` : names;
    return { atMs: first?.at_ms ?? 0, key, kind, say: () => t(word, { symbol, n: all.length }) };
  });
}

/** Whether an event of the feed is worth a line, and which. */
function lineOf(event: FeedEvent): Line | null {
  const { symbol = "", seq = 0, at_ms: atMs = 0 } = event;
  const line = (say: (zone: Zone) => string): Line => ({ atMs, key: `feed ${seq}`, kind: event.kind, say });
  switch (event.kind) {
    case "gap": {
      const n = Math.max(1, Math.round(((event.end_ms ?? 0) - (event.start_ms ?? 0)) / MINUTE_MS));
      return line(() => t("evGap", { symbol, n, reason: event.reason ?? "" }));
    }
    case "candle_revised": {
      const { candle } = event;
      if (!candle) return null;
      return line((zone) => t("evRevised", { symbol, interval: candle.interval, time: clock(candle.open_time_ms, zone), n: candle.revision }));
    }
    default:
      return null;
  }
}
