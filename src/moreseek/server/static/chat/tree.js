// A conversation is a tree of messages: an edited question or a second answer is a new branch beside the old one.
// A message: {id, parent, role, content, shown} and, for answers, {model, thinking, sources, state, …}. `shown` is the child to follow.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Conversation {
  constructor(data = {}) {
    const now = Date.now();
    this.id = data.id ?? newId();
    this.title = data.title ?? "";
    this.created = data.created ?? now;
    this.updated = data.updated ?? now;
    this.shown = data.shown ?? null; // the first message to follow
    this.messages = new Map((data.messages ?? []).map((message) => [message.id, message]));
    this.deleted = false;
  }

  toData() {
    const { id, title, created, updated, shown } = this;
    return { id, title, created, updated, shown, messages: [...this.messages.values()] };
  }

  add(parent, fields) {
    const message = { id: newId(), parent: parent?.id ?? null, shown: null, ...fields };
    this.messages.set(message.id, message);
    this.show(message);
    if (!this.title && message.role === "user") this.title = message.content.replace(/\s+/g, " ").slice(0, 80);
    this.updated = Date.now();
    return message;
  }

  parent(message) {
    return this.messages.get(message.parent) ?? null;
  }

  children(parent) {
    const id = parent?.id ?? null;
    return [...this.messages.values()].filter((message) => message.parent === id);
  }

  siblings(message) {
    return this.children(this.parent(message));
  }

  show(message) {
    (this.parent(message) ?? this).shown = message.id;
  }

  // The messages on the page, first to last.
  path() {
    const found = [];
    let at = this.messages.get(this.shown);
    while (at) {
      found.push(at);
      at = this.messages.get(at.shown);
    }
    return found;
  }

  // What a model is told before it writes `message`.
  before(message) {
    const found = [];
    for (let at = this.parent(message); at; at = this.parent(at)) found.unshift({ role: at.role, content: at.content });
    return found;
  }

  // The two answers that stand side by side under a question, or null.
  pair(question) {
    const both = (question.pair ?? []).map((id) => this.messages.get(id));
    return both.length === 2 && both.every(Boolean) ? both : null;
  }
}

const FIELDS = {
  id: "string", parent: "string", shown: "string", role: "string", content: "string", thinking: "string", model: "string",
  state: "string", error: "string", finish: "string", ms: "number", thinkingMs: "number", tokens: "number",
  thinkingTokens: "number", rate: "number",
}; // prettier-ignore

const SOURCE = { index: "number", title: "string", file: "string", line: "number", text: "string" };
const MOST_SOURCES = 50;

// What an answer was given to read, from a server or a file: only what is whole.
export function checkedSources(found) {
  if (!Array.isArray(found)) return [];
  const whole = found.filter((source) => Object.entries(SOURCE).every(([name, type]) => typeof source?.[name] === type));
  return whole.slice(0, MOST_SOURCES).map(({ index, title, file, line, text }) => ({ index, title, file, line, text }));
}

// A conversation from a file that anybody may have written. Throws where it is none.
export function checked(data) {
  const text = (value, most) => (typeof value === "string" && value.length <= most ? value : null);
  if (!text(data?.id, 100) || !Array.isArray(data.messages)) throw new Error("not a conversation");
  const seen = new Set();
  const messages = data.messages.map((message) => {
    const kept = { parent: null, shown: null, content: "" };
    for (const [name, type] of Object.entries(FIELDS)) if (typeof message?.[name] === type) kept[name] = message[name];
    // A parent stands before its children, so there are no circles to walk in for ever.
    const rooted = kept.parent === null || seen.has(kept.parent);
    if (!kept.id || seen.has(kept.id) || !rooted || !["user", "assistant"].includes(kept.role)) throw new Error("not a message");
    if (Array.isArray(message.sources)) kept.sources = checkedSources(message.sources);
    if (Array.isArray(message.pair) && message.pair.length === 2) kept.pair = message.pair.map(String);
    seen.add(kept.id);
    return kept;
  });
  const parents = new Map(messages.map((message) => [message.id, message.parent]));
  for (const message of messages) if (parents.get(message.shown) !== message.id) message.shown = null;
  for (const message of messages) if (message.pair?.some((id) => parents.get(id) !== message.id)) delete message.pair;
  const first = parents.get(data.shown) === null ? data.shown : (messages.find((message) => message.parent === null)?.id ?? null);
  const time = (value) => (Number.isFinite(value) ? value : Date.now());
  const title = (text(data.title, 1e6) ?? "").slice(0, 80);
  return { id: data.id, title, created: time(data.created), updated: time(data.updated), shown: first, messages };
}
