// The raw text of a conversation in raw mode: tokens with their probabilities, that a base model goes on with.

import { stopped } from "./core/stopping.mjs";
import { makeMessage, titleOf } from "./core/tree.mjs";
import { SPOKEN_LENGTH } from "./talk.mjs";

const KEPT_STEPS = 200;
const MAX_SAVED_TOKENS = 3000; // more than this do not fit into the figures of a message

/** A part of the text. `id` is null for what was typed and not tokenized yet. */
const typed = (text) => ({ id: null, text, logprob: null, top: null, written: false });

const textOf = (tokens) => tokens.map(({ text }) => text).join("");

/** The text of tokens, as if it had been typed. */
const untoken = (tokens) => (textOf(tokens) ? [typed(textOf(tokens))] : []);

export class RawText {
  constructor(app, chat) {
    Object.assign(this, { app, chat });
    this.begin = null; // tokens before the text, such as the one that begins it
    this.tokens = [];
    this.past = [];
    this.future = [];
    this.kept = null; // what each head keeps, of the tokens as they were when `look` was called
    this.head = { layer: 0, head: 0 };
    this.controller = null;
    this.waits = null; // {begun, waits} of a generation that has no token yet
    this.stats = null;
    this.error = null;
    this.restore();
  }

  get text() {
    return textOf(this.tokens);
  }

  get isWriting() {
    return this.controller !== null;
  }

  // Changes, each of which can be undone.

  /** Remember the text as it is. Tokens are never changed in place, so the list alone is kept. */
  remember() {
    this.past.push(this.tokens);
    if (this.past.length > KEPT_STEPS) this.past.shift();
    this.future = [];
  }

  undo() {
    this.move(this.past, this.future);
  }

  redo() {
    this.move(this.future, this.past);
  }

  move(from, to) {
    if (this.isWriting || !from.length) return;
    to.push(this.tokens);
    this.setTokens(from.pop());
    this.save();
  }

  setTokens(tokens) {
    this.tokens = tokens;
    this.kept = null;
    this.hasEnded = false;
    this.app.changed();
  }

  /** Take in what was typed. Tokens before the first change stay, the rest is text again. */
  type(text) {
    if (this.isWriting) return;
    const now = Date.now();
    if (now - (this.lastTyped ?? 0) > 1000) this.remember();
    this.lastTyped = now;
    const old = this.text;
    let same = 0;
    while (same < old.length && old[same] === text[same]) same++;
    const tokens = [];
    let length = 0;
    for (const token of this.tokens) {
      if (length + token.text.length > same) break;
      tokens.push(token);
      length += token.text.length;
    }
    if (text.length > length) tokens.push(typed(text.slice(length)));
    if (!length) this.begin = null;
    this.setTokens(tokens);
    this.error = null;
    this.app.saver.saveSoon("raw", () => this.save());
  }

  /** Another model has other tokens, also of what can be undone. */
  forgetTokens() {
    this.controller?.abort();
    this.begin = null;
    this.choosing = null;
    this.past = this.past.map(untoken);
    this.future = this.future.map(untoken);
    this.setTokens(untoken(this.tokens));
    this.save();
  }

  // What the model does.

  /** Tokenize what was typed; returns the ids of the whole text, or null if it or its model was changed meanwhile. */
  async identify() {
    const { model } = this.chat;
    const { text, tokens: old } = this;
    const tokenize = async (content) => (await this.app.engine.tokenize({ model, content })).tokens;
    if (this.begin === null || old.some(({ id }) => id === null)) {
      const begin = await tokenize("");
      const tokens = [];
      for (const token of old) {
        if (token.id !== null) tokens.push(token);
        else tokens.push(...shareOut(token.text, (await tokenize(token.text)).slice(begin.length)));
      }
      if (this.text !== text || this.chat.model !== model) return null;
      this.begin ??= begin.map(({ id }) => id);
      this.tokens = tokens;
    }
    return [...this.begin, ...this.tokens.map(({ id }) => id)];
  }

  /** Write on from the end of the text. */
  async goOn() {
    if (this.isWriting || !this.chat.model) return;
    this.remember();
    await this.write();
  }

  /** Put a token in the place of another, and write on from it. */
  async take(index, choice) {
    if (this.isWriting) return;
    this.remember();
    const { top } = this.tokens[index];
    const token = { ...choice, top, written: true };
    this.setTokens([...this.tokens.slice(0, index), token]);
    await this.write();
  }

  /** Stop writing, and keep what is there. What the model still sends is dropped: the text may be another one by then. */
  stop() {
    if (!this.isWriting || this.controller.signal.aborted) return;
    this.controller.abort();
    this.save();
  }

  async write() {
    this.controller = new AbortController();
    this.error = null;
    this.kept = null;
    const { signal } = this.controller;
    let [first, count, said] = [null, 0, ""];
    this.waits = { begun: performance.now(), waits: null };
    const unwatch = this.app.watchModels();
    this.app.changed();
    try {
      const promptIds = await Promise.race([this.identify(), stopped(signal)]); // a model may be fetched first
      if (promptIds?.length === 0) throw new Error("Write a few words first, for the model to go on with.");
      const { model, settings } = this.chat;
      // Where the model wanted to end, asking it to continue means to go on all the same.
      const sampling = { ...settings.sampling, ignore_eos: this.hasEnded || undefined };
      const onWait = (reason) => {
        if (this.waits) this.waits.waits = reason;
      };
      const pieces = this.app.engine.complete({ model, promptIds, sampling, top: 10, signal, onWait });
      for (let piece = await pieces.next(); ; piece = await pieces.next()) {
        if (piece.done) {
          const seconds = (performance.now() - first) / 1000;
          this.stats = { reason: piece.value.finishReason, speed: count > 1 && seconds > 0.03 ? (count - 1) / seconds : null };
          this.hasEnded = this.stats.reason === "stop" && !signal.aborted;
          if (this.hasEnded && this.tokens.at(-1)?.text === "") this.tokens = this.tokens.slice(0, -1); // the end token
          break;
        }
        if (signal.aborted) continue;
        if (first === null) {
          first = performance.now();
          this.waits = null;
          unwatch();
          this.app.noteLoaded(model);
        }
        count += piece.value.length;
        said += textOf(piece.value);
        this.tokens = [...this.tokens, ...piece.value.map((token) => ({ ...token, written: true }))];
        this.app.changed();
      }
    } catch (error) {
      if (!signal.aborted) this.error = error.message;
    }
    unwatch();
    this.waits = null;
    this.controller = null;
    if (!signal.aborted) this.save();
    this.speak(said);
    this.app.changed();
    if (this.isOpen && !this.error) await this.look();
  }

  /** Let screen readers hear what was written. */
  speak(text) {
    if (!text) return;
    this.app.say(text.length > SPOKEN_LENGTH ? `${text.slice(0, SPOKEN_LENGTH)} … The rest stands in the text.` : text);
  }

  /** Ask for the probability of every token, and for what each head keeps. */
  async look() {
    if (this.isWriting || !this.text) return;
    try {
      const tokens = await this.identify();
      if (!tokens) return;
      const text = this.tokens;
      const found = await this.app.engine.inspect({ model: this.chat.model, tokens, top: 10 });
      if (text !== this.tokens) return; // it was changed meanwhile
      this.tokens = text.map((token, index) => {
        const { logprob, top } = found.tokens[index + this.begin.length];
        const choices = top?.map(({ id, piece, logprob: value }) => ({ id, text: piece, logprob: value }));
        return { ...token, logprob: token.logprob ?? logprob, top: token.top?.length ? token.top : choices };
      });
      this.kept = found;
    } catch (error) {
      this.error = error.message;
    }
    this.app.changed();
  }

  /** Begin with the tokens of a rendered conversation and an answer, and look at them. */
  open(tokens, answer) {
    this.begin = [];
    this.setTokens([...tokens.map(({ id, piece }) => ({ ...typed(piece), id })), ...(answer ? [typed(answer)] : [])]);
    return this.toggleInside();
  }

  /** Open or close the view of what is kept. */
  toggleInside() {
    this.isOpen = !this.isOpen;
    this.app.changed();
    if (this.isOpen) return this.look();
  }

  // Keeping it: the text is the one message of the conversation, its tokens are the message's figures.

  save() {
    const { chat, text } = this;
    const isNew = !chat.messages.length;
    if (isNew && !text) return;
    const message = isNew ? makeMessage("assistant", text, null, chat.model) : chat.messages[0];
    const stats = this.tokens.length <= MAX_SAVED_TOKENS ? { raw: pack(this.begin, this.tokens) } : null;
    Object.assign(message, { content: text, stats, model: chat.model });
    if (!isNew) return this.app.saver.save(chat, () => this.app.store.changeMessage(chat.id, structuredClone(message)));
    Object.assign(chat, { messages: [message], current_id: message.id });
    if (chat.title === "New conversation") chat.title = titleOf(text);
    this.app.saver.saveMessages(chat, [message]);
  }

  restore() {
    const message = this.chat.messages[0];
    if (!message) return;
    const isSameModel = (message.model ?? null) === this.chat.model; // whose ids they are
    const tokens = isSameModel ? unpack(message.stats?.raw, message.content) : null;
    this.begin = tokens ? message.stats.raw.begin : null;
    this.tokens = tokens ?? (message.content ? [typed(message.content)] : []);
  }
}

/** Tokens with the text that each stands for; where pieces are halves of characters, the first one gets it all. */
function shareOut(text, tokens) {
  const isWhole = tokens.map(({ piece }) => piece).join("") === text;
  return tokens.map(({ id, piece }, index) => ({ ...typed(isWhole ? piece : index ? "" : text), id }));
}

/** Tokens as short lists of numbers; log-probabilities in thousandths. */
function pack(begin, tokens) {
  return {
    begin,
    ids: tokens.map(({ id }) => id),
    lengths: tokens.map(({ text }) => text.length),
    logprobs: tokens.map(({ logprob }) => (logprob === null ? null : Math.round(logprob * 1000))),
    written: tokens.map(({ written }) => (written ? "1" : "0")).join(""),
  };
}

/** Tokens of a saved text; null where the numbers do not fit the text, as after an import. */
function unpack(saved, content) {
  const { ids, lengths, logprobs, written } = saved ?? {};
  if (![ids, lengths, logprobs].every(Array.isArray) || typeof written !== "string") return null;
  if (lengths.reduce((sum, length) => sum + length, 0) !== content.length || ids.length !== lengths.length) return null;
  let start = 0;
  return ids.map((id, index) => {
    const text = content.slice(start, (start += lengths[index]));
    const logprob = Number.isFinite(logprobs[index]) ? logprobs[index] / 1000 : null;
    return { id: Number.isInteger(id) ? id : null, text, logprob, top: null, written: written[index] === "1" };
  });
}
