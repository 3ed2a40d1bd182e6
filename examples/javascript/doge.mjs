// A Doge model exported by `small-doge export`, in Node.js and in the browser.
//
// The caller keeps the keys, the values and a score for each slot (docs/inference.md): new keys are appended, the graph
// marks the slots of evicted keys with a score of -Infinity, and when the slots are full, those are squeezed out. So
// memory and time per token stay the same however long the text gets.

import { TextCodec } from "./text.mjs";

const SPARE_SLOTS = 256;

export class Doge {
  /**
   * @param {object} ort onnxruntime-node or onnxruntime-web
   * @param {(name: string) => Promise<Uint8Array>} read gives a file of the exported folder
   * @param {object} options of ort's sessions; `inPlace` where ort writes into tensors that it is given (Node.js)
   */
  static async load(ort, read, { inPlace = false, ...options } = {}) {
    const text = async (name) => new TextDecoder().decode(await read(name));
    const settings = JSON.parse(await text("runtime.json"));
    if (settings.format !== "small-doge-onnx" || settings.version !== 1) {
      throw new Error(`runtime.json has format ${settings.format}, version ${settings.version}; this reads small-doge-onnx 1`);
    }
    const template = await text("chat_template.jinja").catch(() => null);
    const files = [await text("tokenizer.json"), await text("tokenizer_config.json")];
    const codec = new TextCodec(...files.map((file) => JSON.parse(file)), template);
    const session = await ort.InferenceSession.create(await read("model.onnx"), options);
    return new Doge({ ort, session, settings, codec, inPlace });
  }

  constructor(parts) {
    Object.assign(this, parts);
    this.reset();
  }

  /** Forget the text. */
  reset() {
    const { num_hidden_layers: layers, num_key_value_heads: heads } = this.settings;
    this.rows = layers * heads;
    this.length = 0; // tokens taken in
    this.filled = 0; // slots in use
    this.slots = 0;
    this.scores = new Float32Array(0); // [layers * heads, filled]
    this.caches = Array.from({ length: 2 * layers }, () => new Float32Array(0)); // [heads, slots, head_size] each
  }

  /** Tokens of a text, with the one that begins it. */
  encode(text) {
    return this.codec.encode(text);
  }

  /** Tokens of a conversation, up to where the answer begins. */
  render(messages) {
    return this.codec.render(messages);
  }

  /** Whether it was trained to answer conversations. */
  get canChat() {
    return this.codec.template !== null;
  }

  /** Logits of the next token after taking in `ids`, in pieces. */
  async extend(ids) {
    let logits;
    for (let start = 0; start < ids.length; start += SPARE_SLOTS) {
      logits = await this.#run(ids.slice(start, start + SPARE_SLOTS));
    }
    return logits;
  }

  /**
   * The tokens of an answer as they come, without its end token.
   * Greedy at temperature 0; `signal.aborted` stops. `ended` then says why: "stop" (the model ended it), "aborted", or the
   * limit at which it was cut off.
   */
  async *stream(ids, { maxNewTokens = 256, temperature = 0, random = Math.random, signal } = {}) {
    const limit = this.settings.max_length ?? Infinity;
    const size = this.settings.vocab_size;
    this.ended = undefined;
    if (!(Number.isInteger(maxNewTokens) && maxNewTokens >= 1)) throw new Error("maxNewTokens must be a whole number from 1 on");
    if (!(Number.isFinite(temperature) && temperature >= 0)) throw new Error("temperature must be a number from 0 on");
    if (ids.length === 0) throw new Error("the prompt is empty");
    const outside = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < size));
    if (outside !== undefined) throw new Error(`the prompt holds token ${outside}; this model has 0 to ${size - 1}`);
    if (this.length + ids.length >= limit) {
      throw new Error(`the text has ${this.length + ids.length} tokens; this model takes ${limit} with the answer`);
    }
    let logits = await this.extend(ids);
    for (let count = 1; ; count++) {
      if (signal?.aborted) return void (this.ended = "aborted");
      const token = pick(logits, temperature, random);
      if (this.settings.end_ids.includes(token)) return void (this.ended = "stop");
      yield token;
      if (count === maxNewTokens) return void (this.ended = `cut off at ${maxNewTokens} new tokens`);
      if (this.length + 1 >= limit) return void (this.ended = `cut off at ${limit} tokens, the model's limit`);
      logits = await this.extend([token]);
    }
  }

  /** Pieces of the answer's text as they come, never half a character; at the end of the answer one becomes U+FFFD. */
  async *streamText(ids, options) {
    const tokens = [];
    let given = "";
    let text = "";
    for await (const token of this.stream(ids, options)) {
      tokens.push(token);
      text = this.codec.decode(tokens);
      if (text.endsWith("\ufffd")) continue;
      yield text.slice(given.length);
      given = text;
    }
    if (text.length > given.length) yield text.slice(given.length);
  }

  async #run(ids) {
    const { Tensor } = this.ort;
    const { num_hidden_layers: layers, num_key_value_heads: heads, head_size: size } = this.settings;
    const count = ids.length;
    this.#reserve(count);
    const integers = (values, shape) => new Tensor("int64", BigInt64Array.from(values, BigInt), shape);
    const feeds = {
      input_ids: integers(ids, [1, count]),
      position_ids: integers(Array.from(ids, (_, i) => this.length + i), [1, count]),
      logits_to_keep: integers([count - 1], [1]),
      past_scores: new Tensor("float32", this.scores, [1, this.rows, this.filled]),
    };
    const fetches = { logits: null, present_scores: null };
    for (let index = 0; index < 2 * layers; index++) {
      const name = `${index % 2 ? "value" : "key"}.${index >> 1}`;
      feeds[`past_${name}`] = new Tensor("float32", this.caches[index], [1, heads, this.slots, size]);
      fetches[`present_${name}`] = this.inPlace ? feeds[`past_${name}`] : null;
    }
    const results = await this.session.run(feeds, fetches);
    for (let index = 0; index < 2 * layers; index++) {
      this.caches[index] = results[`present_${index % 2 ? "value" : "key"}.${index >> 1}`].data;
    }
    this.scores = results.present_scores.data;
    this.filled += count;
    this.length += count;
    return results.logits.data;
  }

  /** Room for `count` more slots: squeeze out evicted keys where w + 256 are reached, grow where there are fewer. */
  #reserve(count) {
    const { num_key_value_heads: heads, head_size: size, keep_window_size: window } = this.settings;
    const most = window + SPARE_SLOTS;
    if (this.filled + count > most) this.#compact(Math.min(this.length, window));
    if (this.filled + count <= this.slots) return;
    const slots = Math.min(most, Math.max(2 * this.slots, Math.ceil((this.filled + count) / 256) * 256));
    this.caches = this.caches.map((cache) => {
      const grown = new Float32Array(heads * slots * size);
      for (let head = 0; head < heads; head++) {
        grown.set(cache.subarray(head * this.slots * size, (head + 1) * this.slots * size), head * slots * size);
      }
      return grown;
    });
    this.slots = slots;
  }

  /** Keep the `kept` slots of each head that are not evicted, in their order. */
  #compact(kept) {
    const { num_key_value_heads: heads, head_size: size } = this.settings;
    const scores = new Float32Array(this.rows * kept);
    for (let row = 0; row < this.rows; row++) {
      const layer = Math.floor(row / heads);
      const start = (row % heads) * this.slots * size;
      let target = 0;
      for (let slot = 0; slot < this.filled; slot++) {
        const score = this.scores[row * this.filled + slot];
        if (score === -Infinity) continue;
        scores[row * kept + target] = score;
        if (slot !== target) {
          for (const cache of [this.caches[2 * layer], this.caches[2 * layer + 1]]) {
            cache.copyWithin(start + target * size, start + slot * size, start + (slot + 1) * size);
          }
        }
        target++;
      }
    }
    this.scores = scores;
    this.filled = kept;
  }
}

function pick(logits, temperature, random) {
  let best = 0;
  for (let i = 0; i < logits.length; i++) {
    if (!Number.isFinite(logits[i])) throw new Error("the model computed logits that are not finite: its weights are damaged");
    if (logits[i] > logits[best]) best = i;
  }
  if (temperature === 0) return best;
  let left = 0;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - logits[best]) / temperature));
  for (const weight of weights) left += weight;
  left *= random();
  return Math.max(0, weights.findIndex((weight) => (left -= weight) < 0));
}
