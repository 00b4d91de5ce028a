// The chat page: which conversation is on it, and what happens when somebody asks, stops, edits, compares.
import { answer, interrupt, isRunning, stop } from "./chat/answering.js";
import { models } from "./chat/api.js";
import { announce, el, get } from "./chat/dom.js";
import { draw, grow, toEnd, viewOf } from "./chat/log.js";
import { composing, sends } from "./chat/message.js";
import { choose, chosen, key, keepKey } from "./chat/preferences.js";
import * as settings from "./chat/settings.js";
import * as side from "./chat/side.js";
import * as store from "./chat/store.js";
import { Conversation } from "./chat/tree.js";
import { say, speak } from "./chat/words.js";

const opened = new Map(); // conversations with answers under way stay the same object when one comes back to them
let conversation = new Conversation();

const question = get("question");
const running = () => [...conversation.messages.values()].filter(isRunning);

function notify(text) {
  get("notice").textContent = text;
  get("notice").hidden = !text;
}

// --------------------------------------------------------------------------------------------------- conversations

const act = {
  show(message, focus) {
    conversation.show(message);
    redraw();
    keep();
    const again = viewOf(message)?.element;
    again?.querySelector(focus === "choice" ? ".choice" : `.turn-${focus}:enabled, .versions button:enabled`)?.focus();
  },
  edit(message, text) {
    const parent = conversation.parent(message);
    ask(text, parent, message.pair ? conversation.pair(message)?.map(({ model }) => model) : null);
  },
  again(message) {
    const asked = conversation.parent(message);
    const next = conversation.add(asked, { role: "assistant", model: message.model, content: "" });
    const place = asked.pair?.indexOf(message.id) ?? -1;
    if (place >= 0) asked.pair[place] = next.id;
    else next.model = get("model").value || message.model;
    start([next]);
  },
};

const listActs = {
  open: (id) => [openConversation(id), side.closeIfOver()],
  async removed(id) {
    const gone = id === conversation.id ? conversation : opened.get(id);
    if (gone) {
      gone.deleted = true;
      [...gone.messages.values()].forEach(stop);
    }
    await store.remove(id);
    store.tellOthers(id);
    if (id === conversation.id) begin();
    else refreshList();
  },
  imported: () => (running().length ? refreshList() : openConversation(conversation.id)),
};

const refreshList = () => side.drawList(conversation.id, listActs);

async function keep() {
  try {
    await store.save(conversation);
    refreshList();
  } catch {
    notify(say("notSaved"));
  }
}

// One button where the other was, with the focus if that had it.
function showBusy() {
  const [gone, there] = running().length ? [get("send"), get("stop")] : [get("stop"), get("send")];
  const focused = document.activeElement === gone;
  there.hidden = false;
  if (focused) there.focus();
  gone.hidden = true;
}

function redraw() {
  draw(conversation, act);
  showBusy();
  document.title = conversation.title ? `${conversation.title} · moreseek` : "moreseek";
}

function put(next) {
  conversation = next;
  interrupt(conversation);
  const address = conversation.messages.size ? `#${conversation.id}` : location.pathname;
  history.replaceState(null, "", address);
  redraw();
  toEnd();
  refreshList();
}

function begin() {
  put(new Conversation());
  question.focus();
}

async function openConversation(id) {
  const live = opened.get(id);
  const data = live ? null : await store.load(id);
  if (live) put(live);
  else put(data ? new Conversation(data) : new Conversation());
}

// ---------------------------------------------------------------------------------------------------------- answers

function ask(text, parent, both = null) {
  const first = get("model").value;
  if (!first) return notify(say("noModels"));
  const names = both ?? (chosen.compare ? [first, get("second").value || first] : [first]);
  const asked = conversation.add(parent, { role: "user", content: text });
  const answers = names.map((model) => conversation.add(asked, { role: "assistant", model, content: "" }));
  if (answers.length === 2) {
    asked.pair = answers.map(({ id }) => id);
    conversation.show(answers[0]);
  }
  start(answers);
}

async function start(answers) {
  const here = conversation;
  opened.set(here.id, here);
  history.replaceState(null, "", `#${here.id}`);
  notify("");
  const changed = (message) => (unkept) => {
    if (unkept === true) notify(say("notSaved"));
    if (here === conversation) grow(message);
  };
  const all = answers.map((message) => answer(here, message, changed(message)));
  redraw();
  toEnd();
  announce(say("answering"));
  refreshList();
  await Promise.all(all);
  if (![...here.messages.values()].some(isRunning)) opened.delete(here.id);
  store.tellOthers(here.id);
  refreshList();
  if (here !== conversation) return;
  showBusy();
  const spoken = answers.map((message) => {
    const view = viewOf(message);
    view?.update();
    return view?.spoken() ?? "";
  });
  announce([say("finished"), ...spoken].join(" ").slice(0, 2000));
}

function send() {
  const text = question.value.trim();
  if (!text || running().length) return;
  question.value = "";
  fit();
  ask(text, conversation.path().at(-1) ?? null);
}

const stopAll = () => running().forEach(stop);

// ------------------------------------------------------------------------------------------------------- the models

async function loadModels() {
  try {
    const served = await models(key());
    const names = served.map(({ id }) => id);
    const looking = served.some(({ documents }) => documents);
    for (const node of [get("documents"), get("documents").labels[0]]) node.hidden = !looking;
    get("key-form").hidden = true;
    for (const [id, wanted, fallback] of [["model", chosen.model, names[0]], ["second", chosen.second, names[1] ?? names[0]]]) {
      get(id).replaceChildren(...names.map((name) => el("option", { value: name }, name)));
      get(id).value = names.includes(wanted) ? wanted : (fallback ?? "");
    }
    notify(names.length ? "" : say("noModels"));
  } catch (error) {
    get("key-form").hidden = error.status !== 401;
    if (error.status === 401) get("key").focus();
    else notify(error.status ? error.message : say("unreachable"));
  }
}

function showCompare() {
  get("compare").setAttribute("aria-pressed", chosen.compare);
  get("second").hidden = !chosen.compare;
}

// ----------------------------------------------------------------------------------------------------- the controls

function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

function listen() {
  get("form").addEventListener("submit", (event) => [event.preventDefault(), send()]);
  question.addEventListener("input", fit);
  question.addEventListener("keydown", (event) => {
    if (sends(event)) [event.preventDefault(), send()];
    if (event.key !== "ArrowUp" || question.value || composing(event)) return;
    const last = conversation.path().findLast(({ role }) => role === "user");
    if (last) [event.preventDefault(), viewOf(last).edit()];
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !composing(event) && !document.querySelector("dialog[open]")) stopAll();
  });
  get("stop").addEventListener("click", () => [stopAll(), question.focus()]);
  get("new-chat").addEventListener("click", () => [side.closeIfOver(), begin()]);
  get("model").addEventListener("change", ({ target }) => choose({ model: target.value }));
  get("second").addEventListener("change", ({ target }) => choose({ second: target.value }));
  get("compare").addEventListener("click", () => [choose({ compare: !chosen.compare }), showCompare()]);
  get("key-form").addEventListener("submit", (event) => [event.preventDefault(), keepKey(get("key").value.trim()), loadModels()]);
  for (const example of document.querySelectorAll(".example")) {
    example.addEventListener("click", () => [(question.value = example.textContent), fit(), question.focus()]);
  }
  addEventListener("moreseek-key", loadModels);
  addEventListener("hashchange", () => openConversation(location.hash.slice(1)));
  addEventListener("pagehide", () => running().length && store.save(conversation).catch(() => {}));
  store.onOthers(async (id) => {
    if (id === conversation.id && !running().length) await openConversation(id);
    else refreshList();
  });
}

function spoken() {
  speak();
  redraw();
  refreshList();
}

settings.applyTheme();
speak();
side.listen(listActs, notify);
settings.listen(spoken);
listen();
showCompare();
const loading = loadModels();
const kept = await store.open();
await openConversation(location.hash.slice(1));
document.documentElement.dataset.ready = "";
await loading;
if (!kept) notify(say("notKept"));
