// The battle page: ask, watch both answers, vote, see the names.
import { eventsOf } from "./events.js";
import { fillSafely } from "./safe_html.js";

const get = (id) => document.getElementById(id);
const form = get("ask");
const words = JSON.parse(form.dataset.words);
const PRIVATE = /[\w.+-]+@[\w-]+\.\w{2,}|(?<!\d)(?:\+\d{1,3}[ -]?)?(?:\d[ -]?){10,14}(?!\d)|\b(?:sk|pk|ghp|xox[bp])[-_][\w-]{16,}/;
const KEYS = { 1: "model_a", 2: "model_b", 3: "tie", 4: "both_bad" }; // no arrows: people scroll with them
let battle = null;
let phase = "ask"; // then: answering, vote, voting, done
let warned = "";
let undoTimer = 0;

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
  const asking = phase === "ask";
  get("answers").hidden = asking;
  get("voting").hidden = phase !== "vote" && phase !== "voting";
  get("after").hidden = phase !== "done";
  for (const element of form.elements) element.disabled = !asking;
}

async function ask() {
  const prompt = get("prompt").value;
  if (!prompt.trim()) return;
  if (PRIVATE.test(prompt) && warned !== prompt) {
    warned = prompt;
    say(words.private);
    return;
  }
  const category = get("category")?.value ?? "";
  const texts = { a: "", b: "" };
  for (const side of ["a", "b"]) {
    get(`answer-${side}`).replaceChildren();
    get(`revealed-${side}`).replaceChildren();
    get(`head-${side}`).textContent = side === "a" ? words.left : words.right;
  }
  show("answering");
  say(words.asking);
  try {
    for await (const event of eventsOf(await post("api/battles", { prompt, category }))) {
      if (event.battle) battle = event.battle;
      if (event.error) throw new Error(event.error);
      if (event.end) return whole(event.end);
      for (const side of ["a", "b"]) {
        if (!event[side]) continue;
        texts[side] += event[side];
        get(`answer-${side}`).textContent = texts[side];
      }
    }
    throw new Error(words.failed);
  } catch (error) {
    show("ask");
    say(error.message);
  }
}

function whole(html) {
  fillSafely(get("answer-a"), html[0]);
  fillSafely(get("answer-b"), html[1]);
  get("reason").value = "";
  show("vote");
  say("");
}

async function vote(outcome) {
  if (phase !== "vote") return;
  show("voting");
  try {
    const found = await (await post(`api/battles/${battle}/vote`, { outcome, reason: get("reason").value })).json();
    found.reveal.forEach((one, place) => reveal("ab"[place], one));
    say(found.vote.set_apart ? words[`apart_${found.vote.set_apart}`] : words.counted);
    show("done");
    get("undo").hidden = false;
    clearTimeout(undoTimer);
    undoTimer = setTimeout(() => (get("undo").hidden = true), found.undo_s * 1000);
    get("next").focus();
  } catch (error) {
    show("vote");
    say(error.message);
  }
}

function reveal(side, one) {
  get(`head-${side}`).textContent = `${side === "a" ? words.left : words.right}: ${one.name}`;
  const facts = [words[one.class], one.family];
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

async function undo() {
  try {
    await post(`api/battles/${battle}/undo`, {});
    get("undo").hidden = true;
    say(words.undone);
  } catch (error) {
    say(error.message);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (phase === "ask") ask();
});
get("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
for (const button of document.querySelectorAll(".suggestion")) {
  button.addEventListener("click", () => {
    get("prompt").value = button.textContent;
    get("prompt").focus();
  });
}
for (const button of document.querySelectorAll(".vote")) {
  button.addEventListener("click", () => vote(button.dataset.outcome));
}
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (phase !== "vote" || typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  vote(KEYS[event.key]);
});
get("undo").addEventListener("click", undo);
get("next").addEventListener("click", () => {
  show("ask");
  say("");
  get("prompt").value = "";
  get("prompt").focus();
});
show("ask");
