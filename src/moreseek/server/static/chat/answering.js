// One answer: asked for, received into its message, timed, kept. Several may run at once, also in conversations not on the page.
import { ApiError, chat } from "./api.js";
import { chosen, key } from "./preferences.js";
import { save } from "./store.js";
import { checkedSources } from "./tree.js";

const SAVE_EVERY_MS = 300;
const running = new Map(); // id of a message → its AbortController

export const isRunning = (message) => running.has(message.id);
export const stop = (message) => running.get(message.id)?.abort();

function request(conversation, message) {
  const system = chosen.system.trim() ? [{ role: "system", content: chosen.system }] : [];
  const body = { model: message.model, messages: [...system, ...conversation.before(message)] };
  if (chosen.temperature !== null) body.temperature = chosen.temperature;
  if (chosen.maxTokens !== null) body.max_tokens = chosen.maxTokens;
  if (chosen.thinking !== "model") {
    const on = chosen.thinking === "on";
    body.chat_template_kwargs = { thinking: on, enable_thinking: on }; // the names that templates use
  }
  if (chosen.documents === "off") body.retrieval = false;
  return body;
}

function take(message, chunk, began) {
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  message.ms = performance.now() - began;
  const thought = delta.reasoning_content ?? delta.reasoning;
  if (thought) message.thinking += thought;
  if (delta.content) {
    if (message.thinking) message.thinkingMs ??= message.ms;
    message.content += delta.content;
  }
  if (choice?.finish_reason) message.finish = choice.finish_reason;
  if (chunk.sources) message.sources = checkedSources(chunk.sources);
  if (chunk.usage) {
    message.tokens = chunk.usage.completion_tokens;
    message.thinkingTokens = chunk.usage.completion_tokens_details?.reasoning_tokens;
  }
  if (chunk.timings?.predicted_per_second) message.rate = chunk.timings.predicted_per_second;
}

// Fills `message`, calling changed() after every piece. `message.state` says how it ended: done, stopped, failed or lost.
export async function answer(conversation, message, changed) {
  const controller = new AbortController();
  running.set(message.id, controller);
  Object.assign(message, { content: "", thinking: "", state: "running", ms: 0 });
  const began = performance.now();
  let firstMs = null;
  let savedAt = began;
  const keep = () => save(conversation).catch(() => changed(true));
  keep();
  changed();
  try {
    for await (const chunk of chat(request(conversation, message), key(), controller.signal)) {
      take(message, chunk, began);
      if (message.content || message.thinking) firstMs ??= message.ms;
      changed();
      if (performance.now() - savedAt > SAVE_EVERY_MS) {
        savedAt = performance.now();
        keep();
      }
    }
    message.state = "done";
  } catch (error) {
    const ended = controller.signal.aborted ? "stopped" : error instanceof ApiError && error.status ? "failed" : "lost";
    // A page that is being left loses its connection first: what it kept shall then say "interrupted", not "lost".
    if (ended === "lost") await new Promise((resolve) => setTimeout(resolve, 300));
    message.state = ended;
    if (ended === "failed") message.error = error.message;
    if (error.status === 401) dispatchEvent(new Event("moreseek-key"));
  } finally {
    running.delete(message.id);
  }
  // From the first token on: waiting in a queue and reading the question are no writing.
  if (message.tokens > 1 && firstMs !== null) message.rate ??= ((message.tokens - 1) / (message.ms - firstMs)) * 1000;
  if (!Number.isFinite(message.rate)) delete message.rate;
  if (message.thinking) message.thinkingMs ??= message.ms;
  conversation.updated = Date.now();
  changed();
  await save(conversation).catch(() => changed(true));
}

// What stood as running when its page was closed will not go on.
export function interrupt(conversation) {
  for (const message of conversation.messages.values()) {
    if (message.state === "running" && !isRunning(message)) message.state = "interrupted";
  }
}
