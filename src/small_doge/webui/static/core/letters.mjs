// Texts by their letters: those beyond the basic plane, such as emoji, are two units of JavaScript, and no server takes half of one.

/** The first letters of a text. */
export function cut(text, limit) {
  return text.length > limit ? [...text].slice(0, limit).join("") : text;
}
