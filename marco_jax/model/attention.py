"""Scaled dot-product attention with grouped KV heads, behind one function."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Keys of this segment are seen by the queries of every segment: a context that several
# continuations in one row share.
SHARED_SEGMENT = -1


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    query_positions: jax.Array,
    key_positions: jax.Array,
    query_segment_ids: jax.Array | None = None,
    key_segment_ids: jax.Array | None = None,
) -> jax.Array:
    """Causal attention within segments; softmax in float32; KV heads are never repeated.

    A query sees the keys of its own segment, and those of SHARED_SEGMENT, at its own and earlier
    positions. Padding carries a segment id of its own (0) and so is invisible to documents.

    Args:
        query: [batch, length, heads, head_dim].
        key: [batch, key_length, kv_heads, head_dim]; kv_heads divides heads.
        value: as key.
        query_positions: int [batch, length].
        key_positions: int [batch, key_length].
        query_segment_ids: int [batch, length], or None where a row is one document.
        key_segment_ids: int [batch, key_length], given together with query_segment_ids.

    Returns:
        [batch, length, heads, head_dim] in query's dtype.
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum("blkgd,bskd->bkgls", grouped, key, preferred_element_type=jnp.float32) * (
        head_dim**-0.5
    )
    mask = key_positions[:, None, :] <= query_positions[:, :, None]  # [batch, length, key_length]
    if query_segment_ids is not None and key_segment_ids is not None:
        keys = key_segment_ids[:, None, :]
        mask &= (keys == query_segment_ids[:, :, None]) | (keys == SHARED_SEGMENT)
    # A finite fill: a row that sees nothing (padding) gives an average, not NaN.
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    out = jnp.einsum("bkgls,bskd->blkgd", weights, value)
    return out.reshape(batch, length, heads, head_dim)
