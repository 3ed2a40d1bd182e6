// Saving conversations. The store is asked one thing after another; what it refuses can be tried again.

export class Saver {
  constructor(app) {
    this.app = app;
    this.ids = new Set(); // of conversations that the store has
    this.removed = new Set(); // ids of deleted ones, of which nothing is saved any more, as what is still being written
    this.queue = Promise.resolve(); // changes on their way to the store
    this.unsaved = 0; // how many they are
  }

  /** Let the store make a change; if it does not, `again` is offered, which saves the whole conversation if not given. */
  save(chat, change, again = () => this.saveAll(chat)) {
    return this.removed.has(chat.id) ? this.queue : this.send(change, again);
  }

  /** Delete a conversation. One that the store did not delete is still there, and is saved again. */
  remove(chat) {
    this.removed.add(chat.id);
    this.ids.delete(chat.id);
    const change = () =>
      this.app.store.remove(chat.id).catch((error) => {
        this.keep(chat.id);
        throw error;
      });
    return this.send(change, () => this.remove(chat));
  }

  /** Note that the store has a conversation. */
  keep(id) {
    this.ids.add(id);
    this.removed.delete(id);
  }

  send(change, again) {
    this.countUnsaved(1);
    this.queue = this.queue
      .then(change)
      .then(
        () => this.app.library.refreshSoon(),
        (error) => this.app.tell(`Not saved: ${error.message}`, "Save again", again),
      )
      .finally(() => this.countUnsaved(-1));
    return this.queue;
  }

  /** How many changes are on their way; the browser asks before it closes the page over them. */
  countUnsaved(step) {
    this.unsaved += step;
    document.documentElement.dataset.saved = String(this.unsaved === 0);
  }

  saveAll(chat) {
    const whole = this.storable(chat);
    return this.save(chat, async () => {
      if (await this.app.store.load(chat.id)) await this.app.store.change(chat.id, whole);
      else await this.app.store.create(whole);
      this.ids.add(chat.id);
    });
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
