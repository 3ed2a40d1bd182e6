// The list of conversations: search, folders, tags, and a menu for each.

import { isNarrow } from "../core/screen.mjs";
import { html, useRef } from "../libs.mjs";
import { Icon, IconButton, Menu, usePanelFocus } from "./parts.mjs";

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
  const { library } = app;
  const isOpen = app.chat.id === chat.id;
  const items = [
    { label: "Rename and sort …", testid: "rename", action: () => app.openDialog("details", { chat }) },
    { label: chat.pinned ? "Unpin" : "Pin", testid: "pin", action: () => library.change(chat, { pinned: !chat.pinned }) },
    { label: chat.archived ? "Take out of the archive" : "Archive", testid: "archive", action: () => library.archive(chat, !chat.archived) },
    { label: "Export as JSON", testid: "export-json", action: () => library.export("json", chat.id) },
    { label: "Export as Markdown", testid: "export-markdown", action: () => library.export("markdown", chat.id) },
    { label: "Delete …", testid: "delete", danger: true, action: () => app.openDialog("delete", { chat }) },
  ];
  return html`<li class=${isOpen ? "chat-item open" : "chat-item"} data-testid="chat-item">
    <a href=${`#${chat.id}`} aria-current=${isOpen ? "page" : undefined} title=${chat.title} onClick=${() => isNarrow() && app.open(chat.id)}>
      <span class="chat-title">${chat.title || "Untitled"}</span>
      ${chat.tags.length > 0 && html`<span class="tags">${chat.tags.map((tag) => html`<span class="tag" title=${tag}>${tag}</span>`)}</span>`}
    </a>
    <${Menu} label=${`Commands for ${chat.title}`} testid="chat-menu" items=${items} />
  </li>`;
}

function Search({ library }) {
  return html`<label class="search"><${Icon} name="search" />
    <input id="search" type="search" placeholder="Search" aria-label="Search conversations" data-testid="search" value=${library.search}
      onInput=${(event) => library.setSearch(event.target.value)} /></label>`;
}

/** What stands in the place of an empty list. */
function Nothing({ library }) {
  const { search, isArchive } = library;
  if (!search) return html`<p class="none">${isArchive ? "Nothing is archived. The menu of a conversation archives it." : "Your conversations will be listed here."}</p>`;
  const other = isArchive ? "Search outside the archive" : "Search the archive";
  return html`<p class="none">Nothing found. <button type="button" data-testid="search-other" onClick=${() => library.showArchive(!isArchive)}>${other}</button></p>`;
}

function List({ app, chats }) {
  const { library } = app;
  // What keeps the models away is told in their place.
  const isToldElsewhere = library.error === app.modelsError && !app.chat.messages.length;
  return html`<div class="chat-list" tabindex="-1" data-home=".chat-list a, #search">
    ${library.error && !isToldElsewhere && html`<p class="error" role="alert">${library.error}</p>`}
    ${!chats.length && !library.error && html`<${Nothing} library=${library} />`}
    ${groupChats(chats).map(([name, list]) => html`<section key=${name}><h2>${name}</h2>
      <ul>${list.map((chat) => html`<${ChatItem} key=${chat.id} app=${app} chat=${chat} />`)}</ul></section>`)}
  </div>`;
}

function Foot({ app }) {
  const { library } = app;
  const file = useRef(null);
  return html`<div class="sidebar-foot">
    <button type="button" data-testid="import" onClick=${() => file.current.click()}>Import</button>
    <button type="button" data-testid="export-all" onClick=${() => library.export("json")}>Export all</button>
    <${IconButton} icon="archive" label="Archived conversations" testid="archive-toggle" pressed=${library.isArchive}
      onClick=${() => library.showArchive(!library.isArchive)} />
    <${IconButton} icon="help" label="Keyboard shortcuts (?)" testid="help" onClick=${() => app.openDialog("help")} />
    <input ref=${file} type="file" accept=".json,application/json" hidden aria-label="File to import" data-testid="import-file"
      onChange=${async ({ target }) => {
        if (target.files[0]) await library.import(target.files[0]);
        target.value = "";
      }} />
  </div>`;
}

export function Sidebar({ app }) {
  const { library } = app;
  const panel = useRef(null);
  usePanelFocus(panel, isNarrow());
  const tags = [...new Set(library.chats.flatMap((chat) => chat.tags))].sort();
  const tag = tags.includes(library.tag) ? library.tag : null;
  const chats = tag ? library.chats.filter((chat) => chat.tags.includes(tag)) : library.chats;
  return html`<nav class="sidebar" aria-label="Conversations" data-testid="sidebar" ref=${panel}>
    <div class="sidebar-head">
      <span class="brand"><img src=${new URL("../icon.svg", import.meta.url).href} alt="" width="26" height="26" /> SmallDoge</span>
      <${IconButton} icon="close" label="Close the list" testid="sidebar-close" extra="only-phone" onClick=${() => app.toggle("sidebar", false)} />
    </div>
    <button type="button" class="new-chat" data-testid="new-chat" onClick=${() => app.newChat()}><${Icon} name="plus" /> New conversation</button>
    <${Search} library=${library} />
    ${library.isArchive && html`<p class="archive-head" data-testid="archive"><${Icon} name="archive" /> Archive
      <button type="button" data-testid="archive-close" onClick=${() => library.showArchive(false)}>Back</button></p>`}
    ${tags.length > 0 && html`<div class="tags" role="group" aria-label="Tags">
      ${tags.map((name) => html`<button type="button" class="tag" aria-pressed=${String(tag === name)} onClick=${() => library.setTag(name)}>${name}</button>`)}
    </div>`}
    <${List} app=${app} chats=${chats} />
    <${Foot} app=${app} />
  </nav>`;
}
