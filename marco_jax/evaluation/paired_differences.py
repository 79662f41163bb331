"""Differences of two models on the same items, with paired standard errors and p-values.

Two models that answer the same items are right and wrong on much the same ones, so the error of
their difference is far smaller than those of the two values suggest. Items are the sampling units,
or their clusters; in means over languages the translations of a question are one unit.

- Means and ratios: the difference is a sum of one number per unit. Its standard error comes from
  their spread (the linearised estimator, within parts where there are some), its p-value from
  random exchanges of the two models' outcomes unit by unit (Fisher's randomisation test; for
  right and wrong answers this is McNemar's test).
- BLEU and chrF++: the standard error comes from paired bootstrap resamples of the units (Koehn
  2004), the p-value from the same random exchanges (Riezler and Maxwell 2005).

p-values are two-sided.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.evaluation import metrics
from marco_jax.evaluation.outcomes import (
    GIVEN,
    MEAN,
    RATIO,
    Measured,
    Outcomes,
    SuiteKey,
    unique_keys,
)
from marco_jax.evaluation.results import ALL, HIGH, LOW
from marco_jax.languages import high_resource, low_resource

# Random exchanges: of sums, and of BLEU or chrF++, which cost more.
EXCHANGES, CORPUS_EXCHANGES = 10_000, 1_000
# From this number of units with a difference on the normal distribution gives the p-value.
_MANY = 1_000


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of two models on the items that both have answered.

    Attributes:
        task, language, metric: as in `results.Result`.
        items: number of items.
        first, second: values of the metric.
        difference: second - first.
        stderr: its paired standard error; nan if it is not defined.
        p_value: of the hypothesis that both models are equally good, two-sided.
    """

    task: str
    language: str
    metric: str
    items: int
    first: float
    second: float
    difference: float
    stderr: float
    p_value: float

    def to_row(self) -> dict[str, Any]:
        """Converts to a JSON object; values that are not finite become null."""
        row = dataclasses.asdict(self)
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The outcomes of two models on the same items: float64 [items, columns] each."""

    scorer: str
    first: np.ndarray
    second: np.ndarray
    units: list[str]
    parts: Sequence[str]


def paired_differences(
    first: Mapping[SuiteKey, Outcomes], second: Mapping[SuiteKey, Outcomes], seed: int = 0
) -> list[Difference]:
    """Compares two evaluations task by task, on the items that both have.

    Rows are ordered by task and metric; the means over all, high-resource and low-resource
    languages follow the languages. Tasks and metrics of only one of the evaluations are left out,
    and those of functions that judge all answers together. `seed` decides random draws.
    """
    tasks = dict.fromkeys(task for task, _ in first)
    differences: list[Difference] = []
    for task in tasks:
        shared = {
            key[1]: _common(first[key], second[key])
            for key in first
            if key[0] == task and key in second
        }
        shared = {language: both for language, both in shared.items() if both[0].items}
        names = dict.fromkeys(name for both in shared.values() for name in both[0].measured)
        for name in names:
            pairs = {
                language: _pair(language, name, *both)
                for language, both in shared.items()
                if _comparable(name, *both)
            }
            groups = {language: [language] for language in pairs}
            groups |= _groups(pairs)
            differences += [
                _difference(task, group, name, [pairs[code] for code in codes], seed)
                for group, codes in groups.items()
            ]
    return differences


def _groups(languages: Mapping[str, _Pair]) -> dict[str, list[str]]:
    """The languages of each mean; a mean over nothing is left out."""
    groups = {
        group: [code for code in languages if known is None or code in known]
        for group, known in ((ALL, None), (HIGH, high_resource()), (LOW, low_resource()))
    }
    return {group: codes for group, codes in groups.items() if codes}


def _common(first: Outcomes, second: Outcomes) -> tuple[Outcomes, Outcomes]:
    """The items that both have, in the order of the first."""
    rows = {key: row for row, key in enumerate(unique_keys(second.items))}
    found = [(row, rows[key]) for row, key in enumerate(unique_keys(first.items)) if key in rows]
    return first.take([row for row, _ in found]), second.take([row for _, row in found])


def _comparable(name: str, first: Outcomes, second: Outcomes) -> bool:
    ours, theirs = first.measured.get(name), second.measured.get(name)
    return bool(ours and theirs) and GIVEN != ours.scorer == theirs.scorer


def _pair(language: str, name: str, first: Outcomes, second: Outcomes) -> _Pair:
    ours, theirs = first.measured[name], second.measured[name]
    units = [f"{language} {unit}" for unit in first.units()]
    if first.questions and not any(first.clusters):
        # The same in all languages.
        units = [
            f"question {question}" if question else unit
            for question, unit in zip(first.questions, units, strict=True)
        ]
    return _Pair(ours.scorer, ours.counts, theirs.counts, units, first.parts)


def _difference(
    task: str, language: str, metric: str, pairs: Sequence[_Pair], seed: int
) -> Difference:
    """The difference of the mean over several languages, or in one."""
    items = sum(len(pair.first) for pair in pairs)
    scorers = [pair.scorer for pair in pairs]
    first, second = (
        float(np.mean([_value(s, c.sum(0), len(c)) for s, c in zip(scorers, counts, strict=True)]))
        for counts in ([pair.first for pair in pairs], [pair.second for pair in pairs])
    )
    units, count = _numbered(pairs)
    random = np.random.default_rng(seed)
    if not math.isfinite(second - first):
        stderr, p_value = math.nan, math.nan
    elif pairs[0].scorer in (MEAN, RATIO):
        stderr, effects = _linear(pairs, units, count)
        p_value = _exchanged_sums(effects, random)
    else:
        stderr, p_value = _resampled(pairs, units, count, second - first, random)
    return Difference(task, language, metric, items, first, second, second - first, stderr, p_value)


def _value(scorer: str, sums: np.ndarray, items: int) -> float:
    if scorer == MEAN:
        return float(sums[0] / items)
    if scorer == RATIO:
        return float(sums[0] / sums[1])
    return metrics.corpus_score(scorer, sums.astype(np.int64))


def _linear(
    pairs: Sequence[_Pair], units: Sequence[np.ndarray], count: int
) -> tuple[float, np.ndarray]:
    """Standard error of a difference that is a sum over `count` units, and their contributions.

    An item contributes its difference over the sum of denominators and the number of languages.
    The spread is that of contributions around what they would be were the difference the same for
    every item of the language (or part). A language has one mean, or one for each part; so many
    degrees of freedom are lost, counted once where several languages share their units.
    """
    spread, effects = np.zeros(count), np.zeros(count)
    strata = 0
    for pair, own in zip(pairs, units, strict=True):
        gains = pair.second[:, 0] - pair.first[:, 0]
        sizes = np.ones_like(gains) if pair.scorer == MEAN else pair.first[:, 1]
        whole = sizes.sum() * len(pairs)
        _, parts = np.unique(pair.parts or [""] * len(gains), return_inverse=True)
        means = np.bincount(parts, gains) / np.bincount(parts, sizes)
        strata += len(means)
        effects += np.bincount(own, gains / whole, count)
        spread += np.bincount(own, (gains - means[parts] * sizes) / whole, count)
    lost = strata * count / sum(len(np.unique(own)) for own in units)
    stderr = math.nan
    if count > lost:
        stderr = math.sqrt(count / (count - lost) * float(spread @ spread))
    return stderr, effects


def _exchanged_sums(effects: np.ndarray, random: np.random.Generator) -> float:
    """The p-value of a sum under random signs of its terms."""
    effects = effects[effects != 0]
    observed = abs(float(effects.sum()))
    if not len(effects):
        return 1.0
    if len(effects) > _MANY:
        return math.erfc(observed / math.sqrt(2 * float(effects @ effects)))
    signs = random.integers(0, 2, (EXCHANGES, len(effects)), np.int8) * 2.0 - 1.0
    return _share_beyond(signs @ effects, observed)


def _share_beyond(values: np.ndarray, observed: float) -> float:
    """The share of values at least as far from 0 as the observed one, which counts as one more."""
    # Sums in another order round differently.
    beyond = int((np.abs(values) >= observed - 1e-9 * max(observed, 1e-9)).sum())
    return (1 + beyond) / (1 + len(values))


def _resampled(
    pairs: Sequence[_Pair],
    units: Sequence[np.ndarray],
    count: int,
    observed: float,
    random: np.random.Generator,
) -> tuple[float, float]:
    """Standard error and p-value of a difference of corpus metrics, over `count` units."""

    def score(pair: _Pair, sums: np.ndarray) -> np.ndarray:
        rows = np.rint(sums).astype(np.int64)
        return np.array([metrics.corpus_score(pair.scorer, row) for row in rows])

    swapped = random.integers(0, 2, (CORPUS_EXCHANGES, count))
    resamples, exchanges = np.zeros(metrics.RESAMPLES), np.zeros(len(swapped))
    shared = sum(len(np.unique(own)) for own in units) > count
    times = _times_drawn(count, random) if shared else None
    for pair, own in zip(pairs, units, strict=True):
        if times is None:
            _, local = np.unique(own, return_inverse=True)
            weights = _times_drawn(int(local.max()) + 1, random)[:, local]
        else:
            weights = times[:, own]
        resamples += score(pair, weights @ pair.second) - score(pair, weights @ pair.first)
        change = swapped[:, own] @ (pair.second - pair.first)
        # Where a unit is exchanged, each model has the other's counts.
        ours, theirs = pair.first.sum(0) + change, pair.second.sum(0) - change
        exchanges += score(pair, theirs) - score(pair, ours)
    stderr = float(np.std(resamples / len(pairs), ddof=1)) if count > 1 else math.nan
    return stderr, _share_beyond(exchanges / len(pairs), abs(observed))


def _times_drawn(count: int, random: np.random.Generator) -> np.ndarray:
    """How often each of `count` units is in each bootstrap resample, int [resamples, units]."""
    draws = random.integers(count, size=(metrics.RESAMPLES, count))
    return np.stack([np.bincount(draw, minlength=count) for draw in draws])


def mean_stderr(members: Sequence[Outcomes], metric: str) -> float | None:
    """Standard error of a mean over languages whose items are translations of one another.

    None where translations are not known, or the metric is not a mean: languages then count as
    independent.
    """
    if not all(one.questions and one.measured[metric].scorer == MEAN for one in members):
        return None
    pairs = [_pair(str(n), metric, _zero(one, metric), one) for n, one in enumerate(members)]
    units, count = _numbered(pairs)
    return _linear(pairs, units, count)[0]


def _zero(outcomes: Outcomes, metric: str) -> Outcomes:
    """The same items with 0 everywhere: a difference from it is the value itself."""
    counts = np.zeros_like(outcomes.measured[metric].counts)
    return dataclasses.replace(outcomes, measured={metric: Measured(MEAN, counts)})


def _numbered(pairs: Sequence[_Pair]) -> tuple[list[np.ndarray], int]:
    """The number of the unit of each item, by language, and how many units there are."""
    names, numbers = np.unique([unit for pair in pairs for unit in pair.units], return_inverse=True)
    return np.split(numbers, np.cumsum([len(pair.first) for pair in pairs])[:-1]), len(names)
