// Saving conversations. The store is asked one thing after another; what it refuses can be tried again.

const SOON_MS = 1000;

export class Saver {
  constructor(app) {
    this.app = app;
    this.ids = new Set(); // of conversations that the store has
    this.removed = new Set(); // ids of deleted ones, of which nothing is saved any more, as what is still being written
    this.queue = Promise.resolve(); // changes on their way to the store
    this.unsaved = 0; // how many they are, with what is typed and waits
    this.typed = new Map(); // what saves that, by name
    this.failed = new Map(); // what the store did not do, each with what tries it again: {id, chat, again}; a whole one by its id
  }

  /** Let the store make a change; if it does not, `again` is offered, which saves the whole conversation if not given. */
  save(chat, change, again = null) {
    if (this.removed.has(chat.id)) return this.queue;
    if (again) return this.send(change, change, { id: chat.id, again });
    return this.send(change, chat.id, { id: chat.id, chat, again: () => this.saveAll(chat) });
  }

  /** Delete a conversation. One that the store did not delete is still there, and is saved again. */
  remove(chat) {
    this.removed.add(chat.id);
    this.ids.delete(chat.id);
    for (const [what, { id }] of this.failed) if (id === chat.id) this.failed.delete(what);
    const change = () =>
      this.app.store.remove(chat.id).catch((error) => {
        this.keep(chat.id);
        throw error;
      });
    return this.send(change, chat.id, { id: chat.id, again: () => this.remove(chat) });
  }

  /** Note that the store has a conversation. */
  keep(id) {
    this.ids.add(id);
    this.removed.delete(id);
  }

  send(change, what, failure) {
    this.countUnsaved(1);
    this.queue = this.queue
      .then(change)
      .then(
        () => this.app.library.refreshSoon(),
        (error) => this.fail(error, what, failure),
      )
      .finally(() => this.countUnsaved(-1));
    return this.queue;
  }

  fail(error, what, failure) {
    this.why = `Not saved: ${error.message}`;
    if (!this.failed.size) this.app.say(this.why); // once, however often it fails while someone types
    this.failed.set(what, failure);
    this.remind();
  }

  /** Offer to save what is not saved. */
  remind() {
    if (this.failed.size) this.app.showNotice(this.why, "Save again", this.saveAgain, Infinity);
  }

  saveAgain = () => {
    const failures = [...this.failed.values()];
    this.failed.clear();
    for (const { again } of failures) again();
  };

  /** A conversation that the store has not as it is here. */
  unsavedChat(id) {
    return this.failed.get(id)?.chat ?? null;
  }

  /** Save within a second what is being typed, in the conversation that is open. */
  saveSoon(name, save) {
    if (!this.typed.has(name)) this.countUnsaved(1);
    this.typed.set(name, save);
    this.timer ??= setTimeout(() => this.flush(), SOON_MS);
  }

  /** Save at once what is being typed. */
  flush() {
    clearTimeout(this.timer);
    this.timer = null;
    for (const [name, save] of this.typed) {
      this.typed.delete(name);
      save();
      this.countUnsaved(-1);
    }
    return this.queue;
  }

  /** How many changes wait or are on their way; the browser asks before it closes the page over them. */
  countUnsaved(step) {
    this.unsaved += step;
    document.documentElement.dataset.saved = String(this.unsaved === 0);
  }

  saveAll(chat) {
    const whole = this.storable(chat);
    return this.save(chat, async () => {
      const kept = await this.app.store.load(chat.id);
      if (kept) await this.bring(whole, kept);
      else await this.app.store.create(whole);
      this.ids.add(chat.id);
    });
  }

  /** Change what the store has of a conversation to what it is here; messages and names that another tab gave it stay. */
  async bring({ id, messages, model, system_prompt, settings, current_id }, kept) {
    const { store } = this.app;
    const known = new Map(kept.messages.map((message) => [message.id, contentOf(message)]));
    const news = messages.filter((message) => !known.has(message.id));
    for (const message of messages) {
      if (!news.includes(message) && known.get(message.id) !== contentOf(message)) await store.changeMessage(id, message);
    }
    if (news.length) await store.append(id, news, current_id);
    await store.change(id, { model, system_prompt, settings, current_id });
  }

  /** A copy of a conversation without answers that are still being written. */
  storable(chat) {
    const { streams } = this.app.talk;
    const writing = new Map(chat.messages.filter(({ id }) => streams.has(id)).map(({ id, parent_id }) => [id, parent_id]));
    const copy = structuredClone({ ...chat, messages: chat.messages.filter(({ id }) => !writing.has(id)) });
    const shown = (id) => writing.get(id) ?? id;
    copy.current_id = shown(copy.current_id);
    if (copy.settings.compare) copy.settings.compare.current_id = shown(copy.settings.compare.current_id);
    return copy;
  }

  /** Save fields of a conversation; one without messages is not kept yet. */
  saveFields(chat, names) {
    if (!this.ids.has(chat.id)) return;
    const copy = this.storable(chat);
    const fields = Object.fromEntries(names.map((name) => [name, copy[name]]));
    this.save(chat, () => this.app.store.change(chat.id, fields));
  }

  /** Save a field that is being typed. */
  saveFieldSoon(chat, name) {
    if (this.ids.has(chat.id)) this.saveSoon(name, () => this.saveFields(chat, [name]));
  }

  /** Save new messages, and the conversation itself with its first ones. */
  saveMessages(chat, messages) {
    if (this.removed.has(chat.id)) return this.queue;
    if (this.ids.has(chat.id)) {
      const { current_id: current, settings } = this.storable(chat);
      const copies = messages.map((message) => structuredClone(message));
      return this.save(chat, async () => {
        await this.app.store.append(chat.id, copies, current);
        if (settings.compare) await this.app.store.change(chat.id, { settings, current_id: current });
      });
    }
    this.ids.add(chat.id);
    const whole = this.storable(chat);
    if (chat === this.app.chat) history.replaceState(null, "", `#${chat.id}`);
    return this.save(chat, () => this.app.store.create(whole));
  }
}

/** What may change of a message, to be compared. */
function contentOf({ content, model, stats }) {
  return JSON.stringify([content, model ?? null, stats ?? null]);
}
