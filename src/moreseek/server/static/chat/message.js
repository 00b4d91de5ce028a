// How one message looks: a question with its edit field, an answer with its thinking, and what can be done with them.
import { isRunning } from "./answering.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { LiveMarkdown } from "./markdown.js";
import { count, number, say, seconds } from "./words.js";

// Versions of a message: ‹ 2/3 ›
function versions(conversation, message, act) {
  const all = conversation.siblings(message);
  if (all.length < 2) return null;
  const at = all.indexOf(message);
  const turn = (name, word, to) => iconButton(name, say(word), () => act.show(all[to], word), { disabled: !all[to], className: `icon turn-${word}` });
  const count = el("span", {}, el("span", { "aria-hidden": "true" }, `${at + 1}/${all.length}`));
  count.append(el("span", { className: "hidden" }, say("version", { n: at + 1, m: all.length })));
  return el("span", { className: "versions" }, turn("before", "before", at - 1), count, turn("after", "after", at + 1));
}

export class QuestionView {
  constructor(conversation, message, act) {
    this.message = message;
    this.act = act;
    this.text = el("div", { className: "bubble", dir: "auto" }, message.content);
    const copy = copyButton(say("copy"), say("copied"), () => message.content);
    const edit = iconButton("edit", say("edit"), () => this.edit(), { className: "icon edit" });
    this.tools = el("div", { className: "tools" }, versions(conversation, message, act), copy, edit);
    this.element = el("article", { className: "turn question", "aria-label": say("you") }, this.text, this.tools);
  }

  edit() {
    const area = el("textarea", { value: this.message.content, "aria-label": say("editing"), maxLength: 1_000_000 });
    const send = () => area.value.trim() && this.act.edit(this.message, area.value);
    const cancel = () => {
      form.replaceWith(this.text);
      this.tools.hidden = false;
      this.tools.querySelector(".edit").focus();
    };
    const buttons = [el("button", { type: "button", onclick: cancel }, say("cancel")), el("button", { className: "main" }, say("send"))];
    const form = el("form", { className: "edit-form" }, area, el("div", { className: "row" }, ...buttons));
    form.addEventListener("submit", (event) => [event.preventDefault(), send()]);
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !composing(event)) [event.stopPropagation(), cancel()];
      if (event.target === area && sends(event)) [event.preventDefault(), send()];
    });
    this.text.replaceWith(form);
    this.tools.hidden = true;
    area.focus();
  }

  update() {}
}

// While an input method composes, Enter chooses a word; Safari says so only by the key code 229.
export const composing = (event) => event.isComposing || event.keyCode === 229;
export const sends = (event) => event.key === "Enter" && !event.shiftKey && !composing(event);

const unfolded = new Set(); // ids of messages whose thinking is open, also when the page is drawn anew

export class AnswerView {
  constructor(conversation, message, act, side = null) {
    Object.assign(this, { conversation, message, act, side, state: null });
    this.summary = el("span", {});
    this.thought = new LiveMarkdown(el("div", { className: "thought" }));
    this.fold = el("details", {}, el("summary", {}, icon("think"), this.summary, icon("after")), this.thought.target);
    this.fold.open = unfolded.has(message.id);
    this.fold.addEventListener("toggle", () => {
      unfolded[this.fold.open ? "add" : "delete"](message.id);
      this.update();
    });
    this.body = new LiveMarkdown(el("div", { className: "text" }));
    this.sources = el("details", { className: "sources", hidden: true });
    this.note = el("p", { className: "note" });
    this.facts = el("span", { className: "facts" });
    this.tools = el("div", { className: "tools" });
    const name = el("h2", { className: "model" }, message.model);
    this.element = el("article", { className: "turn answer", "aria-label": message.model }, name, this.fold, this.body.target, this.sources, this.note, this.tools);
    this.update();
  }

  update() {
    const { message } = this;
    this.fold.hidden = !message.thinking;
    this.summary.textContent = this.summaryText();
    this.fold.classList.toggle("live", isRunning(message) && !message.content);
    if (this.fold.open) this.thought.update(message.thinking);
    this.body.update(message.content);
    if (this.told !== message.sources) this.source();
    if (this.state !== message.state) this.end();
  }

  // What the model was given to read. Documents are foreign: all of it is text.
  source() {
    const { message } = this;
    this.told = message.sources;
    this.sources.hidden = !message.sources?.length;
    if (this.sources.hidden) return;
    const items = message.sources.map(({ index, title, file, line, text }) => {
      const name = el("span", { dir: "auto" }, `[${index}] ${title}`);
      const place = el("span", { className: "place" }, say("place", { file, line }));
      return el("li", {}, el("details", {}, el("summary", {}, name, place, icon("after")), el("p", { dir: "auto" }, text)));
    });
    const head = el("summary", {}, icon("sources"), el("span", {}, count("sources", items.length)), icon("after"));
    this.sources.replaceChildren(head, el("ol", {}, ...items));
  }

  // What a screen reader is told when it is there.
  spoken() {
    return [this.body.target.innerText, this.note.innerText].join(" ").trim();
  }

  summaryText() {
    const { message } = this;
    const thinking = isRunning(message) && !message.content;
    const length = message.thinkingTokens
      ? count("tokens", message.thinkingTokens)
      : count("characters", message.thinking?.length ?? 0);
    return [say(thinking ? "thinking" : "thought"), seconds(message.thinkingMs ?? message.ms ?? 0), length].join(" · ");
  }

  // What changes only with the state, so that what is focused or selected stays while the text grows.
  end() {
    const { message, act } = this;
    this.state = message.state;
    const live = isRunning(message);
    this.element.setAttribute("aria-busy", live);
    this.element.classList.toggle("running", live);
    const notes = { stopped: "stopped", interrupted: "interrupted", lost: message.content || message.thinking ? "lost" : "unreachable" };
    let note = notes[message.state] ? say(notes[message.state]) : "";
    if (message.state === "failed") note = say("failed", { why: message.error });
    if (message.finish === "length") note = say("cut");
    this.note.textContent = note;
    this.note.hidden = !note;
    this.note.classList.toggle("error", message.state === "failed" || message.state === "lost");
    this.tools.replaceChildren();
    if (live) return;
    const facts = [];
    if (message.tokens) facts.push(count("tokens", message.tokens));
    if (message.ms && message.state === "done") facts.push(seconds(message.ms));
    if (message.rate) facts.push(say("speed", { n: number(Math.round(message.rate * 10) / 10) }));
    this.facts.textContent = facts.join(" · ");
    if (this.side === null) this.tools.append(versions(this.conversation, message, act) ?? "");
    this.tools.append(
      copyButton(say("copy"), say("copied"), () => message.content),
      iconButton("again", say("again"), () => act.again(message), { className: "icon again" }),
    );
    if (this.side !== null) this.tools.append(this.choice());
    this.tools.append(this.facts);
  }

  choice() {
    const taken = this.conversation.parent(this.message).shown === this.message.id;
    const button = el("button", { type: "button", className: "choice", "aria-pressed": taken }, say(taken ? "goingOn" : "goOn"));
    button.addEventListener("click", () => this.act.show(this.message, "choice"));
    return button;
  }
}
