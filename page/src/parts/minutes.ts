// The last minutes as cells: verified, pending, gap. One cell in the tab order; arrows move; a click tells the symbols.

import type { Minute } from "../data/wire";
import { h, on, set, text } from "../dom";
import { clock, type Zone } from "../format";
import { t } from "../words";
import { showDialog } from "./dialog";

export const MINUTES_SHOWN = 60;

export class Minutes {
  readonly element: HTMLElement;
  private readonly title = h("h2");
  private readonly hint = h("span", { class: "hint" });
  private readonly cells = h("div", { class: "cells", role: "toolbar" });
  private minutes: readonly Minute[] = [];
  private focus = MINUTES_SHOWN - 1;

  constructor(
    private readonly zone: () => Zone,
    private readonly chose: (symbol: string) => void,
  ) {
    this.element = h("section", { class: "strip minutes" }, h("header", {}, this.title, this.hint), this.cells);
    on(this.cells, "keydown", (event) => this.key(event));
    this.translate();
  }

  translate(): void {
    text(this.title, t("minutes"));
    text(this.hint, t("minutesHint", { n: MINUTES_SHOWN }));
    set(this.element, { "aria-label": t("minutes") });
    set(this.cells, { "aria-label": t("minutes") });
    this.draw();
  }

  show(minutes: readonly Minute[]): void {
    this.minutes = [...minutes].sort((a, b) => a.open_time_ms - b.open_time_ms).slice(-MINUTES_SHOWN);
    this.draw();
  }

  private draw(): void {
    const { minutes } = this;
    this.focus = Math.min(this.focus, Math.max(0, minutes.length - 1));
    while (this.cells.children.length > minutes.length) this.cells.lastElementChild?.remove();
    while (this.cells.children.length < minutes.length) {
      const cell = h("button", { type: "button" });
      on(cell, "click", () => this.open([...this.cells.children].indexOf(cell)));
      this.cells.append(cell);
    }
    minutes.forEach((minute, index) => {
      const cell = this.cells.children[index] as HTMLElement;
      const { symbols, verified, pending, gap } = minute;
      const time = clock(minute.open_time_ms, this.zone());
      const said = t("minuteCell", { time, verified, symbols, pending, gap });
      // A minute that no symbol has is from before the stored history, not a hole in it.
      const kind = verified + pending === 0 ? "absent" : gap > 0 ? "gap" : pending > 0 ? "pending" : "verified";
      const tenth = index % 10 === 0 || index === minutes.length - 1;
      set(cell, { class: `cell ${kind}`, title: said, "aria-label": said, tabindex: index === this.focus ? 0 : -1, "data-time": tenth ? time : null });
      cell.style.setProperty("--share", symbols > 0 ? (verified / symbols).toFixed(3) : "1");
    });
  }

  private open(index: number): void {
    const minute = this.minutes[index];
    if (!minute) return;
    this.focus = index;
    this.draw();
    const { symbols, verified, pending, gap } = minute;
    const parts: Node[] = [];
    const time = clock(minute.open_time_ms, this.zone());
    parts.push(h("p", {}, t("minuteCell", { time, verified, symbols, pending, gap })));
    if (pending > 0) parts.push(this.names(t("minutePending"), minute.pending_symbols, pending));
    if (gap > 0) parts.push(this.names(t("minuteGap"), minute.gap_symbols, gap));
    if (pending === 0 && gap === 0) parts.push(h("p", {}, t("minuteFine")));
    const dialog = showDialog(`${t("minutes")} ${time}`, "minute", ...parts);
    on(dialog, "click", (event) => {
      if (event.target instanceof HTMLElement && event.target.matches("button.symbol-link")) dialog.close();
    });
  }

  private names(title: string, symbols: readonly string[], all: number): Node {
    const list = h("ul", { class: "names" });
    for (const symbol of symbols) {
      const link = h("button", { type: "button", class: "symbol-link" }, symbol);
      on(link, "click", () => this.chose(symbol));
      list.append(h("li", {}, link));
    }
    const more = all - symbols.length;
    return h("div", {}, h("h3", {}, title), list, more > 0 ? h("p", {}, t("minuteMore", { n: more })) : null);
  }

  private key(event: KeyboardEvent): void {
    const last = this.minutes.length - 1;
    const to = { ArrowLeft: this.focus - 1, ArrowRight: this.focus + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.focus = Math.max(0, Math.min(last, to));
    this.draw();
    (this.cells.children[this.focus] as HTMLElement | undefined)?.focus();
  }
}
