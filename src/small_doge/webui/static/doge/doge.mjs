// A Doge model exported by `small-doge export`, in Node.js and in the browser.

import { Detokenizer } from "./detokenizer.mjs";
import { Keys, SPARE_KEYS } from "./keys.mjs";
import { checkFinite, checkOptions, findLogprobs, Sampler } from "./sampling.mjs";
import { TextCodec } from "./text.mjs";

const SCORED_TOKENS = 64; // whose logits are in memory at once

export class Doge {
  /**
   * @param {object} ort onnxruntime-node or onnxruntime-web
   * @param {(name: string) => Promise<Uint8Array>} read gives a file of the exported folder
   * @param {object} options of ort's sessions; `inPlace` where ort writes into tensors that it is given (Node.js); `pause`
   *   is awaited between the pieces of a long prompt, so that a worker may hear what it is told
   */
  static async load(ort, read, { inPlace = false, pause, ...options } = {}) {
    const text = async (name) => new TextDecoder().decode(await read(name));
    const settings = JSON.parse(await text("runtime.json"));
    if (settings.format !== "small-doge-onnx" || ![1, 2].includes(settings.version)) {
      const found = `runtime.json has format ${settings.format}, version ${settings.version}`;
      throw new Error(`${found}; this reads small-doge-onnx 1 and 2`);
    }
    const template = await text("chat_template.jinja").catch(() => null);
    const files = [await text("tokenizer.json"), await text("tokenizer_config.json")];
    const codec = new TextCodec(...files.map((file) => JSON.parse(file)), template);
    const session = await ort.InferenceSession.create(await read("model.onnx"), { logSeverityLevel: 3, ...options });
    return new Doge({ ort, session, settings, codec, inPlace, pause });
  }

  constructor(parts) {
    Object.assign(this, parts);
    this.keys = new Keys(this.settings);
    this.ids = []; // the text whose keys these are
  }

  /** Forget the text. */
  reset() {
    this.ids = [];
    this.keys.clear();
  }

  /** Tokens of a text, with the one that begins it. */
  encode(text) {
    return this.codec.encode(text);
  }

  /** Tokens of a conversation, up to where the answer begins, or with `continueFinal` to the end of the last message. */
  render(messages, options) {
    return this.codec.render(messages, options);
  }

  /** Whether it was trained to answer conversations. */
  get canChat() {
    return this.codec.template !== null;
  }

  /** Logits of the next token after taking in `ids`, in pieces; undefined where `signal` stopped it. */
  async extend(ids, signal) {
    let logits;
    for (let start = 0; start < ids.length; start += SPARE_KEYS) {
      if (start > 0) await this.pause?.();
      if (signal?.aborted) return undefined;
      logits = await this.#run(ids.slice(start, start + SPARE_KEYS));
    }
    return logits;
  }

  /**
   * The tokens of an answer as they come, its end token included: { id, text, logprob, top: [{ id, logprob }] }, where
   * `text` is what the token completes, and never half a character. What was computed for an earlier prompt that begins
   * alike is not computed again.
   *
   * @param {number[]} ids tokens of the whole prompt
   * @param {object} options see sampling.mjs, and `signal`, an AbortSignal
   * @returns {AsyncGenerator<object, {finishReason: "stop" | "length" | "aborted", usage: object, explanation: string | null}>}
   */
  async *generate(ids, { signal, ...given } = {}) {
    const options = checkOptions(given, this.settings.vocab_size);
    this.#checkPrompt(ids);
    const sampler = new Sampler(options, ids);
    const detokenizer = new Detokenizer(this.codec, options.stop);
    const ends = new Set([...options.stopTokenIds, ...(options.ignoreEos ? [] : this.settings.end_ids)]);
    const cached = this.#reuse(ids);
    const usage = { prompt_tokens: ids.length, completion_tokens: 0, cached_tokens: cached };
    let logits = await this.extend(ids.slice(cached), signal);
    for (;;) {
      if (signal?.aborted) return { finishReason: "aborted", usage, explanation: "it was stopped" };
      if (options.maxNewTokens === 0) return { finishReason: "length", usage, explanation: "cut off at 0 new tokens" };
      const token = sampler.sample(logits);
      usage.completion_tokens++;
      const text = detokenizer.push(token.id);
      const ended = this.#findEnd(token.id, ends, detokenizer, options, usage);
      yield { ...token, text: ended ? text + detokenizer.finish() : text };
      if (ended) return { ...ended, usage };
      logits = await this.extend([token.id], signal);
    }
  }

  /**
   * The probability of each token of a text, given the ones before it, and which tokens each head keeps at its end.
   *
   * @param {number[]} ids
   * @param {{top?: number, signal?: AbortSignal}} options `top`: likeliest tokens to report in place of each
   */
  async inspect(ids, { top = 10, signal } = {}) {
    const { logprobs } = checkOptions({ logprobs: top }, this.settings.vocab_size);
    this.#checkPrompt(ids, 1);
    const size = this.settings.vocab_size;
    const piece = (id) => this.codec.piece(id);
    const tokens = [{ id: ids[0], piece: piece(ids[0]), logprob: null, top: [] }];
    this.reset();
    for (let start = 0; start < ids.length; start += SCORED_TOKENS) {
      await this.pause?.();
      if (signal?.aborted) throw new Error("it was stopped");
      const part = ids.slice(start, start + SCORED_TOKENS);
      const rows = await this.#run(part, part.keys());
      for (let index = 0; index < part.length && tokens.length < ids.length; index++) {
        const logits = rows.subarray(index * size, (index + 1) * size);
        checkFinite(logits);
        const id = ids[start + index + 1];
        const found = findLogprobs(logits, id, logprobs);
        tokens.push({ id, piece: piece(id), logprob: found.logprob, top: found.top.map((one) => ({ ...one, piece: piece(one.id) })) });
      }
    }
    const { num_hidden_layers: num_layers, num_key_value_heads: num_kv_heads, keep_window_size } = this.settings;
    return { tokens, num_layers, num_kv_heads, keep_window_size, kept: this.keys.listKept() };
  }

  #findEnd(id, ends, detokenizer, options, usage) {
    if (ends.has(id) || detokenizer.stopped) return { finishReason: "stop", explanation: null };
    const limit = this.settings.max_length ?? Infinity;
    if (usage.completion_tokens >= options.maxNewTokens) {
      return { finishReason: "length", explanation: `cut off at ${options.maxNewTokens} new tokens` };
    }
    if (usage.prompt_tokens + usage.completion_tokens >= limit) {
      return { finishReason: "length", explanation: `cut off at ${limit} tokens, the model's limit` };
    }
    return null;
  }

  #checkPrompt(ids, spare = 0) {
    const { vocab_size: size, max_length: limit } = this.settings;
    if (ids.length === 0) throw new Error("the prompt is empty");
    const outside = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < size));
    if (outside !== undefined) throw new Error(`the prompt holds token ${outside}; this model has 0 to ${size - 1}`);
    if (limit !== null && ids.length >= limit + spare) {
      throw new Error(`the text has ${ids.length} tokens; this model takes ${limit}${spare ? "" : " with the answer"}`);
    }
  }

  /** Keep what the text so far and a prompt share, and return how many tokens that is. */
  #reuse(ids) {
    let shared = 0;
    while (shared < this.ids.length && shared < ids.length - 1 && this.ids[shared] === ids[shared]) shared++;
    if (shared === this.ids.length) return shared;
    // Where keys were evicted, there is no way back.
    if (this.ids.length > this.settings.keep_window_size) shared = 0;
    this.keys.truncate(shared);
    this.ids.length = shared;
    return shared;
  }

  /** Take in `ids`; return the logits after the tokens at the indices `kept`, the last if none are named. */
  async #run(ids, kept = [ids.length - 1]) {
    const { Tensor } = this.ort;
    const { keys } = this;
    const count = ids.length;
    keys.reserve(count);
    const integers = (values, shape) => new Tensor("int64", BigInt64Array.from(values, BigInt), shape);
    const indices = [...kept];
    const feeds = {
      input_ids: integers(ids, [1, count]),
      position_ids: integers(Array.from(ids, (_, index) => keys.length + index), [1, count]),
      logits_to_keep: integers(indices, [indices.length]),
      past_scores: new Tensor("float32", keys.scores, [1, keys.rows, keys.filled]),
    };
    const fetches = { logits: null, present_scores: null };
    for (let index = 0; index < 2 * keys.layers; index++) {
      const name = `${index % 2 ? "value" : "key"}.${index >> 1}`;
      feeds[`past_${name}`] = new Tensor(keys.type, keys.caches[index], [1, keys.heads, keys.capacity, keys.size]);
      fetches[`present_${name}`] = this.inPlace ? feeds[`past_${name}`] : null;
    }
    const results = await this.session.run(feeds, fetches);
    for (let index = 0; index < 2 * keys.layers; index++) {
      keys.caches[index] = results[`present_${index % 2 ? "value" : "key"}.${index >> 1}`].data;
    }
    keys.append(count, results.present_scores.data);
    this.ids.push(...ids);
    return results.logits.data;
  }
}
