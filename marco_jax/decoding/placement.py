"""How decoding lies on the training mesh: parameters where they are, rows over all devices.

Kernels run inside `jax.shard_map` and write their own collectives, as training does: a layer's
weights are gathered where they are used, and neither the embedding table nor the head ever is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.model.config import Qwen2Config
from marco_jax.model.layout import Manual
from marco_jax.model.mesh import Sharding, create_mesh, parameter_shardings


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
