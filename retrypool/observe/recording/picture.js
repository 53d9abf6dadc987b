"use strict";
// Everything is drawn from `run`, which retrypool/observe/picture.py describes. Times are seconds since the beginning.
const run = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const GUTTER = 148, RIGHT = 14, LEAST = 5e-5;
const length = Math.max(run.length, 1e-6);
const bars = unpack(run);
const view = { from: 0, to: length };
const hidden = new Set();
const state = { hover: null, task: 0, select: null, pointer: null };
let colours = {}, frame = 0, rowHeight = 24, byTask = null;

// ---- what the columns hold --------------------------------------------------------------------------

function unpack({ columns, lanes }) {
  const size = columns.start.length;
  const start = new Float64Array(size), end = new Float64Array(size);
  const of = [];
  let at = 0;
  lanes.forEach((lane) => {
    let clock = 0;
    of.push([at, at + lane.bars]);
    for (const last = at + lane.bars; at < last; at++) {
      clock += columns.start[at];
      start[at] = clock / 1e6;
      end[at] = (clock + columns.length[at]) / 1e6;
    }
  });
  return { start, end, of, outcome: columns.outcome, task: columns.task, number: columns.number,
    label: columns.label, error: columns.error, bundles: columns.bundles };
}

// The first bar of [low, high) that ends after a moment.
function firstAfter(low, high, moment) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars.end[middle] <= moment) low = middle + 1; else high = middle;
  }
  return low;
}

function attemptsOf(task) {
  if (!byTask) {
    byTask = new Map();
    bars.of.forEach(([from, to], lane) => {
      for (let i = from; i < to; i++) {
        if (!bars.task[i]) continue;
        if (!byTask.has(bars.task[i])) byTask.set(bars.task[i], []);
        byTask.get(bars.task[i]).push({ lane, i });
      }
    });
    byTask.forEach((found) => found.sort((a, b) => bars.start[a.i] - bars.start[b.i]));
  }
  return byTask.get(task) || [];
}

// ---- words ------------------------------------------------------------------------------------------

function seconds(value) {
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  const [unit, scale] = size < 1 ? ["ms", 1e-3] : size < 120 ? ["s", 1] : size < 7200 ? ["min", 60] : ["h", 3600];
  const shown = value / scale;
  return `${Math.abs(shown) < 10 ? +shown.toFixed(2) : Math.abs(shown) < 100 ? +shown.toFixed(1) : Math.round(shown)} ${unit}`;
}

// A moment, as exactly as a step of the axis needs it.
function clock(moment, step) {
  if (moment < 0) return "";
  if (length < 120) return `${moment.toFixed(Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))))} s`;
  const whole = Math.floor(moment + 1e-9), two = (n) => String(n).padStart(2, "0");
  const rest = step < 1 ? (moment - whole).toFixed(Math.min(6, Math.ceil(-Math.log10(step) - 1e-9))).slice(1) : "";
  const days = Math.floor(whole / 86400);
  return `${days ? days + " d " : ""}${two(Math.floor(whole / 3600) % 24)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${rest}`;
}

const words = (outcome) => outcome.replace("_", " ");

const sizeOf = (bundle) => bundle.counts.reduce((sum, [, count]) => sum + count, 0);

// A number that has room beside an axis.
function brief(value) {
  const [scale, unit] = value >= 1e6 ? [1e6, "M"] : value >= 1e4 ? [1e3, "k"] : [1, ""];
  return `${+(value / scale).toPrecision(3)}${unit}`;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- the page around the chart ----------------------------------------------------------------------

function fillPage() {
  $("title").textContent = run.title;
  $("subtitle").textContent = run.subtitle;
  $("note").textContent = run.note;
  for (const tile of run.tiles) {
    const box = element("div", undefined, "tile");
    box.append(element("span", tile.label), element("b", tile.value), element("span", tile.note));
    if (tile.share !== null) {
      const meter = element("div", undefined, "meter"), filled = element("i");
      filled.style.width = `${100 * tile.share}%`;
      if (tile.bad) filled.style.background = "var(--failed)";
      meter.append(filled);
      box.append(meter);
    }
    $("tiles").append(box);
  }
  $("advice").hidden = !run.advice.length;
  for (const text of run.advice) $("advice").querySelector("ul").append(element("li", text));
  fillTable($("workers"), run.workers);
  fillTable($("slow"), run.slowest);
  fillLegend();
}

function fillTable(section, { head, rows, text }) {
  section.hidden = !rows.length;
  const table = section.querySelector("table");
  const line = (tag, cells) => {
    const row = element("tr");
    cells.forEach((cell, i) => row.append(element(tag, cell, text.includes(i) ? "text" : "")));
    return row;
  };
  table.append(line("th", head), ...rows.map((cells) => line("td", cells)));
}

function fillLegend() {
  for (const outcome of run.outcomes) {
    const button = element("button");
    const dot = element("i");
    dot.style.background = `var(--${outcome})`;
    button.append(dot, words(outcome));
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.onclick = () => {
      hidden.has(outcome) ? hidden.delete(outcome) : hidden.add(outcome);
      button.setAttribute("aria-pressed", String(!hidden.has(outcome)));
      draw();
    };
    $("legend").append(button);
  }
  for (const kind of new Set(run.spans.map((span) => span.kind))) {
    const shade = element("span", undefined, "shade"), dot = element("i");
    dot.style.backgroundColor = `var(${SHADES[kind] || "--paused"})`;
    shade.append(dot, words(kind));
    $("legend").append(shade);
  }
}

const SHADES = { cooling: "--throttled", ejected: "--failed", outage: "--outage" };

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["page", "card", "text", "muted", "line", "lane", "focus", "queue", "delay", "outage", "paused", "gone",
    "succeeded", "failed", "timed_out", "throttled", "worker_fault", "excused", "cancelled", "withdrawn",
    "superseded"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  colours.hatch = {};
}

function hatch(context, name) {
  if (colours.hatch[name]) return colours.hatch[name];
  const tile = document.createElement("canvas"), size = 8;
  tile.width = tile.height = size;
  const c = tile.getContext("2d");
  c.strokeStyle = c.fillStyle = colours[name];
  c.globalAlpha = 0.16;
  c.fillRect(0, 0, size, size);
  c.globalAlpha = 0.42;
  c.lineWidth = 1.4;
  c.beginPath();
  for (const shift of [-size, 0, size]) { c.moveTo(shift - 1, size + 1); c.lineTo(shift + size + 1, -1); }
  if (name === "failed") for (const shift of [-size, 0, size]) { c.moveTo(shift - 1, -1); c.lineTo(shift + size + 1, size + 1); }
  c.stroke();
  return (colours.hatch[name] = context.createPattern(tile, "repeat"));
}

// ---- drawing ----------------------------------------------------------------------------------------

function prepare(canvas, height) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
  context.textBaseline = "middle";
  return { c: context, width, height, inner: Math.max(width - GUTTER - RIGHT, 1) };
}

const place = (moment, inner, from = view.from, to = view.to) => GUTTER + ((moment - from) / (to - from)) * inner;

function steps(inner) {
  const rough = (view.to - view.from) / Math.max(2, inner / 90);
  const choices = length < 120 || rough < 1 ? [1, 2, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(rough)))
    : [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800];
  return choices.find((choice) => choice >= rough) || Math.ceil(rough / 604800) * 604800;
}

function ticks(inner, each) {
  const step = steps(inner);
  for (let n = Math.ceil(view.from / step - 1e-9); n * step <= view.to + step * 1e-9; n++) each(n * step, step);
}

function draw() {
  if (!frame) frame = requestAnimationFrame(() => { frame = 0; drawNow(); });
}

function drawNow() {
  drawMap();
  drawAxis();
  drawLanes();
  drawQueue();
  drawRate();
  const whole = view.to - view.from >= length * 0.9999;
  $("range").textContent = whole ? `${seconds(length)} in all` : `${clock(view.from, (view.to - view.from) / 100)} – ${clock(view.to, (view.to - view.from) / 100)}`;
  document.body.dataset.ready = "true";
  document.body.dataset.drawn = String(drawn);
  document.body.dataset.view = `${view.from.toFixed(6)} ${view.to.toFixed(6)}`;
  document.body.dataset.task = String(state.task);
}

let drawn = 0;

// Each column of pixels in turn: calls in vain must not vanish among successes.
function drawBars(c, from, to, y, height, inner, start, end) {
  const low = firstAfter(from, to, start), outcomes = run.outcomes;
  let reached = -1, worst = 0;
  for (let i = low; i < to && bars.start[i] < end; i++) {
    const outcome = bars.outcome[i], name = outcomes[outcome];
    if (hidden.has(name)) continue;
    const x = place(bars.start[i], inner, start, end), right = place(bars.end[i], inner, start, end);
    const useful = name === "succeeded", pixel = Math.floor(x);
    if (right - x < 1) {
      if (pixel === reached && (useful || worst)) continue;
      reached = pixel;
      worst = useful ? 0 : 1;
    }
    const left = Math.max(x, GUTTER), width = Math.max(Math.min(right, GUTTER + inner) - left, useful ? 0.9 : 1.8);
    const gap = right - x > 4 ? 0.6 : 0;
    const tall = useful ? height * 0.66 : height;
    const split = bars.bundles[i];
    c.globalAlpha = state.task && bars.task[i] !== state.task ? 0.35 : 1;
    if (split) {
      let top = y;
      const total = sizeOf(split);
      // The paler, the more of its time nothing ran.
      c.globalAlpha *= 0.35 + 0.65 * split.share;
      for (const [kind, count] of split.counts) {
        const share = (height * count) / total;
        c.fillStyle = colours[outcomes[kind]];
        c.fillRect(left, top, width - gap, share);
        top += share;
      }
    } else {
      c.fillStyle = colours[name];
      c.fillRect(left, y + (height - tall) / 2, width - gap, tall);
    }
    drawn++;
  }
  c.globalAlpha = 1;
}

function drawLanes() {
  drawn = 0;
  const scroll = $("scroll"), rows = run.lanes.length;
  rowHeight = rows <= 12 ? 30 : rows <= 30 ? 22 : 15;
  const all = rows * rowHeight;
  $("spacer").style.height = `${all}px`;
  const seen = Math.max(Math.min(all, scroll.clientHeight || all), rowHeight);
  const { c, width, height, inner } = prepare($("lanes"), seen);
  const top = scroll.scrollTop, first = Math.floor(top / rowHeight);
  const last = Math.min(rows - 1, Math.floor((top + height) / rowHeight));
  for (let row = first; row <= last; row++) {
    const lane = run.lanes[row], y = row * rowHeight - top;
    c.fillStyle = row % 2 ? colours.card : colours.lane;
    c.fillRect(0, y, width, rowHeight);
    c.fillStyle = colours.gone;
    for (const [from, to] of lane.gone) shade(c, from, to, y, rowHeight, inner);
    if (lane.first) {
      c.fillStyle = colours.text;
      c.fillText(fit(c, lane.name, GUTTER - 20), 8, y + rowHeight / 2);
    }
  }
  c.save();
  c.beginPath();
  c.rect(GUTTER, 0, inner, height);
  c.clip();
  c.strokeStyle = colours.line;
  c.lineWidth = 1;
  c.beginPath();
  ticks(inner, (moment) => { const x = Math.round(place(moment, inner)) + 0.5; c.moveTo(x, 0); c.lineTo(x, height); });
  c.stroke();
  for (const span of run.spans) {
    if (span.end < view.from || span.start > view.to) continue;
    c.fillStyle = hatch(c, (SHADES[span.kind] || "--paused").slice(2));
    if (span.lanes === null) shade(c, span.start, span.end, 0, height, inner);
    else for (const row of span.lanes) if (row >= first && row <= last) shade(c, span.start, span.end, row * rowHeight - top + 1, rowHeight - 2, inner);
  }
  for (let row = first; row <= last; row++) {
    const [from, to] = bars.of[row], pad = rowHeight > 18 ? 4 : 2;
    const y = row * rowHeight - top + pad, tall = rowHeight - 2 * pad;
    drawBars(c, from, to, y, tall, inner, view.from, view.to);
    for (const open of run.running) if (open.lane === row) drawOpen(c, open, y, tall, inner);
  }
  if (state.task) drawPath(c, top, inner);
  drawOverlay(c, height, inner);
  c.restore();
}

function shade(c, from, to, y, height, inner) {
  const left = Math.max(place(from, inner), GUTTER), right = Math.min(place(to, inner), GUTTER + inner);
  if (right > left) c.fillRect(left, y, Math.max(right - left, 1), height);
}

function drawOpen(c, open, y, tall, inner) {
  const left = Math.max(place(open.start, inner), GUTTER), right = Math.min(place(length, inner), GUTTER + inner);
  if (right <= left) return;
  c.strokeStyle = colours.succeeded;
  c.setLineDash([4, 3]);
  c.strokeRect(left + 0.5, y + 0.5, right - left - 1, tall - 1);
  c.setLineDash([]);
}

// The way of one task from attempt to attempt.
function drawPath(c, top, inner) {
  const found = attemptsOf(state.task), middle = ({ lane }) => lane * rowHeight - top + rowHeight / 2;
  c.strokeStyle = colours.text;
  c.lineWidth = 1.5;
  c.beginPath();
  found.forEach((at, n) => {
    if (n) c.lineTo(place(bars.start[at.i], inner), middle(at));
    c.moveTo(place(bars.end[at.i], inner), middle(at));
  });
  c.stroke();
  for (const { lane, i } of found) {
    const left = place(bars.start[i], inner), right = place(bars.end[i], inner);
    c.strokeRect(left - 1, lane * rowHeight - top + 2, Math.max(right - left, 2) + 2, rowHeight - 4);
  }
  c.lineWidth = 1;
}

function drawOverlay(c, height, inner) {
  if (state.select) {
    const [a, b] = state.select.map((moment) => place(moment, inner)).sort((x, y) => x - y);
    c.fillStyle = colours.focus;
    c.globalAlpha = 0.16;
    c.fillRect(a, 0, b - a, height);
    c.globalAlpha = 1;
  } else if (state.pointer !== null) {
    const x = Math.round(place(state.pointer, inner)) + 0.5;
    c.strokeStyle = colours.muted;
    c.globalAlpha = 0.6;
    c.beginPath();
    c.moveTo(x, 0);
    c.lineTo(x, height);
    c.stroke();
    c.globalAlpha = 1;
  }
}

function fit(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let cut = text;
  while (cut.length > 1 && c.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}

function drawAxis() {
  const { c, height, inner } = prepare($("axis"), 24);
  c.fillStyle = colours.muted;
  c.font = "11px system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
  c.textAlign = "center";
  ticks(inner, (moment, step) => {
    const text = clock(moment, step), half = c.measureText(text).width / 2;
    c.fillText(text, Math.min(Math.max(place(moment, inner), GUTTER + half - 8), GUTTER + inner + RIGHT - half), height / 2);
  });
}

// The whole run in small: what is shown is the bright part. All bars are drawn only when they look different.
const whole = { image: document.createElement("canvas"), key: "" };

function drawMap() {
  const { c, width, height, inner } = prepare($("map"), 44), rows = run.lanes.length || 1;
  const tall = height / rows, before = state.task;
  const key = [$("map").width, document.documentElement.dataset.theme, ...hidden].join();
  if (whole.key === key) {
    c.drawImage(whole.image, 0, 0, width, height);
  } else {
    state.task = 0;
    c.fillStyle = colours.muted;
    c.fillText("Whole run", 8, height / 2);
    c.fillStyle = colours.lane;
    c.fillRect(GUTTER, 0, inner, height);
    bars.of.forEach(([from, to], row) => drawBars(c, from, to, row * tall, Math.max(tall - (tall > 3 ? 1 : 0), 0.5), inner, 0, length));
    state.task = before;
    whole.image.width = $("map").width;
    whole.image.height = $("map").height;
    whole.image.getContext("2d").drawImage($("map"), 0, 0);
    whole.key = key;
  }
  const left = place(view.from, inner, 0, length), right = place(view.to, inner, 0, length);
  c.fillStyle = colours.card;
  c.globalAlpha = 0.72;
  c.fillRect(GUTTER, 0, left - GUTTER, height);
  c.fillRect(right, 0, GUTTER + inner - right, height);
  c.globalAlpha = 1;
  if (right - left < inner - 1) {
    c.strokeStyle = colours.focus;
    c.lineWidth = 1.5;
    c.strokeRect(left + 0.5, 0.75, Math.max(right - left - 1, 2), height - 1.5);
  }
}

// ---- the two curves ---------------------------------------------------------------------------------

// Buckets of the series, put together so that each is `least` pixels wide at the least.
function binned(names, inner, least, mean) {
  const { width, offset } = run.series, perPixel = (view.to - view.from) / inner;
  const group = Math.max(1, Math.ceil((least * perPixel) / width)), bins = [];
  const size = run.series[names[0]].length;
  const first = Math.max(0, Math.floor((view.from - offset) / width / group) - 1) * group;
  for (let at = first; at < size && offset + at * width < view.to; at += group) {
    const to = Math.min(at + group, size);
    const values = names.map((name) => {
      let sum = 0;
      for (let i = at; i < to; i++) sum += run.series[name][i];
      return mean ? sum / (to - at) : sum / (group * width);
    });
    bins.push({ from: offset + at * width, to: offset + (at + group) * width, values });
  }
  return bins;
}

function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= value * 0.9999);
}

function drawCurve(id, title, names, palette, least, mean) {
  const { c, width, height, inner } = prepare($(id), 92), bins = binned(names, inner, least, mean);
  const top = 8, bottom = height - 8, tall = bottom - top;
  const most = niceTop(Math.max(1e-9, ...bins.map((bin) => bin.values.reduce((a, b) => a + b, 0))));
  c.fillStyle = colours.lane;
  c.fillRect(GUTTER, 0, inner, height);
  c.fillStyle = colours.text;
  title.forEach((line, n) => {
    c.fillStyle = n ? colours.muted : colours.text;
    c.fillText(line, n ? 23 : 8, 16 + 18 * n);
    if (!n) return;
    c.fillStyle = colours[palette[n - 1]];
    c.fillRect(8, 11.5 + 18 * n, 9, 9);
  });
  c.textAlign = "right";
  c.fillStyle = colours.muted;
  for (const level of [0, most / 2, most]) {
    const y = Math.round(bottom - (level / most) * tall) + 0.5;
    c.strokeStyle = colours.line;
    c.beginPath();
    c.moveTo(GUTTER, y);
    c.lineTo(width - RIGHT, y);
    c.stroke();
    if (level) c.fillText(brief(level), GUTTER - 7, Math.max(y, 7));
  }
  c.textAlign = "left";
  c.save();
  c.beginPath();
  c.rect(GUTTER, 0, inner, height);
  c.clip();
  for (const bin of bins) {
    let base = bottom;
    // On whole pixels, or neighbours would show a seam.
    const left = Math.round(place(bin.from, inner)), right = Math.round(place(Math.min(bin.to, length), inner));
    bin.values.forEach((value, n) => {
      const size = (value / most) * tall;
      c.fillStyle = colours[palette[n]];
      c.fillRect(left, base - size, Math.max(right - left - (mean || right - left < 4 ? 0 : 1), 1), size);
      base -= size;
    });
  }
  drawOverlay(c, height, inner);
  c.restore();
  return bins;
}

let queueBins = [], rateBins = [];
function drawQueue() { queueBins = drawCurve("queue", ["Waiting tasks", "in the queue", "in back-off"], ["queued", "delayed"], ["queue", "delay"], 1, true); }
function drawRate() { rateBins = drawCurve("rate", ["Calls per second", "succeeded", "in vain"], ["succeeded", "in_vain"], ["succeeded", "failed"], 11, false); }

// ---- moving about -----------------------------------------------------------------------------------

function look(from, to) {
  const span = Math.min(Math.max(to - from, LEAST), length), middle = (from + to) / 2;
  view.from = Math.min(Math.max(middle - span / 2, 0), length - span);
  view.to = view.from + span;
  draw();
}

function zoom(factor, around = (view.from + view.to) / 2) {
  look(around - (around - view.from) * factor, around + (view.to - around) * factor);
}

const move = (share) => { const shift = (view.to - view.from) * share; look(view.from + shift, view.to + shift); };

function momentAt(event, canvas, from = view.from, to = view.to) {
  const box = canvas.getBoundingClientRect(), inner = box.width - GUTTER - RIGHT;
  const share = Math.min(Math.max((event.clientX - box.left - GUTTER) / inner, 0), 1);
  return from + share * (to - from);
}

function barAt(event) {
  const box = $("lanes").getBoundingClientRect();
  const row = Math.floor((event.clientY - box.top + $("scroll").scrollTop) / rowHeight);
  if (!run.lanes[row] || event.clientX < box.left + GUTTER) return { row: run.lanes[row] ? row : -1, i: -1 };
  const moment = momentAt(event, $("lanes")), slack = (view.to - view.from) / (box.width - GUTTER - RIGHT) * 2;
  const [from, to] = bars.of[row];
  let best = -1, distance = slack;
  for (let i = Math.max(firstAfter(from, to, moment - slack), from); i < to && bars.start[i] <= moment + slack; i++) {
    if (hidden.has(run.outcomes[bars.outcome[i]])) continue;
    const away = Math.max(bars.start[i] - moment, moment - bars.end[i], 0);
    if (away < distance) { best = i; distance = away; }
  }
  return { row, i: best, moment };
}

function describe({ row, i, moment }) {
  const lane = run.lanes[row], lines = [];
  if (i >= 0) {
    const name = run.outcomes[bars.outcome[i]], split = bars.bundles[i];
    const title = element("b"), dot = element("span", undefined, "dot");
    dot.style.background = `var(--${name})`;
    title.append(dot, split ? `${sizeOf(split)} short attempts` : `${words(name)}: task ${bars.task[i]}`);
    lines.push(title);
    if (split) lines.push(element("div", split.counts.map(([kind, count]) => `${count} ${words(run.outcomes[kind])}`).join(", ") + `, running ${Math.max(1, Math.round(100 * split.share))}% of the time`));
    else lines.push(element("div", run.labels[bars.label[i]]));
    if (bars.error[i]) lines.push(element("div", run.errors[bars.error[i]]));
    const which = split ? "" : `attempt ${bars.number[i]} on `;
    lines.push(element("div", `${which}${lane.name}, ${seconds(bars.end[i] - bars.start[i])}, from ${clock(bars.start[i], 0.001)}`, "muted"));
  } else if (row >= 0 && moment !== undefined) {
    const open = run.running.find((one) => one.lane === row && one.start <= moment);
    const span = run.spans.find((one) => one.start <= moment && moment <= one.end && (one.lanes === null || one.lanes.includes(row)));
    if (open) {
      lines.push(element("b", `still running: task ${open.task}`), element("div", open.label));
    } else if (span) {
      lines.push(element("b", `${span.lanes === null ? "all groups" : lane.group}: ${words(span.kind)}`));
      if (span.why) lines.push(element("div", span.why));
      lines.push(element("div", `${seconds(span.end - span.start)}, from ${clock(span.start, 0.001)}`, "muted"));
    }
  } else if (row >= 0) {
    lines.push(element("b", lane.name), element("div", `group ${lane.group}`, "muted"));
  }
  return lines;
}

function show(event, lines) {
  const tip = $("tip");
  tip.hidden = !lines.length;
  if (!lines.length) return;
  tip.replaceChildren(...lines);
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
}

function watch(canvas, area, describeAt) {
  let anchor = null, moved = false;
  area.addEventListener("pointerdown", (event) => {
    if (event.button || event.clientX < canvas.getBoundingClientRect().left + GUTTER) return;
    anchor = momentAt(event, canvas);
    moved = false;
    area.setPointerCapture(event.pointerId);
  });
  area.addEventListener("pointermove", (event) => {
    state.pointer = momentAt(event, canvas);
    if (anchor !== null) {
      const inner = canvas.clientWidth - GUTTER - RIGHT;
      moved = moved || Math.abs(place(anchor, inner) - place(state.pointer, inner)) > 4;
      state.select = moved ? [anchor, state.pointer] : null;
    }
    show(event, state.select ? [element("b", seconds(Math.abs(state.select[1] - state.select[0])))] : describeAt(event));
    draw();
  });
  area.addEventListener("pointerup", (event) => {
    if (anchor === null) return;
    const [from, to] = [anchor, momentAt(event, canvas)].sort((a, b) => a - b);
    anchor = state.select = null;
    if (moved) look(from, to);
    else if (area === $("scroll")) {
      const { i } = barAt(event);
      const task = i >= 0 ? bars.task[i] : 0;
      state.task = task === state.task ? 0 : task;
      draw();
    }
  });
  area.addEventListener("pointercancel", () => { anchor = state.select = null; draw(); });
  area.addEventListener("pointerleave", () => { state.pointer = null; $("tip").hidden = true; draw(); });
  area.addEventListener("dblclick", () => look(0, length));
  area.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) zoom(1.0025 ** event.deltaY, momentAt(event, canvas));
    else if (event.shiftKey) move((event.deltaY || event.deltaX) / 1000);
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / 1000);
    else return;
    event.preventDefault();
  }, { passive: false });
}

function bin(bins, names, unit) {
  return (event) => {
    const found = bins().find(({ from, to }) => from <= state.pointer && state.pointer < to);
    if (!found) return [];
    const rows = found.values.map((value, n) => element("div", `${+value.toPrecision(3)} ${names[n]}`));
    return [element("b", `${unit}, at ${clock(found.from, (found.to - found.from) / 2)}`), ...rows];
  };
}

function watchMap() {
  let held = false;
  const centre = (event) => {
    const half = (view.to - view.from) / 2, moment = momentAt(event, $("map"), 0, length);
    look(moment - half, moment + half);
  };
  $("map").addEventListener("pointerdown", (event) => { held = true; $("map").setPointerCapture(event.pointerId); centre(event); });
  $("map").addEventListener("pointermove", (event) => { if (held) centre(event); });
  $("map").addEventListener("pointerup", () => { held = false; });
  $("map").addEventListener("dblclick", () => look(0, length));
}

const KEYS = {
  ArrowLeft: () => move(-0.15), ArrowRight: () => move(0.15), "+": () => zoom(0.6), "=": () => zoom(0.6),
  "-": () => zoom(1 / 0.6), 0: () => look(0, length), Escape: () => { state.task = 0; draw(); },
};

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
  draw();
}

// #theme=dark&from=1.5&to=2&task=17: for links to a place, and for screenshots.
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(asked.get("theme") || (dark.matches ? "dark" : "light"));
  if (asked.has("from") || asked.has("to")) look(Number(asked.get("from") || 0), Number(asked.get("to") || length));
  state.task = Number(asked.get("task") || 0);
  return dark;
}

fillPage();
const dark = readAddress();
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
addEventListener("hashchange", readAddress);
$("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.onclick = () => ({ in: () => zoom(0.5), out: () => zoom(2), all: () => look(0, length) })[button.dataset.zoom]();
}
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  KEYS[event.key]();
  event.preventDefault();
});
watch($("lanes"), $("scroll"), (event) => describe(barAt(event)));
watch($("queue"), $("queue"), bin(() => queueBins, ["in the queue", "in back-off"], "waiting tasks"));
watch($("rate"), $("rate"), bin(() => rateBins, ["succeeded", "in vain"], "calls per second"));
watchMap();
$("scroll").addEventListener("scroll", draw);
new ResizeObserver(draw).observe($("chart"));
drawNow();
