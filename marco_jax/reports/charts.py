"""The charts of all pages, as plain dicts that plotly draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.evaluation.results import HIGH, LOW
from marco_jax.reports.run_data import RunData, StageSpan, group_of, name_of, realised_shares
from marco_jax.reports.summary import style_of

Figure = dict[str, Any]
# Gives the steps and the values of a run.
Curve = Callable[[RunData], tuple[Sequence, Sequence]]

# Tones that stand out on white and on near-black alike, for runs or stages in one chart: the grey
# first one is what the others are compared with.
PALETTE = ("#8a8f98", "#2f86d6", "#e0762f", "#2f9e6b", "#8b5fd6", "#c2410c")
COLOURS = dict(zip(("average", "high", "low", "other", "english"), PALETTE, strict=False))
GROUP_NAMES = {
    "english": "English",
    "high": "High-resource",
    "low": "Low-resource",
    "other": "Other sources",
}
# A vertical axis of labels, the first one on top.
LIST_AXIS = {"autorange": "reversed", "dtick": 1}
ERROR_BARS = {"type": "data", "thickness": 1.5, "width": 4}
# Most points of a line.
POINTS = 300
_TIMES = ("step_seconds", "input_seconds")


def line(
    name: str,
    x: Sequence,
    y: Sequence,
    colour: str | None = None,
    width: float = 2,
    marker: float = 0,
    **more: Any,
) -> Figure:
    """A line, with markers of a size above 0; values that are not finite are gaps.

    `more` are further fields of the plotly trace.
    """
    mode = "lines+markers" if marker else "lines"
    trace = {"type": "scatter", "mode": mode, "name": name, "x": _finite(x), "y": _finite(y)}
    trace["line"] = {"color": colour, "width": width} if colour else {"width": width}
    return trace | ({"marker": {"size": marker}} if marker else {}) | more


def bars(
    name: str, values: Mapping[str, float], colour: str, number: str, ends: Mapping | None = None
) -> Figure:
    """Bars by label. `number` is a d3 format, `ends` are the intervals around the values."""
    trace = {
        "type": "bar",
        "name": name,
        "x": list(values),
        "y": list(values.values()),
        "marker": {"color": colour},
        "hovertemplate": f"%{{x}}, %{{fullData.name}}: %{{y:{number}}}<extra></extra>",
    }
    if ends:
        above = [ends[label][1] - value for label, value in values.items()]
        below = [value - ends[label][0] for label, value in values.items()]
        trace["error_y"] = ERROR_BARS | {"array": above, "arrayminus": below, "symmetric": False}
    return trace


def scatter(name: str, x: Sequence, y: Sequence, hover: str, **marker: Any) -> Figure:
    """Markers without a line. `hover` is what plotly shows of one."""
    trace = {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}
    return trace | {"hovertemplate": f"{hover}<extra></extra>"}


def heat_map(estimates: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure | None:
    """Estimates in per cent by row and column: blue is below zero, a dot marks sure ones.

    An estimate is followed by the ends of its interval.
    """
    cells = [list(row.values()) for row in estimates.values()]
    most = max((abs(value) for row in cells for value, _, _ in row), default=1.0) or 1.0
    trace = {
        "type": "heatmap",
        "x": list(next(iter(estimates.values()), ())),
        "y": list(estimates),
        "z": [[value for value, _, _ in row] for row in cells],
        "text": [["" if low <= 0 <= high else "•" for _, low, high in row] for row in cells],
        "texttemplate": "%{text}",
        "customdata": [[f"{low:+.3f} to {high:+.3f}" for _, low, high in row] for row in cells],
        "zmin": -most,
        "zmax": most,
        "colorscale": [[0, COLOURS["high"]], [0.5, "#f2f2f2"], [1, COLOURS["low"]]],
        "colorbar": {"title": {"text": "%"}},
        "hovertemplate": "%{x} on %{y}: %{z:+.3f}% (%{customdata})<extra></extra>",
        "showlegend": False,
    }
    traces = [trace] if cells else []
    return chart(traces, 180 + 26 * len(cells), {"automargin": True}, LIST_AXIS)


def axis(title: str, number: str = "", **more: Any) -> Figure:
    """A titled axis. `number` is a d3 format, `more` are further fields of the plotly axis."""
    return {"title": {"text": title}} | ({"tickformat": number} if number else {}) | more


def chart(
    traces: Sequence[Figure], height: int, x: Figure, y: Figure, **layout: Any
) -> Figure | None:
    """Traces between two axes; None without a trace."""
    layout |= {"height": height, "xaxis": x, "yaxis": y}
    return {"data": list(traces), "layout": layout} if traces else None


def over_steps(
    traces: Iterable[Figure], hover: str, y: Figure, stages: Sequence[StageSpan]
) -> Figure | None:
    """Traces over steps with the stages marked; None without any value.

    `hover` is how a value is shown, such as "%{y:.3f}"; `y` is the vertical axis.
    """
    traces = [trace for trace in traces if trace["x"]]
    if not any(value is not None for trace in traces for value in trace["y"]):
        return None
    for trace in traces:
        trace["hovertemplate"] = f"%{{fullData.name}}: {hover}, step %{{x:,}}<extra></extra>"
    last = max(value for trace in traces for value in trace["x"] if value is not None)
    begun = [stage for stage in stages if stage.first_step < last]
    dotted = {"color": COLOURS["average"], "width": 1, "dash": "dot"}
    ends = [
        {"type": "line", "x0": end, "x1": end, "yref": "paper", "y0": 0, "y1": 1, "line": dotted}
        for end in [stage.last_step for stage in begun]
        if end < last
    ]
    labels = [
        {"x": (stage.first_step + min(stage.last_step, last)) / 2, "text": stage.label}
        | {"yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
        for stage in begun
    ]
    x = axis("step", range=[-0.02 * last, 1.02 * last])
    return chart(traces, 420, x, y, shapes=ends, annotations=labels)


def runs_over_steps(
    runs: Sequence[RunData], curve: Curve, title: str, number: str, marker: float = 0
) -> Figure | None:
    """A line for each run through the steps and values that `curve` gives.

    The stages of the longest run are marked.
    """
    traces = [
        line(run.name, *curve(run), colour, 3 if marker else 2, marker)
        for run, colour in zip(runs, itertools.cycle(PALETTE), strict=False)
    ]
    longest = max(runs, key=lambda run: run.stages[-1].last_step if run.stages else 0)
    return over_steps(traces, f"%{{y:{number}}}", axis(title), longest.stages)


def evaluation_chart(
    run: RunData, task: str, metric: str, title: str, *, means_only: bool = False, chance: float = 0
) -> Figure | None:
    """A metric of a task over steps: thin lines for languages, thick ones for group means.

    Means have bars of one standard error, except bits per byte: they are always measured on the
    same texts. `chance` is marked unless it is 0.
    """
    traces = _with_legend(
        _source_line(code, *run.curve(task, metric, code), marker=6 if code == "en" else 3)
        for code in ([] if means_only else run.languages(task))
    )
    for group in (HIGH, LOW):
        steps, values = run.curve(task, metric, group)
        means = line(f"{GROUP_NAMES[group]} mean", steps, values, COLOURS[group], 4, 8)
        if metric != "bits_per_byte":
            errors = run.curve(task, metric, group, "stderr")[1]
            means["error_y"] = ERROR_BARS | {"array": _finite(errors)}
        traces.append(means)
    style = style_of(metric, [y for trace in traces for y in trace["y"] if y is not None])
    steps = [step for trace in traces for step in trace["x"] if step is not None]
    if steps and chance:
        ends = [min(steps), max(steps)]
        traces.append(line(f"chance {chance:.0%}", ends, [chance] * 2, COLOURS["average"], 1.5))
        traces[-1]["line"]["dash"] = "dash"
    number = {"relative": ".3f", "share": ".1%", "points": ".2f"}[style]
    y = axis(title, ".0%" if style == "share" else "")
    return over_steps(traces, f"%{{y:{number}}}", y, run.stages)


def training_loss(run: RunData) -> Figure | None:
    """Training loss of each source over steps, smoothed by its tokens within each stage."""
    traces = _with_legend(
        _source_line(source, *smoothed(run, f"loss/{source}", f"tokens/{source}"))
        for source in run.sources()
    )
    traces.append(line("All tokens", *smoothed(run, "loss"), COLOURS["average"], 3))
    return over_steps(traces, "%{y:.3f}", axis("loss, nats per token"), run.stages)


def metric_by_label(run: RunData, metric: str, title: str, number: str) -> Figure | None:
    """A metric of sampled answers or of preferences over steps: by source or language, and of all.

    It is smoothed within each stage. `number` is a d3 format. None where no line has the metric.
    """
    keys = sorted({key for row in run.metrics for key in row if key.startswith(f"{metric}/")})
    split = [key for key in keys if key.count("/") > 1] or keys
    traces = _with_legend(
        _source_line(key.rpartition("/")[2], *smoothed(run, key)) for key in split
    )
    traces.append(line("All", *smoothed(run, metric), COLOURS["average"], 3))
    return over_steps(traces, f"%{{y:{number}}}", axis(title, number), run.stages)


def metric_curve(run: RunData, metric: str, title: str, number: str) -> Figure | None:
    """One field of the metrics over steps. `number` is a d3 format."""
    trace = _metric_line(run, title, COLOURS["high"], float, metric) | {"showlegend": False}
    y = axis(title, number, rangemode="tozero")
    return over_steps([trace], f"%{{y:{number}}}", y, run.stages)


def step_times(run: RunData) -> Figure | None:
    """Seconds of a step over steps: the wait for input and the rest, stacked."""
    rest = _metric_line(run, "computing", COLOURS["high"], lambda a, b: max(a - b, 0.0), *_TIMES)
    wait = _metric_line(run, "waiting for input", COLOURS["low"], lambda a, b: b, *_TIMES)
    traces = [trace | {"stackgroup": "time"} for trace in (rest, wait)]
    return over_steps(traces, "%{y:.3~s}s", axis("seconds a step"), run.stages)


def padding_and_waits(run: RunData) -> Figure | None:
    """Padding as a share of a batch, and the wait for input as a share of a step."""
    traces = [
        _metric_line(run, "padding", COLOURS["average"], float, "padding"),
        _metric_line(run, "waiting for input", COLOURS["low"], _ratio, *reversed(_TIMES)),
    ]
    return over_steps(traces, "%{y:.2%}", axis("share", ".1~%", rangemode="tozero"), run.stages)


def shares_by_stage(run: RunData) -> Figure | None:
    """The share of each source, a colour for each stage: asked for (rings) and realised (dots)."""
    realised = realised_shares(run)
    largest = dict.fromkeys(run.sources(), 0.0)
    for stage in run.stages:
        for source, share in stage.shares.items():
            largest[source] = max(largest.get(source, 0.0), share)
    sources = sorted(largest, key=lambda source: (-largest[source], source))
    traces = []
    for stage, colour in zip(run.stages, itertools.cycle(PALETTE), strict=False):
        ring = {"symbol": "circle-open", "size": 11, "line": {"width": 2, "color": colour}}
        asked = ("asked", stage.shares, ring)
        for kind, shares, marker in (asked, ("realised", realised[stage.name], {"size": 5})):
            name = f"{stage.label} {kind}"
            x = [shares.get(source) or None for source in sources]
            hover = f"%{{y}}, {name}: %{{x:.2%}}"
            traces.append(scatter(name, x, [*map(name_of, sources)], hover, color=colour, **marker))
    traces = [trace for trace in traces if any(trace["x"])]
    x = axis("share of tokens", "~p", type="log", dtick="D2", side="top")
    return chart(traces, 140 + 19 * len(sources), x, LIST_AXIS)


def smoothed(run: RunData, metric: str, weight: str | None = None) -> tuple[list[int], list[float]]:
    """Weighted means in centred windows of a twentieth of a stage, never across stages."""
    steps: list[int] = []
    means: list[float] = []
    spans = [(s.first_step, s.last_step) for s in run.stages] or [(-1, math.inf)]
    for first, last in spans:
        rows = [row for row in run.metrics if first < row["step"] <= last]
        weights = np.array([row.get(weight) or 0 if weight else 1.0 for row in rows], np.float64)
        # A step that was skipped has no loss.
        weights *= [row.get(metric) is not None for row in rows]
        values = np.array([row.get(metric) or 0.0 for row in rows], np.float64)
        sums = np.cumsum([0.0, *(values * weights)])
        counts = np.cumsum([0.0, *weights])
        half = len(rows) // 40
        for centre in thinned(range(len(rows))):
            low, high = max(0, centre - half), min(len(rows), centre + half + 1)
            if count := counts[high] - counts[low]:
                steps.append(rows[centre]["step"])
                means.append((sums[high] - sums[low]) / count)
    return steps, means


def thinned(items: Sequence) -> list:
    """At most POINTS of the items, evenly spread, with the first and the last one."""
    count = len(items)
    chosen = np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)
    return [items[n] for n in np.unique(chosen).tolist()]


def _metric_line(
    run: RunData, label: str, colour: str, value: Callable[..., float], *names: str
) -> Figure:
    """A line through the values that a function gives for these fields of the metrics."""
    rows = thinned(run.rows_with(*names))
    values = [value(*(row[name] for name in names)) for row in rows]
    return line(label, [row["step"] for row in rows], values, colour)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _source_line(source: str, x: Sequence, y: Sequence, **more: Any) -> Figure:
    """A line of a language or source, in the colour of its group and without a legend entry."""
    group = group_of(source)
    style = {"opacity": 0.5 if group in (HIGH, LOW) else 1, "legendgroup": group}
    width = 2.5 if group == "english" else 1
    return line(name_of(source), x, y, COLOURS[group], width, showlegend=False, **style, **more)


def _with_legend(lines: Iterable[Figure]) -> list[Figure]:
    """The lines, and for each of their groups an entry in the legend that toggles the group."""
    lines = list(lines)
    groups = {trace["legendgroup"] for trace in lines}
    return lines + [
        line(label, [None], [None], COLOURS[group], 1.5, legendgroup=group)
        for group, label in GROUP_NAMES.items()
        if group in groups
    ]


def _finite(values: Sequence) -> list:
    """Numbers that JSON has; what is not finite becomes a gap."""
    return [
        None if isinstance(value, float) and not math.isfinite(value) else value for value in values
    ]
