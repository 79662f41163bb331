"""The headline metrics of a run: the base against each stage."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_jax.evaluation.builtin_tasks import TASKS
from marco_jax.evaluation.paired_differences import Difference
from marco_jax.evaluation.results import ALL, AVERAGES, HIGH, LOW, Result
from marco_jax.reports.run_data import RunData, is_of_source, load_run

# Task, language, label, and the style in which values are printed and compared: see `STYLES`.
HEADLINES = (
    ("bits_per_byte", "en", "Bits per byte, English", "relative"),
    ("bits_per_byte", HIGH, "Bits per byte, high-resource", "relative"),
    ("bits_per_byte", LOW, "Bits per byte, low-resource", "relative"),
    ("pick_translation", ALL, "Right translation, all languages", "share"),
    ("pick_translation", HIGH, "Right translation, high-resource", "share"),
    ("pick_translation", LOW, "Right translation, low-resource", "share"),
    ("translation", HIGH, "chrF++, high-resource", "points"),
    ("translation", LOW, "chrF++, low-resource", "points"),
)
# Factor, digits and unit of a printed value: changes of bits per byte are in per cent of the
# baseline, those of shares of 1 and of points of 100 are differences.
STYLES = {"relative": (1, 3, ""), "share": (100, 1, " %"), "points": (1, 1, "")}


def style_of(metric: str, values: Sequence[float]) -> str:
    """The style of a metric by its name and its values, a key of `STYLES`."""
    if metric == "bits_per_byte":
        return "relative"
    points = "chrf" in metric or "bleu" in metric or max(values, default=0.0) > 1
    return "points" if points else "share"


def summary(workdir: str | os.PathLike | RunData) -> dict[str, Any]:
    """Computes the headline metrics of a run, which may be given as it was read.

    Returns:
        A JSON-ready object: "name", "step", "tokens", "tokens_per_second" (median), "mfu" (median
        or None), "seconds" (of training steps), "milestones" (name, label, step, the first is
        the baseline), "headlines": a list of {"task", "language", "metric", "label", "chance",
        "values"}, one value for each milestone: None or {"value", "stderr", "change"}, where
        change is from the baseline: in per cent for bits per byte, else a difference.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    run = workdir if isinstance(workdir, RunData) else load_run(workdir)
    milestones, last = run.milestones(), run.metrics[-1] if run.metrics else {}
    headlines = []
    for task, language, label, style in HEADLINES:
        metric = TASKS[task].metrics[0]
        results = [run.result(mark.step, task, metric, language) for mark in milestones]
        if any(results):
            fields = {"task": task, "language": language, "metric": metric, "label": label}
            fields |= {"style": style, "chance": TASKS[task].chance}
            values = [value_and_change(result, results[0], style) for result in results]
            headlines.append(fields | {"values": values})
    names = [name for name in run.fields if is_of_source(name, "tokens")]
    tokens = sum((np.nan_to_num(run.column(name)) for name in names), np.zeros(len(run.metrics)))
    rates = np.nan_to_num(run.column("tokens_per_second"))
    seconds = float((tokens[rates > 0] / rates[rates > 0]).sum())
    return {
        "name": run.name,
        "step": last.get("step", 0),
        "steps": run.stages[-1].last_step if run.stages else None,
        "tokens": last.get("tokens") if last else 0,
        **{name: _median(run, name) for name in ("tokens_per_second", "mfu")},
        "seconds": seconds,
        "milestones": [milestone._asdict() for milestone in milestones],
        "headlines": headlines,
    }


def _median(run: RunData, metric: str) -> float | None:
    values = run.column(metric)
    return None if np.isnan(values).all() else float(np.nanmedian(values))


def value_and_change(
    result: Result | None, baseline: Result | None, style: str
) -> dict[str, Any] | None:
    """A result's value and standard error, and its change from another one if there is one."""
    if result is None:
        return None
    change = None
    if baseline is not None and baseline is not result:
        change = result.value - baseline.value
        if style == "relative":
            change = 100 * change / baseline.value if baseline.value else math.nan
    found = {"value": result.value, "stderr": result.stderr, "change": change}
    return {k: None if v is None or math.isnan(v) else v for k, v in found.items()}


def format_value(found: dict[str, Any] | None, style: str) -> tuple[str, str]:
    """Formats a `value_and_change`; gives empty texts for what is missing."""
    if found is None or found["value"] is None:
        return "", ""
    value, stderr, change = found["value"], found["stderr"], found["change"]
    scale, digits, unit = STYLES[style]
    text = f"{value * scale:.{digits}f}"
    if stderr is not None and style != "relative":
        text += f" ± {stderr * scale:.{digits}f}"
    if change is None:
        return text + unit, ""
    printed = f"{change:+.1f} %" if style == "relative" else f"{change * scale:+.{digits}f}"
    return text + unit, printed


def format_summary(summary: dict[str, Any]) -> str:
    """Formats a `summary` as a small text table, a column for each milestone."""
    steps = f" of {summary['steps']:,}" if summary["steps"] else ""
    tokens, rate, mfu = (summary[name] for name in ("tokens", "tokens_per_second", "mfu"))
    facts = [
        f"step {summary['step']:,}{steps}",
        tokens and f"{tokens:,} tokens",
        rate and f"{rate:,.0f} tokens/s",
        mfu and f"MFU {mfu:.1%}",
    ]
    lines = [f"{summary['name']}: {', '.join(filter(None, facts))}"]
    if not summary["headlines"]:
        return "\n".join([*lines, "no evaluation yet"])
    table = [["", *(mark["label"] for mark in summary["milestones"])]]
    for headline in summary["headlines"]:
        cells = [format_value(found, headline["style"]) for found in headline["values"]]
        texts = [f"{value} ({change})" if change else value for value, change in cells]
        chance = f" (chance {headline['chance']:.0%})" if headline["chance"] else ""
        table.append([headline["label"] + chance, *texts])
    return "\n".join([*lines, *_columns(table)])


def format_results(results: Sequence[Result]) -> str:
    """Formats an evaluation as text tables: one for each task, a line for each language.

    The means over all, high-resource and low-resource languages stand at the end. Subjects are
    left out: there are many, and the file of results has them.
    """
    lines, results = [], [row for row in results if not row.part]
    for task, shots in dict.fromkeys((row.task, row.shots) for row in results):
        rows = [row for row in results if (row.task, row.shots) == (task, shots)]
        names = list(dict.fromkeys(row.metric for row in rows))
        languages = list(dict.fromkeys(row.language for row in rows))
        languages.sort(key=lambda language: language in AVERAGES)
        cells = {(row.language, row.metric): f"{row.value:.4f} ± {row.stderr:.4f}" for row in rows}
        counts = {row.language: str(row.examples) for row in rows}
        table = [[f"{task}, {shots} shots", *names, "examples"]]
        table += [
            [language, *(cells.get((language, name), "") for name in names), counts[language]]
            for language in languages
        ]
        lines += [*_columns(table), ""]
        signed = [row for row in rows if row.signature and row.language not in AVERAGES]
        lines[-1:] = [*dict.fromkeys(f"{row.metric}: {row.signature}" for row in signed), ""]
    return "\n".join(lines).rstrip()


def format_differences(differences: Sequence[Difference], first: str, second: str) -> str:
    """Formats a paired comparison as text tables: one for each task and metric.

    `first` and `second` are the names of the two sides.
    """
    lines = []
    for task, metric in dict.fromkeys((one.task, one.metric) for one in differences):
        table = [[f"{task}, {metric}", first, second, "difference", "p", "items"]]
        for one in differences:
            if (one.task, one.metric) == (task, metric):
                change = f"{one.difference:+.4f} ± {one.stderr:.4f}"
                cells = (f"{one.first:.4f}", f"{one.second:.4f}", change, f"{one.p_value:.4f}")
                table.append([one.language, *cells, str(one.items)])
        lines += [*_columns(table), ""]
    return "\n".join(lines).rstrip()


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
