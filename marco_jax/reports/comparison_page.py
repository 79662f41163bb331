"""Runs side by side on one page: figures at their ends, curves, and where configs differ."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from marco_jax.evaluation.results import ALL, HIGH, LOW
from marco_jax.files import write_text
from marco_jax.reports import throughput_charts as work_figures
from marco_jax.reports.charts import Figure
from marco_jax.reports.page import chart, render, table
from marco_jax.reports.run_data import RunData, group_of, load_run, name_of
from marco_jax.reports.summary import compare, format_figure, summarize


def write_comparison(workdirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> pathlib.Path:
    """Writes a page about several runs, the first of which the others are compared with.

    Raises:
        NotADirectoryError: there is no such directory.
        ValueError: fewer than two runs.
    """
    if len(workdirs) < 2:
        raise ValueError("--compare needs two runs or more")
    runs = _named([load_run(workdir) for workdir in workdirs], workdirs)
    charts: dict[str, Figure] = {}
    sections = [
        "<h1>Runs side by side</h1>",
        f"<p>Changes are against {escape(runs[0].name)}.</p>",
        _progress(runs),
        _languages(runs),
        *_curves(runs, charts),
        _configs(runs),
    ]
    page = render("marco_jax: runs side by side", "\n".join(filter(None, sections)), charts)
    out = pathlib.Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    return out


def _named(runs: list[RunData], workdirs: Sequence[str | os.PathLike]) -> list[RunData]:
    """Runs whose directories have one name are told apart by their paths."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return runs
    return [
        dataclasses.replace(run, name=str(path)) for run, path in zip(runs, workdirs, strict=True)
    ]


def _progress(runs: Sequence[RunData]) -> str:
    found = [summarize(run) for run in runs]
    rows = []
    for label, name, form in (
        ("steps", "step", "{:,}"),
        ("tokens", "tokens", "{:,}"),
        ("tokens/s", "tokens_per_second", "{:,.0f}"),
        ("MFU", "mfu", "{:.1%}"),
        ("seconds in training steps", "seconds", "{:,.0f}"),
    ):
        if any(figures[name] for figures in found):
            texts = [form.format(f[name]) if f[name] else "" for f in found]
            rows.append(_row(label, texts))
    return table(["", *(run.name for run in runs)], rows, "headlines")


def _languages(runs: Sequence[RunData]) -> str:
    """Every language of every task at each run's end."""
    ends = [max(run.evaluations, default=None) for run in runs]
    found = [run.evaluations.get(end, {}) for run, end in zip(runs, ends, strict=True)]
    tasks = dict.fromkeys((task, metric) for results in found for task, metric, _ in results)
    rows = []
    for task, metric in tasks:
        style = _style(found, task, metric)
        title = task if task == metric else f"{task}, {metric}"
        rows.append(f'<tr class="mean"><td>{escape(title)}</td>{"<td></td>" * len(runs)}</tr>')
        codes = dict.fromkeys(
            code for results in found for *key, code in results if tuple(key) == (task, metric)
        )
        for code in sorted(codes, key=lambda code: group_of(code) != "average"):
            results = [figures.get((task, metric, code)) for figures in found]
            cells = []
            for result in results:
                text, change = format_figure(compare(result, results[0], style), style)
                cells.append(f"{text}<small>{change}</small>" if change else text)
            rows.append(_row(_label(code), cells))
    if not rows:
        return "<p>No evaluation yet.</p>"
    heads = [
        f"{run.name}, step {end:,}" if end is not None else run.name
        for run, end in zip(runs, ends, strict=True)
    ]
    return "<h2>At the end</h2>" + table(["Language", *heads], rows, "languages")


def _style(found: Sequence[Mapping], task: str, metric: str) -> str:
    """How a metric is printed: bits per byte, shares of one, or points of a hundred."""
    if metric == "bits_per_byte":
        return "relative"
    values = [
        r.value for results in found for key, r in results.items() if key[:2] == (task, metric)
    ]
    return "share" if max(values) <= 1 else "points"


def _label(code: str) -> str:
    if group_of(code) == "average":
        return "Mean" if code == ALL else f"{name_of(code)}-resource mean"
    return f"{escape(name_of(code))} <small>{escape(code)}</small>"


def _curves(runs: Sequence[RunData], charts: dict[str, Figure]) -> list[str]:
    bits = ("bits_per_byte", "bits_per_byte")
    sections = [
        chart(
            charts, "loss", work_figures.side_by_side(runs, "loss", "loss", ".3f"),
            "Training loss", "Each run's on its own mixture: lower is no better.",
        ),
        chart(
            charts, "speed", work_figures.side_by_side(runs, "tokens_per_second", "tokens/s", "~s"),
            "Tokens per second",
        ),
    ]  # fmt: skip
    for group, title in ((HIGH, "high-resource"), (LOW, "low-resource")):
        figure = work_figures.evaluations_side_by_side(runs, *bits, group, "bits per byte")
        sections.append(chart(charts, f"bits_{group}", figure, f"Bits per byte, {title} mean"))
    return sections


def _configs(runs: Sequence[RunData]) -> str:
    """Fields in which configs differ."""
    flat = [_flatten(run.config) for run in runs]
    names = sorted({name for fields in flat for name in fields})
    rows = []
    for name in names:
        values = [fields.get(name, "") for fields in flat]
        if any(value != values[0] for value in values):
            rows.append(_row(escape(name), [escape(str(value)) for value in values]))
    if not rows:
        return "<h2>Configs</h2><p>They are the same.</p>"
    head = table(["Field", *(run.name for run in runs)], rows, "configs")
    return f"<h2>Where configs differ</h2>{head}"


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= _flatten(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _row(label: str, cells: Sequence[str]) -> str:
    return f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
