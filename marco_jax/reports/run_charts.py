"""The charts of a run, over steps and by source."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from marco_jax.evaluation.builtin_tasks import TASKS
from marco_jax.evaluation.results import AVERAGES, HIGH, LOW
from marco_jax.reports.charts import (
    COLOURS,
    ERROR_BARS,
    GROUP_NAMES,
    LIST_AXIS,
    PALETTE,
    Figure,
    axis,
    chart,
    finite,
    heat_map,
    line,
    over_steps,
    scatter,
)
from marco_jax.reports.labels import metric_label, task_label
from marco_jax.reports.run_data import RunData, group_of, is_of_source, name_of, realised_shares
from marco_jax.reports.summary import style_of

# Most points of a line over steps.
POINTS = 300
# How values of a style are shown, and the ticks of their axis (d3 formats).
NUMBERS = {"relative": (".3f", ""), "share": (".1%", ".0%"), "points": (".2f", "")}
_TIMES = ("step_seconds", "input_seconds")
_GIB = 2.0**30


def binned(run: RunData, metric: str, weight: str | None = None) -> dict[str, Any]:
    """A metric over steps in at most POINTS parts: the weighted mean of each, at its middle step.

    No part crosses the end of a stage. Rows without the metric, such as skipped steps, are left
    out. The page smooths what it gets, by `weights` and between `cuts` (see `charts`).

    Args:
        run: whose rows of metrics are read.
        metric: a field of the rows.
        weight: another field, the weight of a row, such as its tokens; by default rows are equal.

    Returns:
        "x", "y", and "meta" with "weights" and "cuts": fields of a plotly trace.
    """
    values, steps = run.column(metric), run.column("step")
    weights = np.nan_to_num(run.column(weight)) if weight else np.ones(len(values))
    known = ~np.isnan(values)
    stages = [run.rows_of(stage) for stage in run.stages] or [np.full(len(values), True)]
    x, y, sums, cuts = [], [], [], []
    for inside in stages:
        (rows,) = np.nonzero(inside & known)
        if not len(rows):
            continue
        cuts.append(len(x))
        count = min(len(rows), max(2, round(POINTS * len(rows) / known.sum())))
        for part in np.array_split(rows, count):
            if total := weights[part].sum():
                x.append(int(steps[part[(len(part) - 1) // 2]]))
                y.append(float((values[part] * weights[part]).sum() / total))
                sums.append(float(total))
    return {"x": x, "y": finite(y), "meta": {"weights": finite(sums), "cuts": cuts}}


def axis_table(run: RunData) -> dict[str, list[float]]:
    """Steps with the target tokens and the hours until then, for axes in another unit than steps.

    Hours are those of steps, compilation, evaluation and checkpoints, over all attempts.
    """
    hours = np.cumsum(sum(run.seconds_of_rows().values())) / 3600
    # A row without tokens, such as one of an older run, has those of the row before.
    tokens = np.maximum.accumulate(np.nan_to_num(run.column("tokens")))
    table = {"step": run.column("step").astype(int), "tokens": tokens.astype(int), "hours": hours}
    chosen = thinned(range(len(run.metrics)))
    return {unit: [0, *finite(values[chosen].tolist())] for unit, values in table.items()}


def main_tasks(run: RunData) -> list[tuple[str, list[str]]]:
    """The tasks of a run besides held-out text, each with its metrics, the main one first."""
    found: dict[str, list[str]] = {}
    for results in run.evaluations.values():
        for task, metric, _ in results:
            if task != "bits_per_byte" and metric not in found.setdefault(task, []):
                found[task].append(metric)
    for task, metrics in found.items():
        if task in TASKS:
            order = {name: n for n, name in enumerate(TASKS[task].metrics)}
            metrics.sort(key=lambda name: order.get(name, len(order)))
    return list(found.items())


def evaluation_chart(run: RunData, task: str, metrics: Sequence[str]) -> Figure | None:
    """The metrics of a task over steps, of which the page shows one: languages and group means.

    Means have bars of one standard error, except bits per byte: they are always measured on the
    same texts. The value of guessing is marked where it is known.
    """
    traces, titles, labels = [], [], []
    for number, metric in enumerate(metrics):
        own = _evaluation_traces(run, task, metric)
        style = style_of(metric, [y for trace in own for y in trace["y"] if y is not None])
        shown, ticks = NUMBERS[style]
        for trace in own:
            trace["meta"] = {**trace.get("meta", {}), "choice": number}
            hover = f"%{{fullData.name}}: %{{y:{shown}}}, UNIT %{{x:,}}<extra></extra>"
            trace["hovertemplate"] = hover
        traces += own
        labels.append(metric_label(metric))
        titles.append({"text": metric_label(metric).lower(), "format": ticks})
    y = axis(titles[0]["text"], titles[0]["format"])
    return over_steps(traces, "%{y}", y, run.stages, log=True, choices=labels, titles=titles)


def _evaluation_traces(run: RunData, task: str, metric: str) -> list[Figure]:
    traces = [
        _source_line(code, run.curve(task, metric, code), marker=6 if code == "en" else 3)
        for code in run.languages(task)
    ]
    for group in AVERAGES[::-1]:
        steps, values = run.curve(task, metric, group)
        if group not in (HIGH, LOW) and (len(run.languages(task)) < 2 or task == "bits_per_byte"):
            continue
        name = f"{GROUP_NAMES[group]} mean" if group in (HIGH, LOW) else "Mean"
        means = line(name, steps, values, COLOURS.get(group, COLOURS["average"]), 4, 8)
        if metric != "bits_per_byte":
            errors = run.curve(task, metric, group, "stderr")[1]
            means["error_y"] = ERROR_BARS | {"array": finite(errors)}
        traces.append(means)
    steps = [step for trace in traces for step in trace["x"]]
    chance = TASKS[task].chance if task in TASKS and metric == TASKS[task].metrics[0] else None
    if steps and chance:
        ends = [min(steps), max(steps)]
        traces.append(line(f"Guessing, {chance:.0%}", ends, [chance] * 2, COLOURS["average"], 1.5))
        traces[-1]["line"]["dash"] = "dash"
    return [trace for trace in traces if trace["x"]]


def evaluation_map(run: RunData) -> Figure | None:
    """Languages by evaluated steps, a task at a time: bits per byte as changes from the first."""
    traces, labels = [], []
    keys = [("bits_per_byte", "bits_per_byte")]
    keys += [(task, metrics[0]) for task, metrics in main_tasks(run)]
    for task, metric in keys:
        codes = run.languages(task)
        curves = {code: dict(zip(*run.curve(task, metric, code), strict=True)) for code in codes}
        steps = sorted({step for curve in curves.values() for step in curve})
        if len(steps) < 2 or len(codes) < 2:
            continue
        relative = metric == "bits_per_byte"
        style = style_of(metric, [v for curve in curves.values() for v in curve.values()])
        rows = {name_of(code): _cells(curves[code], steps, relative) for code in codes}
        hover = f"%{{y}}, UNIT %{{x}}: %{{z:{'+.2%' if relative else NUMBERS[style][0]}}}"
        traces.append(
            heat_map(
                *(rows, [f"{step:,}" for step in steps], hover),
                centre=0.0 if relative else None,
                better="low" if relative else "high",
                colorbar={"tickformat": "+.0%" if relative else NUMBERS[style][1], "thickness": 12},
                meta={"choice": len(labels)},
            )
        )
        change = "Bits per byte, change from the first evaluation"
        labels.append(change if relative else f"{task_label(task)}: {metric_label(metric)}")
    most = max((len(trace["y"]) for trace in traces), default=0)
    y = LIST_AXIS | {"automargin": True}
    return chart(traces, 150 + 20 * most, {"type": "category"}, y, choices=labels, unit="step")


def _cells(curve: dict[int, float], steps: Sequence[int], relative: bool) -> list[float | None]:
    first = next(iter(curve.values()), 0.0)
    cells = [curve.get(step) for step in steps]
    if not relative:
        return cells
    return [None if v is None or not first else v / first - 1 for v in cells]


def training_loss(run: RunData) -> Figure | None:
    """Training loss of each source, of each language of a source with several, and of all."""
    traces = [_binned_line(run, f"loss/{name}", f"tokens/{name}", name) for name in run.sources()]
    traces += [
        _binned_line(run, key, f"tokens/{key.partition('/')[2]}", key.partition("/")[2])
        for key in _split_keys(run, "loss")
    ]
    whole = line("All tokens", [], [], COLOURS["average"], 3) | binned(run, "loss")
    y = axis("loss, nats per token")
    return over_steps([*traces, whole], "%{y:.3f}", y, run.stages, 460, log=True, smooth=True)


def _split_keys(run: RunData, metric: str) -> list[str]:
    """Fields of single languages of a source, such as "loss/talks/kk"."""
    keys = [key for key in run.fields if key.startswith(f"{metric}/")]
    return [key for key in keys if not is_of_source(key, metric)]


def metric_by_label(run: RunData, metric: str, title: str, number: str) -> Figure | None:
    """A metric of sampled answers or of preferences over steps: by source or language, and of all.

    `number` is a d3 format. None where no line has the metric.
    """
    keys = [key for key in run.fields if key.startswith(f"{metric}/")]
    split = [key for key in keys if key.count("/") > 1] or keys
    traces = [_binned_line(run, key, None, key.rpartition("/")[2]) for key in split]
    traces.append(line("All", [], [], COLOURS["average"], 3) | binned(run, metric))
    y = axis(title, number)
    return over_steps(traces, f"%{{y:{number}}}", y, run.stages, smooth=True)


def metric_curve(
    run: RunData, metric: str, title: str, number: str, *, log: bool = False, smooth: bool = True
) -> Figure | None:
    """One field of the metrics over steps. `number` is a d3 format."""
    trace = line(title, [], [], COLOURS["high"]) | binned(run, metric) | {"showlegend": False}
    y = axis(title, number, rangemode="tozero")
    shown = f"%{{y:{number}}}"
    return over_steps([trace], shown, y, run.stages, 320, log=log, smooth=smooth)


def step_times(run: RunData) -> Figure | None:
    """Seconds of a step over steps: the wait for input and the rest, stacked."""
    rest = _row_line(run, "Computing", COLOURS["high"], lambda a, b: max(a - b, 0.0), *_TIMES)
    wait = _row_line(run, "Waiting for input", COLOURS["low"], lambda a, b: b, *_TIMES)
    traces = [trace | {"stackgroup": "time"} for trace in (rest, wait)]
    return over_steps(traces, "%{y:.3~r} s", axis("seconds a step", "~r"), run.stages, 320)


def padding_and_waits(run: RunData) -> Figure | None:
    """Padding as a share of a batch, and the wait for input as a share of a step."""
    traces = [
        _row_line(run, "Padding", COLOURS["average"], float, "padding"),
        _row_line(run, "Waiting for input", COLOURS["low"], _ratio, *reversed(_TIMES)),
    ]
    y = axis("share", ".1~%", rangemode="tozero")
    return over_steps(traces, "%{y:.2%}", y, run.stages, 320)


def memory_in_use(run: RunData) -> Figure | None:
    """Memory of the fullest device of the first host over steps, and how much it has."""
    traces = [
        _row_line(run, name, colour, lambda value: value / _GIB, field)
        for name, colour, field in (
            ("In use", COLOURS["high"], "hbm_bytes"),
            ("Peak", COLOURS["low"], "hbm_peak_bytes"),
            ("There is", COLOURS["average"], "hbm_limit_bytes"),
        )
    ]
    y = axis("GiB a device", rangemode="tozero")
    return over_steps(traces, "%{y:.1f} GiB", y, run.stages, 320)


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
    return chart(traces, 110 + 19 * len(sources), x, LIST_AXIS | {"automargin": True})


def runs_over_steps(
    runs: Sequence[RunData],
    curve: Callable[[RunData], Figure],
    title: str,
    number: str,
    marker: float = 0,
    *,
    to_zero: bool = False,
    **options: Any,
) -> Figure | None:
    """A line for each run through the x and y that `curve` gives, with its other fields.

    The stages of the longest run are marked. `to_zero`: the vertical axis begins at 0.
    """
    traces = []
    for position, (run, colour) in enumerate(zip(runs, itertools.cycle(PALETTE), strict=False)):
        trace = line(run.name, [], [], colour, 3 if marker else 2, marker) | curve(run)
        trace["meta"] = {**trace.get("meta", {}), "run": position}
        traces.append(trace)
    ends = [run.stages[-1].last_step if run.stages else 0 for run in runs]
    longest = ends.index(max(ends))
    shown = f"%{{y:{number}}}"
    y = axis(title, rangemode="tozero" if to_zero else "normal")
    return over_steps(traces, shown, y, runs[longest].stages, run=longest, **options)


def thinned(items: Sequence) -> list:
    """At most POINTS of the items, evenly spread, with the first and the last one."""
    count = len(items)
    chosen = np.linspace(0, count - 1, min(count, POINTS)).round().astype(int)
    return [items[n] for n in np.unique(chosen).tolist()]


def _row_line(
    run: RunData, label: str, colour: str, value: Callable[..., float], *names: str
) -> Figure:
    """A line through the values that a function gives for these fields of the metrics."""
    rows = thinned(run.rows_with(*names))
    values = [value(*(row[name] for name in names)) for row in rows]
    return line(label, [row["step"] for row in rows], values, colour)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _binned_line(run: RunData, metric: str, weight: str | None, source: str) -> Figure:
    """A metric of a source, or of a language of a source ("talks/kk")."""
    found = binned(run, metric, weight)
    trace = _source_line(source, (found["x"], found["y"]))
    trace["meta"] |= found["meta"]
    return trace


def _source_line(source: str, curve: tuple[Iterable, Iterable], **more: Any) -> Figure:
    """A line of a language or source in the colour of its group, which switches it."""
    corpus, _, language = source.rpartition("/")
    group = group_of(source) if not corpus else "other"
    name = f"{name_of(corpus)}: {name_of(language)}" if corpus else name_of(source)
    x, y = map(list, curve)
    opacity = 0.55 if group in (HIGH, LOW) else 1
    width = 2.5 if group == "english" else 1.2
    return line(name, x, y, COLOURS[group], width, opacity=opacity, meta={"group": group}, **more)
