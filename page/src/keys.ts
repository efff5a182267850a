// Keys that act anywhere on the page, but where one types or a dialog is open.

import { dialogIsOpen } from "./parts/dialog";

export function onKeys(actions: Readonly<Record<string, () => void>>): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || dialogIsOpen()) return;
    const { target } = event;
    if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
