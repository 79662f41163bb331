"""Lines that pages of many kinds share: menus, notices, calls to subscribe.

A line is boilerplate when it is short and stands in several documents that say different things.
Copies of one document count once: documents whose longest line is the same are the same here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np

from marco_jax.curation.duplicates import number_of

# A longer line is text, however often it was copied.
LONGEST = 120
# Tables of lines are joined a part at a time, so that memory does not grow with the input.
PARTS = 16


def line_keys(text: str) -> np.ndarray:
    """uint64 [lines, 2]: a short line's hash, and that of the document's longest line."""
    lines = {line.strip() for line in text.split("\n")} - {""}
    if not lines:
        return np.zeros((0, 2), np.uint64)
    longest = number_of(max(lines, key=lambda line: (len(line), line)))
    short = [number_of(line) for line in lines if len(line) <= LONGEST]
    return np.array([(key, longest) for key in short], np.uint64).reshape(-1, 2)


def shared_lines(paths: Iterable[pathlib.Path], documents: int, part: int) -> np.ndarray:
    """Sorted hashes of the lines of one part that stand in so many documents.

    Args:
        paths: tables of `line_keys`.
        documents: how many different documents make a line boilerplate.
        part: 0 to PARTS - 1.
    """
    mine = [np.zeros((0, 2), np.uint64)]
    for path in paths:
        table = np.load(path, mmap_mode="r")
        mine.append(table[table[:, 0] % np.uint64(PARTS) == part])
    pairs = np.concatenate(mine)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    keys, counts = np.unique(pairs[fresh, 0], return_counts=True)
    return keys[counts >= documents]


def without_lines(text: str, shared: frozenset[int]) -> str:
    """The text without lines that are boilerplate; all of it where nothing is."""
    if not shared:
        return text
    lines = text.split("\n")
    kept = [
        line
        for line in lines
        if len(line.strip()) > LONGEST or not line.strip() or number_of(line.strip()) not in shared
    ]
    return text if len(kept) == len(lines) else "\n".join(kept).strip()
