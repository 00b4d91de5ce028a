// HTML from the server was made harmless there. It is made harmless once more here, so that one mistake is not enough.
const TAGS = new Set(
  "P BR STRONG EM S DEL CODE PRE BLOCKQUOTE UL OL LI HR H1 H2 H3 H4 H5 H6 TABLE THEAD TBODY TR TH TD".split(" "),
);

export function fillSafely(target, html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  target.replaceChildren(...[...parsed.body.childNodes].map(copied).filter(Boolean));
}

function copied(node) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.nodeType !== Node.ELEMENT_NODE || !TAGS.has(node.tagName)) return null;
  const element = document.createElement(node.tagName);
  const start = Number(node.getAttribute("start"));
  if (node.tagName === "OL" && Number.isInteger(start) && start > 0) element.start = start;
  element.append(...[...node.childNodes].map(copied).filter(Boolean));
  return element;
}
