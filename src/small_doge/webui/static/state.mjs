// What the page knows, and what can be done with it. Views read it, call its methods, and are drawn again after `changed`.

import { newId } from "./core/ids.mjs";
import { allPresets, cleanSampling } from "./core/presets.mjs";
import { MAX_IMPORT_BYTES, readChats, toJson, toMarkdown, download } from "./core/transfer.mjs";
import { makeMessage, pathTo } from "./core/tree.mjs";
import { RawText } from "./raw.mjs";
import { Talk } from "./talk.mjs";

const MODEL_KEY = "small-doge.model";
const DRAFTS_KEY = "small-doge.drafts";

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
    this.chats = [];
    this.search = "";
    this.tag = null;
    this.chat = null; // the open conversation, with its messages
    this.saved = new Set(); // ids of conversations that the store has
    this.queue = Promise.resolve(); // changes on their way to the store, one after another
    this.notice = null; // {text, action, label}
    this.dialog = null; // {kind, ...}
    this.sidebar = window.innerWidth > 800;
    this.panel = false;
    this.drafts = JSON.parse(sessionStorage.getItem(DRAFTS_KEY) ?? "{}");
    this.talk = new Talk(this);
    this.raw = null;
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
    await Promise.all([this.loadModels(), this.refreshChats()]);
    await this.openFromHash();
    window.addEventListener("hashchange", () => this.openFromHash());
    window.addEventListener("beforeunload", (event) => (this.unsaved || this.talk.streams.size) && event.preventDefault());
  }

  // Models.

  async loadModels() {
    try {
      this.models = await this.engine.models();
      this.modelsError = this.models.length ? null : "There is no model. Name one: small-doge serve MODEL";
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
    this.saveFields(chat, ["model", "settings"]);
    this.changed();
  }

  // Conversations.

  newChat({ mode = "chat", keepAddress = false } = {}) {
    const now = new Date().toISOString();
    const preset = allPresets()[0];
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
    this.raw?.stop();
    this.chat = chat;
    chat.settings = { mode: "chat", ...chat.settings, sampling: cleanSampling(chat.settings?.sampling) };
    this.raw = chat.settings.mode === "raw" ? new RawText(this, chat) : null;
    this.editing = null;
    if (window.innerWidth <= 800) this.sidebar = false;
    document.title = `${chat.title} · SmallDoge`;
    this.changed();
  }

  async openFromHash() {
    const id = decodeURIComponent(location.hash.slice(1));
    if (!id || id === this.chat?.id) return;
    await this.open(id);
  }

  async open(id) {
    try {
      await this.queue;
      // An answer that is still being written goes on in the object that it began in.
      const chat = this.talk.chatOf(id) ?? (await this.store.load(id));
      if (!chat) return this.tell("This conversation is not here; it may have been deleted.");
      this.saved.add(id);
      this.openChat(chat);
      if (location.hash.slice(1) !== id) location.hash = id;
    } catch (error) {
      this.tell(error.message, "Try again", () => this.open(id));
    }
  }

  async refreshChats() {
    const search = this.search;
    try {
      const chats = await this.store.list(search);
      if (search !== this.search) return; // a later search is on its way
      this.chats = chats;
      this.chatsError = null;
    } catch (error) {
      this.chatsError = error.message;
    }
    this.changed();
  }

  setSearch(text) {
    this.search = text;
    clearTimeout(this.searching);
    this.searching = setTimeout(() => this.refreshChats(), 150);
    this.changed();
  }

  // Saving. The store is asked one thing after another; what it refuses can be tried again as a whole.

  save(chat, change) {
    this.countUnsaved(1);
    this.queue = this.queue
      .then(change)
      .then(
        () => this.setSearch(this.search), // the list is asked for again
        (error) => this.tell(`Not saved: ${error.message}`, "Save again", () => this.saveAll(chat)),
      )
      .finally(() => this.countUnsaved(-1));
    return this.queue;
  }

  /** How many changes are on their way; the browser asks before it closes the page over them. */
  countUnsaved(step) {
    this.unsaved = (this.unsaved ?? 0) + step;
    document.documentElement.dataset.saved = String(this.unsaved === 0);
  }

  saveAll(chat) {
    const whole = this.storable(chat);
    return this.save(chat, async () => {
      if (await this.store.load(chat.id)) await this.store.change(chat.id, whole);
      else await this.store.create(whole);
      this.saved.add(chat.id);
    });
  }

  /** A copy of a conversation without answers that are still being written. */
  storable(chat) {
    const { streams } = this.talk;
    const writing = new Map(chat.messages.filter(({ id }) => streams.has(id)).map(({ id, parent_id }) => [id, parent_id]));
    const copy = plain({ ...chat, messages: chat.messages.filter(({ id }) => !writing.has(id)) });
    const shown = (id) => writing.get(id) ?? id;
    copy.current_id = shown(copy.current_id);
    if (copy.settings.compare) copy.settings.compare.current_id = shown(copy.settings.compare.current_id);
    return copy;
  }

  /** Save fields of a conversation; one without messages is not kept yet. */
  saveFields(chat, names) {
    if (!this.saved.has(chat.id)) return;
    const copy = this.storable(chat);
    const fields = Object.fromEntries(names.map((name) => [name, copy[name]]));
    this.save(chat, () => this.store.change(chat.id, fields));
  }

  /** Save new messages, and the conversation itself with its first ones. */
  saveMessages(chat, messages) {
    if (this.saved.has(chat.id)) {
      const { current_id: current, settings } = this.storable(chat);
      const copies = messages.map(plain);
      return this.save(chat, async () => {
        await this.store.append(chat.id, copies, current);
        if (settings.compare) await this.store.change(chat.id, { settings, current_id: current });
      });
    }
    this.saved.add(chat.id);
    const whole = this.storable(chat);
    if (chat === this.chat) history.replaceState(null, "", `#${chat.id}`);
    return this.save(chat, () => this.store.create(whole));
  }

  changeSummary(summary, fields) {
    Object.assign(summary, fields);
    if (this.chat?.id === summary.id) Object.assign(this.chat, fields);
    document.title = `${this.chat.title} · SmallDoge`;
    this.save(summary, () => this.store.change(summary.id, fields));
    this.changed();
  }

  deleteChat(summary) {
    this.talk.stop(summary.id);
    this.chats = this.chats.filter(({ id }) => id !== summary.id);
    this.saved.delete(summary.id);
    if (this.chat?.id === summary.id) this.newChat();
    this.save(summary, () => this.store.remove(summary.id));
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
    const { compare: _, ...settings } = plain(this.chat.settings);
    const chat = { ...plain(this.chat), id: newId(), title: `${this.chat.title} (branch)`, settings };
    this.openChat({ ...chat, pinned: false, messages, current_id: parent });
    location.hash = chat.id;
    this.saveMessages(this.chat, messages);
  }

  // Modes.

  /** Open what the model read and wrote, up to a message, as raw text with its control tokens. */
  async lookInside(messageId) {
    const { chat } = this;
    const path = pathTo(chat.messages, messageId);
    const model = path.at(-1).model ?? chat.model;
    const messages = path.slice(0, -1).map(({ role, content }) => ({ role, content }));
    if (chat.system_prompt.trim()) messages.unshift({ role: "system", content: chat.system_prompt });
    try {
      const { tokens } = await this.engine.tokenize({ model, messages });
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
      const other = this.models.find(({ id }) => id !== chat.model) ?? this.models[0];
      chat.settings.compare = { model: other?.id ?? null, current_id: chat.current_id };
    }
    this.saveFields(chat, ["settings"]);
    this.changed();
  }

  applyPreset(preset) {
    const { chat } = this;
    chat.system_prompt = preset.system_prompt ?? "";
    Object.assign(chat.settings, { preset: preset.name, sampling: cleanSampling(preset.sampling) });
    this.saveFields(chat, ["system_prompt", "settings"]);
    this.changed();
  }

  // Export and import.

  async exportChats(format, id = null) {
    try {
      await this.queue;
      if (id === null) return download("small-doge-chats.json", toJson(await this.store.exportAll()), "application/json");
      const chat = this.chat.id === id ? this.chat : await this.store.load(id);
      if (format === "markdown") download(`${chat.title}.md`, toMarkdown(chat), "text/markdown");
      else download(`${chat.title}.json`, toJson([chat]), "application/json");
    } catch (error) {
      this.tell(`Not exported: ${error.message}`);
    }
  }

  async importFile(file) {
    try {
      if (file.size > MAX_IMPORT_BYTES) throw new Error(`The file is larger than ${MAX_IMPORT_BYTES / 1e6} MB.`);
      const { imported, skipped } = await this.store.importAll(readChats(await file.text()));
      this.tell(`${imported} imported${skipped ? `, ${skipped} were there already` : ""}.`);
      await this.refreshChats();
    } catch (error) {
      this.tell(`Not imported: ${error.message}`);
    }
  }

  // What is shown beside.

  tell(text, label = null, action = null) {
    this.notice = { text, label, action };
    clearTimeout(this.noticeTimer);
    if (!action) this.noticeTimer = setTimeout(() => this.closeNotice(), 6000);
    this.changed();
  }

  closeNotice() {
    this.notice = null;
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
    return this.saved.has(this.chat.id) ? this.chat.id : "new";
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

/** A copy that later changes do not touch. */
function plain(value) {
  return structuredClone(value);
}
