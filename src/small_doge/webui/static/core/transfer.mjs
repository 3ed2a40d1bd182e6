// Conversations and presets out and in: JSON and Markdown. What comes in is checked field by field, and nothing else of it is
// kept.

import { newId } from "./ids.mjs";
import { cut } from "./letters.mjs";
import { readPreset } from "./presets.mjs";
import { pathTo } from "./tree.mjs";

export const MAX_IMPORT_BYTES = 20_000_000;
const MAX_CHATS = 5_000;
const MAX_MESSAGES = 20_000;
const ROLES = new Set(["system", "user", "assistant", "tool"]);
const RESERVED = new Set(["export", "import"]);
const isId = (id) => typeof id === "string" && /^[A-Za-z0-9_-]{1,64}$/.test(id) && !RESERVED.has(id); // as the server allows

export function toJson(chats, presets = []) {
  return JSON.stringify({ format: "small-doge-chats", version: 1, chats, presets }, null, 1);
}

/** The branch of a conversation that is shown, as Markdown. */
export function toMarkdown(chat) {
  const lines = [`# ${chat.title}`, ""];
  if (chat.model) lines.push(`Model: ${chat.model}`, "");
  if (chat.system_prompt) lines.push("## System", "", chat.system_prompt, "");
  for (const message of pathTo(chat.messages, chat.current_id)) {
    lines.push(message.role === "user" ? "## You" : `## ${message.model ?? "Assistant"}`, "", message.content.trim(), "");
  }
  return lines.join("\n");
}

/**
 * What a file holds: conversations and presets that this page or the server exported, or one conversation alone.
 * @param {string} text
 * @returns {{chats: object[], presets: object[], dropped: number}} `dropped` counts presets that can't be used
 */
export function readExport(text) {
  if (text.length > MAX_IMPORT_BYTES) throw new Error(`The file is larger than ${MAX_IMPORT_BYTES / 1e6} MB.`);
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON. Export conversations as JSON to import them again.");
  }
  const given = Array.isArray(data?.presets) ? data.presets : [];
  const presets = given.map(readPreset).filter(Boolean);
  const dropped = given.length - presets.length;
  const chats = Array.isArray(data) ? data : (data?.chats ?? (given.length ? [] : [data]));
  if (!Array.isArray(chats) || !(chats.length || presets.length)) {
    throw new Error(`The file holds no conversations${dropped ? ", and no preset that can be used" : ""}.`);
  }
  if (chats.length > MAX_CHATS) throw new Error(`The file holds more than ${MAX_CHATS} conversations.`);
  return { chats: chats.map(readChat), presets, dropped };
}

const string = (value, limit, fallback = "") => (typeof value === "string" ? cut(value, limit) : fallback);
const date = (value) => (Number.isNaN(Date.parse(value)) ? new Date() : new Date(value)).toISOString();
const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});

function readChat(chat, index) {
  const where = `Conversation ${index + 1}`;
  if (!Array.isArray(chat?.messages)) throw new Error(`${where} has no list of messages.`);
  if (chat.messages.length > MAX_MESSAGES) throw new Error(`${where} has more than ${MAX_MESSAGES} messages.`);
  // Ids are replaced where they are none, in the same way wherever they are named.
  const ids = new Map();
  const idOf = (id) => {
    if (isId(id)) return id;
    if (!ids.has(id)) ids.set(id, newId());
    return ids.get(id);
  };
  const known = new Set();
  const messages = chat.messages.map((message, number) => {
    if (!ROLES.has(message?.role) || typeof message.content !== "string") {
      throw new Error(`${where}, message ${number + 1} needs a role (user, assistant, system) and a text.`);
    }
    const id = message.id === undefined ? newId() : idOf(message.id);
    if (known.has(id)) throw new Error(`${where} has two messages with the same id.`);
    const parent = message.parent_id === null || message.parent_id === undefined ? null : idOf(message.parent_id);
    if (parent !== null && !known.has(parent)) throw new Error(`${where}, message ${number + 1} answers none that stands before it.`);
    known.add(id);
    const model = string(message.model, 300, null);
    const stats = message.stats ? object(message.stats) : null;
    return { id, parent_id: parent, role: message.role, content: message.content, model, created_at: date(message.created_at), stats };
  });
  const current = chat.current_id ? idOf(chat.current_id) : null;
  return {
    id: isId(chat.id) ? chat.id : newId(),
    title: string(chat.title, 200) || "Imported conversation",
    model: string(chat.model, 300, null),
    folder: string(chat.folder, 100, null) || null,
    tags: (Array.isArray(chat.tags) ? chat.tags : []).map((tag) => string(tag, 64)).filter(Boolean).slice(0, 32),
    pinned: chat.pinned === true,
    archived: chat.archived === true,
    created_at: date(chat.created_at),
    updated_at: date(chat.updated_at),
    system_prompt: string(chat.system_prompt, 100_000),
    settings: object(chat.settings),
    messages,
    current_id: known.has(current) ? current : (messages.at(-1)?.id ?? null),
  };
}

/** Let the browser save a text as a file. */
export function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name.replace(/[\\/:*?"<>|\u0000-\u001f]+/g, "-").slice(0, 100);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
