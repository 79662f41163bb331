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
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from marco_jax.model.attention import ContextRank
from marco_jax.model.cpu import matrix_product, on_cpu
from marco_jax.model.mesh import Sharding
from marco_jax.model.qwen2_config import Qwen2Config


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
    """

    config: Qwen2Config
    sharding: Sharding
    attention: str = "xla"
    vocab_axis: str | None = None

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
        return weight

    def adapter(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """Casts and gathers a matrix of an adapter, like `weight`.

        One of an adapter's two matrices is not split over tensor. Each tensor rank then computes a
        part of its gradient, and the parts are summed.
        """
        shared = any("tensor" in self.sharding.names(axis) for axis in axes)
        if self._tensor > 1 and not shared and "kv_heads" not in axes:
            weight = _copy(weight, "tensor")
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
        if on_cpu(self.sharding):
            return matrix_product(x, kernel, inputs)
        if not frozen:
            x, kernel = _finish_together(x, kernel, axes.index("embed"))
        return jnp.tensordot(x, kernel, axes=inputs)

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
            rows = _rows(table, jnp.where(mine, row, 0)).astype(dtype)
            rows = self.from_tensor_ranks(jnp.where(mine[..., None], rows, 0))
        else:
            rows = _rows(table, tokens).astype(dtype)
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
        return _copy(x, "tensor") if self._tensor > 1 else x

    def from_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Sums partial products over tensor ranks."""
        return _sum(x, "tensor") if self._tensor > 1 else x

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
        return _sum(x, "context") if self.sharding.ways("length") > 1 else x

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
        weight = _copy(weight, "tensor")
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


# A TPU lowers a reduce-scatter to an all-reduce and a slice, at twice the bytes, unless the parts
# fit its tiles. These shapes keep it native (compiled for axes of 4, 8 and 16, libtpu 0.0.42): a
# multiple of 256 columns of the last dimension per part; or, for layer matrices along `embed`, a
# multiple of 32 rows per part, with a multiple of 128 columns.
_COLUMNS, _ROWS, _LANES = (512, 256), 32, 128


def gather(x: jax.Array, names: Sequence[str], dimension: int) -> jax.Array:
    """All-gathers a dimension over mesh axes (given major first), one at a time, minor axis first.

    The gradient is reduce-scattered in the reverse order. Each sends (n - 1) / n of the whole
    array for n ranks in total, however the ranks are divided into axes.
    """
    for name in reversed(names):
        x = _gather(x, name, dimension)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, name: str, dimension: int) -> jax.Array:
    return jax.lax.all_gather(x, name, axis=dimension, tiled=True)


def _scatter(name: str, dimension: int, _: None, x: jax.Array) -> tuple[jax.Array]:
    """Reduce-scatters a dimension, in a shape for which the TPU has a native reduce-scatter."""
    ways = jax.lax.axis_size(name)
    part = x.shape[dimension] // ways
    size = x.size // ways
    rows = jnp.moveaxis(x, dimension, 0)
    columns = next((width for width in _COLUMNS if size % width == 0), None)
    if columns is None or (part % _ROWS == 0 and x.shape[-1] % _LANES == 0):
        shard = jax.lax.psum_scatter(rows, name, tiled=True)
        return (jnp.moveaxis(shard, 0, dimension),)
    blocks = jnp.swapaxes(rows.reshape(ways, size // columns, columns), 0, 1)
    shard = jax.lax.psum_scatter(
        blocks.reshape(-1, ways * columns), name, scatter_dimension=1, tiled=True
    )
    return (jnp.moveaxis(shard.reshape(part, *rows.shape[1:]), 0, dimension),)


_gather.defvjp(lambda x, name, dimension: (_gather(x, name, dimension), None), _scatter)


def _rows(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows of a table [vocab, columns]; its gradient is summed in float32, whatever the dtype."""
    return _take(table, rows, table.shape[0], table.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _take(table: jax.Array, rows: jax.Array, vocab: int, dtype: jnp.dtype) -> jax.Array:
    return table[rows]


def _add(vocab: int, dtype: jnp.dtype, rows: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
    total = jnp.zeros((vocab, grad.shape[-1]), jnp.float32)
    return total.at[rows].add(grad.astype(jnp.float32)).astype(dtype), None


_take.defvjp(lambda table, rows, vocab, dtype: (table[rows], rows), _add)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _finish_together(
    x: jax.Array, kernel: jax.Array, scattered: int
) -> tuple[jax.Array, jax.Array]:
    """Identity, whose backward pass computes the kernel's gradient before it continues from x's.

    Otherwise the TPU's scheduler delays the gradients of kernels and keeps their inputs alive, such
    as an MLP's activations during the backward pass of attention. The barrier holds the kernel's
    gradient with the dimension in front that will be scattered, as a native reduce-scatter needs.
    """
    return x, kernel


def _finish(scattered: int, _: None, grads: tuple) -> tuple[jax.Array, jax.Array]:
    dx, dkernel = grads
    dx, dkernel = jax.lax.optimization_barrier((dx, jnp.moveaxis(dkernel, scattered, 0)))
    return dx, jnp.moveaxis(dkernel, 0, scattered)


_finish_together.defvjp(lambda x, kernel, scattered: ((x, kernel), None), _finish)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _copy(x: jax.Array, name: str) -> jax.Array:
    """Identity, whose gradient is summed over the ranks of a mesh axis."""
    return x


_copy.defvjp(lambda x, name: (x, None), lambda name, _, grad: (jax.lax.psum(grad, name),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum(x: jax.Array, name: str) -> jax.Array:
    """Sums over the ranks of a mesh axis; every rank already holds the gradient of the sum."""
    return jax.lax.psum(x, name)


_sum.defvjp(lambda x, name: (jax.lax.psum(x, name), None), lambda name, _, grad: (grad,))
