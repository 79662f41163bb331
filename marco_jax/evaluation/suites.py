"""Suites: the requests of one task in one language, and the metrics of the engine's answers."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from marco_jax.decoding.requests import Score, ScoreRequest
from marco_jax.evaluation import metrics
from marco_jax.evaluation.metrics import Estimate
from marco_jax.tokenizers.tokenizer import Tokenizer

# Text between a context and an option, if an item has no other.
DELIMITER = " "


@dataclasses.dataclass(frozen=True)
class RollingSuite:
    """Bits per byte of whole texts, which are scored in windows.

    `requests` holds the windows of all texts, in the order of the texts; `windows` and `bytes` are
    the number of windows and the UTF-8 length of each text.
    """

    generates: ClassVar[bool] = False
    requests: Sequence[ScoreRequest]
    windows: Sequence[int]
    bytes: Sequence[int]

    @classmethod
    def build(cls, tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> RollingSuite:
        """Cuts texts into windows; texts without a token are left out."""
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
        """Bits of all tokens over bytes of all texts."""
        bits = np.array([-answer.logprob / math.log(2) for answer in answers])
        starts = np.cumsum([0, *self.windows[:-1]])
        return {"bits_per_byte": metrics.ratio(np.add.reduceat(bits, starts), self.bytes)}


def rolling_windows(ids: Sequence[int], prefix_id: int, max_length: int) -> list[ScoreRequest]:
    """Requests that predict every token of a text once, with at most `max_length` inputs each.

    As in lm-evaluation-harness, the first window starts with the token `prefix_id` and predicts
    `max_length` tokens. Each following window has the last token before it as context and predicts
    the next `max_length`. The last window is extended to the left until it has `max_length` inputs.
    """
    windows = [ScoreRequest([prefix_id], ids[:max_length])]
    for start in range(max_length, len(ids), max_length):
        end = min(start + max_length, len(ids))
        windows.append(ScoreRequest(ids[end - max_length - 1 : start], ids[start:end]))
    return windows


@dataclasses.dataclass(frozen=True)
class ChoiceItem:
    """A multiple-choice question: options to rank after a context, and the index of the right one.

    `premise` is a context without the question; an option's likelihood after it is the baseline
    of accuracy_pmi. "" means no context at all, as in lm-evaluation-harness.

    Items of the same `cluster` are not independent (for example, they share options), so clusters
    are the sampling units of the standard error. An item with None is its own cluster.

    `gold` holds all right options if there are several. Items of different `part` (subject) differ
    in difficulty, so the standard error comes from the variance within parts.
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
        """The indices of the right options, always as a tuple."""
        return self.gold if isinstance(self.gold, tuple) else (self.gold,)


# How options are ranked; only accuracy_pmi uses the log-probability after the premise.
CHOICE_METRICS = ("accuracy", "accuracy_norm", "accuracy_chars", "accuracy_pmi")


@dataclasses.dataclass(frozen=True)
class ChoiceSuite:
    """A multiple-choice task: ranks the options of each item by likelihood.

    `requests` first holds every item's options after its context, item by item. If accuracy_pmi
    is wanted, every distinct (premise, option) pair follows; `baselines` maps it to its index in
    `requests`, so options that items share after the same premise are scored once. Metrics divide
    the answers again by walking over the items with the number of their options.
    """

    generates: ClassVar[bool] = False
    requests: Sequence[ScoreRequest]
    items: Sequence[ChoiceItem]
    baselines: dict[tuple[str, str], int]
    metrics: tuple[str, ...] = ("accuracy", "accuracy_norm", "accuracy_pmi")

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        items: Sequence[ChoiceItem],
        names: tuple[str, ...] = ("accuracy", "accuracy_norm", "accuracy_pmi"),
    ) -> ChoiceSuite:
        """Encodes items; an option is scored as the delimiter followed by its text.

        `names` are the metrics to compute, from CHOICE_METRICS.
        """
        pairs = [
            (item.context, item.delimiter + option) for item in items for option in item.options
        ]
        first, baselines = len(pairs), {}
        if "accuracy_pmi" in names:
            baselines = dict.fromkeys(
                (item.premise, item.delimiter + option) for item in items for option in item.options
            )
        pairs += baselines
        requests = [
            ScoreRequest(*encode_pair(tokenizer, context, option)) for context, option in pairs
        ]
        return cls(requests, items, {pair: first + n for n, pair in enumerate(baselines)}, names)

    @property
    def examples(self) -> int:
        """Number of items."""
        return len(self.items)

    def estimates(self, answers: Sequence[Score]) -> dict[str, Estimate]:
        """Share of items whose first-ranked option is right; ties go to the first option.

        accuracy ranks by summed log-probability (acc of lm-evaluation-harness), accuracy_norm by
        log-probability per UTF-8 byte of the option (its acc_bytes), accuracy_chars per character
        (its acc_norm), accuracy_pmi by the increase of the option's log-probability from the
        premise to the context (its acc_mutual_info; Holtzman et al. 2021, arXiv 2104.08315).
        """
        return {name: self._mean(values) for name, values in self._correct(answers).items()}

    def part_estimates(self, answers: Sequence[Score]) -> dict[str, dict[str, Estimate]]:
        """Estimates by part, in the order of items; empty if there is only one part."""
        if len(self.part_sizes) < 2:
            return {}
        estimates: dict[str, dict[str, Estimate]] = {part: {} for part in self.part_sizes}
        for name, values in self._correct(answers).items():
            for part, own in self._by_part(values).items():
                estimates[part][name] = metrics.mean(own)
        return estimates

    @property
    def part_sizes(self) -> Mapping[str, int]:
        """Number of items of each part."""
        return collections.Counter(item.part for item in self.items)

    def _correct(self, answers: Sequence[Score]) -> dict[str, list[float]]:
        """By metric, 1 or 0 for each item: whether a right option is first; nan for nan scores."""
        correct: dict[str, list[float]] = {name: [] for name in self.metrics}
        start = 0
        for item in self.items:
            stop = start + len(item.options)
            logprobs = np.array([answer.logprob for answer in answers[start:stop]])
            for name, values in correct.items():
                scores = self._option_scores(name, item, logprobs, answers)
                first = int(scores.argmax())
                values.append(math.nan if np.isnan(scores).any() else float(first in item.golds))
            start = stop
        return correct

    def _option_scores(
        self, name: str, item: ChoiceItem, logprobs: np.ndarray, answers: Sequence[Score]
    ) -> np.ndarray:
        if name == "accuracy_norm":
            return logprobs / np.array([len(option.encode()) for option in item.options])
        if name == "accuracy_chars":
            return logprobs / np.array([len(option) for option in item.options])
        if name == "accuracy_pmi":
            indices = [self.baselines[item.premise, item.delimiter + text] for text in item.options]
            return logprobs - np.array([answers[index].logprob for index in indices])
        return logprobs

    def _mean(self, values: Sequence[float]) -> Estimate:
        parts = self._by_part(values)
        if len(parts) > 1:
            return metrics.pooled(list(parts.values()))
        clusters: dict[object, list[float]] = {}
        for number, (item, value) in enumerate(zip(self.items, values, strict=True)):
            key = number if item.cluster is None else item.cluster
            clusters.setdefault(key, []).append(value)
        sums = [sum(members) for members in clusters.values()]
        return metrics.ratio(sums, [len(members) for members in clusters.values()])

    def _by_part(self, values: Sequence[float]) -> dict[str, list[float]]:
        parts: dict[str, list[float]] = {}
        for item, value in zip(self.items, values, strict=True):
            parts.setdefault(item.part, []).append(value)
        return parts


def encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Encodes a context and the continuation to score.

    Follows lm-evaluation-harness (`TemplateLM._encode_pair`): whitespace at the end of the
    context moves to the continuation, both are encoded together, and the tokens past the
    length of the encoded context are the continuation. An empty context becomes EOS.

    Raises:
        ValueError: no token is left for the continuation.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    if kept:
        context_ids = tokenizer.encode(kept)
        continuation_ids = tokenizer.encode(kept + continuation)[len(context_ids) :]
    else:
        context_ids, continuation_ids = [tokenizer.eos_id], tokenizer.encode(continuation)
    if not continuation_ids:
        raise ValueError(
            f"continuation {continuation!r} has no tokens of its own after {context[-40:]!r}: "
            "start it with a space"
        )
    return context_ids, continuation_ids
