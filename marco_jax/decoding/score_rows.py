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
    """A context and continuations that each see it and themselves.

    Attributes:
        context: token ids.
        fed: tokens of the continuations that are read; their last ones are only predicted.
        segments: of each such token, the number of its continuation, from 1.
        positions: of each such token.
        places: where a hidden state predicts something, counted from the row's start.
        targets: what is asked at each of the places.
        requests: which requests the row answers.
        answers: for each of them, (index into places, index into its targets) of each token.
    """

    context: tuple[int, ...]
    fed: list[int] = dataclasses.field(default_factory=list)
    segments: list[int] = dataclasses.field(default_factory=list)
    positions: list[int] = dataclasses.field(default_factory=list)
    places: list[int] = dataclasses.field(default_factory=list)
    targets: list[list[int]] = dataclasses.field(default_factory=list)
    requests: list[int] = dataclasses.field(default_factory=list)
    answers: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.context) + len(self.fed)

    def add(self, request: int, continuation: Sequence[int]) -> None:
        """Appends a continuation, whose first token the last one of the context predicts."""
        if not self.places:
            self.places, self.targets = [len(self.context) - 1], [[]]
        first = self.targets[0]
        if continuation[0] not in first:
            first.append(continuation[0])
        answer = [(0, first.index(continuation[0]))]
        for offset, token in enumerate(continuation[:-1]):
            self.places.append(len(self))
            self.targets.append([continuation[offset + 1]])
            answer.append((len(self.places) - 1, 0))
            self.fed.append(token)
            self.segments.append(len(self.requests) + 1)
            self.positions.append(len(self.context) + offset)
        self.requests.append(request)
        self.answers.append(answer)


def pack_rows(requests: Sequence[ScoreRequest], max_length: int) -> tuple[list[Row], int]:
    """Rows that answer all requests, and how many inputs were cut on the left."""
    rows: list[Row] = []
    open_rows: dict[tuple[int, ...], Row] = {}
    truncated = 0
    for number, request in enumerate(requests):
        context, continuation = tuple(request.context), list(request.continuation)
        fed = len(continuation) - 1
        if len(context) + fed > max_length:
            # The last token is predicted only. Of a continuation longer than a row its end counts.
            truncated += 1
            whole = (*context, *continuation)[-(max_length + 1) :]
            kept = min(len(continuation), max_length)
            context, continuation = whole[:-kept], list(whole[-kept:])
        row = open_rows.get(context)
        limit = min(max_length, len(context) + SHARED_TOKENS)
        if row is None or len(row) + len(continuation) - 1 > limit:
            row = open_rows[context] = Row(context)
            rows.append(row)
        row.add(number, continuation)
    return rows, truncated


def fill_rows(
    rows: Sequence[Row], prefix: int, shape: tuple[int, int, int, int]
) -> tuple[np.ndarray, ...]:
    """The five arrays of a ScoreBatch, int32, without the first `prefix` tokens of each row.

    `shape` is (batch, length, places, targets); padding is of segment 0 and its targets unread.
    """
    batch, length, places, targets = shape
    tokens, positions, segment_ids = (np.zeros((batch, length), np.int32) for _ in range(3))
    index = np.zeros((batch, places), np.int32)
    asked = np.zeros((batch, places, targets), np.int32)
    for number, row in enumerate(rows):
        own, used = len(row.context) - prefix, len(row) - prefix
        tokens[number, :used] = [*row.context[prefix:], *row.fed]
        positions[number, :used] = [*range(prefix, len(row.context)), *row.positions]
        segment_ids[number, :used] = [*[SHARED_SEGMENT] * own, *row.segments]
        index[number, : len(row.places)] = [place - prefix for place in row.places]
        for place, wanted in enumerate(row.targets):
            asked[number, place, : len(wanted)] = wanted
    return tokens, positions, segment_ids, index, asked
