"""Makes preference pairs from a model's answers to a prompt: the best and the worst by a scorer.

The answers are the model's own, so preference training on them is on-policy. A record has the
format of sources of kind "preference": "prompt", "chosen" and "rejected", with the "language" of
the row; it also holds the scores, their difference ("margin") and the row's other fields.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.decoding.requests import Generation
from marco_jax.evaluation.chat_prompts import CONVERSATIONS
from marco_jax.evaluation.scorers import Row, Scorer, score_answers

# Decoding replaces invalid UTF-8 bytes by this character.
_BROKEN = "\ufffd"

# Reasons why a prompt has no pair.
FEW, ALIKE = "fewer than two different answers", "a margin below the least"


@dataclasses.dataclass(frozen=True)
class Sample:
    """The distinct answers to a row that can be ranked."""

    row: Row
    answers: tuple[str, ...]


def usable(row: Row, generations: Sequence[Generation]) -> Sample:
    """Keeps the complete answers.

    A truncated answer would train the model to stop where it was cut; one with broken UTF-8
    cannot be encoded as the tokens that were sampled.
    """
    texts = (answer.text for answer in generations if answer.ended)
    whole = (text for text in texts if text.strip() and _BROKEN not in text)
    return Sample(row, tuple(dict.fromkeys(whole)))


def rank(samples: Sequence[Sample], scorer: Scorer) -> list[list[tuple[str, float]]]:
    """Sorts the answers of each sample by score, best first; ties keep the order of sampling.

    Answers whose score is nan or infinite are left out.

    Raises:
        ValueError: the scorer does not return one number per answer.
    """
    asked = [(sample.row, answer) for sample in samples for answer in sample.answers]
    values = iter(score_answers(scorer, [row for row, _ in asked], [text for _, text in asked]))
    ranked = []
    for sample in samples:
        scored = [(answer, next(values)) for answer in sample.answers]
        scored = [one for one in scored if math.isfinite(one[1])]
        ranked.append(sorted(scored, key=lambda one: -one[1]))
    return ranked


class PairWriter:
    """Turns ranked answers into preference records, and counts prompts without a pair."""

    def __init__(self, least_margin: float) -> None:
        """`least_margin` is the minimum difference of scores; equal scores never make a pair."""
        self._least_margin = least_margin
        self.pairs = 0
        self.without: collections.Counter[str] = collections.Counter()

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Makes a preference record of {"row", "prompt", "ranked"}, or None."""
        ranked = record["ranked"]
        if len(ranked) < 2:
            self.without[FEW] += 1
            return None
        (chosen, best), (rejected, worst) = ranked[0], ranked[-1]
        if best - worst < self._least_margin or best == worst:
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
        """The number of pairs, and of prompts without one by reason."""
        counts = [f"{self.pairs:,} pairs"]
        counts += [f"{count:,} prompts with {reason}" for reason, count in self.without.items()]
        return ", ".join(counts)
