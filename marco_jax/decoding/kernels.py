"""Compiled programs that read whole rows: `extend` computes a prefix, `score` log-probabilities.

Both are pure functions of parameters and arrays. They use the parameters as training shards them,
without a copy; `marco eval`, `marco generate` and the training loop call the same programs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.decoding.caches import KeyValues, Prefix, Reading, empty
from marco_jax.decoding.head import Head
from marco_jax.decoding.placement import Runtime
from marco_jax.model.cpu import on_cpu
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import Qwen2, bind
from marco_jax.model.splash import splash_supports

# Rows of logits that a group of devices computes at once: 74 MiB in float32 for a vocabulary of
# 152,064.
LOGIT_ROWS = 128


class ScoreBatch(NamedTuple):
    """Rows to score. A row is a context followed by continuations that share it.

    tokens, positions, segment_ids: int32 [batch, length], as Qwen2 takes them.
    indices: int32 [batch, indices], indices into the row of hidden states that predict targets.
    targets: int32 [batch, indices, targets], the tokens that each of them is scored on.
    """

    tokens: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    indices: jax.Array
    targets: jax.Array


@functools.partial(jax.jit, static_argnames="runtime")
def score(
    params: Params, batch: ScoreBatch, prefix: Prefix | None = None, *, runtime: Runtime
) -> tuple[jax.Array, jax.Array]:
    """Computes log-probabilities of targets; the head is applied to `batch.indices` only.

    All rows have the prefix, and their positions start at its length.

    Returns:
        log-probabilities float32 [batch, indices, targets], and whether each target is the argmax,
        bool. The normaliser covers every row of the embedding.
    """

    def body(params, batch, prefix):
        model = bind(runtime.config, params)
        hidden, _ = model(
            batch.tokens,
            batch.positions,
            batch.segment_ids,
            cache=Reading(prefix, None),
            dtype=runtime.dtype,
            layout=runtime.layout(_attention(runtime)),
        )
        hidden = jnp.take_along_axis(hidden, batch.indices[..., None], axis=1)
        return _read_blocks(Head.of(model, runtime), hidden, batch.targets)

    given = (runtime.params_spec(), runtime.rows, prefix_spec(prefix, runtime))
    kernel = runtime.on_devices(body, given, runtime.rows)
    return runtime.replicate(kernel(params, batch, prefix))


@functools.partial(jax.jit, static_argnames="runtime")
def extend(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    prefix: Prefix | None = None,
    *,
    runtime: Runtime,
) -> Prefix:
    """Computes keys and values of a prefix that rows share, or lengthens a computed prefix.

    Every device computes the same.

    Args:
        tokens: int32 [1, length], padded on the right with any tokens.
        length: int32 [], the number of tokens without padding.

    Returns:
        the prefix with these tokens at its end; its slots are those of `prefix` plus `length`.
    """

    def body(params, tokens, length, prefix):
        _, own = run_rows(bind(runtime.config, params), tokens, prefix, runtime)
        if prefix is None:
            return Prefix(own, length)
        # New tokens overwrite the prefix's unused slots, so that used slots are contiguous.
        used = prefix.length
        arrays = (
            jax.lax.dynamic_update_slice_in_dim(
                jnp.pad(before, [(0, 0)] * 3 + [(0, new.shape[3]), (0, 0)]), new, used, axis=3
            )
            for before, new in zip(prefix.cache, own, strict=True)
        )
        return Prefix(KeyValues(*arrays), used + length)

    whole = PartitionSpec()
    spec = prefix_spec(prefix, runtime)
    out = Prefix(KeyValues(runtime.shared_cache, runtime.shared_cache), whole)
    kernel = runtime.on_devices(body, (runtime.params_spec(), whole, whole, spec), out)
    return kernel(params, tokens, length, prefix)


def run_rows(
    model: Qwen2, tokens: jax.Array, prefix: Prefix | None, runtime: Runtime
) -> tuple[jax.Array, KeyValues]:
    """Runs the model over this device's rows, inside shard_map.

    Returns:
        hidden states [batch, length, embed], and keys and values of the rows without the prefix.
    """
    config, (batch, length) = runtime.config, tokens.shape
    start = 0 if prefix is None else prefix.length
    positions = jnp.broadcast_to(start + jnp.arange(length, dtype=jnp.int32), tokens.shape)
    heads = runtime.cached_heads // runtime.sharding.mesh.shape["tensor"]
    sizes = (config.num_hidden_layers, batch, heads, length, config.head_dim)
    attention = _attention(runtime)
    if prefix is None and runtime.sharding.platform == "tpu" and splash_supports(length):
        attention = "splash"
    hidden, cache = model(
        tokens,
        positions,
        cache=Reading(prefix, empty(sizes, runtime.dtype)),
        dtype=runtime.dtype,
        layout=runtime.layout(attention),
    )
    return hidden, cache.own


def _attention(runtime: Runtime) -> str:
    return "mapped" if on_cpu(runtime.sharding) else "xla"


def prefix_spec(prefix: Prefix | None, runtime: Runtime) -> Prefix | None:
    """PartitionSpecs of a prefix, or None without one."""
    if prefix is None:
        return None
    return Prefix(KeyValues(runtime.shared_cache, runtime.shared_cache), PartitionSpec())


def _read_blocks(head: Head, hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`Head.read` of [batch, indices, embed] and [batch, indices, targets], in blocks of rows.

    Blocks bound the memory of logits.
    """
    shape = targets.shape
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = targets.reshape(-1, shape[-1])
    rows = targets.shape[0]
    block = max(1, LOGIT_ROWS // head.runtime.sharding.ways("embed"))
    if rows <= block:
        values = head.read(hidden, targets)
    else:
        blocks = -(-rows // block)
        hidden = jnp.pad(hidden, ((0, blocks * block - rows), (0, 0)))
        targets = jnp.pad(targets, ((0, blocks * block - rows), (0, 0)))
        values = jax.lax.map(
            lambda part: head.read(*part),
            (hidden.reshape(blocks, block, -1), targets.reshape(blocks, block, -1)),
        )
        values = tuple(x.reshape(blocks * block, -1)[:rows] for x in values)
    return tuple(x.reshape(shape) for x in values)
