"""Attention for CPUs: one KV head of one row at a time, a block of queries after another.

Each piece is two plain matrix products that fit the caches, keys past a block are never read, and
scores are computed again in the backward pass rather than kept: a third of the time of the batched
form at 512 places, and memory that does not grow with the number of heads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_BLOCKS, _LEAST_LENGTH = 4, 128


def blocked_supports(length: int) -> bool:
    """Whether rows of `length` places can be cut in blocks, and are long enough to gain by it."""
    return length >= _LEAST_LENGTH and length % _BLOCKS == 0


def blocked_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """Attention as `attention.attention` defines it, causal in the order of the row.

    Args:
        query: [batch, length, heads, head_dim].
        key: [batch, length, kv_heads, head_dim].
        value: as key.
        segment_ids: int [batch, length].
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    group = heads // kv_heads
    grouped = query.reshape(batch, length, kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)

    def fold(x: jax.Array) -> jax.Array:  # [batch, kv_heads, ...] -> [batch * kv_heads, ...]
        return x.reshape(batch * kv_heads, *x.shape[2:])

    pieces = (
        fold(grouped),
        fold(jnp.swapaxes(key, 1, 2)),
        fold(jnp.swapaxes(value, 1, 2)),
        jnp.repeat(segment_ids, kv_heads, axis=0),
    )
    out = jax.lax.map(lambda piece: jax.checkpoint(_one_head)(*piece), pieces)
    out = out.reshape(batch, kv_heads, group, length, head_dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, length, heads, head_dim)


def _one_head(
    query: jax.Array,  # [group, length, head_dim]
    key: jax.Array,  # [length, head_dim]
    value: jax.Array,
    segment_ids: jax.Array,  # [length]
) -> jax.Array:
    group, length, head_dim = query.shape
    size = length // _BLOCKS
    outs = []
    for stop in range(size, length + 1, size):
        block = slice(stop - size, stop)
        rows = query[:, block].reshape(group * size, head_dim) * head_dim**-0.5
        scores = jnp.matmul(rows, key[:stop].T, preferred_element_type=jnp.float32)
        mask = jnp.arange(stop) <= jnp.arange(stop - size, stop)[:, None]
        mask &= segment_ids[:stop] == segment_ids[block, None]
        scores = jnp.where(mask, scores.reshape(group, size, stop), jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
        out = weights.reshape(group * size, stop) @ value[:stop]
        outs.append(out.reshape(group, size, head_dim))
    return jnp.concatenate(outs, axis=1)
