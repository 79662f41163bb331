"""Figures and their standard errors."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

# Resamples behind the standard error of chrF++; its own relative error is then about 4 %.
RESAMPLES = 300


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure and its standard error, nan where a single observation leaves it open."""

    value: float
    stderr: float


def mean(values: Sequence[float]) -> Estimate:
    """Mean of independent examples; standard error is the sample deviation (n-1) over sqrt(n)."""
    array = np.asarray(values, np.float64)
    count = len(array)
    stderr = float(array.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Estimate(float(array.mean()), stderr)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Sum over sum, such as bits per byte over documents.

    The standard error is the ratio estimator's, linearised: documents are the sampling unit.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    value, count = float(top.sum() / bottom.sum()), len(top)
    if count < 2:
        return Estimate(value, math.nan)
    residuals = top - value * bottom
    variance = count / (count - 1) * float(residuals @ residuals) / float(bottom.sum()) ** 2
    return Estimate(value, math.sqrt(variance))


def macro_mean(estimates: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent figures, such as one a language."""
    stderr = math.hypot(*(estimate.stderr for estimate in estimates)) / len(estimates)
    return Estimate(float(np.mean([estimate.value for estimate in estimates])), stderr)


def chrf(hypotheses: Sequence[str], references: Sequence[str], seed: int = 0) -> Estimate:
    """Corpus chrF++ (0 to 100) as sacrebleu computes it, one reference a hypothesis.

    The standard error is the deviation over bootstrap resamples of the sentences, drawn with
    `seed`; sacrebleu's sentence statistics are counted once.
    """
    scorer = _chrf_scorer()
    counts = np.array(
        scorer._extract_corpus_statistics(list(hypotheses), [list(references)]), np.int64
    )  # [sentences, 3 * orders]: n-grams of hypothesis and reference, and matches, by order
    value = scorer._compute_f_score(counts.sum(0).tolist())
    if len(counts) < 2:
        return Estimate(value, math.nan)
    random = np.random.default_rng(seed)
    draws = random.integers(len(counts), size=(RESAMPLES, len(counts)))
    resampled = [scorer._compute_f_score(counts[draw].sum(0).tolist()) for draw in draws]
    return Estimate(value, float(np.std(resampled, ddof=1)))


def chrf_signature() -> str:
    """Sacrebleu's signature of `chrf`, to be published beside a score."""
    scorer = _chrf_scorer()
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())


@functools.cache
def _chrf_scorer():
    # sacrebleu takes a while to import and only generation tasks need it.
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)
