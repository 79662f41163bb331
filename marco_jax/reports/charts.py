"""The charts of all pages, as plain dicts that assets/charts.js draws with plotly.

A chart is {"data": traces, "layout": ..., "options": ...}. The first two are plotly's. The options,
and the `meta` of each trace, are read by assets/charts.js:

- `options.over = "steps"`: x are steps, which the page shows as steps, tokens or hours; such charts
  share their zoom and their cursor. `options.stages`, of run `options.run`, are marked in them.
- `options.log`: the vertical axis can be made logarithmic.
- `options.choices`: labels of several charts in one, from which a list chooses; a trace belongs to
  the one that `meta.choice` numbers. `options.titles` are the titles of their vertical axes.
- `meta.group`: the trace is switched with its group, and on its own.
- `meta.weights` and `meta.cuts`: the page smooths the trace by these weights, and never across a
  cut, which is the index of the first value of a stage.
- `meta.run`: the number of the trace's run, whose tokens and hours count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marco_jax.reports.run_data import StageSpan

Figure = dict[str, Any]

# Tones that stand out on white and on near-black alike, for runs or stages in one chart: the grey
# first one is what the others are compared with.
PALETTE = (
    *("#8a8f98", "#2f86d6", "#e0762f", "#2f9e6b", "#8b5fd6", "#c2410c", "#d6457f", "#b08900"),
)
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
    trace = {"type": "scatter", "mode": mode, "name": name, "x": finite(x), "y": finite(y)}
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


def heat_map(
    rows: Mapping[str, Sequence[float | None]],
    columns: Sequence,
    hover: str,
    *,
    centre: float | None = None,
    better: str = "high",
    texts: Sequence[Sequence[str]] | None = None,
    **more: Any,
) -> Figure:
    """The trace of a heat map: a row of cells for each label, None for an empty cell.

    Args:
        rows: the cells of each label, in the order of the columns; the first label is on top.
        columns: labels of the columns, or steps.
        hover: what plotly shows of a cell.
        centre: a value that is drawn pale: better ones are blue, worse ones orange. By default
            higher values are a darker blue.
        better: "high" or "low" values.
        texts: texts of the cells.
        more: further fields of the plotly trace.
    """
    values = [v for row in rows.values() for v in row if v is not None and math.isfinite(v)]
    trace = {
        "type": "heatmap",
        "x": list(columns),
        "y": list(rows),
        "z": [finite(row) for row in rows.values()],
        "hovertemplate": f"{hover}<extra></extra>",
        "hoverongaps": False,
        "showlegend": False,
        "xgap": 1,
        "ygap": 1,
    }
    blue, orange = COLOURS["high"], COLOURS["low"]
    if centre is None:
        trace["colorscale"] = [[0, "#dbe9f6"], [1, "#1c5c9c"]]
    else:
        most = max((abs(value - centre) for value in values), default=1.0) or 1.0
        ends = (orange, blue) if better == "high" else (blue, orange)
        trace["colorscale"] = [[0, ends[0]], [0.5, "#f2f2f2"], [1, ends[1]]]
        trace |= {"zmin": centre - most, "zmax": centre + most}
    if texts is not None:
        trace |= {"text": [list(row) for row in texts], "texttemplate": "%{text}"}
    return trace | more


def axis(title: str, number: str = "", **more: Any) -> Figure:
    """A titled axis. `number` is a d3 format, `more` are further fields of the plotly axis."""
    return {"title": {"text": title}} | ({"tickformat": number} if number else {}) | more


def chart(
    traces: Sequence[Figure], height: int, x: Figure, y: Figure, **options: Any
) -> Figure | None:
    """Traces between two axes; None without a trace. `options` are read by assets/charts.js."""
    layout = {"height": height, "xaxis": x, "yaxis": y}
    return {"data": list(traces), "layout": layout, "options": options} if traces else None


def over_steps(
    traces: Iterable[Figure],
    hover: str,
    y: Figure,
    stages: Sequence[StageSpan],
    height: int = 400,
    **options: Any,
) -> Figure | None:
    """Traces over steps with the stages marked; None without any value.

    `hover` is how a value is shown, such as "%{y:.3f}"; `y` is the vertical axis.
    """
    traces = [trace for trace in traces if trace["x"]]
    if not any(value is not None for trace in traces for value in trace["y"]):
        return None
    for trace in traces:
        # The page puts the unit of x for the word UNIT.
        shown = f"%{{fullData.name}}: {hover}, UNIT %{{x:,}}<extra></extra>"
        trace.setdefault("hovertemplate", shown)
    last = max(value for trace in traces for value in trace["x"] if value is not None)
    begun = [
        {"first": stage.first_step, "last": min(stage.last_step, last), "label": stage.label}
        for stage in stages
        if stage.first_step < last
    ]
    options = {"over": "steps", "stages": begun, **options}
    return chart(traces, height, axis("step"), y, **options)


def finite(values: Sequence) -> list:
    """Numbers that JSON has, with six significant digits; what is not finite becomes a gap."""
    return [_short(value) if isinstance(value, float) else value for value in values]


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
