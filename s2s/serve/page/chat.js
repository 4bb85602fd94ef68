// A conversation whose replies are shown while they are written.
import { card, element } from "./cards.js";
import { generate, stream } from "./server.js";

const log = document.getElementById("log"), form = document.getElementById("say"), message = document.getElementById("message");
const send = document.getElementById("send"), stop = document.getElementById("stop"), again = document.getElementById("again");
let messages = [], running = null, model = null, search = null, fail = null;

// made: {search(): options of the search, fail(error)}.
export function start(made) {
  search = made.search;
  fail = made.fail;
}

// Talk to another model: a new conversation.
export function talkTo(chosen) {
  if (model === chosen) return;
  model = chosen;
  clear();
}

function clear() {
  running?.abort();
  messages = [];
  log.replaceChildren();
}

function turn(role, text) {
  const bubble = element("div", { class: "bubble", dir: "auto" }, text);
  const below = element("div", { class: "below" });
  const speaker = element("span", { class: "unseen" }, role === "user" ? "You:" : `${model.name}:`);
  const made = element("div", { class: `turn ${role}` }, speaker, bubble, role === "user" ? null : below);
  log.append(made);
  log.scrollTop = log.scrollHeight;
  return { made, bubble, below };
}

// The options of OpenAI's interface for the options of the page.
function chatOptions(options) {
  if (options.sample) return { temperature: options.temperature, top_p: options.top_p, seed: options.seed };
  return options.beam === 1 ? { temperature: 0 } : {};
}

async function reply() {
  const asked = [...messages], options = search(), shown = turn("assistant", "");
  const wanted = { ...options, ...(options.sample && options.seed === undefined ? { seed: Math.floor(Math.random() * 2 ** 31) } : {}) };
  running = new AbortController();
  const own = running;
  send.disabled = true;
  stop.hidden = false;
  shown.made.classList.add("writes");
  let text = "", flags = [], ended = false;
  try {
    if (wanted.beam > 1) { // a number that OpenAI's interface has no word for
      const [result] = await generate({ model: model.name, messages: asked, options: wanted }, own.signal);
      shown.bubble.textContent = text = result.output;
      flags = result.flags;
    } else {
      for await (const event of stream({ model: model.name, messages: asked, ...chatOptions(wanted) }, own.signal)) {
        const [choice] = event.choices;
        if (!choice) continue;
        text += choice.delta.content ?? "";
        flags = choice.flags ?? flags;
        shown.bubble.textContent = text;
        log.scrollTop = log.scrollHeight;
      }
    }
    ended = true;
  } catch (error) {
    if (own.signal.aborted) flags = ["stopped"]; // whatever error it came as
    else fail(error);
  }
  shown.made.classList.remove("writes");
  if (running === own) {
    running = null;
    send.disabled = false;
    stop.hidden = true;
  }
  if (messages.length !== asked.length || messages.at(-1) !== asked.at(-1)) return; // another conversation by now
  if (!text && !ended) {
    shown.made.remove();
    return;
  }
  messages = [...asked, { role: "assistant", content: text }];
  for (const flag of flags) shown.below.append(element("span", {}, flag.replaceAll("_", " ")));
  if (ended && text) shown.below.append(why(shown.made, model, asked, wanted));
}

// A button that shows what a reply looked at: the same search once more, with details.
function why(place, asking, asked, options) {
  const button = element("button", { type: "button", class: "plain" }, "What it looked at");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const [result] = await generate({ model: asking.name, messages: asked, options, details: true });
      const shown = card(asking, asked.at(-1).content, result, "attention");
      place.append(shown);
      button.remove();
      shown.scrollIntoView({ block: "nearest" });
    } catch (error) {
      button.disabled = false;
      fail(error);
    }
  });
  return button;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = message.value.trim();
  if (!text || running) return;
  fail(null);
  message.value = "";
  messages = [...messages, { role: "user", content: text }];
  turn("user", text);
  reply();
});
message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});
stop.addEventListener("click", () => running?.abort());
again.addEventListener("click", () => {
  clear();
  message.focus();
});
