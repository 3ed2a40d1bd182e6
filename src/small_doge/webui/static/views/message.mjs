// One message: its text as Markdown, its figures, and what can be done with it.

import { copyText, fill, toBlocks } from "../core/markdown.mjs";
import { splitThinking } from "../core/thinking.mjs";
import { siblingsOf } from "../core/tree.mjs";
import { html, useLayoutEffect, useRef, useState } from "../libs.mjs";
import { canContinue, waitingText } from "../talk.mjs";
import { IconButton, tokens, useAutoHeight } from "./parts.mjs";

function Block({ markup }) {
  const ref = useRef(null);
  useLayoutEffect(() => fill(ref.current, markup), [markup]);
  return html`<div ref=${ref}></div>`;
}

/** Markdown, of which only the blocks that changed are drawn again; a long one, while it is written, not in every frame. */
export function Markdown({ text, isWriting = false }) {
  const last = useRef({ text: null, blocks: [], end: 0, cost: 0 });
  const begun = performance.now();
  const isDue = !isWriting || begun - last.current.end > 3 * last.current.cost;
  const isNew = last.current.text !== text && isDue;
  if (isNew) last.current = { ...last.current, text, blocks: toBlocks(text) };
  useLayoutEffect(() => {
    if (isNew) Object.assign(last.current, { end: performance.now(), cost: performance.now() - begun });
  });
  return html`<div class="markdown">${last.current.blocks.map((markup, index) => html`<${Block} key=${index} markup=${markup} />`)}</div>`;
}

function Answer({ text, isWriting }) {
  const parts = splitThinking(text);
  return parts.map((part, index) =>
    part.kind === "said"
      ? html`<${Markdown} key=${index} text=${part.text} isWriting=${isWriting} />`
      : html`<details class="thought" key=${index} data-testid="thought">
          <summary>${part.open && isWriting ? "Thinking …" : "Thoughts"}</summary>
          <${Markdown} text=${part.text} />
        </details>`,
  );
}

function Editor({ message, onSave, onCancel }) {
  const [text, setText] = useState(message.content);
  const area = useRef(null);
  useAutoHeight(area, text);
  useLayoutEffect(() => {
    area.current.focus();
    area.current.setSelectionRange(text.length, text.length);
    return () => document.getElementById("composer")?.focus();
  }, []);
  const onKeyDown = (event) => {
    if (event.key === "Escape") onCancel();
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) onSave(event.target.value); // the state may lag behind
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="editor">
    <textarea ref=${area} aria-label="Edit message" data-testid="edit-text" value=${text} rows="1"
      onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown}></textarea>
    <div class="editor-buttons">
      <button type="button" onClick=${onCancel}>Cancel</button>
      <button type="button" class="primary" data-testid="edit-save" onClick=${() => onSave(area.current.value)}>
        ${message.role === "user" ? "Send" : "Save as a branch"}
      </button>
    </div>
  </div>`;
}

function Branches({ app, column, message }) {
  const siblings = siblingsOf(app.chat.messages, message);
  if (siblings.length < 2) return null;
  const place = siblings.findIndex(({ id }) => id === message.id);
  const go = (step) => app.talk.switchBranch(column, message, step);
  return html`<span class="branches" role="group" aria-label="Branches">
    <${IconButton} icon="left" label="Branch before" testid="branch-left" inert=${place === 0} onClick=${() => go(-1)} />
    <span data-testid="branch-place" aria-label=${`${place + 1} of ${siblings.length}`} role="img">${place + 1}/${siblings.length}</span>
    <${IconButton} icon="right" label="Next branch" testid="branch-right" inert=${place === siblings.length - 1} onClick=${() => go(1)} />
  </span>`;
}

const REASONS = { length: "cut off at its longest length", aborted: "stopped", error: "broke off" };

function Figures({ app, message, stream }) {
  const [now, stats] = [performance.now(), message.stats];
  if (stream) {
    if (!stream.first) return html`<span class="figures" data-testid="figures">${waitingText(app, message.model, stream)}</span>`;
    const speed = stream.count / Math.max(0.05, (now - stream.first) / 1000);
    return html`<span class="figures" data-testid="figures">${tokens(stream.count)} · ${tokens(Math.round(speed))}/s</span>`;
  }
  if (!stats?.completion_tokens) return null;
  const parts = [tokens(stats.completion_tokens)];
  if (stats.tokens_per_second) parts.push(`${tokens(Math.round(stats.tokens_per_second))}/s`);
  if (stats.first_token_seconds !== null) parts.push(`first after ${Math.round(stats.first_token_seconds * 1000)} ms`);
  const end = (stats.prompt_tokens ?? 0) + stats.completion_tokens;
  if (stats.finish_reason === "length" && end >= app.findModel(message.model)?.max_length) parts.push("cut off, as the context is full");
  else if (REASONS[stats.finish_reason]) parts.push(REASONS[stats.finish_reason]);
  const cached = stats.cached_tokens ? `, ${stats.cached_tokens} of them from the cache` : "";
  const title = stats.prompt_tokens ? `${tokens(stats.prompt_tokens)} of prompt${cached}` : "";
  return html`<span class="figures" data-testid="figures" title=${title}>${parts.join(" · ")}</span>`;
}

function Actions({ app, column, message, isBusy }) {
  const { talk, chat } = app;
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    await copyText(message.content);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  const isAnswer = message.role === "assistant";
  const edit = () => {
    app.editing = `${column}:${message.id}`;
    app.changed();
  };
  return html`<span class="actions">
    <${IconButton} icon="copy" label=${isCopied ? "Copied" : "Copy"} testid="copy" onClick=${copy} />
    <${IconButton} icon="edit" label="Edit" testid="edit" disabled=${isBusy} onClick=${edit} />
    ${isAnswer && html`<${IconButton} icon="redo" label="Regenerate" testid="regenerate" disabled=${isBusy}
      onClick=${() => talk.regenerate(column, message)} />`}
    ${canContinue(chat, message) && html`<${IconButton} icon="play" label="Continue this answer" testid="continue" disabled=${isBusy}
      onClick=${() => talk.continueAnswer(column, message)} />`}
    ${isAnswer && app.canChat(message.model) && html`<${IconButton} icon="eye" label="Look inside: tokens and their probabilities" testid="look-inside"
      onClick=${() => app.lookInside(message.id)} />`}
    <${IconButton} icon="branch" label="Branch into a new conversation" testid="branch-chat" disabled=${isBusy}
      onClick=${() => app.branchChat(message.id)} />
  </span>`;
}

export function MessageView({ app, column, message, isBusy }) {
  const { talk } = app;
  const stream = talk.streams.get(message.id);
  const isUser = message.role === "user";
  const error = talk.errors.get(message.id);
  const stopEditing = () => {
    app.editing = null;
    app.changed();
  };
  const save = (text) => {
    if (talk.edit(column, message, text)) stopEditing();
  };
  const retry = () => (isUser ? talk.regenerate(column, message) : talk.continueAnswer(column, message));
  const name = isUser ? "You" : (message.model ?? message.role);
  return html`<article class=${`message ${message.role} ${stream ? "writing" : ""}`} aria-label=${name} data-testid=${`message-${message.role}`}
    aria-busy=${String(!!stream)}>
    ${!isUser && html`<div class="author">${name}</div>`}
    ${app.editing === `${column}:${message.id}`
      ? html`<${Editor} message=${message} onSave=${save} onCancel=${stopEditing} />`
      : html`<div class="content" data-testid="content">
          ${isUser ? html`<p class="plain">${message.content}</p>` : html`<${Answer} text=${message.content} isWriting=${!!stream} />`}
          ${stream && html`<span class="caret" aria-hidden="true"></span>`}
        </div>`}
    <div class="under">
      <${Branches} app=${app} column=${column} message=${message} />
      ${!stream && html`<${Actions} app=${app} column=${column} message=${message} isBusy=${isBusy} />`}
      ${!isUser && html`<${Figures} app=${app} message=${message} stream=${stream} />`}
    </div>
    ${error && html`<p class="error" role="alert" data-testid="error">${error}
      <button type="button" data-testid="retry" onClick=${retry} disabled=${isBusy}>Try again</button></p>`}
  </article>`;
}
