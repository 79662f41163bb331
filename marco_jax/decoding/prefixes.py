"""Finds what requests begin with in common, so that it is computed once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

# Token computations that one more prefix must save: its own program call, and batches that fill
# less well. Shorter beginnings are read again in each row.
PREFIX_COST = 256


@dataclasses.dataclass(frozen=True)
class PrefixGroup:
    """Members (indices of sequences) that begin with the same `length` tokens."""

    length: int
    members: tuple[int, ...]


@dataclasses.dataclass
class _Interval:
    """Sorted sequences from `start` on that share `depth` tokens.

    cuts: (start, end, shared length) of the cheapest way to compute those seen so far, and its
    cost in tokens.
    """

    depth: int
    start: int
    cost: int = 0
    cuts: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)

    def add(self, cost: int, cuts: list[tuple[int, int, int]]) -> None:
        self.cost += cost
        self.cuts += cuts


def group_by_prefix(
    sequences: Sequence[Sequence[int]], least_saving: int = PREFIX_COST
) -> list[PrefixGroup]:
    """Cuts sequences into groups with a common beginning, so that the fewest tokens are computed.

    A group's beginning is computed once, which must save `least_saving` tokens. The last token of a
    sequence is always its own. Sequences that share nothing make one group of length 0, the first.
    """
    order = sorted(range(len(sequences)), key=lambda index: tuple(sequences[index]))
    lengths = [len(sequences[index]) for index in order]
    totals = [0, *itertools.accumulate(lengths)]

    def cheapest(interval: _Interval, end: int) -> tuple[int, list[tuple[int, int, int]]]:
        size = end - interval.start
        tokens = totals[end] - totals[interval.start]
        together = tokens - (size - 1) * interval.depth + least_saving
        if together < interval.cost:
            return together, [(interval.start, end, interval.depth)]
        return interval.cost, interval.cuts

    # The tree of common beginnings, from its leaves up: open intervals, each inside the one before.
    open_intervals = [_Interval(0, 0)]
    for place, length in enumerate(lengths):
        shared = 0
        if place + 1 < len(order):
            shared = _common(sequences[order[place]], sequences[order[place + 1]])
        done = (length, [(place, place + 1, 0)])
        if shared > open_intervals[-1].depth:
            open_intervals.append(_Interval(shared, place))
        open_intervals[-1].add(*done)
        while open_intervals[-1].depth > shared:
            interval = open_intervals.pop()
            if open_intervals[-1].depth < shared:
                open_intervals.append(_Interval(shared, interval.start))
            open_intervals[-1].add(*cheapest(interval, place + 1))
    alone, groups = [], []
    for start, end, length in open_intervals[0].cuts:
        if length:
            groups.append(PrefixGroup(length, tuple(order[start:end])))
        else:
            alone += order[start:end]
    return ([PrefixGroup(0, tuple(alone))] if alone else []) + groups


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning, the last token of either left out."""
    limit = min(len(first), len(second)) - 1
    pairs = itertools.islice(zip(first, second, strict=False), max(limit, 0))
    return next((place for place, (a, b) in enumerate(pairs) if a != b), max(limit, 0))
