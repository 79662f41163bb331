"""Where the arrays of a program lie, and who writes its collectives.

The model calls a layout at the places where a sharded program differs from a plain one. Under
`Automatic` the compiler inserts collectives from constraints: decoding, scoring and plain use.
Under `Manual` (inside `jax.shard_map`, for training) every array is a device's own shard, and the
collectives are these, each over one mesh axis at a time:

- a weight is cast, then gathered over fsdp at each use; its gradient is reduce-scattered;
- tensor ranks hold some heads and features: partial products are summed where they meet;
- context ranks hold pieces of every row: keys and values are gathered;
- embeddings are looked up where the table's columns lie, and exchanged.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from marco_jax.model.attention import ContextRank
from marco_jax.model.mesh import Sharding
from marco_jax.model.qwen2_config import Qwen2Config


@dataclasses.dataclass(frozen=True)
class Automatic:
    """The compiler's layout: whole arrays, constraints where a sharding is given."""

    sharding: Sharding | None = None
    attention: str = "xla"

    @property
    def context(self) -> ContextRank:
        """Whole rows."""
        return ContextRank()

    def weight(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """A parameter of these logical axes, ready to multiply with."""
        return weight.astype(dtype)

    def adapter(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """A matrix of an adapter, ready to multiply with."""
        return weight.astype(dtype)

    def product(
        self,
        x: jax.Array,
        kernel: jax.Array,
        axes: Sequence[str],
        inputs: int,
        frozen: bool = False,
    ) -> jax.Array:
        """[..., *inputs] times a kernel of logical `axes`, of which the first are the inputs."""
        return jnp.tensordot(x, kernel, axes=inputs)

    def lookup(self, table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Rows of an embedding table: [batch, length] -> [batch, length, embed]."""
        return table.astype(dtype)[tokens]

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Pins an activation to the rules of its logical axes."""
        return x if self.sharding is None else self.sharding.constrain(x, *axes)

    def to_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """An activation as the input of products that tensor ranks share."""
        return x

    def from_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """The sum of what tensor ranks hold of a product."""
        return x

    def gather_length(self, x: jax.Array) -> jax.Array:
        """All places of the rows, in their order: [batch, length / context, ...] -> whole."""
        return x


@dataclasses.dataclass(frozen=True)
class Manual:
    """A device's shard inside shard_map; collectives are explicit.

    `vocab_axis` is the mesh axis, besides tensor, that shares out the vocabulary in the loss.
    """

    config: Qwen2Config
    sharding: Sharding
    attention: str = "xla"
    vocab_axis: str | None = None

    @property
    def context(self) -> ContextRank:
        """Which pieces of the rows lie here."""
        ranks = self.sharding.ways("length")
        return ContextRank(jax.lax.axis_index("context") if ranks > 1 else 0, ranks)

    def weight(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """Casts a shard, then gathers it whole but for its tensor axis."""
        weight = weight.astype(dtype)
        if "kv_heads" in axes and self._tensor > 1 and not self.sharding.names("kv_heads"):
            weight = self._own_kv_heads(weight, axes.index("kv_heads"))
        for dimension, axis in enumerate(axes):
            names = [name for name in self.sharding.names(axis) if name != "tensor"]
            weight = gather(weight, names, dimension)
        return weight

    def adapter(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """A matrix of an adapter, gathered like `weight`.

        One of the two lies whole on all tensor ranks, which make parts of its gradient.
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
        """[..., *inputs] times a kernel of logical `axes`, of which the first are the inputs.

        `frozen`: the kernel has no gradient. On a CPU as one product of two matrices: of rows in
        two dimensions it makes the kernel's gradient at half the speed. On a TPU that would cost
        memory: layouts differ.
        """
        if self.sharding.platform != "cpu":
            if not frozen:
                x, kernel = _finish_together(x, kernel, axes.index("embed"))
            return jnp.tensordot(x, kernel, axes=inputs)
        rows, outputs = x.shape[: x.ndim - inputs], kernel.shape[inputs:]
        size = math.prod(kernel.shape[:inputs])
        y = x.reshape(-1, size) @ kernel.reshape(size, -1)
        return y.reshape(*rows, *outputs)

    def lookup(self, table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Looks the group's tokens up in the columns held here, and exchanges columns for tokens.

        Where there are many tokens the minor axes gather their columns of the table first.
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
        # [*axes, batch, length, embed / ways]: give each rank its tokens, take all columns.
        for name in reversed(exchanged):
            dimension = len(sizes) - 1
            rows = jax.lax.all_to_all(rows, name, dimension, rows.ndim - 1, tiled=True)
            rows = jnp.squeeze(rows, dimension)
            sizes.pop()
        return rows.reshape(batch, length, -1)

    def _exchanged_axes(self, table: jax.Array, tokens: int) -> tuple[str, ...]:
        """The major axes of `embed` that exchange rows; the others gather columns.

        Whichever cut puts the fewest values on the wire, of columns [words, embed / ways] and
        of rows [tokens, embed].
        """
        names = self.sharding.names("embed")
        sizes = [self.sharding.mesh.shape[name] for name in names]

        def values(kept: int) -> float:
            columns = table.size * (math.prod(sizes[kept:]) - 1)
            rows = tokens * self.config.hidden_size
            return columns + rows * sum(1 - 1 / size for size in sizes[:kept])

        return names[: min(range(len(names), -1, -1), key=values)]

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Nothing: a shard lies where it is."""
        return x

    def to_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """The same array on all tensor ranks, whose gradients are summed."""
        return _copy(x, "tensor") if self._tensor > 1 else x

    def from_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Sums partial products over tensor ranks."""
        return _sum(x, "tensor") if self._tensor > 1 else x

    def gather_length(self, x: jax.Array) -> jax.Array:
        """Gathers the pieces of rows from context ranks and puts them in order."""
        ranks = self.sharding.ways("length")
        if ranks == 1:
            return x
        x = jax.lax.all_gather(x, "context", axis=1)  # [batch, ranks, length / ranks, ...]
        batch, _, length, *rest = x.shape
        halves = x.reshape(batch, ranks, 2, length // 2, *rest)
        whole = jnp.concatenate([halves[:, :, 0], halves[:, ::-1, 1]], axis=1)
        return whole.reshape(batch, ranks * length, *rest)

    def sum_length(self, x: jax.Array) -> jax.Array:
        """The sum over the pieces of rows of what each has of it."""
        return _sum(x, "context") if self.sharding.ways("length") > 1 else x

    def head(self, table: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """This rank's words of the output matrix, all columns: [embed, vocab / ways]."""
        columns = table.astype(dtype)
        names = list(self.sharding.names("embed"))
        if self.vocab_axis:
            # Words for columns; the other axes gather what is then left.
            later = names[names.index(self.vocab_axis) + 1 :]
            columns = jnp.swapaxes(gather(jnp.swapaxes(columns, 0, 1), later, 0), 0, 1)
            columns = jax.lax.all_to_all(columns, self.vocab_axis, 0, 1, tiled=True)
            names = names[: names.index(self.vocab_axis)]
        return gather(jnp.swapaxes(columns, 0, 1), names, 0)

    @property
    def exchange_ranks(self) -> int:
        """How many ranks read one another's tokens in the loss."""
        return self.sharding.mesh.shape[self.vocab_axis] if self.vocab_axis else 1

    def head_words(self, words: int) -> int:
        """How many words `head` gives of a shard of `words`."""
        return words // self.exchange_ranks

    @property
    def vocab_axes(self) -> tuple[str, ...]:
        """Mesh axes whose ranks hold different words in the loss, major first."""
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
        """Of KV heads that all tensor ranks hold, those that this rank's query heads use."""
        kv_heads, heads = self.config.num_key_value_heads, self.config.num_attention_heads
        count = max(1, kv_heads // self._tensor)
        first = jax.lax.axis_index("tensor") * (heads // self._tensor) // (heads // kv_heads)
        weight = _copy(weight, "tensor")
        return jax.lax.dynamic_slice_in_dim(weight, first, count, dimension)


Layout = Automatic | Manual


def zigzag(x: jax.Array, ranks: int) -> jax.Array:
    """Reorders [batch, length] so that context rank r gets pieces r and 2 ranks - 1 - r.

    Under a causal mask an early piece has little to attend to and a late one much: the pairs are
    equal work. `Manual.gather_length` undoes it.
    """
    if ranks == 1:
        return x
    order = jnp.stack([jnp.arange(ranks), 2 * ranks - 1 - jnp.arange(ranks)], axis=1).reshape(-1)
    pieces = x.reshape(x.shape[0], 2 * ranks, -1)
    return pieces[:, order].reshape(x.shape)


# A TPU lowers a reduce-scatter to an all-reduce and a slice, at twice the bytes, unless the parts
# suit its tiles. What stays native (compiled for axes of 4, 8 and 16, libtpu 0.0.42): parts of a
# multiple of 256 columns of the last dimension, and the layer matrices along `embed` if a part has
# a multiple of 32 rows, of whole vector registers.
_COLUMNS, _ROWS, _LANES = (512, 256), 32, 128


def gather(x: jax.Array, names: Sequence[str], dimension: int) -> jax.Array:
    """All-gathers a dimension over mesh axes (major first), one at a time, the minor one first.

    The gradient is reduce-scattered in the reverse order. Either puts (n - 1) / n of the whole
    array on the wire for n ranks in all, however the ranks are cut into axes.
    """
    for name in reversed(names):
        x = _gather(x, name, dimension)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, name: str, dimension: int) -> jax.Array:
    return jax.lax.all_gather(x, name, axis=dimension, tiled=True)


def _scatter(name: str, dimension: int, _: None, x: jax.Array) -> tuple[jax.Array]:
    """Reduce-scatters a dimension in a shape for which the TPU has a native one."""
    ways = jax.lax.axis_size(name)
    part = x.shape[dimension] // ways
    size = x.size // ways
    rows = jnp.moveaxis(x, dimension, 0)
    columns = next((width for width in _COLUMNS if size % width == 0), None)
    if columns is None or (part % _ROWS == 0 and x.shape[-1] % _LANES == 0):
        own = jax.lax.psum_scatter(rows, name, tiled=True)
        return (jnp.moveaxis(own, 0, dimension),)
    blocks = jnp.swapaxes(rows.reshape(ways, size // columns, columns), 0, 1)
    own = jax.lax.psum_scatter(
        blocks.reshape(-1, ways * columns), name, scatter_dimension=1, tiled=True
    )
    return (jnp.moveaxis(own.reshape(part, *rows.shape[1:]), 0, dimension),)


_gather.defvjp(lambda x, name, dimension: (_gather(x, name, dimension), None), _scatter)


def _rows(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Rows of a table [words, columns]; gradients add up in float32, whatever the dtype."""
    return _take(table, rows, table.shape[0], table.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _take(table: jax.Array, rows: jax.Array, words: int, dtype: jnp.dtype) -> jax.Array:
    return table[rows]


def _add(words: int, dtype: jnp.dtype, rows: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
    total = jnp.zeros((words, grad.shape[-1]), jnp.float32)
    return total.at[rows].add(grad.astype(jnp.float32)).astype(dtype), None


_take.defvjp(lambda table, rows, words, dtype: (table[rows], rows), _add)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _finish_together(
    x: jax.Array, kernel: jax.Array, scattered: int
) -> tuple[jax.Array, jax.Array]:
    """Identity; the backward pass goes on from x's gradient when the kernel's is computed too.

    Left to itself the TPU's scheduler puts the kernels' gradients off and keeps what they are made
    of: an MLP's activations through the backward pass of attention. The kernel's gradient is made
    with the dimension in front that will be scattered: only so is a reduce-scatter native.
    """
    return x, kernel


def _finish(scattered: int, _: None, grads: tuple) -> tuple[jax.Array, jax.Array]:
    dx, dkernel = grads
    dx, dkernel = jax.lax.optimization_barrier((dx, jnp.moveaxis(dkernel, scattered, 0)))
    return dx, jnp.moveaxis(dkernel, 0, scattered)


_finish_together.defvjp(lambda x, kernel, scattered: ((x, kernel), None), _finish)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _copy(x: jax.Array, name: str) -> jax.Array:
    """Identity; the gradients of the ranks are summed."""
    return x


_copy.defvjp(lambda x, name: (x, None), lambda name, _, grad: (jax.lax.psum(grad, name),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum(x: jax.Array, name: str) -> jax.Array:
    """Sum over ranks; every rank holds the gradient of the sum already."""
    return jax.lax.psum(x, name)


_sum.defvjp(lambda x, name: (jax.lax.psum(x, name), None), lambda name, _, grad: (grad,))
