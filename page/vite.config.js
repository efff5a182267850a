// The build: hashed files, nothing inlined (the page's policy allows no inline script, style or data address), and a record of
// what it was built from, by which a test without Node sees a build that was forgotten.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import { defineConfig } from "vite";

const root = import.meta.dirname;
const built = join(root, "../src/klagg/serve/page/built");

/** Every file below a folder, as paths with forward slashes, sorted. */
function filesOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .sort();
}

/** One SHA-256 over names and contents: klagg's tests/browser/test_build.py computes the same. */
function digest(folder, names) {
  const hash = createHash("sha256");
  for (const name of names) {
    hash.update(`${name}\0`);
    hash.update(readFileSync(join(folder, name)));
    hash.update("\0");
  }
  return hash.digest("hex");
}

/** Writes what was built from what beside it. */
function record() {
  let folder = built;
  return {
    name: "klagg-build-record",
    configResolved(config) {
      folder = resolve(config.root, config.build.outDir);
    },
    closeBundle() {
      const sources = filesOf(root).filter((name) => !name.startsWith("node_modules/"));
      const files = filesOf(folder).filter((name) => name !== "BUILD.json");
      const told = { sources: digest(root, sources), built: digest(folder, files) };
      writeFileSync(join(folder, "BUILD.json"), `${JSON.stringify(told, null, 2)}\n`);
    },
  };
}

export default defineConfig({
  root,
  base: "/",
  plugins: [record()],
  build: {
    outDir: built,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
    rollupOptions: { output: { entryFileNames: "assets/[name]-[hash].js" } },
  },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8420", ws: true } } },
});
