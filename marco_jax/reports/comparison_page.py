"""The page that compares runs: metrics at their ends, charts, and where configs differ."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from marco_jax.evaluation.results import ALL, HIGH, LOW
from marco_jax.files import as_path, write_text
from marco_jax.reports.charts import Curve, runs_over_steps, smoothed
from marco_jax.reports.page import Cell, cell, render_page
from marco_jax.reports.paired_rows import paired_table, run_differences
from marco_jax.reports.run_data import RunData, group_of, load_run, name_of
from marco_jax.reports.summary import format_value, style_of, summary, value_and_change


def write_comparison(workdirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> pathlib.Path:
    """Writes a page about several runs, the first of which the others are compared with.

    Raises:
        NotADirectoryError: there is no such directory.
        ValueError: fewer than two runs.
    """
    if len(workdirs) < 2:
        raise ValueError("--compare needs two runs or more")
    runs = [load_run(workdir) for workdir in workdirs]
    if len({run.name for run in runs}) < len(runs):
        # Only the paths tell them apart.
        pairs = zip(runs, workdirs, strict=True)
        runs = [dataclasses.replace(run, name=str(path)) for run, path in pairs]

    def metric(name: str) -> Curve:
        return lambda run: smoothed(run, name)

    def bits(group: str) -> Curve:
        return lambda run: run.curve("bits_per_byte", "bits_per_byte", group)

    page = render_page(
        "comparison.html.jinja",
        {
            "loss": runs_over_steps(runs, metric("loss"), "loss", ".3f"),
            "speed": runs_over_steps(runs, metric("tokens_per_second"), "tokens/s", "~s"),
            "bits_high": runs_over_steps(runs, bits(HIGH), "bits per byte", ".3f", 7),
            "bits_low": runs_over_steps(runs, bits(LOW), "bits per byte", ".3f", 7),
        },
        names=[run.name for run in runs],
        summaries=[summary(run) for run in runs],
        **_languages(runs),
        configs=_differences([_flat(run.config) for run in runs]),
    )
    write_text(as_path(out), page)
    return as_path(out)


def _languages(runs: Sequence[RunData]) -> dict[str, Any]:
    """Rows for every language of every task at each run's end, and paired differences there."""
    ends = [max(run.evaluations, default=None) for run in runs]
    found = [run.evaluations.get(end, {}) for run, end in zip(runs, ends, strict=True)]
    keys = list(dict.fromkeys(key for results in found for key in results))
    rows: list[Any] = []
    for task, metric in dict.fromkeys(key[:2] for key in keys):
        own = [key for key in keys if key[:2] == (task, metric)]
        style = style_of(metric, [r[key].value for r in found for key in own if key in r])
        title = task if task == metric else f"{task}, {metric}"
        rows.append([title])
        for key in sorted(own, key=lambda key: group_of(key[2]) != "average"):
            results = [by_key.get(key) for by_key in found]
            changes = [value_and_change(result, results[0], style) for result in results]
            rows.append([_label(key[2]), *(cell(*format_value(c, style)) for c in changes)])
    heads = [
        run.name if end is None else f"{run.name}, step {end:,}"
        for run, end in zip(runs, ends, strict=True)
    ]
    differences = [
        (head, paired_table(run_differences(runs[0], ends[0], run, end)))
        for head, run, end in list(zip(heads, runs, ends, strict=True))[1:]
    ]
    paired = [(head, rows) for head, rows in differences if rows]
    return {"languages": rows, "ends": heads, "paired": paired}


def _label(code: str) -> Cell:
    if group_of(code) == "average":
        return "Mean" if code == ALL else f"{name_of(code)}-resource mean"
    return cell(name_of(code), code)


def _differences(configs: Sequence[dict[str, str]]) -> list[list[str]]:
    names = sorted({name for config in configs for name in config})
    rows = [[name, *(config.get(name, "") for config in configs)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """The values of a config as texts by dotted name."""
    found: dict[str, str] = {}
    for name, value in fields.items():
        nested = isinstance(value, dict)
        found |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: str(value)}
    return found
