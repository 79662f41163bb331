"""How likely two sentences translate one another, by words learnt from the pairs themselves.

IBM Model 1 (Brown et al. 1993, Computational Linguistics 19:2), both ways, on stems of five
letters, or on pairs of characters where words are unspaced. A pair is scored by a model of the
other half of the pairs, so that a wrong pair does not vouch for itself. Scores of pairs and of
sentences put together at random turn a score into a probability. It needs no download and serves
any language; an embedding is better where one knows both languages.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from marco_jax.curation.duplicates import number_of
from marco_jax.files import write_json
from marco_jax.ngrams import CHARACTERS, normalized_words

STEM = 5
# Words of a side that count.
WORDS = 40
# Fewer pairs teach nothing that holds for others.
FEWEST = 1000
ROUNDS = 5
# Translations less likely than this are not kept.
LEAST = 0.01
# Weight of a word's frequency beside its translations.
BACKGROUND = 0.1
# Of the pairs that the rules have passed, as many are translations.
PRIOR = 0.9

_Table = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class _Direction:
    """Probabilities of words: alone, and given a word of the other language."""

    alone: dict[str, float]
    given: _Table

    def score(self, source: Sequence[str], target: Sequence[str]) -> float:
        """Mean gain, as a logarithm, of knowing the source's words for those of the target."""
        gains = []
        tables = [self.given[word] for word in source if word in self.given]
        for word in target:
            if word in self.alone and source:
                likely = sum(table.get(word, 0.0) for table in tables) / len(source)
                gains.append(math.log(BACKGROUND + (1 - BACKGROUND) * likely / self.alone[word]))
        return sum(gains) / len(gains) if gains else 0.0


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Two halves of directions there and back, and how scores of pairs lie: (mean, deviation)."""

    languages: tuple[str, str]
    halves: tuple[tuple[_Direction, _Direction], ...]
    aligned: tuple[float, float]
    shuffled: tuple[float, float]

    @classmethod
    def learnt(cls, pairs: Sequence[tuple[str, str]], languages: tuple[str, str]) -> Lexicon | None:
        """Learns from pairs; None where they are too few to learn from."""
        if len(pairs) < FEWEST:
            return None
        split = [[_tokens(s, code) for s, code in zip(p, languages, strict=True)] for p in pairs]
        half = [_half(*pair) for pair in pairs]
        halves = []
        for one in (0, 1):
            # The model for a half is learnt from the other.
            known = [sides for sides, number in zip(split, half, strict=True) if number != one]
            halves.append((_learnt(known), _learnt([(t, s) for s, t in known])))
        empty = cls(languages, tuple(halves), (0.0, 1.0), (0.0, 1.0))
        scores = np.array([empty._score(*pair) for pair in pairs])
        moved = [(s, t) for (s, _), (_, t) in zip(pairs, [*pairs[7:], *pairs[:7]], strict=True)]
        wrong = np.array([empty._score(*pair) for pair in moved])
        # Some of the pairs are wrong themselves: the middle of them is robust.
        return dataclasses.replace(empty, aligned=_middle(scores), shuffled=_middle(wrong))

    def similarity(self, source: str, target: str) -> float:
        """The probability that two sentences translate one another."""
        score = self._score(source, target)
        odds = _density(score, self.aligned) - _density(score, self.shuffled)
        # Beyond either middle a score is no less telling.
        if score >= self.aligned[0]:
            return 1.0
        odds = min(odds, 50.0) + math.log(PRIOR / (1 - PRIOR))
        return 1 / (1 + math.exp(-max(-50.0, odds)))

    def save(self, path: pathlib.Path) -> None:
        """Writes it as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: pathlib.Path) -> Lexicon | None:
        """Reads what `save` wrote; None where there is nothing."""
        if not path.exists():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        halves = tuple(tuple(_Direction(**one) for one in half) for half in values["halves"])
        return cls(
            tuple(values["languages"]), halves, tuple(values["aligned"]), tuple(values["shuffled"])
        )

    def _score(self, source: str, target: str) -> float:
        there, back = self.halves[_half(source, target)]
        one, two = (_tokens(s, c) for s, c in zip((source, target), self.languages, strict=True))
        return there.score(one, two) + back.score(two, one)


def _half(source: str, target: str) -> int:
    return number_of(f"{source}\t{target}") & 1


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


def _learnt(pairs: Sequence[Sequence[Sequence[str]]]) -> _Direction:
    """Expectation and maximisation over all words that stand in a pair together."""
    sources, source_rows = _numbered(source for source, _ in pairs)
    targets, target_rows = _numbered(target for _, target in pairs)
    counts = np.bincount(np.concatenate(target_rows), minlength=len(targets))
    alone = counts / counts.sum()
    # One entry for each word of the target with each of the source; `place` is the target word's.
    words, given, place, at = [], [], [], 0
    for source, target in zip(source_rows, target_rows, strict=True):
        words.append(np.repeat(target, source.size))
        given.append(np.tile(source, target.size))
        place.append(np.repeat(np.arange(at, at + target.size), source.size))
        at += target.size
    entries = np.concatenate(given) * len(targets) + np.concatenate(words)
    kinds, kind = np.unique(entries, return_inverse=True)
    places, head = np.concatenate(place), kinds // len(targets)
    share = np.ones(kinds.size)
    for _ in range(ROUNDS):
        weight = share[kind]
        weight /= np.bincount(places, weight, minlength=at)[places]
        share = np.bincount(kind, weight, minlength=kinds.size)
        share /= np.bincount(head, share, minlength=len(sources))[head]
    table: _Table = {}
    for number in np.flatnonzero(share >= LEAST).tolist():
        word = targets[kinds[number] % len(targets)]
        table.setdefault(sources[head[number]], {})[word] = float(share[number])
    return _Direction(dict(zip(targets, alone.tolist(), strict=True)), table)


def _middle(scores: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return float(middle), float(max(1e-3, (high - low) / 1.349))


def _density(score: float, law: tuple[float, float]) -> float:
    return -0.5 * ((score - law[0]) / law[1]) ** 2 - math.log(law[1])
