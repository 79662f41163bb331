"""One self-contained HTML page of a run: figures, curves, mixtures and a table of languages."""

from __future__ import annotations

import json
import math
import os
import pathlib
from html import escape
from typing import Any

from marco_jax.evaluation.builtin_tasks import PICK_TRANSLATION, TASKS
from marco_jax.evaluation.metrics import chrf_signature
from marco_jax.evaluation.results import Result
from marco_jax.files import write_text
from marco_jax.reports import charts as figures
from marco_jax.reports import throughput_charts as work_figures
from marco_jax.reports.charts import Figure
from marco_jax.reports.page import chart, render, table
from marco_jax.reports.run_data import Milestone, RunData, group_of, load_run, name_of
from marco_jax.reports.summary import compare, format_figure, format_summary, summarize, summary

__all__ = ["format_summary", "summary", "write_report"]

REPORT = "report.html"


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `report.html` into a workdir; what the run has not yet written is left out.

    The page loads nothing: plotly's script is part of it.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    run = load_run(workdir)
    charts: dict[str, Figure] = {}
    body = "\n".join(
        section
        for section in (
            _header(run),
            *_evaluation(run, charts),
            *_benchmarks(run, charts),
            *_training(run, charts),
            *_work(run, charts),
            _config(run),
        )
        if section
    )
    page = render(f"marco_jax: {run.name}", body, charts)
    path = pathlib.Path(workdir) / REPORT
    write_text(path, page)
    return path


def _header(run: RunData) -> str:
    figures = summarize(run)
    steps = f"{figures['step']:,}" + (f" of {figures['steps']:,}" if figures["steps"] else "")
    facts = {"steps": steps}
    if figures["tokens"]:
        facts["tokens"] = f"{figures['tokens']:,}"
    if figures["tokens_per_second"]:
        facts["tokens/s"] = f"{figures['tokens_per_second']:,.0f}"
    if figures["mfu"]:
        facts["MFU"] = f"{figures['mfu']:.1%}"
    if figures["seconds"]:
        minutes, seconds = divmod(round(figures["seconds"]), 60)
        facts["in training steps"] = f"{minutes:,} min {seconds:02d} s"
    items = "".join(f"<span><b>{escape(v)}</b> {escape(k)}</span>" for k, v in facts.items())
    head = f'<h1>{escape(run.name)}</h1>\n<div class="facts">{items}</div>'
    return f"{head}\n{_headlines(figures)}"


def _headlines(figures: dict[str, Any]) -> str:
    if not figures["headlines"]:
        return "<p>No evaluation yet.</p>"
    rows = []
    for line in figures["headlines"]:
        chance = f" <small>chance {line['chance']:.0%}</small>" if line["chance"] else ""
        cells = [_cell(figure, line["figures"][0], line["style"]) for figure in line["figures"]]
        rows.append(f"<tr><td>{escape(line['label'])}{chance}</td>{''.join(cells)}</tr>")
    columns = [mark["label"] for mark in figures["milestones"]]
    return table(["", *columns], rows, "headlines")


def _cell(figure: dict[str, Any] | None, baseline: dict[str, Any] | None, style: str) -> str:
    """A figure and its change, coloured where chance would hardly bring it about.

    Bits per byte are compared on the same texts, where even small changes are no chance.
    """
    text, change = format_figure(figure, style)
    if not change:
        return f"<td>{text}</td>"
    gain = -figure["change"] if style == "relative" else figure["change"]
    noise = 0.0
    if style != "relative":
        noise = 2 * math.hypot(figure["stderr"] or 0.0, baseline["stderr"] or 0.0)
    side = "" if abs(gain) <= noise else "good" if gain > 0 else "bad"
    return f'<td>{text}<small class="{side}">{change}</small></td>'


def _evaluation(run: RunData, charts: dict[str, Figure]) -> list[str]:
    signature = escape(chrf_signature()) if run.languages("translation") else ""
    pick = chart(
        charts, "pick", figures.task_means(run, "pick_translation", PICK_TRANSLATION.metrics[0]),
        "Picking the right translation",
        "Which of four texts of one language translates the English one; bars are one standard "
        "error. The four are near in length, and each is right once.",
    )  # fmt: skip
    translation = chart(
        charts, "translation", figures.task_means(run, "translation", "chrF++"),
        "Translation from English", f"Corpus chrF++ of greedy translations. {signature}",
    )  # fmt: skip
    return [
        chart(
            charts, "bits", figures.bits_per_byte(run), "Held-out bits per byte",
            "Lower is better. Thin lines are languages; point at one for its name.",
        ),
        _pair(pick, translation),
        _languages(run),
    ]  # fmt: skip


def _training(run: RunData, charts: dict[str, Figure]) -> list[str]:
    rate = chart(
        charts, "rate", figures.metric_curve(run, "learning_rate", "learning rate", ".1e"),
        "Learning rate",
    )  # fmt: skip
    norm = chart(
        charts, "norm", figures.metric_curve(run, "grad_norm", "norm of the gradient", "~s"),
        "Gradient",
    )  # fmt: skip
    return [
        chart(
            charts, "loss", figures.training_loss(run), "Training loss by source",
            "Smoothed over a twentieth of a stage, weighted by tokens.",
        ),
        _pair(rate, norm),
        chart(
            charts, "mixture", figures.mixture(run), "Mixture",
            "Rings are the shares that the stage asks for, dots the tokens it has had.",
        ),
    ]  # fmt: skip


def _benchmarks(run: RunData, charts: dict[str, Figure]) -> list[str]:
    """A chart for the first metric of every benchmark; the run's own tasks have theirs above."""
    metrics: dict[str, str] = {}
    for results in run.evaluations.values():
        for task, metric, _ in results:
            metrics.setdefault(task, metric)
    return [
        chart(
            charts, f"benchmark_{number}", work_figures.benchmark(run, task, metric),
            f"{task}, {metric}", "Thin lines are languages; point at one for its name.",
        )
        for number, (task, metric) in enumerate(metrics.items())
        if task not in TASKS
    ]  # fmt: skip


def _work(run: RunData, charts: dict[str, Figure]) -> list[str]:
    """Speed, where the time goes, and what is saved."""
    speed = chart(
        charts, "speed", figures.metric_curve(run, "tokens_per_second", "tokens/s", "~s"),
        "Tokens per second",
    )  # fmt: skip
    mfu = chart(charts, "mfu", figures.metric_curve(run, "mfu", "MFU", ".0%"), "Model FLOPs used")
    times = chart(charts, "times", work_figures.step_times(run), "Time of a step")
    shares = chart(charts, "shares", work_figures.shares(run), "Padding and the wait for input")
    return [_pair(speed, mfu), _pair(times, shares), _costs(run), _saved(run)]


def _pair(left: str, right: str) -> str:
    if not (left and right):
        return left or right
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'


def _costs(run: RunData) -> str:
    """Wall-clock time by what it went to, over all starts, and what devices that took."""
    parts = run.seconds()
    whole = sum(parts.values())
    if not whole:
        return ""
    devices = run.metrics[-1].get("devices")
    rows = []
    for name, seconds in {**parts, "all": whole}.items():
        cells = [f"{seconds / 3600:,.2f} h", f"{seconds / whole:.1%}"]
        if devices:
            cells.append(f"{seconds / 3600 * devices:,.2f}")
        kind = ' class="mean"' if name == "all" else ""
        cells = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr{kind}><td>{name}</td>{cells}</tr>")
    head = ["Time", "hours", "share", *(["device-hours"] if devices else [])]
    note = f"<p>On {devices:,} devices.</p>" if devices else ""
    return f"<h2>Cost</h2>{note}{table(head, rows, 'cost')}"


def _saved(run: RunData) -> str:
    if not (run.checkpoints or run.restarts()):
        return ""
    saved = ", ".join(f"{step:,}" for step in run.checkpoints) or "none"
    starts = ", ".join(f"{step:,}" for step in run.restarts()) or "none"
    skipped = run.metrics[-1].get("skipped_steps") if run.metrics else 0
    text = f"Saved steps: {saved}. Restarts, after step: {starts}."
    if skipped:
        text += f" Steps that were skipped as anomalies: {skipped:,}."
    return f"<h2>Checkpoints and restarts</h2><p>{text}</p>"


def _config(run: RunData) -> str:
    if not run.config:
        return ""
    config = json.dumps(run.config, indent=2, ensure_ascii=False)
    return f"<details><summary>Config</summary><pre>{escape(config)}</pre></details>"


def _languages(run: RunData) -> str:
    """A row a language: bits per byte at every milestone, the other tasks at the last."""
    marks, codes = run.milestones(), run.languages("bits_per_byte")
    if not marks or not codes:
        return ""
    last = marks[-1]
    head = ["Language", *(mark.label for mark in marks)]
    head += ["change"] * (len(marks) > 1) + ["right translation", "chrF++"]
    groups = [("english", []), ("high", ["high"]), ("low", ["low"]), ("other", [])]
    rows = []
    for group, means in groups:
        members = [code for code in codes if group_of(code) == group]
        rows += [_language_row(run, code, marks, last) for code in members]
        rows += [_language_row(run, mean, marks, last) for mean in means if members]
    note = f"Bits per byte by stage; the other two at {escape(last.label)}."
    return f"<h2>Languages</h2><p>{note}</p>{table(head, rows, 'languages')}"


def _language_row(run: RunData, code: str, marks: list[Milestone], last: Milestone) -> str:
    mean = group_of(code) == "average"
    name = f"{name_of(code)}-resource mean" if mean else name_of(code)
    label = escape(name) + ("" if mean else f" <small>{escape(code)}</small>")
    results = [run.figure(mark.step, "bits_per_byte", "bits_per_byte", code) for mark in marks]
    cells = [f"<td>{result.value:.3f}</td>" if result else "<td></td>" for result in results]
    if len(marks) > 1:
        cells.append(_change_cell(results[0], results[-1]))
    pick = run.figure(last.step, "pick_translation", PICK_TRANSLATION.metrics[0], code)
    chrf = run.figure(last.step, "translation", "chrf++", code)
    cells += [_plain_cell(pick, "share"), _plain_cell(chrf, "points")]
    row = 'tr class="mean"' if mean else "tr"
    return f"<{row}><td>{label}</td>{''.join(cells)}</tr>"


def _change_cell(first: Result | None, last: Result | None) -> str:
    if first is None or last is None or not first.value:
        return "<td></td>"
    change = 100 * (last.value / first.value - 1)
    return f'<td><small class="{"good" if change < 0 else "bad"}">{change:+.1f} %</small></td>'


def _plain_cell(result: Result | None, style: str) -> str:
    return f"<td>{format_figure(compare(result, None, style), style)[0]}</td>"
