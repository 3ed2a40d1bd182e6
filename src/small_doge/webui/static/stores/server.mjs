// Conversations kept by the server; what the methods do stands in store.mjs.

import { request, requestJson } from "../core/api.mjs";

const PAGE = 200;
const pathOf = (id) => `api/v1/chats/${encodeURIComponent(id)}`;

class ServerStore {
  async list(search) {
    const chats = [];
    for (;;) {
      const query = new URLSearchParams({ limit: PAGE, offset: chats.length, archived: "false" });
      if (search) query.set("search", search);
      const answer = await requestJson(`api/v1/chats?${query}`);
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
    await request("api/v1/chats", { body: chat });
  }

  async change(id, fields) {
    await request(pathOf(id), { method: "PUT", body: fields });
  }

  async append(id, messages, currentId) {
    await request(`${pathOf(id)}/messages`, { body: { messages, current_id: currentId } });
  }

  async changeMessage(id, { id: messageId, content, stats, model }) {
    await request(`${pathOf(id)}/messages/${messageId}`, { method: "PATCH", body: { content, stats, model } });
  }

  async remove(id) {
    await request(pathOf(id), { method: "DELETE" });
  }

  async exportAll() {
    return (await requestJson("api/v1/chats/export")).chats;
  }

  importAll(chats) {
    return requestJson("api/v1/chats/import", { body: { chats } });
  }
}

export function createStore() {
  return new ServerStore();
}
