"""The figures that a run is judged by: base against each stage."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from marco_jax.evaluation.builtin_tasks import TASKS
from marco_jax.evaluation.results import ALL, AVERAGES, HIGH, LOW, Result
from marco_jax.reports.run_data import Milestone, RunData, is_of_source, load_run


@dataclasses.dataclass(frozen=True)
class Headline:
    """A line of the summary: which figure, its label, and how it is printed and compared."""

    task: str
    language: str
    label: str
    style: Literal["relative", "share", "points"]

    @property
    def metric(self) -> str:
        """The task's headline metric."""
        return TASKS[self.task].metrics[0]


HEADLINES = (
    Headline("bits_per_byte", "en", "Bits per byte, English", "relative"),
    Headline("bits_per_byte", HIGH, "Bits per byte, high-resource", "relative"),
    Headline("bits_per_byte", LOW, "Bits per byte, low-resource", "relative"),
    Headline("pick_translation", ALL, "Right translation, all languages", "share"),
    Headline("pick_translation", HIGH, "Right translation, high-resource", "share"),
    Headline("pick_translation", LOW, "Right translation, low-resource", "share"),
    Headline("translation", HIGH, "chrF++, high-resource", "points"),
    Headline("translation", LOW, "chrF++, low-resource", "points"),
)


def summary(workdir: str | os.PathLike) -> dict[str, Any]:
    """The headline figures of a run.

    Returns:
        A JSON-ready object: "name", "step", "tokens", "tokens_per_second" (median), "mfu" (median
        or None), "seconds" (of training steps), "milestones" (name, label, step, the first is
        the baseline), "headlines": a list of {"task", "language", "metric", "label", "chance",
        "figures"}, one figure a milestone: None or {"value", "stderr", "change"}, where change
        is from the baseline: in percent for bits per byte, else a difference.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    return summarize(load_run(workdir))


def summarize(run: RunData) -> dict[str, Any]:
    """`summary` of a run that is read already."""
    milestones = run.milestones()
    headlines = []
    for line in HEADLINES:
        figures = _figures(run, milestones, line)
        if any(figures):
            headlines.append(
                {
                    "task": line.task,
                    "language": line.language,
                    "metric": line.metric,
                    "label": line.label,
                    "style": line.style,
                    "chance": TASKS[line.task].chance,
                    "figures": figures,
                }
            )
    return {
        "name": run.name,
        **_progress(run),
        "milestones": [dataclasses.asdict(milestone) for milestone in milestones],
        "headlines": headlines,
    }


def _figures(
    run: RunData, milestones: Sequence[Milestone], line: Headline
) -> list[dict[str, Any] | None]:
    results = [run.figure(mark.step, line.task, line.metric, line.language) for mark in milestones]
    return [compare(result, results[0], line.style) for result in results]


def compare(result: Result | None, baseline: Result | None, style: str) -> dict[str, Any] | None:
    """A figure of `summary`: value, standard error, and change from a baseline if there is one."""
    if result is None:
        return None
    change = None
    if baseline is not None and baseline is not result:
        change = result.value - baseline.value
        if style == "relative":
            change = 100 * change / baseline.value if baseline.value else math.nan
    figures = {"value": result.value, "stderr": result.stderr, "change": change}
    return {k: None if v is None or math.isnan(v) else v for k, v in figures.items()}


def _progress(run: RunData) -> dict[str, Any]:
    def numbers(name: str) -> list[float]:
        return [row[name] for row in run.metrics if isinstance(row.get(name), int | float)]

    rates, mfus, last = numbers("tokens_per_second"), numbers("mfu"), run.metrics[-1:]
    seconds = 0.0
    for row in run.metrics:
        tokens = sum(v for k, v in row.items() if is_of_source(k, "tokens") and v)
        seconds += tokens / (row.get("tokens_per_second") or math.inf)
    return {
        "step": last[0]["step"] if last else 0,
        "steps": run.stages[-1].last_step if run.stages else None,
        "tokens": last[0].get("tokens") if last else 0,
        "tokens_per_second": statistics.median(rates) if rates else None,
        "mfu": statistics.median(mfus) if mfus else None,
        "seconds": seconds,
    }


def format_figure(figure: dict[str, Any] | None, style: str) -> tuple[str, str]:
    """A figure and its change in print; empty strings for what is missing."""
    if figure is None or figure["value"] is None:
        return "", ""
    value, stderr, change = figure["value"], figure["stderr"], figure["change"]
    scale, digits, unit = {"relative": (1, 3, ""), "share": (100, 1, " %"), "points": (1, 1, "")}[
        style
    ]
    text = f"{value * scale:.{digits}f}"
    if stderr is not None and style != "relative":
        text += f" ± {stderr * scale:.{digits}f}"
    if change is None:
        return text + unit, ""
    if style == "relative":
        return text + unit, f"{change:+.1f} %"
    return text + unit, f"{change * scale:+.{digits}f}"


def format_summary(summary: dict[str, Any]) -> str:
    """A small text table of a `summary`, one column a milestone."""
    lines = [f"{summary['name']}: {_describe_progress(summary)}"]
    if not summary["headlines"]:
        return "\n".join([*lines, "no evaluation yet"])
    table = [["", *(mark["label"] for mark in summary["milestones"])]]
    for headline in summary["headlines"]:
        cells = [format_figure(figure, headline["style"]) for figure in headline["figures"]]
        texts = [f"{value} ({change})" if change else value for value, change in cells]
        chance = headline["chance"]
        label = headline["label"] + (f" (chance {chance:.0%})" if chance else "")
        table.append([label, *texts])
    return "\n".join([*lines, *_columns(table)])


def format_results(results: Sequence[Result]) -> str:
    """Text tables of an evaluation: one a task, a line a language, a column a metric.

    The means over all, high-resource and low-resource languages stand at the end. Subjects are
    left out: there are many, the file of results has them.
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


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _describe_progress(summary: dict[str, Any]) -> str:
    steps = f"step {summary['step']:,}"
    if summary["steps"]:
        steps += f" of {summary['steps']:,}"
    parts = [steps]
    if summary["tokens"]:
        parts.append(f"{summary['tokens']:,} tokens")
    if summary["tokens_per_second"]:
        parts.append(f"{summary['tokens_per_second']:,.0f} tokens/s")
    if summary["mfu"]:
        parts.append(f"MFU {summary['mfu']:.1%}")
    return ", ".join(parts)
