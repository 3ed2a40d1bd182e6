// The lists beside the conversation: conversations, archived ones, presets; what is done with whole ones, exports, imports.

import { BUILT_IN, isBuiltIn } from "./core/presets.mjs";
import { MAX_IMPORT_BYTES, download, readExport, toJson, toMarkdown } from "./core/transfer.mjs";

const UNDO_SECONDS = 20;

export class Library {
  constructor(app) {
    this.app = app;
    this.chats = []; // summaries of those that the list shows
    this.search = "";
    this.tag = null;
    this.isArchive = false; // whether the list shows archived conversations
    this.error = null;
    this.ownPresets = [];
  }

  get store() {
    return this.app.store;
  }

  // The list.

  async refresh() {
    const { search, isArchive } = this;
    const { queue } = this.app.saver;
    try {
      await queue;
      const chats = await this.store.list(search, isArchive);
      if (queue !== this.app.saver.queue) return this.refreshSoon(); // it may lack a change that was made meanwhile
      if (search !== this.search || isArchive !== this.isArchive) return; // a later question is on its way
      this.chats = chats;
      this.error = null;
    } catch (error) {
      this.error = error.message;
    }
    this.app.changed();
  }

  setSearch(text) {
    this.search = text;
    this.refreshSoon();
    this.app.changed();
  }

  refreshSoon() {
    clearTimeout(this.searching);
    this.searching = setTimeout(() => this.refresh(), 150);
  }

  /** Show archived conversations, or the others. */
  showArchive(isArchive) {
    Object.assign(this, { isArchive, chats: [], tag: null });
    this.app.changed();
    return this.refresh();
  }

  setTag(tag) {
    this.tag = this.tag === tag ? null : tag;
    this.app.changed();
  }

  // One conversation of the list.

  change(summary, fields) {
    const { app } = this;
    Object.assign(summary, fields);
    if (app.chat.id === summary.id) Object.assign(app.chat, fields);
    if ("archived" in fields) this.chats = this.chats.filter(({ archived }) => archived === this.isArchive);
    app.nameWindow();
    this.send(summary, () => this.store.change(summary.id, fields));
    app.changed();
  }

  archive(summary, archived) {
    const { app } = this;
    this.change(summary, { archived });
    if (archived) app.tell("Archived.", "Undo", () => this.change(summary, { archived: false }), UNDO_SECONDS);
    else app.tell("Out of the archive.");
  }

  remove(summary) {
    const { app } = this;
    app.talk.stop(summary.id);
    this.chats = this.chats.filter(({ id }) => id !== summary.id);
    app.saver.remove(summary); // before what is being written ends, and is saved
    if (app.chat.id === summary.id) app.newChat();
  }

  /** Let the store make a change, which can be tried again as it is. */
  send(summary, change) {
    this.app.saver.save(summary, change, () => this.send(summary, change));
  }

  // Presets.

  get presets() {
    return [...BUILT_IN, ...this.ownPresets];
  }

  async loadPresets() {
    try {
      this.ownPresets = await this.store.listPresets();
      this.presetsError = null;
      const unmoved = this.store.unmoved?.join("; ");
      if (unmoved && unmoved !== this.toldUnmoved) this.app.tell(`Presets that stay in this browser: ${unmoved}`);
      this.toldUnmoved = unmoved;
    } catch (error) {
      this.presetsError = error.message;
    }
    this.app.changed();
  }

  /** Keep a preset; one of that name is replaced, a built-in one is not. */
  async savePreset(preset) {
    if (isBuiltIn(preset.name)) throw new Error(`${preset.name} is built in; choose another name`);
    await this.store.savePreset(preset);
    await this.loadPresets();
  }

  async removePreset(name) {
    await this.store.removePreset(name);
    await this.loadPresets();
  }

  // Export and import.

  async export(format, id = null) {
    const { app } = this;
    try {
      await app.saver.flush();
      if (id === null) {
        const { chats, presets } = await this.store.exportAll();
        return download("small-doge-chats.json", toJson(chats, presets), "application/json");
      }
      const chat = app.chat.id === id ? app.chat : await this.store.load(id);
      if (format === "markdown") download(`${chat.title}.md`, toMarkdown(chat), "text/markdown");
      else download(`${chat.title}.json`, toJson([chat]), "application/json");
    } catch (error) {
      app.tell(`Not exported: ${error.message}`);
    }
  }

  async import(file) {
    try {
      if (file.size > MAX_IMPORT_BYTES) throw new Error(`The file is larger than ${MAX_IMPORT_BYTES / 1e6} MB.`);
      const { dropped, ...content } = readExport(await file.text());
      const result = await this.store.importAll(content);
      this.app.tell(describeImport(content, dropped, result));
      await Promise.all([this.refresh(), this.loadPresets()]);
    } catch (error) {
      this.app.tell(`Not imported: ${error.message}`);
    }
  }
}

/** What became of an import, in words. */
function describeImport({ chats, presets }, dropped, { imported, skipped, imported_presets: newPresets, skipped_presets: oldPresets }) {
  const parts = [];
  if (chats.length) parts.push(`${imported} imported${skipped ? `, ${skipped} were there already` : ""}`);
  if (presets.length) {
    const kept = oldPresets ? `, ${oldPresets} left as they are, as their names are taken` : "";
    parts.push(`${newPresets} ${newPresets === 1 ? "preset" : "presets"} imported${kept}`);
  }
  if (dropped) parts.push(`${dropped} ${dropped === 1 ? "preset" : "presets"} left out, without a usable name or named as a built-in one`);
  const archived = chats.filter((chat) => chat.archived).length;
  if (imported && archived) parts.push("archived ones are in the archive");
  return `${parts.join("; ")}.`;
}
