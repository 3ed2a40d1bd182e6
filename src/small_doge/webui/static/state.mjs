// What the page knows, and what can be done with it. Views read it, call its methods, and are drawn again after `changed`.

import { newId } from "./core/ids.mjs";
import { BUILT_IN, cleanSampling } from "./core/presets.mjs";
import { CROWDED, NARROW, isNarrow } from "./core/screen.mjs";
import { makeMessage, pathTo } from "./core/tree.mjs";
import { Library } from "./library.mjs";
import { RawText } from "./raw.mjs";
import { Saver } from "./saver.mjs";
import { Talk } from "./talk.mjs";

const MODEL_KEY = "small-doge.model";
const DRAFTS_KEY = "small-doge.drafts";
const KEPT_WORDS = 5; // that several of one moment are all heard

export class App {
  /**
   * @param {object} parts
   * @param {object} parts.config what config.json holds
   * @param {import("./engines/engine.mjs").Engine} parts.engine
   * @param {import("./stores/store.mjs").Store} parts.store
   * @param {() => void} parts.draw draws the page
   */
  constructor({ config, engine, store, draw }) {
    Object.assign(this, { config, engine, store, draw });
    this.models = [];
    this.chat = null; // the open conversation, with its messages
    this.notice = null; // {text, action, label}
    this.dialog = null; // {kind, ...}
    this.said = []; // the last words for screen readers: {number, text}
    this.sidebar = !isNarrow();
    this.panel = false;
    this.drafts = JSON.parse(sessionStorage.getItem(DRAFTS_KEY) ?? "{}");
    this.saver = new Saver(this);
    this.library = new Library(this);
    this.talk = new Talk(this);
    this.raw = null;
    this.opened = 0; // how many conversations were asked for: the last one is shown, however long an earlier one takes
  }

  /** Draw the page before the next frame, however often this is called until then. */
  changed() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  async start() {
    this.newChat({ keepAddress: true });
    await Promise.all([this.loadModels(), this.library.refresh(), this.library.loadPresets()]);
    await this.openFromHash();
    NARROW.addEventListener("change", () => this.toggle("sidebar", !NARROW.matches));
    CROWDED.addEventListener("change", () => this.fitPanels("sidebar"));
    window.addEventListener("hashchange", () => this.openFromHash());
    window.addEventListener("beforeunload", (event) => this.hasUnsaved && event.preventDefault());
    window.addEventListener("pagehide", () => this.leave());
  }

  /** Whether something would be lost if the page were closed now. */
  get hasUnsaved() {
    const { saver, talk, raw } = this;
    return Boolean(saver.unsaved || saver.failed.size || talk.streams.size || raw?.isWriting);
  }

  /** Save what is typed and written in the open conversation. */
  leave() {
    this.raw?.stop();
    return this.saver.flush();
  }

  // Models.

  async loadModels() {
    try {
      this.models = await this.engine.models();
      this.modelsError = this.models.length ? null : this.engine.noModels;
    } catch (error) {
      this.modelsError = error.message;
    }
    if (this.chat && !this.chat.model) this.chooseDefaultModel(this.chat);
    this.changed();
  }

  /** Draw every second what is waited for, with what has become of the models; returns what ends it. */
  watchModels() {
    const timer = setInterval(() => {
      this.changed();
      this.loadModels();
    }, 1000);
    return () => clearInterval(timer);
  }

  /** Note that a model has written something, before the server is asked again. */
  noteLoaded(id) {
    const model = this.findModel(id);
    if (model) model.loaded = true;
  }

  findModel(id) {
    return this.models.find((model) => model.id === id) ?? null;
  }

  /** Whether a model was trained to answer; one of which that is not known is taken to be. */
  canChat(id) {
    return this.findModel(id)?.can_chat !== false;
  }

  /** Tokens that a model takes in well, prompt and answer together; null if there is no limit. */
  contextOf(id) {
    const model = this.findModel(id);
    const limits = [model?.max_length, model?.trained_length].filter(Boolean);
    return limits.length ? Math.min(...limits) : null;
  }

  chooseDefaultModel(chat) {
    const last = localStorage.getItem(MODEL_KEY);
    chat.model = this.findModel(last)?.id ?? this.models.find(({ can_chat }) => can_chat)?.id ?? this.models[0]?.id ?? null;
    this.fitMode(chat);
  }

  /** An empty conversation with a model that can't chat becomes a raw text. */
  fitMode(chat) {
    if (chat.messages.length || chat.settings.compare || chat.settings.mode === "raw" || !chat.model) return;
    if (!this.canChat(chat.model)) this.setMode("raw", true);
  }

  /** @param {number} column 0, or 1 for the model beside */
  setModel(column, id) {
    const { chat } = this;
    if (column === 1) chat.settings.compare.model = id;
    else chat.model = id;
    localStorage.setItem(MODEL_KEY, chat.model);
    if (this.raw) this.raw.forgetTokens();
    if (chat.settings.forcedRaw && this.canChat(id) && !this.raw?.text) this.setMode("chat");
    this.fitMode(chat);
    this.saver.saveFields(chat, ["model", "settings"]);
    this.changed();
  }

  // Conversations.

  newChat({ mode = "chat", keepAddress = false } = {}) {
    const now = new Date().toISOString();
    const preset = BUILT_IN[0];
    this.openChat({
      id: newId(),
      title: "New conversation",
      model: null,
      folder: null,
      tags: [],
      pinned: false,
      archived: false,
      created_at: now,
      updated_at: now,
      system_prompt: preset.system_prompt,
      settings: { mode, preset: preset.name, sampling: { ...preset.sampling } },
      messages: [],
      current_id: null,
    });
    this.chooseDefaultModel(this.chat);
    if (location.hash && !keepAddress) history.pushState(null, "", location.pathname + location.search);
  }

  openChat(chat) {
    this.leave();
    this.opened++;
    this.chat = chat;
    chat.settings = { mode: "chat", ...chat.settings, sampling: cleanSampling(chat.settings?.sampling) };
    this.raw = chat.settings.mode === "raw" ? new RawText(this, chat) : null;
    this.editing = null;
    if (isNarrow()) this.sidebar = false;
    this.nameWindow();
    this.changed();
  }

  nameWindow() {
    document.title = `${this.chat.title} · SmallDoge`;
  }

  async openFromHash() {
    const id = decode(location.hash.slice(1));
    if (!id || id === this.chat?.id) return;
    await this.open(id);
  }

  async open(id) {
    const number = ++this.opened;
    try {
      await this.leave();
      // An answer that is still being written goes on in the object that it began in, and so does what could not be saved.
      const here = this.saver.removed.has(id) ? null : (this.talk.chatOf(id) ?? this.saver.unsavedChat(id));
      const chat = here ?? (await this.store.load(id));
      if (number !== this.opened) return;
      if (!chat) return this.tell("This conversation is not here; it may have been deleted.");
      this.saver.keep(id);
      this.openChat(chat);
      if (!chat.model) this.chooseDefaultModel(chat); // made by a program
      if (location.hash.slice(1) !== id) location.hash = id;
      if (!this.library.chats.some((other) => other.id === id)) this.library.refreshSoon(); // it may be new, from elsewhere
    } catch (error) {
      if (number === this.opened) this.tell(error.message, "Try again", () => this.open(id));
    }
  }

  /** Open a copy of the conversation that ends with a message. */
  branchChat(messageId) {
    const path = pathTo(this.chat.messages, messageId);
    let parent = null;
    const messages = path.map((message) => {
      const copy = { ...makeMessage(message.role, message.content, parent, message.model), stats: message.stats };
      parent = copy.id;
      return copy;
    });
    const { compare: _, ...settings } = structuredClone(this.chat.settings);
    const now = new Date().toISOString();
    const chat = { ...structuredClone(this.chat), id: newId(), title: `${this.chat.title} (branch)`, settings };
    const fresh = { created_at: now, updated_at: now, pinned: false, archived: false };
    this.openChat({ ...chat, ...fresh, messages, current_id: parent });
    location.hash = chat.id;
    this.saver.saveMessages(this.chat, messages);
  }

  // Modes.

  /** Open what the model read and wrote, up to a message, as raw text with its control tokens. */
  async lookInside(messageId) {
    const { chat } = this;
    const path = pathTo(chat.messages, messageId);
    const model = path.at(-1).model ?? chat.model;
    const messages = path.slice(0, -1).map(({ role, content }) => ({ role, content }));
    if (chat.system_prompt.trim()) messages.unshift({ role: "system", content: chat.system_prompt });
    const number = ++this.opened;
    try {
      const { tokens } = await this.engine.tokenize({ model, messages });
      if (number !== this.opened) return;
      this.newChat({ mode: "raw" });
      this.chat.model = model;
      this.raw.open(tokens, path.at(-1).content);
    } catch (error) {
      this.tell(error.message);
    }
  }

  setMode(mode, forced = false) {
    const { chat } = this;
    if (chat.messages.length && chat.settings.mode !== mode) return this.newChat({ mode });
    chat.settings.mode = mode;
    chat.settings.forcedRaw = forced;
    delete chat.settings.compare;
    this.raw = mode === "raw" ? (this.raw ?? new RawText(this, chat)) : null;
    this.changed();
  }

  /** Show a second model beside the first, or only the first again. */
  toggleCompare() {
    const { chat } = this;
    if (chat.settings.mode === "raw") return;
    if (chat.settings.compare) delete chat.settings.compare;
    else {
      const other = this.models.find(({ id }) => id !== chat.model);
      chat.settings.compare = { model: other?.id ?? chat.model, current_id: chat.current_id };
      if (!other) this.tell(`There is one model, which answers in both columns. ${this.engine.addModels}`);
    }
    this.saver.saveFields(chat, ["settings"]);
    this.changed();
  }

  applyPreset(preset) {
    const { chat } = this;
    chat.system_prompt = preset.system_prompt ?? "";
    Object.assign(chat.settings, { preset: preset.name, sampling: cleanSampling(preset.sampling) });
    this.saver.saveFields(chat, ["system_prompt", "settings"]);
    this.changed();
  }

  // What is shown beside.

  /** Open or close the list of conversations ("sidebar") or the settings ("panel"). */
  toggle(name, isOpen = !this[name]) {
    this[name] = isOpen;
    if (isOpen && name === "panel") this.library.loadPresets(); // another tab may have changed them
    this.fitPanels(name);
  }

  /** Where there is no room for both panels, keep the one that was opened. */
  fitPanels(opened) {
    if (CROWDED.matches && this.sidebar && this.panel) this[opened === "panel" ? "sidebar" : "panel"] = false;
    this.changed();
  }

  /** Let a screen reader say something; also what it has just said. */
  say(text) {
    const number = (this.said.at(-1)?.number ?? 0) + 1;
    this.said = [...this.said.slice(1 - KEPT_WORDS), { number, text }];
    this.changed();
  }

  /** Say something in words, with what can be done about it; it goes after a while, or stays until it is answered. */
  tell(text, label = null, action = null, seconds = action ? Infinity : 6) {
    this.say(text);
    this.showNotice(text, label, action, seconds);
  }

  showNotice(text, label = null, action = null, seconds = 6) {
    this.notice = { text, label, action };
    clearTimeout(this.noticeTimer);
    if (Number.isFinite(seconds)) this.noticeTimer = setTimeout(() => this.closeNotice(), 1000 * seconds);
    this.changed();
  }

  /** Close the notice. What is not saved is offered again after others, which may have taken its place. */
  closeNotice() {
    const action = this.notice?.action;
    this.notice = null;
    if (action !== this.saver.saveAgain) this.saver.remind();
    this.changed();
  }

  openDialog(kind, data = {}) {
    this.dialog = { kind, ...data };
    this.changed();
  }

  closeDialog() {
    this.dialog = null;
    this.changed();
  }

  /** What is typed and not sent, kept for each conversation while the tab lives; one that is not saved has no name yet. */
  get draft() {
    return this.drafts[this.draftKey] ?? "";
  }

  get draftKey() {
    return this.saver.ids.has(this.chat.id) ? this.chat.id : "new";
  }

  set draft(text) {
    if (text) this.drafts[this.draftKey] = text;
    else delete this.drafts[this.draftKey];
    sessionStorage.setItem(DRAFTS_KEY, JSON.stringify(this.drafts));
    this.changed();
  }

  setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    if (theme) localStorage.setItem("small-doge.theme", theme);
    else localStorage.removeItem("small-doge.theme");
    this.changed();
  }
}

/** An address's text; one that no browser wrote, such as "%", stands for itself. */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
