// The list of conversations: search, folders, tags, and a menu for each.

import { html, useRef } from "../libs.mjs";
import { Icon, IconButton, Menu } from "./parts.mjs";

const DAY = 86_400_000;

/** Conversations under headings: pinned ones, folders by name, then days. */
export function groupChats(chats, now = new Date()) {
  const today = new Date(now).setHours(0, 0, 0, 0);
  const groups = new Map([["Pinned", []]]);
  const folders = [...new Set(chats.filter(({ pinned, folder }) => !pinned && folder).map(({ folder }) => folder))].sort();
  for (const folder of folders) groups.set(`▸ ${folder}`, []);
  for (const name of ["Today", "Yesterday", "Last 7 days", "Older"]) groups.set(name, []);
  for (const chat of chats) {
    const age = today - new Date(chat.updated_at).getTime();
    let name = age <= 0 ? "Today" : age <= DAY ? "Yesterday" : age <= 7 * DAY ? "Last 7 days" : "Older";
    if (chat.folder) name = `▸ ${chat.folder}`;
    if (chat.pinned) name = "Pinned";
    groups.get(name).push(chat);
  }
  return [...groups].filter(([, list]) => list.length);
}

function ChatItem({ app, chat }) {
  const isOpen = app.chat.id === chat.id;
  const items = [
    { label: "Rename and sort …", testid: "rename", action: () => app.openDialog("details", { chat }) },
    { label: chat.pinned ? "Unpin" : "Pin", testid: "pin", action: () => app.changeSummary(chat, { pinned: !chat.pinned }) },
    { label: "Export as JSON", testid: "export-json", action: () => app.exportChats("json", chat.id) },
    { label: "Export as Markdown", testid: "export-markdown", action: () => app.exportChats("markdown", chat.id) },
    { label: "Delete …", testid: "delete", danger: true, action: () => app.openDialog("delete", { chat }) },
  ];
  return html`<li class=${isOpen ? "chat-item open" : "chat-item"} data-testid="chat-item">
    <a href=${`#${chat.id}`} aria-current=${isOpen ? "page" : undefined} title=${chat.title} onClick=${() => window.innerWidth <= 800 && app.open(chat.id)}>
      <span class="chat-title">${chat.title || "Untitled"}</span>
      ${chat.tags.length > 0 && html`<span class="tags">${chat.tags.map((tag) => html`<span class="tag" title=${tag}>${tag}</span>`)}</span>`}
    </a>
    <${Menu} label=${`Commands for ${chat.title}`} testid="chat-menu" items=${items} />
  </li>`;
}

export function Sidebar({ app }) {
  const file = useRef(null);
  const tags = [...new Set(app.chats.flatMap((chat) => chat.tags))].sort();
  if (app.tag && !tags.includes(app.tag)) app.tag = null;
  const chats = app.tag ? app.chats.filter((chat) => chat.tags.includes(app.tag)) : app.chats;
  const setTag = (tag) => {
    app.tag = app.tag === tag ? null : tag;
    app.changed();
  };
  // What keeps the models away is told in their place.
  const isToldElsewhere = app.chatsError === app.modelsError && !app.chat.messages.length;
  const close = () => {
    app.sidebar = false;
    app.changed();
  };
  return html`<nav class="sidebar" aria-label="Conversations" data-testid="sidebar">
    <div class="sidebar-head">
      <span class="brand"><img src=${new URL("../icon.svg", import.meta.url).href} alt="" width="26" height="26" /> SmallDoge</span>
      <${IconButton} icon="close" label="Close the list" testid="sidebar-close" extra="only-phone" onClick=${close} />
    </div>
    <button type="button" class="new-chat" data-testid="new-chat" onClick=${() => app.newChat()}><${Icon} name="plus" /> New conversation</button>
    <label class="search"><${Icon} name="search" />
      <input id="search" type="search" placeholder="Search" aria-label="Search conversations" data-testid="search" value=${app.search}
        onInput=${(event) => app.setSearch(event.target.value)} /></label>
    ${tags.length > 0 && html`<div class="tags" role="group" aria-label="Tags">
      ${tags.map((tag) => html`<button type="button" class="tag" aria-pressed=${String(app.tag === tag)} onClick=${() => setTag(tag)}>${tag}</button>`)}
    </div>`}
    <div class="chat-list" tabindex="-1">
      ${app.chatsError && !isToldElsewhere && html`<p class="error" role="alert">${app.chatsError}</p>`}
      ${!chats.length && !app.chatsError && html`<p class="none">${app.search ? "Nothing found." : "Your conversations will be listed here."}</p>`}
      ${groupChats(chats).map(([name, list]) => html`<section key=${name}><h2>${name}</h2>
        <ul>${list.map((chat) => html`<${ChatItem} key=${chat.id} app=${app} chat=${chat} />`)}</ul></section>`)}
    </div>
    <div class="sidebar-foot">
      <button type="button" data-testid="import" onClick=${() => file.current.click()}>Import</button>
      <button type="button" data-testid="export-all" onClick=${() => app.exportChats("json")}>Export all</button>
      <${IconButton} icon="help" label="Keyboard shortcuts (?)" testid="help" onClick=${() => app.openDialog("help")} />
      <input ref=${file} type="file" accept=".json,application/json" hidden data-testid="import-file"
        onChange=${async ({ target }) => {
          if (target.files[0]) await app.importFile(target.files[0]);
          target.value = "";
        }} />
    </div>
  </nav>`;
}
