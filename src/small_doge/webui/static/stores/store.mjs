// What every store of conversations does. `openStore` gives the server's, or this browser's where there is no server.

/**
 * @typedef {object} Chat see /api/v1/chats in docs/webui.md; `messages` are a tree by `parent_id`
 *
 * @typedef {object} Store
 * @property {(search: string) => Promise<object[]>} list summaries, pinned ones first, then newest first
 * @property {(id: string) => Promise<Chat | null>} load null if there is none
 * @property {(chat: Chat) => Promise<void>} create
 * @property {(id: string, fields: object) => Promise<void>} change replace fields
 * @property {(id: string, messages: object[], currentId: string) => Promise<void>} append add messages
 * @property {(id: string, message: object) => Promise<void>} changeMessage replace the text and figures of a message
 * @property {(id: string) => Promise<void>} remove
 * @property {() => Promise<Chat[]>} exportAll
 * @property {(chats: Chat[]) => Promise<{imported: number, skipped: number}>} importAll
 */

/** @returns {Promise<Store>} */
export async function openStore(config) {
  const { createStore } = await import(config.engine === "browser" ? "./local.mjs" : "./server.mjs");
  return createStore();
}
