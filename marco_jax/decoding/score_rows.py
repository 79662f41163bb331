"""Rows of the score kernel: each is one context, then the continuations that share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from marco_jax.decoding.requests import ScoreRequest
from marco_jax.model.attention import SHARED_SEGMENT

# The most tokens that continuations in one row have together; attention costs their square.
SHARED_TOKENS = 1024
# A program call costs about as much as this number of tokens.
CALL_COST = 1024


@dataclasses.dataclass
class ScoreRow:
    """A context and its continuations, each of which attends to the context and to itself.

    Attributes:
        context: token ids.
        fed: input tokens of all continuations, without the last of each, which is only predicted.
        segments: the number of the continuation, from 1, of each token of `fed`.
        positions: the position of each token of `fed`.
        indices: indices into the row of hidden states that predict targets.
        targets: for each of `indices`, the token ids to score there.
        requests: the numbers of the requests that the row answers.
        answers: for each request, (index into `indices`, index into its targets) of each token.
    """

    context: tuple[int, ...]
    fed: list[int] = dataclasses.field(default_factory=list)
    segments: list[int] = dataclasses.field(default_factory=list)
    positions: list[int] = dataclasses.field(default_factory=list)
    indices: list[int] = dataclasses.field(default_factory=list)
    targets: list[list[int]] = dataclasses.field(default_factory=list)
    requests: list[int] = dataclasses.field(default_factory=list)
    answers: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.context) + len(self.fed)

    def add(self, request: int, continuation: Sequence[int]) -> None:
        """Appends the continuation of a request."""
        # The last hidden state of the context predicts the first token of every continuation.
        if not self.indices:
            self.indices, self.targets = [len(self.context) - 1], [[]]
        first = self.targets[0]
        if continuation[0] not in first:
            first.append(continuation[0])
        answer = [(0, first.index(continuation[0]))]
        for offset, token in enumerate(continuation[:-1]):
            self.indices.append(len(self))
            self.targets.append([continuation[offset + 1]])
            answer.append((len(self.indices) - 1, 0))
            self.fed.append(token)
            self.segments.append(len(self.requests) + 1)
            self.positions.append(len(self.context) + offset)
        self.requests.append(request)
        self.answers.append(answer)


def pack_rows(requests: Sequence[ScoreRequest], max_length: int) -> tuple[list[ScoreRow], int]:
    """Packs requests into rows; also returns the number of inputs that were cut on the left."""
    rows: list[ScoreRow] = []
    open_rows: dict[tuple[int, ...], ScoreRow] = {}
    truncated = 0
    for number, request in enumerate(requests):
        context, continuation = tuple(request.context), list(request.continuation)
        fed = len(continuation) - 1
        if len(context) + fed > max_length:
            # The last token is only predicted, hence the + 1. A continuation longer than a row
            # loses its start.
            truncated += 1
            whole = (*context, *continuation)[-(max_length + 1) :]
            kept = min(len(continuation), max_length)
            context, continuation = whole[:-kept], list(whole[-kept:])
        row = open_rows.get(context)
        limit = min(max_length, len(context) + SHARED_TOKENS)
        if row is None or len(row) + len(continuation) - 1 > limit:
            row = open_rows[context] = ScoreRow(context)
            rows.append(row)
        row.add(number, continuation)
    return rows, truncated


@dataclasses.dataclass(frozen=True)
class ScoreShape:
    """The shape of a ScoreBatch: `batch` rows of `length`, `reads` with `targets` each per device.

    `ways` devices have `batch // ways` rows each.
    """

    batch: int
    length: int
    reads: int
    targets: int
    ways: int

    def place(self, number: int) -> int:
        """The index of the row for a number: rows are dealt to the devices in turn."""
        return number % self.ways * (self.batch // self.ways) + number // self.ways


def most_reads(rows: Sequence[ScoreRow], ways: int) -> int:
    """The largest number of hidden states that a device reads, if rows are dealt in turn."""
    return max(sum(len(row.indices) for row in rows[first::ways]) for first in range(ways))


def fill_rows(
    rows: Sequence[ScoreRow], prefix: int, shape: ScoreShape
) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """The first five arrays of a ScoreBatch, int32, without the first `prefix` tokens of each row.

    Padding has segment 0 and its results are unused.

    Returns:
        The arrays, and for each row the index of its first result.
    """
    size = (shape.batch, shape.length)
    tokens, positions, segment_ids = (np.zeros(size, np.int32) for _ in range(3))
    reads = np.zeros(shape.ways * shape.reads, np.int32)
    targets = np.zeros((reads.size, shape.targets), np.int32)
    ends = [device * shape.reads for device in range(shape.ways)]
    starts = []
    for number, row in enumerate(rows):
        own, used, place = len(row.context) - prefix, len(row) - prefix, shape.place(number)
        tokens[place, :used] = [*row.context[prefix:], *row.fed]
        positions[place, :used] = [*range(prefix, len(row.context)), *row.positions]
        segment_ids[place, :used] = [*[SHARED_SEGMENT] * own, *row.segments]
        start = ends[number % shape.ways]
        ends[number % shape.ways] = end = start + len(row.indices)
        first = number // shape.ways * shape.length - prefix
        reads[start:end] = np.array(row.indices) + first
        for index, wanted in enumerate(row.targets, start):
            targets[index, : len(wanted)] = wanted
        starts.append(start)
    return (tokens, positions, segment_ids, reads, targets), starts


def divide_rows(
    lengths: Sequence[int],
    length_of: Callable[[int], int],
    rows_of: Callable[[int, int], int],
) -> list[tuple[int, int]]:
    """Divides rows, sorted by length, into batches that compute the fewest tokens with padding.

    Args:
        lengths: tokens of each row, longest first.
        length_of: the padded length of a row.
        rows_of: the padded number of rows, of a padded length and a number of rows.

    Returns:
        The ends of batches, as (end, padded length). A batch starts where padded lengths differ,
        or at the end of a full one. A call counts as CALL_COST tokens: where more would be padding
        in rows, a smaller batch comes first.
    """
    padded = [length_of(length) for length in lengths]
    cuts = [i for i in range(len(padded)) if not i or padded[i] != padded[i - 1]] + [len(padded)]
    # For each cut: the fewest tokens before it, and the batches that compute them.
    best: list[tuple[float, list[tuple[int, int]]]] = [(0, [])]
    for end in cuts[1:]:
        options = []
        for (cost, batches), start in zip(best, cuts, strict=False):
            here, ends = start, []
            while here < end:
                length = padded[here]
                rows = rows_of(length, end - here)
                if (here + rows - end) * length > CALL_COST:
                    rows = rows_of(length, rows // 2)
                cost += rows * length + CALL_COST
                here = min(end, here + rows)
                ends.append((here, length))
            options.append((cost, batches + ends))
        best.append(min(options))
    return best[-1][1]
