"""Finds benchmark items in documents: by shared word n-grams, or by most of an item's letters."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Iterable, Sequence

from marco_jax.ngrams import CHARACTERS, NgramIndex, normalized_words

# Items with fewer words, in languages with spaces, are common phrases such as short answers and
# are skipped. Items with fewer letters are matched by words only.
SHORTEST, FEWEST_WORDS = 25, 4
GRAM = 8
# A document is contaminated if this share of an item's letter n-grams occurs within a window of
# STRETCHED times the item's length: items are edited, and text is inserted between their words.
COVERED = 0.6
STRETCHED = 1.5


class BenchmarkItems:
    """An index of the benchmark items to keep out of training text."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        """Indexes the (text, language) of items."""
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

    def match(self, text: str) -> bool:
        """Whether a text contains an item."""
        if not self._sizes:
            return False
        offsets: dict[int, list[int]] = collections.defaultdict(list)
        for offset, gram in enumerate(_grams(_letters(text))):
            for item in self._items.get(gram, ()):
                offsets[item].append(offset)
        near = any(self._covered(item, found) for item, found in offsets.items())
        return near or bool(self._exact.hits([text])[0])

    def _covered(self, item: int, offsets: Sequence[int]) -> bool:
        """Whether enough of an item's n-grams, at these offsets, lie within one window."""
        needed = COVERED * self._sizes[item]
        if len(offsets) < needed:
            return False
        window = STRETCHED * (self._sizes[item] + GRAM)
        return any(
            bisect.bisect_right(offsets, offset + window) - first >= needed
            for first, offset in enumerate(offsets)
        )


def _letters(text: str) -> str:
    return "".join(normalized_words(text))


def _grams(letters: str) -> list[str]:
    return [letters[at : at + GRAM] for at in range(len(letters) - GRAM + 1)]
