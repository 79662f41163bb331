"""Mixture weights that follow how fast the loss of each source falls, without proxy runs.

After ADO (Jiang et al. 2024, arXiv 2410.11820): the losses of a source are fitted by a power law of
the tokens read, e + b n^-a; its learning speed is the slope of that. A source's preference is its
prior share times its speed, times a power of the share that it has had lately: a source that is
hardly read causes little of its own progress. Weights follow the preferences slowly, and no weight
falls below a part of the prior's. Until every source has a few points, the prior holds.

Everything is a function of the losses that were seen, so that a restart goes on exactly.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Points that a power law takes; exponents it may have; shares of the least loss that e may be.
_POINTS = 4
_EXPONENTS = (0.005, 0.8)
_FLOORS = np.linspace(0.0, 0.98, 50)
# What a slope is at least, as a part of the loss an e-fold of tokens: noise must not stop a source.
_LEAST_SPEED = 1e-4


@dataclasses.dataclass(frozen=True)
class AdaptiveOptions:
    """Fields of `config.mixture.adaptive`.

    Attributes:
        every: steps between two changes of the weights; 0: the mixture stays as it is.
        rate: by how much of the way to the preferences the weights move at a change.
        credit: power of the share that a source has had, 0 to 1.
        least: part of the prior's share that a source keeps.
    """

    every: int = 0
    rate: float = 0.1
    credit: float = 0.5
    least: float = 0.2

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.every < 0:
            raise ValueError(f"mixture.adaptive.every is {self.every}: 0 turns it off")
        for name in ("rate", "credit", "least"):
            if not 0 <= getattr(self, name) <= 1:
                value = getattr(self, name)
                raise ValueError(f"mixture.adaptive.{name} is {value}: it is a share, 0 to 1")


class Adaptive:
    """Collects losses by source, and derives weights from them."""

    def __init__(self, options: AdaptiveOptions) -> None:
        """Starts without losses."""
        self.options = options
        # Of each source: (tokens of the run, mean loss) between two changes.
        self._points: dict[str, list[list[float]]] = {}
        # Since the last change: sum of losses and tokens of each source.
        self._sums: dict[str, list[float]] = {}
        # The share that each source has had, as a moving average.
        self._had: dict[str, float] = {}
        self._tokens = 0
        self.changed = 0

    def due(self, step: int) -> bool:
        """Whether weights change after `step` steps."""
        return step > self.changed and step > 0 and step % self.options.every == 0

    def observe(self, row: Mapping[str, Any]) -> None:
        """Takes a line of metrics: its `tokens`, and `loss/` and `tokens/` of each source."""
        self._tokens = row["tokens"]
        for key, loss in row.items():
            if key.startswith("loss/") and loss is not None:
                source = key.removeprefix("loss/")
                count = row[f"tokens/{source}"]
                sums = self._sums.setdefault(source, [0.0, 0.0])
                sums[0] += loss * count
                sums[1] += count

    def change(
        self, step: int, prior: Mapping[str, float], shares: Mapping[str, float]
    ) -> dict[str, float]:
        """Shares from `step` on; the present ones while there are too few losses.

        Args:
            step: finished steps.
            prior: shares of the stage as configured.
            shares: that hold now.
        """
        self.changed = step
        for source, (total, count) in self._sums.items():
            self._points.setdefault(source, []).append([self._tokens, total / count])
        self._sums = {}
        read = [source for source, share in prior.items() if share > 0]
        for source in read:
            before = self._had.get(source, shares[source])
            self._had[source] = before + self.options.rate * (shares[source] - before)
        if any(len(self._points.get(source, ())) < _POINTS for source in read):
            return dict(shares)
        speeds = np.array([learning_speed(self._points[source]) for source in read])
        base = np.array([prior[source] for source in read])
        had = np.array([self._had[source] for source in read])
        preferred = base * speeds * had**self.options.credit
        preferred /= preferred.sum()
        now = np.array([shares[source] for source in read])
        moved = now + self.options.rate * (preferred - now)
        moved = _at_least(moved, self.options.least * base / base.sum())
        return {s: 0.0 for s in shares} | dict(zip(read, moved.tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Everything that it has collected, as plain data, which later losses do not change."""
        collected = {
            "points": self._points,
            "sums": self._sums,
            "had": self._had,
            "tokens": self._tokens,
            "changed": self.changed,
        }
        # A checkpoint is written in the background, while the next steps are observed.
        return copy.deepcopy(collected)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self._points = {s: [list(p) for p in points] for s, points in state["points"].items()}
        self._sums = {source: list(sums) for source, sums in state["sums"].items()}
        self._had, self._tokens = dict(state["had"]), state["tokens"]
        self.changed = state["changed"]


def learning_speed(points: Sequence[Sequence[float]]) -> float:
    """By how much a loss falls with an e-fold of tokens at its last point, from a power law.

    Args:
        points: (tokens, loss) in order; losses above zero.
    """
    tokens, losses = np.array(points, np.float64).T
    logs = np.log(tokens)
    best = (np.inf, 0.0)
    for floor in _FLOORS * losses.min():
        slope, level = np.polyfit(logs, np.log(losses - floor), 1)
        exponent = float(np.clip(-slope, *_EXPONENTS))
        level = float(np.mean(np.log(losses - floor) + exponent * logs))
        fitted = np.exp(level - exponent * logs)
        error = float(np.sum((floor + fitted - losses) ** 2))
        if error < best[0]:
            best = (error, exponent * float(fitted[-1]))
    return max(best[1], _LEAST_SPEED * float(losses[-1]))


def _at_least(shares: np.ndarray, least: np.ndarray) -> np.ndarray:
    """The same shares, none below its least: the others give in proportion to what is above."""
    shares = np.maximum(shares, least)
    above = shares - least
    return least + above * (1 - least.sum()) / above.sum()
