// The switches: how many charts, the time zone, the theme, the language, the help.

import { h, on, set, text } from "../dom";
import type { Zone } from "../format";
import type { Theme } from "../state";
import { t, type Word } from "../words";

export interface ControlsHost {
  setCharts(count: number): void;
  setZone(zone: Zone): void;
  nextTheme(): void;
  nextLanguage(): void;
  help(): void;
}

const THEME_SIGNS: Readonly<Record<Theme, string>> = { auto: "◐", light: "○", dark: "●" };
const THEME_WORDS: Readonly<Record<Theme, Word>> = { auto: "themeAuto", light: "themeLight", dark: "themeDark" };

function button(className: string, act: () => void): HTMLButtonElement {
  const made = h("button", { type: "button", class: className });
  on(made, "click", act);
  return made;
}

export class Controls {
  /** In the status line. */
  readonly page: HTMLElement;
  /** Above the charts. */
  readonly charts: HTMLElement;
  private readonly theme: HTMLButtonElement;
  private readonly language: HTMLButtonElement;
  private readonly help: HTMLButtonElement;
  private readonly counts: readonly HTMLButtonElement[];
  private readonly zones: readonly (readonly [Zone, HTMLButtonElement])[];
  private readonly countGroup: HTMLElement;
  private readonly zoneGroup: HTMLElement;
  private readonly signs: readonly (readonly [Word, HTMLElement])[];

  constructor(host: ControlsHost) {
    this.theme = button("tool theme", () => host.nextTheme());
    this.language = button("tool language", () => host.nextLanguage());
    this.help = button("tool help-button", () => host.help());
    text(this.help, "?");
    this.page = h("span", { class: "tools" }, this.theme, this.language, this.help);
    this.counts = [1, 2].map((n) => {
      const made = button("", () => host.setCharts(n));
      text(made, String(n));
      return made;
    });
    this.zones = (["utc", "local"] as const).map((zone) => [zone, button("", () => host.setZone(zone))] as const);
    this.countGroup = h("div", { class: "segments count-group", role: "group" }, ...this.counts);
    this.zoneGroup = h("div", { class: "segments", role: "group" }, ...this.zones.map(([, made]) => made));
    this.signs = (["legendSolid", "legendHollow", "legendDashed", "legendRevised"] as const).map((word) => [word, h("span")] as const);
    const names = ["solid", "hollow", "dashed", "revised"];
    const key = h("div", { class: "key" });
    this.signs.forEach(([, label], index) => key.append(h("span", { class: "key-item" }, h("span", { class: `sign sign-${names[index]}`, "aria-hidden": "true" }), label)));
    this.charts = h("div", { class: "chart-tools" }, key, this.countGroup, this.zoneGroup);
  }

  show(charts: number, zone: Zone, theme: Theme): void {
    this.counts.forEach((made, index) => set(made, { "aria-pressed": String(charts === index + 1), "aria-label": t(index ? "twoCharts" : "oneChart"), title: t(index ? "twoCharts" : "oneChart") }));
    for (const [name, made] of this.zones) {
      text(made, t(name));
      set(made, { "aria-pressed": String(name === zone) });
    }
    set(this.countGroup, { "aria-label": t("charts") });
    set(this.zoneGroup, { "aria-label": t("timeZone") });
    text(this.theme, THEME_SIGNS[theme]);
    set(this.theme, { title: t(THEME_WORDS[theme]), "aria-label": t(THEME_WORDS[theme]) });
    text(this.language, t("language"));
    set(this.language, { title: t("languageTitle"), "aria-label": t("languageTitle") });
    set(this.help, { title: t("help"), "aria-label": t("help") });
    for (const [word, label] of this.signs) text(label, t(word));
  }
}
