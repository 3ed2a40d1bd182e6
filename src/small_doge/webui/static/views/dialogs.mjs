// Dialogs: names and folders, deletion, the API key, presets, the list of shortcuts.

import { serverName } from "../core/api.mjs";
import { cut } from "../core/letters.mjs";
import { MAX_PRESET_NAME } from "../core/presets.mjs";
import { html, useLayoutEffect, useRef } from "../libs.mjs";
import { SHORTCUTS } from "../shortcuts.mjs";

/** A modal dialog; the browser keeps the focus in it and gives it back. `onSubmit` receives the fields of its form. */
function Dialog({ title, testid, onClose, onSubmit, submit, danger = false, children }) {
  const dialog = useRef(null);
  const pressed = useRef(null); // a press on the dialog that ends beside it, as when text is selected, does not close it
  useLayoutEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    return () => opener?.isConnected && opener.focus();
  }, []);
  const send = (event) => {
    event.preventDefault();
    onSubmit(Object.fromEntries(new FormData(event.target)));
  };
  return html`<dialog ref=${dialog} aria-label=${title} data-testid=${testid} onClose=${onClose}
    onPointerDown=${(event) => (pressed.current = event.target)}
    onClick=${(event) => event.target === dialog.current && pressed.current === dialog.current && onClose()}>
    <form onSubmit=${send}>
      <h2>${title}</h2>
      ${children}
      <div class="dialog-buttons">
        <button type="button" onClick=${onClose}>${submit ? "Cancel" : "Close"}</button>
        ${submit && html`<button class=${danger ? "danger" : "primary"} data-testid="dialog-submit">${submit}</button>`}
      </div>
    </form>
  </dialog>`;
}

function Details({ app, chat }) {
  const close = () => app.closeDialog();
  const folders = [...new Set(app.library.chats.map(({ folder }) => folder).filter(Boolean))];
  const save = ({ title, folder, tags }) => {
    const list = tags.split(",").map((tag) => cut(tag.trim(), 64)).filter(Boolean);
    app.library.change(chat, { title: title.trim() || chat.title, folder: folder.trim() || null, tags: [...new Set(list)] });
    close();
  };
  return html`<${Dialog} title="Rename and sort" testid="details" submit="Save" onClose=${close} onSubmit=${save}>
    <label>Name <input name="title" value=${chat.title} maxlength="200" data-testid="details-title" /></label>
    <label>Folder <input name="folder" value=${chat.folder ?? ""} maxlength="100" list="folders" placeholder="none" data-testid="details-folder" /></label>
    <datalist id="folders">${folders.map((name) => html`<option value=${name} />`)}</datalist>
    <label>Tags <input name="tags" value=${chat.tags.join(", ")} placeholder="separated by commas" data-testid="details-tags" /></label>
  <//>`;
}

function Delete({ app, chat }) {
  const close = () => app.closeDialog();
  const remove = () => {
    close();
    app.library.remove(chat);
  };
  return html`<${Dialog} title="Delete this conversation?" testid="delete-dialog" submit="Delete" danger onClose=${close} onSubmit=${remove}>
    <p>“${chat.title}” will be gone for good. Export it first to keep a copy.</p>
  <//>`;
}

function Key({ app, wasRefused, answer }) {
  const close = (key = null) => {
    app.closeDialog();
    answer(key);
  };
  return html`<${Dialog} title="API key" testid="key-dialog" submit="Use this key" onClose=${() => close()} onSubmit=${({ key }) => close(key.trim())}>
    <p>${wasRefused ? `${serverName()} refused this key. Enter another one` : `${serverName()} needs an API key`}: the one of its --api-key or
      SMALLDOGE_API_KEY. It is kept until this tab is closed.</p>
    <label>Key <input name="key" type="password" autocomplete="off" required data-testid="key" /></label>
  <//>`;
}

function Preset({ app, save, name: given = "" }) {
  const close = () => app.closeDialog();
  const submit = async ({ name }) => {
    close();
    try {
      await save(name.trim());
    } catch (error) {
      app.tell(`Not saved: ${error.message}`, "Save again", () => app.openDialog("preset", { save, name }));
    }
  };
  return html`<${Dialog} title="Save as a preset" testid="preset-dialog" submit="Save" onClose=${close} onSubmit=${submit}>
    <p>The system prompt and the sampling settings, for other conversations. Presets are kept ${app.store.place}.</p>
    <label>Name <input name="name" required maxlength=${MAX_PRESET_NAME} value=${given} pattern=".*[^. ].*"
      title="A name with a letter or a digit" data-testid="preset-name" /></label>
  <//>`;
}

function Help({ app }) {
  return html`<${Dialog} title="Keyboard shortcuts" testid="help-dialog" onClose=${() => app.closeDialog()}>
    <dl class="shortcuts">${SHORTCUTS.map(({ keys, help }) => html`<dt>${keys.split(" ").map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${help}</dd>`)}</dl>
  <//>`;
}

const KINDS = { details: Details, delete: Delete, key: Key, preset: Preset, help: Help };

export function CurrentDialog({ app }) {
  if (!app.dialog) return null;
  const { kind, ...data } = app.dialog;
  return html`<${KINDS[kind]} key=${kind} app=${app} ...${data} />`;
}
