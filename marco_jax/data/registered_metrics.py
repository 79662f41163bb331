"""Metric functions of registered SeqIO tasks, called on what a model answers.

As in SeqIO's Evaluator, a task's postprocessor turns targets and predictions into what its metric
functions compare. They run where SeqIO is imported, in a process of their own (workers.py).
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import seqio

from marco_jax.data.task_info import ModelAnswers
from marco_jax.data.tokenise import held_out_examples
from marco_jax.data.workers import Context

# Resamples of the examples that a standard error comes from.
_RESAMPLES = 50


class _Compared(NamedTuple):
    targets: Sequence[Any]
    predictions: Sequence[Any]

    def chosen(self, indices: Sequence[int]) -> _Compared:
        return _Compared(*([side[i] for i in indices] for side in self))


def compute(context: Context, answers: ModelAnswers) -> dict[str, tuple[float, float]]:
    """The metrics of a task by name, each with its standard error by bootstrap.

    Raises:
        ValueError: a metric function fails; the message has the reason.
    """
    task = seqio.TaskRegistry.get(answers.job.source)
    given = dict(zip(answers.indices, answers.texts, strict=True))
    targets, predictions = [], []
    for index, (example, texts) in enumerate(held_out_examples(context, answers.job)):
        if index > max(given):
            break
        if index in given:
            post = functools.partial(task.postprocess_fn, example=example)
            targets.append(post(texts[1], is_target=True))
            predictions.append(post(given[index], is_target=False))
    compared = _Compared(targets, predictions)
    values = _values(task, compared)
    rng = np.random.default_rng(0)
    resampled = [
        _values(task, compared.chosen(rng.integers(len(targets), size=len(targets)).tolist()))
        for _ in range(_RESAMPLES)
    ]
    return {
        name: (value, float(np.std([own[name] for own in resampled], ddof=1)))
        for name, value in values.items()
    }


def _values(task: seqio.Task, compared: _Compared) -> dict[str, float]:
    found: dict[str, float] = {}
    for function in task.predict_metric_fns:
        found |= _numbers(task.name, function, compared)
    return found


def _numbers(
    name: str, function: Callable[..., Mapping[str, Any]], compared: _Compared
) -> dict[str, float]:
    try:
        values = function(list(compared.targets), list(compared.predictions))
    except Exception as error:  # whatever the user's function raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"a metric function of the task {name!r} fails: {reason}") from None
    plain = {key: getattr(value, "value", value) for key, value in values.items()}
    return {k: float(v) for k, v in plain.items() if isinstance(v, numbers.Number | np.generic)}
