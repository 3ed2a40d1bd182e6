// The panel of settings: presets, system prompt, sampling.

import { BUILT_IN, FIELDS, isBuiltIn, isChanged } from "../core/presets.mjs";
import { html, useRef, useState } from "../libs.mjs";
import { IconButton, tokens, usePanelFocus } from "./parts.mjs";

const OTHER = ""; // what no preset is

function Presets({ app }) {
  const { chat, library } = app;
  const { preset, sampling } = chat.settings;
  const isOwn = preset && !isBuiltIn(preset);
  const choose = (name) => {
    const found = library.presets.find((candidate) => candidate.name === name);
    if (found) app.applyPreset(found);
  };
  const save = async (name) => {
    await library.savePreset({ name, system_prompt: chat.system_prompt, sampling: { ...sampling } });
    chat.settings.preset = name;
    app.saver.saveFields(chat, ["settings"]);
    app.changed();
  };
  const remove = async () => {
    try {
      await library.removePreset(preset);
      choose(BUILT_IN[0].name);
    } catch (error) {
      app.tell(`Not deleted: ${error.message}`, "Try again", remove);
    }
  };
  const names = library.presets.map(({ name }) => name);
  const found = library.presets.find(({ name }) => name === preset);
  const other = found ? `${preset}, changed` : preset || "Own settings";
  const isOther = !found || isChanged(found, chat);
  return html`<fieldset>
    <legend>Preset</legend>
    <div class="row">
      <select aria-label="Preset" data-testid="preset" value=${isOther ? OTHER : preset} onChange=${(event) => choose(event.target.value)}>
        ${isOther && html`<option key=${OTHER} value=${OTHER}>${other}</option>`}
        ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select>
      <button type="button" data-testid="preset-save" onClick=${() => app.openDialog("preset", { save })}>Save as …</button>
      ${isOwn && names.includes(preset) && html`<button type="button" data-testid="preset-delete" onClick=${remove}>Delete</button>`}
    </div>
    ${library.presetsError
      ? html`<p class="error" role="alert">Your presets could not be read: ${library.presetsError}</p>`
      : html`<small data-testid="presets-place">Your own presets are kept ${app.store.place}, and exported with the conversations.</small>`}
  </fieldset>`;
}

function Field({ app, field }) {
  const { name, label, min, max, step, help } = field;
  const { chat } = app;
  const { sampling } = chat.settings;
  // While someone types, the field keeps what stands in it: the 0 of 0.25 may be out of range. What it means is in range all the time.
  const [isTyping, setTyping] = useState(false);
  const set = ({ value: text, validity }) => {
    const value = text === "" ? null : Number(text);
    if (validity.badInput || (value !== null && !Number.isFinite(value))) return;
    sampling[name] = value === null ? null : Math.min(max, Math.max(min, value));
    app.saver.saveFieldSoon(chat, "settings");
    app.changed();
  };
  const type = ({ target }) => {
    setTyping(true);
    set(target);
  };
  const finish = ({ target }) => {
    setTyping(false);
    target.value = sampling[name] ?? "";
  };
  const shared = { min, max, step };
  return html`<div class="field">
    <label for=${`field-${name}`}>${label}</label>
    <input id=${`field-${name}`} type="number" data-testid=${`field-${name}`} ...${shared} value=${isTyping ? undefined : (sampling[name] ?? "")}
      placeholder="none" aria-describedby=${`help-${name}`} onInput=${type} onChange=${finish} onBlur=${finish} />
    ${name !== "seed" && html`<input type="range" aria-label=${label} tabindex="-1" ...${shared} value=${sampling[name] ?? min}
      onInput=${({ target }) => set(target)} />`}
    <small id=${`help-${name}`}>${help}</small>
  </div>`;
}

function ModelFacts({ app }) {
  const model = app.findModel(app.chat.model);
  if (!model) return null;
  const facts = [
    ["Layers", model.num_layers],
    ["Key-value heads", model.num_kv_heads],
    ["Vocabulary", model.vocab_size],
    ["Keeps", model.keep_window_size && `${tokens(model.keep_window_size)} per head`],
    ["Trained on", model.trained_length && tokens(model.trained_length)],
    ["Weights", model.quantize === "none" ? "float32" : model.quantize],
    ["Size", model.size_bytes && `${(model.size_bytes / 1e6).toFixed(1)} MB`],
  ].filter(([, value]) => value);
  if (!facts.length) return null;
  return html`<fieldset><legend>About ${model.id}</legend>
    <dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl></fieldset>`;
}

export function Settings({ app }) {
  const { chat } = app;
  const panel = useRef(null);
  usePanelFocus(panel);
  const theme = document.documentElement.dataset.theme ?? "";
  return html`<aside class="settings" aria-label="Settings" data-testid="settings" ref=${panel}>
    <div class="settings-head"><h2>Settings</h2>
      <${IconButton} icon="close" label="Close settings" testid="settings-close" onClick=${() => app.toggle("panel", false)} /></div>
    <${Presets} app=${app} />
    ${chat.settings.mode !== "raw" && html`<fieldset>
      <legend><label for="system-prompt">System prompt</label></legend>
      <textarea id="system-prompt" rows="4" data-testid="system-prompt" placeholder="Such as: Answer in one sentence." value=${chat.system_prompt}
        onInput=${({ target }) => {
          chat.system_prompt = target.value;
          app.saver.saveFieldSoon(chat, "system_prompt");
        }}></textarea>
    </fieldset>`}
    <fieldset><legend>Sampling</legend>
      ${FIELDS.map((field) => html`<${Field} key=${field.name} app=${app} field=${field} />`)}
    </fieldset>
    <fieldset><legend>Colours</legend>
      <div class="segments" role="group" aria-label="Colours">
        ${[["", "System"], ["light", "Light"], ["dark", "Dark"]].map(
          ([value, label]) => html`<button type="button" data-testid=${`theme-${value || "system"}`} aria-pressed=${String(theme === value)}
            onClick=${() => app.setTheme(value)}>${label}</button>`,
        )}
      </div>
    </fieldset>
    <${ModelFacts} app=${app} />
  </aside>`;
}
