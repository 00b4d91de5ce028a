// The server's API, as far as the page needs it.
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function call(path, key, options = {}) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => null);
  throw new ApiError(found?.error?.message ?? `HTTP ${answer.status}`, answer.status);
}

// [{id, documents}]: what is served, and whether it may look into documents.
export async function models(key) {
  const { data } = await (await call("v1/models", key)).json();
  return data.map(({ id, documents }) => ({ id, documents: documents === true }));
}

// The chunks of a streamed answer. Throws ApiError, also for an error that comes in the middle.
export async function* chat(body, key, signal) {
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const answer = await call("v1/chat/completions", key, { method: "POST", body: JSON.stringify(whole), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError(null, 0); // without [DONE]: the connection broke
    const lines = (held + value).split(/\r?\n/);
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue; // an empty line, or a comment that keeps the connection open
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, 200);
      yield chunk;
    }
  }
}
