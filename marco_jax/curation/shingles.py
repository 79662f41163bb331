"""The n-grams of a text, by which copies are found: MinHash keys, and exact similarity."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np

from marco_jax.ngrams import normalized_words

# Characters per n-gram; not words, which not all scripts separate. Three Chinese or Japanese
# characters carry as much information as more than five letters of an alphabet.
GRAM, GRAM_DENSE = 5, 3
# Two long texts of a language share most of its n-grams of five letters. They share few of these,
# of three words or so, unless one was copied from the other.
PHRASE, PHRASE_DENSE = 15, 8
# Copies share at least this part of the bound for n-grams in phrases as well. A change of one word
# breaks about two phrases for every n-gram that it breaks.
PHRASE_PART = 0.5
# 40 bands of 5 rows: documents of Jaccard similarity 0.6 share a band with probability 0.96, of 0.8
# with 0.9999999, of 0.1 (unrelated texts of a language) with 0.0004.
BANDS, ROWS = 40, 5
# Characters at the start and the end; a truncated duplicate shares one of them with the original.
EDGE_CHARACTERS = 60
# Keys of a document: its bands, its start and its end.
KEYS = BANDS + 2

_random = np.random.default_rng(20241204)
_FACTORS = _random.integers(1, 1 << 32, (BANDS * ROWS, 1), dtype=np.uint32) | np.uint32(1)
_OFFSETS = _random.integers(0, 1 << 32, (BANDS * ROWS, 1), dtype=np.uint32)
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)


def hash64(text: str) -> int:
    """A 64-bit hash of a text."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def folded(text: str) -> str:
    """A text without case, punctuation and line breaks; equal ones are exact copies."""
    return " ".join(normalized_words(text))


def candidate_keys(text: str, language: str = "") -> np.ndarray:
    """uint64 [KEYS] of a folded text; likely copies share one, of two languages none."""
    values = _minhash(grams(text))  # [BANDS, ROWS]
    edges = [hash64(part) for part in (text[:EDGE_CHARACTERS], text[-EDGE_CHARACTERS:] + "\0")]
    keys = np.concatenate([_band_keys(values), np.array(edges, np.uint64)])
    return keys ^ np.uint64(hash64(language))


def grams(text: str, phrases: bool = False) -> np.ndarray:
    """Sorted uint32 hashes of the different n-grams, or phrases, of a folded text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    # CJK ideographs and kana.
    dense = np.count_nonzero((codes >= 0x3040) & (codes <= 0x9FFF)) > 0.3 * codes.size
    sizes = (PHRASE, PHRASE_DENSE) if phrases else (GRAM, GRAM_DENSE)
    size = sizes[1] if dense else sizes[0]
    if codes.size < size:
        return np.zeros(0, np.uint32)
    wide = codes.astype(np.uint64)
    windows = np.zeros(codes.size - size + 1, np.uint64)
    for at in range(size):
        windows = windows * np.uint64(0x100000001B3) + wide[at : at + windows.size]
    windows = (windows ^ (windows >> np.uint64(31))) * _MIX[0]
    windows = (windows ^ (windows >> np.uint64(29))) * _MIX[1]
    return np.unique((windows >> np.uint64(32)).astype(np.uint32))


@dataclasses.dataclass(frozen=True)
class ShingledText:
    """A folded text with its n-grams, which are computed when they are first needed."""

    text: str

    @functools.cached_property
    def grams(self) -> np.ndarray:
        """uint32 [n-grams], sorted."""
        return grams(self.text)

    @functools.cached_property
    def phrases(self) -> np.ndarray:
        """uint32 [phrases], sorted."""
        return grams(self.text, phrases=True)


def similarity(one: ShingledText, two: ShingledText) -> tuple[float, float]:
    """The Jaccard similarity of n-grams, and the share of the smaller set that is in the larger."""
    shared = _shared(one.grams, two.grams)
    either = one.grams.size + two.grams.size - shared
    smaller = min(one.grams.size, two.grams.size)
    return shared / max(1, either), shared / max(1, smaller)


def is_copy(one: ShingledText, two: ShingledText, near: float, containment: float) -> bool:
    """Whether two texts are near copies, or most of the shorter lies in the longer.

    Args:
        one: a text.
        two: another.
        near: least Jaccard similarity of copies.
        containment: least share of the shorter text's n-grams in a longer text that contains it.
    """
    alike, inside = similarity(one, two)
    if alike < near and inside < containment:
        return False
    bound = PHRASE_PART * (near if alike >= near else containment)
    smaller = min(one.phrases.size, two.phrases.size)
    return not smaller or _shared(one.phrases, two.phrases) >= bound * smaller


def _shared(one: np.ndarray, two: np.ndarray) -> int:
    return np.intersect1d(one, two, assume_unique=True).size


def _minhash(hashed: np.ndarray) -> np.ndarray:
    """uint32 [BANDS, ROWS]: the minimum of each permutation; zeros without n-grams."""
    if not hashed.size:
        return np.zeros((BANDS, ROWS), np.uint32)
    least = np.full(BANDS * ROWS, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, hashed.size, 512):
        permuted = _FACTORS * hashed[start : start + 512]
        permuted += _OFFSETS
        np.minimum(least, permuted.min(axis=1), out=least)
    return least.reshape(BANDS, ROWS)


def _band_keys(values: np.ndarray) -> np.ndarray:
    keys = np.arange(1, BANDS + 1, dtype=np.uint64) * _MIX[1]
    for row in range(ROWS):
        keys = (keys ^ values[:, row]) * _MIX[0]
        keys ^= keys >> np.uint64(32)
    return keys
