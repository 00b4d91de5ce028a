// The conversation on the page: its messages in order, pairs side by side, scrolled along while somebody reads the end.
import { isRunning } from "./answering.js";
import { el, get } from "./dom.js";
import { AnswerView, QuestionView } from "./message.js";

const views = new Map(); // id of a message → its view
const waiting = new Set(); // ids of messages that grew since the last picture
const NEAR_END = 80; // pixels
const log = get("log");
let following = true;

// act: {show(message, focus), edit(message, text), again(message)}
export function draw(conversation, act) {
  views.clear();
  const turns = get("turns");
  turns.replaceChildren();
  const path = conversation.path();
  for (const message of path) {
    const pair = message.role === "assistant" ? conversation.pair(conversation.parent(message)) : null;
    if (pair) {
      const both = pair.map((one, side) => new AnswerView(conversation, one, act, side));
      both.forEach((view) => views.set(view.message.id, view));
      turns.append(el("div", { className: "pair" }, ...both.map((view) => view.element)));
    } else {
      const view = message.role === "user" ? new QuestionView(conversation, message, act) : new AnswerView(conversation, message, act);
      views.set(message.id, view);
      turns.append(view.element);
    }
  }
  get("welcome").hidden = path.length > 0;
  log.classList.toggle("empty", path.length === 0);
}

export const viewOf = (message) => views.get(message.id);

// At most one picture a frame, however fast tokens come; fewer where an answer is so long that one takes time.
let pauseMs = 30;

export function grow(message) {
  if (!waiting.size) setTimeout(() => requestAnimationFrame(paint), pauseMs);
  waiting.add(message.id);
}

function paint() {
  const began = performance.now();
  for (const id of waiting) views.get(id)?.update();
  waiting.clear();
  pauseMs = Math.max(30, 3 * (performance.now() - began));
}

new ResizeObserver(() => following && toEnd()).observe(get("turns")); // also when a formula is drawn later

// The clock of a model that thinks goes on between tokens.
setInterval(() => {
  for (const view of views.values()) if (isRunning(view.message)) view.update();
}, 1000);

export function toEnd() {
  log.scrollTop = log.scrollHeight;
  following = true;
  get("latest").hidden = true;
}

log.addEventListener("scroll", () => {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
  get("latest").hidden = following;
});
get("latest").addEventListener("click", () => {
  toEnd();
  log.focus();
});
