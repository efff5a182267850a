// Shows /v1/openapi.json and lets a request be tried. Text only ever goes in as text, never as markup.
"use strict";

const made = (name, text, attributes = {}) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

const resolved = (description, schema) => {
  while (schema && schema.$ref) schema = schema.$ref.split("/").slice(1).reduce((at, key) => at[key], description);
  return schema || {};
};

const typeOf = (description, schema) => {
  schema = resolved(description, schema);
  if (schema.oneOf || schema.anyOf)
    return (schema.oneOf || schema.anyOf).map((one) => typeOf(description, one)).filter((t) => t !== "null").join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `[${typeOf(description, schema.items)}]`;
  return schema.title && schema.properties ? schema.title : [schema.type || "any"].flat().join(" | ");
};

const shape = (description, schema, depth = 0) => {
  schema = resolved(description, schema);
  if (schema.type === "array") return [shape(description, schema.items, depth)];
  if (!schema.properties || depth > 4) return typeOf(description, schema);
  return Object.fromEntries(
    Object.entries(schema.properties).map(([key, value]) => [key, shape(description, value, depth + 1)]),
  );
};

const parameters = (description, operation, form) => {
  const table = made("table");
  for (const parameter of operation.parameters || []) {
    const row = table.appendChild(made("tr"));
    row.appendChild(made("td")).appendChild(made("code", parameter.name + (parameter.required ? " *" : "")));
    row.appendChild(made("td", typeOf(description, parameter.schema), { class: "type" }));
    row.appendChild(made("td", parameter.description || ""));
    const preset = resolved(description, parameter.schema).default;
    const input = made("input", undefined, { name: parameter.name, "aria-label": parameter.name });
    if (preset !== undefined && preset !== null) input.placeholder = preset;
    row.appendChild(made("td")).appendChild(input);
  }
  form.appendChild(table);
};

const tried = async (path, form, output) => {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  const url = `${path}${query.size ? "?" : ""}${query}`;
  output.hidden = false;
  output.textContent = `GET ${url} …`;
  try {
    const response = await fetch(url, { headers: { Accept: "application/json" } });
    const text = await response.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* shown as it came */ }
    output.textContent = `GET ${url}\n${response.status}\n\n${shown.slice(0, 20000)}`;
  } catch (error) {
    output.textContent = `GET ${url}\n${error}`;
  }
};

const operationSection = (description, path, operation) => {
  const section = made("section", undefined, { id: path });
  section.appendChild(made("h2", operation.summary || path));
  section.appendChild(made("p")).appendChild(made("code", `GET ${path}`));
  section.appendChild(made("p", operation.description || ""));
  const form = section.appendChild(made("form"));
  parameters(description, operation, form);
  const content = (operation.responses["200"] || {}).content || {};
  const streams = Object.keys(content).includes("text/event-stream");
  if (!streams) {
    const output = made("pre", "", { hidden: "" });
    form.appendChild(made("button", "Try it", { type: "submit" }));
    form.addEventListener("submit", (event) => { event.preventDefault(); tried(path, form, output); });
    section.appendChild(output);
  }
  for (const [status, response] of Object.entries(operation.responses)) {
    section.appendChild(made("h3", `${status} ${response.description || ""}`));
    const schema = (Object.values(response.content || {})[0] || {}).schema;
    if (status === "200" && schema && !streams)
      section.appendChild(made("pre", JSON.stringify(shape(description, schema), null, 2)));
  }
  return section;
};

const show = (description) => {
  const page = document.getElementById("page");
  const index = document.getElementById("index");
  page.replaceChildren(made("h1", `${description.info.title} ${description.info.version}`));
  for (const text of (description.info.description || "").split("\n\n")) page.appendChild(made("p", text));
  page.appendChild(made("p")).appendChild(made("a", "/v1/openapi.json", { href: "/v1/openapi.json" }));
  const groups = new Map();
  for (const [path, item] of Object.entries(description.paths)) {
    const tag = (item.get.tags || ["other"])[0];
    groups.set(tag, [...(groups.get(tag) || []), [path, item.get]]);
  }
  for (const [tag, routes] of groups) {
    index.appendChild(made("h2", tag));
    for (const [path, operation] of routes) {
      index.appendChild(made("a", path, { href: `#${path}` }));
      page.appendChild(operationSection(description, path, operation));
    }
  }
};

fetch("/v1/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((error) => { document.getElementById("page").textContent = `The description cannot be read: ${error}`; });
