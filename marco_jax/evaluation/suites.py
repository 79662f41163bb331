"""The requests of one task in one language, and the figures behind the engine's answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from marco_jax.decoding.requests import GenerateRequest, Generation, Score, ScoreRequest
from marco_jax.evaluation import metrics
from marco_jax.evaluation.metrics import Estimate
from marco_jax.evaluation.prompts import DELIMITER, encode_pair
from marco_jax.tokenizer import Tokenizer


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
    """

    context: str
    options: tuple[str, ...]
    gold: int
    premise: str = ""
    cluster: str | None = None

    def __post_init__(self) -> None:
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"options {self.options} repeat: each may stand once")


@dataclasses.dataclass(frozen=True)
class ChoiceSuite:
    """Ranking of options by likelihood.

    The requests are every item's options in order, then every distinct option after its premise.
    """

    generates: ClassVar[bool] = False
    requests: Sequence[ScoreRequest]
    items: Sequence[ChoiceItem]
    alone: dict[tuple[str, str], int]

    @classmethod
    def build(cls, tokenizer: Tokenizer, items: Sequence[ChoiceItem]) -> ChoiceSuite:
        """Encodes items; an option is scored as a space and its text."""
        pairs = [(item.context, option) for item in items for option in item.options]
        first = len(pairs)
        alone = dict.fromkeys((item.premise, option) for item in items for option in item.options)
        pairs += alone
        requests = [
            ScoreRequest(*encode_pair(tokenizer, context, DELIMITER + option))
            for context, option in pairs
        ]
        return cls(requests, items, {pair: first + n for n, pair in enumerate(alone)})

    @property
    def examples(self) -> int:
        """Number of items."""
        return len(self.items)

    def estimates(self, answers: Sequence[Score]) -> dict[str, Estimate]:
        """Share of items whose right option ranks first; of equals the first counts.

        accuracy ranks by summed log-probability, accuracy_norm by the same per UTF-8 byte of the
        option, accuracy_pmi by what the question adds to the log-probability of the option
        (Holtzman et al. 2021, arXiv 2104.08315).
        """
        right: dict[str, list[float]] = {"accuracy": [], "accuracy_norm": [], "accuracy_pmi": []}
        start = 0
        for item in self.items:
            stop = start + len(item.options)
            logprobs = np.array([answer.logprob for answer in answers[start:stop]])
            lengths = np.array([len(option.encode()) for option in item.options])
            places = [self.alone[item.premise, option] for option in item.options]
            alone = np.array([answers[place].logprob for place in places])
            right["accuracy"].append(_first_is(logprobs, item.gold))
            right["accuracy_norm"].append(_first_is(logprobs / lengths, item.gold))
            right["accuracy_pmi"].append(_first_is(logprobs - alone, item.gold))
            start = stop
        return {name: self._mean(values) for name, values in right.items()}

    def _mean(self, values: Sequence[float]) -> Estimate:
        clusters: dict[object, list[float]] = {}
        for number, (item, value) in enumerate(zip(self.items, values, strict=True)):
            key = number if item.cluster is None else item.cluster
            clusters.setdefault(key, []).append(value)
        sums = [sum(members) for members in clusters.values()]
        return metrics.ratio(sums, [len(members) for members in clusters.values()])


def _first_is(scores: np.ndarray, gold: int) -> float:
    """1 where the gold option ranks first, else 0; nan where a score is nan."""
    return math.nan if np.isnan(scores).any() else float(scores.argmax() == gold)


@dataclasses.dataclass(frozen=True)
class GenerationSuite:
    """Greedy answers of one line, compared with references."""

    generates: ClassVar[bool] = True
    requests: Sequence[GenerateRequest]
    references: Sequence[str]
    seed: int

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        references: Sequence[str],
        *,
        max_new_tokens: int,
        seed: int,
    ) -> GenerationSuite:
        """Encodes prompts; `seed` is that of the bootstrap behind the standard error."""
        requests = [
            GenerateRequest(tokenizer.encode(prompt), max_new_tokens, stop=("\n",))
            for prompt in prompts
        ]
        return cls(requests, references, seed)

    @property
    def examples(self) -> int:
        """Number of sentences."""
        return len(self.references)

    def estimates(self, answers: Sequence[Generation]) -> dict[str, Estimate]:
        """Corpus chrF++ of the generated lines."""
        hypotheses = [answer.text.strip() for answer in answers]
        return {"chrf++": metrics.chrf(hypotheses, self.references, self.seed)}
