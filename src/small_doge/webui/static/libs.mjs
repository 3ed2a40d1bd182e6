// The libraries that the page uses, in one place. Their files lie in vendor/.

import { h, render } from "./vendor/preact.mjs";
import { useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact-hooks.mjs";
import htm from "./vendor/htm.mjs";

/** Markup as a tagged template: html`<p class=${name}>text</p>`. */
export const html = htm.bind(h);
export { h, render, useEffect, useLayoutEffect, useRef, useState };
