// The battle page: choose a mode, ask, watch the answers, ask on, vote, see the names.
import { eventsOf } from "./events.js";
import { fillSafely } from "./safe_html.js";
import { looksPrivate } from "./private.js";
import { offer } from "./suggestions.js";

const get = (id) => document.getElementById(id);
const form = get("ask");
const words = JSON.parse(form.dataset.words);
const KEYS = { 1: "model_a", 2: "model_b", 3: "tie", 4: "both_bad" }; // no arrows: people scroll with them
let mode = form.dataset.mode; // blind, named, direct
let phase = "ask"; // then: answering, vote, voting, done
let battle = null;
let turns = 0;
let said = { a: [], b: [] }; // of a chat by name: what the server does not keep
let warned = "";
let undoTimer = 0;

const sides = () => (mode === "direct" ? ["a"] : ["a", "b"]);

function say(text) {
  get("status").textContent = text;
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-arena-token": form.dataset.token },
    body: JSON.stringify(body),
  });
  if (!response.ok) {
    const found = await response.json().catch(() => null);
    throw new Error(found?.error?.message ?? words.failed);
  }
  return response;
}

function show(next) {
  phase = next;
  const blind = mode === "blind";
  get("ask").hidden = phase !== "ask";
  get("answers").hidden = phase === "ask" && turns === 0;
  get("voting").hidden = !blind || (phase !== "vote" && phase !== "voting");
  get("on").hidden = phase !== "vote" || turns >= Number(form.dataset.turns);
  get("after").hidden = !(phase === "done" || (phase === "vote" && !blind));
  get("undo").hidden = phase !== "done";
  for (const button of document.querySelectorAll(".vote")) button.disabled = phase === "voting";
  for (const button of document.querySelectorAll(".mode")) button.disabled = phase === "answering" || phase === "voting";
}

function choose(next) {
  mode = next;
  for (const button of document.querySelectorAll(".mode")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  get("lead").textContent = mode === "blind" ? words.lead : words[`lead_${mode}`];
  get("choice").hidden = mode === "blind";
  if (mode !== "blind") name();
  get("pick-b").hidden = mode !== "named";
  if (get("pick-category")) get("pick-category").hidden = mode !== "blind";
  get("side-b").hidden = mode === "direct";
  get("answers").classList.toggle("single", mode === "direct");
  get("send").textContent = mode === "direct" ? words.ask_one : words.ask;
  get("send-on").textContent = mode === "direct" ? words.ask_one : words.ask_on;
  get("further-label").textContent = mode === "blind" ? words.further : words.question;
  get("next").textContent = mode === "blind" ? words.next : words.new_chat;
  begin();
}

// Who can be chosen is asked only here, so that the page of a blind battle holds no name.
async function name() {
  const { names } = await (await fetch("api/contestants")).json();
  for (const [place, side] of ["a", "b"].entries()) {
    const select = get(`model-${side}`);
    const before = select.value;
    select.replaceChildren(...names.map((one) => new Option(one)));
    select.value = names.includes(before) ? before : (names[place] ?? names[0] ?? "");
  }
  if (!names.length) say(words.nobody_here);
}

function begin() {
  turns = 0;
  battle = null;
  said = { a: [], b: [] };
  for (const side of ["a", "b"]) {
    get(`turns-${side}`).replaceChildren();
    get(`revealed-${side}`).replaceChildren();
    get(`head-${side}`).textContent = side === "a" ? words.left : words.right;
  }
  show("ask");
  say("");
}

function box(side, className, text) {
  const element = document.createElement("div");
  element.className = className;
  element.textContent = text;
  get(`turns-${side}`).append(element);
  return element;
}

// One question, the first or a further one. Without an answer the page is as it was before.
async function ask(field) {
  const prompt = field.value;
  if (!prompt.trim()) return;
  if (looksPrivate(prompt) && warned !== prompt) {
    warned = prompt;
    say(words.private);
    return;
  }
  const before = phase;
  const texts = { a: "", b: "" };
  const boxes = {};
  const added = [];
  for (const side of sides()) {
    const asked = box(side, "asked", prompt);
    boxes[side] = box(side, "answer", "");
    added.push(asked, boxes[side]);
  }
  turns += 1;
  show("answering");
  say(mode === "direct" ? words.asking_one : words.asking);
  try {
    for await (const event of eventsOf(await request(prompt))) {
      if (event.battle) battle = event.battle;
      if (event.chat) event.chat.forEach((name, place) => (get(`head-${"ab"[place]}`).textContent = name));
      if (event.error) throw new Error(event.error);
      if (event.end) return whole(event, boxes, field, prompt);
      for (const side of sides()) {
        if (!event[side]) continue;
        texts[side] += event[side];
        boxes[side].textContent = texts[side];
      }
    }
    throw new Error(words.failed);
  } catch (error) {
    added.forEach((element) => element.remove());
    turns -= 1;
    // A turn that failed, once it was begun, makes a blind battle void: there is nothing more to vote on.
    const over = mode === "blind" && battle !== null;
    if (over && turns > 0) begin();
    show(over ? "ask" : before);
    if (over) battle = null;
    say(error.message);
  }
}

function request(prompt) {
  if (mode !== "blind") {
    const contestants = sides().map((side) => get(`model-${side}`).value);
    return post("api/chats", { contestants, said: sides().map((side) => said[side]), prompt });
  }
  if (battle) return post(`api/battles/${battle}/turns`, { prompt });
  return post("api/battles", { prompt, category: get("category")?.value ?? "" });
}

function whole(event, boxes, field, prompt) {
  sides().forEach((side, place) => {
    fillSafely(boxes[side], event.end[place]);
    if (!event.facts) return;
    said[side].push({ role: "user", content: prompt }, { role: "assistant", content: event.facts[place].text });
    reveal(side, event.facts[place], event.facts[place].name);
  });
  field.value = "";
  get("reason").value = "";
  show("vote");
  say("");
}

async function vote(outcome) {
  if (phase !== "vote" || mode !== "blind") return;
  show("voting");
  const tags = [...document.querySelectorAll("#marks input:checked")].map((one) => one.value);
  try {
    const body = { outcome, reason: get("reason").value, tags };
    const found = await (await post(`api/battles/${battle}/vote`, body)).json();
    found.reveal.forEach((one, place) => {
      reveal("ab"[place], one, `${place === 0 ? words.left : words.right}${words.colon}${one.name}`);
    });
    say(found.vote.set_apart ? words[`apart_${found.vote.set_apart}`] : words.counted);
    show("done");
    for (const one of document.querySelectorAll("#marks input")) one.checked = false;
    clearTimeout(undoTimer);
    undoTimer = setTimeout(hideUndo, found.undo_s * 1000);
    get("next").focus();
  } catch (error) {
    show("vote");
    say(error.message);
  }
}

function reveal(side, one, heading) {
  get(`head-${side}`).textContent = heading;
  const { stage, step } = one.settings; // of a run: the family is the run
  const facts = [words[one.class], [one.family, stage, step && `@${step}`].filter(Boolean).join(" › ")];
  if (one.model && one.model !== one.name) facts.push(one.model);
  if (one.tokens !== null) facts.push(`${one.tokens} ${words.tokens}`);
  facts.push(`${one.first_s.toFixed(1)} ${words.first}`, `${one.total_s.toFixed(1)} ${words.total}`);
  if (one.cost_usd !== null) facts.push(`$${one.cost_usd.toPrecision(2)}`);
  if (one.cut_short) facts.push(words.cut_short);
  const line = document.createElement("p");
  line.className = "small";
  line.textContent = facts.join(" · ");
  const parts = [line];
  if (one.thinking) {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = words.thinking;
    const inside = document.createElement("div");
    fillSafely(inside, one.thinking);
    details.append(summary, inside);
    parts.push(details);
  }
  get(`revealed-${side}`).replaceChildren(...parts);
}

// Who is on the button must not fall out of the page with it.
function hideUndo() {
  if (document.activeElement === get("undo")) get("next").focus();
  get("undo").hidden = true;
}

async function undo() {
  try {
    await post(`api/battles/${battle}/undo`, {});
    hideUndo();
    say(words.undone);
  } catch (error) {
    say(error.message);
  }
}

for (const [id, field] of [["ask", "prompt"], ["on", "further"]]) {
  get(id).addEventListener("submit", (event) => {
    event.preventDefault();
    if (phase === "ask" || phase === "vote") ask(get(field));
  });
  get(field).addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) get(id).requestSubmit();
  });
}
for (const button of document.querySelectorAll(".mode")) {
  button.addEventListener("click", () => choose(button.dataset.mode));
}
for (const button of document.querySelectorAll(".vote")) {
  button.addEventListener("click", () => vote(button.dataset.outcome));
}
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (phase !== "vote" || typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  if (mode !== "blind") return;
  event.preventDefault();
  vote(KEYS[event.key]);
});
get("undo").addEventListener("click", undo);
get("next").addEventListener("click", () => {
  begin();
  get("prompt").focus();
});
const questions = [...get("questions").children].map((one) => [one.dataset.category, one.textContent]);
offer(get("suggestions"), questions, get("category"), get("prompt"), words.random_prompt);
choose(mode);
