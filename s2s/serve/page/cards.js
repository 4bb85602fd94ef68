// Outputs with their attention. Text is only ever set as text, never as markup.
const SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"];
const WIDE = /^[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u3000-\u303f\uff00-\uffef]+$/;
const percent = (w) => (w >= 0.995 ? "100" : w >= 0.1 ? (100 * w).toFixed(0) : (100 * w).toFixed(1)) + " %";

export function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Pieces as a reader sees them: text, whether a space precedes it, whether it is a special piece.
export function words(pieces) {
  const marked = pieces.some((piece) => piece.includes("▁"));
  const characters = !marked && pieces.every((piece) => [...piece].length === 1 || SPECIALS.includes(piece));
  return pieces.map((piece) => {
    const text = marked ? piece.replace(/^▁/, "").replaceAll("▁", " ") : piece;
    const shows = text.trim() !== "";
    return { text: shows ? text : "␣", gap: marked ? piece.startsWith("▁") : !characters, special: SPECIALS.includes(piece) || !shows };
  });
}

function line(words, label, language) {
  const made = element("dd", { dir: "auto", lang: language, role: "listbox", "aria-orientation": "horizontal", "aria-label": label });
  made.words = words.map((word, index) => {
    const option = element("span", { role: "option", tabindex: index ? "-1" : "0", "aria-selected": "false", class: word.special ? "word special" : "word" }, word.text);
    if (index && word.gap && !word.special) made.append(" ");
    made.append(option);
    return option;
  });
  return made;
}

function matrix(source, output, rows, languages, choose) {
  const table = element("table", { class: source.length > 45 ? "matrix dense" : "matrix", dir: "ltr" });
  const columns = source.map((word) => element("th", { scope: "col", lang: languages[0], class: WIDE.test(word.text) ? "upright" : null, title: word.text }, element("span", { dir: "auto" }, word.text)));
  table.append(element("thead", {}, element("tr", {}, element("td"), ...columns)));
  const heads = [], cells = [], body = element("tbody");
  rows.forEach((row, t) => {
    heads.push(element("th", { scope: "row", dir: "auto", lang: languages[1], title: output[t].text }, output[t].text));
    cells.push(row.map((weight, s) => {
      const cell = element("td", {}, String(Math.round(100 * weight)));
      cell.style.setProperty("--w", weight);
      for (const happening of ["pointerenter", "click"]) cell.addEventListener(happening, () => choose(t, s));
      return cell;
    }));
    body.append(element("tr", {}, heads[t], ...cells[t]));
  });
  table.append(body);
  let marked = [];
  return { table, mark(t, s) {
    marked.forEach((m) => m.classList.remove("here"));
    marked = [heads[t], columns[s], t !== null && s !== null ? cells[t][s] : null].filter(Boolean);
    marked.forEach((m) => m.classList.add("here"));
  } };
}

// Source and output as lines of words that answer to pointer and keys, and the matrix of all weights.
function attention(result, languages) {
  const source = words(result.source_pieces), output = words(result.pieces), rows = result.alignment;
  const sourceLine = line(source, "Source words", languages[0]), outputLine = line(output, "Output words", languages[1]);
  const readout = element("p", { class: "readout", "aria-hidden": "true" });
  let drawn = null;
  const strongest = (pairs) => pairs.filter((pair) => pair[1] >= 0.005).sort((a, b) => b[1] - a[1]).slice(0, 5);
  const lookedAt = (t) => strongest(source.map((word, s) => [word.text, rows[t][s]]));
  const lookedFrom = (s) => strongest(output.map((word, t) => [word.text, rows[t][s]]));
  const spoken = (pairs) => (pairs.length ? pairs.map(([text, w]) => `${text} ${percent(w)}`).join(", ") : "nothing");
  output.forEach((word, t) => outputLine.words[t].setAttribute("aria-label", `${word.text}, looked at: ${spoken(lookedAt(t))}`));
  source.forEach((word, s) => sourceLine.words[s].setAttribute("aria-label", `${word.text}, looked at by: ${spoken(lookedFrom(s))}`));

  // Exactly one word is chosen: its weights colour the words of the other line.
  function choose(chosen, index, cell) {
    const isOutput = chosen === outputLine;
    for (const each of [sourceLine, outputLine]) {
      each.words.forEach((word, i) => {
        const active = each === chosen && i === index;
        word.classList.toggle("active", active);
        word.setAttribute("aria-selected", String(active));
        word.style.setProperty("--w", each === chosen ? 0 : isOutput ? rows[index][i] : rows[i][index]);
      });
    }
    chosen.words.forEach((word, i) => word.setAttribute("tabindex", i === index ? "0" : "-1"));
    const pairs = cell !== undefined ? [[source[cell].text, rows[index][cell]]] : isOutput ? lookedAt(index) : lookedFrom(index);
    readout.replaceChildren(element("b", { dir: "auto" }, element("bdi", {}, chosen.words[index].textContent)), isOutput ? " looked at " : " was looked at by ");
    pairs.forEach(([text, w], i) => readout.append(i ? ", " : "", element("bdi", {}, text), ` ${percent(w)}`));
    if (!pairs.length) readout.append("nothing");
    drawn?.mark(isOutput ? index : null, isOutput ? cell ?? null : index);
  }
  for (const each of [sourceLine, outputLine]) {
    each.words.forEach((word, index) => {
      for (const happening of ["pointerenter", "focus", "click"]) word.addEventListener(happening, () => choose(each, index));
    });
    each.addEventListener("keydown", (event) => {
      const back = getComputedStyle(each).direction === "rtl" ? 1 : -1, at = each.words.indexOf(document.activeElement);
      const to = { ArrowRight: at - back, ArrowLeft: at + back, Home: 0, End: each.words.length - 1 }[event.key];
      if (at < 0 || to === undefined || !each.words[to]) return;
      event.preventDefault();
      each.words[to].focus();
    });
  }
  const details = element("details", {}, element("summary", {}, "Matrix of all weights"));
  details.addEventListener("toggle", () => {
    if (!details.open || drawn) return;
    drawn = matrix(source, output, rows, languages, (t, s) => choose(outputLine, t, s));
    details.append(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attention matrix" }, drawn.table),
      element("div", { class: "scale", "aria-hidden": "true" }, "0", element("i"), "1"));
  });
  choose(outputLine, 0);
  return { sourceLine, outputLine, rest: [readout, details] };
}

const plain = (text, language) => (text.trim() ? element("dd", { dir: "auto", lang: language }, text) : element("dd", { class: "empty" }, "empty"));

function others(result) {
  if (result.nbest.length < 2) return [];
  const list = element("ol", { class: "nbest" });
  for (const one of result.nbest) {
    list.append(element("li", {}, element("span", { class: "output", dir: "auto" }, one.output || "empty"), element("span", { class: "score", title: "what the search ranks by" }, one.score === null ? "–" : one.score.toFixed(2))));
  }
  return [element("h4", {}, "Best outputs and their scores"), list];
}

// One output of a model. result: as /api/generate gives it with details.
export function card(model, text, result, note) {
  const top = element("div", { class: "top" }, element("h3", {}, model.name), element("span", {}, note));
  for (const flag of result.flags) top.append(element("span", { class: "flag" }, flag.replaceAll("_", " ")));
  const made = element("article", { class: "sample", "aria-label": `Output of ${model.name}` }, top);
  const shown = result.alignment?.length && result.source_pieces.length ? attention(result, model.languages) : null;
  made.append(element("dl", {}, element("dt", {}, "Source"), shown ? shown.sourceLine : plain(text, model.languages[0]), element("dt", {}, "Output"), shown ? shown.outputLine : plain(result.output, model.languages[1])));
  if (shown) made.append(...shown.rest);
  else if (result.output) made.append(element("p", { class: "readout" }, "There are no attention weights for this output: the text was decoded in parts, or the model has none."));
  if (result.error) made.append(element("p", { class: "readout" }, result.error));
  made.append(...others(result));
  return made;
}
