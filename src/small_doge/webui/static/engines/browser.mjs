// The engine that computes in the browser, in a worker, so that the page stays smooth; what its methods take and give stands
// in engine.mjs. It also tells how far the download of a model is: engine.addEventListener("progress", ({ detail }) => ...)
// with { model, loaded, total } in bytes.

const META = {
  ...{ can_chat: null, max_length: null, trained_length: null, keep_window_size: null, num_layers: null },
  ...{ num_kv_heads: null, vocab_size: null, quantize: null, size_bytes: null, path_kind: "export" },
};

class BrowserEngine extends EventTarget {
  /** @param {{models?: {id: string, path: string}[]}} config what config.json holds; paths are relative to the page */
  constructor(config) {
    super();
    this.known = config.models ?? [];
    this.loaded = new Set();
    this.calls = new Map();
    this.count = 0;
  }

  async models() {
    return this.known.map(({ path, ...meta }) => ({ ...META, ...meta, loaded: this.loaded.has(meta.id) }));
  }

  async *chat({ model, messages, sampling, signal, continueFinal = false }) {
    const stream = this.#stream("chat", { model, messages, sampling, continueFinal }, signal);
    for (;;) {
      const { value, done } = await stream.next();
      if (done) return value;
      yield { text: value.map((token) => token.text).join(""), tokenIds: value.map((token) => token.id) };
    }
  }

  complete({ model, prompt, promptIds, sampling, top = 10, signal }) {
    return this.#stream("complete", { model, prompt, promptIds, sampling, top }, signal);
  }

  tokenize({ model, content, messages }) {
    return this.#ask("tokenize", { model, content, messages });
  }

  inspect({ model, tokens, content, messages, top = 10 }) {
    return this.#ask("inspect", { model, tokens, content, messages, top });
  }

  async #ask(method, request) {
    const stream = this.#stream(method, request);
    return (await stream.next()).value;
  }

  /** Yield the batches that the worker sends, and return what it ends with. */
  async *#stream(method, request, signal) {
    if (signal?.aborted) return { finishReason: "aborted", usage: null };
    const { path, size_bytes: size = null } = this.#find(request.model);
    const worker = this.#start();
    const call = { waiting: [], wake: null };
    const id = ++this.count;
    const abort = () => worker.postMessage({ id, abort: true });
    this.calls.set(id, call);
    signal?.addEventListener("abort", abort);
    let isOver = false;
    try {
      const folder = new URL(`${path}/`, document.baseURI).href;
      worker.postMessage({ id, method, request: { ...request, folder, size } });
      for (;;) {
        while (call.waiting.length === 0) await new Promise((wake) => (call.wake = wake));
        const { batch, result, error } = call.waiting.shift();
        isOver = batch === undefined;
        if (error !== undefined) throw new Error(error);
        if (isOver) return result;
        yield batch;
      }
    } finally {
      if (!isOver) abort();
      this.calls.delete(id);
      signal?.removeEventListener("abort", abort);
    }
  }

  #find(id) {
    const found = this.known.find((model) => model.id === id);
    if (found) return found;
    throw new Error(`there is no model ${id} here; there are: ${this.known.map((model) => model.id).join(", ")}`);
  }

  #start() {
    if (this.worker) return this.worker;
    this.worker = new Worker(new URL("./browser-worker.mjs", import.meta.url), { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.#hear(data));
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#fail(`the model's worker stopped: ${event.message || "its script could not be loaded"}`);
    });
    return this.worker;
  }

  #hear(data) {
    if (data.progress) return void this.dispatchEvent(new CustomEvent("progress", { detail: data.progress }));
    if (data.loaded) return void (this.loaded = new Set(data.loaded));
    this.#give(this.calls.get(data.id), data);
  }

  /** End all calls; the next one starts another worker. */
  #fail(error) {
    this.worker.terminate();
    this.worker = null;
    this.loaded.clear();
    for (const call of this.calls.values()) this.#give(call, { error });
  }

  #give(call, message) {
    call?.waiting.push(message);
    call?.wake?.();
  }
}

export function createEngine(config) {
  return new BrowserEngine(config);
}
