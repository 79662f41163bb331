"""Preference pairs: of several answers to a prompt, the best beside the worst.

The answers are the model's own, and a scorer ranks them: preference training on them is on-policy.
A record is what sources of kind "preference" read: "prompt", "chosen" and "rejected", with the
"language" of the row; its scores, their difference ("margin") and the row's other fields stand
beside them.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.decoding.requests import Generation
from marco_jax.evaluation.chat_prompts import CONVERSATIONS
from marco_jax.evaluation.scorers import Row, Scorer, score

# What decoding writes for bytes that are no UTF-8.
_BROKEN = "\ufffd"

# Why a prompt has no pair.
FEW, ALIKE = "fewer than two different answers", "a margin below the least"


@dataclasses.dataclass(frozen=True)
class Sample:
    """Answers to a row that can be ranked, none of them twice."""

    row: Row
    answers: tuple[str, ...]


def usable(row: Row, generations: Sequence[Generation]) -> Sample:
    """The answers that are whole texts.

    A cut one would teach to stop where it was cut; one with broken UTF-8 cannot be written as the
    tokens that it was drawn with.
    """
    texts = (answer.text for answer in generations if answer.ended)
    whole = (text for text in texts if text.strip() and _BROKEN not in text)
    return Sample(row, tuple(dict.fromkeys(whole)))


def rank(samples: Sequence[Sample], scorer: Scorer) -> list[list[tuple[str, float]]]:
    """Answers of each sample with their scores, best first; of equals the first drawn comes first.

    Answers whose score is nan or infinite are left out.

    Raises:
        ValueError: the scorer gives something else than a number an answer.
    """
    asked = [(sample.row, answer) for sample in samples for answer in sample.answers]
    values = iter(score(scorer, [row for row, _ in asked], [text for _, text in asked]))
    ranked = []
    for sample in samples:
        scored = [(answer, next(values)) for answer in sample.answers]
        scored = [one for one in scored if math.isfinite(one[1])]
        ranked.append(sorted(scored, key=lambda one: -one[1]))
    return ranked


class PairWriter:
    """Turns ranked answers into preference records, and counts prompts without one."""

    def __init__(self, least_margin: float) -> None:
        """Takes the least difference of scores that makes a pair; equals never make one."""
        self._least = least_margin
        self.pairs = 0
        self.without: collections.Counter[str] = collections.Counter()

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """The preference of a record {"row", "prompt", "ranked"}, or None."""
        ranked = record["ranked"]
        if len(ranked) < 2:
            self.without[FEW] += 1
            return None
        (chosen, best), (rejected, worst) = ranked[0], ranked[-1]
        if best - worst < self._least or best == worst:
            self.without[ALIKE] += 1
            return None
        self.pairs += 1
        own = {name: value for name, value in record["row"].items() if name not in CONVERSATIONS}
        return {
            **own,
            "prompt": record["prompt"],
            "chosen": chosen,
            "rejected": rejected,
            "chosen_score": best,
            "rejected_score": worst,
            "margin": best - worst,
        }

    def summary(self) -> str:
        """How many prompts have a pair, and why others have none."""
        counts = [f"{self.pairs:,} pairs"]
        counts += [f"{count:,} prompts with {why}" for why, count in self.without.items()]
        return ", ".join(counts)
