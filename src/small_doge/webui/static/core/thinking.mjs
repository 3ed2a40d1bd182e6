// Thoughts stand between <think> and </think>; the page folds them.

/**
 * Split an answer into thoughts and what is said.
 * @param {string} text
 * @returns {{kind: "thought" | "said", text: string, open: boolean}[]} `open`: the thought has not ended yet
 */
export function splitThinking(text) {
  const parts = [];
  let rest = text;
  while (rest) {
    const start = rest.indexOf("<think>");
    if (start < 0) break;
    if (rest.slice(0, start).trim()) parts.push({ kind: "said", text: rest.slice(0, start), open: false });
    const end = rest.indexOf("</think>", start);
    const thought = end < 0 ? rest.slice(start + 7) : rest.slice(start + 7, end);
    if (thought.trim() || end < 0) parts.push({ kind: "thought", text: thought.trim(), open: end < 0 });
    rest = end < 0 ? "" : rest.slice(end + 8);
  }
  if (rest.trim()) parts.push({ kind: "said", text: rest, open: false });
  return parts;
}
