"""Long n-grams that two texts share: how a benchmark's items are found in training text.

A text counts as a run of words, 13 at a time, as GPT-3's authors did it (arXiv 2005.14165, appendix
C). Where words are not spaced a run of characters stands in, longer than 13: so many Thai letters
are a common phrase.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

WORDS = 13
# Characters that say about as much as 13 words, by language. Korean and Vietnamese put spaces.
CHARACTERS = {"zh": 24, "ja": 30, "th": 50, "km": 50, "lo": 50, "my": 50}

# A text as characters, or as words.
Pieces = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Unit:
    """What n-grams are made of: `count` words, or `count` characters without anything between."""

    count: int
    characters: bool

    def pieces(self, words: Sequence[str]) -> Pieces:
        """What a text of such words is made of: its characters, or the words themselves."""
        return "".join(words) if self.characters else words

    def joined(self, texts: Iterable[Pieces]) -> Pieces:
        """The pieces of several texts, one after another."""
        return "".join(texts) if self.characters else list(itertools.chain.from_iterable(texts))

    def ngram(self, pieces: Pieces, start: int) -> str:
        """The n-gram that starts at a piece, words joined by spaces."""
        return ("" if self.characters else " ").join(pieces[start : start + self.count])


def unit_of(language: str) -> Unit:
    """The unit for texts of a language, given by its code."""
    if language in CHARACTERS:
        return Unit(CHARACTERS[language], characters=True)
    return Unit(WORDS, characters=False)


class _Kept(dict):
    """A table for str.translate that keeps words' characters; all others become spaces."""

    def __missing__(self, code: int) -> int:
        # Letters, marks (Mn and Mc make up syllables in many scripts) and numbers.
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if kept else ord(" ")
        return self[code]


_KEPT = _Kept()


def normalized_words(text: str) -> list[str]:
    """Words without case, punctuation, and differences of width or composition."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).split()


class NgramIndex:
    """The n-grams of some texts, each with the keys of the texts that hold it."""

    def __init__(self) -> None:
        """An empty index."""
        self._tables: dict[Unit, _Table] = {}

    def add(self, key: int, texts: Iterable[str], language: str) -> bool:
        """Adds texts under a key; returns whether any is long enough to be found."""
        unit = unit_of(language)
        if unit not in self._tables:
            self._tables[unit] = _Table(unit)
        table = self._tables[unit]
        return any([table.add(key, normalized_words(text)) for text in texts])

    def hits(self, texts: Sequence[str]) -> list[dict[int, str]]:
        """For each text the keys of those that share an n-gram with it, each with the first one.

        Many texts at a time are searched faster than one.
        """
        words = [normalized_words(text) for text in texts]
        found: list[dict[int, str]] = [{} for _ in texts]
        for table in self._tables.values():
            table.search(words, found)
        return found


class _Table:
    """N-grams of one unit. Hashes say where to look, the n-grams themselves decide."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._keys: dict[str, list[int]] = {}
        self._new: list[Pieces] = []
        self._hashes = np.zeros(0, np.uint64)
        self._slots = np.zeros(1 << _SLOT_BITS, bool)

    def add(self, key: int, words: Sequence[str]) -> bool:
        """Adds a text; returns whether it has an n-gram."""
        unit, pieces = self._unit, self._unit.pieces(words)
        for start in range(len(pieces) - unit.count + 1):
            keys = self._keys.setdefault(unit.ngram(pieces, start), [])
            if not keys or keys[-1] != key:
                keys.append(key)
        if len(pieces) < unit.count:
            return False
        self._new.append(pieces)
        return True

    def search(self, words: Sequence[Sequence[str]], found: list[dict[int, str]]) -> None:
        """Adds to each text's dictionary the keys that share an n-gram with it."""
        self._hash_new()
        unit, texts = self._unit, [self._unit.pieces(text) for text in words]
        ends = list(itertools.accumulate(map(len, texts)))
        pieces = unit.joined(texts)
        if len(pieces) < unit.count:
            return
        hashes = _hashes(pieces, unit.count)
        starts = np.flatnonzero(self._slots[hashes >> _SLOT_SHIFT])
        places = np.searchsorted(self._hashes, hashes[starts]) % max(1, len(self._hashes))
        for start in starts[self._hashes[places] == hashes[starts]].tolist():
            text = bisect.bisect_right(ends, start)
            if start + unit.count <= ends[text]:
                ngram = unit.ngram(pieces, start)
                for key in self._keys.get(ngram, ()):
                    found[text].setdefault(key, ngram)

    def _hash_new(self) -> None:
        """Hashes the texts added since the last search, many at a time.

        Runs across their ends are hashed as well: no n-gram is looked up that is not there.
        """
        new = [self._hashes]
        for start in range(0, len(self._new), _TEXTS):
            texts = self._new[start : start + _TEXTS]
            new.append(_hashes(self._unit.joined(texts), self._unit.count))
        if self._new:
            self._hashes = np.unique(np.concatenate(new))
            self._slots[self._hashes >> _SLOT_SHIFT] = True
            self._new = []


# Most hashes that are not in an index are told by their first bits.
_SLOT_BITS = 24
# Texts of an index that are hashed together.
_TEXTS = 2048
_SLOT_SHIFT = np.uint64(64 - _SLOT_BITS)
# An odd factor has an inverse modulo 2**64, in which the hashes are computed.
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def _hashes(pieces: Pieces, count: int) -> np.ndarray:
    """Hashes uint64 [len(pieces) - count + 1] of all runs of `count` pieces.

    A run's hash is a polynomial in _FACTOR, the difference of two sums over beginnings.
    """
    if isinstance(pieces, str):
        codes = np.frombuffer(pieces.encode("utf-32-le", "surrogatepass"), np.uint32)
        values = _mixed(codes.astype(np.uint64) + np.uint64(1))
    else:
        values = np.fromiter(map(hash, pieces), np.int64, len(pieces)).view(np.uint64)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(_FACTOR, len(values)), out=sums[1:])
    runs = (sums[count:] - sums[:-count]) * _powers(_INVERSE, len(values) - count + 1)
    return _mixed(runs)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers whose first bits depend on all bits (the steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_POWERS: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """The first powers of a number modulo 2**64, kept from call to call."""
    if len(_POWERS.get(base, ())) < count:
        size = 1 << max(1024, count - 1).bit_length()
        factors = np.full(size, base, np.uint64)
        factors[0] = 1
        _POWERS[base] = np.cumprod(factors)
    return _POWERS[base][:count]
