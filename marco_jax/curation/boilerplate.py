"""Finds and removes boilerplate lines, such as menus, notices and calls to subscribe.

A line is boilerplate if it is short and occurs in several different documents. Documents with the
same longest line count as duplicates, and once.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np

from marco_jax.curation.duplicates import hash64

# Characters; a longer line is text, however often it occurs.
LONGEST = 120
# Hashes of lines are counted in so many parts, which bounds memory.
PARTS = 16


def line_keys(text: str) -> np.ndarray:
    """uint64 [lines, 2]: the hash of each short line, and of the document's longest line."""
    lines = {line.strip() for line in text.split("\n")} - {""}
    if not lines:
        return np.zeros((0, 2), np.uint64)
    longest = hash64(max(lines, key=lambda line: (len(line), line)))
    short = [hash64(line) for line in lines if len(line) <= LONGEST]
    return np.array([(key, longest) for key in short], np.uint64).reshape(-1, 2)


def shared_lines(paths: Iterable[pathlib.Path], documents: int, part: int) -> np.ndarray:
    """Sorted hashes of the lines of one part that occur in at least `documents` documents.

    Args:
        paths: tables of `line_keys`.
        documents: number of different documents that makes a line boilerplate.
        part: 0 to PARTS - 1; a line belongs to the part of its hash modulo PARTS.
    """
    tables = [np.zeros((0, 2), np.uint64)]
    for path in paths:
        table = np.load(path, mmap_mode="r")
        tables.append(table[table[:, 0] % np.uint64(PARTS) == part])
    pairs = np.concatenate(tables)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    keys, counts = np.unique(pairs[fresh, 0], return_counts=True)
    return keys[counts >= documents]


def without_lines(text: str, shared: frozenset[int]) -> str:
    """Removes the lines of a text whose hash is in `shared`."""
    if not shared:
        return text
    lines = text.split("\n")
    kept = [
        line
        for line in lines
        if len(line.strip()) > LONGEST or not line.strip() or hash64(line.strip()) not in shared
    ]
    return text if len(kept) == len(lines) else "\n".join(kept).strip()
