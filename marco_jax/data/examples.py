"""What is packed into sequences: texts, conversations, or pairs of conversations.

Inputs and targets of a text are taken from [EOS] + ids + [EOS]: the first EOS predicts the first
token, the last one is a target. Every target of a text is trained on, and a text may be cut. A
conversation is its ids alone, and its loss mask says which targets are trained on; one that is
longer than a sequence loses its end. A pair is the chosen conversation followed by the rejected
one, and stands in one sequence or in none.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from marco_jax.data.store import CONVERSATIONS, PREFERENCES, TEXTS, TokenStore


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
        targets: targets of all of them together, whether they are trained on or not.
        may_be_cut: whether pieces of one may stand in several sequences.
    """

    count: int
    targets: int
    may_be_cut: bool

    def sizes(self, numbers: np.ndarray, length: int) -> np.ndarray:
        """Targets of each, int64; 0 for one that does not fit into `length` targets."""
        ...

    def segments(self, number: int, offset: int, size: int) -> list[Segment]:
        """The segments with the targets offset..offset + size of an example."""
        ...

    def language(self, number: int) -> int:
        """The index of its language in the store's languages."""
        ...

    def left_out(self, length: int) -> dict[str, int]:
        """How many examples are cut or left out at this length, by which; only above zero."""
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
        return np.clip(self._store.lengths[numbers].astype(np.int64) - 1, 0, length)

    def segments(self, number: int, offset: int, size: int) -> list[Segment]:
        return [_conversation(self._store, number, size)]

    def language(self, number: int) -> int:
        return self._store.language(number)

    def left_out(self, length: int) -> dict[str, int]:
        cut = int((self._store.lengths > length + 1).sum())
        return {"cut": cut} if cut else {}


class _Preferences:
    may_be_cut = False

    def __init__(self, store: TokenStore, reference: np.ndarray | None) -> None:
        self._store, self._reference = store, reference
        self.count, self.targets = len(store.lengths) // 2, store.tokens - len(store.lengths)

    def sizes(self, numbers: np.ndarray, length: int) -> np.ndarray:
        lengths = self._store.lengths
        sizes = lengths[2 * numbers].astype(np.int64) + lengths[2 * numbers + 1] - 2
        return np.where(sizes <= length, sizes, 0)

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
        left_out = int((self.sizes(np.arange(self.count), length) == 0).sum())
        return {"left_out": left_out} if left_out else {}


def _conversation(store: TokenStore, document: int, size: int) -> Segment:
    """The first size + 1 ids of a conversation, and the loss mask of its targets."""
    loss_mask = store.read_loss_mask(document)[1 : size + 1]
    return Segment(store.read(document, 0, size + 1).astype(np.int32), loss_mask)
