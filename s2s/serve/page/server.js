// What the page asks of its server.
let key = "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function unlock(given) {
  key = given;
}

async function ask(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let answer;
  try {
    answer = await fetch(path, body === undefined ? { headers, signal } : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "The server doesn't answer. Does it still run?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().then((value) => value.error.message, () => answer.statusText);
  throw new Refused(answer.status, answer.status === 429 ? "Too many requests wait at the server. Try again in a moment." : told);
}

export const models = async () => (await (await ask("/api/models")).json()).models;

export const generate = async (body, signal) => (await (await ask("/api/generate", body, signal)).json()).outputs;

// The events of a streamed chat completion, as objects.
export async function* stream(body, signal) {
  const reader = (await ask("/v1/chat/completions", { ...body, stream: true }, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(500, event.error.message);
      yield event;
    }
  }
}
