"""Connected components of a graph by GroupByKey, in a bounded number of rounds.

Each round is a large-star and a small-star step (Kiveris et al. 2014, "Connected Components in
MapReduce and Beyond"): every node links its larger neighbours, and then its smaller ones, to the
smallest node that it knows. The graph becomes a set of stars, of which the centre is the smallest
node of its component. The rounds are O(log^2 n) at worst, and two or three for groups of copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.grouping import GroupTables, group_starts, read_table
from marco_jax.extras import optional

with optional():
    import apache_beam as beam
    from apache_beam.metrics import Metrics

# An edge of two nodes; of a star, the node and its centre.
EDGE = np.dtype([("node", np.uint64), ("other", np.uint64)])
ROUNDS = 6

Tables = tuple[np.ndarray, np.ndarray]


class ConnectedComponents(beam.PTransform):
    """Finds the components of a graph.

    From tables EDGE [edges] to tables EDGE [nodes] of (node, smallest node of its component); the
    smallest node itself is not among them. Nodes of which the component was not complete after
    ROUNDS are left out, and counted by the metric "components/unfinished".
    """

    def __init__(self, store: BlobStore, parts: int) -> None:
        """Works on `parts` parts of the nodes."""
        super().__init__()
        self._store, self._parts = store, parts

    def expand(self, edges: beam.PCollection) -> beam.PCollection:
        """From tables of edges to tables of (node, centre)."""
        group = GroupTables(self._store, self._parts)
        keyed = edges | "both ways" >> beam.Map(_both_ways)
        for number in range(ROUNDS):
            keyed = (
                keyed
                | f"large group {number}" >> group
                | f"large star {number}" >> beam.ParDo(_Star(self._store, large=True))
                | f"small group {number}" >> group
                | f"small star {number}" >> beam.ParDo(_Star(self._store, large=False))
            )
        # The last small star yields every edge from both ends: a finished leaf has one.
        return keyed | "group ends" >> group | "centres" >> beam.ParDo(_Centres(self._store))


def _both_ways(edges: np.ndarray) -> Tables:
    """Every edge from either end, with the node as its key."""
    table = np.concatenate([edges, _edges(edges["other"], edges["node"])])
    return table["node"], table


def _edges(nodes: np.ndarray, others: np.ndarray) -> np.ndarray:
    table = np.empty(nodes.size, EDGE)
    table["node"], table["other"] = nodes, others
    return table


class _Star(beam.DoFn):
    """Links the neighbours of each node to the smallest of them and the node.

    A large star links the larger neighbours, and receives every edge from both of its ends. A small
    star links the smaller ones and the node itself, and receives every edge from its larger end.
    """

    def __init__(self, store: BlobStore, large: bool) -> None:
        self._store, self._large = store, large

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Tables]:
        table = np.unique(read_table(element[1], EDGE, self._store))
        # Sorted by node, then by neighbour: the first of a node's edges has the smallest neighbour.
        starts = group_starts(table["node"])
        nodes = table["node"][starts[:-1]]
        smallest = np.minimum(table["other"][starts[:-1]], nodes)
        least = np.repeat(smallest, np.diff(starts))
        if self._large:
            linked = table["other"] > table["node"]
            edges = _edges(table["other"][linked], least[linked])
            yield edges["node"], edges
        else:
            linked = table["other"] != least
            edges = _edges(table["other"][linked], least[linked])
            yield _both_ways(np.concatenate([edges, _edges(nodes, smallest)]))


class _Centres(beam.DoFn):
    """Yields each node with its centre, if the node has no other edge."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._unfinished = Metrics.counter("components", "unfinished")

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[np.ndarray]:
        table = np.unique(read_table(element[1], EDGE, self._store))
        starts = group_starts(table["node"])
        smaller = table["other"] < table["node"]
        below = np.add.reduceat(smaller, starts[:-1], dtype=np.int64) if table.size else starts[1:]
        leaf = (below == 1) & (np.diff(starts) == 1)
        self._unfinished.inc(int(((below > 0) & ~leaf).sum()))
        yield table[starts[:-1][leaf]]
