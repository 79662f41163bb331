"""Finds near-duplicates: MinHash bands give candidates, whole signatures confirm them.

Each document is reduced to a few numbers, so that tables of these numbers suffice; the texts are
never compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from marco_jax.ngrams import normalized_words

# Characters per n-gram; not words, which not all scripts separate. Three Chinese or Japanese
# characters carry as much information as more than five letters of an alphabet.
GRAM, GRAM_DENSE = 5, 3
# 40 bands of 5 rows: documents of Jaccard similarity 0.6 share a band with probability 0.96, of 0.8
# with 0.9999999, of 0.1 (unrelated texts of a language) with 0.0004.
BANDS, ROWS = 40, 5
# Characters at the start and the end; a truncated duplicate shares one of them with the original.
EDGE = 60
# Among documents that share a key, so many are compared with all others.
REPRESENTATIVES = 16
# Pairs per comparison, which bounds memory.
_PAIRS = 1 << 15

_random = np.random.default_rng(20241204)
_FACTORS = _random.integers(1, 1 << 32, (BANDS * ROWS, 1), dtype=np.uint32) | np.uint32(1)
_OFFSETS = _random.integers(0, 1 << 32, (BANDS * ROWS, 1), dtype=np.uint32)
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)


@dataclasses.dataclass(frozen=True)
class Description:
    """Numbers of a document that identify duplicates.

    `digest`: hash of the text without case and punctuation. `size`: number of different n-grams.
    `signature`: uint16 [BANDS * ROWS], the low bits of MinHash values. `keys`: uint64 [BANDS + 2],
    hashes of the bands, the start and the end; candidates share a key.
    """

    digest: int
    size: int
    signature: np.ndarray
    keys: np.ndarray


def describe_text(text: str, language: str = "") -> Description:
    """Computes the description of a text; texts of different languages share no key."""
    folded = " ".join(normalized_words(text))
    hashed = grams(folded)
    values = _minhash(hashed)  # (BANDS, ROWS)
    salt = hash64(language)
    edges = [hash64(part) for part in (folded[:EDGE], folded[-EDGE:] + "\0")]
    keys = np.concatenate([_band_keys(values), np.array(edges, np.uint64)]) ^ np.uint64(salt)
    signature = values.astype(np.uint16).ravel()
    return Description(hash64(folded), hashed.size, signature, keys)


def hash64(text: str) -> int:
    """A 64-bit hash of a text."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def grams(text: str) -> np.ndarray:
    """Sorted uint32 hashes of the different character n-grams of a text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    # CJK ideographs and kana.
    dense = np.count_nonzero((codes >= 0x3040) & (codes <= 0x9FFF)) > 0.3 * codes.size
    size = GRAM_DENSE if dense else GRAM
    if codes.size < size:
        return np.zeros(0, np.uint32)
    wide = codes.astype(np.uint64)
    windows = np.zeros(codes.size - size + 1, np.uint64)
    for at in range(size):
        windows = windows * np.uint64(0x100000001B3) + wide[at : at + windows.size]
    windows = (windows ^ (windows >> np.uint64(31))) * _MIX[0]
    windows = (windows ^ (windows >> np.uint64(29))) * _MIX[1]
    return np.unique((windows >> np.uint64(32)).astype(np.uint32))


def similarities(first: Description, second: Description) -> tuple[float, float]:
    """Estimates the Jaccard similarity, and the share of the smaller text that is in the larger."""
    columns = [
        np.stack([one.signature for one in (first, second)]),
        np.array([first.size, second.size], np.int64),
    ]
    alike, inside = _estimates(*columns, np.array([0]), np.array([1]))
    return float(alike[0]), float(inside[0])


def links(
    keys: np.ndarray,
    order: np.ndarray,
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """Yields pairs int64 [pairs, 2] of similar documents that share a key, the better one first.

    In each round the best document of every group with a shared key is compared with the others of
    the group; documents that match it leave the group, and the best of the rest heads the next of
    REPRESENTATIVES rounds. So the cost is linear in the size of a group.

    Args:
        keys: uint64 [documents].
        order: int64 [documents], smaller is better.
        compare: whether documents int64 [n] are duplicates of others int64 [n].
    """
    members = np.lexsort((order, keys))
    for _ in range(REPRESENTATIVES):
        values = keys[members]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if values.size else values
        sizes = np.diff(np.r_[starts, values.size]).astype(np.int64)
        # A key that only one document has gives no pairs.
        members = members[np.repeat(sizes > 1, sizes)]
        sizes = sizes[sizes > 1]
        if not sizes.size:
            return
        firsts = np.r_[0, np.cumsum(sizes)[:-1]]
        heads, others = np.repeat(members[firsts], sizes - 1), np.delete(members, firsts)
        unlike = np.ones(others.size, bool)
        for start in range(0, others.size, _PAIRS):
            part = slice(start, start + _PAIRS)
            alike = compare(heads[part], others[part])
            unlike[part] = ~alike
            if alike.any():
                yield np.stack([heads[part][alike], others[part][alike]], axis=1)
        members = others[unlike]


def comparison(
    signatures: np.ndarray, sizes: np.ndarray, near: float, containment: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a function that compares documents by their signatures, for `links`."""

    def compare(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        alike, inside = _estimates(signatures, sizes, first, second)
        # The estimate of containment is unreliable at low similarity.
        return (alike >= near) | ((inside >= containment) & (alike >= 0.2))

    return compare


def clusters(pairs: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best document of each document's group, and the group's size, both int64 [documents]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = order.size
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    ranked = np.argsort(order)
    best = np.zeros(labels.max(initial=-1) + 1, np.int64)
    # Written from worst to best, so the best of each group remains.
    best[labels[ranked[::-1]]] = ranked[::-1]
    return best[labels], np.bincount(labels, minlength=best.size)[labels]


def _estimates(
    signatures: np.ndarray, sizes: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    alike = (signatures[first] == signatures[second]).mean(axis=1)
    one, two = sizes[first].astype(np.float64), sizes[second].astype(np.float64)
    alike = np.where((one > 0) & (two > 0), alike, 0.0)
    shared = alike * (one + two) / (1 + alike)
    return alike, np.minimum(shared / np.maximum(1, np.minimum(one, two)), 1.0)


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
