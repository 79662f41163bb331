"""Benchmark items that stand in a document: whole runs of words, or most of an item's letters."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Iterable, Sequence

from marco_jax.ngrams import CHARACTERS, NgramIndex, normalized_words

# Items with fewer letters are common phrases, and so are those with fewer words, where words are
# spaced: an answer, say.
SHORTEST, FEWEST_WORDS = 25, 4
GRAM = 8
# Of an item's runs of letters, this share in one place makes a document contaminated: items are
# edited, and what was put between their words makes the place longer than they are.
COVERED = 0.6
STRETCHED = 1.5


class Benchmarks:
    """The items to keep out of training text."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """Indexes (text, language) of items."""
        self._exact = NgramIndex()
        self._items: dict[str, list[int]] = {}
        self._sizes: list[int] = []
        for text, language in texts:
            spaced = language and language not in CHARACTERS
            if spaced and len(normalized_words(text)) < FEWEST_WORDS:
                continue
            self._exact.add(len(self._sizes), [text], language)
            letters = _letters(text)
            grams = set(_grams(letters)) if len(letters) >= SHORTEST else set()
            for gram in grams:
                self._items.setdefault(gram, []).append(len(self._sizes))
            self._sizes.append(len(grams))

    def found(self, text: str) -> bool:
        """Whether an item stands in a text."""
        if not self._sizes:
            return False
        places: dict[int, list[int]] = collections.defaultdict(list)
        for place, gram in enumerate(_grams(_letters(text))):
            for item in self._items.get(gram, ()):
                places[item].append(place)
        near = any(self._covered(item, found) for item, found in places.items())
        return near or bool(self._exact.hits([text])[0])

    def _covered(self, item: int, places: Sequence[int]) -> bool:
        """Whether enough of an item's grams stand close together."""
        needed = COVERED * self._sizes[item]
        if len(places) < needed:
            return False
        reach = STRETCHED * (self._sizes[item] + GRAM)
        return any(
            bisect.bisect_right(places, place + reach) - first >= needed
            for first, place in enumerate(places)
        )


def _letters(text: str) -> str:
    return "".join(normalized_words(text))


def _grams(letters: str) -> list[str]:
    return [letters[at : at + GRAM] for at in range(len(letters) - GRAM + 1)]
