"""Rows of the score kernel: one context, then the continuations that share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from marco_jax.decoding.requests import ScoreRequest
from marco_jax.model.attention import SHARED_SEGMENT

# Continuations that share a row take up to this many tokens together: attention costs the square.
SHARED_TOKENS = 1024


@dataclasses.dataclass
class Row:
    """A row being built; all lists but the last two are one entry a token or a target.

    requests: which requests the row answers. spans: where each one's targets stand.
    """

    tokens: list[int]
    positions: list[int]
    segment_ids: list[int]
    index: list[int] = dataclasses.field(default_factory=list)
    targets: list[int] = dataclasses.field(default_factory=list)
    requests: list[int] = dataclasses.field(default_factory=list)
    spans: list[slice] = dataclasses.field(default_factory=list)

    @classmethod
    def of_context(cls, context: Sequence[int]) -> Row:
        """A row that holds a context and no continuation yet."""
        length = len(context)
        return cls(list(context), list(range(length)), [SHARED_SEGMENT] * length)

    def add(self, request: int, context_length: int, continuation: Sequence[int]) -> None:
        """Appends a continuation: it sees the context and itself.

        Its last token is predicted but never read, so it takes no place in the row. Its first is
        predicted by the last token of the context.
        """
        start, fed = len(self.tokens), continuation[:-1]
        self.tokens += fed
        self.positions += range(context_length, context_length + len(fed))
        self.segment_ids += [len(self.requests) + 1] * len(fed)
        self.spans.append(slice(len(self.targets), len(self.targets) + len(continuation)))
        self.index += [context_length - 1, *range(start, start + len(fed))]
        self.targets += continuation
        self.requests.append(request)


def pack_rows(requests: Sequence[ScoreRequest], max_length: int) -> tuple[list[Row], int]:
    """Rows that answer all requests, and how many inputs were cut on the left."""
    rows: list[Row] = []
    open_rows: dict[tuple[int, ...], Row] = {}
    truncated = 0
    for number, request in enumerate(requests):
        context, continuation = tuple(request.context), list(request.continuation)
        fed = len(continuation) - 1
        if len(context) + fed > max_length:
            # (context + continuation)[-(max_length + 1):], the last token predicted only.
            truncated += 1
            context = context[-max(1, max_length - fed) :]
            continuation = continuation[-max_length:]
        row = open_rows.get(context)
        limit = min(max_length, len(context) + SHARED_TOKENS)
        if row is None or len(row.tokens) + len(continuation) - 1 > limit:
            row = open_rows[context] = Row.of_context(context)
            rows.append(row)
        row.add(number, len(context), continuation)
    return rows, truncated


def fill_rows(rows: Sequence[Row], batch: int, length: int, scored: int) -> tuple[np.ndarray, ...]:
    """The five arrays of a ScoreBatch, int32, padded with segment 0 and unread targets."""
    tokens, positions, segment_ids = (np.zeros((batch, length), np.int32) for _ in range(3))
    index, targets = (np.zeros((batch, scored), np.int32) for _ in range(2))
    for number, row in enumerate(rows):
        used, wanted = len(row.tokens), len(row.targets)
        tokens[number, :used] = row.tokens
        positions[number, :used] = row.positions
        segment_ids[number, :used] = row.segment_ids
        index[number, :wanted] = row.index
        targets[number, :wanted] = row.targets
    return tokens, positions, segment_ids, index, targets
