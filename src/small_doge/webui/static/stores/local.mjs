// Conversations kept in this browser (IndexedDB), where there is no server; what the methods do stands in store.mjs.

import { readBrowserPresets, writeBrowserPresets } from "./browser-presets.mjs";

const NAME = "small-doge";
// Changes of these file a conversation elsewhere; they do not make it new.
const FILING = new Set(["title", "folder", "tags", "pinned", "archived", "current_id"]);

/** The result of a request to IndexedDB. */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new Error(`This browser can't keep conversations: ${request.error?.message}`));
  });
}

async function openDatabase() {
  let opening;
  try {
    opening = indexedDB.open(NAME, 1);
  } catch (error) {
    throw new Error(`This browser can't keep conversations: ${error.message}`); // where its settings forbid it
  }
  opening.onupgradeneeded = () => opening.result.createObjectStore("chats", { keyPath: "id" });
  return result(opening);
}

const byDate = (a, b) => b.pinned - a.pinned || b.updated_at.localeCompare(a.updated_at);

class LocalStore {
  place = "in this browser";

  /** The table of conversations. Where the browser keeps nothing, each use fails with the reason, and the page still works. */
  async chats(mode) {
    this.database ??= openDatabase();
    const database = await this.database.catch((error) => {
      this.database = undefined; // the next use tries again
      throw error;
    });
    return database.transaction("chats", mode).objectStore("chats");
  }

  async getAll() {
    return result((await this.chats("readonly")).getAll());
  }

  async list(search, archived) {
    const words = search.toLowerCase();
    const has = (text) => text.toLowerCase().includes(words);
    const found = (await this.getAll()).filter(
      (chat) => Boolean(chat.archived) === archived && (!words || has(chat.title) || chat.messages.some(({ content }) => has(content))),
    );
    return found.sort(byDate).map(({ messages, ...chat }) => ({ ...chat, num_messages: messages.length }));
  }

  async load(id) {
    return (await result((await this.chats("readonly")).get(id))) ?? null;
  }

  async create(chat) {
    await result((await this.chats("readwrite")).put(chat));
  }

  /** Change a chat within one transaction, so that two tabs do not undo each other. One that another tab deleted is an error. */
  async update(id, make) {
    const store = await this.chats("readwrite");
    const chat = await result(store.get(id));
    if (!chat) throw new Error("this conversation is no longer in this browser; another tab may have deleted it.");
    await result(store.put({ updated_at: new Date().toISOString(), ...make(chat) }));
  }

  change(id, fields) {
    const isFiled = Object.keys(fields).every((name) => FILING.has(name));
    return this.update(id, ({ updated_at: updated, ...chat }) => ({ ...chat, ...fields, ...(isFiled && { updated_at: updated }) }));
  }

  append(id, messages, currentId) {
    return this.update(id, ({ updated_at: _, ...chat }) => ({
      ...chat,
      messages: [...chat.messages, ...messages],
      current_id: currentId,
    }));
  }

  changeMessage(id, changed) {
    const change = (message) => (message.id === changed.id ? { ...message, ...changed } : message);
    return this.update(id, ({ updated_at: _, ...chat }) => ({ ...chat, messages: chat.messages.map(change) }));
  }

  async remove(id) {
    await result((await this.chats("readwrite")).delete(id));
  }

  async listPresets() {
    return readBrowserPresets();
  }

  async savePreset(preset) {
    writeBrowserPresets([...readBrowserPresets().filter(({ name }) => name !== preset.name), preset]);
  }

  async removePreset(name) {
    writeBrowserPresets(readBrowserPresets().filter((preset) => preset.name !== name));
  }

  async exportAll() {
    return { chats: await this.getAll(), presets: readBrowserPresets() };
  }

  async importAll({ chats, presets }) {
    let imported = 0;
    for (const chat of chats) {
      if (await this.load(chat.id)) continue;
      await this.create(chat);
      imported++;
    }
    const known = new Set(readBrowserPresets().map(({ name }) => name));
    const added = presets.filter(({ name }) => !known.has(name) && known.add(name));
    writeBrowserPresets([...readBrowserPresets(), ...added]);
    return {
      ...{ imported, skipped: chats.length - imported },
      ...{ imported_presets: added.length, skipped_presets: presets.length - added.length },
    };
  }
}

export function createStore() {
  return new LocalStore();
}
