"""Counts NaN and infinite values of weights while they are read, and logs a warning of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable

import numpy as np

_log = logging.getLogger(__name__)

# Values that are looked at together: their bits fit a second-level cache.
_BLOCK = 1 << 16
# Tensors that a warning names.
_NAMED = 3


class NonFiniteValues:
    """The number of NaN and infinite values by tensor.

    A value is one of them if all bits of its exponent are set, which needs no conversion and runs
    at the speed of memory, where NumPy's isfinite takes many times as long for 16-bit types.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[Hashable, int]] = {}
        self._dtype = ""

    def count(self, name: str, array: np.ndarray, part: Hashable = None) -> int:
        """Counts a tensor's values, and returns their number.

        Args:
            name: of the tensor.
            array: of a floating-point type, in any memory order.
            part: which part of the tensor `array` is; a part that is counted twice counts once.
        """
        bits = array.ravel(order="K").view(f"u{array.itemsize}")
        exponent = np.asarray(np.inf, array.dtype).view(bits.dtype)
        blocks = (bits[start : start + _BLOCK] for start in range(0, bits.size, _BLOCK))
        number = sum(int(np.count_nonzero((block & exponent) == exponent)) for block in blocks)
        if number:
            self.add(name, number, part)
            self._dtype = f" as {array.dtype.name}"
        return number

    def add(self, name: str, number: int, part: Hashable = None) -> None:
        """Adds what was counted of a tensor before."""
        self._counts.setdefault(name, {})[part] = number

    def warn(self, source: str | os.PathLike) -> None:
        """Logs one warning with the total and the first tensors, if there are such values."""
        totals = {name: sum(parts.values()) for name, parts in self._counts.items()}
        if not totals:
            return
        total = sum(totals.values())
        values = "1 value is" if total == 1 else f"{total:,} values are"
        named = [f"{name}: {number:,}" for name, number in list(totals.items())[:_NAMED]]
        more = [f"{len(totals) - _NAMED} more tensors"] if len(totals) > _NAMED else []
        _log.warning(
            f"{source}: {values} NaN or infinite{self._dtype} "
            f"({', '.join(named + more)}), and the model computes NaN: compare the files with the "
            "published checksums"
        )
