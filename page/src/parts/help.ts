// The keys and the signs, and the notices that the page owes.

import { h } from "../dom";
import { t, type Word } from "../words";
import { showDialog } from "./dialog";

const KEYS: readonly (readonly [string, Word])[] = [
  ["/", "keySearch"],
  ["1 – 7", "keyIntervals"],
  ["j  k", "keyMove"],
  ["s", "keyStar"],
  ["c  x", "keyCharts"],
  ["u", "keyZone"],
  ["t", "keyTheme"],
  ["← →", "keyCandle"],
  ["?", "keyHelp"],
];
const SIGNS: readonly (readonly [string, Word])[] = [
  ["solid", "signSolid"],
  ["hollow", "signHollow"],
  ["dashed", "signDashed"],
  ["revised", "signRevised"],
  ["taker", "signTaker"],
];

export function showHelp(version: string): void {
  const keys = h("dl", { class: "keys" });
  for (const [key, word] of KEYS) {
    const names = key.split("  ").map((one) => h("kbd", {}, one));
    keys.append(h("dt", {}, ...names), h("dd", {}, t(word)));
  }
  const signs = h("ul", { class: "signs" });
  for (const [name, word] of SIGNS) signs.append(h("li", {}, h("span", { class: `sign sign-${name}`, "aria-hidden": "true" }), t(word)));
  showDialog(
    t("help"),
    "help",
    h("h3", {}, t("keys")),
    keys,
    h("h3", {}, t("signs")),
    signs,
    h("p", { class: "hint" }, t("version", { v: version }), " · ", h("a", { href: "/v1/docs", target: "_blank" }, t("docs"))),
    h("p", { class: "hint" }, t("notice"), ", ", h("a", { href: "/assets/NOTICE.txt", target: "_blank" }, "NOTICE"), " · ", h("a", { href: "https://www.tradingview.com/", rel: "noreferrer noopener", target: "_blank" }, "tradingview.com")),
  );
}
