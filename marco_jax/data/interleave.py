"""Which source the n-th row comes from: a closed form, so that any row can be asked for at once.

Rows come in blocks. A block holds each source in the proportion of its weight, in a seeded random
order; counts never drift: after any number of whole blocks a source has had its share of the rows
to within one row.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# Cumulative weights are integers out of this: counts are exact at any distance.
_ONE = 1 << 40
# Blocks are held in memory; a block of two million rows serves a source of this weight.
_SMALLEST = 1e-6


class Interleave:
    """An endless sequence of source indices with given weights, by position."""

    def __init__(self, weights: Sequence[float], seed: Sequence[int]) -> None:
        """Takes one weight a source, not all zero; `seed` is any sequence of integers.

        Raises:
            ValueError: a negative weight, none above zero, or one of less than a millionth.
        """
        values = np.asarray(weights, np.float64)
        if values.min(initial=0.0) < 0 or not values.sum() > 0:
            raise ValueError(f"weights {list(weights)} must be zero or more, and not all zero")
        cumulative = np.cumsum(values / values.sum())
        # Sources after the last one with a weight end at one as well: they get nothing.
        self._bounds = [0, *(min(_ONE, round(share * _ONE)) for share in cumulative[:-1]), _ONE]
        last = int(np.flatnonzero(values)[-1])
        self._bounds[last + 1 :] = [_ONE] * (len(values) - last)
        smallest = (values[values > 0] / values.sum()).min()
        if smallest < _SMALLEST:
            raise ValueError(f"weight {smallest:.2g} is too small to mix by row: write 0")
        # With two rows or more a block for every source no count can turn negative by rounding.
        self.block = 64
        while self.block * smallest < 2:
            self.block *= 2
        self._seed = tuple(seed)
        self._cached_block = functools.lru_cache(maxsize=4)(self._make_block)

    def counts(self, rows: int) -> np.ndarray:
        """How many of the first `rows` rows come from each source, int64 [sources]."""
        blocks, rest = divmod(rows, self.block)
        counts = self._whole(blocks * self.block)
        if rest:
            sources, _ = self._cached_block(blocks)
            counts = counts + np.bincount(sources[:rest], minlength=len(counts))
        return counts

    def locate(self, row: int) -> tuple[int, int]:
        """Source of a row, and how many earlier rows came from the same source."""
        block, place = divmod(row, self.block)
        sources, ranks = self._cached_block(block)
        return int(sources[place]), int(ranks[place])

    def _whole(self, rows: int) -> np.ndarray:
        floors = [rows * bound // _ONE for bound in self._bounds]
        return np.diff(np.array(floors, np.int64))

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        before = self._whole(block * self.block)
        counts = self._whole((block + 1) * self.block) - before
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self._seed, block])))
        sources = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        ranks = np.empty_like(sources)
        for source in np.flatnonzero(counts):
            mine = sources == source
            ranks[mine] = before[source] + np.arange(counts[source])
        return sources, ranks
