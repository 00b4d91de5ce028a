// What a model writes, as Markdown with code and maths. All of it is hostile: HTML in it is shown as text, what Markdown makes is
// sanitised, images and forms do not exist, and the page's Content-Security-Policy would stop what got through.
import "../vendor/dompurify/purify.min.js";
import { Marked } from "../vendor/marked/marked.esm.js";
import { copyButton, el } from "./dom.js";
import { formulasAndBold } from "./maths.js";
import { say } from "./words.js";

const TAGS = "p br strong em del code pre blockquote ul ol li hr h3 table thead tbody tr th td a span div input".split(" ");
const SAFE = {
  ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "class", "start", "align", "type", "checked", "disabled"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i, ADD_URI_SAFE_ATTR: ["start", "align", "type", "checked", "disabled"],
  ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true,
}; // prettier-ignore
const LONGEST_CODE = 50_000; // colouring more would hold the page up
const LONGEST_MATHS = 5_000;

const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
const marked = new Marked({ gfm: true, breaks: true });
marked.use({
  extensions: formulasAndBold(escaped),
  renderer: {
    html: ({ text }) => escaped(text),
    // One level under the model's name, whatever level a model begins with or leaps to; the class keeps the looks.
    heading({ tokens, depth }) {
      return `<h3 class="depth-${depth}">${this.parser.parseInline(tokens)}</h3>`;
    },
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    code: ({ text, lang }) => `<pre><code class="language-${escaped(/^[\w+#.-]{0,30}/.exec(lang ?? "")[0])}">${escaped(text)}</code></pre>`,
  },
});

// Loaded when the first code or formula is there: together they are larger than the page.
const once = (load) => {
  let promise;
  return () => (promise ??= load());
};
const highlighter = once(async () => (await import("../vendor/highlight/highlight.min.js")).default);
const formulas = once(async () => {
  await import("../vendor/katex/katex.min.js");
  return globalThis.katex;
});

async function colour(code) {
  const language = /language-(\S+)/.exec(code.className)?.[1];
  if (!language || code.textContent.length > LONGEST_CODE) return;
  const hljs = await highlighter();
  if (!hljs.getLanguage(language)) return;
  const { value } = hljs.highlight(code.textContent, { language, ignoreIllegals: true });
  code.replaceChildren(DOMPurify.sanitize(value, { ...SAFE, ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"] }));
}

function frame(pre) {
  const code = pre.firstElementChild;
  const name = /language-(\S+)/.exec(code.className)?.[1] ?? "";
  const copy = copyButton(say("copyCode"), say("copied"), () => code.textContent);
  const framed = el("div", { className: "code" }, el("div", { className: "code-head" }, el("span", {}, name), copy));
  pre.replaceWith(framed);
  framed.append(pre);
  pre.tabIndex = 0; // long lines are scrolled with the keyboard, too
  colour(code);
}

async function formula(node) {
  const source = node.textContent;
  if (source.length > LONGEST_MATHS) return;
  const katex = await formulas();
  const display = node.classList.contains("display");
  try {
    katex.render(source, node, { displayMode: display, trust: false, strict: "ignore", maxSize: 20, maxExpand: 500 });
  } catch {
    node.textContent = source; // no formula that KaTeX knows
  }
  if (display) node.tabIndex = 0;
}

function blockOf(tokens) {
  const block = el("div", { dir: "auto" }, DOMPurify.sanitize(marked.parser(tokens), SAFE));
  for (const link of block.querySelectorAll("a")) {
    if (!link.href) link.replaceWith(...link.childNodes); // what DOMPurify took away was no address of the web
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const box of block.querySelectorAll("input")) {
    if (box.type !== "checkbox") box.remove();
    box.disabled = true;
    box.setAttribute("aria-label", box.parentElement.textContent.trim() || "–");
  }
  for (const table of block.querySelectorAll("table")) {
    const wide = el("div", { className: "wide", tabIndex: 0 });
    table.replaceWith(wide);
    wide.append(table);
  }
  block.querySelectorAll("pre").forEach(frame);
  block.querySelectorAll(".maths").forEach(formula);
  return block;
}

// Text that grows. Only blocks that changed are made anew, so that a selection, or a scrolled code block above, stays.
export class LiveMarkdown {
  constructor(target) {
    this.target = target;
    this.sources = [];
  }

  update(text) {
    try {
      this.draw(text);
    } catch {
      // Quotes and lists nested deeper than the stack: shown as they were written.
      this.sources = [];
      this.target.replaceChildren(el("div", { className: "plain", dir: "auto" }, text));
    }
  }

  draw(text) {
    const tokens = marked.lexer(text).filter((token) => token.type !== "space");
    let same = 0;
    while (same < tokens.length && this.sources[same] === tokens[same].raw) same += 1;
    while (this.target.children.length > same) this.target.lastElementChild.remove();
    for (const token of tokens.slice(same)) this.target.append(blockOf([token]));
    this.sources = tokens.map(({ raw }) => raw);
  }
}
