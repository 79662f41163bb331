"""The output head with vocabulary entries split over all devices that share the table.

An all-to-all changes each device's shard of the table from some columns of many vocabulary entries
to all columns of some entries, so the table is never gathered. Each device computes the logits of
its entries for the hidden states of its group (the devices that share the table's columns);
reductions over devices give log-probabilities or the argmax.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from marco_jax.decoding.placement import Runtime
from marco_jax.model.cpu import few_rows_product, first_argmax, on_cpu
from marco_jax.model.qwen2 import Qwen2

# The id of padding rows of the table.
_NO_ENTRY = jnp.iinfo(jnp.int32).max

# Logits that `Head.read` computes at once on a device: 16 MiB in float32.
LOGITS = 1 << 22


@dataclasses.dataclass(frozen=True)
class Head:
    """The head's rows for this device's vocabulary entries.

    Attributes:
        table: [vocab / ways, embed] in the dtype of the computation.
        ids: int32 [vocab / ways], the token id of each row; vocab_size or more for padding.
    """

    table: jax.Array
    ids: jax.Array
    runtime: Runtime

    @classmethod
    def of(cls, model: Qwen2, runtime: Runtime) -> Head:
        """Exchanges columns for vocabulary entries over the axes of `embed`, minor axis first."""
        table = model.head.astype(runtime.dtype)
        names = runtime.sharding.names("embed")
        tensor = runtime.sharding.names("vocab")
        entries = table.shape[0]
        table = jnp.pad(table, ((0, -entries % runtime.sharding.ways("embed")), (0, 0)))
        ids = jnp.arange(table.shape[0], dtype=jnp.int32)
        first = jax.lax.axis_index(tensor[0]) * entries if tensor else 0
        ids = jnp.where(ids < entries, first + ids, _NO_ENTRY)
        for name in reversed(names):
            table = jax.lax.all_to_all(table, name, 0, 1, tiled=True)
            size = table.shape[0]
            ids = jax.lax.dynamic_slice_in_dim(ids, jax.lax.axis_index(name) * size, size)
        return cls(table, ids, runtime)

    def read(self, hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities of target tokens (float32), and whether each is the argmax (bool).

        [rows, embed] and int32 [rows, targets] -> both [rows, targets]. Every row of the table
        counts in the normaliser. Logits are computed for a block of vocabulary entries at a time,
        which a CPU's cache holds, with a running maximum and sum.
        """
        names = self.runtime.sharding.names("embed")
        hidden, targets = _gather_group(hidden, names), _gather_group(targets, names)
        entries, shape = self.ids.shape[0], hidden.shape[:-1]
        block = _block(entries, LOGITS // math.prod(shape))

        def read_block(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
            best, first, total, chosen = carry
            # Where blocks do not divide the entries, the last one skips what it has in common.
            start = jnp.minimum(number * block, entries - block)
            logits = self._logits(hidden, start, block)  # [*axes, rows, block]
            if entries % block:
                new = start + jnp.arange(block) >= number * block
                logits = jnp.where(new, logits, -jnp.inf)
            index = targets - self.ids[start]
            mine = (index >= 0) & (index < block) & (targets <= self.ids[start + block - 1])
            found = jnp.take_along_axis(logits, jnp.clip(index, 0, block - 1), axis=-1)
            mine &= found > -jnp.inf
            largest, place = first_argmax(logits)
            new = jnp.maximum(best, largest)
            total = total * jnp.exp(best - new) + jnp.exp(logits - new[..., None]).sum(axis=-1)
            # Blocks are in the order of ids, so an equal logit of a later one is not the first.
            first = jnp.where(largest > best, self.ids[start + place], first)
            return (new, first, total, jnp.where(mine, found, chosen)), None

        least = jnp.full(shape, jnp.finfo(jnp.float32).min)
        none = jnp.full(shape, _NO_ENTRY)
        carry = (least, none, jnp.zeros(shape), jnp.zeros(targets.shape))
        numbers = jnp.arange(-(-entries // block))
        (largest, first, total, chosen), _ = jax.lax.scan(read_block, carry, numbers)
        chosen = self._over_entries(jax.lax.psum, chosen)
        largest, total = largest[..., None], total[..., None]
        best, first = self._first(largest, first[..., None])
        total = self._over_entries(jax.lax.psum, total * jnp.exp(largest - best))
        values = (chosen - best - jnp.log(total), first == targets)
        return _own(values[0], names), _own(values[1], names)

    def argmax(self, hidden: jax.Array) -> jax.Array:
        """The likeliest token of the tokenizer's vocabulary: [rows, embed] -> int32 [rows]."""
        logits = self._logits(_gather_group(hidden, self.runtime.sharding.names("embed")))
        if self.runtime.emitted_vocab_size < self.runtime.config.vocab_size:
            logits = jnp.where(self.ids < self.runtime.emitted_vocab_size, logits, -jnp.inf)
        _, first = self._best(logits)
        return _own(first[..., 0], self.runtime.sharding.names("embed"))

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits of the whole vocabulary for this device's rows: float32 [rows, vocab]."""
        logits = self._logits(_gather_group(hidden, self.runtime.sharding.names("embed")))
        for name in self.runtime.sharding.names("embed"):
            logits = jax.lax.all_to_all(logits, name, 0, logits.ndim - 1, tiled=True)[0]
        tensor = self.runtime.sharding.names("vocab")
        entries = self.runtime.config.vocab_size // (self.runtime.sharding.ways("vocab"))
        logits = logits[:, :entries]
        for name in tensor:
            logits = jax.lax.all_gather(logits, name, axis=1, tiled=True)
        return logits

    def _logits(
        self, hidden: jax.Array, start: jax.Array | int = 0, size: int | None = None
    ) -> jax.Array:
        """Logits of `size` of this device's entries (all by default) from `start` on.

        [*axes, rows, embed], the hidden states of the group -> float32 [*axes, rows, size].
        """
        size = size or self.ids.shape[0]
        table = jax.lax.dynamic_slice_in_dim(self.table, start, size)
        rows = hidden.reshape(-1, hidden.shape[-1])
        if on_cpu(self.runtime.sharding):
            logits = few_rows_product(rows, table)
        else:
            logits = jnp.einsum("re,we->rw", rows, table, preferred_element_type=jnp.float32)
        if self.runtime.sharding.names("embed"):
            ids = jax.lax.dynamic_slice_in_dim(self.ids, start, size)
            logits = jnp.where(ids < self.runtime.config.vocab_size, logits, -jnp.inf)
        return logits.reshape(*hidden.shape[:-1], -1)

    def _best(self, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The largest logit and the lowest id that has it, both [..., rows, 1]."""
        largest, index = first_argmax(logits)
        return self._first(largest[..., None], self.ids[index][..., None])

    def _first(self, largest: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The largest of all devices' logits, and the lowest of their ids that has it."""
        best = self._over_entries(jax.lax.pmax, largest)
        return best, self._over_entries(jax.lax.pmin, jnp.where(largest == best, ids, _NO_ENTRY))

    def _over_entries(self, reduce: Callable, x: jax.Array) -> jax.Array:
        """Reduces over the mesh axes whose ranks hold different vocabulary entries."""
        names = self.runtime.sharding.names("vocab") + self.runtime.sharding.names("embed")
        return reduce(x, names) if names else x


def _gather_group(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """Gathers the arrays of all devices of the group: [*axes, ...]."""
    for name in reversed(names):
        x = jax.lax.all_gather(x, name)
    return x


def _own(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """This device's part of an array from `_gather_group`."""
    for name in names:
        x = jax.lax.dynamic_index_in_dim(x, jax.lax.axis_index(name), keepdims=False)
    return x


def _block(entries: int, most: int) -> int:
    """The size of blocks of about `most` entries: a divisor of `entries` if one is large enough."""
    most = min(entries, max(128, most // 128 * 128))
    return next((size for size in range(most, most // 2, -1) if entries % size == 0), most)
