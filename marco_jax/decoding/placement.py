"""How decoding lies on the training mesh: parameters where they are, rows over all devices.

Kernels run inside `jax.shard_map` and write their own collectives. Those that read rows of many
tokens do as training does: a layer's weights are gathered where they are used. The loop that emits
one token a row leaves the weights where they are, and sends activations. Neither the embedding
table nor the head is ever gathered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.model.layout import Manual, gather
from marco_jax.model.mesh import Sharding, create_mesh, parameter_shardings
from marco_jax.model.qwen2_config import Qwen2Config


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What is fixed when a kernel compiles, besides the shapes of its arrays.

    `emitted_vocab_size` is the tokenizer's: generation never emits the padding rows past it,
    while scores keep them in the normaliser, as `transformers` does.
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
        """A runtime on a training mesh, or on the first device where `sharding` is None.

        Ranks of the context axis, which share rows in training, take rows of their own here.
        """
        if sharding is None:
            sharding = Sharding(create_mesh({}, jax.devices()[:1]))
        rules = dict(sharding.rules)
        batch = rules["batch"] + rules["length"]
        rules |= {"batch": batch, "length": ()}
        placed = dataclasses.replace(sharding, rules=tuple(rules.items()))
        return cls(config, emitted_vocab_size, placed, jnp.dtype(dtype))

    @property
    def row_ways(self) -> int:
        """Over how many devices rows are spread: the number of rows is a multiple."""
        return self.sharding.ways("batch")

    @property
    def rows(self) -> PartitionSpec:
        """The spec of an array whose first axis is rows."""
        return self.sharding.spec(["batch"])

    @property
    def cache(self) -> PartitionSpec:
        """The spec of keys or values [layers, batch, kv_heads, slots, head_dim]."""
        return PartitionSpec(None, *self.rows, "tensor")

    @property
    def shared_cache(self) -> PartitionSpec:
        """The spec of keys or values that all rows share: whole but for the heads."""
        return PartitionSpec(None, None, "tensor")

    @property
    def cached_heads(self) -> int:
        """KV heads of a cache over all tensor ranks; more than the model's where replicated."""
        ways = self.sharding.mesh.shape["tensor"]
        return max(1, self.config.num_key_value_heads // ways) * ways

    def params_spec(self) -> Any:
        """Specs of the parameters, where training puts them."""
        shardings = parameter_shardings(self.config, self.sharding)
        return jax.tree.map(lambda sharding: sharding.spec, shardings)

    def layout(self, attention: str = "xla") -> DecodingLayout:
        """The layout inside shard_map."""
        return DecodingLayout(self.config, self.sharding, attention)

    def emitting(self) -> StationaryLayout:
        """The layout inside shard_map of a step that reads one token a row."""
        return StationaryLayout(self.config, self.sharding)

    def on_devices(self, body: Callable, in_specs: Any, out_specs: Any) -> Callable:
        """`body` as every device runs it, on its shards."""
        return jax.shard_map(
            body,
            mesh=self.sharding.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=False,
        )

    def replicate(self, arrays: Any) -> Any:
        """Results are small and every process reads them all."""
        return jax.tree.map(self.sharding.constrain, arrays)

    def count(self, mask: jax.Array) -> jax.Array:
        """How many rows of all devices a bool [rows of this one] marks."""
        total = jnp.sum(mask, dtype=jnp.int32)
        names = self.sharding.names("batch")
        return jax.lax.psum(total, names) if names else total


class DecodingLayout(Manual):
    """Training's layout, with tables that are never gathered."""

    def _exchanged_axes(self, table: jax.Array, tokens: int) -> tuple[str, ...]:
        # Training gathers some columns of the table where a step has many tokens.
        return self.sharding.names("embed")


class StationaryLayout(DecodingLayout):
    """Weights stay where they are and activations travel: for steps of one token a row.

    The ranks that share out a weight's columns of `embed` (a group) also hold different rows.
    Hidden states of all the group's rows are on every rank: each multiplies its own columns of
    them, and the partial products are summed into the ranks that hold the rows. The way back is
    the reverse. A token then costs the wire rows x features, not a copy of every layer.
    """

    @property
    def group(self) -> tuple[str, ...]:
        """Mesh axes whose ranks hold other columns, and other rows; major first."""
        return self.sharding.names("embed")

    def weight(self, weight: jax.Array, axes: Sequence[str], dtype: jnp.dtype) -> jax.Array:
        """The shard that lies here, cast."""
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
        """From hidden states of the group's rows to features of own rows, or the reverse.

        [group, 1, embed] gives [rows, 1, *outputs], and [rows, 1, *inputs] gives [group, 1, embed].
        Partial products are summed in float32.
        """
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
        """The sum over tensor ranks; `product` has made it where there is a group."""
        return x if self.group else super().from_tensor_ranks(x)

    def lookup(self, table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Embeddings of the group's tokens: [rows, 1] gives [group, 1, embed]."""
        plain = DecodingLayout(self.config, self.sharding)
        return gather(plain.lookup(table, tokens, dtype), self.group, 0)

    def own_rows(self, hidden: jax.Array) -> jax.Array:
        """This rank's rows of the group's."""
        return self._own(hidden, 0)

    def _own(self, x: jax.Array, dimension: int) -> jax.Array:
        ways = self.sharding.ways("embed")
        if ways == 1:
            return x
        size = x.shape[dimension] // ways
        start = jax.lax.axis_index(self.group) * size
        return jax.lax.dynamic_slice_in_dim(x, start, size, dimension)
