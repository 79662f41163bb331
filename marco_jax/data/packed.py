"""One source as an endless sequence of packed rows, any of which is known at once.

Documents are shuffled by a permutation that takes no memory and packed window by window. What is
kept is how many rows each window has: a row is found by its window, which is packed again.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from marco_jax.data.order import Permutation
from marco_jax.data.packing import VERSION, PackingPlan, fill_row, pack, window_documents
from marco_jax.data.store import TokenStore
from marco_jax.data.streams import Stream, create_units
from marco_jax.files import new_file

# Windows that are kept packed: rows are read window after window.
_KEPT_WINDOWS = 3


class PackedSource:
    """The rows of one source: packed once, in another order every epoch."""

    def __init__(
        self,
        name: str,
        store: TokenStore,
        length: int,
        seed: int,
        separator: int,
        *,
        reference: np.ndarray | None = None,
        most: int | None = None,
    ) -> None:
        """Counts the rows of each window, once for a store: the counts stay beside it.

        Args:
            name: the source's.
            store: its documents.
            length: target tokens that a row holds.
            seed: of the order.
            separator: id between documents.
            reference: log-probabilities of preferences under the reference model.
            most: units that a row may hold; None: any number.

        Raises:
            ValueError: a store without documents, or none that fits into a row.
        """
        if not len(store.lengths):
            raise ValueError(f"the source {name!r} has no documents: leave it out")
        self.name, self.store, self.length = name, store, length
        self.fingerprint = store.fingerprint
        self._seed, self._most = (seed, zlib.crc32(name.encode())), most
        self._units = create_units(store, separator, reference)
        self.targets = store.targets
        # What losses are told apart by: the source, or its languages.
        self.labels = tuple(f"{name}/{code or 'other'}" for code in store.languages) or (name,)
        self._window_size = window_documents(self._units.count, self._units.places, length)
        self._shuffle = Permutation(self._units.count, (*self._seed, 0))
        self._windows = functools.lru_cache(maxsize=_KEPT_WINDOWS)(self._make_window)
        self._orders = functools.lru_cache(maxsize=_KEPT_WINDOWS)(self._make_order)
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)
        self._rows_of_window = self._count_rows()
        self.rows = int(self._rows_of_window.sum())
        if not self.rows:
            raise ValueError(
                f"the source {name!r} has nothing that fits into rows of {length} tokens: "
                "raise batch.length"
            )

    @property
    def targets_per_row(self) -> float:
        """Mean target tokens of a row that are learnt."""
        return self.targets / self.rows

    def fill(self, index: int, out: Mapping[str, np.ndarray]) -> None:
        """Writes the index-th row of the source's endless sequence into arrays of zeros.

        What is there in `source_ids` goes up by the place of a unit's label in `labels`.
        """
        plan, row = self._locate(index)
        streams: list[Stream] = []
        start = 0
        for piece in range(plan.starts[row], plan.starts[row + 1]):
            unit, size = int(plan.document[piece]), int(plan.size[piece])
            streams += self._units.streams(unit, int(plan.offset[piece]), size)
            out["source_ids"][start : start + size] += self._units.language(unit)
            start += size
        fill_row(out, streams)

    def documents(self, index: int) -> list[int]:
        """Numbers of the units that the index-th row holds pieces of: of documents, or of pairs."""
        plan, row = self._locate(index)
        return plan.document[plan.starts[row] : plan.starts[row + 1]].tolist()

    def describe(self) -> dict[str, Any]:
        """What there is of it."""
        padding = 1 - self._units.places / (self.rows * self.length)
        return {
            "documents": len(self.store.lengths),
            "tokens": self.targets,
            "rows": self.rows,
            # Conversations that are cut count with their whole length: hence the 0.
            "padding": round(max(padding, 0.0), 4),
            **self._units.left_out(self.length),
        }

    def _locate(self, index: int) -> tuple[PackingPlan, int]:
        """The window that a row is in, and its place there."""
        epoch, place = divmod(index, self.rows)
        windows, ends = self._epoch(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        window = int(windows[number])
        place -= int(ends[number - 1]) if number else 0
        return self._windows(window), int(self._orders(epoch, window)[place])

    def _make_window(self, window: int) -> PackingPlan:
        first = window * self._window_size
        last = min(first + self._window_size, self._units.count)
        units = self._shuffle(np.arange(first, last))
        sizes = self._units.sizes(units, self.length)
        there = sizes > 0
        cut = self._units.may_be_cut
        return pack(units[there], sizes[there], self.length, most=self._most, cut=cut)

    def _make_order(self, epoch: int, window: int) -> np.ndarray:
        """The rows of a window in an epoch's order."""
        return self._rng(1, epoch, window).permutation(self._rows_of_window[window])

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows in an epoch's order, and the rows up to the end of each."""
        windows = self._rng(2, epoch).permutation(len(self._rows_of_window))
        return windows, np.cumsum(self._rows_of_window[windows])

    def _count_rows(self) -> np.ndarray:
        """Rows of each window, int64; read from beside the store where they have been counted."""
        most = () if self._most is None else (self._most,)
        key = "-".join(map(str, (VERSION, self.length, *self._seed, self._window_size, *most)))
        path = self.store.directory / f"rows-{key}.npy"
        windows = -(-self._units.count // self._window_size)
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
    with contextlib.suppress(OSError), new_file(path) as file:
        np.save(file, counts)
