"""Metrics with standard errors: means, ratios, BLEU, chrF++ and language identification."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

# Bootstrap resamples for the standard error of chrF++, which then has a relative error of 4 %.
RESAMPLES = 300


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and its standard error, which is nan for a single observation."""

    value: float
    stderr: float


def mean(values: Sequence[float]) -> Estimate:
    """Mean of independent examples; standard error is the sample deviation (n-1) over sqrt(n)."""
    array = np.asarray(values, np.float64)
    count = len(array)
    stderr = float(array.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Estimate(float(array.mean()), stderr)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Sum of numerators over sum of denominators, such as bits per byte of documents.

    The standard error comes from the linearised ratio estimator; documents are the sampling units.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    value, count = float(top.sum() / bottom.sum()), len(top)
    if count < 2:
        return Estimate(value, math.nan)
    residuals = top - value * bottom
    variance = count / (count - 1) * float(residuals @ residuals) / float(bottom.sum()) ** 2
    return Estimate(value, math.sqrt(variance))


def macro_mean(estimates: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent estimates, such as one per language."""
    stderr = math.hypot(*(estimate.stderr for estimate in estimates)) / len(estimates)
    return Estimate(float(np.mean([estimate.value for estimate in estimates])), stderr)


def pooled(parts: Sequence[Sequence[float]]) -> Estimate:
    """Mean over all items of several parts, such as subjects.

    The standard error comes from the variance within parts (pooled variance), as in
    lm-evaluation-harness for groups that weight their tasks by size. A part with one item does
    not contribute to the variance.
    """
    sizes = [len(part) for part in parts]
    total = sum(sizes)
    value = sum(map(sum, parts)) / total
    if total == len(parts):
        return Estimate(float(value), math.nan)
    squares = sum(float(np.var(part, ddof=1)) * (len(part) - 1) for part in parts if len(part) > 1)
    return Estimate(float(value), math.sqrt(squares / (total - len(parts)) / total))


# sacrebleu's BLEU tokenizers. Its Japanese and Korean word tokenizers need dictionaries that are
# installed separately, so characters are used there; scores are comparable by signature only.
BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char", "th": "char"}
DEFAULT_BLEU_TOKENIZER = "13a"


# Names of corpus metrics that sacrebleu computes: "chrf++", and "bleu:TOKENIZER".
CHRF = "chrf++"
BLEU = "bleu:"


def bleu(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str, seed: int = 0
) -> Estimate:
    """Corpus BLEU (0 to 100) as sacrebleu computes it, one reference per hypothesis.

    `tokenizer` is one of sacrebleu's names; "flores200" gives spBLEU. The standard error is
    computed as in `bootstrap`.
    """
    name = BLEU + tokenizer
    return bootstrap(name, corpus_counts(name, hypotheses, references), seed)


def chrf(hypotheses: Sequence[str], references: Sequence[str], seed: int = 0) -> Estimate:
    """Corpus chrF++ (0 to 100) as sacrebleu computes it, one reference per hypothesis.

    The standard error is computed as in `bootstrap`.
    """
    return bootstrap(CHRF, corpus_counts(CHRF, hypotheses, references), seed)


def corpus_counts(name: str, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """The counts of each sentence, of which sums over sentences determine a corpus metric.

    `name` is CHRF, or BLEU and a tokenizer. The result is int64 [sentences, statistics]: n-grams,
    matches and lengths.
    """
    scorer = _scorer(name)
    counts = scorer._extract_corpus_statistics(list(hypotheses), [list(references)])
    return np.array(counts, np.int64)


def corpus_score(name: str, sums: np.ndarray) -> float:
    """The corpus metric (0 to 100) of summed `corpus_counts`, [statistics]."""
    return float(_scorer(name)._compute_score_from_stats(sums.tolist()).score)


def bootstrap(name: str, counts: np.ndarray, seed: int = 0) -> Estimate:
    """A corpus metric of sentences with these `corpus_counts`, [sentences, statistics].

    The standard error is the standard deviation over bootstrap resamples of the sentences, drawn
    with `seed`.
    """
    value = corpus_score(name, counts.sum(0))
    if len(counts) < 2:
        return Estimate(value, math.nan)
    random = np.random.default_rng(seed)
    draws = random.integers(len(counts), size=(RESAMPLES, len(counts)))
    scores = [corpus_score(name, counts[draw].sum(0)) for draw in draws]
    return Estimate(value, float(np.std(scores, ddof=1)))


def signature(name: str) -> str:
    """Sacrebleu's signature of a corpus metric, to be published with a score."""
    scorer = _scorer(name)
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())


def _scorer(name: str) -> Any:
    return chrf_scorer() if name == CHRF else _bleu_scorer(name.removeprefix(BLEU))


def spbleu_model() -> pathlib.Path:
    """The path where sacrebleu looks for the SentencePiece model of spBLEU; it may not exist."""
    home = os.environ.get("SACREBLEU") or pathlib.Path.home() / ".sacrebleu"
    return pathlib.Path(home) / "models" / "flores200sacrebleuspm"


@functools.cache
def chrf_scorer(word_order: int = 2) -> Any:
    """Sacrebleu's chrF++ scorer, or its chrF scorer with word_order 0."""
    # sacrebleu is slow to import and only generation tasks need it.
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=word_order)


def sentence_bleu(answer: str, reference: str, language: str) -> float:
    """Sacrebleu's BLEU (0 to 100) of one sentence, smoothed, up to as many words as it has."""
    scorer = _bleu_scorer(BLEU_TOKENIZERS.get(language, DEFAULT_BLEU_TOKENIZER), sentence=True)
    return scorer.sentence_score(answer.strip(), [reference.strip()]).score


@functools.cache
def _bleu_scorer(tokenizer: str, *, sentence: bool = False) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer, effective_order=sentence)


def is_in_language(text: str, language: str) -> bool:
    """Whether py3langid identifies a text as a language; False for an empty text.

    Indonesian and Malay count as one: py3langid cannot distinguish them in short texts.
    """
    import py3langid

    alike = {"id": ("id", "ms"), "ms": ("id", "ms")}.get(language, (language,))
    return bool(text.strip()) and py3langid.classify(text)[0] in alike
