// The form: which models, which text, which search.
import { card, element } from "./cards.js";
import { start, talkTo } from "./chat.js";
import { generate, models as fetchModels, unlock } from "./server.js";

const at = (id) => document.getElementById(id);
const VERBS = { translation: "Translate", summarisation: "Summarise", dialogue: "Send" };
let models = [], running = null;

function fail(error) {
  at("failure").hidden = error === null;
  at("failure").textContent = error === null ? "" : error.message;
  if (error?.status === 401) at("unlock").hidden = false;
}

const chosen = () => models.find((one) => one.name === at("model").value);
const number = (id) => (at(id).value === "" ? undefined : Number(at(id).value));

// The search as options of /api/generate; outputs: how many are asked for.
function search(outputs) {
  const how = at("how").value, nbest = outputs > 1 ? { nbest: outputs } : {};
  if (how === "greedy") return { beam: 1 };
  if (how === "sample") return { ...nbest, sample: true, temperature: number("temperature"), top_p: number("top-p"), seed: number("seed") };
  return how === "beam" ? { ...nbest, beam: Math.max(number("beam") ?? 5, outputs) } : nbest;
}

function facts(model) {
  const [source, target] = model.languages, size = model.parameters;
  const told = size < 1e6 ? `${Math.round(size / 1000)} thousand` : `${+(size / 1e6).toPrecision(2)} million`;
  return [model.task, source === target ? source : `${source} → ${target}`, `attention ${model.attention}`, `${told} parameters`].join("  ·  ");
}

function showModel() {
  const model = chosen(), talks = model.task === "dialogue";
  const fitting = models.filter((one) => one !== model && one.task === model.task);
  const before = at("other").value;
  at("other").replaceChildren(element("option", { value: "" }, "no other model"), ...fitting.map((one) => element("option", { value: one.name }, one.name)));
  if (fitting.some((one) => one.name === before)) at("other").value = before;
  at("facts").textContent = facts(model);
  at("go").textContent = VERBS[model.task] ?? "Go";
  at("beside").hidden = talks || !fitting.length;
  for (const id of ["one-text", "text-buttons"]) at(id).hidden = talks;
  at("results").hidden = talks || !at("results").childElementCount;
  at("chat").hidden = !talks;
  showSearch();
  if (talks) talkTo(model);
}

function showSearch() {
  const how = at("how").value, talks = chosen().task === "dialogue";
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = field.dataset.for !== how;
  for (const field of document.querySelectorAll("[data-task]")) field.hidden = talks || how === "greedy";
}

// One card for each model, each as soon as it is there.
async function answer() {
  const text = at("text").value, outputs = at("how").value === "greedy" ? 1 : number("nbest") ?? 1;
  const asked = [chosen(), models.find((one) => one.name === at("other").value)].filter(Boolean);
  running?.abort();
  running = new AbortController();
  const own = running, cards = asked.map((model) => element("article", { class: "sample waits" }, `${model.name} …`));
  fail(null);
  at("results").replaceChildren(...cards);
  at("results").hidden = false;
  at("results").setAttribute("aria-busy", "true");
  await Promise.all(asked.map(async (model, index) => {
    const begun = performance.now();
    try {
      const [result] = await generate({ model: model.name, text, options: search(outputs), details: true }, own.signal);
      cards[index].replaceWith(card(model, text, result, `${((performance.now() - begun) / 1000).toFixed(2)} s`));
    } catch (error) {
      cards[index].remove();
      if (!own.signal.aborted) fail(error);
    }
  }));
  if (running === own) at("results").setAttribute("aria-busy", "false");
}

async function open() {
  try {
    models = await fetchModels();
  } catch (error) {
    fail(error);
    return;
  }
  fail(null);
  at("unlock").hidden = true;
  at("ask").hidden = false;
  at("model").replaceChildren(...models.map((one) => element("option", { value: one.name }, one.name)));
  showModel();
}

start({ search: () => search(1), fail });
at("model").addEventListener("change", showModel);
at("how").addEventListener("change", showSearch);
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (chosen().task !== "dialogue") answer();
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  unlock(at("key").value);
  open();
});
open();
