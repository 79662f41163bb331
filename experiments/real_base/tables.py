"""The study's results as Markdown tables, from the files that its commands wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence

from experiments.real_base.commands import ALONE, BASE, PAIRED, Paths, Question
from marco_jax.evaluation.results import ALL, HIGH, LOW, Result, read_results
from marco_jax.reports.run_data import name_of


def markdown(paths: Paths, arms: Sequence[str]) -> str:
    """What the base knows, and what each arm changed; parts that have no results are named."""
    lines = ["## The base", "", *_base(paths)]
    for question in PAIRED:
        lines += [
            "",
            f"## {question.tasks}, before and after",
            "",
            *_changes(paths, arms, question),
        ]
    missing = [
        f"{model} {question.name}"
        for model, questions in ((BASE, (*PAIRED, *ALONE)), *((arm, PAIRED) for arm in arms))
        for question in questions
        if not paths.results(model, question).exists()
    ]
    lines += ["", f"Not measured yet: {', '.join(missing) or 'nothing'}.", ""]
    return "\n".join(lines)


def _base(paths: Paths) -> list[str]:
    """A row a task and language: value, standard error, items."""
    lines = ["| task | language | metric | value | standard error | items |", "|---" * 6 + "|"]
    for question in (*PAIRED, *ALONE):
        path = paths.results(BASE, question)
        for row in _main_rows(read_results(path)) if path.exists() else ():
            lines.append(
                f"| {row.task}, {row.shots} shots | {_language(row.language)} | {row.metric} "
                f"| {row.value:.3f} | {row.stderr:.3f} | {row.examples} |"
            )
    return lines


def _main_rows(rows: Sequence[Result]) -> list[Result]:
    """Rows of the task's main metric, which is the first one, without those of subjects."""
    return [row for row in rows if row.metric == rows[0].metric and not row.part]


def _changes(paths: Paths, arms: Sequence[str], question: Question) -> list[str]:
    """A row a language: the base, and the difference of each arm with its paired error."""
    found = {}
    for arm in arms:
        path = paths.difference(arm, question)
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            metric = rows[0]["metric"]
            found[arm] = {row["language"]: row for row in rows if row["metric"] == metric}
    if not found:
        return ["Not measured yet."]
    lines = ["| language | items | before | " + " | ".join(found) + " |"]
    lines.append("|---" * (3 + len(found)) + "|")
    for code, row in next(iter(found.values())).items():
        cells = [_change(rows.get(code)) for rows in found.values()]
        shown = f"| {_language(code)} | {row['items']} | {row['first']:.3f} | "
        lines.append(shown + " | ".join(cells) + " |")
    return lines


def _change(row: dict | None) -> str:
    if row is None:
        return ""
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.3f}"
    return f"{row['difference']:+.3f}{error}"


def _language(code: str) -> str:
    return {ALL: "mean of all", HIGH: "mean of high-resource", LOW: "mean of low-resource"}.get(
        code, name_of(code)
    )
