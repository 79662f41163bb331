"""Judges whether sentence pairs are translations, by a classifier trained on the pairs themselves.

The input is noisy and has no labels. Wrong pairs are made from it: targets are exchanged, a second
sentence is added to a side, half of a side is left out, and the columns are exchanged. The made
pairs take the position of a part of the input during training, so that the word translations
(`word_translations.py`) know them as well or badly as they know the wrong pairs of the input. One
logistic regression for each kind of made pairs then gives the odds of the kind against the input,
and expectation maximisation gives the shares of the kinds in the input, by which its pairs are
weighted in the next regression.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_jax.curation.duplicates import hash64
from marco_jax.curation.pair_features import FEATURES, Columns
from marco_jax.curation.word_translations import WordTranslations, train_translations, word_list

# Minimum numbers of pairs for word translations, and for a classifier.
FEWEST = 150
FEWEST_FITTED = 40
# Maximum number of pairs that the classifier is fitted to.
FITTED = 3000
# Maximum share of pairs, and their usual number, that are replaced by made ones.
REPLACED, USUAL = 0.3, 0.12
# Rounds of weighting the input and fitting the classifier.
ROUNDS = 4
# Words' measurements: see `_word_measurements`.
_WORDS = 13

Pair = tuple[str, str]


@dataclasses.dataclass
class PairJudge:
    """A classifier of the sentence pairs of one pair of languages.

    `kind` is "lexicon" if word translations were estimated, or "surface" if there were too few
    pairs; `count` is the number of pairs that it was trained on, and `wrong` the estimated share of
    wrong pairs among them. `known` has hashes of the pairs that the word translations contain.
    `scale` float64 [2, measurements] has their means and deviations, and `weights` float64 [kinds,
    1 + measurements] the log-odds of good pairs against each kind of wrong pairs, with the priors.
    """

    languages: tuple[str, str]
    columns: Columns
    words: WordTranslations | None = None
    known: frozenset[int] = frozenset()
    scale: np.ndarray | None = None
    weights: np.ndarray | None = None
    count: int = 0
    wrong: float = 0.0

    @property
    def kind(self) -> str:
        """The evidence that it uses: "lexicon" or "surface"."""
        return "lexicon" if self.words else "surface"

    @classmethod
    def train(
        cls, pairs: Sequence[Pair], languages: tuple[str, str], given: Sequence[Pair] = ()
    ) -> PairJudge:
        """Trains on pairs of which some may be wrong; the order of the pairs does not matter.

        Args:
            pairs: a sample of (source, target).
            languages: the codes of both languages.
            given: further pairs that are known to be good.
        """
        good = sorted(set(given))
        rows = sorted(set(pairs) - set(good), key=lambda pair: hash64("\t".join(pair)))
        judge = cls(languages, Columns.of([*rows, *good], languages), count=len(rows) + len(good))
        if len(rows) + len(good) < FEWEST_FITTED:
            return judge
        made, at, kinds = _made(rows)
        judge._learn(made, good, at[kinds == 0])
        judge._fit(made, at, kinds)
        kept = [row for row in rows if judge.similarity(*row) >= 0.5]
        judge._learn(kept if len(kept) >= FEWEST else rows, good, at[:0])
        return judge

    def similarity(self, source: str, target: str) -> float:
        """The probability, 0 to 1, that two sentences are translations of each other."""
        if self.weights is None:
            surface = self.columns.measure(source, target)
            length, ends = surface[1], surface[5] + surface[6]
            return float(1 / (1 + np.exp(length / 2 + ends - 3)))
        return float(self._likely(self._measure(source, target)[None])[0])

    def to_json(self) -> dict[str, Any]:
        """Plain data, from which `from_json` makes an equal judge."""
        return {
            "languages": list(self.languages),
            "columns": self.columns.to_json(),
            "words": self.words and self.words.to_json(),
            "known": sorted(self.known),
            "scale": None if self.scale is None else self.scale.tolist(),
            "weights": None if self.weights is None else self.weights.tolist(),
            "count": self.count,
            "wrong": self.wrong,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PairJudge:
        """The judge that `to_json` described."""
        words = values["words"] and WordTranslations.from_json(values["words"])
        scale, weights = (
            None if values[name] is None else np.array(values[name]) for name in ("scale", "weights")
        )
        return cls(
            tuple(values["languages"]),
            Columns.from_json(values["columns"]),
            words or None,
            frozenset(values["known"]),
            scale,
            weights,
            values["count"],
            values["wrong"],
        )

    def _learn(self, rows: Sequence[Pair], good: Sequence[Pair], wrong: np.ndarray) -> None:
        """Estimates word translations from the rows, of which some are wrong, and good pairs."""
        rows = [*rows, *good]
        if self.count < FEWEST:
            return
        sides = [tuple(map(word_list, row, self.languages)) for row in rows]
        given = np.arange(len(rows)) >= len(rows) - len(good)
        self.words, used = train_translations(sides, given, wrong)
        self.known = frozenset(
            hash64("\t".join(row)) for row, own in zip(rows, used.tolist(), strict=True) if own
        )

    def _measure(self, source: str, target: str) -> np.ndarray:
        surface = self.columns.measure(source, target)
        if not self.words:
            return surface
        one, two = (word_list(t, c) for t, c in zip((source, target), self.languages, strict=True))
        own = hash64(f"{source}\t{target}") in self.known
        forward, backward = self.words.gains(one, two, own)
        return np.concatenate([surface, _word_measurements(forward, backward)])

    def _fit(self, rows: list[Pair], made: np.ndarray, kinds: np.ndarray) -> None:
        """Fits the classifier; `made` has the positions of made pairs in rows, and their kinds."""
        real = np.setdiff1d(np.arange(len(rows)), made)[:FITTED]
        made, kinds = made[:FITTED], kinds[:FITTED]
        values = np.array([self._measure(*rows[at]) for at in [*real.tolist(), *made.tolist()]])
        self.scale = np.stack([values.mean(0), values.std(0) + 1e-3])
        x = _standard(values, self.scale)
        real_x, made_x = x[: len(real)], x[len(real) :]
        weights = np.ones(len(real_x))
        names = np.unique(kinds)
        for number in range(ROUNDS):
            fitted = [_regression(real_x, weights, made_x[kinds == kind]) for kind in names]
            odds = np.exp(-np.clip(real_x @ np.array(fitted).T, -30, 30))
            if not number:
                weights = _first_weights(odds[:, 0], np.exp(-np.clip(made_x[kinds == names[0]] @ fitted[0], -30, 30)))
                continue
            priors = _priors(odds, weights)
            weights = 1 / (1 + odds @ priors)
        self.weights = np.array(fitted)
        self.weights[:, 0] -= np.log(priors)
        self.wrong = float(1 - weights.mean())

    def _likely(self, values: np.ndarray) -> np.ndarray:
        odds = np.exp(-np.clip(_standard(values, self.scale) @ self.weights.T, -30, 30))
        return 1 / (1 + odds.sum(1))


def _first_weights(odds: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Which pairs of the input look good, 0 or 1, by the odds of exchanged targets.

    The share of wrong pairs is at most the share of the input in any part of the odds over the
    share of the exchanged pairs in it.
    """
    share = 1.0
    for part in np.linspace(0.3, 0.8, 11):
        least = np.quantile(made, part)
        share = min(share, np.mean(odds >= least) / max(1e-9, np.mean(made >= least)))
    return (odds <= np.quantile(odds, 1 - min(0.9, share))).astype(np.float64)


def _priors(odds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shares of the kinds of wrong pairs over the share of good ones: float64 [kinds]."""
    priors = np.full(odds.shape[1], (1.05 - weights.mean()) / weights.mean() / odds.shape[1])
    for _ in range(100):
        likely = odds * priors
        likely = likely / (1 + likely.sum(1, keepdims=True))
        shares = np.maximum(1e-3, likely.mean(0))
        priors = shares / max(0.02, 1 - shares.sum())
    return priors


def _standard(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Measurements over their deviations, bounded, behind a column of ones."""
    return np.c_[np.ones(len(values)), np.clip((values - scale[0]) / scale[1], -4, 4)]


def _regression(good: np.ndarray, weights: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Log-odds of good against wrong rows, both sides of equal weight, by Newton's method."""
    x = np.concatenate([good, wrong])
    total = min(weights.sum(), len(wrong))
    weight = np.concatenate([weights * total / weights.sum(), np.full(len(wrong), total / len(wrong))])
    y = np.concatenate([np.ones(len(good)), np.zeros(len(wrong))])
    penalty = np.diag(np.r_[1e-6, np.full(x.shape[1] - 1, 1.0)])
    beta = np.zeros(x.shape[1])
    for _ in range(15):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        slope = x.T @ (weight * (y - p)) - penalty @ beta
        curve = (x * (weight * p * (1 - p) + 1e-9)[:, None]).T @ x + penalty
        beta = beta + np.linalg.solve(curve, slope)
    return beta


def _word_measurements(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """float64 [_WORDS]: gains of the words of both sides, their parts, and the unknown words."""
    found, scores = [], []
    for gains in (forward, backward):
        known = gains[~np.isnan(gains)]
        size = max(1, known.size)
        scores.append(known.sum() / np.sqrt(size))
        ends = 0.0
        if known.size:
            sizes = np.sqrt(np.arange(1, known.size + 1))
            ends = min((np.cumsum(known) / sizes).min(), (np.cumsum(known[::-1]) / sizes).min())
        found += [
            scores[-1], known.sum() / size, (known > 1).sum() / size, ends,
            known.size / max(1, gains.size), np.log1p(known.size),
        ]  # fmt: skip
    return np.array([*found, min(scores)])


def _made(rows: list[Pair]) -> tuple[list[Pair], np.ndarray, np.ndarray]:
    """Replaces a part of the pairs by wrong ones, made from the same sentences.

    Returns:
        The pairs, the positions of the made ones, and their kinds: 0 for exchanged targets, 1 for
        a longer or shorter side, 2 for exchanged columns, 3 for letters in random order.
    """
    count = len(rows)
    size = int(max(USUAL * count, min(REPLACED * count, 400)))
    draw = np.random.default_rng(0)
    at = np.sort(draw.choice(count, size, replace=False))
    kinds = draw.choice([0, 0, 0, 1, 1, 1, 2, 3], size)
    result = list(rows)
    moved = at[kinds == 0]
    # Half of the targets go to a source of similar length.
    near = moved[: moved.size // 2]
    near = near[np.argsort([len(rows[n][1]) for n in near.tolist()], kind="stable")]
    for group in (near, moved[moved.size // 2 :]):
        for one, two in zip(group.tolist(), np.roll(group, 1).tolist(), strict=True):
            result[one] = rows[one][0], rows[two][1]
    for one in at[kinds == 1].tolist():
        side, way, other = draw.integers(2), draw.integers(3), int(draw.integers(count))
        sides = list(rows[one])
        if way == 0:
            sides[side] = _half_of(sides[side])
        else:
            sides[side] = f"{sides[side].rstrip()} {rows[other][side]}"
        result[one] = tuple(sides)
    for one in at[kinds == 2].tolist():
        result[one] = rows[one][::-1]
    for one in at[kinds == 3].tolist():
        sides, side = list(rows[one]), draw.integers(2)
        sides[side] = _scrambled(sides[side], draw)
        result[one] = tuple(sides)
    return result, at, kinds


def _scrambled(text: str, draw: np.random.Generator) -> str:
    """The text with the letters of each word in random order."""
    return " ".join("".join(draw.permutation(list(word))) for word in text.split())


def _half_of(text: str) -> str:
    words = text.split()
    if len(words) > 3:
        return " ".join(words[: len(words) // 2])
    return text[: max(1, len(text) // 2)]
