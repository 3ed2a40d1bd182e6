// The API by its description: each route with its fields and an example that can be sent.

import { h, render } from "./vendor/preact.mjs";
import { useState } from "./vendor/preact-hooks.mjs";
import htm from "./vendor/htm.mjs";

const html = htm.bind(h);
const description = await fetch("openapi.json").then((response) => response.json());

/** The schema that a reference names, or the schema itself. */
function resolve(schema) {
  return schema?.$ref ? resolve(description.components.schemas[schema.$ref.split("/").pop()]) : schema;
}

/** A type in words: "text or list of text, or null". */
function nameType(schema) {
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return options.map(nameType).join(" or ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? nameType(schema.items) : "anything"}`;
  return schema.type ?? "anything";
}

/** An example of a body: the one that the description gives, or its required fields. */
function findExample(content) {
  const schema = resolve(content.schema);
  const given = content.example ?? Object.values(content.examples ?? {})[0]?.value ?? schema?.examples?.[0];
  return JSON.stringify(given ?? Object.fromEntries((schema?.required ?? []).map((name) => [name, ""])), null, 2);
}

function Fields({ schema }) {
  const required = schema.required ?? [];
  const rows = Object.entries(schema.properties ?? {});
  return html`<table>
    <tbody>
      ${rows.map(
        ([name, field]) => html`<tr>
          <td><code>${name}</code>${required.includes(name) ? " (required)" : ""}</td>
          <td>${nameType(field)}</td>
          <td>${field.description ?? resolve(field)?.description ?? ""}</td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

function Operation({ path, method, operation, getKey }) {
  const content = operation.requestBody?.content?.["application/json"];
  const parameters = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
  const [body, setBody] = useState(content ? findExample(content) : "");
  const [values, setValues] = useState({});
  const [answer, setAnswer] = useState(null);

  async function send() {
    setAnswer("…");
    const address = path.replace(/\{([^}:]+)(?::\w+)?\}/g, (_, name) => encodeURIComponent(values[name] ?? ""));
    const headers = content ? { "Content-Type": "application/json" } : {};
    if (getKey()) headers.Authorization = `Bearer ${getKey()}`;
    try {
      const response = await fetch(address.slice(1), { method: method.toUpperCase(), headers, body: content ? body : undefined });
      let text = `${response.status} ${response.statusText}\n`;
      for await (const piece of readText(response.body)) setAnswer((text += piece));
      setAnswer(text);
    } catch (error) {
      setAnswer(String(error));
    }
  }

  return html`<details>
    <summary><b>${method.toUpperCase()}</b><code>${path}</code><span>${operation.summary}</span></summary>
    <div>
      <p>${operation.description}</p>
      ${parameters.map(
        ({ name }) => html`<label>${name}<input onInput=${(event) => setValues({ ...values, [name]: event.target.value })} /></label>`,
      )}
      ${content && html`<${Fields} schema=${resolve(content.schema) ?? {}} />`}
      ${content &&
      html`<label>Body<textarea rows=${Math.min(16, body.split("\n").length + 1)} value=${body} onInput=${(event) => setBody(event.target.value)} /></label>`}
      <button onClick=${send}>Send</button>
      ${answer !== null && html`<pre role="status">${answer}</pre>`}
    </div>
  </details>`;
}

async function* readText(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}

function Docs() {
  const groups = {};
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      (groups[operation.tags?.[0] ?? "Others"] ??= []).push({ path, method, operation });
    }
  }
  let key = "";
  return html`<h1>${description.info.title} API, version ${description.info.version}</h1>
    <p>The same as a file: <a href="openapi.json">openapi.json</a>. To the page: <a href=".">chat</a>.</p>
    <label>API key, if the server has one<input type="password" autocomplete="off" onInput=${(event) => (key = event.target.value)} /></label>
    ${Object.entries(groups).map(
      ([name, operations]) => html`<section>
        <h2>${name}</h2>
        ${operations.map((item) => html`<${Operation} ...${item} getKey=${() => key} />`)}
      </section>`,
    )}`;
}

render(html`<${Docs} />`, document.getElementById("docs"));
