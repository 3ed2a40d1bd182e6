// The raw text: each token is coloured by its probability; a click shows what else was likely, and what heads keep.

import { isNarrow } from "../core/screen.mjs";
import { html, useLayoutEffect, useRef } from "../libs.mjs";
import { InsideView } from "./inside.mjs";
import { waitingText } from "../talk.mjs";
import { Icon, IconButton, percent, tokens, visible } from "./parts.mjs";

/** The text behind the text area, which is transparent: the same letters at the same places, on coloured ground. */
function Ground({ raw }) {
  return html`<div class="ground" aria-hidden="true">${raw.tokens.map(
    (token, index) => html`<span
      key=${index}
      class=${token.logprob === null ? "" : "token"}
      data-testid=${token.written ? "token" : undefined}
      data-chosen=${raw.choosing === index ? "" : undefined}
      style=${token.logprob === null ? undefined : { "--p": Math.exp(token.logprob).toFixed(3) }}
    >${token.text}</span>`,
  )}${"\u200b"}</div>`;
}

function Choices({ app, raw, place }) {
  const index = raw.choosing;
  const token = raw.tokens[index];
  const list = useRef(null);
  useLayoutEffect(() => {
    const box = list.current;
    const room = box.offsetParent.clientWidth;
    box.style.left = `${Math.max(0, Math.min(place.left, room - box.offsetWidth - 4))}px`;
    box.style.top = `${place.bottom + 6}px`;
    box.querySelector("button")?.focus({ preventScroll: true });
    box.scrollIntoView({ block: "nearest" });
  }, [index, token.top?.length]);
  const close = () => {
    raw.choosing = null;
    app.changed();
    document.getElementById("raw-text")?.focus();
  };
  const onKeyDown = (event) => {
    const buttons = [...list.current.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length]?.focus();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const take = (choice) => {
    close();
    raw.take(index, choice);
  };
  return html`<div class="choices" ref=${list} role="dialog" aria-label=${`Likeliest tokens in the place of ${visible(token.text)}`}
    data-testid="choices" onKeyDown=${onKeyDown}>
    <p>In the place of <code>${visible(token.text)}</code>${token.logprob !== null && html` <b>${percent(token.logprob)}</b>`}</p>
    ${!token.top?.length && html`<p class="none">Asking …</p>`}
    ${token.top?.map((choice) => html`<button type="button" key=${choice.id} data-testid="choice" class=${choice.id === token.id ? "same" : ""} onClick=${() => take(choice)}>
      <code>${visible(choice.text)}</code>
      <span class="bar"><span style=${{ width: `${100 * Math.exp(choice.logprob)}%` }}></span></span>
      <span class="share">${percent(choice.logprob)}</span>
    </button>`)}
    <p class="hint">Take one to write on from it.</p>
  </div>`;
}

function Toolbar({ app, raw }) {
  return html`<div class="raw-tools" role="toolbar" aria-label="Raw text">
    ${raw.isWriting
      ? html`<button type="button" class="primary" key="stop" data-testid="raw-stop" onClick=${() => raw.stop()}><${Icon} name="stop" /> Stop</button>`
      : html`<button type="button" class="primary" key="go" data-testid="raw-continue" disabled=${!app.chat.model} onClick=${() => raw.goOn()}
          title="Ctrl Enter"><${Icon} name="play" /> Continue</button>`}
    <${IconButton} icon="back" label="Undo (Ctrl Z)" testid="raw-undo" disabled=${raw.isWriting || !raw.past.length} onClick=${() => raw.undo()} />
    <${IconButton} icon="forth" label="Redo (Ctrl Shift Z)" testid="raw-redo" disabled=${raw.isWriting || !raw.future.length} onClick=${() => raw.redo()} />
    <button type="button" data-testid="inside-toggle" aria-pressed=${String(!!raw.isOpen)} onClick=${() => raw.toggleInside()}>
      <${Icon} name="eye" /> What heads keep</button>
    <span class="space"></span>
    <${RawFigures} app=${app} raw=${raw} />
  </div>`;
}

function RawFigures({ app, raw }) {
  const known = raw.tokens.filter(({ id }) => id !== null).length;
  const limit = app.contextOf(app.chat.model);
  const { stats } = raw;
  if (raw.waits) return html`<span class="figures" data-testid="raw-figures">${waitingText(app, app.chat.model, raw.waits)}</span>`;
  return html`<span class="figures" data-testid="raw-figures">
    ${known > 0 && (limit ? `${known} of ${tokens(limit)}` : tokens(known))}
    ${stats?.speed && ` · ${tokens(Math.round(stats.speed))}/s`}
    ${stats?.reason === "length" && " · cut off at the longest answer"}${stats?.reason === "stop" && " · ended by the model"}
  </span>`;
}

function Legend() {
  return html`<p class="legend" aria-hidden="true">Probability of each written token:
    <span class="scale"></span> 0% to 100%. Click a token for the ten likeliest in its place.</p>`;
}

export function RawView({ app }) {
  const { raw } = app;
  const paper = useRef(null);
  const area = useRef(null);
  useLayoutEffect(() => {
    if (!isNarrow()) area.current.focus();
  }, []);
  useLayoutEffect(() => {
    const scroller = paper.current.parentElement;
    if (raw.isWriting) scroller.scrollTop = scroller.scrollHeight;
  });
  const spans = () => paper.current.querySelectorAll(".ground > span");
  const placeOf = (index) => {
    const [box, home] = [spans()[index].getClientRects()[0], paper.current.getBoundingClientRect()];
    return box ? { left: box.left - home.left, bottom: box.bottom - home.top } : { left: 0, bottom: 0 };
  };
  const choose = (index) => {
    if (raw.isWriting || index < 0 || raw.tokens[index].id === null) return;
    raw.choosing = index;
    if (!raw.tokens[index].top?.length) raw.look();
    app.changed();
  };
  const onClick = (event) => {
    raw.choosing = null;
    app.changed();
    if (area.current.selectionStart !== area.current.selectionEnd) return;
    const isHit = ({ left, right, top, bottom }) =>
      event.clientX >= left && event.clientX < right && event.clientY >= top && event.clientY < bottom;
    const index = [...spans()].findIndex((span) => [...span.getClientRects()].some(isHit));
    if (raw.tokens[index]?.logprob !== null && index >= 0) choose(index);
  };
  const onKeyDown = (event) => {
    const isCommand = event.ctrlKey || event.metaKey;
    if (isCommand && event.key.toLowerCase() === "z") event.shiftKey ? raw.redo() : raw.undo();
    else if (isCommand && event.key.toLowerCase() === "y") raw.redo();
    else if (event.altKey && event.key === "ArrowDown") choose(indexAt(raw.tokens, area.current.selectionStart));
    else return;
    event.preventDefault();
  };
  const isBase = !app.canChat(app.chat.model);
  return html`<div class="raw" data-testid="raw">
    <div class="raw-scroll">
    ${isBase && html`<p class="note" data-testid="base-note">${app.chat.model} is a base model without a chat template: it does not answer, it goes on
      with a text. Write a beginning, then continue.</p>`}
    ${!app.chat.model && app.modelsError && html`<p class="error" role="alert">${app.modelsError}</p>`}
    <${Toolbar} app=${app} raw=${raw} />
      <div class="paper" ref=${paper}>
        <${Ground} raw=${raw} />
        <textarea ref=${area} id="raw-text" data-testid="raw-text" aria-label="Raw text" spellcheck="false" autocomplete="off"
          placeholder="Once upon a time" value=${raw.text} readonly=${raw.isWriting}
          onInput=${(event) => {
            raw.choosing = null;
            raw.type(event.target.value);
          }} onClick=${onClick} onKeyDown=${onKeyDown}></textarea>
        ${raw.choosing != null && raw.tokens[raw.choosing] && html`<${Choices} app=${app} raw=${raw} place=${placeOf(raw.choosing)} />`}
      </div>
      ${raw.error && html`<p class="error" role="alert" data-testid="error">${raw.error}</p>`}
      ${raw.tokens.some(({ logprob }) => logprob !== null) && html`<${Legend} />`}
      ${raw.isOpen && html`<${InsideView} app=${app} raw=${raw} />`}
    </div>
  </div>`;
}

/** The token that a cursor stands in or behind. */
function indexAt(tokens, position) {
  let end = 0;
  return tokens.findIndex(({ text }) => (end += text.length) >= position && text);
}
