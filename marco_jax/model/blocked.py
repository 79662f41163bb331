"""Attention for CPUs: one KV head of one row at a time, in blocks of the row.

A row is cut into four blocks. The forward pass takes the queries of one block with all keys up to
its end, so that it skips most scores that the causal mask hides; the operands fit a CPU's caches.
It keeps the output and each query's normaliser (the log of the sum of exponentials). The backward
pass takes the keys of one block with all queries from its start, and recomputes the softmax weights
as exp(score - normaliser). It computes scores transposed, [key, query]: no matrix product then
reads a large matrix against its layout. Heads are mapped one after another, so that memory for
scores does not grow with the number of heads.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from marco_jax.model.remat import ATTENDED, named

_BLOCKS, _LEAST_LENGTH = 4, 128
# Finite, so that differences of masked scores are not NaN.
_MASKED = jnp.finfo(jnp.float32).min


def blocked_supports(length: int) -> bool:
    """Whether rows of `length` positions divide into blocks and are long enough to profit."""
    return length >= _LEAST_LENGTH and length % _BLOCKS == 0


def blocked_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """Causal attention within segments, as in `attention.attention`, in the order of the row.

    The output and the normalisers have the name remat.ATTENDED.

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
    """Maps `function(mask of a row, *arrays of one KV head)` over all rows and KV heads.

    The last of `arrays` is the segment ids. A row's mask, [query, key] or transposed, is computed
    outside the loop over heads: inside, it would prevent XLA from vectorising the exponentials.
    """

    def row(row: tuple) -> tuple:
        *heads, segment_ids = row
        positions = jnp.arange(segment_ids.size)
        mask = positions[:, None] >= positions
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
    """Forward pass of one KV head of one row.

    Returns:
        The output [group, length, head_dim], and the normalisers [group, length] in float32.
    """
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
    """Backward pass of one KV head of one row: the gradients of query, key and value.

    The gradient of a score is weight * (value . out_grad - mean), where mean is out . out_grad.
    """
    group, length, head_dim = query.shape
    size = length // _BLOCKS
    mean = jnp.sum(out.astype(jnp.float32) * out_grad.astype(jnp.float32), axis=-1)
    query_grads = [0.0] * _BLOCKS  # one per block, transposed: [head_dim, group, size]
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
        score_grads = jnp.matmul(value[start:stop], row_grads.T, preferred_element_type=jnp.float32)
        score_grads = weights * (score_grads.reshape(size, group, later) - mean[:, start:])
        weights = weights.astype(query.dtype).reshape(size, group * later)
        score_grads = score_grads.astype(query.dtype).reshape(size, group * later)
        value_grads.append(weights @ row_grads)
        key_grads.append(score_grads @ rows)
        grads = (key[start:stop].T @ score_grads).reshape(head_dim, group, later)
        for i, part in enumerate(jnp.split(grads, _BLOCKS - block, axis=2)):
            query_grads[block + i] += part
    query_grad = jnp.concatenate(query_grads, axis=2).transpose(1, 2, 0)
    return query_grad, jnp.concatenate(key_grads), jnp.concatenate(value_grads)
