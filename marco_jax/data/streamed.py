"""A source that is tokenised as it is read: nothing to prepare, and only the next rows in memory.

Documents come in the order of the files, a window at a time; a window is shuffled and packed like
those of a prepared source. A checkpoint keeps where the window begins: a restart skips the records
before it without tokenising them, and reads the same rows from there. Every
host reads all windows and fills its own rows.
"""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from marco_jax.data.packing import PackingPlan, Segment, fill_row, pack
from marco_jax.tokenizers.tokenizer import Tokenizer

# Documents that are shuffled and packed together.
STREAM_WINDOW = 1024
# Windows that are remembered: batches are made ahead of the step that is saved.
_KEPT_WINDOWS = 4096
# How full rows are, about: it turns shares of tokens into shares of rows.
_FULL = 0.98


class Window(NamedTuple):
    """Where a window begins: its number, its first row, and the epoch and record it starts at."""

    number: int
    row: int
    epoch: int
    record: int


class StreamedSource:
    """The rows of one source, which can only be read in order."""

    def __init__(
        self,
        name: str,
        texts: Callable[[], Iterator[str]],
        tokenizer: Tokenizer,
        fingerprint: str,
        length: int,
        seed: int,
    ) -> None:
        """Opens nothing.

        Args:
            name: the source's.
            texts: gives its training texts from the first on, as often as asked.
            tokenizer: of the model.
            fingerprint: of the source.
            length: target tokens that a row holds.
            seed: of the order within a window.
        """
        self.name, self.length = name, length
        self.labels = (name,)
        self.fingerprint = fingerprint
        self.targets_per_row = _FULL * length
        self.rows: int | None = None  # of an epoch: not known
        self._texts, self._tokenizer = texts, tokenizer
        self._seed = (seed, zlib.crc32(name.encode()))
        self._begin(Window(0, 0, 0, 0))

    def seek(self, window: Mapping[str, int]) -> None:
        """Goes on with a window that `window_at` gave."""
        self._begin(Window(**window))

    def window_at(self, row: int) -> dict[str, int]:
        """The window of a row, or of the row before it: plain data."""
        index = bisect.bisect_right(self._windows, row, key=lambda window: window.row) - 1
        return self._windows[max(index, 0)]._asdict()

    def fill(self, index: int, out: Mapping[str, np.ndarray]) -> None:
        """Writes the index-th row into arrays of zeros.

        Raises:
            IndexError: a row before the window at hand.
            ValueError: the source has no text, or a record that cannot be read.
        """
        row = self._row(index)
        pieces = range(self._plan.starts[row], self._plan.starts[row + 1])
        fill_row(out, (self._segment(piece) for piece in pieces))

    def describe(self) -> dict[str, Any]:
        """Its size, which is unknown before it is read."""
        return dict.fromkeys(("documents", "tokens", "rows", "padding"))

    def documents(self, index: int) -> list[int]:
        """Records, counted from the start of an epoch, that a row of this window has pieces of."""
        row = self._row(index)
        pieces = self._plan.document[self._plan.starts[row] : self._plan.starts[row + 1]]
        return [self._current.record + int(document) for document in pieces]

    def _begin(self, window: Window) -> None:
        self._windows = [window]
        self._next = window
        self._current = window
        self._plan: PackingPlan | None = None
        self._reader: Iterator[str] | None = None

    def _row(self, index: int) -> int:
        """The index of a row in its window, after reading up to it."""
        while self._plan is None or index >= self._current.row + self._plan.rows:
            self._read_window()
        if index < self._current.row:
            raise IndexError(
                f"row {index} of the streamed source {self.name!r} has gone by: "
                f"row {self._current.row} is the first at hand"
            )
        return int(self._order[index - self._current.row])

    def _read_window(self) -> None:
        """Takes the next documents, or the first of the next epoch."""
        start = self._next
        if self._reader is None:
            self._reader = itertools.islice(self._texts(), start.record, None)
        texts = list(itertools.islice(self._reader, STREAM_WINDOW))
        if not texts:
            if start.record == 0:
                raise ValueError(f"the source {self.name!r} has no text: leave it out")
            self._reader = None
            self._next = start._replace(epoch=start.epoch + 1, record=0)
            return
        self._ids = [np.array(ids, np.int32) for ids in self._tokenizer.encode_batch(texts)]
        lengths = np.array([len(ids) for ids in self._ids], np.int64)
        rng = np.random.default_rng(np.random.SeedSequence([*self._seed, start.number]))
        documents = rng.permutation(len(lengths))
        self._plan = pack(documents, lengths[documents] + 1, self.length)
        self._order = rng.permutation(self._plan.rows)
        self._current = start
        if start.row > self._windows[-1].row:
            self._windows.append(start)
            del self._windows[:-_KEPT_WINDOWS]
        self._next = Window(
            start.number + 1,
            start.row + self._plan.rows,
            start.epoch,
            start.record + len(texts),
        )

    def _segment(self, piece: int) -> Segment:
        """Inputs and targets of a piece: size + 1 entries of [EOS] + ids + [EOS]."""
        ids = self._ids[int(self._plan.document[piece])]
        offset, size = int(self._plan.offset[piece]), int(self._plan.size[piece])
        eos = [self._tokenizer.eos_id]
        ids = np.concatenate([eos, ids, eos])[offset : offset + size + 1].astype(np.int32)
        return Segment(ids, np.ones(size, np.float32))
