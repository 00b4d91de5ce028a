// Making elements. Text goes in as text; nothing here reads HTML.
export const get = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const SHAPES = {
  seek: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 1 0 0-13M15.5 15.5l5 5M10.5 7.5v6M7.5 10.5h6",
  menu: "M4 7h16M4 12h16M4 17h10",
  add: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  copy: "M9 9h10v10H9zM15 9V5H5v10h4",
  done: "M5 13l4 4L19 7",
  edit: "M5 19h3L19 8l-3-3L5 16zM14 7l3 3",
  again: "M19 12a7 7 0 1 1-2-5M19 4v4h-4",
  before: "M14 6l-6 6 6 6",
  after: "M10 6l6 6-6 6",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  settings: "M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4",
  remove: "M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12M10 11v5M14 11v5",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v14M6 13l6 6 6-6",
  sources: "M6 4h9l3 3v13H6zM9 10h6M9 13h6M9 16h4",
  think: "M12 4a6 6 0 0 0-3 11v2h6v-2a6 6 0 0 0-3-11zM10 20h4",
};

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

export function iconButton(name, label, onclick, properties = {}) {
  return el("button", { type: "button", className: "icon", title: label, "aria-label": label, onclick, ...properties }, icon(name));
}

// The clipboard's own interface needs HTTPS or localhost; pages on a team's network often have neither.
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { value: text, className: "hidden" });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused?.focus();
  }
}

export function copyButton(label, done, text) {
  const button = iconButton("copy", label, async () => {
    await copyText(text());
    button.replaceChildren(icon("done"));
    announce(done);
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

// Said to screen readers when they have finished what they are saying. Never called once a token.
export function announce(text) {
  get("announcer").textContent = text;
}
