"""KV caches of decoding: one for rows that are read whole, one for rows that grow token by token.

The slots of one head are contiguous in memory, so that scores are products of two plain matrices.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.attention import SHARED_SEGMENT
from marco_jax.model.qwen2 import LayerInputs
from marco_jax.model.splash import splash_attention

# Queries that attend at once, so that memory for scores does not grow with the square of a row.
_QUERIES = 512


class KeyValues(NamedTuple):
    """Keys and values of all layers, [layers, batch, kv_heads, slots, head_dim]."""

    key: jax.Array
    value: jax.Array


# A cache whose layers are stacked, or the cache of each layer, [batch, kv_heads, slots, head_dim]:
# on a CPU, where layers are unrolled, XLA would copy a layer out of the stack at every step.
Cached = KeyValues | tuple[KeyValues, ...]


class Prefix(NamedTuple):
    """Keys and values of a prefix that all rows share, computed once.

    cache: with a batch of 1. length: int32 [], the number of used slots.
    """

    cache: KeyValues
    length: jax.Array


class Reading(NamedTuple):
    """The cache of rows that are read in one call, with or without a shared prefix.

    prefix: None without one. own: collects the rows' keys and values, without the prefix; None
    where no later call needs them (scoring).
    """

    prefix: Prefix | None
    own: KeyValues | None

    def attend(
        self,
        layer: jax.Array | int,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        inputs: LayerInputs,
        attention: str,
    ) -> tuple[jax.Array, Reading]:
        """Causal attention within segments and to the prefix; see qwen2.Cache."""
        own = self.own
        heads_first = KeyValues(jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2))
        if own is not None:
            own = KeyValues(
                *(
                    jax.lax.dynamic_update_index_in_dim(old, new.astype(old.dtype), layer, 0)
                    for old, new in zip(own, heads_first, strict=True)
                )
            )
        if attention.startswith("splash"):
            out = splash_attention(
                *(query, key, value, None, None), interpret=attention == "splash_interpreted"
            )
        else:
            prefix = None
            if self.prefix is not None:
                prefix = KeyValues(*(x[layer, 0] for x in self.prefix.cache))
            out = _read_rows(query, heads_first, inputs, prefix, self.prefix, attention)
        return out, self._replace(own=own)


class Writing(NamedTuple):
    """The cache of rows that grow step by step; slot i holds the token at position i.

    Slots after a row's last token may hold any values: a query at position p attends to slots 0..p.
    """

    cache: Cached

    def attend(
        self,
        layer: jax.Array | int,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        inputs: LayerInputs,
        attention: str,
    ) -> tuple[jax.Array, Writing]:
        """Attention of new tokens, [batch, new, heads, head_dim]; see qwen2.Cache."""
        rows, positions = jnp.arange(query.shape[0])[:, None], inputs.positions
        stacked = isinstance(self.cache, KeyValues)
        index = (layer, rows, slice(None), positions)[0 if stacked else 1 :]

        def put(slots: jax.Array, new: jax.Array) -> jax.Array:
            return slots.at[index].set(
                new.astype(slots.dtype), mode="promise_in_bounds", unique_indices=True
            )

        old = self.cache if stacked else self.cache[layer]
        cache = own = KeyValues(put(old.key, key), put(old.value, value))
        if stacked:
            own = KeyValues(*(x[layer] for x in own))
        else:
            cache = (*self.cache[:layer], own, *self.cache[layer + 1 :])
        keys, values = (x.astype(query.dtype) for x in own)  # [batch, kv_heads, slots, head_dim]
        batch, new, heads, head_dim = query.shape
        kv_heads, slots = keys.shape[1:3]
        group = heads // kv_heads
        grouped = query.reshape(batch, new, kv_heads, group, head_dim).transpose(0, 2, 1, 3, 4)
        grouped = grouped.reshape(batch, kv_heads, new * group, head_dim)
        kind = jnp.float32
        if attention == "keys_first":
            # As in `cpu.few_rows_product`.
            scores = jnp.einsum("bksd,bkgd->bksg", keys, grouped, preferred_element_type=kind)
            scores = jnp.swapaxes(jax.lax.optimization_barrier(scores), 2, 3)
        else:
            scores = jnp.einsum("bkgd,bksd->bkgs", grouped, keys, preferred_element_type=kind)
        mask = jnp.arange(slots) <= positions[..., None]  # [batch, new, slots]
        mask = jnp.repeat(mask, group, axis=1)[:, None]
        weights = _softmax(scores * head_dim**-0.5, mask).astype(query.dtype)
        out = jnp.einsum("bkgs,bksd->bkgd", weights, values)
        out = out.reshape(batch, kv_heads, new, group, head_dim).transpose(0, 2, 1, 3, 4)
        return out.reshape(batch, new, heads, head_dim), Writing(cache)


def put_slots(cache: Cached, new: KeyValues, row: jax.Array, slot: jax.Array) -> Cached:
    """Copies keys and values of one row, [layers, 1, kv_heads, new, head_dim], into a cache.

    A row past the last changes nothing: slices are clamped to the last row, so the old values are
    written back there.
    """

    def put(slots: jax.Array, new: jax.Array) -> jax.Array:  # both with a layer axis
        index = (0, row, 0, slot, 0)
        old = jax.lax.dynamic_slice(slots, index, new.shape)
        new = jnp.where(row < slots.shape[1], new.astype(slots.dtype), old)
        return jax.lax.dynamic_update_slice(slots, new, index)

    if isinstance(cache, KeyValues):
        return KeyValues(*map(put, cache, new))
    return tuple(
        KeyValues(*(put(x[None], y[layer : layer + 1])[0] for x, y in zip(own, new, strict=True)))
        for layer, own in enumerate(cache)
    )


def empty(shape: tuple[int, ...], dtype: jnp.dtype) -> KeyValues:
    """Keys and values of zeros, [layers, batch, kv_heads, slots, head_dim]."""
    zeros = jnp.zeros(shape, dtype)
    return KeyValues(zeros, zeros)


def _read_rows(
    query: jax.Array,  # [batch, length, heads, head_dim]
    own: KeyValues,  # [batch, kv_heads, length, head_dim]
    inputs: LayerInputs,
    prefix: KeyValues | None,  # [kv_heads, slots, head_dim]
    shared: Prefix | None,
    attention: str,
) -> jax.Array:
    batch, length, heads, head_dim = query.shape
    kv_heads = own.key.shape[1]
    group = heads // kv_heads
    grouped = query.reshape(batch, length, kv_heads, group, head_dim)
    grouped = grouped.transpose(0, 2, 3, 1, 4)  # [batch, kv_heads, group, length, head_dim]
    block = math.gcd(length, _QUERIES)

    def one_head(
        row: jax.Array, head: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array
    ) -> jax.Array:
        if prefix is not None:
            key = jnp.concatenate([prefix.key[head].astype(key.dtype), key])
            value = jnp.concatenate([prefix.value[head].astype(value.dtype), value])

        def one_block(start: jax.Array | int) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(query, start, block, axis=1)
            rows = part.reshape(group * block, head_dim)
            scores = jnp.matmul(rows, key.T, preferred_element_type=jnp.float32)
            scores = scores.reshape(group, block, -1) * head_dim**-0.5
            weights = _softmax(scores, _mask(row, start, block, inputs, shared))
            out = weights.astype(query.dtype).reshape(group * block, -1) @ value
            return out.reshape(group, block, head_dim)

        if block == length:
            return one_block(0)
        out = jax.lax.map(one_block, jnp.arange(0, length, block))
        return jnp.swapaxes(out, 0, 1).reshape(group, length, head_dim)

    rows = jnp.repeat(jnp.arange(batch), kv_heads)
    head_numbers = jnp.tile(jnp.arange(kv_heads), batch)
    heads_of_rows = (rows, head_numbers, *(x.reshape(-1, *x.shape[2:]) for x in (grouped, *own)))
    if attention == "mapped":
        # One head of one row at a time, in two plain products that fit a CPU's caches.
        out = jax.lax.map(lambda arrays: one_head(*arrays), heads_of_rows)
    else:
        out = jax.vmap(one_head)(*heads_of_rows)
    out = out.reshape(batch, kv_heads, group, length, head_dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, length, heads, head_dim)


def _mask(
    row: jax.Array, start: jax.Array | int, block: int, inputs: LayerInputs, shared: Prefix | None
) -> jax.Array:
    """The attention mask of a block of queries: bool [block, prefix slots + length]."""
    key_positions = inputs.key_positions[row]
    positions = jax.lax.dynamic_slice_in_dim(inputs.positions[row], start, block)
    mask = key_positions <= positions[:, None]  # [block, length]
    if inputs.segment_ids is not None:
        keys = inputs.key_segment_ids[row]
        segments = jax.lax.dynamic_slice_in_dim(inputs.segment_ids[row], start, block)
        mask &= (keys == segments[:, None]) | (keys == SHARED_SEGMENT)
    if shared is not None:
        slots = jnp.arange(shared.cache.key.shape[3]) < shared.length
        slots = jnp.broadcast_to(slots, (block, slots.size))
        mask = jnp.concatenate([slots, mask], axis=1)
    return mask


def _softmax(scores: jax.Array, mask: jax.Array) -> jax.Array:
    # Finite, so that a query without any key gets an average rather than NaN.
    return jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)
