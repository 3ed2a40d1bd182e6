// How much room there is. style.css has the same widths.

/** Where panels cover the conversation. */
export const NARROW = globalThis.matchMedia?.("(max-width: 800px)");
/** Where two panels would leave the conversation too little room. */
export const CROWDED = globalThis.matchMedia?.("(max-width: 1000px)");

export function isNarrow() {
  return NARROW.matches;
}
