// Conversations kept in this browser (IndexedDB), where there is no server; what the methods do stands in store.mjs.

const NAME = "small-doge";

/** The result of a request to IndexedDB. */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(new Error(`This browser can't keep conversations: ${request.error?.message}`));
  });
}

function openDatabase() {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("chats", { keyPath: "id" });
  return result(opening);
}

const byDate = (a, b) => b.pinned - a.pinned || b.updated_at.localeCompare(a.updated_at);

class LocalStore {
  constructor(database) {
    this.database = database;
  }

  chats(mode) {
    return this.database.transaction("chats", mode).objectStore("chats");
  }

  async list(search) {
    const words = search.toLowerCase();
    const has = (text) => text.toLowerCase().includes(words);
    const found = (await result(this.chats("readonly").getAll())).filter(
      (chat) => !chat.archived && (!words || has(chat.title) || chat.messages.some(({ content }) => has(content))),
    );
    return found.sort(byDate).map(({ messages, ...chat }) => ({ ...chat, num_messages: messages.length }));
  }

  async load(id) {
    return (await result(this.chats("readonly").get(id))) ?? null;
  }

  async create(chat) {
    await result(this.chats("readwrite").put(chat));
  }

  /** Change a chat within one transaction, so that two tabs do not undo each other. */
  async update(id, make) {
    const store = this.chats("readwrite");
    const chat = await result(store.get(id));
    if (chat) await result(store.put({ ...make(chat), updated_at: new Date().toISOString() }));
  }

  change(id, fields) {
    return this.update(id, (chat) => ({ ...chat, ...fields }));
  }

  append(id, messages, currentId) {
    return this.update(id, (chat) => ({ ...chat, messages: [...chat.messages, ...messages], current_id: currentId }));
  }

  changeMessage(id, changed) {
    const change = (message) => (message.id === changed.id ? { ...message, ...changed } : message);
    return this.update(id, (chat) => ({ ...chat, messages: chat.messages.map(change) }));
  }

  async remove(id) {
    await result(this.chats("readwrite").delete(id));
  }

  exportAll() {
    return result(this.chats("readonly").getAll());
  }

  async importAll(chats) {
    let imported = 0;
    for (const chat of chats) {
      if (await this.load(chat.id)) continue;
      await this.create(chat);
      imported++;
    }
    return { imported, skipped: chats.length - imported };
  }
}

export async function createStore() {
  return new LocalStore(await openDatabase());
}
