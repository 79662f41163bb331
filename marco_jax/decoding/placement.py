"""How decoding uses the training mesh: parameters stay sharded, rows are split over all devices.

Kernels run inside `jax.shard_map` with explicit collectives. Kernels that read rows of many tokens
gather each layer's weights when they use them, as training does. The loop that emits one token per
row leaves weights sharded and communicates activations instead. The embedding table and the head
are never gathered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.model.collectives import gather
from marco_jax.model.cpu import LayerViews, transposed_product
from marco_jax.model.layout import Manual
from marco_jax.model.mesh import Sharding, create_mesh, parameter_shardings
from marco_jax.model.parameters import axis_sizes
from marco_jax.model.qwen2_config import Qwen2Config


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The static inputs of a kernel, besides the shapes of its arrays.

    `emitted_vocab_size` is the tokenizer's vocabulary size. Generation never emits the ids of
    padding rows above it; scores count them in the normaliser, as `transformers` does.
    """

    config: Qwen2Config
    emitted_vocab_size: int
    sharding: Sharding
    dtype: jnp.dtype = jnp.float32

    @classmethod
    def create(
        cls,
        config: Qwen2Config,
        emitted_vocab_size: int,
        sharding: Sharding | None = None,
        dtype: jnp.dtype = jnp.float32,
    ) -> Runtime:
        """Creates a runtime on a training mesh, or on the first device if `sharding` is None.

        Context ranks, which share rows in training, have different rows here.
        """
        if sharding is None:
            sharding = Sharding(create_mesh({}, jax.devices()[:1]))
        rules = dict(sharding.rules)
        batch = rules["batch"] + rules["length"]
        rules |= {"batch": batch, "length": ()}
        sharding = dataclasses.replace(sharding, rules=tuple(rules.items()))
        return cls(config, emitted_vocab_size, sharding, jnp.dtype(dtype))

    @property
    def row_ways(self) -> int:
        """The number of parts that rows are split into; the number of rows is a multiple."""
        return self.sharding.ways("batch")

    @property
    def rows(self) -> PartitionSpec:
        """The PartitionSpec of an array whose first axis is rows."""
        return self.sharding.spec(["batch"])

    @property
    def cache(self) -> PartitionSpec:
        """The PartitionSpec of keys or values [layers, batch, kv_heads, slots, head_dim]."""
        return PartitionSpec(None, *self.rows, "tensor")

    @property
    def shared_cache(self) -> PartitionSpec:
        """The PartitionSpec of keys or values that all rows share: split by heads only."""
        return PartitionSpec(None, None, "tensor")

    @property
    def cached_heads(self) -> int:
        """KV heads of a cache over all tensor ranks, counting replicated heads repeatedly."""
        ways = self.sharding.mesh.shape["tensor"]
        return max(1, self.config.num_key_value_heads // ways) * ways

    def params_spec(self) -> Any:
        """PartitionSpecs of the parameters, as in training."""
        shardings = parameter_shardings(self.config, self.sharding)
        return jax.tree.map(lambda sharding: sharding.spec, shardings)

    def layout(self, attention: str = "xla") -> DecodingLayout:
        """The layout of kernels that read rows of many tokens."""
        return DecodingLayout(self.config, self.sharding, attention)

    def emitting(self, views: LayerViews | None) -> StationaryLayout:
        """The layout of a decoding step, which reads few tokens per row."""
        transposed = views is not None and views.transposed
        return StationaryLayout(
            *(self.config, self.sharding, "keys_first" if transposed else "xla"),
            transposed=transposed,
        )

    def on_devices(self, body: Callable, in_specs: Any, out_specs: Any) -> Callable:
        """Wraps `body` in shard_map: every device runs it on its shards."""
        return jax.shard_map(
            body,
            mesh=self.sharding.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=False,
        )

    def replicate(self, arrays: Any) -> Any:
        """Replicates (small) results, so that every process can read all of them."""
        whole = self.sharding.named()
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, whole), arrays)

    def count(self, mask: jax.Array) -> jax.Array:
        """Counts True over the rows of all devices: bool [rows of this device] -> int32 []."""
        total = jnp.sum(mask, dtype=jnp.int32)
        names = self.sharding.names("batch")
        return jax.lax.psum(total, names) if names else total

    def most(self, values: jax.Array) -> jax.Array:
        """The largest value over the rows of all devices: int32 [rows of this device] -> []."""
        names = self.sharding.names("batch")
        most = jnp.max(values)
        return jax.lax.pmax(most, names) if names else most


class DecodingLayout(Manual):
    """The training layout without its partial gathering of the embedding table."""

    def _exchanged_axes(self, table: jax.Array, tokens: int) -> tuple[str, ...]:
        return self.sharding.names("embed")


@dataclasses.dataclass(frozen=True)
class StationaryLayout(DecodingLayout):
    """A layout that communicates activations instead of weights: for few tokens per row.

    The ranks that split a weight along `embed` (a group) also hold different rows. Between layers
    every rank has the hidden states of all the group's rows. A product from `embed` multiplies the
    rank's own columns of them, and a reduce-scatter sums the partial products on the ranks of the
    rows. A product to `embed` gathers the group's rows, multiplies, and gathers the columns. A step
    therefore sends rows x features values instead of the weights of every layer.

    `transposed`: kernels are matrices [outputs, inputs] (`cpu.layer_views`).
    """

    transposed: bool = False

    @property
    def group(self) -> tuple[str, ...]:
        """Mesh axes whose ranks hold different columns and different rows; major first."""
        return self.sharding.names("embed")

    def weight(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """Casts a parameter's shard, without gathering it."""
        weight = weight.astype(dtype)
        if "kv_heads" in axes and self._tensor > 1 and not self.sharding.names("kv_heads"):
            weight = self._own_kv_heads(weight, axes.index("kv_heads"))
        return weight

    def product(
        self,
        x: jax.Array,
        kernel: jax.Array,
        axes: Sequence[str],
        inputs: int,
        frozen: bool = False,
    ) -> jax.Array:
        """Multiplies hidden states of the group's rows to features of own rows, or the reverse.

        [group, new, embed] -> [rows, new, *outputs], or [rows, new, *inputs] -> [group, new,
        embed].
        Partial products from `embed` are summed in float32.
        """
        if self.transposed:
            sizes = axis_sizes(self.config)
            return transposed_product(x, kernel, inputs, [sizes[axis] for axis in axes[inputs:]])
        if not self.group:
            return super().product(x, kernel, axes, inputs, frozen)
        if axes[0] == "embed":
            columns = self._own(x, x.ndim - 1)
            y = jnp.tensordot(columns, kernel, axes=inputs, preferred_element_type=jnp.float32)
            for name in self.group:
                y = jax.lax.psum_scatter(y, name, scatter_dimension=0, tiled=True)
            return y.astype(x.dtype)
        y = jnp.tensordot(gather(x, self.group, 0), kernel, axes=inputs)
        return gather(super().from_tensor_ranks(y), self.group, y.ndim - 1)

    def from_tensor_ranks(self, x: jax.Array) -> jax.Array:
        """Sums over tensor ranks; with a group, `product` has already done so."""
        return x if self.group else super().from_tensor_ranks(x)

    def lookup(self, table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Looks up embeddings of the group's tokens: [rows, new] -> [group, new, embed]."""
        plain = DecodingLayout(self.config, self.sharding)
        return gather(plain.lookup(table, tokens, dtype), self.group, 0)

    def own_rows(self, hidden: jax.Array) -> jax.Array:
        """Selects this rank's rows from the group's: [group, ...] -> [rows, ...]."""
        return self._own(hidden, 0)

    def _own(self, x: jax.Array, dimension: int) -> jax.Array:
        ways = self.sharding.ways("embed")
        if ways == 1:
            return x
        size = x.shape[dimension] // ways
        start = jax.lax.axis_index(self.group) * size
        return jax.lax.dynamic_slice_in_dim(x, start, size, dimension)
