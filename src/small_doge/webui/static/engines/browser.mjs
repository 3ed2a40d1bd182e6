// The engine that computes in the browser, in workers, so that the page stays smooth; what its methods take and give stands in
// engine.mjs. Two models answer at once, each in a worker of its own, where the device has the cores and the memory.
// It also tells how far the download of a model is: engine.addEventListener("progress", ({ detail }) => ...) with
// { model, loaded, total } in bytes.

const META = {
  ...{ can_chat: null, max_length: null, trained_length: null, keep_window_size: null, num_layers: null },
  ...{ num_kv_heads: null, vocab_size: null, quantize: null, size_bytes: null, path_kind: "export" },
};

const MOST_WORKERS = 2; // as many as models stand side by side
const MOST_THREADS = 4; // of one worker
// Of a model's files: what is fetched, its copies on the way, and what the runtime makes of it.
const BYTES_PER_BYTE = 3;
const GIB = 2 ** 30;
const SHARE_OF_MEMORY = 1 / 4;
const UNKNOWN_MEMORY = 4; // GiB, where the browser does not tell

class BrowserEngine extends EventTarget {
  noModels = "This page holds no model. Put one on it: small-doge webui export MODEL FOLDER";
  addModels = "A page with two: small-doge webui export MODEL MODEL FOLDER";

  /** @param {{models?: {id: string, path: string}[]}} config what config.json holds; paths are relative to the page */
  constructor(config) {
    super();
    this.known = config.models ?? [];
    this.workers = []; // {worker, models: ids of those in its memory, calls: ids of those that run or wait, asked: the last one's model, used, threads}
    this.calls = new Map();
    this.count = 0;
  }

  async models() {
    return this.known.map(({ path, ...meta }) => ({ ...META, ...meta, loaded: this.workers.some(({ models }) => models.has(meta.id)) }));
  }

  async *chat({ model, messages, sampling, signal, onWait, continueFinal = false }) {
    const stream = this.#stream("chat", { model, messages, sampling, continueFinal }, signal, onWait);
    for (;;) {
      const { value, done } = await stream.next();
      if (done) return value;
      yield { text: value.map((token) => token.text).join(""), tokenIds: value.map((token) => token.id) };
    }
  }

  complete({ model, prompt, promptIds, sampling, top = 10, signal, onWait }) {
    return this.#stream("complete", { model, prompt, promptIds, sampling, top }, signal, onWait);
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

  /** Yield the batches that a worker sends, and return what it ends with. */
  async *#stream(method, request, signal, onWait) {
    if (signal?.aborted) return { finishReason: "aborted", usage: null };
    const { path, size_bytes: size = null } = this.#find(request.model);
    const place = this.#choose(request.model, size);
    const call = { model: request.model, waiting: [], wake: null, onBegin: () => onWait?.(null) };
    const id = ++this.count;
    const abort = () => place.worker.postMessage({ id, abort: true });
    if (place.calls.size) onWait?.(this.#reasonToWait());
    this.calls.set(id, call);
    place.calls.add(id);
    signal?.addEventListener("abort", abort);
    let isOver = false;
    try {
      const folder = new URL(`${path}/`, document.baseURI).href;
      const keep = MOST_WORKERS + 1 - this.workers.length; // models in the worker's memory
      place.worker.postMessage({ id, method, request: { ...request, folder, size, keep, threads: place.threads } });
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
      place.calls.delete(id);
      signal?.removeEventListener("abort", abort);
    }
  }

  #find(id) {
    const found = this.known.find((model) => model.id === id);
    if (found) return found;
    throw new Error(`there is no model ${id} here; there are: ${this.known.map((model) => model.id).join(", ")}`);
  }

  /** The worker for a call: an idle one that has the model, or still fetches it for a call that was stopped, a new one where there may be another, or the least busy one. */
  #choose(model, size) {
    const idle = this.workers.filter(({ calls }) => !calls.size);
    let place = idle.find(({ models, asked }) => models.has(model) || asked === model);
    if (!place && this.#maySpend(size)) place = this.#start();
    place ??= (idle.length ? idle : this.workers).reduce((best, other) =>
      other.calls.size - best.calls.size || other.used - best.used < 0 ? other : best,
    );
    Object.assign(place, { asked: model, used: performance.now() });
    return place;
  }

  /** Whether processor and memory allow for another worker with a model of this size. */
  #maySpend(size) {
    if (!this.workers.length) return true;
    if (this.workers.length >= Math.min(MOST_WORKERS, navigator.hardwareConcurrency || 1)) return false;
    // Models on their way count, those that failed do not.
    const coming = (calls) => [...calls].map((id) => this.calls.get(id).model);
    const others = this.workers.flatMap(({ models, calls }) => [...new Set([...models, ...coming(calls)])]);
    const sizes = others.map((id) => this.#find(id).size_bytes ?? 0);
    const needed = BYTES_PER_BYTE * sizes.reduce((sum, bytes) => sum + bytes, size ?? 0);
    return needed <= (navigator.deviceMemory ?? UNKNOWN_MEMORY) * GIB * SHARE_OF_MEMORY;
  }

  #reasonToWait() {
    if (this.workers.length >= MOST_WORKERS) return "Waits until another answer is written.";
    const lack = (navigator.hardwareConcurrency || 1) < 2 ? "one processor core" : "too little memory for two at once";
    return `Waits until the other answer is written: this device has ${lack}.`;
  }

  /** Start a worker, with the threads that the others leave. */
  #start() {
    const cores = navigator.hardwareConcurrency || 1;
    const taken = this.workers.reduce((sum, { threads }) => sum + threads, 0);
    const worker = new Worker(new URL("./browser-worker.mjs", import.meta.url), { type: "module" });
    const place = { worker, models: new Set(), calls: new Set(), used: 0 };
    place.threads = Math.max(1, Math.min(MOST_THREADS, cores - taken));
    worker.addEventListener("message", ({ data }) => this.#hear(place, data));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#fail(place, `the model's worker stopped: ${event.message || "its script could not be loaded"}; try again, or load the page again`);
    });
    this.workers.push(place);
    return place;
  }

  #hear(place, data) {
    if (data.progress) return void this.dispatchEvent(new CustomEvent("progress", { detail: data.progress }));
    if (data.loaded) return void (place.models = new Set(data.loaded));
    const call = this.calls.get(data.id);
    if (data.begun) call?.onBegin();
    else this.#give(call, data);
  }

  /** End all calls of a worker; the next one starts another. */
  #fail(place, error) {
    place.worker.terminate();
    this.workers = this.workers.filter((other) => other !== place);
    for (const id of place.calls) this.#give(this.calls.get(id), { error });
  }

  #give(call, message) {
    call?.waiting.push(message);
    call?.wake?.();
  }
}

export function createEngine(config) {
  return new BrowserEngine(config);
}
