"""Rewards of sampled answers: scorers with weights, and what an answer gains on its group."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marco_jax.data.dialogues import REFERENCE
from marco_jax.evaluation.scorers import Scorer, load_scorer, score_answers
from marco_jax.languages import names_in

# How advantages are scaled: by the deviation of the group's rewards, of all rewards, or not at all.
SCALES = ("group", "batch", "none")
# Added to deviations, as in TRL.
_EPSILON = 1e-4


@dataclasses.dataclass(frozen=True)
class Rewards:
    """The weighted sum of scorers that an answer is rewarded with.

    names, weights: of the scorers, as `config.grpo.rewards` gives them.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    scorers: tuple[Scorer, ...]

    @classmethod
    def of(cls, text: str) -> Rewards:
        """Reads "chrf++=0.01,language=0.5": scorers (evaluation/scorers.py) and their weights.

        A scorer is a name, or "module:function" or "file.py:function". Without a weight it has 1.

        Raises:
            ValueError: no scorer, one that does not exist, or a weight that is not a number.
        """
        names, weights = [], []
        for item in names_in(text):
            name, _, weight = item.partition("=")
            try:
                weights.append(float(weight or 1))
            except ValueError:
                weights.append(math.nan)
            if not math.isfinite(weights[-1]):
                raise ValueError(f"grpo.rewards: {item!r}: the weight {weight!r} is not a number")
            names.append(name)
        if not names:
            raise ValueError(
                "grpo.rewards is empty: name scorers with weights, such as chrf++=0.01,language=0.5"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"grpo.rewards names a scorer twice: {text!r}")
        try:
            scorers = tuple(load_scorer(name, REFERENCE) for name in names)
        except ValueError as error:
            raise ValueError(f"grpo.rewards: {error}") from None
        return cls(tuple(names), tuple(weights), scorers)

    def score(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> np.ndarray:
        """What each scorer gives each answer, float64 [answers, scorers].

        Args:
            rows: the records of the answers' prompts; with a `language`, where that is known.
            answers: texts.

        Raises:
            ValueError: a scorer fails, or a record lacks a field that it needs.
        """
        columns = []
        for name, scorer in zip(self.names, self.scorers, strict=True):
            try:
                columns.append(score_answers(scorer, rows, answers))
            except ValueError as error:
                raise ValueError(f"grpo.rewards, {name}: {error}") from error
        return np.array(columns, np.float64).T.reshape(len(answers), len(self.names))

    def total(self, scores: np.ndarray) -> np.ndarray:
        """The reward of each answer, float64 [answers]; nan for one that must not be used."""
        return scores @ np.array(self.weights)


def advantages(rewards: np.ndarray, group: int, scale: str = "group") -> np.ndarray:
    """How much better each answer is than the other answers to its prompt.

    That is its reward less the mean of its group. Answers whose reward is nan are left out of means
    and deviations, and have nan.

    Args:
        rewards: float64 [answers]; every `group` neighbours are the answers to one prompt.
        group: answers to a prompt.
        scale: one of SCALES. "group" divides by the deviation of the group (GRPO), "batch" by that
            of all rewards, "none" not at all (Dr. GRPO): deviations give prompts on which nearly
            all answers are alike a larger weight.

    Returns:
        float64 [answers].
    """
    by_group = rewards.reshape(-1, group)
    known = np.isfinite(by_group)
    means = _mean(by_group, known)
    found = by_group - means
    if scale == "group":
        spread = np.sqrt(np.where(known, found**2, 0).sum(1) / np.maximum(known.sum(1) - 1, 1))
        found = found / (spread[:, None] + _EPSILON)
    elif scale == "batch":
        values = by_group[known]
        found = found / ((values.std(ddof=1) if values.size > 1 else 0.0) + _EPSILON)
    return np.where(known, found, np.nan).reshape(-1)


def _mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Means over the known values of each row, [rows, 1]; nan where there is none."""
    counts = known.sum(1, keepdims=True)
    sums = np.where(known, values, 0).sum(1, keepdims=True)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
