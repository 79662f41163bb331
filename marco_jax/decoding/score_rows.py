"""Rows of the score kernel: each is one context, then the continuations that share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from marco_jax.decoding.requests import ScoreRequest
from marco_jax.model.attention import SHARED_SEGMENT

# The most tokens that continuations in one row have together; attention costs their square.
SHARED_TOKENS = 1024


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


def fill_rows(
    rows: Sequence[ScoreRow], prefix: int, shape: tuple[int, int, int, int]
) -> tuple[np.ndarray, ...]:
    """The five arrays of a ScoreBatch, int32, without the first `prefix` tokens of each row.

    `shape` is (batch, length, indices, targets). Padding has segment 0 and its results are unused.
    """
    batch, length, width, depth = shape
    tokens, positions, segment_ids = (np.zeros((batch, length), np.int32) for _ in range(3))
    indices = np.zeros((batch, width), np.int32)
    targets = np.zeros((batch, width, depth), np.int32)
    for number, row in enumerate(rows):
        own, used = len(row.context) - prefix, len(row) - prefix
        tokens[number, :used] = [*row.context[prefix:], *row.fed]
        positions[number, :used] = [*range(prefix, len(row.context)), *row.positions]
        segment_ids[number, :used] = [*[SHARED_SEGMENT] * own, *row.segments]
        indices[number, : len(row.indices)] = [index - prefix for index in row.indices]
        for i, wanted in enumerate(row.targets):
            targets[number, i, : len(wanted)] = wanted
    return tokens, positions, segment_ids, indices, targets
