"""Near duplicates: MinHash bands find pairs, sets of hashed character 5-grams confirm them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from marco_jax.data.ngrams import normalized_words

GRAM = 5
BANDS, ROWS = 32, 4
# Characters of the beginning that a cut copy shares.
HEAD = 60
# Members of a band that later ones are compared with.
REPRESENTATIVES = 50

_random = np.random.default_rng(20241204)
_FACTORS = _random.integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _random.integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64)


@dataclasses.dataclass(frozen=True, order=True)
class Member:
    """A document in the search for duplicates; the smallest of a group is kept.

    `rank` is minus the text's length: the longest comes first. `grams` are sorted uint64 in bytes.
    """

    rank: int
    key: str
    digest: bytes
    grams: bytes = dataclasses.field(compare=False)


def describe(key: str, text: str) -> tuple[Member, list[bytes]]:
    """A document's member, and the keys that near duplicates share one of."""
    folded = " ".join(normalized_words(text))
    grams = _grams(folded)
    signature = _signature(grams)
    digest = hashlib.blake2b(folded.encode(), digest_size=12).digest()
    bands = [
        bytes([band]) + hashlib.blake2b(signature[band].tobytes(), digest_size=11).digest()
        for band in range(BANDS)
    ]
    head = hashlib.blake2b(folded[:HEAD].encode(), digest_size=11).digest()
    return Member(-len(folded), key, digest, grams.tobytes()), [*bands, b"\xff" + head]


def jaccard(first: Member, second: Member) -> tuple[float, float]:
    """Jaccard similarity of two documents, and how much of the smaller lies in the other."""
    one, two = (np.frombuffer(member.grams, np.uint64) for member in (first, second))
    if not one.size or not two.size:
        return (1.0, 1.0) if first.digest == second.digest else (0.0, 0.0)
    shared = np.intersect1d(one, two, assume_unique=True).size
    return shared / (one.size + two.size - shared), shared / min(one.size, two.size)


def links(
    members: Iterable[Member], threshold: float, containment: float
) -> Iterator[tuple[tuple, tuple]]:
    """Pairs (kept, duplicate) among documents that share a key, as (rank, key, digest)."""
    heads: list[Member] = []
    for member in sorted(members):
        for head in heads:
            similarity, inside = jaccard(head, member)
            if similarity >= threshold or inside >= containment:
                yield _name(head), _name(member)
                break
        else:
            if len(heads) < REPRESENTATIVES:
                heads.append(member)


def clusters(pairs: Sequence[tuple[tuple, tuple]]) -> dict[str, tuple[str, int, bool]]:
    """By document: the one kept of its group, the group's size, whether the texts are equal."""
    parents: dict[tuple, tuple] = {}

    def find(node: tuple) -> tuple:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for first, second in pairs:
        one, two = find(first), find(second)
        parents[max(one, two)] = min(one, two)
    groups: dict[tuple, list[tuple]] = {}
    for node in parents:
        groups.setdefault(find(node), []).append(node)
    return {
        node[1]: (head[1], len(nodes), node[2] == head[2])
        for head, nodes in groups.items()
        for node in nodes
    }


def _name(member: Member) -> tuple[int, str, bytes]:
    return member.rank, member.key, member.digest


def _grams(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if codes.size < GRAM:
        return np.zeros(0, np.uint64)
    windows = np.zeros(codes.size - GRAM + 1, np.uint64)
    with np.errstate(over="ignore"):
        for at in range(GRAM):
            windows = windows * np.uint64(0x100000001B3) + codes[at : at + windows.size]
        windows ^= windows >> np.uint64(31)
        windows *= np.uint64(0x9E3779B97F4A7C15)
        windows ^= windows >> np.uint64(29)
    return np.unique(windows)


def _signature(grams: np.ndarray) -> np.ndarray:
    """(BANDS, ROWS) of the least value of each hash; zeros for a text without 5-grams."""
    least = np.zeros(BANDS * ROWS, np.uint64)
    if grams.size:
        least[:] = np.uint64((1 << 64) - 1)
        with np.errstate(over="ignore"):
            for start in range(0, grams.size, 2048):
                block = grams[start : start + 2048]
                hashed = block[:, None] * _FACTORS + _OFFSETS
                np.minimum(least, hashed.min(axis=0), out=least)
    return least.reshape(BANDS, ROWS)
