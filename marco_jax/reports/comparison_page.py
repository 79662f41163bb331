"""The page that compares runs: charts, differences with their errors, and where configs differ."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marco_jax.evaluation.paired_differences import Difference
from marco_jax.evaluation.results import ALL, AVERAGES, HIGH, LOW, Result
from marco_jax.files import as_path, write_text
from marco_jax.flat_fields import flat_fields
from marco_jax.reports.charts import ERROR_BARS, LIST_AXIS, PALETTE, Figure, chart, finite, heat_map
from marco_jax.reports.labels import (
    distinct_names,
    language_label,
    metric_label,
    task_label,
    title_of,
)
from marco_jax.reports.page import Cell, cell, render_page
from marco_jax.reports.paired_rows import language_cell, paired_table, run_differences
from marco_jax.reports.run_charts import (
    NUMBERS,
    axis_table,
    binned,
    main_tasks,
    runs_over_steps,
)
from marco_jax.reports.run_data import RunData, load_run, name_of
from marco_jax.reports.run_facts import CLEAR
from marco_jax.reports.summary import STYLES, style_of, summary

FEWEST, MOST = 2, 8
_BITS = "bits_per_byte"
# A task and a metric.
Key = tuple[str, str]


def write_comparison(workdirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> pathlib.Path:
    """Writes a page about several runs, the first of which the others are compared with.

    Raises:
        NotADirectoryError: there is no such directory.
        ValueError: fewer than 2 or more than 8 runs.
    """
    check_count(len(workdirs))
    runs = with_unique_names([load_run(workdir) for workdir in workdirs])
    write_text(as_path(out), comparison_page(runs))
    return as_path(out)


def check_count(count: int) -> None:
    """Refuses too few and too many runs.

    Raises:
        ValueError: fewer than 2 or more than 8.
    """
    if not FEWEST <= count <= MOST:
        raise ValueError(f"--compare takes {FEWEST} to {MOST} runs, not {count}")


def with_unique_names(runs: Sequence[RunData]) -> list[RunData]:
    """The runs, with as much of their paths in their names as tells them apart."""
    names = distinct_names([str(run.workdir.resolve()) for run in runs])
    return [dataclasses.replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def comparison_page(runs: Sequence[RunData], live: Mapping[str, Any] | None = None) -> str:
    """Renders the page of runs with names of their own; `live` as in `page.render_page`."""
    ends = _Ends(runs)
    tasks = _tasks(runs)
    return render_page(
        "comparison.html.jinja",
        _charts(runs, tasks) | {"languages": _language_map(ends, tasks)},
        axes=[axis_table(run) for run in runs],
        live=live,
        names=[run.name for run in runs],
        colours=[c for _, c in zip(runs, itertools.cycle(PALETTE), strict=False)],
        summaries=[summary(run) for run in runs],
        ends=ends.heads,
        tasks=[(f"task_{n}", task_label(task)) for n, (task, _) in enumerate(tasks)],
        means=ends.rows([(task, metrics[0]) for task, metrics in tasks], AVERAGES),
        all_rows=ends.rows([(task, one) for task, metrics in tasks for one in metrics]),
        paired=ends.paired_tables(),
        configs=_config_differences(runs),
    )


def _tasks(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """The tasks of all runs with their metrics, held-out text first."""
    found: dict[str, list[str]] = {}
    if any(key[0] == _BITS for run in runs for rows in run.evaluations.values() for key in rows):
        found[_BITS] = [_BITS]
    for run in runs:
        for task, metrics in main_tasks(run):
            known = found.setdefault(task, [])
            known += [metric for metric in metrics if metric not in known]
    return list(found.items())


def _charts(runs: Sequence[RunData], tasks: Sequence[tuple[str, Sequence[str]]]) -> dict[str, Any]:
    """Lines of all runs: bits per byte, the means of tasks, training loss and speed."""

    def trained(metric: str) -> Callable[[RunData], Figure]:
        return lambda run: binned(run, metric)

    def bits(group: str) -> Callable[[RunData], Figure]:
        return lambda run: _curve(run, _BITS, _BITS, group)

    charts = {
        "bits_low": runs_over_steps(runs, bits(LOW), "bits per byte", ".3f", 7),
        "bits_high": runs_over_steps(runs, bits(HIGH), "bits per byte", ".3f", 7),
        "bits_english": runs_over_steps(runs, bits("en"), "bits per byte", ".3f", 7),
        "loss": runs_over_steps(
            *(runs, trained("loss"), "loss, nats per token", ".3f"), log=True, smooth=True
        ),
        "norm": runs_over_steps(
            *(runs, trained("grad_norm"), "norm of the gradient", ",.3~r"),
            to_zero=True,
            log=True,
            smooth=True,
        ),
        "speed": runs_over_steps(
            *(runs, trained("tokens_per_second"), "tokens/s", ".4~s"), to_zero=True, smooth=True
        ),
    }
    for number, (task, metrics) in enumerate(tasks):
        if task != _BITS:
            charts[f"task_{number}"] = _task_chart(runs, task, metrics)
    return charts


def _curve(run: RunData, task: str, metric: str, language: str) -> Figure:
    """Fields of a trace: a metric over steps with bars of one standard error."""
    steps, values = run.curve(task, metric, language)
    found: Figure = {"x": steps, "y": finite(values)}
    if metric != _BITS:
        errors = run.curve(task, metric, language, "stderr")[1]
        found["error_y"] = ERROR_BARS | {"array": finite(errors)}
    return found


def _task_chart(runs: Sequence[RunData], task: str, metrics: Sequence[str]) -> Figure | None:
    """The mean of a task over steps for each run; the page shows one metric at a time."""
    whole, labels, titles = None, [], []
    for metric in metrics:
        groups = [
            next(
                (g for g in (ALL, HIGH, LOW, *run.languages(task)) if _has(run, task, metric, g)),
                "",
            )
            for run in runs
        ]
        group = next(filter(None, groups), ALL)
        curves = [_curve(run, task, metric, group) for run in runs]
        values = [y for one in curves for y in one["y"] if y is not None]
        shown, ticks = NUMBERS[style_of(metric, values)]
        by_run = {run.name: one for run, one in zip(runs, curves, strict=True)}
        title = f"{metric_label(metric).lower()}, {language_label(group).lower()}"
        found = runs_over_steps(runs, lambda run, of=by_run: of[run.name], title, shown, 7)
        if found is None:
            continue
        for trace in found["data"]:
            trace["meta"] |= {"choice": len(labels)}
        labels.append(metric_label(metric))
        titles.append({"text": title, "format": ticks})
        if whole is None:
            whole = found
        else:
            whole["data"] += found["data"]
    if whole is not None:
        whole["layout"]["yaxis"]["tickformat"] = titles[0]["format"]
        whole["options"] |= {"choices": labels, "titles": titles}
    return whole


def _has(run: RunData, task: str, metric: str, language: str) -> bool:
    return any((task, metric, language) in rows for rows in run.evaluations.values())


class _Ends:
    """The last evaluation of each run, and the differences of the others from the first run's."""

    def __init__(self, runs: Sequence[RunData]) -> None:
        self.runs = runs
        self.steps = [max(run.evaluations, default=None) for run in runs]
        self.found: list[dict[tuple[str, str, str], Result]] = [
            run.evaluations.get(step, {}) if step is not None else {}
            for run, step in zip(runs, self.steps, strict=True)
        ]
        self.heads = [
            run.name if step is None else f"{run.name}, step {step:,}"
            for run, step in zip(runs, self.steps, strict=True)
        ]
        # On the same items, where both runs have kept them.
        self._paired: list[list[Difference]] = [[]] + [
            run_differences(runs[0], self.steps[0], run, step)
            for run, step in list(zip(runs, self.steps, strict=True))[1:]
        ]
        self._paired_keys = [
            {(one.task, one.metric, one.language): one for one in differences}
            for differences in self._paired
        ]

    def keys(self, task: str, metric: str) -> list[tuple[str, str, str]]:
        """The keys of a task's metric that any run has, means first."""
        keys = dict.fromkeys(
            key for rows in self.found for key in rows if key[:2] == (task, metric)
        )
        return sorted(keys, key=lambda key: key[2] not in AVERAGES)

    def difference(self, number: int, key: tuple[str, str, str]) -> tuple[float, float] | None:
        """The difference of a run from the first and its standard error, nan if unknown.

        Items that both have answered give the paired error. Otherwise the values count as
        independent, and bits per byte, always of the same texts, have no error.
        """
        first, own = self.found[0].get(key), self.found[number].get(key)
        if first is None or own is None or not number:
            return None
        if one := self._paired_keys[number].get(key):
            return one.difference, one.stderr
        error = math.nan if key[1] == _BITS else math.hypot(first.stderr, own.stderr)
        return own.value - first.value, error

    def rows(self, keys: Sequence[Key], only: Sequence[str] | None = None) -> list[list[Cell]]:
        """A title row for each task and metric, and a row for each language with all runs."""
        rows: list[list[Cell]] = []
        for task, metric in keys:
            own = [key for key in self.keys(task, metric) if only is None or key[2] in only]
            if only is not None and not own:
                own = self.keys(task, metric)
            if not own:
                continue
            values = [found[key].value for found in self.found for key in own if key in found]
            style = style_of(metric, values)
            rows.append([title_of(task, metric)])
            rows += [[language_cell(key[2]), *self._cells(key, style)] for key in own]
        return rows

    def _cells(self, key: tuple[str, str, str], style: str) -> list[Cell]:
        scale, digits, unit = STYLES[style]
        cells: list[Cell] = []
        for number, found in enumerate(self.found):
            result = found.get(key)
            if result is None:
                cells.append("")
                continue
            text = f"{result.value * scale:.{digits}f}{unit}"
            change = self.difference(number, key)
            if change is None:
                cells.append(cell(text))
                continue
            value, error = change
            shown = f"{value * scale:+.{digits}f}"
            if not math.isnan(error):
                shown += f" ± {error * scale:.{digits}f}"
            # nan compares as False.
            clear = abs(value) > CLEAR * error
            kind = "" if not clear else "good" if (value < 0) == (style == "relative") else "bad"
            cells.append(cell(text, shown, kind))
        return cells

    def paired_tables(self) -> list[tuple[str, list[list[Cell]]]]:
        """The tables of differences on the same items of each run from the first."""
        tables = zip(self.heads, map(paired_table, self._paired), strict=True)
        return [(head, rows) for head, rows in tables if rows]


def _language_map(ends: _Ends, tasks: Sequence[tuple[str, Sequence[str]]]) -> Figure | None:
    """Languages by runs: how much better or worse than the first run each one ends, by task."""
    traces, labels = [], []
    names = [run.name for run in ends.runs[1:]]
    for task, metrics in tasks:
        metric = metrics[0]
        keys = [key for key in ends.keys(task, metric) if key[2] not in AVERAGES]
        rows, texts = {}, []
        for key in keys:
            found = [ends.difference(number, key) for number in range(1, len(ends.runs))]
            first = ends.found[0].get(key)
            whole = first.value if task == _BITS and first and first.value else 1.0
            rows[name_of(key[2])] = [one and one[0] / whole for one in found]
            texts.append(["•" if one and abs(one[0]) > CLEAR * one[1] else "" for one in found])
        if len(keys) < 2 or not any(v is not None for row in rows.values() for v in row):
            continue
        values = [r.value for found in ends.found for k, r in found.items() if k in keys]
        points = style_of(metric, values) == "points"
        traces.append(
            heat_map(
                *(rows, names, f"%{{y}}, %{{x}}: %{{z:{'+.2f' if points else '+.2%'}}}"),
                centre=0.0,
                better="low" if task == _BITS else "high",
                texts=texts,
                colorbar={"tickformat": "+~g" if points else "+.0%", "thickness": 12},
                meta={"choice": len(labels)},
            )
        )
        labels.append(title_of(task, metric) + (", relative" if task == _BITS else ""))
    most = max((len(trace["y"]) for trace in traces), default=0)
    y = LIST_AXIS | {"automargin": True}
    return chart(traces, 130 + 20 * most, {"type": "category"}, y, choices=labels)


def _config_differences(runs: Sequence[RunData]) -> list[list[str]]:
    """Rows of the fields in which configs differ: the name, and the value of each run as text."""
    configs = [flat_fields(run.config) for run in runs]
    names = sorted({name for config in configs for name in config})
    rows = [[name, *(str(config.get(name, "")) for config in configs)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]
