"""The decoding kernels over shapes alone: what a planner compiles without weights or devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from marco_jax.decoding import decode, kernels
from marco_jax.decoding.caches import KeyValues
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.sampling import Sampling
from marco_jax.model.config import Qwen2Config
from marco_jax.model.mesh import Sharding
from marco_jax.model.qwen2 import abstract_params

# A row of a multiple-choice task: this many continuations of a token each, asked at one place.
_CHOICES = 4


@dataclasses.dataclass(frozen=True)
class AbstractKernel:
    """A kernel, ready to lower: `lower()` gives a jax.stages.Lowered.

    Attributes:
        name: score, prefill or decode.
        tokens: how many tokens of all devices one call computes.
        arguments, static: what the jitted function is called with.
        cache_bytes: keys and values that a device holds for it.
    """

    name: str
    tokens: int
    function: Any
    arguments: tuple
    static: dict[str, Any]
    cache_bytes: int

    def lower(self) -> jax.stages.Lowered:
        """Traces the kernel for the devices of its mesh."""
        return self.function.lower(*self.arguments, **self.static)


def abstract_kernels(
    config: Qwen2Config, sharding: Sharding, rows: int, length: int, dtype: jnp.dtype
) -> Iterator[AbstractKernel]:
    """The kernels over `rows` rows of `length` tokens, with greedy decoding of one token a call.

    Args:
        config: the model.
        sharding: the training mesh; its devices may be described, not present.
        rows: of all devices together; rounded up to a multiple of the ways that rows are split.
        length: tokens of a row that is scored or read, and slots of a row that grows.
        dtype: of the computation and the cache. Parameters are float32, as training holds them.
    """
    runtime = Runtime.create(config, config.vocab_size, sharding, dtype)
    rows = -(-rows // runtime.row_ways) * runtime.row_ways
    params = abstract_params(config, sharding)
    mesh = sharding.mesh

    def of(shape: tuple[int, ...], dtype: Any = jnp.int32, spec: Any = runtime.rows) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, spec))

    batch = kernels.ScoreBatch(
        *(of((rows, length)) for _ in range(3)), of((rows, 1)), of((rows, 1, _CHOICES))
    )
    fixed = {"runtime": runtime}
    yield AbstractKernel("score", rows * length, kernels.score, (params, batch), fixed, 0)

    slots = (config.num_hidden_layers, rows, runtime.cached_heads, length, config.head_dim)
    held = of(slots, runtime.dtype, runtime.cache)
    shard = held.sharding.shard_shape(slots)
    cache_bytes = 2 * runtime.dtype.itemsize
    for size in shard:
        cache_bytes *= size
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
    keys = of((rows,), keys.dtype)
    state = decode.DecodeState(
        KeyValues(held, held), *(of((rows,)) for _ in range(3)), of((rows,), jnp.bool_), keys
    )
    # A call reads one prompt a device, of half the slots: as many new tokens may follow.
    new, prompt = runtime.row_ways, length // 2
    prompts = decode.NewRows(
        of((new, prompt)), *(of((new,)) for _ in range(3)), of((new,), keys.dtype)
    )
    greedy = fixed | {"sampling": Sampling()}
    yield AbstractKernel(
        *("prefill", new * prompt, decode.fill, (params, state, prompts), greedy, cache_bytes)
    )
    enough = of((), spec=jax.sharding.PartitionSpec())
    token = greedy | {"steps": 1, "eos_ids": (0,)}
    arguments = (params, None, state, enough)
    yield AbstractKernel("decode", rows, decode.decode, arguments, token, cache_bytes)
