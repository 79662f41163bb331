"""Near duplicates over a whole collection, as a Beam transform.

1. Every document gives 42 keys: hashes of its MinHash bands, its start and its end. Documents with
   a common key are candidates, each with the longest documents of the key.
2. The texts of candidates meet, and their exact similarity is computed.
3. Copies form groups, the connected components of the pairs. In each group the longest text is
   kept, with it what is not a copy of it: the next longest of the rest, and so on. So a document
   goes only if it is itself a copy of one that stays, whatever chain of versions lies between.

Nodes are hashes of folded texts, and ranked by length, then hash: the outcome does not depend on
the order of the input, on its shards or on the runner.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.connected_components import EDGE, ConnectedComponents
from marco_jax.curation.exact_duplicates import digest_of
from marco_jax.curation.grouping import (
    GroupDocuments,
    GroupTables,
    JoinParts,
    WritingDoFn,
    read_documents,
    read_rows,
    read_table,
)
from marco_jax.curation.near_candidates import CandidatePairs
from marco_jax.curation.shingles import ShingledText, folded, is_copy
from marco_jax.curation.stages import KEPT, REJECTED, outcome_of
from marco_jax.extras import optional

with optional():
    import apache_beam as beam


class NearDuplicates(beam.PTransform):
    """Keeps one of the documents that are near copies, or that lie in a longer one.

    The outputs are `kept`, whose `cluster` counts the copies with the document itself, and
    `rejected`, whose reason names the document that was kept. Equal texts must have been removed
    (`ExactDuplicates`).
    """

    def __init__(
        self,
        near: float = 0.6,
        containment: float = 0.8,
        store: BlobStore | None = None,
        parts: int = 8,
    ) -> None:
        """Sets what counts as a copy.

        Args:
            near: least Jaccard similarity of character n-grams.
            containment: least share of a text's n-grams in a longer text that contains it.
            store: where texts and tables are kept between workers; by default in the elements.
            parts: the number of parts of the documents; a worker holds one part in memory.
        """
        super().__init__()
        self._bounds = near, containment
        self._store, self._parts = store or BlobStore(), parts

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the outputs `kept` and `rejected`."""
        store, parts = self._store, self._parts
        tables = GroupTables(store, parts)
        grouped = documents | "by digest" >> GroupDocuments(digest_of, store, parts)
        pairs = documents | "candidates" >> CandidatePairs(store, parts)
        wanted = {"documents": grouped, "pairs": pairs.pairs, "better": pairs.better}
        texts = (
            wanted
            | "join texts" >> JoinParts()
            | "texts" >> beam.ParDo(_Texts(store, parts))
            | "by better" >> beam.GroupByKey()
        )
        compare = beam.ParDo(_Compared(*self._bounds, store, parts))
        copies = texts | "compare" >> compare.with_outputs(_Compared.OUTPUT, main="edges")
        centres = copies.edges | "components" >> ConnectedComponents(store, parts)
        centres = centres | "key centres" >> beam.Map(_by_node) | "by member" >> tables
        verdicts = (
            {"records": copies.records, "centres": centres}
            | "join centres" >> JoinParts()
            | "to groups" >> beam.ParDo(_ToGroups(store, parts))
            | "by group" >> beam.GroupByKey()
            | "decide" >> beam.ParDo(_Decided(store, parts))
        )
        return (
            {"documents": grouped, "verdicts": verdicts}
            | "join verdicts" >> JoinParts()
            | "apply" >> beam.ParDo(_Applied(store)).with_outputs(REJECTED, main=KEPT)
        )


class _Texts(WritingDoFn):
    """Sends the folded texts of candidates to the parts of the nodes that they are compared with.

    A row is [node that receives it, node, cluster, id, folded text].
    """

    def process(self, element: tuple[int, dict[str, list[bytes]]]) -> Iterator[Any]:
        handles = element[1]
        receivers: dict[int, list[int]] = collections.defaultdict(list)
        for node, better in read_rows(handles.get("pairs", ()), self._store):
            receivers[node] += better
        for node in set(read_rows(handles.get("better", ()), self._store)):
            receivers[node].append(node)
        if not receivers:
            return
        for node, document in read_documents(handles.get("documents", ()), self._store):
            text = folded(document.text) if node in receivers else ""
            for receiver in receivers.get(node, ()):
                row = [receiver, node, document.cluster, document.id, text]
                yield from self._writer.add(receiver, row, len(text))


@dataclasses.dataclass(frozen=True)
class _Node:
    """A text under comparison, at the better node that receives it; that one receives itself."""

    receiver: int
    digest: int
    cluster: int
    id: str
    text: ShingledText


class _Compared(WritingDoFn):
    """Compares texts exactly.

    The main output has tables EDGE of copies; "records" has, by part of the worse node, rows
    [worse, better, their lengths, their clusters, id of the better one].
    """

    OUTPUT = "records"

    def __init__(self, near: float, containment: float, store: BlobStore, parts: int) -> None:
        super().__init__(store, parts)
        self._bounds = near, containment

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        # Twice, so that a million copies of a template are not held, only the text they copy.
        handles = list(element[1])
        better = {node.digest: node for node in self._nodes(handles, best=True)}
        edges = []
        for node in self._nodes(handles, best=False):
            best = better[node.receiver]
            if not is_copy(best.text, node.text, *self._bounds):
                continue
            edges.append((node.digest, best.digest))
            row = [node.digest, best.digest, len(node.text.text), len(best.text.text)]
            row += [node.cluster, best.cluster, best.id]
            for parted in self._writer.add(node.digest, row):
                yield beam.pvalue.TaggedOutput(self.OUTPUT, parted)
        yield np.array(edges, EDGE)

    def _nodes(self, handles: list[bytes], best: bool) -> Iterator[_Node]:
        for receiver, digest, cluster, name, text in read_rows(handles, self._store):
            if (receiver == digest) == best:
                yield _Node(receiver, digest, cluster, name, ShingledText(text))


def _by_node(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return centres["node"], centres


class _ToGroups(WritingDoFn):
    """Sends the records of copies to the part of their group's centre."""

    def process(self, element: tuple[int, dict[str, list[bytes]]]) -> Iterator[Any]:
        handles = element[1]
        table = read_table(handles.get("centres", ()), EDGE, self._store)
        centres = dict(zip(table["node"].tolist(), table["other"].tolist(), strict=True))
        for record in read_rows(handles.get("records", ()), self._store):
            # A node that is the centre of its group is not in the table.
            centre = centres.get(record[0], record[0])
            yield from self._writer.add(centre, [centre, *record])


class _Decided(WritingDoFn):
    """Decides which documents of each group stay.

    A verdict is a row by part of the node: [node, id of the document that is kept instead] or
    [node, size of its cluster].
    """

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        groups: dict[int, list[list]] = collections.defaultdict(list)
        for centre, *record in read_rows(element[1], self._store):
            groups[centre].append(record)
        for centre in sorted(groups):
            for node, verdict in decide_group(groups[centre]):
                yield from self._writer.add(node, [node, verdict])


def decide_group(records: list[list]) -> Iterator[tuple[int, str | int]]:
    """Decides which documents of a group of copies stay.

    Documents are visited from the best to the worst; one that is a copy of a document that stays
    goes, and counts for the best such document.

    Args:
        records: [worse, better, length of either, cluster of either, id of the better document].

    Yields:
        A node with the id of the document that stays in its place, or with the number of
        documents that it stands for.
    """
    better: dict[int, set[int]] = collections.defaultdict(set)
    length, cluster, names = {}, {}, {}
    for worse, best, *lengths, own, other, name in records:
        better[worse].add(best)
        length[worse], length[best] = lengths
        cluster[worse], cluster[best], names[best] = own, other, name
    rank = {node: (-length[node], node) for node in length}
    sizes: dict[int, int] = {}
    for node in sorted(rank, key=rank.__getitem__):
        kept = [one for one in better[node] if one in sizes]
        if kept:
            best = min(kept, key=rank.__getitem__)
            sizes[best] += cluster[node]
            yield node, names[best]
        else:
            sizes[node] = cluster[node]
    for node, size in sizes.items():
        if size > cluster[node]:
            yield node, size


class _Applied(beam.DoFn):
    """Rejects documents by their verdicts, and sets the `cluster` of those that stay."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def process(self, element: tuple[int, dict[str, list[bytes]]]) -> Iterator[Any]:
        handles = element[1]
        verdicts = dict(read_rows(handles.get("verdicts", ()), self._store))
        for node, document in read_documents(handles.get("documents", ()), self._store):
            verdict = verdicts.get(node)
            if isinstance(verdict, str):
                reason = f"near copy of {verdict}"
                yield outcome_of(document.rejected("duplicates", reason))
            elif verdict:
                yield dataclasses.replace(document, cluster=verdict)
            else:
                yield document
