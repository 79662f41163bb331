"""Packing documents into rows (sequences of a batch), from their numbers of targets alone.

A text of n ids has n + 1 targets (examples.py says why). Examples longer than a row are cut, and so
are a few that would leave a row emptier than SLACK; every target stands in exactly one row.
Conversations are never cut in two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from marco_jax.data.examples import Segment

# Pieces that are packed together, about: enough choice for rows to close full, little enough to be
# packed again in milliseconds whenever one of their rows is read.
WINDOW = 4096
# A row may stay empty by this share of it. Emptier ones are filled up with the front of another
# document, which is cut for it: documents of about two thirds of a row would leave a third of every
# row empty. A cut leaves no shorter end over.
SLACK = 1 / 64
# Changes when the same documents make other rows.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class PackingPlan:
    """Which pieces of which documents make up each row.

    starts: int64 [rows + 1], where each row's pieces begin. document, offset, size: int64 [pieces],
    a piece holds the targets offset..offset + size of its document.
    """

    starts: np.ndarray
    document: np.ndarray
    offset: np.ndarray
    size: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def targets(self) -> int:
        """Target tokens of all rows."""
        return int(self.size.sum())


def window_documents(documents: int, targets: int, length: int) -> int:
    """Documents of a window, so that it has about WINDOW pieces.

    Args:
        documents: how many there are in all.
        targets: their target tokens, in all.
        length: targets that a row holds.
    """
    pieces = max(1.0, targets / max(documents, 1) / length)
    return max(1, min(documents, int(WINDOW / pieces)))


def pack(
    documents: np.ndarray,
    targets: np.ndarray,
    length: int,
    *,
    most: int | None = None,
    cut: bool = True,
) -> PackingPlan:
    """Packs a window of documents into rows, best fit decreasing.

    Args:
        documents: int [documents], their numbers.
        targets: int [documents], how many each has, at least 1.
        length: targets that a row holds.
        most: pieces that a row may hold; None: any number.
        cut: whether documents that would fit may be cut, so that rows close full.
    """
    document, offset, size = _cut(documents, np.asarray(targets, np.int64), length)
    whole = np.flatnonzero(size == length)
    part = np.flatnonzero(size < length)
    part_sizes = size[part].tolist()
    fitted = _best_fit(size[part], length, most)
    rows = [[(p, 0, part_sizes[p]) for p in row] for row in fitted]
    if cut:
        rows = _fill_up(rows, length)
    counts = np.array([1] * len(whole) + [len(row) for row in rows], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3)
    index = np.concatenate([whole, part[pieces[:, 0]]])
    skipped = np.concatenate([np.zeros_like(whole), pieces[:, 1]])
    taken = np.concatenate([size[whole], pieces[:, 2]])
    return PackingPlan(starts, document[index], offset[index] + skipped, taken)


def fill_row(out: Mapping[str, np.ndarray], segments: Iterable[Segment]) -> None:
    """Writes segments into a row: arrays of zeros, [length] each.

    Args:
        out: tokens, targets, positions, segment_ids (from 1), loss_weights; and where there is such
            an array, reference: that of a segment goes to its first position.
        segments: of the row, in order.
    """
    start = 0
    for number, segment in enumerate(segments, start=1):
        size = len(segment.ids) - 1
        part = slice(start, start + size)
        out["tokens"][part], out["targets"][part] = segment.ids[:-1], segment.ids[1:]
        out["positions"][part] = np.arange(size)
        out["segment_ids"][part] = number
        out["loss_weights"][part] = segment.loss_mask
        if "reference" in out:
            out["reference"][start] = segment.reference
        start += size


def _cut(
    documents: np.ndarray, targets: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents as pieces of at most `length` targets: document, offset, size."""
    counts = -(-targets // length)
    document = np.repeat(documents, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    offset = (np.arange(len(document)) - first) * length
    size = np.minimum(length, np.repeat(targets, counts) - offset)
    return document, offset, size


def _best_fit(sizes: np.ndarray, length: int, most: int | None) -> list[list[int]]:
    """Rows of piece indices: the largest piece first, each into the fullest row that takes it."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # by free space
    free = 0  # bit s is set where a row with s free positions is open
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[piece])
        fitting = free >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            row = open_rows[space].pop()
            if not open_rows[space]:
                free ^= 1 << space
        else:
            space, row = length, len(rows)
            rows.append([])
        rows[row].append(piece)
        if most is not None and len(rows[row]) >= most:
            continue
        open_rows[space - size].append(row)
        free |= 1 << (space - size)
    return rows


def _fill_up(
    rows: list[list[tuple[int, int, int]]], length: int
) -> list[list[tuple[int, int, int]]]:
    """Rows of (piece, start in it, size), of which at most one is emptier than SLACK.

    The fullest of those that are takes from the emptiest, whose pieces are cut where they must be.
    """
    slack = int(length * SLACK)
    space = {number: length - sum(size for *_, size in row) for number, row in enumerate(rows)}
    loose = sorted((number for number in space if space[number] > slack), key=space.__getitem__)
    while len(loose) > 1:
        taker, giver = loose[0], loose[-1]
        # The largest piece: what is left of it is still a piece of text.
        rows[giver].sort(key=lambda part: part[2])
        piece, start, size = rows[giver].pop()
        taken = min(size, space[taker])
        if 0 < size - taken < slack:
            taken = size - slack
        rows[taker].append((piece, start, taken))
        space[taker] -= taken
        space[giver] += taken
        if taken < size:
            rows[giver].append((piece, start + taken, size - taken))
        if space[taker] <= slack:
            loose.pop(0)
        if not rows[giver]:
            loose.pop()
    return [row for row in rows if row]
