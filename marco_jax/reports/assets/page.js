/* Answers what a reader does: the controls of a page, its legends, tables and live content. */

/* A click on a point of a chart with rows marks the point's row, and the other way round. */
function choosePoint(name, n) {
  if (!figures[name].options?.rows) return;
  find(`[data-row-of="${name}"]`).forEach((row, k) => row.classList.toggle("chosen", k === n));
  const size = figures[name].data[0].marker?.size ?? 6;
  const sizes = figures[name].data[0].x.map((_, k) => (k === n ? 2 * size : size));
  Plotly.restyle(name, {"marker.size": [sizes]}, [0]);
  find(`[data-row-of="${name}"]`)[n]?.scrollIntoView({block: "nearest"});
}

function rowsOf(name) {
  find(`[data-row-of="${name}"]`).forEach((row, n) => {
    row.tabIndex = 0;
    row.onclick = () => choosePoint(name, n);
    row.onkeydown = event => { if (event.key === "Enter") choosePoint(name, n); };
  });
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
  for (const name of Object.keys(figures)) {
    listen(name);
    tools(name);
    legend(name);
    rowsOf(name);
  }
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
