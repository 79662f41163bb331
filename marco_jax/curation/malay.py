"""Distinguishes Malay from Indonesian by the words that one of them uses more.

They share most words, and identifiers confuse them in one sentence of eight. The table has the
log-odds of 10,000 words, made from the word frequencies of wordfreq 3 (CC BY-SA 4.0) by
benchmarks/curation/malay_words.py. Words that are as frequent in both count nothing; the score of a
text is the sum over its words, as in naive Bayes.
"""

from __future__ import annotations

import functools
from importlib import resources

from marco_jax.ngrams import normalized_words

TABLE = "malay_words.txt"


def malay_evidence(text: str) -> float:
    """The log-odds (nats) of Malay over Indonesian by a text's words; 0 if it has none of them."""
    scores = _scores()
    return sum(scores.get(word, 0.0) for word in normalized_words(text))


@functools.cache
def _scores() -> dict[str, float]:
    table = resources.files("marco_jax.curation").joinpath(TABLE).read_text(encoding="utf-8")
    rows = [line.split() for line in table.splitlines() if not line.startswith("#")]
    return {word: float(score) for score, *words in rows for word in words}
