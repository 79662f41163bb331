"""Transforms that compare all documents of a key: exact copies, caps of hosts, copied sentences."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import GroupDocuments, read_documents
from marco_jax.curation.shingles import folded, hash64
from marco_jax.curation.stages import KEPT, REJECTED, outcome_of
from marco_jax.extras import optional

with optional():
    import apache_beam as beam

# Sorts the documents of a key, the best first, whatever the order of the input.
Rank = tuple[float, int, int]


class KeepBest(beam.PTransform):
    """Keeps the best documents of each key; see `ExactDuplicates` for an example.

    The outputs are `kept` and `rejected`. A document whose key is 0 has no rival.
    """

    def __init__(
        self,
        key: Callable[[RawDocument], int],
        rank: Callable[[RawDocument], Rank],
        reject: Callable[[RawDocument, str], RawDocument],
        *,
        most: int = 1,
        counted: bool = False,
        store: BlobStore | None = None,
        parts: int = 8,
    ) -> None:
        """Sets up the comparison; the functions must be picklable.

        Args:
            key: uint64 of a document; those with the same are compared.
            rank: sorts them, the best first.
            reject: marks a document as rejected, given the id of the best one.
            most: documents to keep for each key.
            counted: whether `cluster` of the best becomes the sum of all.
            store: where texts are kept between workers.
            parts: the number of parts of the keys; a worker holds the keys of one part.
        """
        super().__init__()
        self._key, self._store, self._parts = key, store or BlobStore(), parts
        self._settings = rank, reject, most, counted

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        grouped = documents | GroupDocuments(self._key, self._store, self._parts)
        function = _KeepBest(self._store, *self._settings)
        return grouped | beam.ParDo(function).with_outputs(REJECTED, main=KEPT)


@dataclasses.dataclass
class _Rivals:
    """The documents of one key: the best ones, their number, and the sum of their `cluster`."""

    best: list[tuple[Rank, str]]
    number: int = 0
    size: int = 0


class _KeepBest(beam.DoFn):
    """Reads a part twice: for the best of each key, and for the documents."""

    def __init__(
        self,
        store: BlobStore,
        rank: Callable[[RawDocument], Rank],
        reject: Callable[[RawDocument, str], RawDocument],
        most: int,
        counted: bool,
    ) -> None:
        self._store, self._rank, self._reject = store, rank, reject
        self._most, self._counted = most, counted

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[RawDocument]:
        handles = list(element[1])
        rivals: dict[int, _Rivals] = {}
        for key, document in read_documents(handles, self._store):
            if key:
                found = rivals.setdefault(key, _Rivals([]))
                bisect.insort(found.best, (self._rank(document), document.id))
                del found.best[self._most :]
                found.number += 1
                found.size += document.cluster
        for key, document in read_documents(handles, self._store):
            if not key or rivals[key].number <= self._most:
                yield document
                continue
            found = rivals[key]
            if self._rank(document) > found.best[-1][0]:
                yield outcome_of(self._reject(document, found.best[0][1]))
            elif self._counted:
                yield dataclasses.replace(document, cluster=found.size)
            else:
                yield document


class ExactDuplicates(beam.PTransform):
    """Keeps one of the documents that differ in case, punctuation and white space alone.

    The longest text is kept, whatever the order of the input, and `cluster` becomes the number of
    copies with itself.
    """

    def __init__(self, store: BlobStore | None = None, parts: int = 8) -> None:
        """Sets up the comparison.

        Args:
            store: where texts are kept between workers; by default in the elements.
            parts: the number of parts of the documents; a worker holds the keys of one part.
        """
        super().__init__()
        self._store, self._parts = store, parts

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        return documents | KeepBest(
            digest_of, _longest, _exact_copy, counted=True, store=self._store, parts=self._parts
        )


class HostCap(beam.PTransform):
    """Keeps at most `most` documents of each host, drawn by a hash of their content."""

    def __init__(self, most: int, store: BlobStore | None = None, parts: int = 8) -> None:
        """Sets up the cap; `store` and `parts` as for ExactDuplicates."""
        super().__init__()
        self._most, self._store, self._parts = most, store, parts

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        return documents | KeepBest(
            _host, _drawn, _over_cap, most=self._most, store=self._store, parts=self._parts
        )


class PairDuplicates(beam.PTransform):
    """Keeps one pair for each source and for each target: the one of the highest similarity."""

    def __init__(self, side: int, store: BlobStore | None = None, parts: int = 8) -> None:
        """Compares one side, 0 or 1, of the pairs; `store` and `parts` as for ExactDuplicates."""
        super().__init__()
        self._side, self._store, self._parts = side, store, parts

    def expand(self, pairs: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From pairs to the outputs `kept` and `rejected`."""
        key = functools.partial(_side_key, side=self._side)
        return pairs | KeepBest(
            key, _most_similar, _copied_pair, store=self._store, parts=self._parts
        )


def record_hash(document: RawDocument) -> int:
    """A 64-bit hash of all that a document was read with."""
    return hash64(f"{document.id}\0{document.text}\0{document.url}")


def digest_of(document: RawDocument) -> int:
    """A 64-bit hash of a document's folded text, which exact copies have in common."""
    return hash64(folded(document.text))


def _longest(document: RawDocument) -> Rank:
    return -len(document.text), record_hash(document), document.origin


def _drawn(document: RawDocument) -> Rank:
    return 0, record_hash(document), document.origin


def _most_similar(pair: RawDocument) -> Rank:
    return -pair.scores.get("similarity", 0.0), record_hash(pair), pair.origin


def _host(document: RawDocument) -> int:
    return hash64(document.host) if document.host else 0


def _side_key(pair: RawDocument, side: int) -> int:
    return hash64(f"{pair.language}\t{folded(pair.text.split(chr(9))[side])}")


def _exact_copy(document: RawDocument, best: str) -> RawDocument:
    return document.rejected("duplicates", f"exact copy of {best}")


def _over_cap(document: RawDocument, best: str) -> RawDocument:
    return document.rejected("host", "cap")


def _copied_pair(pair: RawDocument, best: str) -> RawDocument:
    return pair.rejected("pairs", "duplicate")
