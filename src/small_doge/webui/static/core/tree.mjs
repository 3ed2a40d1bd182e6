// A conversation is a tree: each message names the one that it answers, and siblings are branches. All functions are pure.

import { newId } from "./ids.mjs";
import { cut } from "./letters.mjs";

/** A new message. */
export function makeMessage(role, content, parentId, model = null) {
  const created = new Date().toISOString();
  return { id: newId(), parent_id: parentId, role, content, model, created_at: created, stats: null };
}

export function findMessage(messages, id) {
  return messages.find((message) => message.id === id) ?? null;
}

/** Messages from the first one to `leafId`. */
export function pathTo(messages, leafId) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const path = [];
  for (let message = byId.get(leafId); message; message = byId.get(message.parent_id)) {
    byId.delete(message.id); // a damaged tree may hold a ring
    path.push(message);
  }
  return path.reverse();
}

/** Messages that answer `parentId`, oldest first; null gives the first ones. */
export function childrenOf(messages, parentId) {
  return messages.filter((message) => message.parent_id === parentId);
}

/** The branches that a message is one of, itself included. */
export function siblingsOf(messages, message) {
  return childrenOf(messages, message.parent_id).filter((other) => other.role === message.role);
}

/** The newest leaf under a message. */
export function newestLeaf(messages, id) {
  const last = new Map();
  for (const message of messages) last.set(message.parent_id, message.id);
  const seen = new Set();
  while (last.has(id) && !seen.has(id)) {
    seen.add(id);
    id = last.get(id);
  }
  return id;
}

/** A short title made of the first question. */
export function titleOf(text) {
  const line = text.trim().split(/\n/)[0].replace(/\s+/g, " ");
  return cut(line, 60) === line ? line || "New conversation" : `${cut(line, 57).trimEnd()}…`;
}
