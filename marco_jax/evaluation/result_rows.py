"""Result rows of an evaluation: metrics by language and part, and means over languages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from marco_jax.evaluation import metrics
from marco_jax.evaluation.benchmark_tasks import BenchmarkTask
from marco_jax.evaluation.builtin_tasks import Task
from marco_jax.evaluation.metrics import Estimate
from marco_jax.evaluation.outcomes import Outcomes, SuiteKey
from marco_jax.evaluation.paired_differences import mean_stderr
from marco_jax.evaluation.results import ALL, HIGH, LOW, MEAN, Result
from marco_jax.languages import high_resource, low_resource

AnyTask = Task | BenchmarkTask


def result_rows(
    tasks: Sequence[AnyTask],
    outcomes: Mapping[SuiteKey, Outcomes],
    shots: Mapping[str, int],
    seed: int = 0,
) -> list[Result]:
    """The results of tasks in order: languages, means over them, parts of languages.

    `outcomes` are by task and language, `shots` by task; `seed` decides bootstrap resamples.
    """
    results = []
    for task in tasks:
        of_task = {code: one for (name, code), one in outcomes.items() if name == task.name}
        estimates = {code: one.estimates(seed) for code, one in of_task.items()}
        # Functions of registered tasks name their metrics themselves.
        names = task.metrics or dict.fromkeys(m for own in estimates.values() for m in own)
        rows = [
            _row(task.name, code, shots[task.name], metric, own[metric], of_task[code])
            for metric in names
            for code, own in estimates.items()
            # spBLEU is missing where its SentencePiece model is.
            if metric in own
        ]
        results += rows + averages(rows, of_task)
        parts = {code: one.part_estimates(seed) for code, one in of_task.items()}
        for row in rows:
            results += _part_rows(row, of_task[row.language], parts[row.language])
    return results


def _row(
    task: str, language: str, shots: int, metric: str, estimate: Estimate, outcomes: Outcomes
) -> Result:
    signature = outcomes.measured[metric].signature
    values = estimate.value, estimate.stderr, len(outcomes.items), signature
    return Result(task, language, shots, metric, *values)


def _part_rows(
    row: Result, outcomes: Outcomes, parts: Mapping[str, Mapping[str, Estimate]]
) -> Iterator[Result]:
    """Yields a result row per part (subject) of a task in a language, then their mean."""
    if not parts:
        return
    estimates = {part: own[row.metric] for part, own in parts.items()}
    estimates[MEAN] = metrics.macro_mean(list(estimates.values()))
    sizes = {**outcomes.part_sizes, MEAN: row.examples}
    for part, estimate in estimates.items():
        yield dataclasses.replace(
            row, value=estimate.value, stderr=estimate.stderr, examples=sizes[part], part=part
        )


def averages(
    rows: Sequence[Result], outcomes: Mapping[str, Outcomes] | None = None
) -> list[Result]:
    """Macro means over all, high-resource and low-resource languages of each task and metric.

    A group without a language in `rows` has no row. `outcomes` of the items, by language, tell
    which of them are translations of one another: their errors are not independent.
    """
    results = []
    for task, shots, metric in dict.fromkeys((row.task, row.shots, row.metric) for row in rows):
        same = [row for row in rows if (row.task, row.shots, row.metric) == (task, shots, metric)]
        for group, codes in ((ALL, None), (HIGH, high_resource()), (LOW, low_resource())):
            members = [row for row in same if codes is None or row.language in codes]
            if members:
                mean = metrics.macro_mean([Estimate(row.value, row.stderr) for row in members])
                examples = sum(row.examples for row in members)
                signatures = {row.signature for row in members}
                signature = signatures.pop() if len(signatures) == 1 else "mixed"
                stderr = None
                if outcomes and not math.isnan(mean.stderr):
                    stderr = mean_stderr([outcomes[row.language] for row in members], metric)
                stderr = mean.stderr if stderr is None else stderr
                values = mean.value, stderr, examples, signature
                results.append(Result(task, group, shots, metric, *values))
    return results
