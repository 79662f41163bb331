"""Finds and removes boilerplate lines, such as menus, notices and calls to subscribe.

A line is boilerplate if it is short and occurs in several different documents. Documents with the
same longest line count as duplicates, and once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import GroupTables, group_starts, read_table
from marco_jax.curation.shingles import hash64
from marco_jax.extras import optional

with optional():
    import apache_beam as beam

# Characters; a longer line is text, however often it occurs.
LONGEST = 120
# A line, and the longest line of a document that has it.
LINE = np.dtype([("line", np.uint64), ("longest", np.uint64)])


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
            | "lines" >> beam.Map(_lines_of)
            | "group lines" >> GroupTables(self._store, self._parts)
            | "count lines" >> beam.ParDo(_Counted(self._store, self._least))
        )


class _Counted(beam.DoFn):
    def __init__(self, store: BlobStore, least: int) -> None:
        self._store, self._least = store, least

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[list[int]]:
        table = np.unique(read_table(element[1], LINE, self._store))
        starts = group_starts(table["line"])
        common = np.diff(starts) >= self._least
        # Signed, as Beam encodes integers.
        yield table["line"][starts[:-1][common]].view(np.int64).tolist()


def _lines_of(document: RawDocument) -> tuple[np.ndarray, np.ndarray]:
    table = line_keys(document.text)
    return table["line"], table


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
