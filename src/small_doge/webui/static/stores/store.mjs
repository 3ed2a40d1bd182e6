// What every store of conversations does. `openStore` gives the server's, or this browser's where there is no server.

/**
 * @typedef {object} Chat see /api/v1/chats in docs/webui.md; `messages` are a tree by `parent_id`
 *
 * @typedef {object} Store
 * @property {string} place where it keeps all, in words: "on the server"
 * @property {(search: string, archived: boolean) => Promise<object[]>} list summaries, pinned ones first, then newest first
 * @property {(id: string) => Promise<Chat | null>} load null if there is none
 * @property {(chat: Chat) => Promise<void>} create
 * @property {(id: string, fields: object) => Promise<void>} change replace fields
 * @property {(id: string, messages: object[], currentId: string) => Promise<void>} append add messages
 * @property {(id: string, message: object) => Promise<void>} changeMessage replace the text and figures of a message
 * @property {(id: string) => Promise<void>} remove
 * @property {() => Promise<Preset[]>} listPresets {name, system_prompt, sampling} of those that were saved
 * @property {string[]} [unmoved] names of presets that `listPresets` could not move from an earlier page's place, with the reasons
 * @property {(preset: Preset) => Promise<void>} savePreset replaces one of the same name
 * @property {(name: string) => Promise<void>} removePreset
 * @property {() => Promise<{chats: Chat[], presets: Preset[]}>} exportAll
 * @property {(content: {chats: Chat[], presets: Preset[]}) => Promise<{imported: number, skipped: number,
 *   imported_presets: number, skipped_presets: number}>} importAll leaves what is there as it is
 */

/** @returns {Promise<Store>} */
export async function openStore(config) {
  const { createStore } = await import(config.engine === "browser" ? "./local.mjs" : "./server.mjs");
  return createStore();
}
