"""Packing documents into rows, from their lengths alone.

A document's stream is [separator] + ids + [separator]: the first predicts the document's first
token, the last is learnt as its end. Inputs are stream[:-1], targets stream[1:], so a document of n
ids has n + 1 targets. Streams longer than a row are cut; every target stands in exactly one row.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Pieces that are packed together: enough choice for rows to close full, little enough to stay
# cheap and to keep neighbours in the shuffled order near each other.
WINDOW = 4096


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


def plan_rows(lengths: np.ndarray, length: int, rng: np.random.Generator) -> PackingPlan:
    """Shuffles documents and packs them into rows, best fit decreasing within a window.

    Args:
        lengths: int [documents], ids of each document.
        length: targets that a row holds.
        rng: of the shuffle.
    """
    pieces = _cut(rng.permutation(len(lengths)), np.asarray(lengths, np.int64) + 1, length)
    order, counts = [], []
    for start in range(0, len(pieces[0]), WINDOW):
        for row in _best_fit(pieces[2][start : start + WINDOW], length):
            order.extend(start + piece for piece in row)
            counts.append(len(row))
    order = np.array(order, np.int64)
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    return PackingPlan(starts, *(array[order] for array in pieces))


def _cut(
    order: np.ndarray, targets: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents in `order` as pieces of at most `length` targets: document, offset, size."""
    targets = targets[order]
    counts = -(-targets // length)
    document = np.repeat(order, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    offset = (np.arange(len(document)) - first) * length
    size = np.minimum(length, np.repeat(targets, counts) - offset)
    return document, offset, size


def _best_fit(sizes: np.ndarray, length: int) -> list[list[int]]:
    """Rows of piece indices: the largest piece first, each into the fullest row that takes it."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # by free space
    free = 0  # bit s is set where a row with s free places is open
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
        open_rows[space - size].append(row)
        free |= 1 << (space - size)
    return rows
