"""Attention for CPUs: one KV head of one row at a time, a block of the row after another.

Each piece is a few plain matrix products that fit the caches, and what the causal mask hides is
never computed. The backward pass makes the scores again rather than keep them, and makes them
transposed: none of its products then reads a large matrix against its layout, and with the
normalisers of the forward pass it needs no sum over scores. Memory does not grow with the number
of heads.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from marco_jax.model.remat import ATTENDED, named

_BLOCKS, _LEAST_LENGTH = 4, 128
# Finite: a score that is masked after it is made must not turn into NaN.
_MASKED = jnp.finfo(jnp.float32).min


def blocked_supports(length: int) -> bool:
    """Whether rows of `length` places can be cut in blocks, and are long enough to gain by it."""
    return length >= _LEAST_LENGTH and length % _BLOCKS == 0


def blocked_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """Attention as `attention.attention` defines it, causal in the order of the row.

    The output and the normalisers carry the name remat.ATTENDED.

    Args:
        query: [batch, length, heads, head_dim].
        key: [batch, length, kv_heads, head_dim].
        value: as key.
        segment_ids: int [batch, length].
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    out = _attention(
        grouped.transpose(0, 2, 3, 1, 4) * head_dim**-0.5,
        jnp.swapaxes(key, 1, 2),
        jnp.swapaxes(value, 1, 2),
        segment_ids,
    )
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape)


@jax.custom_vjp
def _attention(
    query: jax.Array,  # [batch, kv_heads, group, length, head_dim], scaled
    key: jax.Array,  # [batch, kv_heads, length, head_dim]
    value: jax.Array,  # [batch, kv_heads, length, head_dim]
    segment_ids: jax.Array,  # [batch, length]
) -> jax.Array:  # [batch, kv_heads, group, length, head_dim]
    return _forward(query, key, value, segment_ids)[0]


def _forward(*inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out, normaliser = _map_heads(_attend, *inputs, transposed=False)
    out, normaliser = named(out, ATTENDED), named(normaliser, ATTENDED)
    return out, (*inputs, out, normaliser)


def _backward(kept: tuple[jax.Array, ...], out_grad: jax.Array) -> tuple[jax.Array | None, ...]:
    query, key, value, segment_ids, out, normaliser = kept
    heads = (query, key, value, out, normaliser, out_grad)
    return (*_map_heads(_gradients, *heads, segment_ids, transposed=True), None)


_attention.defvjp(_forward, _backward)


def _map_heads(function: Callable, *arrays: jax.Array, transposed: bool) -> tuple:
    """`function` of the mask of a row and one KV head of the arrays, for all rows and heads.

    The last array is the segment ids. A row's mask, [query, key] or transposed, is made outside
    the loop over its heads: made within, it would keep exponentials from being vectorised.
    """

    def row(row: tuple) -> tuple:
        *heads, segment_ids = row
        places = jnp.arange(segment_ids.size)
        mask = places[:, None] >= places
        mask = mask.T if transposed else mask
        mask &= segment_ids[:, None] == segment_ids
        return jax.lax.map(lambda head: function(mask, *head), tuple(heads))

    return jax.lax.map(row, arrays)


def _attend(
    mask: jax.Array,  # [length, length]
    query: jax.Array,  # [group, length, head_dim]
    key: jax.Array,  # [length, head_dim]
    value: jax.Array,  # [length, head_dim]
) -> tuple[jax.Array, jax.Array]:
    """The output [group, length, head_dim], and the normalisers [group, length] in float32."""
    group, length, head_dim = query.shape
    size = length // _BLOCKS
    outs, normalisers = [], []
    for start in range(0, length, size):
        stop = start + size
        rows = query[:, start:stop].reshape(group * size, head_dim)
        scores = jnp.matmul(rows, key[:stop].T, preferred_element_type=jnp.float32)
        scores = scores.reshape(group, size, stop)
        scores = jnp.where(mask[start:stop, :stop], scores, _MASKED)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        sums = weights.sum(axis=-1, keepdims=True)
        out = weights.astype(query.dtype).reshape(group * size, stop) @ value[:stop]
        out = out.reshape(group, size, head_dim).astype(jnp.float32) / sums
        outs.append(out.astype(query.dtype))
        normalisers.append((largest + jnp.log(sums))[..., 0])
    return jnp.concatenate(outs, axis=1), jnp.concatenate(normalisers, axis=1)


def _gradients(
    mask: jax.Array,  # [length, length], transposed
    query: jax.Array,  # [group, length, head_dim]
    key: jax.Array,  # [length, head_dim]
    value: jax.Array,  # [length, head_dim]
    out: jax.Array,  # [group, length, head_dim]
    normaliser: jax.Array,  # [group, length]
    out_grad: jax.Array,  # [group, length, head_dim]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of query, key and value; a block of keys and all queries that may see it at a time."""
    group, length, head_dim = query.shape
    size = length // _BLOCKS
    mean = jnp.sum(out.astype(jnp.float32) * out_grad.astype(jnp.float32), axis=-1)
    query_grads = [0.0] * _BLOCKS  # of each block, transposed: [head_dim, group, size]
    key_grads, value_grads = [], []
    for block in range(_BLOCKS):
        start, stop = block * size, (block + 1) * size
        later = length - start
        rows = query[:, start:].reshape(group * later, head_dim)
        row_grads = out_grad[:, start:].reshape(group * later, head_dim)
        scores = jnp.matmul(key[start:stop], rows.T, preferred_element_type=jnp.float32)
        scores = scores.reshape(size, group, later)
        scores = jnp.where(mask[start:stop, None, start:], scores, _MASKED)
        weights = jnp.exp(scores - normaliser[:, start:])
        slopes = jnp.matmul(value[start:stop], row_grads.T, preferred_element_type=jnp.float32)
        slopes = weights * (slopes.reshape(size, group, later) - mean[:, start:])
        weights = weights.astype(query.dtype).reshape(size, group * later)
        slopes = slopes.astype(query.dtype).reshape(size, group * later)
        value_grads.append(weights @ row_grads)
        key_grads.append(slopes @ rows)
        grads = (key[start:stop].T @ slopes).reshape(head_dim, group, later)
        for i, part in enumerate(jnp.split(grads, _BLOCKS - block, axis=2)):
            query_grads[block + i] += part
    query_grad = jnp.concatenate(query_grads, axis=2).transpose(1, 2, 0)
    return query_grad, jnp.concatenate(key_grads), jnp.concatenate(value_grads)
