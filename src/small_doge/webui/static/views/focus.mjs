// Where the focus goes when what had it is gone. Browsers leave it nowhere, and a keyboard at the beginning of the page.

import { isNarrow } from "../core/screen.mjs";

/**
 * Draw, and move the focus of what is gone: to what its surroundings name in `data-home`, such as the next conversation of the
 * list, or else to the line to write in; on phones to the messages, as that line would open the keyboard.
 * @param {() => void} draw
 */
export function drawKeepingFocus(draw) {
  const before = document.activeElement;
  const home = before?.closest("[data-home]");
  draw();
  if (!before || before === document.body || before.isConnected) return;
  queueMicrotask(() => {
    if (document.activeElement !== document.body) return; // it found a place
    const selector = isNarrow() ? "[role=log], #raw-text" : "#composer, #raw-text";
    const place = home?.isConnected ? document.querySelector(home.dataset.home) : null;
    (place ?? document.querySelector(selector))?.focus();
  });
}
