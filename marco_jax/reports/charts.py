"""The charts of a report, as plotly figures in plain dicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_jax.evaluation.builtin_tasks import TASKS
from marco_jax.evaluation.results import HIGH, LOW
from marco_jax.reports.run_data import RunData, group_of, is_of_source, name_of

Figure = dict[str, Any]

# Tones that stand out on white and on near-black alike.
COLOURS = {
    "english": "#8b5fd6",
    "high": "#2f86d6",
    "low": "#e0762f",
    "other": "#2f9e6b",
    "average": "#8a8f98",
}
GROUP_NAMES = {
    "english": "English",
    "high": "High-resource",
    "low": "Low-resource",
    "other": "Other sources",
}
STAGE_COLOURS = ("#8a8f98", "#2f86d6", "#e0762f", "#2f9e6b", "#8b5fd6")
POINTS = 300


def bits_per_byte(run: RunData) -> Figure | None:
    """Held-out bits per byte of each language over steps, and the means of both groups."""
    traces, shown = [], set()
    for code in run.languages("bits_per_byte"):
        group = group_of(code)
        trace = _evaluation_trace(run, "bits_per_byte", code, name_of(code))
        thin = group != "english"
        trace.update(
            mode="lines+markers",
            line={"color": COLOURS[group], "width": 1 if thin else 2.5},
            marker={"size": 3 if thin else 6},
            opacity=0.45 if thin else 1,
            legendgroup=group,
            showlegend=False,
        )
        traces.append(trace)
        shown.add(group)
    for group in [g for g in GROUP_NAMES if g in shown]:
        traces.append(_legend_entry(GROUP_NAMES[group], COLOURS[group], group))
    for group in (HIGH, LOW):
        trace = _evaluation_trace(run, "bits_per_byte", group, f"{GROUP_NAMES[group]} mean")
        trace.update(
            mode="lines+markers", line={"color": COLOURS[group], "width": 4}, marker={"size": 8}
        )
        traces.append(trace)
    return over_steps(run, traces, "bits per byte", "%{y:.3f}")


def task_means(run: RunData, task: str, axis: str) -> Figure | None:
    """Both groups' means of a task's headline metric over steps, with standard errors."""
    traces = []
    for group in (HIGH, LOW):
        trace = _evaluation_trace(run, task, group, GROUP_NAMES[group])
        errors = [result.stderr for _, result in run.series(task, TASKS[task].metrics[0], group)]
        trace.update(
            mode="lines+markers",
            line={"color": COLOURS[group], "width": 3},
            marker={"size": 8},
            error_y={"type": "data", "array": _plain(errors), "thickness": 1.5, "width": 4},
        )
        traces.append(trace)
    chance = TASKS[task].chance
    figure = over_steps(run, traces, axis, "%{y:.1%}" if chance else "%{y:.1f}")
    if figure and chance:
        figure["layout"]["yaxis"]["tickformat"] = ".0%"
        figure["layout"]["shapes"].append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": chance, "y1": chance,
             "line": {"color": COLOURS["average"], "width": 1.5, "dash": "dash"}}
        )  # fmt: skip
        figure["layout"]["annotations"].append(
            {"xref": "paper", "x": 1, "y": chance, "yanchor": "bottom", "xanchor": "right",
             "text": f"chance {chance:.0%}", "showarrow": False}
        )  # fmt: skip
    return figure


def training_loss(run: RunData) -> Figure | None:
    """Training loss of each source over steps, smoothed by its tokens within each stage."""
    sources = _sources(run)
    groups = sorted({group_of(s) for s in sources}, key=list(GROUP_NAMES).index)
    traces = []
    for source in sources:
        group = group_of(source)
        steps, losses = smoothed(run, f"loss/{source}", f"tokens/{source}")
        traces.append(
            trace_of(name_of(source), steps, losses)
            | {
                "mode": "lines",
                "line": {"color": COLOURS[group], "width": 2 if group == "english" else 1},
                "opacity": 1 if group in ("english", "other") else 0.5,
                "legendgroup": group,
                "showlegend": False,
            }
        )
    traces += [_legend_entry(GROUP_NAMES[g], COLOURS[g], g) for g in groups]
    steps, losses = smoothed(run, "loss", None)
    traces.append(
        trace_of("All tokens", steps, losses)
        | {"mode": "lines", "line": {"color": COLOURS["average"], "width": 3}}
    )
    return over_steps(run, traces, "loss, nats per token", "%{y:.3f}")


def metric_curve(run: RunData, metric: str, axis: str, number: str) -> Figure | None:
    """One field of the metrics over steps; `number` is a d3 format."""
    rows = [row for row in run.metrics if isinstance(row.get(metric), int | float)]
    rows = [rows[i] for i in thinned(len(rows))]
    trace = trace_of(axis, [row["step"] for row in rows], [row[metric] for row in rows])
    trace.update(mode="lines", line={"color": COLOURS["high"], "width": 2}, showlegend=False)
    figure = over_steps(run, [trace], axis, "%{y:" + number + "}")
    if figure:
        figure["layout"]["yaxis"].update(tickformat=number, rangemode="tozero")
    return figure


def mixture(run: RunData) -> Figure | None:
    """Share of each source, asked for (open) and realised (filled), a colour a stage."""
    realised = realised_shares(run)
    found = {source for stage in run.stages for source in stage.shares} | set(_sources(run))
    largest = {
        source: max((stage.shares.get(source, 0.0) for stage in run.stages), default=0.0)
        for source in found
    }
    sources = sorted(found, key=lambda source: (-largest[source], source))
    labels = [name_of(source) for source in sources]
    traces = []
    for number, stage in enumerate(run.stages):
        colour = STAGE_COLOURS[number % len(STAGE_COLOURS)]
        for kind, shares, symbol in (
            ("asked", stage.shares, "circle-open"),
            ("realised", realised.get(stage.name, {}), "circle"),
        ):
            if not shares:
                continue
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{stage.label} {kind}",
                    "x": [shares.get(source) or None for source in sources],
                    "y": labels,
                    "marker": {
                        "color": colour,
                        "symbol": symbol,
                        "size": 11 if kind == "asked" else 5,
                        "line": {"width": 2 if kind == "asked" else 0, "color": colour},
                    },
                    "hovertemplate": f"%{{y}}, {stage.label} {kind}: %{{x:.2%}}<extra></extra>",
                }
            )
    if not traces:
        return None
    return {
        "data": traces,
        "layout": {
            "height": 140 + 19 * len(sources),
            "xaxis": {"type": "log", "tickformat": "~p", "title": {"text": "share of tokens"},
                      "dtick": "D2", "side": "top"},
            "yaxis": {"autorange": "reversed", "automargin": True, "dtick": 1},
            "hovermode": "closest",
        },
    }  # fmt: skip


def realised_shares(run: RunData) -> dict[str, dict[str, float]]:
    """Share of the target tokens that each source had so far, by stage."""
    shares = {}
    for stage in run.stages:
        counts: dict[str, float] = {}
        for row in run.metrics:
            if stage.first_step < row["step"] <= stage.last_step:
                for key, value in row.items():
                    if is_of_source(key, "tokens") and value:
                        source = key.removeprefix("tokens/")
                        counts[source] = counts.get(source, 0) + value
        total = sum(counts.values())
        shares[stage.name] = {source: count / total for source, count in counts.items()}
    return shares


def _sources(run: RunData) -> list[str]:
    keys = {key for row in run.metrics for key in row if is_of_source(key, "loss")}
    return sorted(key.removeprefix("loss/") for key in keys)


def _evaluation_trace(run: RunData, task: str, language: str, name: str) -> Figure:
    series = run.series(task, TASKS[task].metrics[0], language)
    return trace_of(name, [step for step, _ in series], [result.value for _, result in series])


def trace_of(name: str, x: Sequence[float], y: Sequence[float]) -> Figure:
    """A scatter trace; values that are not finite are gaps."""
    return {"type": "scatter", "name": name, "x": _plain(x), "y": _plain(y)}


def _legend_entry(name: str, colour: str, group: str) -> Figure:
    """A trace without points: shows a group of thin lines in the legend, and toggles it."""
    return trace_of(name, [None], [None]) | {
        "mode": "lines",
        "line": {"color": colour, "width": 1.5},
        "legendgroup": group,
    }


def over_steps(run: RunData, traces: list[Figure], axis: str, number: str) -> Figure | None:
    """A figure with steps on the x axis and the stages marked; None without any point."""
    traces = [trace for trace in traces if trace["x"]]
    if not any(value is not None for trace in traces for value in trace["y"]):
        return None
    for trace in traces:
        trace["hovertemplate"] = f"%{{fullData.name}}: {number}, step %{{x:,}}<extra></extra>"
    last = max(value for trace in traces for value in trace["x"] if value is not None)
    lines, labels = [], []
    for stage in run.stages:
        end = min(stage.last_step, last)
        if stage.first_step >= last:
            break
        labels.append(
            {"x": (stage.first_step + end) / 2, "yref": "paper", "y": 1, "yanchor": "bottom",
             "text": stage.label, "showarrow": False}
        )  # fmt: skip
        if end < last:
            lines.append(
                {"type": "line", "x0": end, "x1": end, "yref": "paper", "y0": 0, "y1": 1,
                 "line": {"color": COLOURS["average"], "width": 1, "dash": "dot"}}
            )  # fmt: skip
    return {
        "data": traces,
        "layout": {
            "height": 420,
            "shapes": lines,
            "annotations": labels,
            "xaxis": {"title": {"text": "step"}, "range": [-0.02 * last, 1.02 * last]},
            "yaxis": {"title": {"text": axis}, "automargin": True},
            "hovermode": "closest",
        },
    }


def smoothed(run: RunData, metric: str, weight: str | None) -> tuple[list[int], list[float | None]]:
    """Weighted means in centred windows of a twentieth of a stage, never across stages."""
    steps: list[int] = []
    means: list[float | None] = []
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
        for place in thinned(len(rows)):
            low, high = max(0, place - half), min(len(rows), place + half + 1)
            count = counts[high] - counts[low]
            steps.append(rows[place]["step"])
            means.append((sums[high] - sums[low]) / count if count else None)
    seen = [n for n, value in enumerate(means) if value is not None]
    return [steps[n] for n in seen], [means[n] for n in seen]


def thinned(count: int) -> list[int]:
    """At most POINTS indices below `count`, evenly spread, both ends kept."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)).tolist()


def _plain(values: Sequence[float | None]) -> list[float | None]:
    """Numbers that JSON can hold; what is not finite becomes a gap."""
    return [None if value is None or not math.isfinite(value) else value for value in values]
