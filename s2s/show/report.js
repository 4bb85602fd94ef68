"use strict";
// Draws the report from the JSON of this page. Text is only ever set as text, never as markup.
const report = JSON.parse(document.getElementById("report").textContent);
const percent = (w) => (w >= 0.995 ? "100" : w >= 0.1 ? (100 * w).toFixed(0) : (100 * w).toFixed(1)) + " %";

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function section(id, ...children) {
  document.getElementById(id).append(...children.filter((child) => child !== null));
}

const missing = (text) => element("p", { class: "missing" }, text);

function plainTable(caption, head, rows, wide) {
  const table = element("table", { class: wide ? "plain wide" : "plain" });
  if (caption) table.append(element("caption", {}, caption));
  if (head) table.append(element("thead", {}, element("tr", {}, ...head.map((h) => element("th", { scope: "col", dir: "auto" }, h)))));
  const body = element("tbody");
  for (const [first, ...rest] of rows) {
    const cells = rest.map((c) => (c instanceof Node ? c : element("td", { class: typeof c === "number" ? "number" : null, dir: "auto" },
      typeof c === "number" ? c.toLocaleString("en") : c)));
    body.append(element("tr", {}, element("th", { scope: "row", dir: "auto" }, first), ...cells));
  }
  table.append(body);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption || "table" }, table);
}

// ---- header, scores

function interval(score) {
  return score.low === null || score.high === null ? null : `95 % CI ${score.low.toFixed(2)}–${score.high.toFixed(2)}`;
}

function drawHeader() {
  document.getElementById("name").textContent = report.name;
  document.getElementById("eyebrow").textContent = [report.task, report.languages.filter(Boolean).join(" → "), report.created].filter(Boolean).join("  ·  ");
  const place = document.getElementById("headline");
  report.scores.rows.slice(0, 3).forEach((row, index) => {
    const score = row.cells[0];
    if (!score || score.value === null) return;
    place.append(element("div", { class: index ? "figure-of lesser" : "figure-of" }, element("div", { class: "value" }, score.value.toFixed(2)),
      element("div", { class: "of" }, `${row.name} on ${report.scores.splits[0]}`),
      interval(score) && element("div", { class: "of" }, interval(score))));
  });
}

function drawScores() {
  const { splits, rows } = report.scores;
  if (!rows.length) return section("scores", missing("This run has no scores."));
  const body = rows.map((row) => {
    const name = element("span", {}, row.name, row.higher_is_better ? null : element("span", { class: "small" }, "lower is better"));
    const cells = row.cells.map((score) => {
      if (!score || score.value === null) return element("td", {}, "not available");
      const between = interval(score);
      const details = Object.entries(score.details).map(([key, value]) => `${key} ${value === null ? "?" : +value.toFixed(3)}`).join(", ");
      return element("td", {}, element("span", { class: "big" }, score.value.toFixed(2)),
        between && element("span", { class: "small" }, between), details ? element("span", { class: "small" }, details) : null);
    });
    return [name, ...cells, element("td", { class: "signature" }, row.signatures.join("\n"))];
  });
  section("scores", plainTable(null, ["metric", ...splits, "signature"], body, true));
}

// ---- samples and attention

function alignedLine(words, label, language) {
  const line = element("dd", { dir: "auto", lang: language, role: "listbox", "aria-orientation": "horizontal", "aria-label": label });
  line.words = words.map((word, index) => {
    const option = element("span", { role: "option", tabindex: index ? "-1" : "0", "aria-selected": "false", class: word.special ? "word special" : "word" }, word.text);
    if (index && word.gap && !word.special) line.append(" ");
    line.append(option);
    return option;
  });
  return line;
}

function addAttention(card, sample, plainSource, plainOutput) {
  const { rows, output, source, copied } = sample.attention;
  const weight = (t, s) => rows[t][s] / 1000;
  const sourceLine = alignedLine(source, "Source words", report.languages[0]);
  const outputLine = alignedLine(output, "Output words", report.languages[1]);
  const readout = element("p", { class: "readout", "aria-hidden": "true" });
  let matrix = null;
  const strongest = (pairs) => pairs.filter((p) => p[1] >= 0.005).sort((a, b) => b[1] - a[1]).slice(0, 5);
  const lookedAt = (t) => strongest(source.map((word, s) => [word.text, weight(t, s)]));
  const lookedFrom = (s) => strongest(output.map((word, t) => [word.text, weight(t, s)]));
  const spoken = (pairs) => (pairs.length ? pairs.map(([text, w]) => `${text} ${percent(w)}`).join(", ") : "nothing");
  const copying = (t) => (copied ? `; copied rather than generated: ${percent(copied[t] / 1000)}` : "");
  output.forEach((word, t) => {
    outputLine.words[t].setAttribute("aria-label", `${word.text}, looked at: ${spoken(lookedAt(t))}${copying(t)}`);
    if (!copied) return;
    outputLine.words[t].classList.add("gated");
    outputLine.words[t].style.setProperty("--c", copied[t] / 1000);
  });
  source.forEach((word, s) => sourceLine.words[s].setAttribute("aria-label", `${word.text}, looked at by: ${spoken(lookedFrom(s))}`));

  // Exactly one word of the card is chosen: its weights colour the words of the other line.
  function choose(line, index, cell) {
    const other = line === outputLine ? sourceLine : outputLine;
    for (const each of [sourceLine, outputLine]) {
      each.words.forEach((word, i) => {
        const chosen = each === line && i === index;
        word.classList.toggle("active", chosen);
        word.setAttribute("aria-selected", String(chosen));
        const w = each === line ? 0 : line === outputLine ? weight(index, i) : weight(i, index);
        word.style.setProperty("--w", w);
      });
    }
    line.words.forEach((word, i) => word.setAttribute("tabindex", i === index ? "0" : "-1"));
    const pairs = cell !== undefined ? [[source[cell].text, weight(index, cell)]] : line === outputLine ? lookedAt(index) : lookedFrom(index);
    readout.replaceChildren(element("b", { dir: "auto" }, element("bdi", {}, line.words[index].textContent)), line === outputLine ? " looked at " : " was looked at by ");
    pairs.forEach(([text, w], i) => readout.append(i ? ", " : "", element("bdi", {}, text), ` ${percent(w)}`));
    if (!pairs.length) readout.append("nothing");
    if (line === outputLine) readout.append(copying(index));
    if (matrix) matrix.mark(line === outputLine ? index : null, line === outputLine ? cell ?? null : index);
  }
  for (const line of [sourceLine, outputLine]) {
    line.words.forEach((word, index) => {
      for (const happening of ["pointerenter", "focus", "click"]) word.addEventListener(happening, () => choose(line, index));
    });
    line.addEventListener("keydown", (event) => {
      const rtl = getComputedStyle(line).direction === "rtl";
      const at = line.words.indexOf(document.activeElement);
      const to = { ArrowRight: at + (rtl ? -1 : 1), ArrowLeft: at + (rtl ? 1 : -1), Home: 0, End: line.words.length - 1 }[event.key];
      if (at < 0 || to === undefined || !line.words[to]) return;
      event.preventDefault();
      line.words[to].focus();
    });
  }
  const details = element("details", {}, element("summary", {}, "Matrix of all weights"));
  details.addEventListener("toggle", () => {
    if (!details.open || matrix) return;
    matrix = drawMatrix(sample.attention, weight, (t, s) => choose(outputLine, t, s));
    details.append(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attention matrix" }, matrix.table),
      element("div", { class: "scale", "aria-hidden": "true" }, "0", element("i"), "1"));
  });
  plainSource.replaceWith(sourceLine);
  plainOutput.replaceWith(outputLine);
  card.append(readout, details);
  if (copied || source.length > 45) card.append(element("details", {}, element("summary", {}, "What was read in all"), mass(rows, source)));
  choose(outputLine, 0);
}

// The source with the attention that each word got from all of the output: at full colour, that of one word or more.
function mass(rows, source) {
  const line = element("p", { class: "mass", dir: "auto", lang: report.languages[0] });
  source.forEach((word, s) => {
    const total = rows.reduce((sum, row) => sum + row[s], 0) / 1000;
    const shown = element("span", { class: word.special ? "word special" : "word", title: total.toFixed(2) }, word.text);
    shown.style.setProperty("--w", Math.min(1, total));
    if (s && word.gap && !word.special) line.append(" ");
    line.append(shown);
  });
  return line;
}

function drawMatrix({ rows, output, source }, weight, choose) {
  const wide = /^[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u3000-\u303f\uff00-\uffef]+$/;
  const table = element("table", { class: source.length > 45 ? "matrix dense" : "matrix", dir: "ltr" });
  const columns = source.map((word) => element("th", { scope: "col", lang: report.languages[0], class: wide.test(word.text) ? "upright" : null, title: word.text }, element("span", { dir: "auto" }, word.text)));
  table.append(element("thead", {}, element("tr", {}, element("td"), ...columns)));
  const heads = [], cells = [], body = element("tbody");
  rows.forEach((row, t) => {
    heads.push(element("th", { scope: "row", dir: "auto", lang: report.languages[1], title: output[t].text }, output[t].text));
    cells.push(row.map((value, s) => {
      const cell = element("td", {}, String(Math.round(value / 10)));
      cell.style.setProperty("--w", value / 1000);
      cell.addEventListener("pointerenter", () => choose(t, s));
      cell.addEventListener("click", () => choose(t, s));
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

function drawSamples() {
  document.getElementById("h-samples").textContent = report.samples_title;
  if (!report.samples.length) return section("samples", missing("This run has no samples."));
  const any = report.samples.some((sample) => sample.attention);
  section("samples", element("p", { class: "lead" }, any
    ? "Point at a word of the output, or tab to it and use the arrow keys, to see which source words the model looked at: the stronger the colour, the larger the weight. Source words answer too."
      + (report.samples.some((sample) => sample.attention?.copied) ? " The stronger the line below a word of the output, the more of it was copied rather than generated." : "")
    : "No attention was recorded for these samples (a model with attention none has none), so there is no heatmap."));
  report.samples.forEach((sample, index) => {
    const top = element("div", { class: "top" }, element("h3", {}, `${index + 1}`));
    if (sample.score !== null) top.append(element("span", {}, `${report.sample_score} ${sample.score.toFixed(2)}`));
    for (const flag of sample.flags) top.append(element("span", { class: "flag" }, flag));
    const card = element("article", { class: "sample", "aria-label": `Sample ${index + 1}` }, top);
    const list = [["Source", sample.source, 0], ["Output", sample.output, 1], ["Reference", sample.reference, 1]].map(([label, text, side]) => {
      if (text === null) return null;
      return [element("dt", {}, label), text.trim() ? element("dd", { dir: "auto", lang: report.languages[side] }, text) : element("dd", { class: "empty" }, "empty")];
    });
    card.append(element("dl", {}, ...list.filter(Boolean).flat()));
    if (sample.attention) addAttention(card, sample, list[0][1], list[1][1]);
    else if (any && !sample.remark) card.append(element("p", { class: "readout" }, "No attention was recorded for this sample."));
    if (sample.remark) card.append(element("p", { class: "readout" }, sample.remark));
    section("samples", card);
  });
  if (report.samples_left_out) section("samples", missing(`${report.samples_left_out} more samples were left out to keep the page small.`));
}

// ---- learning curves

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 10000) return +(value / 1000).toPrecision(4) + "k";
  return size && size < 0.001 ? value.toExponential(1).replace(".0e", "e") : String(+value.toPrecision(4));
}

function drawChart(chart, axis, end) {
  const W = 340, H = 190, left = 42, right = 10, top = 8, bottom = 30;
  const lines = chart.series.map((s) => ({ label: s.label, points: s.points.filter((p) => p[axis] !== null).map((p) => [p[axis], p[2]]) }));
  const points = lines.flatMap((l) => l.points).filter((p) => p[1] !== null);
  if (!points.length) return element("figure", {}, element("h3", {}, chart.name), missing("Nothing was logged."));
  const values = points.map((p) => p[1]);
  const [x0, x1] = [0, end || 1];
  let [y0, y1] = [Math.min(...values), Math.max(...values)];
  if (chart.from_zero) y0 = Math.min(0, y0);
  if (y1 === y0) { y1 += Math.abs(y1) * 0.1 || 1; y0 -= Math.abs(y0) * 0.1; }
  const margin = (y1 - y0) * 0.05;
  y1 += margin;
  if (!(chart.from_zero && y0 === 0)) y0 -= margin;
  const x = (v) => left + ((v - x0) / (x1 - x0)) * (W - left - right), y = (v) => H - bottom - ((v - y0) / (y1 - y0)) * (H - top - bottom);
  const finite = lines.map((l) => l.points.filter((p) => p[1] !== null));
  const summary = lines.map((l, i) => (finite[i].length ? `${l.label} from ${short(finite[i][0][1])} to ${short(finite[i].at(-1)[1])}` : "")).filter(Boolean).join("; ");
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: "0", "aria-label": `${chart.name}: ${summary}. Arrow keys move along the curve.` });
  for (const tick of ticks(y0, y1, 4)) {
    picture.append(svg("line", { class: "rule", x1: left, x2: W - right, y1: y(tick), y2: y(tick) }), svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of ticks(x0, x1, 5)) picture.append(svg("text", { x: x(tick), y: H - bottom + 16, "text-anchor": "middle" }, short(tick)));
  picture.append(svg("line", { class: "axis", x1: left, x2: W - right, y1: H - bottom, y2: H - bottom }));
  lines.forEach((line, i) => {
    let path = "", pen = "M";
    for (const [px, py] of line.points) {
      if (py === null) { pen = "M"; continue; }
      path += `${pen}${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
      pen = "L";
    }
    if (path) picture.append(svg("path", { class: `series-${i}`, d: path }));
    if (finite[i].length < 25) for (const [px, py] of finite[i]) picture.append(svg("circle", { class: `series-${i}`, cx: x(px), cy: y(py), r: 2.6 }));
  });
  const cursor = svg("line", { class: "cursor", y1: top, y2: H - bottom, visibility: "hidden" });
  picture.append(cursor);
  const legend = element("div", { class: "legend", "aria-live": "polite" });
  const place = element("span", { class: "place" });
  function labels(near, stop) {
    legend.replaceChildren(...lines.map((l, i) => element("span", { class: `series-${i}` }, near ? `${l.label} ${near[i]}` : l.label)));
    place.textContent = near ? `${axis ? "minute" : "step"} ${stop}` : "";
  }
  const stops = [...new Set(points.map((p) => p[0]))].sort((a, b) => a - b);
  let at = stops.length - 1;
  function show(index) {
    at = Math.max(0, Math.min(stops.length - 1, index));
    cursor.setAttribute("x1", x(stops[at]));
    cursor.setAttribute("x2", x(stops[at]));
    cursor.setAttribute("visibility", "visible");
    const near = finite.map((l) => (l.length ? short(l.reduce((a, b) => (Math.abs(b[0] - stops[at]) < Math.abs(a[0] - stops[at]) ? b : a))[1]) : "–"));
    labels(near, axis ? stops[at].toFixed(1) : stops[at].toLocaleString("en"));
  }
  function hide() {
    cursor.setAttribute("visibility", "hidden");
    labels(null);
  }
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect(), wanted = x0 + (((event.clientX - box.left) / box.width) * W - left) / (W - left - right) * (x1 - x0);
    show(stops.reduce((best, v, i) => (Math.abs(v - wanted) < Math.abs(stops[best] - wanted) ? i : best), 0));
  });
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("blur", hide);
  picture.addEventListener("keydown", (event) => {
    const step = Math.max(1, Math.round(stops.length / 40)), to = { ArrowLeft: at - step, ArrowRight: at + step, Home: 0, End: stops.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
  labels(null);
  return element("figure", {}, element("h3", {}, chart.name, place), legend, picture);
}

function drawCurves() {
  const { charts, minutes, thinned } = report.curves;
  if (!charts.length) return section("curves", missing("Nothing was logged while this model trained."));
  const grid = element("div", { class: "columns" });
  // All charts end at the same place, so that they can be read one above the other.
  const end = (axis) => Math.max(0, ...charts.flatMap((c) => c.series.flatMap((s) => s.points.map((p) => p[axis]))));
  const draw = (axis) => grid.replaceChildren(...charts.map((chart) => drawChart(chart, axis, end(axis))));
  const axes = element("fieldset", {}, element("legend", {}, "Over"));
  [["steps", 0], ["minutes", 1]].forEach(([name, axis]) => {
    const radio = element("input", { type: "radio", name: "axis", id: `axis-${name}` });
    radio.checked = axis === 0;
    radio.addEventListener("change", () => draw(axis));
    axes.append(element("label", { for: `axis-${name}` }, radio, ` ${name}`));
  });
  draw(0);
  section("curves", minutes ? axes : null, grid, thinned ? missing(`Curves of more than ${thinned} points are drawn as means of neighbours.`) : null);
}

// ---- the rest

function drawRest() {
  if (report.notes.length) {
    document.getElementById("notes").hidden = false;
    section("notes", ...report.notes.map((note) => element("p", { class: "note", dir: "auto" }, note)));
  }
  const { text, splits, drops } = report.data;
  if (!text && !splits.length && !drops.length) section("data", missing("This run has no data report."));
  if (text) section("data", ...text.split("\n").filter(Boolean).map((part) => element("p", { dir: "auto" }, part)));
  section("data", element("div", { class: "columns" },
    splits.length ? plainTable("Pairs by split", null, splits) : null,
    drops.length ? plainTable("Dropped, by reason", null, drops) : splits.length ? missing("Nothing was dropped.") : null));
  section("machine", report.machine.length ? plainTable(null, null, report.machine) : missing("Nothing is recorded about the machine."));
  section("configuration", report.config ? element("pre", { tabindex: "0", "aria-label": "Configuration as YAML" }, report.config) : missing("This run has no configuration text."));
}

// ---- where the time of an update goes

function drawProfile() {
  if (!report.profile) return;
  document.getElementById("profile").hidden = false;
  document.querySelector('nav a[href="#machine"]').after(element("a", { href: "#profile" }, "Where the time goes"));
  const { parts, text } = report.profile;
  const all = parts.reduce((sum, part) => sum + part[1], 0);
  const longest = Math.max(...parts.map((part) => Math.max(part[1], part[2])));
  const number = (value) => element("td", { class: "number" }, value);
  const ms = (seconds) => (1000 * seconds).toFixed(seconds < 0.01 ? 2 : 1);
  const rows = parts.map(([name, seconds, floor]) => {
    const bar = element("i", {});
    bar.style.setProperty("--w", seconds / longest);
    const least = element("i", { class: "least" });
    least.style.setProperty("--w", floor / longest);
    return element("tr", {}, element("th", { scope: "row" }, name), number(ms(seconds)),
      number(`${Math.round(100 * seconds / all)} %`), number(floor ? ms(floor) : "–"),
      number(floor ? `${(seconds / floor).toFixed(1)} ×` : "–"),
      element("td", { class: "times", "aria-hidden": "true" }, bar, floor ? least : null));
  });
  const fewest = parts.reduce((sum, part) => sum + part[2], 0);
  rows.push(element("tr", {}, element("th", { scope: "row" }, "the whole update"), number(ms(all)), number("100 %"), number(ms(fewest)),
    number(fewest ? `${(all / fewest).toFixed(1)} ×` : "–"), element("td", { "aria-hidden": "true" })));
  const head = ["ms an update", "share", "ms at best", "times the best"].map((name) => element("th", { scope: "col", class: "number" }, name));
  const legend = element("td", { "aria-hidden": "true" }, element("div", { class: "legend" }, element("span", {}, "measured"), element("span", { class: "series-1 solid" }, "at best")));
  section("profile", element("p", { class: "lead" }, text),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Time of each part of an update" },
      element("table", { class: "plain wide" }, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Part"), ...head, legend)), element("tbody", {}, ...rows))));
}

drawHeader();
drawScores();
drawSamples();
drawCurves();
drawProfile();
drawRest();
