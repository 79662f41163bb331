"""Benchmark items that stand in a document: whole runs of words, or most of an item's letters."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from marco_jax.data.ngrams import NgramIndex, normalized_words

# Items with fewer letters are common phrases.
SHORTEST = 25
GRAM = 8
# Of an item's runs of letters, this share in a document makes it contaminated: items are edited.
COVERED = 0.6


class Benchmarks:
    """The items to keep out of training text."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """Indexes (text, language) of items."""
        self._exact = NgramIndex()
        self._items: dict[str, list[int]] = {}
        self._sizes: list[int] = []
        for text, language in texts:
            self._exact.add(len(self._sizes), [text], language)
            grams = _grams(text) if len(_letters(text)) >= SHORTEST else set()
            for gram in grams:
                self._items.setdefault(gram, []).append(len(self._sizes))
            self._sizes.append(len(grams))

    def found(self, text: str) -> bool:
        """Whether an item stands in a text."""
        if not self._sizes:
            return False
        hits: collections.Counter[int] = collections.Counter()
        for gram in _grams(text):
            hits.update(self._items.get(gram, ()))
        near = any(count >= COVERED * self._sizes[item] for item, count in hits.items())
        return near or bool(self._exact.hits([text])[0])


def _letters(text: str) -> str:
    return "".join(normalized_words(text))


def _grams(text: str) -> set[str]:
    letters = _letters(text)
    return {letters[at : at + GRAM] for at in range(len(letters) - GRAM + 1)}
