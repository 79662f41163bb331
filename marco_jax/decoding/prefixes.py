"""Finds prefixes that several requests share, so that each is computed once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

# Tokens that sharing a prefix must save, to pay for its program call and for smaller batches.
# Shorter prefixes are computed again in each row.
PREFIX_COST = 256


@dataclasses.dataclass(frozen=True)
class PrefixGroup:
    """Members (indices of sequences) that start with the same `length` tokens."""

    length: int
    members: tuple[int, ...]


@dataclasses.dataclass
class _Interval:
    """Sorted sequences from `start` on that share a prefix of `depth` tokens.

    cuts: (start, end, prefix length) of the groups that compute the sequences seen so far with the
    fewest tokens; cost: that number of tokens.
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
    """Divides sequences into groups with a common prefix, so that the fewest tokens are computed.

    A group's prefix is computed once, which must save `least_saving` tokens. The last token of a
    sequence is never part of a prefix. Sequences that share none form the first group, of length 0.

    In sorted order, sequences with a common prefix are adjacent, so prefixes form a tree of nested
    intervals. One pass with a stack of open intervals visits the tree from its leaves up, and
    decides for each interval what is cheaper: one group with the interval's prefix, or the groups
    that were found inside it.
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

    # Each open interval lies inside the one before it.
    open_intervals = [_Interval(0, 0)]
    for rank, length in enumerate(lengths):
        shared = 0
        if rank + 1 < len(order):
            shared = _common_prefix(sequences[order[rank]], sequences[order[rank + 1]])
        if shared > open_intervals[-1].depth:
            open_intervals.append(_Interval(shared, rank))
        open_intervals[-1].add(length, [(rank, rank + 1, 0)])
        while open_intervals[-1].depth > shared:
            interval = open_intervals.pop()
            if open_intervals[-1].depth < shared:
                open_intervals.append(_Interval(shared, interval.start))
            open_intervals[-1].add(*cheapest(interval, rank + 1))
    unshared, groups = [], []
    for start, end, length in open_intervals[0].cuts:
        if length:
            groups.append(PrefixGroup(length, tuple(order[start:end])))
        else:
            unshared += order[start:end]
    return ([PrefixGroup(0, tuple(unshared))] if unshared else []) + groups


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix, excluding the last token of either sequence."""
    limit = min(len(first), len(second)) - 1
    pairs = itertools.islice(zip(first, second, strict=False), max(limit, 0))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), max(limit, 0))
