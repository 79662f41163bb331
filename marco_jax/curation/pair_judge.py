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

from marco_jax.curation.pair_features import Columns
from marco_jax.curation.shingles import hash64
from marco_jax.curation.word_translations import WordTranslations, train_translations, word_list

# Minimum numbers of pairs for word translations, and for a classifier.
FEWEST = 150
FEWEST_FITTED = 40
# Maximum number of pairs that the classifier is fitted to.
FITTED = 3000
# Shares of the pairs that are replaced by made ones, at most and at least, and a sufficient number.
REPLACED, USUAL, ENOUGH = 0.3, 0.1, 900
# Rounds of weighting the input and fitting the classifier.
ROUNDS = 6
# Penalty of the regressions' squared weights.
PENALTY = 3.0
# Minimum probability of input pairs that the classifier is fitted to as good ones.
TRUSTED = 0.7
# How many good pairs may be lost to be rid of a wrong one. The shares of wrong pairs are estimated
# too low where these resemble good ones, and a wrong pair harms training more.
CAUTION = 9.0
# How often a part of few pairs is replaced.
REPEATS = 5
# Shares of the kinds of made pairs: see `_made`.
KINDS = (0.3, 0.13, 0.13, 0.13, 0.13, 0.06, 0.06, 0.06)

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
        rows = sorted({*pairs, *given}, key=lambda pair: (hash64("\t".join(pair)), pair))
        judge = cls(languages, Columns.of(rows, languages), count=len(rows))
        if len(rows) < FEWEST_FITTED:
            return judge
        trusted = np.arange(len(rows))
        for caution in (1.0, CAUTION):
            judge._train_once(rows, trusted, caution)
            likely = np.array([judge.similarity(*row) >= 0.5 for row in rows])
            # At first any pair may be damaged, then only pairs that look good.
            if likely.sum() >= FEWEST_FITTED:
                trusted = np.flatnonzero(likely)
            if caution == 1.0:
                judge.columns = Columns.of([rows[at] for at in trusted.tolist()], languages)
        judge._learn([rows[at] for at in trusted.tolist()], trusted[:0])
        return judge

    def _train_once(self, rows: list[Pair], trusted: np.ndarray, caution: float) -> None:
        """Makes wrong pairs of the trusted rows, and fits the classifier to them and the others."""
        real, made, kinds, folds = [], [], [], ([], [])
        seeds = max(1, min(REPEATS, FITTED // max(1, len(rows))))
        for seed in range(seeds):
            mixed, at, sorts = _made(rows, trusted, seed)
            self._learn(mixed, at[sorts == 0])
            others = np.setdiff1d(np.arange(len(rows)), at)[:FITTED].tolist()
            real += [self._measure(*mixed[one]) for one in others]
            made += [self._measure(*mixed[one]) for one in at.tolist()]
            kinds.append(sorts)
            folds[0].extend(others)
            folds[1].extend(at.tolist())
        halves = [np.array(fold) % 2 for fold in folds]
        self._fit(np.array(real), np.array(made), np.concatenate(kinds), halves, caution)

    def similarity(self, source: str, target: str) -> float:
        """The probability, 0 to 1, that two sentences are translations of each other.

        It is on the careful side: see CAUTION.
        """
        if self.columns.in_other_script(source, target):
            return 0.0
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
            None if values[name] is None else np.array(values[name])
            for name in ("scale", "weights")
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

    def _learn(self, rows: Sequence[Pair], wrong: np.ndarray) -> None:
        """Estimates word translations from the rows; `wrong` are positions of wrong ones."""
        if self.count < FEWEST:
            return
        sides = [tuple(map(word_list, row, self.languages)) for row in rows]
        self.words, used = train_translations(sides, wrong)
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

    def _fit(
        self,
        real: np.ndarray,
        made: np.ndarray,
        kinds: np.ndarray,
        folds: Sequence[np.ndarray],
        caution: float,
    ) -> None:
        """Fits the classifier to measurements of input pairs and of made pairs, by kind.

        Odds are always of a half that the regression was not fitted to; `folds` has the halves, 0
        or 1, of both.
        """
        values = np.concatenate([real, made])
        self.scale = np.stack([values.mean(0), values.std(0) + 1e-3])
        real, made = _standard(real, self.scale), _standard(made, self.scale)
        # Kinds with fewer made pairs than two in each half are left out.
        counts = np.stack([np.bincount(kinds[folds[1] == half], minlength=8) for half in (0, 1)])
        names = np.flatnonzero(counts.min(0) > 1).tolist()
        weights = np.ones(len(real))
        for number in range(ROUNDS):
            odds, shares = _compared(real, weights, made, kinds, folds, names)
            priors = shares / max(0.05, 1 - shares.sum())
            # At first, odds are against all of the input instead of its good pairs.
            wrong = odds @ priors
            likely = 1 / (1 + wrong) if number else 1 - np.minimum(1, wrong)
            weights = (likely >= TRUSTED).astype(np.float64)
            if weights.sum() < 0.05 * len(weights):
                weights[np.argsort(-likely)[: len(weights) // 10 + 1]] = 1.0
        self.weights = np.array([_regression(real, weights, made[kinds == k]) for k in names])
        self.weights[:, 0] -= np.log(priors * caution)
        self.wrong = float(1 - likely.mean())

    def _likely(self, values: np.ndarray) -> np.ndarray:
        return 1 / (1 + _odds(_standard(values, self.scale), self.weights).sum(1))


def _odds(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Odds of each kind of wrong pairs against good ones: float64 [rows, kinds]."""
    return np.exp(-np.clip(x @ weights.T, -30, 30))


def _compared(
    real: np.ndarray,
    weights: np.ndarray,
    made: np.ndarray,
    kinds: np.ndarray,
    folds: Sequence[np.ndarray],
    names: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Odds of input pairs, float64 [pairs, kinds], and the shares of the kinds in the input."""
    odds, shares, left = np.zeros((len(real), len(names))), [], np.ones(len(real))
    for column, kind in enumerate(names):
        wrong, half = made[kinds == kind], folds[1][kinds == kind]
        own = np.zeros(len(wrong))
        for one in (0, 1):
            here, there = folds[0] == one, half == one
            beta = _regression(real[~here], weights[~here], wrong[~there])
            odds[here, column] = _odds(real[here], beta[None])[:, 0]
            own[there] = _odds(wrong[there], beta[None])[:, 0]
        shares.append(_share(odds[:, column], left, own))
        left = left / (1 + shares[-1] * odds[:, column])
    return odds, np.array(shares)


def _share(odds: np.ndarray, weights: np.ndarray, made: np.ndarray) -> float:
    """The share of a kind of wrong pairs in the input, from the odds of both.

    It is at most the input's share of any range of odds over the share of the made pairs that have
    these odds. Good pairs rarely have the odds of wrong ones, so that the least of these quotients
    is near the share.
    """
    least = np.quantile(made, np.linspace(0.1, 0.6, 11))
    quotients = [
        (weights @ (odds >= bound)) / len(odds) / max(1e-9, np.mean(made >= bound))
        for bound in least
    ]
    return min(0.9, max(1e-3, min(quotients)))


def _standard(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Measurements over their deviations, bounded, behind a column of ones."""
    return np.c_[np.ones(len(values)), np.clip((values - scale[0]) / scale[1], -4, 4)]


def _regression(good: np.ndarray, weights: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Log-odds of good against wrong rows, if both were equally many, by Newton's method."""
    x = np.concatenate([good, wrong])
    weight = np.concatenate([weights, np.ones(len(wrong))])
    y = np.concatenate([np.ones(len(good)), np.zeros(len(wrong))])
    penalty = np.diag(np.r_[1e-6, np.full(x.shape[1] - 1, PENALTY)])
    beta = np.zeros(x.shape[1])
    # By einsum: at this size threads of BLAS cost more than they gain.
    for _ in range(10):
        p = 1 / (1 + np.exp(-np.clip(np.einsum("ni,i->n", x, beta), -30, 30)))
        slope = np.einsum("ni,n->i", x, weight * (y - p)) - penalty @ beta
        scaled = x * (weight * p * (1 - p) + 1e-9)[:, None]
        curve = np.einsum("ni,nj->ij", scaled, x) + penalty
        beta = beta + np.linalg.solve(curve, slope)
    beta[0] -= np.log(max(1.0, weights.sum()) / len(wrong))
    return beta


def _word_measurements(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """float64 [13]: gains of the words of both sides, their parts, and the unknown words."""
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


def _made(
    rows: list[Pair], trusted: np.ndarray, seed: int
) -> tuple[list[Pair], np.ndarray, np.ndarray]:
    """Replaces a part of the trusted pairs by wrong ones, made from the same sentences.

    Returns:
        The pairs, the positions of the made ones, and their kinds: 0 for exchanged targets, 1 and 2
        for a longer side (target, source), 3 and 4 for a shorter one, 5 and 6 for letters in random
        order, 7 for exchanged columns.
    """
    size = int(min(REPLACED * len(trusted), max(USUAL * len(trusted), ENOUGH)))
    draw = np.random.default_rng(seed)
    at = np.sort(draw.choice(trusted, size, replace=False))
    kinds = draw.choice(8, size, p=KINDS)
    result = list(rows)
    moved = at[kinds == 0]
    # Half of the targets go to a source of similar length.
    near = moved[: moved.size // 2]
    near = near[np.argsort([len(rows[n][1]) for n in near.tolist()], kind="stable")]
    for group in (near, moved[moved.size // 2 :]):
        for one, two in zip(group.tolist(), np.roll(group, 1).tolist(), strict=True):
            result[one] = rows[one][0], rows[two][1]
    for one, kind in zip(at.tolist(), kinds.tolist(), strict=True):
        if kind:
            more = rows[int(draw.choice(trusted))]
            result[one] = _damaged(rows[one], kind, more, draw)
    return result, at, kinds


def _damaged(pair: Pair, kind: int, more: Pair, draw: np.random.Generator) -> Pair:
    """A pair with a damage of kinds 1 to 7 of `_made`; `more` has a further sentence."""
    if kind == 7:
        return pair[::-1]
    sides, side = list(pair), kind % 2
    if kind in (1, 2):
        sides[side] = f"{sides[side].rstrip()} {more[side]}"
    elif kind in (3, 4):
        sides[side] = _half_of(sides[side])
    else:
        sides[side] = _scrambled(sides[side], draw)
    return tuple(sides)


def _scrambled(text: str, draw: np.random.Generator) -> str:
    """The text with the letters of each word in random order."""
    return " ".join("".join(draw.permutation(list(word))) for word in text.split())


def _half_of(text: str) -> str:
    words = text.split()
    if len(words) > 3:
        return " ".join(words[: len(words) // 2])
    return text[: max(1, len(text) // 2)]
