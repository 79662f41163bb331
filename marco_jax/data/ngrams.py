"""Long n-grams that two texts share: how a benchmark's items are found in training text.

A text counts as a run of words, 13 at a time, as GPT-3's authors did it (arXiv 2005.14165, appendix
C). Where words are not spaced a run of characters stands in, longer than 13: so many Thai letters
are a common phrase.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator

WORDS = 13
# Characters that say about as much as 13 words, by language. Korean and Vietnamese put spaces.
CHARACTERS = {"zh": 24, "ja": 30, "th": 50, "km": 50, "lo": 50, "my": 50}


@dataclasses.dataclass(frozen=True)
class Unit:
    """What n-grams are made of: `count` words, or `count` characters without anything between."""

    count: int
    characters: bool

    def ngrams(self, text: str) -> Iterator[str]:
        """Every n-gram of a text, words joined by spaces; none where the text is shorter."""
        pieces: str | list[str] = normalized_words(text)
        if self.characters:
            pieces = "".join(pieces)
        joint = "" if self.characters else " "
        for start in range(len(pieces) - self.count + 1):
            yield joint.join(pieces[start : start + self.count])


def unit_of(language: str) -> Unit:
    """The unit for texts of a language, given by its code."""
    if language in CHARACTERS:
        return Unit(CHARACTERS[language], characters=True)
    return Unit(WORDS, characters=False)


def normalized_words(text: str) -> list[str]:
    """Words without case, punctuation, and differences of width or composition."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(char if _is_word(char) else " " for char in folded)
    return kept.split()


def _is_word(char: str) -> bool:
    # Letters, marks (Mn and Mc make up syllables in many scripts) and numbers.
    return unicodedata.category(char)[0] in "LMN"


class NgramIndex:
    """The n-grams of some texts, each with the keys of the texts that hold it."""

    def __init__(self) -> None:
        """An empty index."""
        self._keys: dict[Unit, dict[str, list[int]]] = {}

    def add(self, key: int, texts: Iterable[str], language: str) -> bool:
        """Adds texts under a key; returns whether any is long enough to be found."""
        unit = unit_of(language)
        table = self._keys.setdefault(unit, {})
        found = False
        for text in texts:
            for ngram in unit.ngrams(text):
                found = True
                keys = table.setdefault(ngram, [])
                if not keys or keys[-1] != key:
                    keys.append(key)
        return found

    def hits(self, text: str) -> dict[int, str]:
        """Keys of the texts that share an n-gram with `text`, each with the first shared one."""
        found: dict[int, str] = {}
        for unit, table in self._keys.items():
            for ngram in unit.ngrams(text):
                for key in table.get(ngram, ()):
                    found.setdefault(key, ngram)
        return found
