// Small parts that several views use: icons, menus, the choice of a model.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../libs.mjs";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  redo: "M20 11a8 8 0 1 0-2.300 6.300M20 5v6h-6",
  back: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  forth: "M15 14l5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.500 6.500l4 4",
  branch: "M7 4v10M7 14a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM17 4a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM17 10c0 4-10 2-10 5",
  play: "M7 5l11 7-11 7z",
  left: "M15 6l-6 6 6 6",
  right: "M9 6l6 6-6 6",
  down: "M6 9l6 6 6-6",
  dots: "M5 12h.01M12 12h.01M19 12h.01",
  settings: "M4 8h9M17 8h3M4 16h3M11 16h9M15 5.500v5M9 13.500v5",
  columns: "M4 5h16v14H4zM12 5v14",
  close: "M6 6l12 12M18 6 6 18",
  archive: "M4 5h16v4H4zM6 9v10h12V9M10 13h4",
  help: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 17.500h.01",
  eye: "M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12ZM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6Z",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}

const toText = (value) => (value === undefined ? undefined : String(value));

/**
 * A button with an icon, whose label is read and shown as a tip. `pressed` and `expanded` tell its state; one that is `inert`
 * does nothing, and keeps the focus that it has.
 */
export function IconButton({ icon, label, testid, onClick, pressed, expanded, disabled, inert, extra = "" }) {
  return html`<button
    type="button"
    class=${`icon-button ${extra}`}
    aria-label=${label}
    title=${label}
    data-testid=${testid}
    aria-pressed=${toText(pressed)}
    aria-expanded=${toText(expanded)}
    aria-disabled=${inert ? "true" : undefined}
    disabled=${disabled}
    onClick=${inert ? undefined : onClick}
  ><${Icon} name=${icon} /></button>`;
}

/** A button that opens a list of commands: {label, action, testid}. Arrows move, Escape closes. */
export function Menu({ label, testid, items, icon = "dots" }) {
  const [isOpen, setOpen] = useState(false);
  const box = useRef(null);
  useLayoutEffect(() => {
    if (!isOpen) return;
    const list = box.current.querySelector("[role=menu]");
    const button = box.current.querySelector("button").getBoundingClientRect();
    const left = Math.max(8, Math.min(button.left, window.innerWidth - list.offsetWidth - 8));
    const fits = button.bottom + list.offsetHeight + 8 < window.innerHeight;
    list.style.left = `${left}px`;
    list.style.top = `${fits ? button.bottom + 4 : Math.max(8, button.top - list.offsetHeight - 4)}px`;
    list.querySelector("button").focus();
  }, [isOpen]);
  useEffect(() => {
    if (!isOpen) return;
    const close = (event) => box.current && !box.current.contains(event.target) && setOpen(false);
    document.addEventListener("pointerdown", close);
    return () => document.removeEventListener("pointerdown", close);
  }, [isOpen]);
  const finish = () => {
    setOpen(false);
    box.current.querySelector("button").focus();
  };
  const onKeyDown = (event) => {
    if (!isOpen) return;
    const buttons = [...box.current.querySelectorAll("[role=menuitem]")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    else if (event.key === "Home" || event.key === "End") buttons.at(event.key === "Home" ? 0 : -1).focus();
    else if (event.key === "Escape") finish();
    else if (event.key === "Tab") return setOpen(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const run = (action) => {
    finish();
    action();
  };
  return html`<span class="menu" ref=${box} onKeyDown=${onKeyDown}>
    <button type="button" class="icon-button" aria-label=${label} title=${label} aria-haspopup="menu" aria-expanded=${String(isOpen)}
      data-testid=${testid} onClick=${() => setOpen(!isOpen)}><${Icon} name=${icon} /></button>
    ${isOpen && html`<span role="menu" aria-label=${label}>${items.map(
      (item) => html`<button type="button" role="menuitem" tabindex="-1" data-testid=${item.testid} class=${item.danger ? "danger" : ""}
        onClick=${() => run(item.action)}>${item.label}</button>`,
    )}</span>`}
  </span>`;
}

export function ModelSelect({ app, column = 0, value, label = "Model" }) {
  const unknown = value && !app.findModel(value);
  return html`<select class="model-select" aria-label=${label} data-testid=${`model-${column}`} value=${value ?? ""}
    onChange=${(event) => app.setModel(column, event.target.value)}>
    ${!value && html`<option value="">No model</option>`}
    ${unknown && html`<option value=${value}>${value} (not here)</option>`}
    ${app.models.map(({ id, can_chat }) => html`<option value=${id} key=${id}>${id}${can_chat === false ? " (base)" : ""}</option>`)}
  </select>`;
}

/** Set the height of a text area to that of its text. */
export function useAutoHeight(ref, text) {
  useLayoutEffect(() => {
    const area = ref.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  }, [text]);
}

/** A number of tokens in words. */
export const tokens = (count) => `${count} ${count === 1 ? "token" : "tokens"}`;

export const percent = (logprob) => {
  const value = 100 * Math.exp(logprob);
  if (value < 0.001) return "< 0.001%";
  return value >= 99.95 ? "100%" : `${value >= 10 ? value.toFixed(0) : value.toFixed(value >= 0.1 ? 1 : 3)}%`;
};

/** A token's text with its spaces visible. */
export const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "∅";

/** Move the focus into a panel that opens, and back to where it was when the panel closes. */
export function usePanelFocus(panel, isWanted = true) {
  useLayoutEffect(() => {
    if (!isWanted) return;
    const before = document.activeElement;
    panel.current.querySelector("button").focus({ preventScroll: true });
    const box = panel.current;
    return () => {
      if (!box.contains(document.activeElement)) return; // it went elsewhere meanwhile
      queueMicrotask(() => before?.isConnected && before.focus()); // what lies behind may be reached when all is drawn
    };
  }, []);
}
