// The whole page: list of conversations, bar, conversation or raw text, settings.

import { isNarrow } from "../core/screen.mjs";
import { html } from "../libs.mjs";
import { columnsOf } from "../talk.mjs";
import { ChatView, ContextBar } from "./chat.mjs";
import { CurrentDialog } from "./dialogs.mjs";
import { IconButton, ModelSelect } from "./parts.mjs";
import { RawView } from "./raw.mjs";
import { Settings } from "./settings.mjs";
import { Sidebar } from "./sidebar.mjs";

function Bar({ app }) {
  const { chat } = app;
  const isRaw = chat.settings.mode === "raw";
  return html`<header class="bar">
    <${IconButton} icon="menu" label="Conversations (Ctrl B)" testid="sidebar-toggle" expanded=${app.sidebar} onClick=${() => app.toggle("sidebar")} />
    ${!chat.settings.compare && html`<${ModelSelect} app=${app} value=${chat.model} />`}
    <div class="segments" role="group" aria-label="Mode">
      <button type="button" data-testid="mode-chat" aria-pressed=${String(!isRaw)} onClick=${() => app.setMode("chat")}>Chat</button>
      <button type="button" data-testid="mode-raw" aria-pressed=${String(isRaw)} title="Raw text, for base models and for looking inside"
        onClick=${() => app.setMode("raw")}>Raw</button>
    </div>
    <span class="space"></span>
    ${!isRaw && !chat.settings.compare && html`<${ContextBar} app=${app} column=${columnsOf(chat)[0]} />`}
    ${!isRaw && html`<${IconButton} icon="columns" label="Two models side by side" testid="compare" pressed=${!!chat.settings.compare}
      onClick=${() => app.toggleCompare()} />`}
    <${IconButton} icon="settings" label="Settings (Ctrl ,)" testid="settings-toggle" expanded=${app.panel} onClick=${() => app.toggle("panel")} />
  </header>`;
}

function Notice({ app }) {
  if (!app.notice) return null;
  const { text, label, action } = app.notice;
  const act = () => {
    app.closeNotice();
    action();
  };
  return html`<div class="notice" data-testid="notice">${text}
    ${action && html`<button type="button" onClick=${act}>${label}</button>`}
    <${IconButton} icon="close" label="Close" onClick=${() => app.closeNotice()} /></div>`;
}

/** What is said to those who do not see the page: answers, notices, what is waited for. */
function Announcer({ app }) {
  return html`<div class="unseen" role="log" aria-live="polite" aria-label="Announcements" data-testid="announcer">
    ${app.said.map(({ number, text }) => html`<p key=${number}>${text}</p>`)}
  </div>`;
}

function ArchivedNote({ app }) {
  const { chat, library } = app;
  if (!chat.archived) return null;
  return html`<p class="note" data-testid="archived-note">This conversation is archived.
    <button type="button" data-testid="unarchive" onClick=${() => library.archive(chat, false)}>Take it out of the archive</button></p>`;
}

export function Page({ app }) {
  const isCovered = isNarrow() && (app.sidebar || app.panel);
  const hide = () => {
    app.toggle("sidebar", false);
    app.toggle("panel", false);
  };
  const skip = (event) => {
    event.preventDefault(); // the address names the conversation
    document.getElementById(app.raw ? "raw-text" : "composer").focus();
  };
  return html`<div class=${`page ${app.sidebar ? "with-sidebar" : ""} ${app.panel ? "with-panel" : ""}`}>
    <a class="skip" href="#composer" data-testid="skip" onClick=${skip}>To the message line</a>
    ${app.sidebar && html`<${Sidebar} app=${app} />`}
    ${(app.sidebar || app.panel) && html`<div class="shade" onClick=${hide}></div>`}
    <main inert=${isCovered}>
      <h1 class="unseen">${app.chat.title}</h1>
      <${Bar} app=${app} />
      <${ArchivedNote} app=${app} />
      ${app.chat.settings.mode === "raw" ? html`<${RawView} key=${app.chat.id} app=${app} />` : html`<${ChatView} app=${app} />`}
    </main>
    ${app.panel && html`<${Settings} app=${app} />`}
    <${Notice} app=${app} />
    <${Announcer} app=${app} />
    <${CurrentDialog} app=${app} />
  </div>`;
}
