// A page to talk to the served models. Everything that a model writes is put in as text, never as HTML.
const WORDS = {
  en: { model: "Model", temperature: "Temperature", key: "API key", clear: "New chat", question: "Your message", send: "Send", stop: "Stop", thinking: "Thinking", tokens: "tokens", speed: "tokens/s", other: "中文", failed: "No answer", long: "cut at the limit" },
  zh: { model: "模型", temperature: "温度", key: "API 密钥", clear: "新对话", question: "你的消息", send: "发送", stop: "停止", thinking: "思考过程", tokens: "个词元", speed: "词元/秒", other: "English", failed: "没有回答", long: "达到长度上限" },
};
const $ = (id) => document.getElementById(id);
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let messages = [];
let running = null;

function speak() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = WORDS[language][node.dataset.word];
  $("language").textContent = WORDS[language].other;
}

function headers() {
  const found = { "content-type": "application/json" };
  if ($("key").value) found.authorization = `Bearer ${$("key").value}`;
  return found;
}

async function loadModels() {
  const answer = await fetch("v1/models", { headers: headers() });
  $("key-row").hidden = answer.status !== 401 && !$("key").value;
  if (!answer.ok) return;
  const { data } = await answer.json();
  $("model").replaceChildren(...data.map(({ id }) => new Option(id)));
}

function turn(kind) {
  const node = document.createElement("div");
  node.className = `turn ${kind}`;
  $("log").append(node);
  return node;
}

function answerView() {
  const node = turn("assistant");
  const fold = document.createElement("details");
  const title = document.createElement("summary");
  const thought = document.createElement("div");
  const text = document.createElement("div");
  fold.append(title, thought);
  fold.hidden = true;
  node.append(fold, text);
  return {
    think(more) { fold.hidden = false; thought.textContent += more; title.textContent = `${WORDS[language].thinking} (${thought.textContent.length})`; },
    say(more) { text.textContent += more; },
    fail(why) { text.className = "error"; text.textContent += `\n${WORDS[language].failed}: ${why}`; },
    get thought() { return thought.textContent; },
    get text() { return text.textContent; },
  };
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

async function ask(question) {
  messages.push({ role: "user", content: question });
  turn("user").textContent = question;
  const view = answerView();
  running = new AbortController();
  $("send").hidden = true; $("stop").hidden = false;
  const started = performance.now();
  let note = "";
  try {
    const body = { model: $("model").value, messages, temperature: Number($("temperature").value), stream: true, stream_options: { include_usage: true } };
    const answer = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const chunk of events(answer)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices[0];
      if (choice?.delta.reasoning_content) view.think(choice.delta.reasoning_content);
      if (choice?.delta.content) view.say(choice.delta.content);
      if (choice?.finish_reason === "length") note = ` · ${WORDS[language].long}`;
      if (chunk.usage) {
        const rate = Math.round(chunk.usage.completion_tokens / ((performance.now() - started) / 1000));
        $("status").textContent = `${chunk.usage.completion_tokens} ${WORDS[language].tokens} · ${rate} ${WORDS[language].speed}${note}`;
      }
      $("log").scrollTop = $("log").scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") view.fail(error.message);
  } finally {
    if (view.text || view.thought) messages.push({ role: "assistant", content: view.text, reasoning_content: view.thought || null });
    else messages.pop();
    running = null;
    $("send").hidden = false; $("stop").hidden = true;
    $("question").focus();
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  ask(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("form").requestSubmit(); }
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => { running?.abort(); messages = []; $("log").replaceChildren(); $("status").textContent = ""; });
$("language").addEventListener("click", () => { language = language === "en" ? "zh" : "en"; speak(); });
$("key").addEventListener("change", loadModels);
speak();
loadModels();
