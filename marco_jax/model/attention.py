"""Scaled dot-product attention with grouped KV heads: one function, several implementations.

All compute the same values: `xla` (any device, any mask), `splash` (Pallas, TPU), `cudnn` (NVIDIA
GPU) and `blocked` (CPU). All but `xla` are for training on packed rows.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from marco_jax.model.blocked import blocked_attention, blocked_supports
from marco_jax.model.cudnn import cudnn_variant, masked_attention, packed_attention
from marco_jax.model.splash import splash_attention, splash_supports

# Queries of every segment attend to the keys of this segment: a context that several continuations
# in one row share. Only `xla` supports it.
SHARED_SEGMENT = -1

IMPLEMENTATIONS = ("auto", "xla", "splash", "cudnn", "blocked")
GPU_PLATFORMS = ("gpu", "cuda")


def choose_attention(
    name: str,
    platform: str,
    dtype: jnp.dtype,
    length: int,
    context_ranks: int = 1,
    device_kind: str = "",
    compute_capability: str = "",
) -> str:
    """Chooses the implementation for packed rows of `length` positions per device.

    `auto` becomes the fastest one that supports the platform and the length. `splash` becomes one
    of its variants: `splash_v4` on a TPU v4, `splash_interpreted` on devices other than TPUs.
    `cudnn` becomes `cudnn_masked` where `cudnn.cudnn_variant` says so.

    Args:
        name: one of IMPLEMENTATIONS.
        platform: of the devices, as JAX names it.
        dtype: of queries, keys and values.
        length: positions of a row on a device.
        context_ranks: how many devices a row is split over.
        device_kind: as JAX names it.
        compute_capability: of an NVIDIA GPU, such as "9.0".

    Raises:
        ValueError: an unknown name, or a kernel that cannot run rows of this length.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"attention is {name!r}: choose one of {', '.join(IMPLEMENTATIONS)}")
    if name == "splash" and not splash_supports(length):
        raise ValueError(
            f"attention is 'splash' and rows have {length} positions per device: make "
            "batch.length / mesh.context a multiple of 128, or set attention=xla"
        )
    if name == "blocked" and (context_ranks > 1 or not blocked_supports(length)):
        raise ValueError(
            f"attention is 'blocked' and rows have {length} positions on each of {context_ranks} "
            "context ranks: it needs one rank and at least 128 positions; set attention=auto"
        )
    on_gpu = platform in GPU_PLATFORMS
    if name == "cudnn" or (name == "auto" and on_gpu):
        half = jnp.dtype(dtype).itemsize == 2
        variant = cudnn_variant(compute_capability, length, context_ranks)
        if on_gpu and half and variant:
            return variant
        if name == "auto":
            return "xla"
        raise ValueError(
            f"attention is 'cudnn' on {platform} in {jnp.dtype(dtype).name} with {length} "
            "positions per device: it needs an NVIDIA GPU, dtype=bfloat16 and an even length; "
            "set attention=auto"
        )
    if name == "splash" and platform != "tpu":
        return "splash_interpreted"
    if name == "splash" or (name == "auto" and platform == "tpu" and splash_supports(length)):
        return "splash_v4" if device_kind == "TPU v4" else "splash"
    if name != "auto":
        return name
    return "blocked" if context_ranks == 1 and blocked_supports(length) else "xla"


@dataclasses.dataclass(frozen=True)
class ContextRank:
    """The context rank whose part of the rows the queries are, in the order of `layout.zigzag`."""

    rank: jax.Array | int = 0
    ranks: int = 1


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    query_positions: jax.Array,
    key_positions: jax.Array,
    query_segment_ids: jax.Array | None = None,
    key_segment_ids: jax.Array | None = None,
    implementation: str = "xla",
    context: ContextRank | None = None,
) -> jax.Array:
    """Causal attention within segments, with a float32 softmax and without repeated KV heads.

    A query attends to keys of its own segment, and of SHARED_SEGMENT, at its own and earlier
    positions. The mask compares positions rather than indices, so queries may be any part of a row
    (one context rank's, in zigzag order) while keys are whole rows. Padding has segment id 0, which
    no document has, so documents do not attend to it.

    Args:
        query: [batch, length, heads, head_dim].
        key: [batch, key_length, kv_heads, head_dim]; kv_heads divides heads.
        value: as key.
        query_positions: int [batch, length].
        key_positions: int [batch, key_length].
        query_segment_ids: int [batch, length], or None where a row is one document.
        key_segment_ids: int [batch, key_length], given together with query_segment_ids.
        implementation: a result of `choose_attention`. `splash`, `cudnn` and `blocked` use the
            order of tokens in a row instead of positions, which is the same for packed documents.
        context: the rank whose part of the rows the queries are; by default queries are whole rows.

    Returns:
        [batch, length, heads, head_dim] in query's dtype.
    """
    if implementation.startswith("splash"):
        context = context or ContextRank()
        return splash_attention(
            *(query, key, value, query_segment_ids, key_segment_ids),
            rank=context.rank,
            ranks=context.ranks,
            v4=implementation == "splash_v4",
            interpret=implementation == "splash_interpreted",
        )
    if implementation == "blocked" and query_segment_ids is not None:
        return blocked_attention(query, key, value, query_segment_ids)
    if implementation == "cudnn" and query_segment_ids is not None:
        return packed_attention(query, key, value, query_segment_ids)
    mask = key_positions[:, None, :] <= query_positions[:, :, None]  # [batch, length, key_length]
    if query_segment_ids is not None and key_segment_ids is not None:
        keys = key_segment_ids[:, None, :]
        mask &= (keys == query_segment_ids[:, :, None]) | (keys == SHARED_SEGMENT)
    if implementation.startswith("cudnn"):
        whole = query_segment_ids is not None and query.shape[1] == key.shape[1]
        return masked_attention(query, key, value, mask, causal=whole)
    return _xla_attention(query, key, value, mask)


def _xla_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum("blkgd,bskd->bkgls", grouped, key, preferred_element_type=jnp.float32) * (
        head_dim**-0.5
    )
    # Finite, so that a query without any key gets an average rather than NaN.
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    out = jnp.einsum("bkgls,bskd->blkgd", weights, value)
    return out.reshape(batch, length, heads, head_dim)
