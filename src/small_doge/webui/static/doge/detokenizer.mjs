// From tokens to text, piece by piece, as small_doge/inference/detokenizer.py does it: whole characters, no special tokens,
// and nothing from a stop text on.

export class Detokenizer {
  /**
   * @param {import("./text.mjs").TextCodec} codec
   * @param {string[]} stop texts that end the answer; a special token in them is matched by that token
   */
  constructor(codec, stop = []) {
    this.codec = codec;
    this.special = new Map([...codec.special].map(([content, id]) => [id, content]));
    this.stop = stop;
    this.stopped = false;
    this.held = []; // characters not yet given out, and whether each is shown
    // Some decoders write a token in another way at the start of a text: the last tokens are decoded with those before.
    this.ids = [];
    this.before = "";
    this.start = 0;
    this.pending = []; // tokens since the last whole character
  }

  /** The text that a token completes, which may be empty. */
  push(id) {
    if (this.stopped) return "";
    if (this.special.has(id)) this.#hold(this.special.get(id), false);
    else this.#hold(this.#decode(id), true);
    const held = this.held.map(([character]) => character).join("");
    const found = this.stop.map((text) => held.indexOf(text)).filter((place) => place >= 0);
    if (found.length) {
      this.stopped = true;
      return this.#release([...held.slice(0, Math.min(...found))].length);
    }
    return this.#release(this.held.length - this.#countHeldBack(held));
  }

  /** The text that was held back, at the end; half a character becomes U+FFFD. */
  finish() {
    if (this.stopped) return "";
    if (this.pending.length) this.#hold(this.codec.decode(this.pending), true);
    this.pending = [];
    return this.#release(this.held.length);
  }

  #decode(id) {
    this.ids.push(id);
    this.pending.push(id);
    const text = this.codec.decode(this.ids);
    if (text.length <= this.before.length || text.endsWith("\ufffd")) return "";
    const piece = text.slice(this.before.length);
    const kept = this.ids.slice(this.start);
    this.start = this.ids.length - this.start;
    this.ids = kept;
    this.before = this.codec.decode(kept);
    this.pending = [];
    return piece;
  }

  #hold(text, shown) {
    for (const character of text) this.held.push([character, shown]);
  }

  #release(count) {
    const released = this.held.splice(0, count);
    return released.map(([character, shown]) => (shown ? character : "")).join("");
  }

  /** Characters at the end that may begin a stop text. */
  #countHeldBack(held) {
    let most = 0;
    for (const text of this.stop) {
      const characters = [...text];
      for (let count = 1; count < characters.length; count++) {
        if (count > most && held.endsWith(characters.slice(0, count).join(""))) most = count;
      }
    }
    return most;
  }
}
