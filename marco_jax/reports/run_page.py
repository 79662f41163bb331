"""The page of a run: the answers a reader comes for, charts, mixtures, samples, time and config."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.evaluation.builtin_tasks import PICK_TRANSLATION
from marco_jax.evaluation.metrics import CHRF, signature
from marco_jax.evaluation.paired_differences import Difference
from marco_jax.files import as_path, write_text
from marco_jax.reports import run_charts
from marco_jax.reports.charts import Figure
from marco_jax.reports.labels import task_label
from marco_jax.reports.page import Cell, cell, render_page
from marco_jax.reports.paired_rows import SIGNIFICANT, paired_table, run_differences
from marco_jax.reports.run_data import RunData, group_of, load_run, name_of
from marco_jax.reports.run_facts import answers, differences_from_defaults, run_facts, sample_rows
from marco_jax.reports.summary import format_value, summary, value_and_change

REPORT = "report.html"
_BITS = ("bits_per_byte", "bits_per_byte")
_PICK = ("pick_translation", PICK_TRANSLATION.metrics[0])
_CHRF = ("translation", "chrf++")
# Metrics of post-training: a title and a d3 format.
_POST_TRAINING = {
    "reward": ("mean reward", ".3~f"),
    "entropy": ("entropy, nats per token", ".3~f"),
    "answer_tokens": ("tokens of an answer", ".3~s"),
    "kl": ("divergence, nats per token", ".3~f"),
    "clip_share": ("share of tokens", ".2~%"),
    "reward_margin": ("margin", ".3~f"),
    "reward_accuracy": ("share of pairs", ".1~%"),
}


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `report.html` into a workdir; what the run has not yet written is left out.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    path = as_path(workdir) / REPORT
    write_text(path, run_page(load_run(workdir)))
    return path


def run_page(run: RunData, live: Mapping[str, Any] | None = None) -> str:
    """Renders the page of a run; `live` as in `page.render_page`."""
    found, marks = summary(run), run.milestones()
    changes = [run_differences(run, marks[0].step, run, mark.step) for mark in marks[1:]]
    tasks = run_charts.main_tasks(run)
    price = run.config.get("price_per_device_hour")
    language_head, languages = _languages(run)
    return render_page(
        "run.html.jinja",
        _charts(run, tasks),
        axes=[run_charts.axis_table(run)],
        live=live,
        summary=found,
        facts_of_run=run_facts(run),
        answers=answers(run, changes[-1] if changes else []),
        headlines=[_headline(line, changes) for line in found["headlines"]],
        paired=paired_table(changes[-1]) if changes else [],
        signature=signature(CHRF) if run.languages("translation") else "",
        benchmarks=[(f"task_{n}", task_label(task)) for n, (task, _) in enumerate(tasks)],
        language_head=language_head,
        languages=languages,
        samples=sample_rows(run),
        seconds=run.seconds(),
        price=price if isinstance(price, int | float) else 0,
        goodput=run.goodput(),
        attempts=len(run.attempts),
        checkpoints=run.checkpoints,
        restarts=run.restarts(),
        last=run.metrics[-1] if run.metrics else {},
        changed=differences_from_defaults(run),
        config=json.dumps(run.config, indent=2, ensure_ascii=False) if run.config else "",
    )


def _charts(run: RunData, tasks: Sequence[tuple[str, Sequence[str]]]) -> dict[str, Figure | None]:
    """The charts by the names that the template gives them."""
    metric = run_charts.metric_curve
    return {
        "bits": run_charts.evaluation_chart(run, _BITS[0], _BITS[1:]),
        "map": run_charts.evaluation_map(run),
        **{f"task_{n}": run_charts.evaluation_chart(run, *one) for n, one in enumerate(tasks)},
        "loss": run_charts.training_loss(run),
        **{
            name: run_charts.metric_by_label(run, name, *shown)
            for name, shown in _POST_TRAINING.items()
        },
        "rate": metric(run, "learning_rate", "learning rate", ".2~e", smooth=False),
        "norm": metric(run, "grad_norm", "norm of the gradient", "~r", log=True),
        "mixture": run_charts.shares_by_stage(run),
        "speed": metric(run, "tokens_per_second", "tokens/s", "~s"),
        "mfu": metric(run, "mfu", "MFU", ".0%"),
        "hbm": run_charts.memory_in_use(run),
        "times": run_charts.step_times(run),
        "shares": run_charts.padding_and_waits(run),
    }


def _headline(line: dict[str, Any], changes: Sequence[Sequence[Difference]]) -> list[Cell]:
    """A row of the first table; changes are coloured where they are unlikely to be chance.

    `changes` are the differences of each later milestone from the first, on the same items. Without
    them a change must exceed two standard errors of values that are independent, except for bits
    per byte, which are of the same texts.
    """
    relative, first = line["style"] == "relative", line["values"][0]
    key = line["task"], line["metric"], line["language"]
    row = [cell(line["label"], f"chance {line['chance']:.0%}" if line["chance"] else "")]
    for found, differences in zip(line["values"], [(), *changes], strict=True):
        text, change = format_value(found, line["style"])
        gain, noise = (found["change"], 0.0) if change else (0.0, 0.0)
        if change and not relative:
            noise = 2 * math.hypot(found["stderr"] or 0.0, first["stderr"] or 0.0)
        clear = abs(gain) > noise
        for one in differences:
            if key == (one.task, one.metric, one.language) and not math.isnan(one.p_value):
                clear = bool(gain) and one.p_value < SIGNIFICANT
        kind = "" if not clear else "good" if (gain < 0) == relative else "bad"
        row.append(cell(text, change, kind))
    return row


def _languages(run: RunData) -> tuple[list[str], list[list[Cell]]]:
    """A table of languages: bits per byte at every milestone, other metrics at the last.

    The first value is the head, of which only columns with values are left.
    """
    marks = run.milestones()
    codes = run.languages("bits_per_byte") if marks else []
    others = [
        (label, key, style)
        for label, key, style in (
            ("right translation", _PICK, "share"),
            ("chrF++", _CHRF, "points"),
        )
        if marks and any(run.result(marks[-1].step, *key, code) for code in codes)
    ]
    head = ["Language", *(mark.label for mark in marks)]
    head += ["change"] * (len(marks) > 1) + [label for label, _, _ in others]
    rows = []
    for group in ("english", "high", "low", "other"):
        members = [code for code in codes if group_of(code) == group]
        for code in members + [group] * (group in ("high", "low") and bool(members)):
            mean = code == group
            row = [cell(f"{name_of(code)}-resource mean") if mean else cell(name_of(code), code)]
            results = [run.result(mark.step, *_BITS, code) for mark in marks]
            row += [f"{result.value:.3f}" if result else "" for result in results]
            if len(marks) > 1:
                found = value_and_change(results[-1], results[0], "relative")
                change = format_value(found, "relative")[1]
                row.append(cell("", change, "bad" if change.startswith("+") else "good"))
            for _, key, style in others:
                found = value_and_change(run.result(marks[-1].step, *key, code), None, style)
                row.append(format_value(found, style)[0])
            rows.append(row)
    return head, rows
