"""Suites: the requests of one task in one language, and the metrics of the engine's answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from marco_jax.decoding.requests import Score, ScoreRequest
from marco_jax.evaluation.metrics import Estimate
from marco_jax.evaluation.outcomes import Measured, Outcomes, item_key
from marco_jax.tokenizers.tokenizer import Tokenizer

# Text between a context and an option, if an item has no other.
DELIMITER = " "


class Suite:
    """Items of one task in one language, and their requests to the engine.

    Attributes:
        generates: whether requests are for generations; otherwise for scores.
        requests: those of all items.
    """

    generates: ClassVar[bool]
    requests: Sequence[Any]

    @property
    def examples(self) -> int:
        """Number of items."""
        raise NotImplementedError

    def take(self, rows: Sequence[int]) -> Suite:
        """A suite of some of the items, by their numbers."""
        raise NotImplementedError

    def outcomes(self, answers: Sequence[Any]) -> Outcomes:
        """What each item contributes to the metrics; `answers` are those to `requests`."""
        raise NotImplementedError

    def estimates(self, answers: Sequence[Any], seed: int = 0) -> dict[str, Estimate]:
        """The metrics with standard errors."""
        return self.outcomes(answers).estimates(seed)

    def units(self) -> list[list[int]]:
        """Numbers of the items that are evaluated all or not at all, such as a cluster's."""
        return [[row] for row in range(self.examples)]

    @property
    def parts(self) -> Sequence[str]:
        """The part (subject) of each item; empty if there are none."""
        return ()


@dataclasses.dataclass(frozen=True)
class RollingSuite(Suite):
    """Bits per byte of whole texts, which are scored in windows.

    `requests` holds the windows of all texts, in the order of the texts; `windows` and `bytes` are
    the number of windows and the UTF-8 length of each text, `keys` identify them.
    """

    generates: ClassVar[bool] = False
    requests: Sequence[ScoreRequest]
    windows: Sequence[int]
    bytes: Sequence[int]
    keys: Sequence[str]

    @classmethod
    def build(cls, tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> RollingSuite:
        """Cuts texts into windows; texts without a token are left out."""
        encoded = [(text, ids) for text in texts if (ids := tokenizer.encode(text))]
        windows = [rolling_windows(ids, tokenizer.eos_id, max_length) for _, ids in encoded]
        return cls(
            requests=[window for text_windows in windows for window in text_windows],
            windows=[len(text_windows) for text_windows in windows],
            bytes=[len(text.encode()) for text, _ in encoded],
            keys=[item_key(text) for text, _ in encoded],
        )

    @property
    def examples(self) -> int:
        """Number of texts."""
        return len(self.bytes)

    def take(self, rows: Sequence[int]) -> RollingSuite:
        """See Suite."""
        ends = np.cumsum(self.windows).tolist()
        return RollingSuite(
            [
                window
                for row in rows
                for window in self.requests[ends[row] - self.windows[row] : ends[row]]
            ],
            *([values[row] for row in rows] for values in (self.windows, self.bytes, self.keys)),
        )

    def outcomes(self, answers: Sequence[Score]) -> Outcomes:
        """Bits of all tokens over bytes of all texts."""
        bits = np.array([-answer.logprob / math.log(2) for answer in answers])
        starts = np.cumsum([0, *self.windows[:-1]])
        measured = Measured.ratio(np.add.reduceat(bits, starts), self.bytes)
        return Outcomes(self.keys, {"bits_per_byte": measured})


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

    `key` identifies the item, whatever its format and shots are; `question` what it asks, in any
    language ("" if its translations are not known).
    """

    context: str
    options: tuple[str, ...]
    gold: int | tuple[int, ...]
    premise: str = ""
    cluster: str | None = None
    delimiter: str = DELIMITER
    part: str = ""
    key: str = ""
    question: str = ""

    @property
    def golds(self) -> tuple[int, ...]:
        """The indices of the right options, always as a tuple."""
        return self.gold if isinstance(self.gold, tuple) else (self.gold,)


# How options are ranked; only accuracy_pmi uses the log-probability after the premise.
CHOICE_METRICS = ("accuracy", "accuracy_norm", "accuracy_chars", "accuracy_pmi")


@dataclasses.dataclass(frozen=True)
class ChoiceSuite(Suite):
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
        first = len(pairs)
        baselines = _baselines(items) if "accuracy_pmi" in names else {}
        pairs += baselines
        requests = [
            ScoreRequest(*encode_pair(tokenizer, context, option)) for context, option in pairs
        ]
        return cls(requests, items, {pair: first + n for n, pair in enumerate(baselines)}, names)

    @property
    def examples(self) -> int:
        """Number of items."""
        return len(self.items)

    def take(self, rows: Sequence[int]) -> ChoiceSuite:
        """See Suite."""
        ends = np.cumsum([len(item.options) for item in self.items]).tolist()
        items = [self.items[row] for row in rows]
        requests = [
            request
            for row, item in zip(rows, items, strict=True)
            for request in self.requests[ends[row] - len(item.options) : ends[row]]
        ]
        first, baselines = len(requests), _baselines(items) if self.baselines else {}
        requests += [self.requests[self.baselines[pair]] for pair in baselines]
        indices = {pair: first + n for n, pair in enumerate(baselines)}
        return ChoiceSuite(requests, items, indices, self.metrics)

    def units(self) -> list[list[int]]:
        """Neighbours of one cluster belong together: their options are those of one another."""
        units: list[list[int]] = []
        for row, item in enumerate(self.items):
            if units and item.cluster is not None and item.cluster == self.items[row - 1].cluster:
                units[-1].append(row)
            else:
                units.append([row])
        return units

    @property
    def parts(self) -> Sequence[str]:
        """The part (subject) of each item; empty if there are none."""
        parts = [item.part for item in self.items]
        return parts if any(parts) else ()

    def outcomes(self, answers: Sequence[Score]) -> Outcomes:
        """Whether a right option is first, by metric; ties go to the first option.

        accuracy ranks by summed log-probability (acc of lm-evaluation-harness), accuracy_norm by
        log-probability per UTF-8 byte of the option (its acc_bytes), accuracy_chars per character
        (its acc_norm), accuracy_pmi by the increase of the option's log-probability from the
        premise to the context (its acc_mutual_info; Holtzman et al. 2021, arXiv 2104.08315).
        """
        measured = {n: Measured.mean(values) for n, values in self._correct(answers).items()}
        clusters, questions = (
            values if any(values) else ()
            for values in (
                ["" if item.cluster is None else item.cluster for item in self.items],
                [item.question for item in self.items],
            )
        )
        keys = [item.key or item_key(item.context, item.options) for item in self.items]
        return Outcomes(keys, measured, self.parts, clusters, questions)

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


def _baselines(items: Sequence[ChoiceItem]) -> dict[tuple[str, str], None]:
    """The distinct pairs of a premise and an option with its delimiter, in the order of items."""
    return dict.fromkeys(
        (item.premise, item.delimiter + option) for item in items for option in item.options
    )


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
