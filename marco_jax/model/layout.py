"""Layouts: how the arrays of the model are sharded, and which collectives it runs.

The model calls a layout wherever a sharded program differs from an unsharded one. `Plain` is for
whole arrays. With `Manual` the model runs inside `jax.shard_map`, where every array is one device's
shard, and these collectives are explicit:

- A weight is cast and all-gathered over fsdp at each use; its gradient is reduce-scattered.
- Each tensor rank holds some heads and features; their partial products are summed.
- Each context rank holds two parts of every row; keys and values are all-gathered.
- Each rank holds some columns of the embedding table, looks up tokens of all ranks in them, and
  sends the results to the ranks of the tokens.

Each collective runs over one mesh axis at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from marco_jax.model.attention import ContextRank
from marco_jax.model.collectives import (
    copy_to_ranks,
    finish_together,
    gather,
    leave_together,
    rows_of,
    sum_over_ranks,
)
from marco_jax.model.cpu import matrix_product, on_cpu
from marco_jax.model.mesh import Sharding
from marco_jax.model.quantized import quantized_product
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.model.remat import GATHERED, named


@dataclasses.dataclass(frozen=True)
class Plain:
    """The layout of whole arrays: no collectives; under jit XLA partitions as its inputs are."""

    attention: str = "xla"

    @property
    def context(self) -> ContextRank:
        """The only rank: rows are not split."""
        return ContextRank()

    def weight(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """Prepares a parameter with these logical axes for a product."""
        return weight.astype(dtype)

    # A matrix of an adapter is prepared in the same way.
    adapter = weight

    def product(
        self,
        x: jax.Array,
        kernel: jax.Array,
        axes: Sequence[str],
        inputs: int,
        frozen: bool = False,
    ) -> jax.Array:
        """Multiplies [..., *inputs] by a kernel [*inputs, *outputs] with these logical axes."""
        return jnp.tensordot(x, kernel, axes=inputs)

    def leave_together(self, x: jax.Array, *weights: jax.Array) -> tuple[jax.Array, ...]:
        """Returns its arguments: nothing of whole weights' gradients is ordered."""
        return (x, *weights)

    def lookup(self, table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Looks up embeddings of tokens: [batch, length] -> [batch, length, embed]."""
        return table.astype(dtype)[tokens]

    def to_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Prepares an activation for products whose outputs are split over tensor ranks."""
        return x

    def from_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Sums the partial products of tensor ranks."""
        return x

    def gather_length(self, x: jax.Array) -> jax.Array:
        """Gathers whole rows: [batch, length / context, ...] -> [batch, length, ...]."""
        return x


@dataclasses.dataclass(frozen=True)
class Manual:
    """The layout of one device's shards inside shard_map, with explicit collectives.

    Every method takes and returns the device's shards. Parameters are stored as the sharding rules
    split them: along `embed` over fsdp and context, along heads and features over tensor. `weight`
    gathers the former axes when a layer needs the parameter, and the custom gradient of `gather`
    reduce-scatters, so that gradients come back summed over those axes and split like the
    parameters. The tensor axis is never gathered: `to_tensor_ranks` enters a region where every
    rank computes its heads or features (its gradient sums over ranks), and `from_tensor_ranks`
    leaves it by summing partial products (its gradient is the identity). Gradients are not summed
    over axes that do not split a parameter, such as data; training does that.

    `vocab_axis` is the mesh axis, besides tensor, that splits the vocabulary in the loss.
    `quantize` is one of quantized.QUANTIZATIONS, for the products with kernels.
    `keep_gathered` keeps the gathered weights of all layers from the forward to the backward pass,
    which otherwise gathers them again.
    """

    config: Qwen2Config
    sharding: Sharding
    attention: str = "xla"
    vocab_axis: str | None = None
    keep_gathered: bool = False
    quantize: str = "none"

    @property
    def context(self) -> ContextRank:
        """The rank of this device, which determines its parts of the rows."""
        ranks = self.sharding.ways("length")
        return ContextRank(jax.lax.axis_index("context") if ranks > 1 else 0, ranks)

    def weight(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """Casts a parameter's shard, then all-gathers every axis but tensor."""
        weight = weight.astype(dtype)
        if "kv_heads" in axes and self._tensor > 1 and not self.sharding.names("kv_heads"):
            weight = self._own_kv_heads(weight, axes.index("kv_heads"))
        for dimension, axis in enumerate(axes):
            names = [name for name in self.sharding.names(axis) if name != "tensor"]
            weight = gather(weight, names, dimension)
        return named(weight, GATHERED) if self.keep_gathered else weight

    def adapter(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """Casts and gathers a matrix of an adapter, like `weight`.

        One of an adapter's two matrices is not split over tensor. Each tensor rank then computes a
        part of its gradient, and the parts are summed.
        """
        shared = any("tensor" in self.sharding.names(axis) for axis in axes)
        if self._tensor > 1 and not shared and "kv_heads" not in axes:
            weight = copy_to_ranks(weight, "tensor")
        return self.weight(weight, axes, dtype)

    def product(
        self,
        x: jax.Array,
        kernel: jax.Array,
        axes: Sequence[str],
        inputs: int,
        frozen: bool = False,
    ) -> jax.Array:
        """Multiplies [..., *inputs] by a kernel [*inputs, *outputs] with these logical axes.

        `frozen` means that the kernel needs no gradient.
        """
        cpu = on_cpu(self.sharding)
        if not frozen and not cpu:
            x, kernel = finish_together(x, kernel, axes.index("embed"))
        if self.quantize != "none":
            return quantized_product(x, kernel, inputs, self.quantize)
        return matrix_product(x, kernel, inputs) if cpu else jnp.tensordot(x, kernel, axes=inputs)

    def leave_together(self, x: jax.Array, *weights: jax.Array) -> tuple[jax.Array, ...]:
        """Returns x and weights that are used later, and orders the scatters of their gradients.

        It is called where x enters a part of the model. The backward pass leaves the part, from x,
        only with these gradients reduce-scattered, so that the scatters run during the part's
        products. The TPU's scheduler alone would move them to the end of the layer, where no
        product is left to hide them.
        """
        if on_cpu(self.sharding) or not self.sharding.names("embed"):
            return (x, *weights)
        return leave_together(x, *weights)

    def lookup(self, table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Looks up embeddings of tokens: [batch, length] -> [batch, length, embed].

        The table is split by columns (`embed`) over ranks that hold different tokens. These ranks
        all-gather their token ids, each looks up all of them in its own columns, and an all-to-all
        sends each rank all columns of its own tokens. With many tokens it is cheaper to gather
        columns of the table over the minor axes first (`_exchanged_axes`). Vocabulary entries are
        split over tensor ranks: a rank contributes zeros for entries of the others, and a sum adds
        up the contributions.
        """
        exchanged = self._exchanged_axes(table, tokens.size)
        gathered = self.sharding.names("embed")[len(exchanged) :]
        table = gather(table.astype(dtype), gathered, 1) if gathered else table
        sizes = [self.sharding.mesh.shape[name] for name in exchanged]
        batch, length = tokens.shape
        for name in reversed(exchanged):
            tokens = jax.lax.all_gather(tokens, name)  # [*axes, batch, length] in the end
        if self._tensor > 1:
            row = tokens - jax.lax.axis_index("tensor") * table.shape[0]
            mine = (row >= 0) & (row < table.shape[0])
            rows = rows_of(table, jnp.where(mine, row, 0)).astype(dtype)
            rows = self.from_tensor_ranks(jnp.where(mine[..., None], rows, 0))
        else:
            rows = rows_of(table, tokens).astype(dtype)
        # [*axes, batch, length, embed / ways] -> [batch, length, embed]
        for name in reversed(exchanged):
            dimension = len(sizes) - 1
            rows = jax.lax.all_to_all(rows, name, dimension, rows.ndim - 1, tiled=True)
            rows = jnp.squeeze(rows, dimension)
            sizes.pop()
        return rows.reshape(batch, length, -1)

    def _exchanged_axes(self, table: jax.Array, tokens: int) -> tuple[str, ...]:
        """The major axes of `embed` over which tokens are exchanged; the others gather columns.

        Of all divisions into major and minor axes, the one that sends the fewest values: of
        columns [vocab, embed / ways] and of embeddings [tokens, embed].
        """
        names = self.sharding.names("embed")
        sizes = [self.sharding.mesh.shape[name] for name in names]

        def sent_values(exchanged: int) -> float:
            columns = table.size * (math.prod(sizes[exchanged:]) - 1)
            rows = tokens * self.config.hidden_size
            return columns + rows * sum(1 - 1 / size for size in sizes[:exchanged])

        return names[: min(range(len(names), -1, -1), key=sent_values)]

    def to_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Returns x, and sums its gradient over tensor ranks."""
        return copy_to_ranks(x, "tensor") if self._tensor > 1 else x

    def from_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Sums partial products over tensor ranks."""
        return sum_over_ranks(x, "tensor") if self._tensor > 1 else x

    def gather_length(self, x: jax.Array) -> jax.Array:
        """Gathers rows from context ranks and restores their order (see `zigzag`)."""
        ranks = self.sharding.ways("length")
        if ranks == 1:
            return x
        x = jax.lax.all_gather(x, "context", axis=1)  # [batch, ranks, length / ranks, ...]
        batch, _, length, *rest = x.shape
        halves = x.reshape(batch, ranks, 2, length // 2, *rest)
        whole = jnp.concatenate([halves[:, :, 0], halves[:, ::-1, 1]], axis=1)
        return whole.reshape(batch, ranks * length, *rest)

    def sum_length(self, x: jax.Array) -> jax.Array:
        """Completes sums over the positions of rows: adds up those of context ranks."""
        return sum_over_ranks(x, "context") if self.sharding.ways("length") > 1 else x

    def head(self, table: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """The output matrix of this rank's vocabulary entries: [embed, vocab / ways].

        The shard of the table has all of a tensor rank's vocabulary entries and some columns. An
        all-to-all over `vocab_axis` trades entries for columns; the other axes gather columns.
        """
        columns = table.astype(dtype)
        names = list(self.sharding.names("embed"))
        if self.vocab_axis:
            # Axes minor to vocab_axis are gathered before the exchange, major ones after it.
            later = names[names.index(self.vocab_axis) + 1 :]
            columns = jnp.swapaxes(gather(jnp.swapaxes(columns, 0, 1), later, 0), 0, 1)
            columns = jax.lax.all_to_all(columns, self.vocab_axis, 0, 1, tiled=True)
            names = names[: names.index(self.vocab_axis)]
        return gather(jnp.swapaxes(columns, 0, 1), names, 0)

    @property
    def exchange_ranks(self) -> int:
        """The number of ranks that share their tokens in the loss, as they split the vocabulary."""
        return self.sharding.mesh.shape[self.vocab_axis] if self.vocab_axis else 1

    def head_entries(self, entries: int) -> int:
        """The number of vocabulary entries that `head` returns, for a table shard of `entries`."""
        return entries // self.exchange_ranks

    @property
    def vocab_axes(self) -> tuple[str, ...]:
        """Mesh axes whose ranks hold different vocabulary entries in the loss, major first."""
        tensor = ("tensor",) if self._tensor > 1 else ()
        return tensor + ((self.vocab_axis,) if self.vocab_axis else ())

    @property
    def token_axes(self) -> tuple[str, ...]:
        """Mesh axes whose ranks hold different tokens."""
        return self.sharding.names("batch") + self.sharding.names("length")

    @property
    def _tensor(self) -> int:
        return self.sharding.mesh.shape["tensor"]

    def _own_kv_heads(self, weight: jax.Array, dimension: int) -> jax.Array:
        """The KV heads that this rank's query heads use, of replicated KV heads."""
        kv_heads, heads = self.config.num_key_value_heads, self.config.num_attention_heads
        count = max(1, kv_heads // self._tensor)
        first = jax.lax.axis_index("tensor") * (heads // self._tensor) // (heads // kv_heads)
        weight = copy_to_ranks(weight, "tensor")
        return jax.lax.dynamic_slice_in_dim(weight, first, count, dimension)


Layout = Plain | Manual


def zigzag(x: jax.Array, ranks: int) -> jax.Array:
    """Reorders [batch, length] so that each context rank gets an equal share of attention work.

    A row is cut into 2 * ranks parts, and rank r gets parts r and 2 * ranks - 1 - r. Under a causal
    mask an early part attends to few keys and a late one to many; the sum is the same for every
    pair. `Manual.gather_length` restores the order.
    """
    if ranks == 1:
        return x
    order = jnp.stack([jnp.arange(ranks), 2 * ranks - 1 - jnp.arange(ranks)], axis=1).reshape(-1)
    pieces = x.reshape(x.shape[0], 2 * ranks, -1)
    return pieces[:, order].reshape(x.shape)
