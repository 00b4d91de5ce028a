// The openai package of npm: openai_npm_client.cjs URL KEY
const assert = require("node:assert/strict");
const OpenAI = require("openai");
const { zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const asked = { model: "tiny", messages: [{ role: "user", content: "hello" }] };
const brief = { chat_template_kwargs: { enable_thinking: false } };
const Answer = z.object({ yes: z.boolean() });
const weather = { type: "function", function: { name: "weather", parameters: z.toJSONSchema(z.object({ sunny: z.boolean() })) } };

const checks = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["tiny"]);
  },
  async chat() {
    const answer = await client.chat.completions.create({ ...asked, max_tokens: 20, seed: 1 });
    assert.equal(answer.usage.completion_tokens, 20);
    assert.equal(answer.choices[0].finish_reason, "length");
    assert.ok(answer.choices[0].message.reasoning_content);
  },
  async stream() {
    const more = { ...asked, ...brief, max_tokens: 20, seed: 1 };
    const whole = await client.chat.completions.create(more);
    let text = "";
    let usage = null;
    for await (const chunk of await client.chat.completions.create({ ...more, stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(usage.completion_tokens, whole.usage.completion_tokens);
  },
  async helper_of_streams() {
    const runner = client.chat.completions.stream({ ...asked, ...brief, max_tokens: 20, seed: 1 });
    let text = "";
    runner.on("content", (delta) => (text += delta));
    assert.equal((await runner.finalChatCompletion()).choices[0].message.content, text);
    assert.ok(text);
  },
  async parse() {
    const answer = await client.chat.completions.parse({ ...asked, ...brief, response_format: zodResponseFormat(Answer, "answer") });
    assert.equal(typeof answer.choices[0].message.parsed.yes, "boolean");
    const format = zodTextFormat(Answer, "answer");
    const response = await client.responses.parse({ model: "tiny", input: "hello", text: { format }, reasoning: { effort: "none" } });
    assert.equal(typeof response.output_parsed.yes, "boolean");
  },
  async tools() {
    const offer = { ...asked, ...brief, tools: [weather], tool_choice: "required", parallel_tool_calls: false };
    const answer = await client.chat.completions.create(offer);
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(typeof JSON.parse(call.function.arguments).sunny, "boolean");
    const runner = client.chat.completions.stream(offer);
    const [streamed] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
    assert.equal(typeof JSON.parse(streamed.function.arguments).sunny, "boolean");
  },
  async responses() {
    const more = { model: "tiny", input: "hello", temperature: 0, max_output_tokens: 20, reasoning: { effort: "none" } };
    const whole = await client.responses.create(more);
    let text = "";
    for await (const event of await client.responses.create({ ...more, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    assert.equal(text, whole.output_text);
    assert.ok(text);
  },
  async sources() {
    const question = { ...asked, messages: [{ role: "user", content: "How is salt kept?" }], max_tokens: 3 };
    const answer = await client.chat.completions.create(question);
    assert.equal(answer.sources[0].file, "salt.md");
    for await (const chunk of await client.chat.completions.create({ ...question, stream: true })) {
      assert.equal(chunk.sources[0].file, "salt.md");
      break;
    }
  },
  async errors() {
    const refused = (kind, more) => assert.rejects(client.chat.completions.create({ ...asked, ...more }), (error) => error instanceof kind && error.error.message.length > 0);
    await refused(OpenAI.NotFoundError, { model: "other" });
    await refused(OpenAI.BadRequestError, { temperature: -1 });
    await refused(OpenAI.BadRequestError, { messages: [{ role: "user", content: "x".repeat(20_000) }] });
    const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
    await assert.rejects(stranger.models.list(), (error) => error.status === 401 && error.code === "invalid_api_key");
  },
  async cancel() {
    for (let round = 0; round < 5; round += 1) {
      const chunks = await client.chat.completions.create({ ...asked, stream: true });
      for await (const _ of chunks) break; // leaving the loop ends the request
      const abort = new AbortController();
      const waiting = client.chat.completions.create(asked, { signal: abort.signal });
      setTimeout(() => abort.abort(), 5);
      await assert.rejects(waiting, OpenAI.APIUserAbortError);
    }
    await checks.chat();
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`openai (npm): ${name}`);
  }
})();
