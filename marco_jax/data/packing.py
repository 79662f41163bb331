"""Packing: what is packed (texts, conversations, pairs of conversations), and into which rows.

Inputs and targets of a text are taken from [EOS] + ids + [EOS]: the first EOS predicts the first
token, the last one is a target. Every target of a text is trained on, and a text may be cut. A
conversation is its ids alone, and its loss mask says which targets are trained on; one that is
longer than a row loses its end. A pair is the chosen conversation followed by the rejected one, and
stands in one row or in none.

A row is a sequence of a batch. Rows follow from the numbers of targets alone: examples longer than
a row are cut, and so are a few texts that would leave a row emptier than SLACK; every target stands
in exactly one row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from marco_jax.data.store import CONVERSATIONS, PREFERENCES, TEXTS, TokenStore

# Pieces that are packed together, about: enough choice for rows to close full, little enough to be
# packed again in milliseconds whenever one of their rows is read.
WINDOW = 4096
# A row may stay empty by this share of it. Emptier ones are filled up with the front of another
# document, which is cut for it: documents of about two thirds of a row would leave a third of every
# row empty. A cut leaves no shorter end over.
SLACK = 1 / 64
# Changes when the same documents make other rows.
VERSION = 3


class Segment(NamedTuple):
    """A segment of a sequence.

    ids: int32 [size + 1], inputs and targets. loss_mask: float32 [size], 1 where a target is
    trained on. reference: of a preference, the log-probability of those targets under the
    reference model.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    reference: float = 0.0


class Examples(Protocol):
    """The examples of a store, by number.

    Attributes:
        count: how many there are.
        targets: targets of all of them together, about: it sizes windows.
        may_be_cut: whether pieces of one may stand in several sequences.
    """

    count: int
    targets: int
    may_be_cut: bool

    def sizes(self, numbers: np.ndarray, length: int) -> np.ndarray:
        """Targets of each, int64; 0 for one that is left out of rows of `length` targets."""
        ...

    def trained(self, numbers: np.ndarray, length: int) -> int:
        """Targets of these that are trained on in rows of `length` targets, in all."""
        ...

    def segments(self, number: int, offset: int, size: int) -> list[Segment]:
        """The segments with the targets offset..offset + size of an example."""
        ...

    def language(self, number: int) -> int:
        """The index of its language in the store's languages."""
        ...

    def left_out(self, length: int) -> dict[str, int]:
        """How many examples are cut or left out at this length; only counts above zero.

        "cut" lose their end, "left_out" are longer than a row, and "untrained" have nothing to
        train on, or not before they are cut.
        """
        ...


def create_examples(
    store: TokenStore, eos_id: int, reference: np.ndarray | None = None
) -> Examples:
    """The examples of a store, by its kind.

    Args:
        store: their tokens.
        eos_id: stands before and behind a text.
        reference: float32 [documents], log-probabilities of preferences where they are cached.
    """
    if store.kind == TEXTS:
        return _Texts(store, eos_id)
    if store.kind == CONVERSATIONS:
        return _Conversations(store)
    if store.kind == PREFERENCES:
        return _Preferences(store, reference)
    raise ValueError(f"{store.directory} holds {store.kind!r}: delete it, it will be made again")


class _Texts:
    may_be_cut = True

    def __init__(self, store: TokenStore, eos_id: int) -> None:
        self._store, self._eos_id = store, eos_id
        self.count, self.targets = len(store.lengths), store.targets

    def sizes(self, numbers: np.ndarray, length: int) -> np.ndarray:
        return self._store.lengths[numbers].astype(np.int64) + 1

    def trained(self, numbers: np.ndarray, length: int) -> int:
        return int(self.sizes(numbers, length).sum())

    def segments(self, number: int, offset: int, size: int) -> list[Segment]:
        length = int(self._store.lengths[number])
        ids = self._store.read(number, max(0, offset - 1), min(length, offset + size))
        before = [self._eos_id] if offset == 0 else []
        after = [self._eos_id] if offset + size > length else []
        ids = np.concatenate([before, ids, after]).astype(np.int32)
        return [Segment(ids, np.ones(size, np.float32))]

    def language(self, number: int) -> int:
        return 0

    def left_out(self, length: int) -> dict[str, int]:
        return {}


class _Conversations:
    may_be_cut = False

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self.count, self.targets = len(store.lengths), store.tokens - len(store.lengths)

    def sizes(self, numbers: np.ndarray, length: int) -> np.ndarray:
        sizes = np.clip(self._store.lengths[numbers].astype(np.int64) - 1, 0, length)
        return np.where(self._has_trained(numbers, length), sizes, 0)

    def trained(self, numbers: np.ndarray, length: int) -> int:
        numbers = numbers[self._has_trained(numbers, length)]
        cut = self._store.lengths[numbers] > length + 1
        whole = int(self._store.trained[numbers[~cut], 0].sum())
        masks = (self._store.read_loss_mask(number) for number in numbers[cut].tolist())
        return whole + sum(int(mask[1 : length + 1].sum()) for mask in masks)

    def _has_trained(self, numbers: np.ndarray, length: int) -> np.ndarray:
        count, first = self._store.trained[numbers].T
        return (count > 0) & (first < length)

    def segments(self, number: int, offset: int, size: int) -> list[Segment]:
        return [_conversation(self._store, number, size)]

    def language(self, number: int) -> int:
        return self._store.language(number)

    def left_out(self, length: int) -> dict[str, int]:
        untrained = ~self._has_trained(np.arange(self.count), length)
        cut = (self._store.lengths > length + 1) & ~untrained
        return _above_zero(cut=int(cut.sum()), untrained=int(untrained.sum()))


class _Preferences:
    may_be_cut = False

    def __init__(self, store: TokenStore, reference: np.ndarray | None) -> None:
        self._store, self._reference = store, reference
        self.count, self.targets = len(store.lengths) // 2, store.tokens - len(store.lengths)

    def sizes(self, numbers: np.ndarray, length: int) -> np.ndarray:
        lengths = self._store.lengths
        sizes = lengths[2 * numbers].astype(np.int64) + lengths[2 * numbers + 1] - 2
        return np.where((sizes <= length) & self._has_trained(numbers), sizes, 0)

    def trained(self, numbers: np.ndarray, length: int) -> int:
        numbers = numbers[self.sizes(numbers, length) > 0]
        return int(self._store.trained[2 * numbers, 0].sum()) + int(
            self._store.trained[2 * numbers + 1, 0].sum()
        )

    def _has_trained(self, numbers: np.ndarray) -> np.ndarray:
        trained = self._store.trained
        return (trained[2 * numbers, 0] > 0) & (trained[2 * numbers + 1, 0] > 0)

    def segments(self, number: int, offset: int, size: int) -> list[Segment]:
        sides = []
        for document in (2 * number, 2 * number + 1):
            side = _conversation(self._store, document, int(self._store.lengths[document]) - 1)
            if self._reference is not None:
                side = side._replace(reference=float(self._reference[document]))
            sides.append(side)
        return sides

    def language(self, number: int) -> int:
        return self._store.language(2 * number)

    def left_out(self, length: int) -> dict[str, int]:
        numbers = np.arange(self.count)
        untrained = int((~self._has_trained(numbers)).sum())
        left_out = int((self.sizes(numbers, length) == 0).sum()) - untrained
        return _above_zero(left_out=left_out, untrained=untrained)


def _above_zero(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _conversation(store: TokenStore, document: int, size: int) -> Segment:
    """The first size + 1 ids of a conversation, and the loss mask of its targets."""
    loss_mask = store.read_loss_mask(document)[1 : size + 1]
    return Segment(store.read(document, 0, size + 1).astype(np.int32), loss_mask)


@dataclasses.dataclass(frozen=True)
class PackingPlan:
    """Which pieces of which documents make up each row.

    starts: int64 [rows + 1], where each row's pieces begin. document, offset, size: int64 [pieces],
    a piece holds the targets offset..offset + size of its document.
    """

    starts: np.ndarray
    document: np.ndarray
    offset: np.ndarray
    size: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def targets(self) -> int:
        """Target tokens of all rows."""
        return int(self.size.sum())


def window_documents(documents: int, targets: int, length: int) -> int:
    """Documents of a window, so that it has about WINDOW pieces.

    Args:
        documents: how many there are in all.
        targets: their target tokens, in all.
        length: targets that a row holds.
    """
    pieces = max(1.0, targets / max(documents, 1) / length)
    return max(1, min(documents, int(WINDOW / pieces)))


def pack(
    documents: np.ndarray,
    targets: np.ndarray,
    length: int,
    *,
    most: int | None = None,
    cut: bool = True,
) -> PackingPlan:
    """Packs a window of documents into rows, best fit decreasing.

    Args:
        documents: int [documents], their numbers.
        targets: int [documents], how many each has, at least 1.
        length: targets that a row holds.
        most: pieces that a row may hold; None: any number.
        cut: whether documents that would fit may be cut, so that rows close full.
    """
    document, offset, size = _cut(documents, np.asarray(targets, np.int64), length)
    whole = np.flatnonzero(size == length)
    part = np.flatnonzero(size < length)
    part_sizes = size[part].tolist()
    fitted = _best_fit(size[part], length, most)
    rows = [[(p, 0, part_sizes[p]) for p in row] for row in fitted]
    if cut:
        rows = _fill_up(rows, length)
    counts = np.array([1] * len(whole) + [len(row) for row in rows], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3)
    index = np.concatenate([whole, part[pieces[:, 0]]])
    skipped = np.concatenate([np.zeros_like(whole), pieces[:, 1]])
    taken = np.concatenate([size[whole], pieces[:, 2]])
    return PackingPlan(starts, document[index], offset[index] + skipped, taken)


def fill_row(out: Mapping[str, np.ndarray], segments: Iterable[Segment]) -> None:
    """Writes segments into a row: arrays of zeros, [length] each.

    Args:
        out: tokens, targets, positions, segment_ids (from 1), loss_weights; and where there is such
            an array, reference: that of a segment goes to its first position.
        segments: of the row, in order.
    """
    start = 0
    for number, segment in enumerate(segments, start=1):
        size = len(segment.ids) - 1
        part = slice(start, start + size)
        out["tokens"][part], out["targets"][part] = segment.ids[:-1], segment.ids[1:]
        out["positions"][part] = np.arange(size)
        out["segment_ids"][part] = number
        out["loss_weights"][part] = segment.loss_mask
        if "reference" in out:
            out["reference"][start] = segment.reference
        start += size


def _cut(
    documents: np.ndarray, targets: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents as pieces of at most `length` targets: document, offset, size."""
    counts = -(-targets // length)
    document = np.repeat(documents, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    offset = (np.arange(len(document)) - first) * length
    size = np.minimum(length, np.repeat(targets, counts) - offset)
    return document, offset, size


def _best_fit(sizes: np.ndarray, length: int, most: int | None) -> list[list[int]]:
    """Rows of piece indices: the largest piece first, each into the fullest row that takes it."""
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # by free space
    free = 0  # bit s is set where a row with s free positions is open
    for piece in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[piece])
        fitting = free >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            row = open_rows[space].pop()
            if not open_rows[space]:
                free ^= 1 << space
        else:
            space, row = length, len(rows)
            rows.append([])
        rows[row].append(piece)
        if most is not None and len(rows[row]) >= most:
            continue
        open_rows[space - size].append(row)
        free |= 1 << (space - size)
    return rows


def _fill_up(
    rows: list[list[tuple[int, int, int]]], length: int
) -> list[list[tuple[int, int, int]]]:
    """Rows of (piece, start in it, size), of which at most one is emptier than SLACK.

    The fullest of those that are takes from the emptiest, whose pieces are cut where they must be.
    """
    slack = int(length * SLACK)
    space = {number: length - sum(size for *_, size in row) for number, row in enumerate(rows)}
    loose = sorted((number for number in space if space[number] > slack), key=space.__getitem__)
    while len(loose) > 1:
        taker, giver = loose[0], loose[-1]
        # The largest piece: what is left of it is still a piece of text.
        rows[giver].sort(key=lambda part: part[2])
        piece, start, size = rows[giver].pop()
        taken = min(size, space[taker])
        if 0 < size - taken < slack:
            taken = size - slack
        rows[taker].append((piece, start, taken))
        space[taker] -= taken
        space[giver] += taken
        if taken < size:
            rows[giver].append((piece, start + taken, size - taken))
        if space[taker] <= slack:
            loose.pop(0)
        if not rows[giver]:
            loose.pop()
    return [row for row in rows if row]
