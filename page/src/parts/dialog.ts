// A dialog that gives the focus back, closes by Escape, by its button and by a click beside it.

import { h, on, set } from "../dom";
import { t } from "../words";

let open: HTMLDialogElement | null = null;

export function showDialog(title: string, kind: string, ...content: (Node | string)[]): HTMLDialogElement {
  open?.close();
  const shut = h("button", { type: "button", class: "shut", "aria-label": t("shut"), title: t("shut") }, "×");
  const heading = h("h2", { id: "dialog-title" }, title);
  const dialog = h("dialog", { class: kind, "aria-labelledby": "dialog-title" }, h("header", {}, heading, shut), h("div", { class: "dialog-body" }, ...content));
  on(shut, "click", () => dialog.close());
  on(dialog, "click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  on(dialog, "close", () => {
    dialog.remove();
    if (open === dialog) open = null;
  });
  document.body.append(dialog);
  open = dialog;
  dialog.showModal();
  return dialog;
}

export const dialogIsOpen = (): boolean => open?.open === true;

export function table(head: readonly string[], rows: readonly (readonly (string | Node)[])[]): HTMLElement {
  const made = h("table", {}, h("thead", {}, h("tr", {}, ...head.map((one) => h("th", { scope: "col" }, one)))));
  const body = h("tbody");
  for (const row of rows) body.append(h("tr", {}, ...row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : h("td", {}, cell)))));
  made.append(body);
  const frame = h("div", { class: "scroll" }, made);
  set(frame, { tabindex: 0 });
  return frame;
}
