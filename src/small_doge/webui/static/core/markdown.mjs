// Markdown to safe HTML. HTML that a model writes is shown as the letters that it is; pictures become links, so that
// nothing is loaded from elsewhere; DOMPurify checks what comes out.

import { Marked } from "../vendor/marked.mjs";
import DOMPurify from "../vendor/purify.mjs";

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
export const escapeHtml = (text) => text.replace(/[&<>"']/g, (letter) => ENTITIES[letter]);

const MATHS = [
  { name: "displayMath", level: "block", start: /\$\$|\\\[/, rule: /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])/ },
  { name: "inlineDisplayMath", level: "inline", start: /\$\$|\\\[/, rule: /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])/ },
  { name: "inlineMath", level: "inline", start: /\$|\\\(/, rule: /^(?:\$(?![\s$])((?:\\.|[^\\$\n])+?)(?<!\s)\$(?!\d)|\\\(([\s\S]+?)\\\))/ },
];

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
  },
  extensions: MATHS.map(({ name, level, start, rule }) => ({
    name,
    level,
    start(source) {
      const index = source.search(start);
      return index < 0 ? undefined : index;
    },
    tokenizer(source) {
      const match = rule.exec(source);
      return match ? { type: name, raw: match[0], formula: match[1] ?? match[2] } : undefined;
    },
    renderer({ formula }) {
      return `<span class="math${name === "inlineMath" ? "" : " display"}">${escapeHtml(formula)}</span>`;
    },
  })),
});

const ALLOWED = {
  ALLOWED_TAGS: [
    ..."a b blockquote br code del div em h1 h2 h3 h4 h5 h6 hr i input li ol p pre s span strong sub sup".split(" "),
    ..."table tbody td th thead tr ul".split(" "),
  ],
  ALLOWED_ATTR: ["href", "class", "start", "align", "type", "checked", "disabled"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i,
};

/**
 * The blocks of a Markdown text as HTML, not yet sanitised: while an answer is written, only its last block changes.
 * @param {string} text
 * @returns {string[]}
 */
export function toBlocks(text) {
  try {
    return parse(text);
  } catch {
    // Lists and quotes nested in thousands, as small models repeat them, overflow the parser's stack; no text may keep the page from being drawn.
    return [`<p class="plain">${escapeHtml(text)}</p>`];
  }
}

function parse(text) {
  const tokens = marked.lexer(text);
  const links = tokens.links;
  return tokens.filter(({ type }) => type !== "space").map((token) => marked.parser(Object.assign([token], { links })));
}

/** HTML without anything that runs or loads. */
export function sanitize(markup) {
  return DOMPurify.sanitize(markup, ALLOWED);
}

/** Put sanitised HTML into an element, and add to it what HTML can't say: colours of code, copy buttons, formulas. */
export function fill(element, markup) {
  element.innerHTML = sanitize(markup);
  for (const link of element.querySelectorAll("a")) Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow" });
  for (const table of element.querySelectorAll("table")) wrap(table, "table-scroll");
  for (const code of element.querySelectorAll("pre > code")) decorate(code);
  for (const formula of element.querySelectorAll(".math")) typeset(formula);
}

function wrap(element, className) {
  const box = document.createElement("div");
  box.className = className;
  element.replaceWith(box);
  box.append(element);
  return box;
}

function decorate(code) {
  const language = /language-([\w+#-]+)/.exec(code.className)?.[1] ?? "";
  const box = wrap(code.parentElement, "code-block");
  const head = document.createElement("div");
  head.className = "code-head";
  const copy = document.createElement("button");
  Object.assign(copy, { type: "button", className: "copy-code", textContent: "Copy" });
  copy.dataset.testid = "copy-code";
  copy.setAttribute("aria-label", "Copy code");
  copy.addEventListener("click", async () => {
    await copyText(code.textContent.replace(/\n$/, ""));
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  head.append(language, copy);
  box.prepend(head);
  if (language) colour(code, language);
}

let highlighter;

async function colour(code, language) {
  highlighter ??= import("../vendor/highlight.mjs").then((module) => module.default);
  const hljs = await highlighter;
  if (!hljs.getLanguage(language)) return;
  code.innerHTML = hljs.highlight(code.textContent, { language, ignoreIllegals: true }).value;
}

let katex;

async function typeset(element) {
  katex ??= import("../vendor/katex/katex.mjs").then((module) => {
    const style = document.createElement("link");
    Object.assign(style, { rel: "stylesheet", href: new URL("../vendor/katex/katex.min.css", import.meta.url).href });
    document.head.append(style);
    return module.default;
  });
  const options = { displayMode: element.classList.contains("display"), throwOnError: false, maxExpand: 200, maxSize: 20 };
  const tree = (await katex).__renderToDomTree(element.textContent, { ...options, trust: false });
  renameStyles(tree);
  element.replaceChildren(tree.toNode());
  for (const part of element.querySelectorAll("[data-style]")) part.style.cssText = part.dataset.style;
}

/** Rename the style attributes of KaTeX's tree: the page's policy forbids these, and allows the same style as a property. */
function renameStyles(node) {
  const { style, ...attributes } = node.attributes ?? {};
  if (style) node.attributes = { ...attributes, "data-style": style };
  node.children?.forEach(renameStyles);
}

/** Copy a text, also on pages without the clipboard's interface, which browsers give only to safe origins. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
