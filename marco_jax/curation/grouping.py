"""Groups documents and tables of numbers by key, many at a time.

A GroupByKey of single numbers costs tens of microseconds an element in Python. So a bundle's rows
are first divided by their key into parts, and each part of a bundle is one blob. GroupByKey brings
together the blobs of a part, and all rows with the same key are among them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from marco_jax.curation.blobs import BlobStore, pack_json_rows
from marco_jax.curation.documents import RawDocument
from marco_jax.extras import optional

with optional():
    import apache_beam as beam
    from apache_beam.transforms.window import GlobalWindows

# Bytes that a bundle holds back before it writes them.
FLUSH_BYTES = 32 << 20
# Bytes of one part, by which the number of parts is chosen.
PART_BYTES = 48 << 20

Parted = tuple[int, bytes]


def parts_for(input_bytes: int) -> int:
    """The number of parts for an input, so that a worker holds a part in memory."""
    return int(min(4096, max(8, -(-input_bytes // PART_BYTES))))


class BundleDoFn(beam.DoFn):
    """A DoFn that holds results back: `rest` yields (output, value) at the end of a bundle."""

    def rest(self) -> Iterator[tuple[str, Any]]:
        """What is left, with the tag of its output ("" for the main one)."""
        raise NotImplementedError

    def finish_bundle(self) -> Iterator[Any]:
        """Yields what was held back."""
        for tag, value in self.rest():
            windowed = GlobalWindows.windowed_value(value)
            yield beam.pvalue.TaggedOutput(tag, windowed) if tag else windowed


class BlobWriter:
    """Collects rows by part, and writes one blob a part when enough are held."""

    def __init__(self, store: BlobStore, parts: int) -> None:
        """Starts empty."""
        self._store, self._parts = store, parts
        self._rows: dict[int, list[Any]] = collections.defaultdict(list)
        self._tables: list[tuple[np.ndarray, np.ndarray]] = []
        self._size = 0

    def add(self, key: int, row: Any, size: int = 100) -> Iterator[Parted]:
        """Adds a JSON-able row of about `size` bytes."""
        self._rows[key % self._parts].append(row)
        self._size += size
        if self._size > FLUSH_BYTES:
            yield from self.flush()

    def add_table(self, keys: np.ndarray, table: np.ndarray) -> Iterator[Parted]:
        """Adds rows of numbers by the key uint64 of each; a writer takes rows or tables."""
        if table.size:
            self._tables.append((keys % np.uint64(self._parts), table))
            self._size += table.nbytes
        if self._size > FLUSH_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[Parted]:
        """Writes what is held; yields the part and handle of each blob."""
        if self._rows:
            parts = sorted(self._rows)
            blobs = (pack_json_rows(self._rows[part]) for part in parts)
            yield from zip(parts, self._store.write(blobs), strict=True)
        if self._tables:
            yield from self._flush_tables()
        self._rows.clear()
        self._tables.clear()
        self._size = 0

    def _flush_tables(self) -> Iterator[Parted]:
        numbers = np.concatenate([part for part, _ in self._tables])
        table = np.concatenate([rows for _, rows in self._tables])
        order = np.argsort(numbers, kind="stable")
        parts, starts = np.unique(numbers[order], return_index=True)
        blobs = (rows.tobytes() for rows in np.split(table[order], starts[1:]))
        yield from zip(parts.tolist(), self._store.write(blobs), strict=True)


class WritingDoFn(BundleDoFn):
    """A DoFn that writes rows by part to `_writer`; the output OUTPUT has (part, handle)."""

    OUTPUT = ""

    def __init__(self, store: BlobStore, parts: int) -> None:
        """Writes to a store, in `parts` parts."""
        super().__init__()
        self._store, self._parts = store, parts

    def start_bundle(self) -> None:
        """Starts with nothing held."""
        self._writer = BlobWriter(self._store, self._parts)

    def rest(self) -> Iterator[tuple[str, Any]]:
        """Writes what is held."""
        for parted in self._writer.flush():
            yield self.OUTPUT, parted


def read_table(handles: Iterable[bytes], dtype: np.dtype, store: BlobStore) -> np.ndarray:
    """The rows of all blobs of a part, in no order that a caller may rely on."""
    tables = [np.frombuffer(store.read(handle), dtype) for handle in handles]
    return np.concatenate([np.zeros(0, dtype), *tables])


def read_rows(handles: Iterable[bytes], store: BlobStore) -> Iterator[Any]:
    """The JSON-able rows of all blobs of a part."""
    for handle in handles:
        yield from store.rows(handle)


def read_documents(handles: Iterable[bytes], store: BlobStore) -> Iterator[tuple[int, RawDocument]]:
    """The documents of all blobs of a part, each with its key."""
    for key, state in read_rows(handles, store):
        yield key, RawDocument(**state)


class GroupTables(beam.PTransform):
    """Groups tables of one dtype by part: from (keys, table) to (part, handles)."""

    def __init__(self, store: BlobStore, parts: int) -> None:
        """Groups into `parts` parts."""
        super().__init__()
        self._store, self._parts = store, parts

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        """From pairs (uint64 [rows], structured array [rows]) to (part, iterable of handles)."""
        return tables | beam.ParDo(_Pack(self._store, self._parts)) | beam.GroupByKey()


class JoinParts(beam.PTransform):
    """Joins collections of (part, handle) or (part, handles) to (part, {name: handles})."""

    def expand(self, collections: dict[str, beam.PCollection]) -> beam.PCollection:
        """From a dict of collections to (part, dict of lists of handles)."""
        named = [
            collection | f"name {name}" >> beam.ParDo(_Named(), name)
            for name, collection in collections.items()
        ]
        return named | beam.Flatten() | beam.GroupByKey() | beam.Map(_by_name)


class _Named(beam.DoFn):
    def process(self, element: tuple[int, Any], name: str) -> Iterator[tuple[int, Any]]:
        part, handles = element
        for handle in [handles] if isinstance(handles, bytes) else handles:
            yield part, (name, handle)


def _by_name(element: tuple[int, Iterable]) -> tuple[int, dict[str, list[bytes]]]:
    found: dict[str, list[bytes]] = {}
    for name, handle in element[1]:
        found.setdefault(name, []).append(handle)
    return element[0], found


class _Pack(WritingDoFn):
    def process(self, element: tuple[np.ndarray, np.ndarray]) -> Iterator[Parted]:
        yield from self._writer.add_table(*element)


class GroupDocuments(beam.PTransform):
    """Groups documents by part of a key, as blobs that `read_documents` reads."""

    def __init__(self, key: Callable[[RawDocument], int], store: BlobStore, parts: int) -> None:
        """Groups by `key`, a picklable function to uint64, into `parts` parts."""
        super().__init__()
        self._settings = key, store, parts

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """From documents to (part, iterable of handles)."""
        return documents | beam.ParDo(PackDocuments(*self._settings)) | beam.GroupByKey()


class PackDocuments(WritingDoFn):
    """Writes documents with their key by part: from documents to (part, handle)."""

    def __init__(self, key: Callable[[RawDocument], int], store: BlobStore, parts: int) -> None:
        """Divides by `key`, a picklable function to uint64, into `parts` parts."""
        super().__init__(store, parts)
        self._key = key

    def process(self, document: RawDocument) -> Iterator[Parted]:
        """Adds a document."""
        key = self._key(document)
        # Documents without a key have no rival, and need not meet in one part.
        part = key or document.origin
        yield from self._writer.add(part, [key, document.to_state()], len(document.text))


def group_starts(values: np.ndarray) -> np.ndarray:
    """Indices where a new value begins in a sorted array, and its length at the end."""
    if not values.size:
        return np.zeros(1, np.int64)
    return np.r_[0, np.flatnonzero(values[1:] != values[:-1]) + 1, values.size]
