import { App } from "./app";

declare global {
  interface Window {
    /** What the page holds, for the browser tests and for the curious. */
    klagg?: { snapshot(): unknown };
  }
}

const app = new App();
window.klagg = { snapshot: () => app.snapshot() };
const root = document.getElementById("page");
if (root) app.start(root);
