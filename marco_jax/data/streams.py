"""What is packed: whole texts, conversations, or pairs of conversations.

A text's stream is [separator] + ids + [separator], all of it learnt, and may be cut. A conversation
is its ids alone, of which the weights say what is learnt; one that is longer than a row loses its
end. A pair is the chosen conversation, then the rejected one: it stands in one row or in none.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from marco_jax.data.store import CONVERSATIONS, PREFERENCES, TEXTS, TokenStore


class Stream(NamedTuple):
    """A segment of a row.

    ids: int32 [size + 1], inputs and targets. weights: float32 [size], 1 where a target is learnt.
    reference: log-probability of all learnt targets under the reference model, of a preference.
    """

    ids: np.ndarray
    weights: np.ndarray
    reference: float = 0.0


class Units(Protocol):
    """The units of a store, by number.

    Attributes:
        count: how many there are.
        places: targets of all of them together, learnt or not.
        may_be_cut: whether their pieces may stand in several rows.
    """

    count: int
    places: int
    may_be_cut: bool

    def sizes(self, units: np.ndarray, length: int) -> np.ndarray:
        """Targets of each, int64; 0 for one that rows of `length` targets cannot take."""
        ...

    def streams(self, unit: int, offset: int, size: int) -> list[Stream]:
        """The segments of a piece that holds the targets offset..offset + size of a unit."""
        ...

    def language(self, unit: int) -> int:
        """The place of its language in the store's languages."""
        ...

    def left_out(self, length: int) -> dict[str, int]:
        """How many units rows of `length` targets cut, or leave out; no entry for none."""
        ...


def create_units(store: TokenStore, separator: int, reference: np.ndarray | None = None) -> Units:
    """The units of a store, by its kind; `separator` is the id between texts.

    `reference`, float32 [documents], is what preferences are compared with, where it is cached.
    """
    if store.kind == TEXTS:
        return _Texts(store, separator)
    if store.kind == CONVERSATIONS:
        return _Conversations(store)
    if store.kind == PREFERENCES:
        return _Preferences(store, reference)
    raise ValueError(f"{store.directory} holds {store.kind!r}: delete it, it will be made again")


class _Texts:
    may_be_cut = True

    def __init__(self, store: TokenStore, separator: int) -> None:
        self._store, self._separator = store, separator
        self.count, self.places = len(store.lengths), store.targets

    def sizes(self, units: np.ndarray, length: int) -> np.ndarray:
        return self._store.lengths[units].astype(np.int64) + 1

    def streams(self, unit: int, offset: int, size: int) -> list[Stream]:
        length = int(self._store.lengths[unit])
        ids = self._store.read(unit, max(0, offset - 1), min(length, offset + size))
        before = [self._separator] if offset == 0 else []
        after = [self._separator] if offset + size > length else []
        stream = np.concatenate([before, ids, after]).astype(np.int32)
        return [Stream(stream, np.ones(size, np.float32))]

    def language(self, unit: int) -> int:
        return 0

    def left_out(self, length: int) -> dict[str, int]:
        return {}


class _Conversations:
    may_be_cut = False

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self.count, self.places = len(store.lengths), store.tokens - len(store.lengths)

    def sizes(self, units: np.ndarray, length: int) -> np.ndarray:
        return np.clip(self._store.lengths[units].astype(np.int64) - 1, 0, length)

    def streams(self, unit: int, offset: int, size: int) -> list[Stream]:
        return [_conversation(self._store, unit, size)]

    def language(self, unit: int) -> int:
        return self._store.language(unit)

    def left_out(self, length: int) -> dict[str, int]:
        cut = int((self._store.lengths > length + 1).sum())
        return {"cut": cut} if cut else {}


class _Preferences:
    may_be_cut = False

    def __init__(self, store: TokenStore, reference: np.ndarray | None) -> None:
        self._store, self._reference = store, reference
        self.count, self.places = len(store.lengths) // 2, store.tokens - len(store.lengths)

    def sizes(self, units: np.ndarray, length: int) -> np.ndarray:
        lengths = self._store.lengths
        sizes = lengths[2 * units].astype(np.int64) + lengths[2 * units + 1] - 2
        return np.where(sizes <= length, sizes, 0)

    def streams(self, unit: int, offset: int, size: int) -> list[Stream]:
        sides = []
        for document in (2 * unit, 2 * unit + 1):
            side = _conversation(self._store, document, int(self._store.lengths[document]) - 1)
            if self._reference is not None:
                side = side._replace(reference=float(self._reference[document]))
            sides.append(side)
        return sides

    def language(self, unit: int) -> int:
        return self._store.language(2 * unit)

    def left_out(self, length: int) -> dict[str, int]:
        left_out = int((self.sizes(np.arange(self.count), length) == 0).sum())
        return {"left_out": left_out} if left_out else {}


def _conversation(store: TokenStore, document: int, size: int) -> Stream:
    """The first size + 1 ids of a conversation, and the weights of those that are targets."""
    weights = store.read_weights(document)[1 : size + 1]
    return Stream(store.read(document, 0, size + 1).astype(np.int32), weights)
