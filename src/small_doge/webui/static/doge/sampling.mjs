// Sampling the next token, in the order and with the meanings of small_doge/inference/sampling.py.

const LARGEST = 1e6; // penalties and biases lie within this bound, so that arithmetic with logits stays finite

// Default, smallest and largest value of each number; a whole one where `whole` is set.
const NUMBERS = {
  maxNewTokens: { value: 256, low: 0, whole: true },
  temperature: { value: 0, low: 0 },
  topK: { value: 0, low: 0, whole: true },
  topP: { value: 1, low: Number.MIN_VALUE, high: 1 },
  minP: { value: 0, low: 0, high: 1 },
  repetitionPenalty: { value: 1, low: 1e-6, high: LARGEST },
  presencePenalty: { value: 0, low: -LARGEST, high: LARGEST },
  frequencyPenalty: { value: 0, low: -LARGEST, high: LARGEST },
  seed: { value: null, low: 0, whole: true }, // drawn if null
  logprobs: { value: null, low: 0, high: 1000, whole: true }, // likeliest tokens to report with each; none if null
};
const OTHERS = ["stop", "stopTokenIds", "ignoreEos", "logitBias"];

/**
 * Options with defaults in place of what is not given.
 *
 * @param {object} given
 * @param {number} vocabSize token ids of the model
 */
export function checkOptions(given, vocabSize) {
  const known = [...Object.keys(NUMBERS), ...OTHERS];
  const unknown = Object.keys(given).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`unknown option ${unknown}; known: ${known.join(", ")}`);
  const options = {};
  for (const [name, rule] of Object.entries(NUMBERS)) {
    options[name] = given[name] == null ? rule.value : checkNumber(name, given[name], rule);
  }
  options.stop = typeof given.stop === "string" ? [given.stop] : (given.stop ?? []);
  if (!Array.isArray(options.stop) || !options.stop.every((text) => typeof text === "string" && text !== "")) {
    throw new Error("stop must be a text or a list of texts, none of them empty");
  }
  options.ignoreEos = given.ignoreEos ?? false;
  if (typeof options.ignoreEos !== "boolean") throw new Error("ignoreEos must be true or false");
  const token = { low: 0, high: vocabSize - 1, whole: true };
  options.stopTokenIds = Array.from(given.stopTokenIds ?? [], (id) => checkNumber("a token of stopTokenIds", id, token));
  options.logitBias = Object.entries(given.logitBias ?? {}).map(([id, bias]) => [
    checkNumber("a token of logitBias", Number(id), token),
    checkNumber(`logitBias of ${id}`, bias, { low: -LARGEST, high: LARGEST }),
  ]);
  return options;
}

function checkNumber(name, value, { low, high = Infinity, whole = false }) {
  if (typeof value === "number" && Number.isFinite(value) && value >= low && value <= high && !(whole && !Number.isInteger(value))) {
    return value;
  }
  const kind = whole ? "whole number" : "number";
  const least = low === Number.MIN_VALUE ? "above 0" : `from ${low}`;
  throw new Error(`${name} must be a ${kind} ${least} ${high === Infinity ? "on" : `to ${high}`}, not ${String(value)}`);
}

/** Samples the tokens of one answer. */
export class Sampler {
  /**
   * @param {object} options checked ones
   * @param {number[]} promptIds for the repetition penalty
   */
  constructor(options, promptIds) {
    this.options = options;
    this.seen = new Set(options.repetitionPenalty === 1 ? [] : promptIds);
    this.counts = new Map(); // of each token in the answer
    this.random = seededRandom(options.seed ?? Math.floor(Math.random() * 2 ** 53));
  }

  /** The next token by its logits, which are not changed: { id, logprob, top }. */
  sample(logits) {
    checkFinite(logits);
    const id = this.#pick(this.#adjust(logits));
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
    if (this.options.repetitionPenalty !== 1) this.seen.add(id);
    if (this.options.logprobs === null) return { id, logprob: null, top: [] };
    return { id, ...findLogprobs(logits, id, this.options.logprobs) };
  }

  #adjust(logits) {
    const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias } = this.options;
    if (repetitionPenalty === 1 && !presencePenalty && !frequencyPenalty && logitBias.length === 0) return logits;
    const adjusted = Float32Array.from(logits);
    for (const id of this.seen) {
      adjusted[id] = adjusted[id] > 0 ? adjusted[id] / repetitionPenalty : adjusted[id] * repetitionPenalty;
    }
    for (const [id, count] of this.counts) adjusted[id] -= presencePenalty + frequencyPenalty * count;
    for (const [id, bias] of logitBias) adjusted[id] += bias;
    return adjusted;
  }

  #pick(logits) {
    const { temperature, topK, topP, minP } = this.options;
    const best = findBest(logits);
    if (temperature === 0) return best;
    const ids = topK > 0 && topK < logits.length ? findTop(logits, topK) : Array.from(logits.keys());
    let weights = ids.map((id) => Math.exp((logits[id] - logits[best]) / temperature));
    if (topP < 1) weights = keepNucleus(weights, topP);
    if (minP > 0) weights = weights.map((weight) => (weight < minP ? 0 : weight)); // the likeliest has weight 1
    let left = this.random() * sum(weights);
    let last = 0;
    for (let index = 0; index < ids.length; index++) {
      if (weights[index] === 0) continue;
      last = index;
      left -= weights[index];
      if (left < 0) break;
    }
    return ids[last];
  }
}

/** Log-probability of a token, and the `count` likeliest: { logprob, top: [{ id, logprob }] }. */
export function findLogprobs(logits, id, count) {
  const most = logits[findBest(logits)];
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - most);
  const norm = most + Math.log(total);
  const top = findTop(logits, Math.min(count, logits.length)).map((other) => ({ id: other, logprob: logits[other] - norm }));
  return { logprob: logits[id] - norm, top };
}

export function checkFinite(logits) {
  for (const logit of logits) {
    if (!Number.isFinite(logit)) throw new Error("the model computed logits that are not finite: its weights are damaged");
  }
}

function findBest(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

/** Ids of the `count` largest logits, the largest first. */
function findTop(logits, count) {
  const top = [];
  if (count === 0) return top;
  for (let id = 0; id < logits.length; id++) {
    if (top.length === count && logits[id] <= logits[top[count - 1]]) continue;
    let place = top.length;
    while (place > 0 && logits[id] > logits[top[place - 1]]) place--;
    top.splice(place, 0, id);
    if (top.length > count) top.pop();
  }
  return top;
}

/** Weights with 0 for all but the largest, whose share reaches `topP`. */
function keepNucleus(weights, topP) {
  const goal = topP * sum(weights);
  // Sort only weights above a bound that leaves enough.
  let order = [];
  for (let bound = 1e-3; ; bound *= 1e-3) {
    order = [...weights.keys()].filter((index) => weights[index] >= bound);
    if (order.length === weights.length || order.reduce((total, index) => total + weights[index], 0) >= goal) break;
  }
  order.sort((a, b) => weights[b] - weights[a] || a - b);
  const kept = new Array(weights.length).fill(0);
  let before = 0;
  for (const index of order) {
    if (before >= goal) break;
    kept[index] = weights[index];
    before += weights[index];
  }
  return kept;
}

function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** Numbers from 0 to below 1: a counter, mixed by multiplications and shifts. The same seed gives the same ones. */
function seededRandom(seed) {
  const mix = (value) => {
    value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
    value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
    return (value ^ (value >>> 16)) >>> 0;
  };
  const key = mix(seed >>> 0) ^ mix(Math.floor(seed / 2 ** 32) + 0x9e3779b9);
  let counter = 0;
  const next = () => mix(mix((counter += 0x9e3779b9) ^ key) + key);
  return () => (next() * 2 ** 21 + (next() >>> 11)) / 2 ** 53;
}
