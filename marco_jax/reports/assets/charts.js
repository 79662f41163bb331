"use strict";
/* Draws the charts of a page; see reports/charts.py for what a chart has. */

const wideEnough = window.matchMedia("(min-width: 721px)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const UNITS = {step: "step", tokens: "tokens", hours: "hours"};
// What the reader has chosen; charts are drawn from it and from `figures` alone.
const view = {x: "step", smoothing: 5, window: 1, range: null, log: {}, hidden: {}, choice: {}};
let figures = {}, tables = [], groups = {};

const find = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const read = id => JSON.parse(document.getElementById(id)?.textContent ?? "null");
const overSteps = name => figures[name].options?.over === "steps";
const linked = () => Object.keys(figures).filter(overSteps);
const choiceOf = name => view.choice[name] ?? 0;

function element(tag, fields = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

/* Steps of a run in the unit of the axis, between the entries of the run's table. */
function inUnit(steps, run, unit = view.x) {
  const table = tables[run] ?? tables[0];
  if (unit === "step" || !table || table.step.length < 2) return steps;
  const known = table.step, target = table[unit];
  let n = 0;
  return steps.map(step => {
    if (step === null) return null;
    while (n < known.length - 2 && known[n + 1] < step) n++;
    while (n > 0 && known[n] > step) n--;
    const share = (step - known[n]) / (known[n + 1] - known[n]);
    const value = target[n] + share * (target[n + 1] - target[n]);
    return unit === "tokens" ? Math.round(value) : Number(value.toPrecision(6));
  });
}

/* The step at a value of the axis, of the first run. */
function stepAt(x) {
  const table = tables[0];
  if (view.x === "step" || !table) return Math.round(x);
  const known = table[view.x];
  let n = 0;
  while (n < known.length - 2 && known[n + 1] < x) n++;
  const share = (x - known[n]) / ((known[n + 1] - known[n]) || 1);
  return Math.round(table.step[n] + share * (table.step[n + 1] - table.step[n]));
}

/* Weighted means in centred windows of a share of the stage; a window never crosses a cut. */
function smoothed(trace) {
  const {weights, cuts} = trace.meta ?? {};
  if (!weights || !view.smoothing) return trace.y;
  const means = [...trace.y];
  cuts.forEach((first, n) => {
    const last = cuts[n + 1] ?? trace.y.length;
    const half = Math.floor((last - first) * view.smoothing / 200);
    for (let at = first; at < last; at++) {
      let sum = 0, weight = 0;
      for (let k = Math.max(first, at - half); k < Math.min(last, at + half + 1); k++) {
        if (trace.y[k] === null) continue;
        sum += trace.y[k] * weights[k];
        weight += weights[k];
      }
      if (weight && trace.y[at] !== null) means[at] = Number((sum / weight).toPrecision(6));
    }
  });
  return means;
}

function isShown(name, trace, n) {
  return (trace.meta?.choice ?? choiceOf(name)) === choiceOf(name) && !view.hidden[name]?.has(n);
}

/* The traces that plotly draws: raw points lie under smoothed lines where lines are few. */
function tracesOf(name) {
  const {data, options = {}} = figures[name];
  const shown = data.filter((trace, n) => isShown(name, trace, n));
  const smooths = options.smooth && view.smoothing > 0;
  const few = shown.length <= 3 ? shown.length : 0;
  const drawn = [];
  shown.forEach((trace, n) => {
    const own = {...trace, showlegend: false};
    // What plotly changes is its own.
    if (trace.marker) own.marker = {...trace.marker};
    if (trace.type === "bar" && trace.error_y) {
      own.error_y = {...trace.error_y, color: dark.matches ? "#e6e8eb" : "#1b1f24"};
    }
    if (overSteps(name)) {
      own.x = inUnit(trace.x, trace.meta?.run);
      own.hovertemplate = trace.hovertemplate?.replace("UNIT", UNITS[view.x]);
    } else if (options.unit) {
      own.hovertemplate = trace.hovertemplate.replace("UNIT", options.unit);
    }
    if (smooths && trace.meta?.weights) {
      const whole = !trace.meta.group && n === shown.length - 1;
      if (few || whole) {
        const colour = trace.line?.color;
        drawn.push({type: "scatter", mode: "markers", name: "raw", x: own.x, y: trace.y,
                    marker: {color: colour, size: 4, opacity: 0.3}, hoverinfo: "skip",
                    showlegend: false});
      }
      own.y = smoothed(trace);
    }
    drawn.push(own);
  });
  return drawn;
}

function styledAxis(own, line, size) {
  return {gridcolor: line, zerolinecolor: line, ...own, title: {...own.title, font: {size}}};
}

function stageMarks(name, colour) {
  const {stages = [], run = 0} = figures[name].options;
  const ends = inUnit(stages.map(stage => stage.last), run);
  const starts = inUnit(stages.map(stage => stage.first), run);
  return {
    shapes: ends.slice(0, -1).map(x => ({
      type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1,
      line: {color: colour, width: 1, dash: "dot"}})),
    annotations: stages.map((stage, n) => ({
      x: (starts[n] + ends[n]) / 2, text: stage.label.replace(/</g, "&lt;"), yref: "paper", y: 1,
      yanchor: "bottom", showarrow: false})),
  };
}

function layoutOf(name) {
  const {layout: own, options = {}} = figures[name];
  const ink = dark.matches ? "#c9ced6" : "#3c434d", line = dark.matches ? "#2e343c" : "#e4e7eb";
  const size = wideEnough.matches ? 13 : 11;
  const x = styledAxis(own.xaxis, line, size), y = styledAxis(own.yaxis, line, size);
  const title = options.titles?.[choiceOf(name)];
  if (title) Object.assign(y, {title: {...y.title, text: title.text}, tickformat: title.format});
  if (view.log[name]) Object.assign(y, {type: "log", rangemode: "normal"});
  let marks = {};
  const bounds = options.bounds?.[choiceOf(name)];
  if (bounds) {
    marks.shapes = bounds.map(at => ({type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1,
                                      line: {color: dark.matches ? "#f0935e" : "#a8410f", width: 2}}));
  }
  if (overSteps(name)) {
    const all = tables.length ? tables : [{step: [0, 1]}];
    const ends = all.map(table => (table[view.x] ?? table.step).at(-1));
    const last = Math.max(...ends, ...(view.x === "step" ? options.stages.map(s => s.last) : []));
    x.title.text = UNITS[view.x];
    x.range = view.range ?? [last * (1 - view.window) - 0.02 * last, 1.02 * last];
    y.fixedrange = true;
    marks = stageMarks(name, dark.matches ? "#a3acb7" : "#57606a");
  }
  return {
    ...own, ...marks,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: ink, size, family: "system-ui, sans-serif"},
    margin: {l: wideEnough.matches ? 60 : 44, r: 12, t: own.xaxis.side === "top" ? 50 : 24, b: 44},
    showlegend: false, barmode: options.stacked ? "stack" : "group", hovermode: "closest", uirevision: "kept",
    // A finger scrolls the page.
    dragmode: wideEnough.matches ? "zoom" : false,
    hoverlabel: {align: "left", namelength: -1},
    xaxis: x, yaxis: {automargin: true, ...y},
  };
}

function draw(names = Object.keys(figures)) {
  for (const name of names) {
    Plotly.react(name, tracesOf(name), layoutOf(name),
                 {responsive: true, displayModeBar: false, doubleClick: false});
  }
}

/* Of many events in a frame one is drawn. */
const waiting = new Set();
function drawSoon(names) {
  if (!waiting.size) requestAnimationFrame(() => { draw([...waiting]); waiting.clear(); });
  names.forEach(name => waiting.add(name));
}

function zoom(range) {
  view.range = range;
  drawSoon(linked());
}

/* A line at the same x in all charts over steps, and what it stands at. */
function moveCursors(x) {
  for (const name of linked()) {
    const chart = document.getElementById(name), axis = chart._fullLayout?.xaxis;
    const line = chart.parentNode.querySelector(".cursor");
    const at = x === null || !axis ? -1 : axis.d2p(x);
    line.style.display = at >= 0 && at <= axis?._length ? "block" : "none";
    if (axis) line.style.left = `${axis._offset + at}px`;
  }
  const output = document.querySelector(".at");
  if (!output) return;
  const step = x === null ? null : stepAt(x);
  const number = value => value.toLocaleString("en", {maximumFractionDigits: 2});
  output.textContent = step === null ? "" : tables.length < 2 && tables[0]
    ? `step ${number(step)}\n${number(inUnit([step], 0, "tokens")[0])} tokens\n`
      + `${number(inUnit([step], 0, "hours")[0])} hours` : `${UNITS[view.x]} ${number(x)}`;
}

function listen(name) {
  const chart = document.getElementById(name);
  chart.on("plotly_click", event => choosePoint(name, event.points[0].pointIndex));
  if (!overSteps(name)) {
    chart.on("plotly_doubleclick", () =>
      Plotly.relayout(chart, {"xaxis.autorange": true, "yaxis.autorange": true}));
    return;
  }
  chart.on("plotly_relayout", event => {
    const low = event["xaxis.range[0]"];
    if (low !== undefined) zoom([low, event["xaxis.range[1]"]]);
  });
  chart.on("plotly_doubleclick", () => zoom(null));
  chart.addEventListener("pointermove", event => {
    const axis = chart._fullLayout.xaxis;
    const at = event.clientX - chart.getBoundingClientRect().left - axis._offset;
    moveCursors(at < 0 || at > axis._length ? null : axis.p2d(at));
  });
  chart.addEventListener("pointerleave", () => moveCursors(null));
}
