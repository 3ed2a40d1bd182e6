// The page: ?model=FOLDER names the exported folder (model/ if none), ?ask=TEXT asks at once.

import * as ort from "onnxruntime-web/wasm";
import { Doge } from "./doge.mjs";

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const folder = (query.get("model") ?? "model").replace(/\/*$/, "/");
let messages = [];
let stopping;

function tell(text, isError = false) {
  element("status").textContent = text;
  element("status").className = isError ? "error" : "";
}

async function read(name) {
  const response = await fetch(folder + name);
  if (!response.ok) throw new Error(`${folder}${name}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

function show(role, text) {
  const line = document.createElement("p");
  line.className = role;
  line.textContent = text;
  element("log").append(line);
  return line;
}

async function ask(doge, text) {
  element("send").disabled = true;
  element("stop").disabled = false;
  stopping = new AbortController();
  show("user", text);
  const line = show("assistant", "");
  try {
    doge.reset();
    const asked = [...messages, { role: "user", content: text }];
    const ids = doge.canChat ? doge.render(asked) : doge.encode(text);
    const start = performance.now();
    let first;
    let count = 0;
    for await (const piece of doge.streamText(ids, { maxNewTokens: 256, signal: stopping.signal })) {
      first ??= performance.now();
      count++;
      line.textContent += piece;
      if (count % 8 === 0) await new Promise(requestAnimationFrame); // let the page draw and the buttons be pressed
    }
    messages = [...asked, { role: "assistant", content: line.textContent }];
    const speed = Math.round((count - 1) / ((performance.now() - first) / 1000));
    const reason = doge.ended === "stop" ? "" : `, ${doge.ended}`;
    tell(`${count} pieces, ${speed} tok/s, first after ${Math.round((first ?? start) - start)} ms${reason}`);
  } catch (error) {
    tell(error.message, true);
  }
  element("send").disabled = false;
  element("stop").disabled = true;
}

try {
  ort.env.wasm.numThreads = 1; // more need a page served with cross-origin isolation
  ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", location.href).href;
  const doge = await Doge.load(ort, read);
  const { quantize, keep_window_size: window } = doge.settings;
  tell(`Ready: ${folder} (${quantize}, window ${window})`);
  element("send").disabled = false;
  document.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = element("prompt").value.trim();
    if (!text || element("send").disabled) return;
    element("prompt").value = "";
    ask(doge, text);
  });
  element("stop").addEventListener("click", () => stopping?.abort());
  element("reset").addEventListener("click", () => {
    stopping?.abort();
    messages = [];
    element("log").replaceChildren();
  });
  if (query.has("ask")) await ask(doge, query.get("ask"));
} catch (error) {
  tell(`The model could not be loaded: ${error.message}`, true);
}
document.documentElement.dataset.done = "true";
