// Texts and conversations into tokens. What stands in a text never becomes a control token: only the chat template writes
// `<|eot_id|>` and its like; the same letters in a message are encoded as the text that they are, as in
// small_doge/processor/chat_encoding.py.

import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

export class TextCodec {
  /**
   * @param {object} tokenizer what tokenizer.json holds
   * @param {object} config what tokenizer_config.json holds
   * @param {string | null} template the chat template's source
   */
  constructor(tokenizer, config, template) {
    const special = tokenizer.added_tokens.filter((token) => token.special).sort((a, b) => b.content.length - a.content.length);
    this.special = new Map(special.map((token) => [token.content, token.id]));
    this.source = template;
    this.template = template === null ? null : new Template(template);
    // Templates name special tokens, such as bos_token.
    const named = Object.entries(config).filter(([name, value]) => name.endsWith("_token") && value);
    this.names = Object.fromEntries(named.map(([name, value]) => [name, value.content ?? value]));
    this.live = new Tokenizer(tokenizer, config);
    // To this one, special tokens are text.
    const ordinary = tokenizer.added_tokens.filter((token) => !token.special);
    this.words = new Tokenizer({ ...tokenizer, added_tokens: ordinary, post_processor: null }, config);
    const nothing = "(?!)";
    this.literal = new RegExp(special.map((token) => escape(token.content)).join("|") || nothing, "g");
    const around = special.map(({ content, lstrip, rstrip }) => `${lstrip ? "\\s*" : ""}(${escape(content)})${rstrip ? "\\s*" : ""}`);
    this.written = new RegExp(around.join("|") || nothing, "g");
    // What the tokenizer puts before and after every text.
    const whole = this.live.encode("a").ids;
    const bare = this.live.encode("a", { add_special_tokens: false }).ids;
    const start = whole.indexOf(bare[0]);
    [this.before, this.after] = [whole.slice(0, start), whole.slice(start + bare.length)];
  }

  /** Tokens of a text, after those that begin one; a begin token that the text spells out itself is not doubled. */
  encode(text) {
    const begin = this.names.bos_token;
    const doubled = begin && text.startsWith(begin) && this.before[0] === this.special.get(begin);
    return [...this.before, ...this.#encodeWords(doubled ? text.slice(begin.length) : text), ...this.after];
  }

  /** Tokens of a conversation, up to where the answer begins. */
  render(messages) {
    if (!this.template) throw new Error("this model has no chat template; use a plain prompt");
    const turns = messages.map((turn) => Object.fromEntries(Object.entries(turn).filter(([, value]) => value != null)));
    const strings = [];
    mapStrings(turns, (text) => strings.push(text));
    strings.forEach(checkUnicode);
    const write = (given) => this.template.render({ ...this.names, messages: given, add_generation_prompt: true });
    if (!strings.some((text) => text.search(this.literal) >= 0)) {
      return this.live.encode(write(turns), { add_special_tokens: false }).ids;
    }
    // A code of letters and digits, which templates pass on as they are, stands for each special token of a message.
    const everything = [this.source, ...strings].join("\n").toLowerCase();
    let number = 0;
    while (everything.includes(`q${number}z`)) number++;
    const key = `q${number}z`;
    const literals = [...this.special.keys()];
    const hide = (text) => text.replace(this.literal, (found) => `${key}${literals.indexOf(found)}${key}`);
    const restore = (text) => {
      const restored = text.replace(new RegExp(`${key}([0-9]+)${key}`, "g"), (_, index) => literals[index]);
      if (!restored.toLowerCase().includes(key)) return restored;
      throw new Error("the chat template changes the letters of a message that spells out a special token");
    };
    const text = write(mapStrings(turns, hide));
    const ids = [];
    let start = 0;
    for (const match of text.matchAll(this.written)) {
      const content = match.slice(1).find((group) => group !== undefined);
      ids.push(...this.#encodeWords(restore(text.slice(start, match.index))), this.special.get(content));
      start = match.index + match[0].length;
    }
    return [...ids, ...this.#encodeWords(restore(text.slice(start)))];
  }

  /** Text of tokens, without special ones. */
  decode(ids) {
    return this.live.decode(ids, { skip_special_tokens: true });
  }

  #encodeWords(text) {
    checkUnicode(text);
    const ids = text === "" ? [] : this.words.encode(text, { add_special_tokens: false }).ids;
    const found = [...this.special].find(([content, id]) => text.includes(content) && ids.includes(id));
    if (found) throw new Error(`the tokenizer makes a control token of the text ${found[0]}`);
    return ids;
  }
}

function checkUnicode(text) {
  if (!text.isWellFormed()) throw new Error("the text is not valid Unicode: it holds half a character");
}

/** A copy of a value with each of its strings, names of fields included, given to a function. */
function mapStrings(value, change) {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, change));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [mapStrings(name, change), mapStrings(item, change)]));
}
