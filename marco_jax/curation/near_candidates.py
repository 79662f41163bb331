"""Candidates for near duplicates: documents that share a key of MinHash bands, start or end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import (
    BlobWriter,
    BundleDoFn,
    GroupTables,
    group_starts,
    read_table,
)
from marco_jax.curation.shingles import candidate_keys, folded, hash64
from marco_jax.extras import optional

with optional():
    import apache_beam as beam

# A key of a node, and the node's rank: the longer text is better, then the smaller hash.
KEY = np.dtype([("key", np.uint64), ("shorter", np.uint32), ("node", np.uint64)])
# A node, and the rank of a better one that may be a copy.
PAIR = np.dtype([("node", np.uint64), ("shorter", np.uint32), ("better", np.uint64)])
# Of the nodes that share a key, so many are compared with all others.
REPRESENTATIVES = 8
# A node is compared with so many better ones: those that share most keys with it.
RIVALS = 8
_MOST = (1 << 32) - 1


class CandidatePairs(beam.PTransform):
    """Finds pairs of documents that may be copies.

    The outputs are (part, handle) of rows: `pairs` [node, [better nodes]] by part of the node, and
    `better` of single nodes by their part.
    """

    def __init__(self, store: BlobStore, parts: int) -> None:
        """Works on `parts` parts of the keys."""
        super().__init__()
        self._store, self._parts = store, parts

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `pairs` and `better`."""
        tables = GroupTables(self._store, self._parts)
        choose = beam.ParDo(_Candidates(self._store, self._parts))
        return (
            documents
            | "keys" >> beam.Map(_keys)
            | "by key" >> tables
            | "pairs of keys" >> beam.ParDo(_Pairs(self._store))
            | "by node" >> tables
            | "choose" >> choose.with_outputs("better", main="pairs")
        )


def _keys(document: RawDocument) -> tuple[np.ndarray, np.ndarray]:
    """The keys of a document, uint64 [KEYS], and its rows of the table KEY."""
    text = folded(document.text)
    keys = candidate_keys(text, document.language)
    table = np.empty(keys.size, KEY)
    # The hash is `digest_of` the document, of which the text is folded once here.
    table["key"], table["node"] = keys, hash64(text)
    table["shorter"] = _MOST - min(len(text), _MOST)
    return keys, table


class _Pairs(beam.DoFn):
    """Pairs the best documents of each key with all others: yields tables PAIR.

    A key of n documents gives at most REPRESENTATIVES * n pairs, so that the cost stays linear for
    a template that a million pages share.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple]:
        # Unique rows are sorted by key, and within a key from the best to the worst.
        table = np.unique(read_table(element[1], KEY, self._store))
        starts = group_starts(table["key"])
        sizes = np.diff(starts)
        place = np.arange(table.size) - np.repeat(starts[:-1], sizes)
        for number in range(REPRESENTATIVES):
            others = np.flatnonzero(place > number)
            if not others.size:
                return
            better = table[others - place[others] + number]
            pairs = np.empty(others.size, PAIR)
            pairs["node"] = table["node"][others]
            pairs["shorter"], pairs["better"] = better["shorter"], better["node"]
            yield pairs["node"], pairs


class _Candidates(BundleDoFn):
    """Chooses the better nodes that each node is compared with.

    The main output has a row (node, [better nodes]) for each node, by part of the node, the output
    "better" has a row for each better node, by its part.
    """

    def __init__(self, store: BlobStore, parts: int) -> None:
        self._store, self._parts = store, parts

    def start_bundle(self) -> None:
        self._nodes = BlobWriter(self._store, self._parts)
        self._better = BlobWriter(self._store, self._parts)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        table = read_table(element[1], PAIR, self._store)
        pairs, counts = np.unique(table, return_counts=True)
        # By node, the pairs with most keys in common first, among them the best document.
        order = np.lexsort((pairs["better"], pairs["shorter"], -counts, pairs["node"]))
        pairs = pairs[order]
        starts = group_starts(pairs["node"])
        place = np.arange(pairs.size) - np.repeat(starts[:-1], np.diff(starts))
        pairs = pairs[place < RIVALS]
        starts = group_starts(pairs["node"])
        nodes = pairs["node"][starts[:-1]].tolist()
        for at, node in enumerate(nodes):
            rivals = pairs["better"][starts[at] : starts[at + 1]].tolist()
            yield from self._nodes.add(node, [node, rivals])
        for node in np.unique(pairs["better"]).tolist():
            for parted in self._better.add(node, node, 10):
                yield beam.pvalue.TaggedOutput("better", parted)

    def rest(self) -> Iterator[tuple[str, Any]]:
        for tag, writer in (("", self._nodes), ("better", self._better)):
            for parted in writer.flush():
                yield tag, parted
