"""The requests of one task in one language, and the figures behind the engine's answers."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

from marco_jax.decoding.requests import GenerateRequest, Score, ScoreRequest
from marco_jax.evaluation import metrics
from marco_jax.evaluation.few_shot import DELIMITER, encode_pair
from marco_jax.evaluation.metrics import Estimate
from marco_jax.tokenizers.tokenizer import Tokenizer


class Suite(Protocol):
    """What the evaluator needs of a task in a language."""

    generates: ClassVar[bool]
    requests: Sequence[ScoreRequest] | Sequence[GenerateRequest]
    examples: int

    def estimates(self, answers: Sequence) -> dict[str, Estimate]:
        """Figures by metric, from the engine's answers in the order of `requests`."""
        ...


@dataclasses.dataclass(frozen=True)
class RollingSuite:
    """Bits per byte over whole texts.

    Attributes:
        requests: windows of all texts, one after another.
        windows: how many of them each text has.
        bytes: UTF-8 length of each text.
    """

    generates: ClassVar[bool] = False
    requests: Sequence[ScoreRequest]
    windows: Sequence[int]
    bytes: Sequence[int]

    @classmethod
    def build(cls, tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> RollingSuite:
        """Cuts texts in windows; texts without a token are left out."""
        encoded = [(text, ids) for text in texts if (ids := tokenizer.encode(text))]
        windows = [rolling_windows(ids, tokenizer.eos_id, max_length) for _, ids in encoded]
        return cls(
            requests=[window for text_windows in windows for window in text_windows],
            windows=[len(text_windows) for text_windows in windows],
            bytes=[len(text.encode()) for text, _ in encoded],
        )

    @property
    def examples(self) -> int:
        """Number of texts."""
        return len(self.bytes)

    def estimates(self, answers: Sequence[Score]) -> dict[str, Estimate]:
        """Bits of the texts' own tokens over the texts' bytes."""
        bits = np.array([-answer.logprob / math.log(2) for answer in answers])
        starts = np.cumsum([0, *self.windows[:-1]])
        return {"bits_per_byte": metrics.ratio(np.add.reduceat(bits, starts), self.bytes)}


def rolling_windows(ids: Sequence[int], prefix_id: int, max_length: int) -> list[ScoreRequest]:
    """Requests that predict every token of a text once, with at most `max_length` inputs each.

    As lm-evaluation-harness does it: the first window starts with the prefix token and predicts
    `max_length` tokens, so do the next ones after the last token seen; the last window reaches
    back for context until it is full.
    """
    windows = [ScoreRequest([prefix_id], ids[:max_length])]
    for start in range(max_length, len(ids), max_length):
        end = min(start + max_length, len(ids))
        windows.append(ScoreRequest(ids[end - max_length - 1 : start], ids[start:end]))
    return windows


@dataclasses.dataclass(frozen=True)
class ChoiceItem:
    """A question: options to rank after a context, and the index of the right one.

    `premise` is a context that does not ask the question: what an option's likelihood there is
    says how likely it is anyhow. "" stands for no context at all, as in lm-evaluation-harness.

    Items of the same `cluster` are not independent (they share options, say): the standard error
    takes clusters as its unit. None is a cluster of its own.

    `gold` holds all right options where there are several. Items of different `part` differ in
    difficulty, as subjects do: the standard error comes from the spread within parts.
    """

    context: str
    options: tuple[str, ...]
    gold: int | tuple[int, ...]
    premise: str = ""
    cluster: str | None = None
    delimiter: str = DELIMITER
    part: str = ""

    @property
    def golds(self) -> tuple[int, ...]:
        """The right options, as a tuple in any case."""
        return self.gold if isinstance(self.gold, tuple) else (self.gold,)


# How options are ranked; the log-probability after the premise counts in accuracy_pmi alone.
CHOICE_METRICS = ("accuracy", "accuracy_norm", "accuracy_chars", "accuracy_pmi")


@dataclasses.dataclass(frozen=True)
class ChoiceSuite:
    """Ranking of options by likelihood.

    The requests are every item's options in order, then, where a metric asks for it, every
    distinct option after its premise.
    """

    generates: ClassVar[bool] = False
    requests: Sequence[ScoreRequest]
    items: Sequence[ChoiceItem]
    alone: dict[tuple[str, str], int]
    metrics: tuple[str, ...] = ("accuracy", "accuracy_norm", "accuracy_pmi")

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        items: Sequence[ChoiceItem],
        names: tuple[str, ...] = ("accuracy", "accuracy_norm", "accuracy_pmi"),
    ) -> ChoiceSuite:
        """Encodes items; an option is scored as the delimiter and its text.

        Args:
            tokenizer: encodes contexts and options.
            items: the questions.
            names: which of CHOICE_METRICS are wanted.
        """
        pairs = [
            (item.context, item.delimiter + option) for item in items for option in item.options
        ]
        first, alone = len(pairs), {}
        if "accuracy_pmi" in names:
            alone = dict.fromkeys(
                (item.premise, item.delimiter + option) for item in items for option in item.options
            )
        pairs += alone
        requests = [
            ScoreRequest(*encode_pair(tokenizer, context, option)) for context, option in pairs
        ]
        return cls(requests, items, {pair: first + n for n, pair in enumerate(alone)}, names)

    @property
    def examples(self) -> int:
        """Number of items."""
        return len(self.items)

    def estimates(self, answers: Sequence[Score]) -> dict[str, Estimate]:
        """Share of items of which a right option ranks first; of equals the first counts.

        accuracy ranks by summed log-probability (acc of lm-evaluation-harness), accuracy_norm by
        the same per UTF-8 byte of the option (its acc_bytes), accuracy_chars per character (its
        acc_norm), accuracy_pmi by what the question adds to the log-probability of the option
        (its acc_mutual_info; Holtzman et al. 2021, arXiv 2104.08315).
        """
        return {name: self._mean(values) for name, values in self._right(answers).items()}

    def part_estimates(self, answers: Sequence[Score]) -> dict[str, dict[str, Estimate]]:
        """The same by part, in the order of items; none where there is one part alone."""
        right, numbers = self._right(answers), {}
        for number, item in enumerate(self.items):
            numbers.setdefault(item.part, []).append(number)
        if len(numbers) < 2:
            return {}
        return {
            part: {name: metrics.mean([right[name][n] for n in own]) for name in right}
            for part, own in numbers.items()
        }

    @property
    def part_sizes(self) -> Mapping[str, int]:
        """How many items each part has."""
        return collections.Counter(item.part for item in self.items)

    def _right(self, answers: Sequence[Score]) -> dict[str, list[float]]:
        """By metric, whether a right option ranks first, item after item."""
        right: dict[str, list[float]] = {name: [] for name in self.metrics}
        start = 0
        for item in self.items:
            stop = start + len(item.options)
            logprobs = np.array([answer.logprob for answer in answers[start:stop]])
            for name, values in right.items():
                values.append(_right_is_first(self._ranks(name, item, logprobs, answers), item))
            start = stop
        return right

    def _ranks(
        self, name: str, item: ChoiceItem, logprobs: np.ndarray, answers: Sequence[Score]
    ) -> np.ndarray:
        if name == "accuracy_norm":
            return logprobs / np.array([len(option.encode()) for option in item.options])
        if name == "accuracy_chars":
            return logprobs / np.array([len(option) for option in item.options])
        if name == "accuracy_pmi":
            places = [self.alone[item.premise, item.delimiter + text] for text in item.options]
            return logprobs - np.array([answers[place].logprob for place in places])
        return logprobs

    def _mean(self, values: Sequence[float]) -> Estimate:
        parts: dict[str, list[float]] = {}
        for item, value in zip(self.items, values, strict=True):
            parts.setdefault(item.part, []).append(value)
        if len(parts) > 1:
            return metrics.pooled(list(parts.values()))
        clusters: dict[object, list[float]] = {}
        for number, (item, value) in enumerate(zip(self.items, values, strict=True)):
            key = number if item.cluster is None else item.cluster
            clusters.setdefault(key, []).append(value)
        sums = [sum(members) for members in clusters.values()]
        return metrics.ratio(sums, [len(members) for members in clusters.values()])


def _right_is_first(scores: np.ndarray, item: ChoiceItem) -> float:
    """1 where a right option ranks first, else 0; nan where a score is nan."""
    return math.nan if np.isnan(scores).any() else float(int(scores.argmax()) in item.golds)
