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

# Hidden states that a group of devices reads at once.
READS = 256


class ScoreBatch(NamedTuple):
    """Rows to score. A row is a context followed by continuations that share it.

    tokens, positions, segment_ids: int32 [batch, length], as Qwen2 takes them.
    reads: int32 [reads], the hidden states that predict targets, as indices into the device's rows
    [batch / ways * length]; the same number for each device.
    targets: int32 [reads, targets], the tokens that each of them is scored on.
    used: int32 [], the largest number of `reads` that a device uses; the results of others are 0.
    """

    tokens: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    reads: jax.Array
    targets: jax.Array
    used: jax.Array


@functools.partial(jax.jit, static_argnames="runtime")
def score(
    params: Params, batch: ScoreBatch, prefix: Prefix | None = None, *, runtime: Runtime
) -> tuple[jax.Array, jax.Array]:
    """Computes log-probabilities of targets; the head is applied to `batch.reads` only.

    All rows have the prefix, and their positions start at its length.

    Returns:
        log-probabilities float32 [reads, targets], and whether each target is the argmax, bool. The
        normaliser covers every row of the embedding.
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
        hidden = hidden.reshape(-1, hidden.shape[-1])
        return _read_blocks(Head.of(model, runtime), hidden, batch)

    specs = ScoreBatch(*[runtime.rows] * 5, PartitionSpec())
    given = (runtime.params_spec(), specs, prefix_spec(prefix, runtime))
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


def _read_blocks(head: Head, hidden: jax.Array, batch: ScoreBatch) -> tuple[jax.Array, jax.Array]:
    """`Head.read` of the hidden states [tokens, embed] that are used, in blocks.

    Blocks bound the memory of logits. Their number is not static, so that one program serves any
    number of reads.
    """
    count, depth = batch.targets.shape
    block = min(count, max(1, READS // head.runtime.sharding.ways("embed")))

    def read(number: jax.Array, values: tuple) -> tuple:
        # The last block may start early, and reads some again.
        start = jnp.minimum(number * block, count - block)
        rows = jax.lax.dynamic_slice_in_dim(batch.reads, start, block)
        targets = jax.lax.dynamic_slice_in_dim(batch.targets, start, block)
        read = head.read(hidden[rows], targets)
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=0)
            for old, new in zip(values, read, strict=True)
        )

    values = (jnp.zeros((count, depth)), jnp.zeros((count, depth), bool))
    return jax.lax.fori_loop(0, (batch.used + block - 1) // block, read, values)
