// Keys of the whole page. Those of one place, such as Enter in the message line, stand where that place is drawn.

import { isNarrow } from "./core/screen.mjs";
import { findMessage } from "./core/tree.mjs";
import { columnsOf } from "./talk.mjs";

const focus = (id) => document.getElementById(id)?.focus();

/** Each has `keys` for the list under "?"; those with an `action` are handled here. */
export const SHORTCUTS = [
  { keys: "Enter", help: "Send the message" },
  { keys: "Shift Enter", help: "New line" },
  { keys: "↑", help: "In an empty line: edit the last question" },
  { keys: "Escape", help: "Stop the answer; close what is open" },
  { keys: "Ctrl Shift O", help: "New conversation", action: (app) => app.newChat() },
  { keys: "Ctrl K", help: "Search conversations", action: openSearch },
  { keys: "Ctrl B", help: "Show or hide the list of conversations", action: (app) => app.toggle("sidebar") },
  { keys: "Ctrl ,", help: "Settings", action: (app) => app.toggle("panel") },
  { keys: "Ctrl M", help: "To the message line", action: () => focus("composer") ?? focus("raw-text") },
  { keys: "Ctrl Shift R", help: "Regenerate the last answer", action: (app) => onLast(app, "regenerate") },
  { keys: "Ctrl Enter", help: "Continue the last answer, or the raw text", action: continueLast },
  { keys: "Alt ←", help: "Branch before, of the last message that has some", action: (app) => switchLast(app, -1) },
  { keys: "Alt →", help: "Next branch", action: (app) => switchLast(app, 1) },
  { keys: "Ctrl Shift M", help: "Two models side by side", action: (app) => app.toggleCompare() },
  { keys: "Ctrl Z", help: "Raw text: undo" },
  { keys: "Ctrl Shift Z", help: "Raw text: redo" },
  { keys: "Alt ↓", help: "Raw text: the likeliest tokens at the cursor" },
  { keys: "?", help: "This list", action: (app) => app.openDialog("help") },
];

function openSearch(app) {
  app.toggle("sidebar", true);
  requestAnimationFrame(() => requestAnimationFrame(() => focus("search")));
}

function onLast(app, method) {
  for (const { index, leaf } of columnsOf(app.chat)) {
    const message = findMessage(app.chat.messages, leaf);
    if (message?.role === "assistant") app.talk[method](index, message);
  }
}

function continueLast(app) {
  if (app.raw) app.raw.goOn();
  else onLast(app, "continueAnswer");
}

function switchLast(app, step) {
  const { messages, current_id: leaf } = app.chat;
  for (let message = findMessage(messages, leaf); message; message = findMessage(messages, message.parent_id)) {
    if (messages.filter(({ parent_id, role }) => parent_id === message.parent_id && role === message.role).length > 1) {
      return app.talk.switchBranch(0, message, step);
    }
  }
}

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

/** The name of a key press as in `keys`. */
function nameOf(event) {
  const key = NAMES[event.key] ?? (event.key.length === 1 ? event.key.toUpperCase() : event.key);
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  if (event.shiftKey && key !== "?") parts.push("Shift");
  return [...parts, key].join(" ");
}

export function listen(app) {
  document.addEventListener("keydown", (event) => {
    if (app.dialog || event.defaultPrevented) return;
    const isTyping = event.target.matches("input, textarea, select");
    const name = nameOf(event);
    if (name === "Escape") return escape(app);
    if (isTyping && !event.ctrlKey && !event.metaKey && !(event.altKey && event.target.value === "")) return;
    const found = SHORTCUTS.find(({ keys, action }) => action && keys === name);
    if (!found) return;
    event.preventDefault();
    found.action(app);
  });
}

function escape(app) {
  if (app.raw?.choosing) app.raw.choosing = null;
  else if (app.raw?.isWriting) app.raw.stop();
  else if (app.talk.isStreaming(app.chat)) app.talk.stop(app.chat.id);
  else if (app.panel) app.panel = false;
  else if (app.sidebar && isNarrow()) app.sidebar = false;
  app.changed();
}
