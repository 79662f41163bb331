"""The order of the data: which source a row comes from, and which document is read next.

Both are closed forms, so that any row of a run can be asked for at once: `Interleave` mixes sources
by index, `Permutation` shuffles the documents of one.

`Interleave` cuts the rows into blocks. A block holds each source in proportion to its weight, in a
seeded random order; counts never drift: after any number of whole blocks a source has had its share
of the rows to within one row. Sources that are too small for a block of their own take turns in one
entry of it, by the same rule, so that a small source does not make the blocks of large ones long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# Cumulative weights are integers out of this: counts are exact at any distance.
_ONE = 1 << 40
# Rows of a block, unless there are few sources and one of them needs more.
_BLOCK = 64
# Rows that a source has of each block, at least: no count can turn negative by rounding then.
_ROWS = 2
# A block of two million rows serves a weight of a millionth.
_SMALLEST = 1e-6
# Of the permutation: rounds of its Feistel network.
_ROUNDS = 6
# Odd multipliers of SplitMix64's finaliser (Steele et al. 2014).
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Interleave:
    """An endless sequence of source indices with given weights, by position."""

    def __init__(self, weights: Sequence[float], seed: Sequence[int]) -> None:
        """Takes one weight for each source, not all zero; `seed` is any sequence of integers.

        Raises:
            ValueError: a negative weight, none above zero, or one of less than a millionth.
        """
        values = np.asarray(weights, np.float64)
        if values.min(initial=0.0) < 0 or not values.sum() > 0:
            raise ValueError(f"weights {list(weights)} must be zero or more, and not all zero")
        shares = values / values.sum()
        smallest = shares[shares > 0].min()
        if smallest < _SMALLEST:
            raise ValueError(f"weight {smallest:.2g} is too small to mix by row: write 0")
        small = _small(shares)
        nested = bool(small.any())
        self._seed = tuple(seed)
        self._size = len(values)
        self._small = np.flatnonzero(small) if nested else np.zeros(0, np.int64)
        # An entry of a block is a source, or (the last number) one of the small ones.
        entries = np.where(small, 0.0, shares) if nested else shares
        entries = np.append(entries, shares[small].sum() if nested else 0.0)
        self._turns = Interleave(shares[small], (*self._seed, _BLOCK)) if nested else None
        cumulative = np.cumsum(entries)
        # Entries after the last one that has a weight get nothing.
        self._bounds = [0, *(min(_ONE, round(share * _ONE)) for share in cumulative[:-1]), _ONE]
        last = int(np.flatnonzero(entries)[-1])
        self._bounds[last + 1 :] = [_ONE] * (len(entries) - last)
        self.block = _BLOCK
        while self.block * entries[entries > 0].min() < _ROWS:
            self.block *= 2
        self._cached_block = functools.lru_cache(maxsize=4)(self._make_block)

    def counts(self, rows: int) -> np.ndarray:
        """How many of the first `rows` rows come from each source, int64 [sources]."""
        blocks, rest = divmod(rows, self.block)
        counted = self._whole(blocks * self.block)
        if rest:
            first, _ = self._cached_block(blocks)
            counted = counted + np.bincount(first[:rest], minlength=len(counted))
        counts = counted[: self._size]
        if self._turns:
            counts[self._small] += self._turns.counts(int(counted[-1]))
        return counts

    def locate(self, row: int) -> tuple[int, int]:
        """Source of a row, and how many earlier rows came from the same source."""
        block, index = divmod(row, self.block)
        entries, ranks = self._cached_block(block)
        entry, rank = int(entries[index]), int(ranks[index])
        if entry < self._size:
            return entry, rank
        turn, rank = self._turns.locate(rank)
        return int(self._small[turn]), rank

    def _whole(self, rows: int) -> np.ndarray:
        floors = [rows * bound // _ONE for bound in self._bounds]
        return np.diff(np.array(floors, np.int64))

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        before = self._whole(block * self.block)
        counts = self._whole((block + 1) * self.block) - before
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self._seed, block])))
        entries = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        ranks = np.empty_like(entries)
        for entry in np.flatnonzero(counts):
            mine = entries == entry
            ranks[mine] = before[entry] + np.arange(counts[entry])
        return entries, ranks


def _small(shares: np.ndarray) -> np.ndarray:
    """Which sources share an entry of the block: bool [sources].

    They are the sources that are too small for an entry of their own, and as many of the next ones
    as make the shared entry large enough. None if that is one source alone, or all.
    """
    order = np.argsort(shares, kind="stable")
    order = order[shares[order] > 0]
    too_small = int((shares * _BLOCK < _ROWS)[order].sum())
    enough = int((np.cumsum(shares[order]) * _BLOCK < _ROWS).sum()) + 1
    members = order[: max(too_small, enough)] if too_small else order[:0]
    small = np.zeros(len(shares), bool)
    if 1 < len(members) < len(order):
        small[members] = True
    return small


class Permutation:
    """A bijection of range(size) that takes no memory, whatever the size.

    It is a Feistel network on the next power of four, walked until the value falls in the range.
    """

    def __init__(self, size: int, seed: Sequence[int]) -> None:
        """Takes the number of entries and any sequence of integers."""
        self.size = size
        self._bits = np.uint64(max(1, -(-max(size - 1, 1).bit_length() // 2)))
        self._mask = (np.uint64(1) << self._bits) - np.uint64(1)
        self._keys = np.random.SeedSequence([*seed]).generate_state(_ROUNDS, np.uint64)

    def __call__(self, entries: np.ndarray) -> np.ndarray:
        """Where entries (integers below size, any shape) go, int64."""
        values = np.array(entries, np.uint64)
        left = np.ones(values.shape, bool)
        while left.any():
            values[left] = self._once(values[left])
            left = values >= self.size
        return values.astype(np.int64)

    def _once(self, values: np.ndarray) -> np.ndarray:
        high, low = values >> self._bits, values & self._mask
        for key in self._keys:
            high, low = low, high ^ (_mix(low + key) & self._mask)
        return (high << self._bits) | low


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
