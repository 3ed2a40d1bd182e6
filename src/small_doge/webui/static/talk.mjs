// Sending, answering, stopping and branching in a conversation of one or two columns.

import { splitThinking } from "./core/thinking.mjs";
import { childrenOf, findMessage, makeMessage, newestLeaf, pathTo, siblingsOf, titleOf } from "./core/tree.mjs";

const SPOKEN_EVERY_MS = 3000;
export const SPOKEN_LENGTH = 1500; // characters of an answer that screen readers are given at its end; the rest is read in its place
const NEARLY_FULL = 0.8; // of the context: an error then is likely one of its size

/**
 * The columns of a conversation. Both show a branch of the same tree: one model's, the other's.
 * @returns {{index: number, model: string, leaf: string | null}[]}
 */
export function columnsOf({ model, current_id: leaf, settings: { compare } }) {
  const first = { index: 0, model, leaf };
  return compare ? [first, { index: 1, model: compare.model, leaf: compare.current_id }] : [first];
}

export function setLeaf(chat, column, id) {
  if (column === 1) chat.settings.compare.current_id = id;
  else chat.current_id = id;
}

export class Talk {
  constructor(app) {
    this.app = app;
    this.streams = new Map(); // id of the message that is being written: see `write`
    this.errors = new Map(); // id of a message: what went wrong after it
  }

  isStreaming(chat) {
    return [...this.streams.values()].some((stream) => stream.chat.id === chat.id);
  }

  /** The object of a conversation that is being answered. */
  chatOf(id) {
    return [...this.streams.values()].find((stream) => stream.chat.id === id)?.chat ?? null;
  }

  stop(chatId) {
    for (const { chat, controller } of this.streams.values()) if (chat.id === chatId) controller.abort();
  }

  /** Ask all columns the same. False if an answer is still being written. */
  send(text) {
    const { chat } = this.app;
    if (!text.trim() || this.isStreaming(chat)) return false;
    if (!chat.model) {
      this.app.tell(this.app.modelsError ?? "Choose a model first.");
      return false;
    }
    if (!chat.messages.length && chat.title === "New conversation") chat.title = titleOf(text);
    this.app.nameWindow();
    const questions = new Map(); // columns that show the same branch share a question
    for (const { index, leaf } of columnsOf(chat)) {
      if (!questions.has(leaf)) questions.set(leaf, makeMessage("user", text, leaf));
      setLeaf(chat, index, questions.get(leaf).id);
    }
    const asked = [...questions.values()];
    chat.messages.push(...asked);
    this.app.draft = ""; // before the conversation gets its name
    this.app.saver.saveMessages(chat, asked);
    for (const { index } of columnsOf(chat)) this.answer(chat, index);
    return true;
  }

  /** Let a column's model answer the last message of the column. */
  answer(chat, column) {
    const { model, leaf } = columnsOf(chat)[column];
    const message = makeMessage("assistant", "", leaf, model);
    this.errors.delete(leaf);
    chat.messages.push(message);
    setLeaf(chat, column, message.id);
    return this.write(chat, column, message, false);
  }

  /** Write another answer beside one, or again after an error. If it ends before its first word, the branch that was shown is again. */
  async regenerate(column, message) {
    const { chat } = this.app;
    if (this.isStreaming(chat)) return;
    const { leaf } = columnsOf(chat)[column];
    const question = message.role === "user" ? message.id : message.parent_id;
    setLeaf(chat, column, question);
    await this.answer(chat, column);
    if (columnsOf(chat)[column]?.leaf === question) setLeaf(chat, column, leaf);
  }

  /** Go on with an answer that was cut off. */
  continueAnswer(column, message) {
    const { chat } = this.app;
    if (this.isStreaming(chat)) return;
    setLeaf(chat, column, message.id);
    this.write(chat, column, message, true);
  }

  /** Put another text beside a message; a question is answered anew. False if an answer is still being written, which it says. */
  edit(column, message, text) {
    const { chat } = this.app;
    if (this.isStreaming(chat)) {
      this.app.tell("Stop the answer first.");
      return false;
    }
    if (!text.trim()) return true;
    const edited = makeMessage(message.role, text, message.parent_id, message.model);
    chat.messages.push(edited);
    setLeaf(chat, column, edited.id);
    this.app.saver.saveMessages(chat, [edited]);
    if (message.role === "user") this.answer(chat, column);
    this.app.changed();
    return true;
  }

  /** Show the branch before (-1) or after (+1) that of a message. */
  switchBranch(column, message, step) {
    const { chat } = this.app;
    const siblings = siblingsOf(chat.messages, message);
    const other = siblings[siblings.findIndex(({ id }) => id === message.id) + step];
    if (!other || this.isStreaming(chat)) return;
    setLeaf(chat, column, newestLeaf(chat.messages, other.id));
    this.app.saver.saveFields(chat, ["current_id", "settings"]);
    this.app.changed();
  }

  /** Stream into a message; `goOn` after the text that it has. */
  async write(chat, column, message, goOn) {
    const { app } = this;
    const stream = {
      ...{ chat, controller: new AbortController(), begun: performance.now(), first: null, count: 0 },
      ...{ waits: null, unwatch: this.watch(message), spoken: spokenText(message).length, spokenAt: performance.now() },
    };
    this.streams.set(message.id, stream);
    this.errors.delete(message.id);
    app.changed();
    const before = { content: message.content, stats: message.stats };
    let end = { finishReason: "error", usage: null };
    try {
      end = await this.read(this.request(chat, message, goOn, stream), message, stream);
    } catch (error) {
      this.errors.set(message.content ? message.id : message.parent_id, this.explain(error, chat, message));
    }
    stream.unwatch();
    this.streams.delete(message.id);
    if (goOn && message.content === before.content) {
      message.stats = before.stats;
      if (end.finishReason === "stop") app.tell("The model has nothing to add.");
    } else {
      this.finish(chat, column, message, goOn, measure(stream, end));
      if (chat === app.chat) this.speak(message, stream, true);
    }
    app.changed();
  }

  /** Keep an eye on what an answer waits for; returns what ends it. */
  watch(message) {
    const { app } = this;
    const unwatch = app.watchModels();
    const speech = setTimeout(() => app.say(waitingText(app, message.model, this.streams.get(message.id))), SPOKEN_EVERY_MS);
    return () => {
      unwatch();
      clearTimeout(speech);
    };
  }

  /** Let screen readers hear what was written since they last did: whole sentences meanwhile, all of it at the end. */
  speak(message, stream, isOver) {
    const now = performance.now();
    if (!isOver && now - stream.spokenAt < SPOKEN_EVERY_MS) return;
    stream.spokenAt = now;
    const text = spokenText(message);
    const end = isOver ? text.length : /[^]*[.!?:\n]/.exec(text)?.[0].length ?? 0;
    if (end <= stream.spoken) return;
    const part = text.slice(stream.spoken, end);
    const name = this.app.chat.settings.compare || !stream.hasSpoken ? `${message.model}: ` : "";
    const rest = part.length > SPOKEN_LENGTH ? " … The rest stands in the messages." : "";
    Object.assign(stream, { spoken: end, hasSpoken: true });
    this.app.say(`${name}${part.slice(0, SPOKEN_LENGTH)}${rest}`);
  }

  /** The words of an error, with the remedy where the context is the likely cause. */
  explain({ message: words, status }, chat, message) {
    const limit = this.app.contextOf(message.model); // not the column's: it may be closed
    const isOfSize = status === undefined || status === 400;
    const isFull = isOfSize && limit && usedTokens(chat, message.id) > NEARLY_FULL * limit;
    return isFull ? `${words.replace(/\.$/, "")}. Begin a new conversation, or edit an earlier message to a shorter one.` : words;
  }

  /** Start the engine; a model without a chat template goes on with the plain text of the conversation. */
  request(chat, message, goOn, stream) {
    const { signal } = stream.controller;
    const onWait = (reason) => {
      stream.waits = reason;
      this.app.changed();
    };
    const path = pathTo(chat.messages, goOn ? message.id : message.parent_id);
    const messages = path.map(({ role, content }) => ({ role, content }));
    const { model } = message;
    const { sampling } = chat.settings;
    if (!this.app.canChat(model)) {
      const prompt = messages.map(({ content }) => content).join("\n");
      return this.app.engine.complete({ model, prompt, sampling, top: 1, signal, onWait });
    }
    if (chat.system_prompt.trim()) messages.unshift({ role: "system", content: chat.system_prompt });
    return this.app.engine.chat({ model, messages, sampling, signal, onWait, continueFinal: goOn });
  }

  async read(pieces, message, stream) {
    for (;;) {
      const { value, done } = await pieces.next();
      if (done) return value;
      if (stream.first === null) {
        stream.first = performance.now();
        stream.unwatch();
        this.app.noteLoaded(message.model);
      }
      const parts = Array.isArray(value) ? value : [value];
      for (const { text, tokenIds } of parts) {
        message.content += text;
        stream.count += tokenIds?.length ?? 1;
      }
      if (stream.chat === this.app.chat) this.speak(message, stream, false);
      this.app.changed();
    }
  }

  /** Keep what was written. An answer that failed before its first word leaves no message. */
  finish(chat, column, message, goOn, stats) {
    const { app } = this;
    message.stats = stats;
    if (!message.content && (stats.finish_reason === "error" || stats.finish_reason === "aborted")) {
      chat.messages.splice(chat.messages.indexOf(message), 1);
      if (columnsOf(chat)[column]?.leaf === message.id) setLeaf(chat, column, message.parent_id);
      return;
    }
    if (!goOn) app.saver.saveMessages(chat, [message]);
    else app.saver.save(chat, () => app.store.changeMessage(chat.id, structuredClone(message)));
  }
}

/** What a generation waits for before its first token: another one, its model, which may not be loaded yet, or the server. */
export function waitingText(app, id, { begun, waits }) {
  if (waits) return waits;
  const seconds = `${Math.floor((performance.now() - begun) / 1000)} s`;
  const model = app.findModel(id);
  if (model?.loaded !== false) return `waiting ${seconds}`;
  const hint = model.path_kind === "checkpoint" ? ". A checkpoint is exported the first time, which takes a while." : "";
  return `Preparing the model ${id} … ${seconds}${hint}`;
}

/** Tokens that a branch took, prompt and answer together, by the figures of its last answer. */
export function usedTokens(chat, leaf) {
  const stats = pathTo(chat.messages, leaf).findLast(({ stats }) => stats?.prompt_tokens)?.stats;
  return stats ? stats.prompt_tokens + stats.completion_tokens : 0;
}

/** What an answer says, without thoughts and signs of Markdown. */
function spokenText({ content }) {
  const said = splitThinking(content).filter(({ kind }) => kind === "said");
  return said.map(({ text }) => text.replace(/[*_`#|]/g, "")).join("\n");
}

/** Figures of an answer, as they are kept with it. */
function measure({ begun, first, count }, { finishReason, usage }) {
  const now = performance.now();
  const tokens = usage?.completion_tokens || count;
  // Where all came at once, the time to the first token is all there is to measure.
  const isOneBurst = now - first < 30;
  const seconds = first === null ? 0 : (now - (isOneBurst ? begun : first)) / 1000;
  return {
    finish_reason: finishReason,
    prompt_tokens: usage?.prompt_tokens ?? null,
    completion_tokens: tokens,
    cached_tokens: usage?.cached_tokens ?? null,
    first_token_seconds: first === null ? null : round((first - begun) / 1000),
    seconds: round((now - begun) / 1000),
    tokens_per_second: tokens > 1 && seconds > 0 ? round((isOneBurst ? tokens : tokens - 1) / seconds) : null,
  };
}

const round = (value) => Math.round(value * 1000) / 1000;

/** Whether a message can be gone on with: it is the last one of its branch, and an answer. */
export function canContinue(chat, message) {
  return message.role === "assistant" && !childrenOf(chat.messages, message.id).length && !!findMessage(chat.messages, message.id);
}
