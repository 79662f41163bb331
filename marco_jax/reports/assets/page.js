"use strict";
/* Draws the charts of a page and answers its controls; see reports/charts.py for what a chart has. */

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
  const stages = figures[name].options.stages ?? [];
  const ends = inUnit(stages.map(stage => stage.last));
  const starts = inUnit(stages.map(stage => stage.first));
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

/* A click on a point of a chart with rows marks the point's row, and the other way round. */
function choosePoint(name, n) {
  if (!figures[name].options?.rows) return;
  find(`[data-row-of="${name}"]`).forEach((row, k) => row.classList.toggle("chosen", k === n));
  const size = figures[name].data[0].marker?.size ?? 6;
  const sizes = figures[name].data[0].x.map((_, k) => (k === n ? 2 * size : size));
  Plotly.restyle(name, {"marker.size": [sizes]}, [0]);
  find(`[data-row-of="${name}"]`)[n]?.scrollIntoView({block: "nearest"});
}

function switches(name) {
  const hidden = (view.hidden[name] ??= new Set());
  const {data, options = {}} = figures[name];
  const entries = data.map((trace, n) => ({trace, n})).filter(({trace}) =>
    trace.showlegend !== false && (trace.meta?.choice ?? choiceOf(name)) === choiceOf(name));
  const button = (label, colour, numbers) => {
    const made = element("button", {type: "button", textContent: label});
    const isOn = () => numbers.some(n => !hidden.has(n));
    made.setAttribute("aria-pressed", isOn());
    made.style.setProperty("--swatch", colour);
    made.onclick = () => {
      const on = isOn();
      numbers.forEach(n => (on ? hidden.add(n) : hidden.delete(n)));
      legend(name);
      drawSoon([name]);
    };
    return made;
  };
  const colourOf = trace => trace.line?.color ?? trace.marker?.color ?? "currentColor";
  const single = entries.filter(({trace}) => !trace.meta?.group);
  const made = single.map(({trace, n}) => button(trace.name, colourOf(trace), [n]));
  const grouped = entries.filter(({trace}) => trace.meta?.group);
  for (const group of new Set(grouped.map(({trace}) => trace.meta.group))) {
    const own = grouped.filter(({trace}) => trace.meta.group === group);
    const label = groups[group] ?? group;
    made.push(button(label, colourOf(own[0].trace), own.map(({n}) => n)));
  }
  return {made, chips: grouped.map(({trace, n}) => button(trace.name, colourOf(trace), [n])),
          numbers: grouped.map(({n}) => n), all: entries.length, hidden, options};
}

function legend(name) {
  const place = document.getElementById(name).closest("figure").querySelector(".legend");
  const {made, chips, numbers, all, hidden} = switches(name);
  const focused = place.contains(document.activeElement) ? document.activeElement.textContent : null;
  const open = place.querySelector("details")?.open ?? false;
  place.replaceChildren();
  if (all > 1) place.append(...made);
  if (chips.length > 1) {
    const everything = (label, hide) => element("button", {type: "button", textContent: label,
      onclick: () => {
        numbers.forEach(n => (hide ? hidden.add(n) : hidden.delete(n)));
        legend(name);
        drawSoon([name]);
      }});
    const box = element("div", {className: "chips"}, everything("all", false),
                        everything("none", true), ...chips);
    const summary = element("summary", {textContent: `Choose among ${chips.length}`});
    place.append(element("details", {open}, summary, box));
  }
  if (focused) find("button", place).find(one => one.textContent === focused)?.focus();
}

/* Shows another of the charts in one; those that share their choices change with it. */
function choose(name, choice) {
  const shared = figures[name].options.shared;
  const names = Object.keys(figures).filter(other =>
    other === name || (shared && figures[other].options?.shared === shared));
  for (const other of names) {
    view.choice[other] = choice;
    view.hidden[other]?.clear();
    const list = document.getElementById(other).closest("figure").querySelector(".tools select");
    if (list) list.value = choice;
    legend(other);
  }
  drawSoon(names);
}

function tools(name) {
  const {options = {}} = figures[name];
  const place = document.getElementById(name).closest("figure").querySelector(".tools");
  const title = document.getElementById(name).getAttribute("aria-label");
  place.replaceChildren();
  if (options.choices?.length > 1) {
    const list = element("select", {ariaLabel: `What ${title} shows`}, ...options.choices.map(
      (label, n) => element("option", {value: n, textContent: label, selected: n === choiceOf(name)})));
    list.onchange = () => choose(name, Number(list.value));
    place.append(list);
  }
  if (options.log) {
    const button = element("button", {type: "button", textContent: "log"});
    button.setAttribute("aria-label", `Logarithmic axis of ${title}`);
    button.setAttribute("aria-pressed", Boolean(view.log[name]));
    button.onclick = () => {
      view.log[name] = !view.log[name];
      button.setAttribute("aria-pressed", view.log[name]);
      drawSoon([name]);
    };
    place.append(button);
  }
}

/* The controls of all charts. */
function control(form) {
  const {x, smoothing, range} = form.elements;
  x.value = view.x;
  smoothing.value = view.smoothing;
  form.onsubmit = event => event.preventDefault();
  x.onchange = () => { view.x = x.value; zoom(null); };
  range.onchange = () => { view.window = Number(range.value); zoom(null); };
  smoothing.oninput = () => {
    view.smoothing = Number(smoothing.value);
    form.querySelector("output").textContent = `${view.smoothing} % of a stage`;
    drawSoon(linked().filter(name => figures[name].options.smooth));
  };
}

/* Tables that are wider than the screen begin at their last column, and show that there is more. */
function scrollers() {
  for (const box of find(".scroll")) {
    const cue = () => {
      box.classList.toggle("more-left", box.scrollLeft > 2);
      box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    };
    box.onscroll = cue;
    new ResizeObserver(cue).observe(box);
    if (box.classList.contains("from-end")) box.scrollLeft = box.scrollWidth;
    cue();
  }
}

function begin() {
  figures = read("figures") ?? {};
  tables = read("axes") ?? [];
  groups = read("groups") ?? {};
  draw();
  for (const name of Object.keys(figures)) { listen(name); tools(name); legend(name); }
  scrollers();
}

/* The section that is read is marked in the contents. */
function follow() {
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries.filter(one => one.isIntersecting)) {
      find("nav a").forEach(link => {
        if (link.hash === `#${entry.target.id}`) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    }
  }, {rootMargin: "-10% 0px -80% 0px"});
  find("section[id]").forEach(section => seen.observe(section));
}

/* A served page asks for its content again, and keeps what the reader has chosen. */
async function refresh() {
  const state = document.querySelector(".live");
  try {
    const answer = await fetch(`${location.pathname}?${new URLSearchParams({
      ...Object.fromEntries(new URLSearchParams(location.search)), since: read("version")})}`);
    if (answer.status === 200) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = find("main details[open] > summary").map(one => one.textContent);
      const checked = find("main input:checked").map(one => one.value);
      for (const part of ["main", "nav", "#figures", "#axes", "#version"]) {
        document.querySelector(part).replaceWith(page.querySelector(part));
      }
      find("main details > summary").filter(one => open.includes(one.textContent))
        .forEach(one => (one.parentNode.open = true));
      find("main input").forEach(one => (one.checked = checked.includes(one.value)));
      begin();
    }
    state.textContent = `live, looked at ${new Date().toLocaleTimeString()}`;
  } catch {
    state.textContent = "the server does not answer";
  }
}

find("form.all").forEach(control);
if (!wideEnough.matches) find(".controls").forEach(one => (one.open = false));
begin();
follow();
for (const media of [dark, wideEnough]) media.addEventListener("change", () => draw());
if (document.body.dataset.live) setInterval(refresh, 1000 * Number(document.body.dataset.live));
