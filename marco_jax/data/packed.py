"""One source as an endless sequence of packed rows, any of which can be asked for at once.

Documents are shuffled by a permutation that takes no memory, and packed window by window. Only the
number of rows of each window is kept: to read a row, its window is packed again.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from marco_jax.data.checksums import read_checked, write_checked
from marco_jax.data.order import Permutation
from marco_jax.data.packing import (
    VERSION,
    PackingPlan,
    Segment,
    create_examples,
    fill_row,
    pack,
    window_documents,
)
from marco_jax.data.store import PREFERENCES, TokenStore
from marco_jax.data.streamed import StreamedSource

_log = logging.getLogger(__name__)

# Windows that are kept packed: rows are read window after window.
_KEPT_WINDOWS = 3


class PackedSource:
    """The packed rows of one source, in another order every epoch."""

    def __init__(
        self,
        name: str,
        store: TokenStore,
        length: int,
        seed: int,
        eos_id: int,
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
            eos_id: stands between texts.
            reference: log-probabilities of preferences under the reference model.
            most: examples that a row may hold; None: any number.

        Raises:
            ValueError: a store without documents, or none that fits into a row.
        """
        if not len(store.lengths):
            raise ValueError(f"the source {name!r} has no documents: leave it out")
        self.name, self.store, self.length = name, store, length
        # How many examples a row may hold changes the rows too.
        self.fingerprint = store.fingerprint if most is None else f"{store.fingerprint}-{most}"
        self._seed, self._most = (seed, zlib.crc32(name.encode())), most
        self._examples = create_examples(store, eos_id, reference)
        # What losses are summed by: the source, or its languages.
        self.labels = tuple(f"{name}/{code or 'other'}" for code in store.languages) or (name,)
        self._window_size = window_documents(self._examples.count, self._examples.targets, length)
        self._shuffle = Permutation(self._examples.count, (*self._seed, 0))
        self._windows = functools.lru_cache(maxsize=_KEPT_WINDOWS)(self._make_window)
        self._orders = functools.lru_cache(maxsize=_KEPT_WINDOWS)(self._make_order)
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)
        self._rows_of_window, positions, targets = self._count().T
        self.rows = int(self._rows_of_window.sum())
        # Of an epoch: positions that hold a token, and targets that are trained on.
        self._positions, self.targets = int(positions.sum()), int(targets.sum())
        if not self.rows:
            raise ValueError(
                f"the source {name!r} has nothing that fits into rows of {length} tokens: "
                "raise batch.length"
            )

    @property
    def targets_per_row(self) -> float:
        """Mean number of targets of a row that are trained on."""
        return self.targets / self.rows

    def fill(self, index: int, out: Mapping[str, np.ndarray]) -> None:
        """Writes the index-th row of the source's endless sequence into arrays of zeros.

        `source_ids` holds the id of the first of `labels`: the index of an example's own is added.
        """
        plan, row = self._locate(index)
        segments: list[Segment] = []
        start = 0
        for piece in range(plan.starts[row], plan.starts[row + 1]):
            number, size = int(plan.document[piece]), int(plan.size[piece])
            segments += self._examples.segments(number, int(plan.offset[piece]), size)
            out["source_ids"][start : start + size] += self._examples.language(number)
            start += size
        fill_row(out, segments)

    def documents(self, index: int) -> list[int]:
        """Numbers of the documents, or pairs, that the index-th row holds pieces of."""
        plan, row = self._locate(index)
        return plan.document[plan.starts[row] : plan.starts[row + 1]].tolist()

    def describe(self) -> dict[str, Any]:
        """Its size, for mixture.json."""
        padding = 1 - self._positions / (self.rows * self.length)
        errors = self.store.manifest["errors"]
        return {
            "documents": len(self.store.lengths),
            "tokens": self.targets,
            "rows": self.rows,
            "padding": round(padding, 4),
            **self._examples.left_out(self.length),
            **({"errors": errors} if errors else {}),
        }

    def _locate(self, index: int) -> tuple[PackingPlan, int]:
        """The window that a row is in, and its index there."""
        epoch, row = divmod(index, self.rows)
        windows, ends = self._epoch(epoch)
        number = int(np.searchsorted(ends, row, side="right"))
        window = int(windows[number])
        row -= int(ends[number - 1]) if number else 0
        return self._windows(window), int(self._orders(epoch, window)[row])

    def _make_window(self, window: int) -> PackingPlan:
        numbers = self._numbers(window)
        sizes = self._examples.sizes(numbers, self.length)
        there = sizes > 0
        cut = self._examples.may_be_cut
        return pack(numbers[there], sizes[there], self.length, most=self._most, cut=cut)

    def _numbers(self, window: int) -> np.ndarray:
        """The examples of a window."""
        first = window * self._window_size
        last = min(first + self._window_size, self._examples.count)
        return self._shuffle(np.arange(first, last))

    def _make_order(self, epoch: int, window: int) -> np.ndarray:
        """The rows of a window in an epoch's order."""
        return self._rng(1, epoch, window).permutation(self._rows_of_window[window])

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows in an epoch's order, and the rows up to the end of each."""
        windows = self._rng(2, epoch).permutation(len(self._rows_of_window))
        return windows, np.cumsum(self._rows_of_window[windows])

    def _count(self) -> np.ndarray:
        """Rows, positions and trained targets of each window, int64 [windows, 3].

        They are counted once, and kept beside the store.
        """
        most = () if self._most is None else (self._most,)
        key = "-".join(map(str, (VERSION, self.length, *self._seed, self._window_size, *most)))
        path = self.store.directory / f"rows-{key}.json"
        windows = -(-self._examples.count // self._window_size)
        try:
            kept = read_checked(path)
            if kept["fingerprint"] == self.fingerprint and len(kept["counts"]) == windows:
                return np.array(kept["counts"], np.int64)
        except ValueError:
            if path.exists():
                _log.warning(f"{path} is damaged: the rows are counted again")
        counts = np.array([self._count_window(window) for window in range(windows)], np.int64)
        # A store that cannot be written to is counted again each time.
        with contextlib.suppress(OSError):
            write_checked(path, {"fingerprint": self.fingerprint, "counts": counts.tolist()})
        return counts

    def _count_window(self, window: int) -> tuple[int, int, int]:
        plan = self._make_window(window)
        numbers = self._numbers(window)
        return plan.rows, plan.targets, self._examples.trained(numbers, self.length)

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([*self._seed, *stream]))


# A source whose rows can be read in any order, or only one after the other.
Rows = PackedSource | StreamedSource


def pack_sources(
    sources: Mapping[str, TokenStore | StreamedSource],
    *,
    length: int,
    seed: int,
    eos_id: int,
    references: Mapping[str, np.ndarray] | None = None,
    pairs_per_row: int = 1,
) -> dict[str, Rows]:
    """The packed rows of sources, by name.

    Args:
        sources: by name.
        length: target tokens of a row.
        seed: of the order.
        eos_id: stands between texts.
        references: of preferences, log-probabilities of each document under the reference model.
        pairs_per_row: how many preferences a row may hold.

    Raises:
        ValueError: a source of which nothing can be trained on.
    """
    return {
        name: source
        if isinstance(source, StreamedSource)
        else PackedSource(
            name,
            source,
            length,
            seed,
            eos_id,
            reference=(references or {}).get(name),
            most=pairs_per_row if source.kind == PREFERENCES else None,
        )
        for name, source in sources.items()
    }
