"""Outcomes: what each item of a task contributes to its metrics, kept beside the results.

The value of every metric is a function of sums over items: of right answers, of bits and bytes, of
matching n-grams. So a few numbers per item give a metric of all items, of a subject or of a
bootstrap resample, and two models can be compared item by item (`paired_differences`).

Files of outcomes are gzipped JSON lines, one for each task and language: {"task", "language",
"shots", "items": [..], "metrics": {"accuracy": {"scorer": "mean", "columns": [[1, 0, ..]]}}} and,
where the task has them, "parts", "clusters" and "questions" with an entry for each item.
"""

from __future__ import annotations

import collections
import dataclasses
import gzip
import hashlib
import json
import math
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.evaluation import metrics
from marco_jax.evaluation.metrics import Estimate
from marco_jax.files import as_path, write_bytes

# Scorers besides sacrebleu's: the mean of a number per item, the sum of one number over that of
# another, and (value, standard error) of functions that judge all answers together.
MEAN, RATIO, GIVEN = "mean", "ratio", "given"

# A task's name and a language.
SuiteKey = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the items contribute to one metric.

    Attributes:
        scorer: how sums become the metric: MEAN, RATIO, GIVEN, or a corpus metric of `metrics`.
        counts: float64 [items, columns]: a value (MEAN); a numerator and a denominator (RATIO);
            `metrics.corpus_counts`. GIVEN has one row, [value, standard error].
    """

    scorer: str
    counts: np.ndarray

    @classmethod
    def mean(cls, values: Sequence[float]) -> Measured:
        """A metric that is the mean of these values."""
        return cls(MEAN, np.asarray(values, np.float64)[:, None])

    @classmethod
    def ratio(cls, numerators: Sequence[float], denominators: Sequence[float]) -> Measured:
        """A metric that is the sum of numerators over the sum of denominators."""
        return cls(RATIO, np.stack([numerators, denominators], axis=1).astype(np.float64))

    @property
    def signature(self) -> str:
        """Sacrebleu's signature; "" for metrics that sacrebleu does not compute."""
        known = self.scorer in (MEAN, RATIO, GIVEN)
        return "" if known else metrics.signature(self.scorer)


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What the items of a task in a language contribute to its metrics.

    Attributes:
        items: a key of each item, the same for every model, format and number of shots.
        measured: by metric.
        parts: the part (subject) of each item; empty if there are none.
        clusters: what items that are not independent have in common, "" for items that are; empty
            if all are.
        questions: what an item asks in any language: the translations of a question have the same
            value. Empty if translations are not known.
    """

    items: Sequence[str]
    measured: Mapping[str, Measured]
    parts: Sequence[str] = ()
    clusters: Sequence[str] = ()
    questions: Sequence[str] = ()

    def estimates(self, seed: int = 0) -> dict[str, Estimate]:
        """All metrics with standard errors; `seed` decides the bootstrap resamples.

        Within parts, which differ in difficulty, errors come from the variance within each of
        them. Otherwise clusters are the sampling units.
        """
        return {name: self._estimate(one, seed) for name, one in self.measured.items()}

    def part_estimates(self, seed: int = 0) -> dict[str, dict[str, Estimate]]:
        """Estimates by part, in the order of items; empty if there is only one part."""
        if len(self.part_sizes) < 2:
            return {}
        rows: dict[str, list[int]] = {part: [] for part in self.part_sizes}
        for index, part in enumerate(self.parts):
            rows[part].append(index)
        return {part: self.take(own).estimates(seed) for part, own in rows.items()}

    @property
    def part_sizes(self) -> Mapping[str, int]:
        """Number of items of each part."""
        return collections.Counter(self.parts)

    def _estimate(self, measured: Measured, seed: int) -> Estimate:
        scorer, counts = measured.scorer, measured.counts
        if scorer == GIVEN:
            return Estimate(*map(float, counts[0]))
        if scorer not in (MEAN, RATIO):
            return metrics.bootstrap(scorer, counts.astype(np.int64), seed)
        tops = counts[:, 0]
        if scorer == MEAN and len(self.part_sizes) > 1:
            own: dict[str, list[float]] = {part: [] for part in self.part_sizes}
            for part, value in zip(self.parts, tops.tolist(), strict=True):
                own[part].append(value)
            return metrics.pooled(list(own.values()))
        bottoms = np.ones_like(tops) if scorer == MEAN else counts[:, 1]
        if any(self.clusters):
            _, units = np.unique(self.units(), return_inverse=True)
            tops, bottoms = np.bincount(units, tops), np.bincount(units, bottoms)
        return metrics.ratio(tops, bottoms)

    def units(self) -> list[str]:
        """The sampling unit of each item: its cluster, or the item by itself."""
        clusters = self.clusters or [""] * len(self.items)
        return [f"#{c}" if c else f"{n}" for n, c in enumerate(clusters)]

    def take(self, rows: Sequence[int]) -> Outcomes:
        """The outcomes of some items, by their numbers."""
        return Outcomes(
            [self.items[row] for row in rows],
            {
                name: one if one.scorer == GIVEN else Measured(one.scorer, one.counts[list(rows)])
                for name, one in self.measured.items()
            },
            *([values[row] for row in rows] if values else () for values in self._columns()),
        )

    def _columns(self) -> tuple[Sequence[str], ...]:
        return self.parts, self.clusters, self.questions

    @classmethod
    def join(cls, pieces: Sequence[Outcomes]) -> Outcomes:
        """The outcomes of disjoint sets of a task's items as one, set after set."""
        first = pieces[0]
        if len(pieces) == 1:
            return first
        measured = {
            name: Measured(
                one.scorer, np.concatenate([piece.measured[name].counts for piece in pieces])
            )
            for name, one in first.measured.items()
        }
        columns = zip(*((piece.items, *piece._columns()) for piece in pieces), strict=True)
        items, *others = ([value for values in column for value in values] for column in columns)
        return cls(items, measured, *others)

    def to_record(self) -> dict[str, Any]:
        """Converts to a JSON object; numbers that are not finite become null."""
        record: dict[str, Any] = {"items": list(self.items)}
        for name, values in zip(("parts", "clusters", "questions"), self._columns(), strict=True):
            if any(values):
                record[name] = list(values)
        record["metrics"] = {
            name: {
                "scorer": one.scorer,
                "columns": [list(map(_number, column)) for column in one.counts.T.tolist()],
            }
            for name, one in self.measured.items()
        }
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Outcomes:
        """Converts from a JSON object.

        Raises:
            KeyError, TypeError, ValueError: it is not one that `to_record` returns.
        """
        measured = {
            name: Measured(
                one["scorer"],
                np.array(one["columns"], np.float64).T.reshape(-1, len(one["columns"])),
            )
            for name, one in record["metrics"].items()
        }
        for one in measured.values():
            if one.scorer != GIVEN and len(one.counts) != len(record["items"]):
                raise ValueError("a metric has another number of items")
        return cls(
            record["items"],
            measured,
            *(record.get(name, ()) for name in ("parts", "clusters", "questions")),
        )


def item_key(*parts: Any) -> str:
    """A short hash of an item's content, which must be JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def outcomes_path(results: str | os.PathLike) -> pathlib.Path:
    """The file of outcomes beside a file of results: results.items.jsonl.gz of results.json."""
    path = as_path(results)
    return path.with_name(path.name.removesuffix(".json") + ".items.jsonl.gz")


def write_outcomes(
    path: pathlib.Path, outcomes: Mapping[SuiteKey, Outcomes], shots: Mapping[str, int]
) -> None:
    """Writes outcomes by task and language atomically; `shots` is the number of each task.

    The same outcomes give the same bytes.
    """
    lines = [
        {"task": task, "language": language, "shots": shots[task], **one.to_record()}
        for (task, language), one in outcomes.items()
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    # Without the time of writing, which gzip would store.
    write_bytes(path, gzip.compress(text.encode("utf-8", "replace"), mtime=0))


def read_outcomes(path: pathlib.Path) -> dict[SuiteKey, Outcomes]:
    """Reads the outcomes that `write_outcomes` wrote, by task and language.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged; the message names it.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return {(one["task"], one["language"]): Outcomes.from_record(one) for one in records}
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"cannot read outcomes from {path}: {error}") from None


def find_outcomes(results: str | os.PathLike) -> dict[SuiteKey, Outcomes]:
    """Reads the outcomes beside a file of results.

    Raises:
        ValueError: there are none, or they are damaged.
    """
    path = outcomes_path(results)
    if not path.exists():
        raise ValueError(
            f"{results} has no outcomes of items beside it ({path.name}): evaluate the model again"
        )
    return read_outcomes(path)


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def unique_keys(items: Iterable[str]) -> list[str]:
    """Keys of items, of which equal ones are numbered: an item may occur twice in a file."""
    seen: collections.Counter[str] = collections.Counter()
    keys = []
    for item in items:
        seen[item] += 1
        keys.append(item if seen[item] == 1 else f"{item}#{seen[item]}")
    return keys
