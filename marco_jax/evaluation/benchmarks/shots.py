"""Chooses the shots of each item.

"random" and "first_n" draw exactly as lm-evaluation-harness 0.4.13 does: one generator per task,
seeded with 1234 and used by the items in order, so that the same items get the same shots, and a
limit does not change the shots of the items that it keeps.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from marco_jax.evaluation.benchmarks.items import Item
from marco_jax.evaluation.benchmarks.row_files import DataError
from marco_jax.evaluation.benchmarks.spec import Sampler

HARNESS_SEED = 1234
# The paper authors' later harness shuffles the pool with this seed and takes its first examples.
AUTHORS_SEED = 42


class ShotSampler:
    """Draws the shots of one task, item after item in the order of its file."""

    def __init__(
        self, kind: Sampler, pool: Sequence[Item], shots: int, excludes_item: bool
    ) -> None:
        """Prepares a sampler for a pool of examples in the order of their file.

        The kind "by_content" sorts the pool by a hash of the texts and takes the first, so that
        the order of lines in the file does not matter. Unless `excludes_item` leaves out rows that
        equal the item, an item from the pool's split may have itself, with its answer, as a shot.
        """
        self._kind, self._shots, self._excludes = kind, shots, excludes_item
        self._random = random.Random(HARNESS_SEED)
        self._pool = list(pool)
        if kind == "by_content":
            self._pool.sort(key=_digest)
        elif kind == "shuffled_42":
            random.Random(AUTHORS_SEED).shuffle(self._pool)

    def draw(self, item: Item) -> list[Item]:
        """Draws the shots of an item.

        Raises:
            DataError: the pool is too small.
        """
        if not self._shots:
            return []
        if self._kind == "random":
            drawn = self._draw_random(item)
        else:
            drawn = self._without(item, self._pool)[: self._shots]
        if len(drawn) < self._shots:
            self._too_few(len(drawn))
        return drawn

    def _draw_random(self, item: Item) -> list[Item]:
        extra = int(self._excludes)
        if self._shots + extra > len(self._pool):
            self._too_few(len(self._pool) - extra)
        drawn = self._random.sample(self._pool, self._shots + extra)
        drawn = self._without(item, drawn)[: self._shots]
        if len(drawn) < self._shots:
            # More than one of the rows drawn equals the item.
            others = self._without(item, self._pool)
            if len(others) < self._shots:
                self._too_few(len(others))
            drawn = self._random.sample(others, self._shots)
        return drawn

    def _without(self, item: Item, items: Sequence[Item]) -> list[Item]:
        if not self._excludes:
            return list(items)
        return [other for other in items if other.row.fields != item.row.fields]

    def _too_few(self, count: int) -> None:
        path = self._pool[0].row.location.rpartition(":")[0] if self._pool else ""
        raise DataError(
            f"shots is {self._shots}: {path or 'the few-shot split'} has {max(count, 0)} examples "
            "to show, set fewer shots"
        )


def _digest(item: Item) -> bytes:
    parts = [*item.texts.values(), *item.options, *map(str, item.gold), *item.references]
    return hashlib.sha256("\0".join(parts).encode()).digest()
