"""Estimates which words translate one another, from sentence pairs of which some are wrong.

IBM Model 1 (Brown et al. 1993, Computational Linguistics 19:2) is trained in both directions at
once, and a link of two words counts as much as both directions agree on it (Liang et al. 2006,
"Alignment by Agreement"). Words are stems of five letters, or pairs of characters in languages
without spaces. A pair that the model was trained on is scored without its own counts, so that a
wrong pair does not confirm itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_jax.ngrams import CHARACTERS, normalized_words

STEM = 5
# Lengths of the runs of characters that stand for words, if not 2 and 3.
CHARACTER_RUNS = {"zh": (1, 2), "ja": (1, 2)}
# At most so many different words of each side are used.
WORDS = 40
# Iterations of expectation maximisation after each choice of pairs.
ROUNDS = 4
# How often the pairs that look right are chosen again.
CHOICES = 2
# Weight of a word's frequency, which is interpolated with its translation probability.
BACKGROUND = 0.1
# Weight of a word's frequency as an alternative to the other side's words.
EMPTY = 1.0
# Occurrences that are added to a word's links, so that rare words say less.
DOUBT = 0.5
# Minimum probability, in either direction, of the links that are kept.
LEAST = 0.01

Gains = tuple[np.ndarray, np.ndarray]


def word_list(text: str, language: str) -> list[str]:
    """The different words of a text that translations are estimated for, in order."""
    words = normalized_words(text)
    if language in CHARACTERS:
        joined = "".join(words)
        sizes = CHARACTER_RUNS.get(language, (2, 3))
        runs = (joined[at : at + n] for at in range(len(joined)) for n in sizes)
        return list(dict.fromkeys(runs))[: len(sizes) * WORDS]
    return list(dict.fromkeys(word[:STEM] for word in words))[:WORDS]


@dataclasses.dataclass
class WordTranslations:
    """Expected numbers of links between words of two languages.

    `words` are the words of both sides by number, `counts` float64 [words] of each side their
    numbers of sentences, `totals` float64 [words] of each side their numbers of links, and `links`
    has the number for source * len(words[1]) + target. `sentences` is the number of pairs.
    """

    words: tuple[dict[str, int], dict[str, int]]
    counts: tuple[np.ndarray, np.ndarray]
    totals: tuple[np.ndarray, np.ndarray]
    links: dict[int, float]

    def gains(self, source: Sequence[str], target: Sequence[str], own: bool) -> Gains:
        """How much more likely the words of each side are, given the other side.

        Args:
            source: words of `word_list`.
            target: words of `word_list`.
            own: whether the model was trained on this pair.

        Returns:
            float64 arrays: natural logarithms for the known words of target and of source, in
            order; NaN for unknown words.
        """
        here = [self.words[0].get(word, -1) for word in source]
        there = [self.words[1].get(word, -1) for word in target]
        found = (np.full(len(target), np.nan), np.full(len(source), np.nan))
        rows = [at for at, number in enumerate(here) if number >= 0]
        columns = [at for at, number in enumerate(there) if number >= 0]
        if not rows or not columns:
            return found
        one = np.array([here[at] for at in rows])
        two = np.array([there[at] for at in columns])
        get, width = self.links.get, len(self.words[1])
        links = np.array(
            [[get(s * width + t, 0.0) for t in two.tolist()] for s in one.tolist()], np.float64
        )
        totals = self.totals[0][one], self.totals[1][two]
        counts = self.counts[0][one], self.counts[1][two]
        alone = [c / a.sum() for c, a in zip(counts, self.counts, strict=True)]
        if own:
            forward = links / (totals[0][:, None] + DOUBT)
            backward = links / (totals[1] + DOUBT)
            forward = forward / (forward.sum(0) + EMPTY * alone[1])
            linked = forward * backward / (backward.sum(1) + EMPTY * alone[0])[:, None]
            links = np.maximum(links - linked, 0)
            totals = totals[0] - linked.sum(1), totals[1] - linked.sum(0)
            counts = counts[0] - 1, counts[1] - 1
            alone = [c / a.sum() for c, a in zip(counts, self.counts, strict=True)]
        forward = (links / (np.maximum(totals[0], 0)[:, None] + DOUBT)).sum(0) / len(source)
        backward = (links / (np.maximum(totals[1], 0) + DOUBT)).sum(1) / len(target)
        for values, at, likely, usual in (
            (found[0], columns, forward, alone[1]),
            (found[1], rows, backward, alone[0]),
        ):
            known = usual > 0
            ratio = likely[known] / usual[known]
            values[np.array(at)[known]] = np.log(BACKGROUND + (1 - BACKGROUND) * ratio)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        keys = sorted(self.links)
        return {
            "words": [list(words) for words in self.words],
            "counts": [counts.tolist() for counts in self.counts],
            "totals": [[round(n, 3) for n in totals.tolist()] for totals in self.totals],
            "keys": keys,
            "links": [self.links[key] for key in keys],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> WordTranslations:
        """The translations that `to_json` described."""
        words = tuple({word: n for n, word in enumerate(side)} for side in values["words"])
        counts = tuple(np.array(side, np.float64) for side in values["counts"])
        totals = tuple(np.array(side, np.float64) for side in values["totals"])
        return cls(words, counts, totals, dict(zip(values["keys"], values["links"], strict=True)))


def train_translations(
    sides: Sequence[tuple[list[str], list[str]]], wrong: np.ndarray
) -> tuple[WordTranslations, np.ndarray]:
    """Trains on pairs, and chooses those that look like translations.

    Args:
        sides: words of both sides of each pair.
        wrong: int [some pairs], pairs that are known to be wrong, and show how these score; if
            there are none, all pairs are used.

    Returns:
        The translations, and bool [pairs]: the pairs that they were trained on in the end.
    """
    model = _Model(sides)
    weights = np.ones(len(sides))
    for _ in range(CHOICES if wrong.size else 0):
        model.iterate(weights)
        scores = model.scores()
        likely = good_share(scores, scores[wrong])[1]
        weights = (likely >= 0.5).astype(np.float64)
        if weights.sum() < 20:
            weights[:] = 1.0
    model.iterate(weights)
    return model.translations(), weights > 0


def good_share(scores: np.ndarray, random: np.ndarray) -> tuple[float, np.ndarray]:
    """Estimates which scores belong to translations, by a mixture of two normal distributions.

    The distribution of wrong pairs is known from pairs put together at random; expectation
    maximisation fits the share, mean and deviation of the others.

    Returns:
        The share of translations and, float64 [pairs], the probability of each.
    """
    wrong = (float(np.median(random)), float(max(1e-3, np.std(random))))
    high = scores[scores > np.quantile(random, 0.9)]
    good = (
        float(np.median(high if high.size else scores)),
        float(max(1e-3, np.std(high) if high.size > 1 else np.std(scores))),
    )
    share = min(0.95, max(0.05, high.size / scores.size))
    likely = np.full(scores.size, share)
    for _ in range(50):
        odds = _density(scores, good) - _density(scores, wrong) + np.log(share / (1 - share))
        likely = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
        likely = np.where(scores >= good[0], np.maximum(likely, 0.99), likely)
        likely = np.where(scores <= wrong[0], np.minimum(likely, 0.5), likely)
        share = float(np.clip(likely.mean(), 0.02, 0.98))
        mean = float((likely * scores).sum() / likely.sum())
        spread = float(np.sqrt((likely * (scores - mean) ** 2).sum() / likely.sum()))
        good = (max(mean, wrong[0]), max(1e-3, spread))
    return share, likely


def _density(scores: np.ndarray, normal: tuple[float, float]) -> np.ndarray:
    return -0.5 * ((scores - normal[0]) / normal[1]) ** 2 - np.log(normal[1])


class _Model:
    """Flat arrays of all co-occurrences of two words in a pair, and their links.

    Co-occurrences of the same two words have the same `kind`; `first` and `second` number the word
    of a sentence on each side. Each array of two has one part a side.
    """

    def __init__(self, sides: Sequence[tuple[list[str], list[str]]]) -> None:
        self._numbers, rows = zip(
            *(_numbered([pair[side] for pair in sides]) for side in (0, 1)), strict=True
        )
        self._rows = rows
        self._sizes = [np.array([len(pair[side]) for pair in sides]) for side in (0, 1)]
        self._width = len(self._numbers[1])
        self._counts = [
            np.bincount(np.concatenate(row), minlength=len(names)).astype(np.float64)
            for row, names in zip(rows, self._numbers, strict=True)
        ]
        self._entries = self._listed(rows[0], rows[1])
        keys = self._entries[0]
        self._keys, self._kind = np.unique(keys, return_inverse=True)
        self._head = self._keys // max(1, self._width), self._keys % max(1, self._width)
        self._links = np.zeros(0)
        self._totals = [np.zeros(0), np.zeros(0)]
        self._linked = self._own = np.zeros(0)
        self._removed: list[tuple[np.ndarray, np.ndarray]] = []

    def _listed(self, one: Sequence[np.ndarray], two: Sequence[np.ndarray]) -> tuple:
        """Keys, word of a sentence on both sides (int64 [entries]); pair and word of these."""
        keys, first, second, at, to = [], [], [], 0, 0
        for s, t in zip(one, two, strict=True):
            keys.append(np.repeat(s * self._width, t.size) + np.tile(t, s.size))
            first.append(np.repeat(np.arange(at, at + s.size), t.size))
            second.append(np.tile(np.arange(to, to + t.size), s.size))
            at, to = at + s.size, to + t.size
        pairs = [np.repeat(np.arange(len(rows)), [r.size for r in rows]) for rows in (one, two)]
        words = [np.concatenate(rows) for rows in (one, two)]
        return np.concatenate(keys), (np.concatenate(first), np.concatenate(second)), pairs, words

    def iterate(self, weights: np.ndarray) -> None:
        """Estimates links from the pairs with weights, starting from equal probabilities."""
        _, position, pairs, words = self._entries
        weight = weights[pairs[0][position[0]]]
        alone = [counts / counts.sum() for counts in self._counts]
        self._totals = [np.zeros(0), np.zeros(0)]
        for number in range(ROUNDS + 1):
            self._linked = np.ones(self._kind.size)
            for side in (0, 1):
                other = 1 - side
                if number:
                    total = self._totals[side][self._head[side]] + DOUBT
                    likely = (self._links / total)[self._kind]
                    rest = EMPTY * alone[other][words[other]]
                else:
                    likely, rest = self._linked * 0 + 1, 0.0
                total = np.bincount(position[other], likely, minlength=words[other].size) + rest
                self._linked = self._linked * likely / total[position[other]]
            self._links = np.bincount(self._kind, self._linked * weight, minlength=self._keys.size)
            self._totals = [
                np.bincount(self._head[side], self._links, minlength=len(self._numbers[side]))
                for side in (0, 1)
            ]
        self._own = self._linked * weight
        self._removed = [
            (
                np.bincount(position[side], self._own, minlength=words[side].size),
                weights[pairs[side]],
            )
            for side in (0, 1)
        ]

    def scores(self) -> np.ndarray:
        """float64 [pairs]: scores of the pairs, each without its own links."""
        links = self._links[self._kind] - self._own
        return self._scored(self._entries, links, self._removed, self._sizes)

    def _scored(
        self, entries: tuple, links: np.ndarray, removed: Sequence, sizes: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Sums the words' gains of each pair, divided by the root of their number.

        `removed` has for each side the links and the count, float64 [words of sentences], that a
        word's own pair has added to its totals.
        """
        _, position, pairs, words = entries
        result = np.zeros(sizes[0].size)
        for side in (0, 1):
            other = 1 - side
            # Links of the words of `side`, by which words of `other` are explained.
            total = np.maximum(self._totals[side][words[side]] - removed[side][0], 0) + DOUBT
            likely = links / total[position[side]]
            likely = np.bincount(position[other], likely, minlength=words[other].size)
            likely /= np.maximum(1, sizes[side][pairs[other]])
            usual = self._counts[other][words[other]] - removed[other][1]
            usual /= self._counts[other].sum()
            known = usual > 0
            ratio = np.where(known, likely / np.where(known, usual, 1), 1)
            gain = np.where(known, np.log(BACKGROUND + (1 - BACKGROUND) * ratio), 0)
            count = np.bincount(pairs[other], known, minlength=result.size)
            total = np.bincount(pairs[other], gain, minlength=result.size)
            result += total / np.sqrt(np.maximum(1, count))
        return result

    def translations(self) -> WordTranslations:
        """The links of at least LEAST."""
        likely = np.maximum(
            *(self._links / (self._totals[s][self._head[s]] + DOUBT) for s in (0, 1))
        )
        kept = np.flatnonzero(likely >= LEAST)
        links = dict(
            zip(self._keys[kept].tolist(), np.round(self._links[kept], 3).tolist(), strict=True)
        )
        totals = tuple(np.round(totals, 3) for totals in self._totals)
        return WordTranslations(self._numbers, tuple(self._counts), totals, links)


def _numbered(sides: Sequence[list[str]]) -> tuple[dict[str, int], list[np.ndarray]]:
    """Numbers of the words that occur in two sentences or more, and each sentence as numbers."""
    count: dict[str, int] = {}
    for side in sides:
        for word in side:
            count[word] = count.get(word, 0) + 1
    kept = sorted(word for word, number in count.items() if number > 1)
    names = {word: number for number, word in enumerate(kept)}
    rows = [np.array([names[w] for w in side if w in names], np.int64) for side in sides]
    return names, rows
