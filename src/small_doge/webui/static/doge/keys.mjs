// Keys, values and scores of the text so far, which the caller of the graph keeps (docs/deployment.md). New keys are
// appended, the graph marks evicted keys with a score of -Infinity, and when there is no room left, those are squeezed out.
// So memory and time per token stay the same however long the text gets.

export const SPARE_KEYS = 256; // per head, beyond the window; also the most tokens that one call takes in

export class Keys {
  /** @param {object} settings what runtime.json holds */
  constructor(settings) {
    this.layers = settings.num_hidden_layers;
    this.heads = settings.num_key_value_heads;
    this.size = settings.head_size;
    this.window = settings.keep_window_size;
    this.rows = this.layers * this.heads;
    this.capacity = 0;
    this.type = settings.kv_cache_dtype ?? "float32"; // of keys and values
    const Numbers = this.type === "int8" ? Int8Array : Float32Array;
    this.caches = Array.from({ length: 2 * this.layers }, () => new Numbers(0)); // [heads, capacity, size] each
    this.positions = new Int32Array(0); // [rows, capacity]: which token of the text a key belongs to
    this.clear();
  }

  /** Forget the text; the memory is kept. */
  clear() {
    this.length = 0; // tokens of the text
    this.filled = 0; // keys of each head, evicted ones included
    this.scores = new Float32Array(0); // [rows, filled]
  }

  /** Forget all but the first `length` tokens, of a text from which no key was evicted. */
  truncate(length) {
    const scores = new Float32Array(this.rows * length);
    for (let row = 0; row < this.rows; row++) {
      scores.set(this.scores.subarray(row * this.filled, row * this.filled + length), row * length);
    }
    this.scores = scores;
    this.filled = this.length = length;
  }

  /** Make room for `count` more keys: squeeze out evicted ones where w + 256 are reached, grow where there are fewer. */
  reserve(count) {
    const most = this.window + SPARE_KEYS;
    if (this.filled + count > most) this.#compact(Math.min(this.length, this.window));
    if (this.filled + count <= this.capacity) return;
    const { heads, size } = this;
    const old = this.capacity;
    this.capacity = Math.min(most, Math.max(2 * old, Math.ceil((this.filled + count) / 256) * 256));
    this.caches = this.caches.map((cache) => widen(cache, heads, old * size, this.capacity * size));
    this.positions = widen(this.positions, this.rows, old, this.capacity);
  }

  /** Take note of `count` new keys, with the scores [rows, filled + count] after them. */
  append(count, scores) {
    for (let row = 0; row < this.rows; row++) {
      const start = row * this.capacity + this.filled;
      for (let index = 0; index < count; index++) this.positions[start + index] = this.length + index;
    }
    this.scores = scores;
    this.filled += count;
    this.length += count;
  }

  /** What each head still keeps: [layer][head] of { positions, scores }, in the order of the text. */
  listKept() {
    const layers = [];
    for (let layer = 0; layer < this.layers; layer++) {
      layers.push(Array.from({ length: this.heads }, (_, head) => this.#listRow(layer * this.heads + head)));
    }
    return layers;
  }

  #listRow(row) {
    const kept = { positions: [], scores: [] };
    for (let key = 0; key < this.filled; key++) {
      const score = this.scores[row * this.filled + key];
      if (score === -Infinity) continue;
      kept.positions.push(this.positions[row * this.capacity + key]);
      kept.scores.push(score);
    }
    return kept;
  }

  /** Keep the `kept` keys of each head that are not evicted, in their order. */
  #compact(kept) {
    const { heads, size, capacity } = this;
    const scores = new Float32Array(this.rows * kept);
    for (let row = 0; row < this.rows; row++) {
      const layer = Math.floor(row / heads);
      const start = (row % heads) * capacity * size;
      let target = 0;
      for (let key = 0; key < this.filled; key++) {
        const score = this.scores[row * this.filled + key];
        if (score === -Infinity) continue;
        scores[row * kept + target] = score;
        if (key !== target) {
          this.positions[row * capacity + target] = this.positions[row * capacity + key];
          for (const cache of [this.caches[2 * layer], this.caches[2 * layer + 1]]) {
            cache.copyWithin(start + target * size, start + key * size, start + (key + 1) * size);
          }
        }
        target++;
      }
    }
    this.scores = scores;
    this.filled = kept;
  }
}

/** A copy of `array` whose `rows` rows have `width` numbers in place of `old`. */
function widen(array, rows, old, width) {
  const wide = new array.constructor(rows * width);
  for (let row = 0; row < rows; row++) wide.set(array.subarray(row * old, (row + 1) * old), row * width);
  return wide;
}
