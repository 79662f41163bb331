"""Chooses the metrics of runs that a sweep fits, with their standard errors, and drops bad ones."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from marco_jax.evaluation.results import Result
from marco_jax.languages import LANGUAGES, names_in
from marco_jax.training.config import ConfigError

# A fit needs so many runs.
LEAST_RUNS = 4


@dataclasses.dataclass(frozen=True)
class Series:
    """One target over the runs that have a usable metric of it.

    Attributes:
        runs: names of the runs.
        values: [runs], positive, lower is better.
        errors: known standard errors of the values, [runs]; 0 where the fit estimates all noise.
    """

    runs: tuple[str, ...]
    values: np.ndarray
    errors: np.ndarray


def target_values(results: Sequence[Result]) -> dict[str, float]:
    """Targets by "TASK/METRIC/LANGUAGE", as positive values of which lower is better.

    Accuracies become error rates, and BLEU and chrF are subtracted from 100.
    """
    return {
        _name(result): result.value if not _whole(result) else _whole(result) - result.value
        for result in results
        if not result.part
    }


def target_errors(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """The value and the known standard error of each rate, such as an accuracy, by target.

    A rate in which all items, or none, are right has a standard error of 0 by its items. It is
    taken for half an item of one more, as under Jeffreys' prior of a binomial probability, with the
    standard error of that rate. Bits per byte, BLEU and chrF have no known error here: runs are
    scored on the same texts, so that their metrics rise and fall together with the choice of texts;
    how they differ beyond that is the noise that the fit estimates.
    """
    found = {}
    for result in results:
        if result.part or _whole(result) != 1 or not 0 <= result.value <= 1:
            continue
        rate, error, items = 1 - result.value, result.stderr, max(result.examples, 1)
        if min(rate, 1 - rate) < 1e-9:
            half = 0.5 / (items + 1)
            rate = half if rate < 0.5 else 1 - half
            error = math.nan
        if not (math.isfinite(error) and error > 0):
            error = math.sqrt(rate * (1 - rate) / (items + 1))
        found[_name(result)] = (rate, error)
    return found


def _name(result: Result) -> str:
    return f"{result.task}/{result.metric}/{result.language}"


def _whole(result: Result) -> int:
    """The best value of a metric of which higher is better; 0 for bits per byte."""
    if result.metric == "bits_per_byte":
        return 0
    return 100 if "chrf" in result.metric or "bleu" in result.metric else 1


def find_targets(text: str, runs: Sequence[Mapping[str, float]]) -> list[str]:
    """Targets of the tasks in `sweep.targets`, in the languages that more than half the runs have.

    Raises:
        ConfigError: an item of `text` matches none.
    """
    count = Counter(name for run in runs for name in run)
    known = [name for name in count if 2 * count[name] > len(runs)]
    found = []
    for item in names_in(text):
        task, _, metric = item.partition("/")
        matching = [
            name
            for name in known
            if name.split("/")[0] == task
            and (not metric or name.split("/")[1] == metric)
            and name.rpartition("/")[2] in LANGUAGES
        ]
        if not matching:
            metrics = sorted({name.rpartition("/")[0] for name in known})
            raise ConfigError(f"sweep.targets: no run has {item!r}; there are {', '.join(metrics)}")
        # Without a metric, take the first one of the task, its main metric.
        main = matching[0].rpartition("/")[0]
        found += [name for name in matching if name.rpartition("/")[0] == main]
    return list(dict.fromkeys(found))


def usable_series(
    targets: Sequence[str], results: Mapping[str, Sequence[Result]]
) -> tuple[dict[str, Series], list[str]]:
    """Collects each target over the runs, without metrics that cannot be fitted.

    Args:
        targets: names of targets.
        results: results by run.

    Returns:
        series by target, for targets with at least four usable runs, and a line for each metric
        and each target that is left out.
    """
    values = {run: target_values(rows) for run, rows in results.items()}
    rates = {run: target_errors(rows) for run, rows in results.items()}
    found, faults = {}, []
    for target in targets:
        kept = {}
        for run in results:
            value = values[run].get(target, math.nan)
            value, error = rates[run].get(target, (value, 0.0))
            if math.isfinite(value) and value > 0:
                kept[run] = value, error
                continue
            fault = f"is {value:g}" if target in values[run] else "is missing"
            faults.append(f"{target} of {run} {fault}: this run is left out of this target's fit")
        if len(kept) < LEAST_RUNS:
            faults.append(
                f"{target} is not fitted: {len(kept)} of {len(results)} runs have a usable metric, "
                f"{LEAST_RUNS} are needed"
            )
            continue
        rows = np.array(list(kept.values()))
        found[target] = Series(tuple(kept), rows[:, 0], rows[:, 1])
    return found, faults
