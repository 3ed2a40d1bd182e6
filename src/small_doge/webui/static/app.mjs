// Starts the page: config.json beside index.html says which engine answers.

import { configureApi } from "./core/api.mjs";
import { openEngine } from "./engines/engine.mjs";
import { html, render } from "./libs.mjs";
import { listen } from "./shortcuts.mjs";
import { App } from "./state.mjs";
import { openStore } from "./stores/store.mjs";
import { Page } from "./views/page.mjs";

const root = document.getElementById("page");

async function readConfig() {
  try {
    const response = await fetch("config.json");
    return response.ok ? await response.json() : {};
  } catch {
    return {};
  }
}

try {
  const config = await readConfig();
  configureApi({ base: new URL(config.base || "./", document.baseURI) });
  const [engine, store] = await Promise.all([openEngine(config), openStore(config)]);
  const app = new App({ config, engine, store, draw: () => render(html`<${Page} app=${app} />`, root) });
  engine.addEventListener?.("progress", ({ detail: { model, loaded, total } }) => {
    if (loaded === total) return app.closeNotice();
    app.tell(`Loading ${model}: ${total ? `${Math.round((100 * loaded) / total)}%` : `${(loaded / 1e6).toFixed(1)} MB`}`);
  });
  configureApi({
    askForKey: (wasRefused) => new Promise((answer) => app.openDialog("key", { wasRefused, answer })),
  });
  root.replaceChildren();
  listen(app);
  await app.start();
  document.documentElement.dataset.ready = "true";
} catch (error) {
  root.textContent = `The page could not start: ${error.message}`;
  root.className = "error";
  console.error(error);
}
