// Texts and conversations into tokens. What stands in a text never becomes a control token: only the chat template writes
// `<|eot_id|>` and its like; the same letters in a message are encoded as the text that they are, as in
// small_doge/processor/chat_encoding.py.

import { Template } from "../vendor/jinja.mjs";
import { Tokenizer } from "../vendor/tokenizers.mjs";

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

  /**
   * Tokens of a conversation, up to where the answer begins.
   *
   * @param {object[]} messages
   * @param {{continueFinal?: boolean}} options whether the last message, the assistant's, is left open to go on from
   */
  render(messages, { continueFinal = false } = {}) {
    if (!this.template) throw new Error("this model has no chat template; use a plain prompt");
    let turns = messages.map((turn) => Object.fromEntries(Object.entries(turn).filter(([, value]) => value != null)));
    const isOpen = continueFinal && hasBegun(turns.at(-1));
    if (continueFinal && !isOpen) turns = turns.slice(0, -1); // nothing is said yet: the answer begins
    const strings = [];
    mapStrings(turns, (text) => strings.push(text));
    strings.forEach(checkUnicode);
    const isSpelled = strings.some((text) => text.search(this.literal) >= 0);
    // A code of letters and digits, which templates pass on as they are, stands for each special token of a message.
    const everything = [this.source, ...strings].join("\n").toLowerCase();
    let number = 0;
    while (everything.includes(`q${number}z`)) number++;
    const key = `q${number}z`;
    const literals = [...this.special.keys()];
    const hide = (text) => text.replace(this.literal, (found) => `${key}${literals.indexOf(found)}${key}`);
    const given = isSpelled ? mapStrings(turns, hide) : turns;
    const text = isOpen ? this.#writeOpen(given, key) : this.#write(given, true);
    if (!isSpelled) return this.live.encode(text, { add_special_tokens: false }).ids;
    const restore = (piece) => {
      const restored = piece.replace(new RegExp(`${key}([0-9]+)${key}`, "g"), (_, index) => literals[index]);
      if (!restored.toLowerCase().includes(key)) return restored;
      throw new Error("the chat template changes the letters of a message that spells out a special token");
    };
    return this.#encodeHidden(text, restore);
  }

  #write(messages, add_generation_prompt) {
    return this.template.render({ ...this.names, messages, add_generation_prompt });
  }

  /** What the template writes up to the end of the last message, which a mark shows. */
  #writeOpen(turns, key) {
    const mark = `${key}end `;
    const last = turns.at(-1);
    const written = this.#write([...turns.slice(0, -1), { ...last, content: last.content + mark }], false);
    const end = written.lastIndexOf(mark.trim());
    if (end < 0 || !written.includes(last.content.trim())) {
      throw new Error("the chat template does not write the last message as it is, so it can't be continued");
    }
    // A template that drops the white space at a message's end drops that of the mark too.
    return written.startsWith(mark, end) ? written.slice(0, end) : written.slice(0, end).trimEnd();
  }

  /** Tokens of a rendered conversation with codes in it: what is a special token there was written by the template. */
  #encodeHidden(text, restore) {
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

  /** Text of a single token: a special one by name, bytes that are no whole character as \\xc3. */
  piece(id) {
    const text = this.live.decode([id], { skip_special_tokens: false });
    if (text !== "" && !text.includes("\ufffd")) return text;
    const letters = this.live.id_to_token(id);
    if (letters === undefined) return `[${id}]`;
    const bytes = [...letters].map((letter) => BYTES.get(letter));
    if (bytes.includes(undefined)) return letters; // not byte-level BPE
    return spell(bytes);
  }

  #encodeWords(text) {
    checkUnicode(text);
    const ids = text === "" ? [] : this.words.encode(text, { add_special_tokens: false }).ids;
    const found = [...this.special].find(([content, id]) => text.includes(content) && ids.includes(id));
    if (found) throw new Error(`the tokenizer makes a control token of the text ${found[0]}`);
    return ids;
  }
}

/** Whether the last message, which is to be continued, says anything yet. */
function hasBegun(last) {
  if (last?.role !== "assistant" || last.tool_calls?.length || typeof (last.content ?? "") !== "string") {
    throw new Error("continueFinal needs a last message of the assistant, in text, which is what is continued");
  }
  return (last.content ?? "").trim() !== "";
}

/** The byte that each letter of byte-level BPE stands for: itself if it can be seen, else letters from 256 on in turn. */
const BYTES = new Map();
for (let byte = 0, hidden = 0; byte < 256; byte++) {
  const isSeen = (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
  BYTES.set(String.fromCharCode(isSeen ? byte : 256 + hidden++), byte);
}

/** The text of bytes, with those that are no whole character as \\xc3. */
function spell(bytes) {
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let start = 0; start < bytes.length; ) {
    const whole = [1, 2, 3, 4].find((length) => {
      try {
        return start + length <= bytes.length && strict.decode(Uint8Array.from(bytes.slice(start, start + length))) !== "";
      } catch {
        return false;
      }
    });
    text += whole ? strict.decode(Uint8Array.from(bytes.slice(start, start + whole))) : `\\x${bytes[start].toString(16).padStart(2, "0")}`;
    start += whole ?? 1;
  }
  return text;
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
