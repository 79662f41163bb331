"""Estimates the probability that two sentences are translations, by a lexicon of their own corpus.

IBM Model 1 (Brown et al. 1993, Computational Linguistics 19:2) is trained in both directions, on
stems of five letters, or on pairs of characters in languages without spaces. The pairs are split
into two halves by hash, and a pair is scored by the model of the other half, so that a wrong pair
does not confirm itself. A pair's score is the mean log-likelihood ratio of its words, summed over
both directions. Normal distributions are fitted to the scores of the pairs and of shuffled pairs;
their densities and a prior turn a score into a probability. This needs no download and works for
any language; a sentence embedding is better if one covers both languages.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from marco_jax.curation.shingles import hash64
from marco_jax.files import write_json
from marco_jax.ngrams import CHARACTERS, normalized_words

STEM = 5
# At most so many words of each side are used.
WORDS = 40
# Minimum number of pairs; lexicons of fewer pairs do not generalise.
FEWEST = 1000
# Iterations of expectation maximisation.
ROUNDS = 5
# Minimum probability of the translations that are kept.
LEAST = 0.01
# Weight of a word's frequency, which is interpolated with its translation probability.
BACKGROUND = 0.1
# Assumed share of translations among pairs that passed the rules.
PRIOR = 0.9

_Table = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class _Direction:
    """Probabilities of target words: `alone` unconditional, `given` by source word."""

    alone: dict[str, float]
    given: _Table

    def score(self, source: Sequence[str], target: Sequence[str]) -> float:
        """Mean log-likelihood ratio of the target's words with and without the source's words."""
        gains = []
        tables = [self.given[word] for word in source if word in self.given]
        for word in target:
            if word in self.alone and source:
                likely = sum(table.get(word, 0.0) for table in tables) / len(source)
                gains.append(math.log(BACKGROUND + (1 - BACKGROUND) * likely / self.alone[word]))
        return sum(gains) / len(gains) if gains else 0.0


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Translation models of a language pair, and the distributions of their scores.

    `halves` holds for each half of the pairs the models of both directions that score it.
    `aligned` and `shuffled` are (mean, standard deviation) of the scores of true and random pairs.
    """

    languages: tuple[str, str]
    halves: tuple[tuple[_Direction, _Direction], ...]
    aligned: tuple[float, float]
    shuffled: tuple[float, float]

    @classmethod
    def train(cls, pairs: Sequence[tuple[str, str]], languages: tuple[str, str]) -> Lexicon | None:
        """Trains on sentence pairs; None if there are fewer than FEWEST."""
        if len(pairs) < FEWEST:
            return None
        split = [[_tokens(s, code) for s, code in zip(p, languages, strict=True)] for p in pairs]
        half = [_half(*pair) for pair in pairs]
        halves = []
        for one in (0, 1):
            # The model that scores a half is trained on the other half.
            other = [sides for sides, number in zip(split, half, strict=True) if number != one]
            halves.append((_train(other), _train([(t, s) for s, t in other])))
        empty = cls(languages, tuple(halves), (0.0, 1.0), (0.0, 1.0))
        scores = np.array([empty._score(*pair) for pair in pairs])
        # Wrong pairs for comparison: each source with the target of the seventh pair after it.
        moved = [(s, t) for (s, _), (_, t) in zip(pairs, [*pairs[7:], *pairs[:7]], strict=True)]
        wrong = np.array([empty._score(*pair) for pair in moved])
        return dataclasses.replace(empty, aligned=_fit(scores), shuffled=_fit(wrong))

    def similarity(self, source: str, target: str) -> float:
        """The probability that two sentences are translations of each other."""
        score = self._score(source, target)
        odds = _density(score, self.aligned) - _density(score, self.shuffled)
        # A normal's tails would make the ratio fall again for scores above the aligned mean.
        if score >= self.aligned[0]:
            return 1.0
        odds = min(odds, 50.0) + math.log(PRIOR / (1 - PRIOR))
        return 1 / (1 + math.exp(-max(-50.0, odds)))

    def save(self, path: pathlib.Path) -> None:
        """Writes it as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: pathlib.Path) -> Lexicon | None:
        """Reads a lexicon that `save` wrote; None if the file does not exist."""
        if not path.exists():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        halves = tuple(tuple(_Direction(**one) for one in half) for half in values["halves"])
        return cls(
            tuple(values["languages"]), halves, tuple(values["aligned"]), tuple(values["shuffled"])
        )

    def _score(self, source: str, target: str) -> float:
        forward, backward = self.halves[_half(source, target)]
        one, two = (_tokens(s, c) for s, c in zip((source, target), self.languages, strict=True))
        return forward.score(one, two) + backward.score(two, one)


def _half(source: str, target: str) -> int:
    return hash64(f"{source}\t{target}") & 1


def _tokens(text: str, language: str) -> list[str]:
    words = normalized_words(text)
    if language in CHARACTERS:
        joined = "".join(words)
        return [joined[at : at + 2] for at in range(0, min(len(joined), 2 * WORDS) - 1)]
    return [word[:STEM] for word in words[:WORDS]]


def _numbered(sides: Iterable[Sequence[str]]) -> tuple[list[str], list[np.ndarray]]:
    names: dict[str, int] = {}
    rows = [np.array([names.setdefault(w, len(names)) for w in side], np.int64) for side in sides]
    return list(names), rows


def _train(pairs: Sequence[Sequence[Sequence[str]]]) -> _Direction:
    """Trains IBM Model 1 by expectation maximisation on pairs of (source words, target words).

    Every co-occurrence of a source and a target word in a pair is one entry of flat arrays; entries
    with the same two words have the same `kind`. The E-step normalises the entries' probabilities
    over the source words of each target position, the M-step sums them by kind and normalises by
    source word (`head`). `share` thus is the probability of a kind's target word given its source
    word, and starts uniform.
    """
    sources, source_rows = _numbered(source for source, _ in pairs)
    targets, target_rows = _numbered(target for _, target in pairs)
    counts = np.bincount(np.concatenate(target_rows), minlength=len(targets))
    alone = counts / counts.sum()
    words, given, position, at = [], [], [], 0
    for source, target in zip(source_rows, target_rows, strict=True):
        words.append(np.repeat(target, source.size))
        given.append(np.tile(source, target.size))
        position.append(np.repeat(np.arange(at, at + target.size), source.size))
        at += target.size
    entries = np.concatenate(given) * len(targets) + np.concatenate(words)
    kinds, kind = np.unique(entries, return_inverse=True)
    positions, head = np.concatenate(position), kinds // len(targets)
    share = np.ones(kinds.size)
    for _ in range(ROUNDS):
        weight = share[kind]
        weight /= np.bincount(positions, weight, minlength=at)[positions]
        share = np.bincount(kind, weight, minlength=kinds.size)
        share /= np.bincount(head, share, minlength=len(sources))[head]
    table: _Table = {}
    for number in np.flatnonzero(share >= LEAST).tolist():
        word = targets[kinds[number] % len(targets)]
        table.setdefault(sources[head[number]], {})[word] = float(share[number])
    return _Direction(dict(zip(targets, alone.tolist(), strict=True)), table)


def _fit(scores: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of a normal by quartiles, which are robust against wrong pairs."""
    low, median, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return float(median), float(max(1e-3, (high - low) / 1.349))


def _density(score: float, normal: tuple[float, float]) -> float:
    """Logarithm of a normal's density, up to a constant."""
    return -0.5 * ((score - normal[0]) / normal[1]) ** 2 - math.log(normal[1])
