"""Charts of how a run works: speed, where its time goes, and benchmarks by language."""

from __future__ import annotations

from collections.abc import Sequence

from marco_jax.evaluation.results import HIGH, LOW
from marco_jax.reports.charts import (
    COLOURS,
    GROUP_NAMES,
    Figure,
    over_steps,
    smoothed,
    thinned,
    trace_of,
)
from marco_jax.reports.run_data import RunData, group_of, name_of

RUN_COLOURS = ("#2f86d6", "#e0762f", "#2f9e6b", "#8b5fd6", "#c2410c", "#8a8f98")


def step_times(run: RunData) -> Figure | None:
    """Seconds of a step over steps: the wait for input, and the rest, stacked."""
    rows = _rows(run, ("step_seconds", "input_seconds"))
    steps = [row["step"] for row in rows]
    waits = [row["input_seconds"] for row in rows]
    rest = [max(row["step_seconds"] - row["input_seconds"], 0.0) for row in rows]
    traces = []
    for name, values, colour in (("computing", rest, "high"), ("waiting for input", waits, "low")):
        trace = trace_of(name, steps, values)
        trace.update(mode="lines", line={"color": COLOURS[colour], "width": 1}, stackgroup="time")
        traces.append(trace)
    return over_steps(run, traces, "seconds a step", "%{y:.3~s}s")


def shares(run: RunData) -> Figure | None:
    """Padding, and the wait for input, as shares of a batch and of a step."""
    traces = []
    rows = _rows(run, ("padding",))
    padding = trace_of("padding", [r["step"] for r in rows], [r["padding"] for r in rows])
    padding.update(mode="lines", line={"color": COLOURS["average"], "width": 2})
    rows = [row for row in _rows(run, ("step_seconds", "input_seconds")) if row["step_seconds"]]
    waits = [row["input_seconds"] / row["step_seconds"] for row in rows]
    waiting = trace_of("waiting for input", [row["step"] for row in rows], waits)
    waiting.update(mode="lines", line={"color": COLOURS["low"], "width": 2})
    traces = [padding, waiting]
    figure = over_steps(run, traces, "share", "%{y:.2%}")
    if figure:
        figure["layout"]["yaxis"].update(tickformat=".1~%", rangemode="tozero")
    return figure


def benchmark(run: RunData, task: str, metric: str) -> Figure | None:
    """A figure of a benchmark over steps: a thin line a language, thick ones for both groups."""
    traces = []
    for code in run.languages(task):
        group = group_of(code)
        trace = _series(run, task, metric, code, name_of(code))
        trace.update(
            mode="lines+markers",
            line={"color": COLOURS[group], "width": 1},
            marker={"size": 4},
            opacity=0.6,
            showlegend=False,
        )
        traces.append(trace)
    for group in (HIGH, LOW):
        trace = _series(run, task, metric, group, f"{GROUP_NAMES[group]} mean")
        errors = [result.stderr for _, result in run.series(task, metric, group)]
        trace.update(
            mode="lines+markers",
            line={"color": COLOURS[group], "width": 4},
            marker={"size": 8},
            error_y={"type": "data", "array": [e if e == e else None for e in errors]},
        )
        traces.append(trace)
    values = [value for trace in traces for value in trace["y"] if value is not None]
    whole = max(values, default=0.0) <= 1
    figure = over_steps(run, traces, metric, "%{y:.1%}" if whole else "%{y:.2f}")
    if figure and whole:
        figure["layout"]["yaxis"]["tickformat"] = ".0%"
    return figure


def side_by_side(runs: Sequence[RunData], metric: str, axis: str, number: str) -> Figure | None:
    """One field of the metrics, a line a run, smoothed within stages."""
    traces = []
    for run, colour in zip(runs, _colours(runs), strict=True):
        steps, values = smoothed(run, metric, None)
        places = thinned(len(steps))
        trace = trace_of(run.name, [steps[n] for n in places], [values[n] for n in places])
        trace.update(mode="lines", line={"color": colour, "width": 2})
        traces.append(trace)
    return over_steps(_longest(runs), traces, axis, "%{y:" + number + "}")


def evaluations_side_by_side(
    runs: Sequence[RunData], task: str, metric: str, language: str, axis: str
) -> Figure | None:
    """One figure of evaluations, a line a run."""
    traces = []
    for run, colour in zip(runs, _colours(runs), strict=True):
        trace = _series(run, task, metric, language, run.name)
        trace.update(mode="lines+markers", line={"color": colour, "width": 3}, marker={"size": 7})
        traces.append(trace)
    return over_steps(_longest(runs), traces, axis, "%{y:.3f}")


def _colours(runs: Sequence[RunData]) -> list[str]:
    return [RUN_COLOURS[number % len(RUN_COLOURS)] for number in range(len(runs))]


def _longest(runs: Sequence[RunData]) -> RunData:
    """Whose stages are marked."""
    return max(runs, key=lambda run: run.stages[-1].last_step if run.stages else 0)


def _series(run: RunData, task: str, metric: str, language: str, name: str) -> Figure:
    found = run.series(task, metric, language)
    return trace_of(name, [step for step, _ in found], [result.value for _, result in found])


def _rows(run: RunData, names: Sequence[str]) -> list[dict]:
    """Lines that have numbers by all names, thinned."""
    rows = [
        row for row in run.metrics if all(isinstance(row.get(name), int | float) for name in names)
    ]
    return [rows[n] for n in thinned(len(rows))]
