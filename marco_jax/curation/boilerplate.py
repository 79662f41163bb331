"""Finds and removes boilerplate lines, such as menus, notices and calls to subscribe.

A line is boilerplate if it is short and occurs in several different documents. Documents with the
same longest line count as duplicates, and once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import BundleDoFn, GroupTables, group_starts, read_table
from marco_jax.curation.shingles import hash64
from marco_jax.extras import optional

with optional():
    import apache_beam as beam

# Characters; a longer line is text, however often it occurs.
LONGEST = 120
# A line, and the longest line of a document that has it.
LINE = np.dtype([("line", np.uint64), ("longest", np.uint64)])
# Lines that a worker collects before it passes them on.
_HELD = 1 << 20


class SharedLines(beam.PTransform):
    """Finds lines that occur in many documents: from documents to lists of the lines' hashes."""

    def __init__(self, documents: int, store: BlobStore | None = None, parts: int = 8) -> None:
        """Sets what is boilerplate.

        Args:
            documents: number of different documents that makes a line boilerplate.
            store: where tables are kept between workers; by default in the elements.
            parts: the number of parts of the lines; a worker holds one part.
        """
        super().__init__()
        self._least, self._store, self._parts = documents, store or BlobStore(), parts

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """From documents to lists of int."""
        return (
            documents
            | "lines" >> beam.ParDo(_Lines())
            | "group lines" >> GroupTables(self._store, self._parts)
            | "count lines" >> beam.ParDo(_Counted(self._store, self._least))
        )


class _Lines(BundleDoFn):
    """Collects the lines of a bundle, each with the documents that have it, as tables."""

    def start_bundle(self) -> None:
        self._tables: list[np.ndarray] = []
        self._held = 0

    def process(self, document: RawDocument) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self._tables.append(line_keys(document.text))
        self._held += len(self._tables[-1])
        if self._held > _HELD:
            yield from self._flushed()

    def rest(self) -> Iterator[tuple[str, Any]]:
        for element in self._flushed():
            yield "", element

    def _flushed(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self._tables:
            table = np.unique(np.concatenate(self._tables))
            self._tables, self._held = [], 0
            yield table["line"], table


class _Counted(beam.DoFn):
    def __init__(self, store: BlobStore, least: int) -> None:
        self._store, self._least = store, least

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[list[int]]:
        table = np.unique(read_table(element[1], LINE, self._store))
        starts = group_starts(table["line"])
        common = np.diff(starts) >= self._least
        # Signed, as Beam encodes integers.
        yield table["line"][starts[:-1][common]].view(np.int64).tolist()


def line_keys(text: str) -> np.ndarray:
    """LINE [lines]: the hash of each short line, and of the document's longest line."""
    lines = {line.strip() for line in text.split("\n")} - {""}
    if not lines:
        return np.zeros(0, LINE)
    longest = hash64(max(lines, key=lambda line: (len(line), line)))
    short = [hash64(line) for line in lines if len(line) <= LONGEST]
    return np.array([(key, longest) for key in short], LINE)


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
