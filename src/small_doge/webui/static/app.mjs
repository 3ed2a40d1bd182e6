// Starts the page: config.json beside index.html says which engine answers.

import { configureApi } from "./core/api.mjs";
import { openEngine } from "./engines/engine.mjs";
import { html, render } from "./libs.mjs";
import { listen } from "./shortcuts.mjs";
import { App } from "./state.mjs";
import { openStore } from "./stores/store.mjs";
import { drawKeepingFocus } from "./views/focus.mjs";
import { Page } from "./views/page.mjs";

const root = document.getElementById("page");

async function readConfig() {
  const response = await fetch("config.json");
  if (!response.ok) throw new Error(`config.json, which lies beside the page, is not there (${response.status})`);
  return response.json();
}

/** Tell how far downloads are, of all models that are fetched now. */
function tellProgress(app) {
  const parts = new Map();
  let notice = null;
  return ({ detail: { model, loaded, total } }) => {
    parts.set(model, total ? `${Math.round((100 * loaded) / total)}%` : `${(loaded / 1e6).toFixed(1)} MB`);
    if (loaded === total) parts.delete(model);
    if (parts.size) {
      app.showNotice(`Loading ${[...parts].map((part) => part.join(": ")).join(", ")}`);
      notice = app.notice;
    } else if (notice && app.notice === notice) app.closeNotice();
  };
}

try {
  const config = await readConfig();
  configureApi({ base: new URL(config.base || "./", document.baseURI) });
  const [engine, store] = await Promise.all([openEngine(config), openStore(config)]);
  const app = new App({ config, engine, store, draw: () => drawKeepingFocus(() => render(html`<${Page} app=${app} />`, root)) });
  engine.addEventListener?.("progress", tellProgress(app));
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
