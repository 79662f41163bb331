"""One source as an endless sequence of packed rows, any of which is known at once.

Documents are shuffled by a permutation that takes no memory and packed window by window. What is
kept is how many rows each window has: a row is found by its window, which is packed again.
"""

from __future__ import annotations

import functools
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from marco_jax.data.packing import VERSION, PackingPlan, fill_row, pack, window_documents
from marco_jax.data.permutation import Permutation
from marco_jax.data.store import TokenStore

# Windows that are kept packed: rows are read window after window.
_KEPT_WINDOWS = 3


class PackedSource:
    """The rows of one source: packed once, in another order every epoch."""

    def __init__(
        self, name: str, store: TokenStore, length: int, seed: int, separator: int
    ) -> None:
        """Counts the rows of each window, once for a store: the counts stay beside it.

        Args:
            name: the source's.
            store: its documents.
            length: target tokens that a row holds.
            seed: of the order.
            separator: id between documents.

        Raises:
            ValueError: a store without documents.
        """
        if not len(store.lengths):
            raise ValueError(f"the source {name!r} has no documents: leave it out")
        self.name, self.store, self.length = name, store, length
        self.fingerprint = store.fingerprint
        self._seed, self._separator = (seed, zlib.crc32(name.encode())), separator
        documents = len(store.lengths)
        self.targets = store.tokens + documents
        self._window_size = window_documents(documents, self.targets, length)
        self._shuffle = Permutation(documents, (*self._seed, 0))
        self._windows = functools.lru_cache(maxsize=_KEPT_WINDOWS)(self._make_window)
        self._orders = functools.lru_cache(maxsize=_KEPT_WINDOWS)(self._make_order)
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)
        self._rows_of_window = self._count_rows()
        self.rows = int(self._rows_of_window.sum())

    @property
    def targets_per_row(self) -> float:
        """Mean target tokens of a row; the rest is padding."""
        return self.targets / self.rows

    def fill(self, index: int, out: Mapping[str, np.ndarray]) -> None:
        """Writes the index-th row of the source's endless sequence into arrays of zeros."""
        plan, row = self._locate(index)
        pieces = range(plan.starts[row], plan.starts[row + 1])
        fill_row(out, (self._stream(plan, piece) for piece in pieces))

    def documents(self, index: int) -> list[int]:
        """Numbers, in the store, of the documents that the index-th row holds pieces of."""
        plan, row = self._locate(index)
        return plan.document[plan.starts[row] : plan.starts[row + 1]].tolist()

    def describe(self) -> dict[str, Any]:
        """What there is of it."""
        return {
            "documents": len(self.store.lengths),
            "tokens": self.targets,
            "rows": self.rows,
            "padding": round(1 - self.targets_per_row / self.length, 4),
        }

    def _locate(self, index: int) -> tuple[PackingPlan, int]:
        """The window that a row is in, and its place there."""
        epoch, place = divmod(index, self.rows)
        windows, ends = self._epoch(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        window = int(windows[number])
        place -= int(ends[number - 1]) if number else 0
        return self._windows(window), int(self._orders(epoch, window)[place])

    def _stream(self, plan: PackingPlan, piece: int) -> np.ndarray:
        """Inputs and targets of a piece: size + 1 entries of [separator] + ids + [separator]."""
        document = int(plan.document[piece])
        offset, size = int(plan.offset[piece]), int(plan.size[piece])
        length = int(self.store.lengths[document])
        ids = self.store.read(document, max(0, offset - 1), min(length, offset + size))
        before = [self._separator] if offset == 0 else []
        after = [self._separator] if offset + size > length else []
        return np.concatenate([before, ids, after]).astype(np.int32)

    def _make_window(self, window: int) -> PackingPlan:
        first = window * self._window_size
        last = min(first + self._window_size, len(self.store.lengths))
        documents = self._shuffle(np.arange(first, last))
        return pack(documents, self.store.lengths[documents], self.length)

    def _make_order(self, epoch: int, window: int) -> np.ndarray:
        """The rows of a window in an epoch's order."""
        return self._rng(1, epoch, window).permutation(self._rows_of_window[window])

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows in an epoch's order, and the rows up to the end of each."""
        windows = self._rng(2, epoch).permutation(len(self._rows_of_window))
        return windows, np.cumsum(self._rows_of_window[windows])

    def _count_rows(self) -> np.ndarray:
        """Rows of each window, int64; read from beside the store where they have been counted."""
        key = "-".join(map(str, (VERSION, self.length, *self._seed, self._window_size)))
        path = self.store.directory / f"rows-{key}.npy"
        windows = -(-len(self.store.lengths) // self._window_size)
        if path.exists():
            try:
                counts = np.load(path)
            except (OSError, ValueError, EOFError):
                counts = np.zeros(0)
            if counts.shape == (windows,) and counts.dtype == np.int64:
                return counts
        counts = np.array([self._make_window(window).rows for window in range(windows)], np.int64)
        _save(path, counts)
        return counts

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([*self._seed, *stream]))


def _save(path: pathlib.Path, counts: np.ndarray) -> None:
    """Writes in one piece; a store that may not be written to is counted anew each time."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.save(file, counts)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
