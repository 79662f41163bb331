"""Arguments without data for every compiled program, so that planning compiles it for any mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.decoding import decode, kernels
from marco_jax.decoding.caches import KeyValues, Prefix
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.requests import Sampling
from marco_jax.model.cpu import LayerViews, takes_views
from marco_jax.model.mesh import Sharding
from marco_jax.model.qwen2 import abstract_params
from marco_jax.model.qwen2_config import Qwen2Config

# Hidden states of each row of the score kernel that predict targets, and targets of each.
_READS, _TARGETS = 16, 4


def abstract_kernels(
    config: Qwen2Config,
    sharding: Sharding | None,
    batch: int,
    length: int,
    dtype: jnp.dtype = jnp.float32,
) -> Iterator[tuple[str, Callable, tuple[Any, ...]]]:
    """Yields (name, jitted function, abstract arguments): `function.lower(*arguments)` compiles.

    Args:
        sharding: the mesh and rules of training; its devices may be an abstract topology. None
            for the first device.
        batch: rows over all devices, a multiple of `Runtime.row_ways`.
        length: tokens per row in kernels that read rows, and slots per row in `decode`, which is
            compiled for one step.

    Raises:
        ValueError: the devices do not divide the batch.
    """
    runtime = Runtime.create(config, config.vocab_size, sharding, dtype)
    if batch % runtime.row_ways:
        raise ValueError(
            f"batch is {batch}: rows are split over {runtime.row_ways} devices, give a multiple"
        )
    params = abstract_params(config, runtime.sharding)
    whole = PartitionSpec()

    def array(shape: tuple[int, ...], kind: Any = jnp.int32, spec: Any = None) -> Any:
        placed = jax.NamedSharding(runtime.sharding.mesh, runtime.rows if spec is None else spec)
        return jax.ShapeDtypeStruct(shape, kind, sharding=placed)

    def cache(rows: int, spec: PartitionSpec, stacked: bool = True) -> KeyValues:
        sizes = (config.num_hidden_layers, rows, runtime.cached_heads, length, config.head_dim)
        one = array(sizes if stacked else sizes[1:], dtype, spec)
        return KeyValues(one, one)

    key = jax.eval_shape(lambda: jax.random.key(0)).dtype
    ids, rows = array((batch, length)), array((batch,))
    prefix = Prefix(cache(1, runtime.shared_cache), array((), spec=whole))
    read = kernels.ScoreBatch(
        *(ids, ids, ids, array((batch * _READS,)), array((batch * _READS, _TARGETS))),
        array((), spec=whole),
    )
    keys, done = array((batch,), key), array((batch,), jnp.bool)
    layers, cached = _abstract_layers(params, runtime), cache(batch, runtime.cache)
    if layers is not None:
        own = cache(batch, runtime.rows, stacked=False)
        cached = (own,) * config.num_hidden_layers
    state = decode.DecodeState(cached, rows, rows, rows, done, keys)
    new = decode.NewRows(ids, rows, rows, rows, keys)
    one, count = array((1, length), spec=whole), array((), spec=whole)

    def fixed(kernel: Callable, donated: tuple[str, ...] = (), **static: Any) -> Callable:
        inner = functools.partial(kernel.__wrapped__, runtime=runtime, **static)
        return jax.jit(inner, donate_argnames=donated)

    greedy = Sampling()
    yield "extend", fixed(kernels.extend), (params, one, count)
    yield "score", fixed(kernels.score), (params, read)
    yield "score_after_prefix", fixed(kernels.score), (params, read, prefix)
    yield "prefill", fixed(decode.fill, ("state",), sampling=greedy), (params, state, new)
    emit = fixed(decode.decode, ("state",), steps=1, eos_ids=(0,), sampling=greedy)
    yield "decode", emit, (params, layers, state, count)


def _abstract_layers(params: Any, runtime: Runtime) -> LayerViews | None:
    """The abstract result of `cpu.layer_views` for one row."""
    if not takes_views(runtime.sharding):
        return None
    mesh = runtime.sharding.mesh
    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape[1:], x.dtype, sharding=jax.NamedSharding(mesh, PartitionSpec())
        ),
        params["layers"],
    )
    return LayerViews([one] * runtime.config.num_hidden_layers, transposed=False)
