// Conversations kept by the server; what the methods do stands in store.mjs.

import { ApiError, request, requestJson } from "../core/api.mjs";
import { isSame, readPreset } from "../core/presets.mjs";
import { readBrowserPresets, writeBrowserPresets } from "./browser-presets.mjs";

const PAGE = 200;
const pathOf = (id) => `api/v1/chats/${encodeURIComponent(id)}`;
const save = (path, options) => request(path, { ...options, outlives: true });
const presetPath = (name) => `api/v1/presets/${encodeURIComponent(name)}`;

/** Turn a path that is not there into words; any other error stays. */
function explain(error) {
  if (error.status !== 404) throw error;
  throw new ApiError("This server keeps no conversations: it is another program than small-doge serve.", 404);
}

class ServerStore {
  place = "on the server";

  async list(search, archived) {
    const chats = [];
    for (;;) {
      const query = new URLSearchParams({ limit: PAGE, offset: chats.length, archived });
      if (search) query.set("search", search);
      const answer = await requestJson(`api/v1/chats?${query}`).catch(explain);
      chats.push(...answer.chats);
      if (answer.chats.length < PAGE || chats.length >= answer.total) return chats;
    }
  }

  async load(id) {
    try {
      return await requestJson(pathOf(id));
    } catch (error) {
      if (error.status === 404 || error.status === 422) return null;
      throw error;
    }
  }

  async create(chat) {
    await save("api/v1/chats", { body: chat });
  }

  async change(id, fields) {
    await save(pathOf(id), { method: "PUT", body: fields });
  }

  async append(id, messages, currentId) {
    await save(`${pathOf(id)}/messages`, { body: { messages, current_id: currentId } });
  }

  async changeMessage(id, { id: messageId, content, stats, model }) {
    await save(`${pathOf(id)}/messages/${messageId}`, { method: "PATCH", body: { content, stats, model } });
  }

  async remove(id) {
    await request(pathOf(id), { method: "DELETE" });
  }

  async listPresets() {
    const { presets } = await requestJson("api/v1/presets");
    this.unmoved = [];
    const kept = [];
    for (const old of readBrowserPresets()) {
      try {
        await this.movePreset(old, presets);
      } catch (error) {
        kept.push(old);
        this.unmoved.push(`${old.name} (${error.message})`);
      }
    }
    writeBrowserPresets(kept);
    return presets;
  }

  /** Move a preset of an earlier version of the page here; beside another one of its name it gets a number. */
  async movePreset(old, presets) {
    const preset = readPreset(old);
    if (!preset) throw new Error("its name is that of a built-in one, or none");
    const { name } = preset;
    for (let number = 2; ; number++) {
      const other = presets.find((one) => one.name === preset.name);
      if (other && isSame(other, preset)) return;
      if (!other) break;
      preset.name = `${name} ${number}`;
    }
    await this.savePreset(preset);
    presets.push(preset);
  }

  async savePreset({ name, ...preset }) {
    await request(presetPath(name), { method: "PUT", body: preset });
  }

  async removePreset(name) {
    await request(presetPath(name), { method: "DELETE" });
  }

  exportAll() {
    return requestJson("api/v1/chats/export");
  }

  importAll(content) {
    return requestJson("api/v1/chats/import", { body: content });
  }
}

export function createStore() {
  return new ServerStore();
}
