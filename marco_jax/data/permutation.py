"""A seeded shuffle of any size of which any entry is known at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDS = 6
# Odd multipliers of SplitMix64's finaliser (Steele et al. 2014).
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


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
