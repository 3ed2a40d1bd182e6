// The conversation: one or two columns of messages, and the line to write in.

import { isNarrow } from "../core/screen.mjs";
import { pathTo } from "../core/tree.mjs";
import { html, useLayoutEffect, useRef, useState } from "../libs.mjs";
import { columnsOf, usedTokens } from "../talk.mjs";
import { MessageView } from "./message.mjs";
import { Icon, ModelSelect, tokens, useAutoHeight } from "./parts.mjs";

const SHOWN = 20; // messages that are drawn of a long conversation
const EXAMPLES = ["What is 23 + 14?", "Who are you?", "Where does Ada live?", "What animal does Hugo have?"];

function Column({ app, column }) {
  const { chat, talk } = app;
  const path = pathTo(chat.messages, column.leaf);
  const [shown, setShown] = useState(SHOWN);
  const [isStuck, setStuck] = useState(true);
  const log = useRef(null);
  const isBusy = talk.isStreaming(chat);
  const last = path.at(-1);
  useLayoutEffect(() => {
    setShown(SHOWN);
    setStuck(true);
  }, [chat.id]);
  useLayoutEffect(() => {
    if (isStuck) log.current.scrollTop = log.current.scrollHeight;
  });
  useLayoutEffect(() => setStuck(true), [path.length]);
  const onScroll = ({ target }) => setStuck(target.scrollHeight - target.scrollTop - target.clientHeight < 60);
  const showEarlier = () => {
    const height = log.current.scrollHeight;
    setStuck(false);
    setShown(shown + SHOWN);
    requestAnimationFrame(() => (log.current.scrollTop += log.current.scrollHeight - height));
  };
  const hidden = Math.max(0, path.length - shown);
  const isUnanswered = last?.role === "user" && !isBusy && !talk.errors.has(last.id);
  return html`<section class="column" aria-label=${`Conversation with ${column.model ?? "no model"}`} data-testid=${`column-${column.index}`}>
    ${chat.settings.compare && html`<header class="column-head">
      <${ModelSelect} app=${app} column=${column.index} value=${column.model} label=${column.index ? "Second model" : "First model"} />
      <${ContextBar} app=${app} column=${column} />
    </header>`}
    ${!app.canChat(column.model) && path.length > 0 && html`<p class="note">${column.model} is a base model: it goes on with the text, without a chat template.</p>`}
    <div class="log" role="log" aria-live="off" aria-label="Messages" aria-busy=${String(isBusy)} ref=${log} onScroll=${onScroll} tabindex="0">
      <div class="log-inner">
        ${!path.length && (column.index === 0 ? html`<${Welcome} app=${app} />` : html`<p class="waiting">The same question goes to both models.</p>`)}
        ${hidden > 0 && html`<button type="button" class="earlier" data-testid="show-earlier" onClick=${showEarlier}>
          Show earlier messages (${hidden})</button>`}
        ${path.slice(hidden).map((message) => html`<${MessageView} key=${`${message.role} after ${message.parent_id}`} app=${app} column=${column.index} message=${message} isBusy=${isBusy} />`)}
        ${!isBusy && html`<${FullNote} app=${app} column=${column} />`}
        ${isUnanswered && html`<p class="unanswered"><button type="button" data-testid="answer" onClick=${() => talk.regenerate(column.index, last)}>Answer this</button></p>`}
      </div>
    </div>
    ${!isStuck && html`<button type="button" class="to-end" aria-label="To the newest message" onClick=${() => setStuck(true)}><${Icon} name="down" /></button>`}
  </section>`;
}

function Welcome({ app }) {
  if (app.modelsError) {
    const tryAgain = () => {
      app.loadModels();
      app.library.refresh();
    };
    return html`<div class="welcome"><h2>${app.modelsError === app.engine.noModels ? "No model yet" : "No model can be reached"}</h2><p class="error" role="alert" data-testid="models-error">${app.modelsError}</p>
      <p><button type="button" onClick=${tryAgain}>Try again</button></p></div>`;
  }
  return html`<div class="welcome" data-testid="welcome">
    <img src=${new URL("../icon.svg", import.meta.url).href} alt="" width="56" height="56" />
    <h2>What would you like to know?</h2>
    <p>Small models know what they were trained on, and are often wrong. Try one of these:</p>
    <div class="examples">
      ${EXAMPLES.map((text) => html`<button type="button" data-testid="example" onClick=${() => app.talk.send(text)}>${text}</button>`)}
    </div>
  </div>`;
}

/** What to do about a conversation that is longer than what its model takes in well. */
function FullNote({ app, column }) {
  const model = app.findModel(column.model);
  const used = usedTokens(app.chat, column.leaf);
  const limit = app.contextOf(column.model);
  if (!limit || used < limit) return null;
  const isEnd = limit === model.max_length;
  const what = isEnd ? `fills the ${tokens(limit)} that ${model.id} takes` : `is longer than the ${tokens(limit)} that ${model.id} was trained on, so answers get worse`;
  return html`<p class="note" data-testid="full-note">This conversation ${what}. Begin a new one, or edit an earlier message to go on from there.</p>`;
}

/** How much of what a model takes in is used, by the figures of the last answer. */
export function ContextBar({ app, column }) {
  const limit = app.contextOf(column.model);
  const used = usedTokens(app.chat, column.leaf) + (app.talk.streams.get(column.leaf)?.count ?? 0);
  if (!used) return null;
  const share = limit ? Math.min(1, used / limit) : 0;
  const label = limit ? `${used} of ${tokens(limit)}` : tokens(used);
  return html`<span class=${`context ${share > 0.9 ? "full" : ""}`} data-testid="context" title=${`Context: ${label}`}>
    ${limit && html`<span class="bar" role="meter" aria-label="Context in use" aria-valuemin="0" aria-valuemax=${limit} aria-valuenow=${used} aria-valuetext=${label}>
      <span style=${{ width: `${100 * share}%` }}></span></span>`}
    <span class="context-label">${label}</span>
  </span>`;
}

function Composer({ app }) {
  const { chat, talk } = app;
  const area = useRef(null);
  const isBusy = talk.isStreaming(chat);
  useAutoHeight(area, app.draft);
  useLayoutEffect(() => {
    if (!isNarrow()) area.current.focus();
  }, [chat.id]);
  const send = () => {
    talk.send(app.draft);
    area.current.focus();
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && !app.draft && !isBusy) {
      const mine = pathTo(chat.messages, chat.current_id).findLast(({ role }) => role === "user");
      if (!mine) return;
      event.preventDefault();
      app.editing = `0:${mine.id}`;
      app.changed();
    }
  };
  const onSubmit = (event) => {
    event.preventDefault();
    if (isBusy) talk.stop(chat.id);
    else send();
  };
  return html`<form class="composer" onSubmit=${onSubmit}>
    <textarea ref=${area} id="composer" rows="1" aria-label="Message" data-testid="composer" placeholder="Ask something"
      value=${app.draft} onInput=${(event) => (app.draft = event.target.value)} onKeyDown=${onKeyDown}></textarea>
    ${isBusy
      ? html`<button class="send stop" aria-label="Stop" title="Stop (Escape)" data-testid="stop" key="stop"><${Icon} name="stop" /></button>`
      : html`<button class="send" aria-label="Send" title="Send (Enter)" data-testid="send" key="send" disabled=${!app.draft.trim() || !chat.model}>
          <${Icon} name="send" /></button>`}
  </form>`;
}

export function ChatView({ app }) {
  const columns = columnsOf(app.chat);
  return html`<div class="chat">
    <div class=${`columns of-${columns.length}`}>
      ${columns.map((column) => html`<${Column} key=${`${app.chat.id}-${column.index}`} app=${app} column=${column} />`)}
    </div>
    <${Composer} app=${app} />
  </div>`;
}
