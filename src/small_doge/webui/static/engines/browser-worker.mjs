// A worker of browser.mjs. It is asked { id, method, request }, sends { id, begun } when it begins, { id, batch } up to 60 times
// a second, and at the end { id, result } or { id, error }; { id, abort } stops a call.

import { stopped } from "../core/stopping.mjs";
import { Doge } from "../doge/doge.mjs";
import * as ort from "../vendor/ort/ort.wasm.bundle.min.mjs";

const WASM = new URL("../vendor/ort/ort-wasm-simd-threaded.wasm.gz", import.meta.url);
const BATCH_MS = 16;
// Smaller models lose more by waiting for threads than they gain: the demo's made 0.6 as many tokens with two.
const BYTES_FOR_THREADS = 20e6;
const OTHER_NAMES = { max_tokens: "maxNewTokens", max_completion_tokens: "maxNewTokens", max_new_tokens: "maxNewTokens" };

const models = new Map(); // promises of them by id, the least recently used one first
const stops = new Map(); // of the calls that run or wait
let queue = Promise.resolve(); // calls are computed one after the other
let runtime;

/** Let the messages in that have come meanwhile. */
function pause() {
  return new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      done();
    };
    port2.postMessage(null);
  });
}

/** The content of a file, told of as it comes. */
async function fetchBytes(url, tell = () => {}) {
  const response = await fetch(url).catch(() => {
    throw new Error(`${url} can't be reached. Is the page's server still running, and this device online?`);
  });
  if (!response.ok) throw new Error(`${url} is not there (${response.status}). Export the page again, or copy all of its folder.`);
  const packed = response.headers.has("content-encoding"); // then the length is that of what is sent
  const total = packed ? null : Number(response.headers.get("content-length")) || null;
  const pieces = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
    pieces.push(value);
    loaded += value.length;
    tell(loaded, total);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** Get ONNX Runtime ready; the first model decides on its threads. Some servers unpack .gz files on the way, so the content tells whether it is packed. */
async function startRuntime(size, threads) {
  let bytes = await fetchBytes(WASM);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = new Uint8Array(await new Response(unpacked).arrayBuffer());
  }
  ort.env.wasm.wasmBinary = bytes.buffer;
  const isShared = self.crossOriginIsolated && size >= BYTES_FOR_THREADS;
  ort.env.wasm.numThreads = isShared ? threads : 1;
}

async function load({ model: id, folder, size, threads }) {
  let before = 0;
  const read = (name) => {
    const tell = (loaded, total) => {
      const now = performance.now();
      if (now - before < 100 && loaded !== total) return;
      before = now;
      postMessage({ progress: { model: id, loaded, total } });
    };
    return fetchBytes(new URL(name, folder), name === "model.onnx" ? tell : undefined);
  };
  runtime ??= startRuntime(size, threads);
  await runtime.catch((error) => {
    runtime = undefined; // the next call tries again
    throw error;
  });
  return Doge.load(ort, read, { pause });
}

async function open(request) {
  const { model, keep } = request;
  const known = models.get(model) ?? load(request);
  models.delete(model);
  models.set(model, known);
  const doge = await known.catch((error) => {
    models.delete(model);
    throw new Error(`the model ${model} could not be loaded: ${error.message}`);
  });
  while (models.size > keep) {
    const [oldest, promise] = models.entries().next().value;
    models.delete(oldest);
    promise.then((old) => old.session.release(), () => {}); // not waited for: it may still be on its way, for a call that was stopped
  }
  postMessage({ loaded: [...models.keys()] });
  return doge;
}

/** Options of Doge for those of the OpenAI API; what is null is left to Doge. */
function toOptions(sampling = {}) {
  const given = Object.entries(sampling).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const rename = (name) => OTHER_NAMES[name] ?? name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(given.map(([name, value]) => [rename(name), value]));
}

/** Send the tokens of an answer in batches; return what it ends with. */
async function send(id, stream, describe = (token) => token) {
  let batch = [];
  let sent = -Infinity; // the first token is sent at once
  for (;;) {
    const { value, done } = await stream.next();
    if (!done) batch.push(describe(value));
    if (batch.length && (done || performance.now() - sent >= BATCH_MS)) {
      postMessage({ id, batch });
      batch = [];
      await pause();
      sent = performance.now();
    }
    if (done) return { finishReason: value.finishReason, usage: value.usage };
  }
}

function toIds(doge, { tokens, content, messages }) {
  if (tokens) return tokens;
  return messages ? doge.render(messages) : doge.encode(content ?? "");
}

const METHODS = {
  chat(id, doge, { messages, sampling, continueFinal }, signal) {
    const ids = doge.render(messages, { continueFinal });
    return send(id, doge.generate(ids, { ...toOptions(sampling), signal }));
  },
  complete(id, doge, { prompt, promptIds, sampling, top }, signal) {
    const ids = promptIds ?? doge.encode(prompt ?? "");
    const spell = (one) => ({ ...one, text: doge.codec.piece(one.id) });
    const describe = (token) => ({ ...token, top: token.top.map(spell) });
    return send(id, doge.generate(ids, { ...toOptions(sampling), logprobs: top, signal }), describe);
  },
  tokenize(id, doge, request) {
    const tokens = toIds(doge, request).map((token) => ({ id: token, piece: doge.codec.piece(token) }));
    return { tokens, count: tokens.length, max_length: doge.settings.max_length };
  },
  inspect(id, doge, request, signal) {
    return doge.inspect(toIds(doge, request), { top: request.top, signal });
  },
};

async function answer({ id, method, request }, signal) {
  try {
    if (signal.aborted) return void postMessage({ id, result: { finishReason: "aborted", usage: null } });
    postMessage({ id, begun: true });
    const doge = await Promise.race([open(request), stopped(signal)]); // a download goes on for the next call
    if (!doge) return void postMessage({ id, result: { finishReason: "aborted", usage: null } });
    postMessage({ id, result: await METHODS[method](id, doge, request, signal) });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  } finally {
    stops.delete(id);
  }
}

self.addEventListener("message", ({ data }) => {
  if (data.abort) return void stops.get(data.id)?.abort();
  const stop = new AbortController();
  stops.set(data.id, stop);
  queue = queue.then(() => answer(data, stop.signal));
});
