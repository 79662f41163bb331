"""An index of long n-grams, by which items of benchmarks are found in training text.

An n-gram is 13 consecutive words, as in GPT-3's decontamination (arXiv 2005.14165, appendix C). In
languages without spaces between words it is a longer run of characters, since 13 Thai letters are
a common phrase.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

WORDS = 13
# Characters with about the content of 13 words, by language without spaces between words.
CHARACTERS = {"zh": 24, "ja": 30, "th": 50, "km": 50, "lo": 50, "my": 50}

# The elements of a text: its characters, or its words.
Elements = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class NgramKind:
    """The kind of n-grams of a language: `count` words, or `count` characters without spaces."""

    count: int
    characters: bool

    def elements(self, words: Sequence[str]) -> Elements:
        """Converts the words of a text to its elements."""
        return "".join(words) if self.characters else words

    def joined(self, texts: Iterable[Elements]) -> Elements:
        """Concatenates the elements of several texts."""
        return "".join(texts) if self.characters else list(itertools.chain.from_iterable(texts))

    def ngram(self, elements: Elements, start: int) -> str:
        """The n-gram that starts at an element, with words joined by spaces."""
        return ("" if self.characters else " ").join(elements[start : start + self.count])


def ngram_kind(language: str) -> NgramKind:
    """The kind of n-grams of a language, given by its code."""
    if language in CHARACTERS:
        return NgramKind(CHARACTERS[language], characters=True)
    return NgramKind(WORDS, characters=False)


class _WordCharacters(dict):
    """A table for str.translate that keeps characters of words and replaces others by spaces."""

    def __missing__(self, code: int) -> int:
        # Letters, marks (Mn and Mc are parts of syllables in many scripts) and numbers.
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if kept else ord(" ")
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def normalized_words(text: str) -> list[str]:
    """Splits a text into words, without case, punctuation, and Unicode compatibility variants."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_WORD_CHARACTERS).split()


class NgramIndex:
    """Maps n-grams to the keys of the added texts that contain them."""

    def __init__(self) -> None:
        """Creates an empty index."""
        self._tables: dict[NgramKind, _Table] = {}

    def add(self, key: int, texts: Iterable[str], language: str) -> bool:
        """Adds texts under a key; returns whether any text is long enough for an n-gram."""
        kind = ngram_kind(language)
        if kind not in self._tables:
            self._tables[kind] = _Table(kind)
        table = self._tables[kind]
        return any([table.add(key, normalized_words(text)) for text in texts])

    def hits(self, texts: Sequence[str]) -> list[dict[int, str]]:
        """For each text, the keys that share an n-gram with it, with the first shared n-gram.

        It is faster with many texts per call.
        """
        words = [normalized_words(text) for text in texts]
        found: list[dict[int, str]] = [{} for _ in texts]
        for table in self._tables.values():
            table.search(words, found)
        return found


class _Table:
    """N-grams of one kind. Hashes find candidates, which are then compared as text."""

    def __init__(self, kind: NgramKind) -> None:
        self._kind = kind
        self._keys: dict[str, list[int]] = {}
        self._new: list[Elements] = []
        self._hashes = np.zeros(0, np.uint64)
        self._slots = np.zeros(1 << _SLOT_BITS, bool)

    def add(self, key: int, words: Sequence[str]) -> bool:
        """Adds a text; returns whether it has an n-gram."""
        kind, elements = self._kind, self._kind.elements(words)
        for start in range(len(elements) - kind.count + 1):
            keys = self._keys.setdefault(kind.ngram(elements, start), [])
            if not keys or keys[-1] != key:
                keys.append(key)
        if len(elements) < kind.count:
            return False
        self._new.append(elements)
        return True

    def search(self, words: Sequence[Sequence[str]], found: list[dict[int, str]]) -> None:
        """Adds to each text's dictionary the keys that share an n-gram with it."""
        self._hash_new()
        kind, texts = self._kind, [self._kind.elements(text) for text in words]
        ends = list(itertools.accumulate(map(len, texts)))
        elements = kind.joined(texts)
        if len(elements) < kind.count:
            return
        hashes = _hashes(elements, kind.count)
        starts = np.flatnonzero(self._slots[hashes >> _SLOT_SHIFT])
        indices = np.searchsorted(self._hashes, hashes[starts]) % max(1, len(self._hashes))
        for start in starts[self._hashes[indices] == hashes[starts]].tolist():
            text = bisect.bisect_right(ends, start)
            if start + kind.count <= ends[text]:
                ngram = kind.ngram(elements, start)
                for key in self._keys.get(ngram, ()):
                    found[text].setdefault(key, ngram)

    def _hash_new(self) -> None:
        """Hashes the texts added since the last search, many at a time.

        Runs across the ends of texts are hashed, too; they are harmless, since `_keys` lacks them.
        """
        new = [self._hashes]
        for start in range(0, len(self._new), _TEXTS):
            texts = self._new[start : start + _TEXTS]
            new.append(_hashes(self._kind.joined(texts), self._kind.count))
        if self._new:
            self._hashes = np.unique(np.concatenate(new))
            self._slots[self._hashes >> _SLOT_SHIFT] = True
            self._new = []


# The first bits of a hash exclude most hashes that are not in an index.
_SLOT_BITS = 24
# Texts of an index that are hashed together.
_TEXTS = 2048
_SLOT_SHIFT = np.uint64(64 - _SLOT_BITS)
# An odd factor has an inverse modulo 2**64, in which the hashes are computed.
_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def _hashes(elements: Elements, count: int) -> np.ndarray:
    """Hashes uint64 [len(elements) - count + 1] of all runs of `count` elements.

    A run's hash is a polynomial in _FACTOR, computed as the difference of two prefix sums.
    """
    if isinstance(elements, str):
        codes = np.frombuffer(elements.encode("utf-32-le", "surrogatepass"), np.uint32)
        values = _mixed(codes.astype(np.uint64) + np.uint64(1))
    else:
        values = np.fromiter(map(hash, elements), np.int64, len(elements)).view(np.uint64)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(_FACTOR, len(values)), out=sums[1:])
    runs = (sums[count:] - sums[:-count]) * _powers(_INVERSE, len(values) - count + 1)
    return _mixed(runs)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Mixes numbers so that their first bits depend on all bits (the steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_POWERS: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """The first powers of a number modulo 2**64, cached between calls."""
    if len(_POWERS.get(base, ())) < count:
        size = 1 << max(1024, count - 1).bit_length()
        factors = np.full(size, base, np.uint64)
        factors[0] = 1
        _POWERS[base] = np.cumprod(factors)
    return _POWERS[base][:count]
