"""Splash attention (JAX's Pallas kernel for TPU) for packed rows, also over context ranks.

The kernel skips blocks of the causal mask that are all zero; it finds them in tables (MaskInfo)
that are made from the mask when the kernel is built. With several context ranks, one kernel is
built for whole rows, with the queries permuted to the zigzag order of `layout.zigzag`. All ranks
run the same program inside shard_map, so each one slices its part of the tables at run time, by its
rank (`_for_rank`).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from marco_jax.model.remat import ATTENDED

# The kernel works on tiles of 128 lanes. Larger blocks use the matrix unit better; this is the
# largest block whose operands fit into vector memory.
_LANES = 128
_LARGEST_BLOCK = 1024
# The fused backward kernel writes a partial gradient of the queries for each block of keys, so
# larger blocks make fewer of them. A v4 has 16 MiB of vector memory, later TPUs have more.
_LARGEST_BACKWARD_BLOCK = 2048
_LARGEST_BACKWARD_BLOCK_V4 = 1024


def splash_supports(length: int) -> bool:
    """Whether the kernel supports `length` positions per device."""
    return length % _LANES == 0


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segment_ids: jax.Array | None,
    key_segment_ids: jax.Array | None,
    *,
    rank: jax.Array | int = 0,
    ranks: int = 1,
    v4: bool = False,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention within segments, as in `attention.attention`, in the order of the row.

    Args:
        query: [batch, length, heads, head_dim].
        key: [batch, ranks * length, kv_heads, head_dim], in the order of the row.
        value: as key.
        query_segment_ids: int [batch, length] or None.
        key_segment_ids: int [batch, ranks * length] or None.
        rank: the context rank whose part of the row the queries are (`layout.zigzag`).
        ranks: the number of context ranks that rows are split over.
        v4: use blocks that fit the vector memory of a TPU v4.
        interpret: run the kernel in Pallas' interpreter, for tests on any device.
    """
    length, heads, head_dim = query.shape[1:]
    # Scaled in float32: head_dim**-0.5 may be inexact in bfloat16.
    scaled = (query.astype(jnp.float32) * head_dim**-0.5).astype(query.dtype)
    operands = [jnp.swapaxes(x, 1, 2) for x in (scaled, key, value)]
    ids = None
    if query_segment_ids is not None and key_segment_ids is not None:
        ids = kernels.SegmentIds(query_segment_ids, key_segment_ids)
    kernel = _for_rank(_kernel(length, heads, ranks, v4, interpret), rank, ranks)
    return jnp.swapaxes(jax.vmap(kernel)(*operands, ids), 1, 2)


@functools.cache
def _kernel(
    length: int, heads: int, ranks: int, v4: bool, interpret: bool
) -> kernels.SplashAttentionKernel:
    whole = length * ranks
    mask = masks.CausalMask((whole, whole))
    pieces = np.arange(whole, dtype=np.int32).reshape(2 * ranks, -1)
    order = np.stack([np.arange(ranks), 2 * ranks - 1 - np.arange(ranks)], axis=1).reshape(-1)
    mask.q_sequence = pieces[order].reshape(-1)
    with jax.ensure_compile_time_eval():
        return kernels.make_splash_mha(
            masks.MultiHeadMask([mask] * heads),
            block_sizes=_block_sizes(length, whole, v4),
            head_shards=1,
            q_seq_shards=ranks,
            residual_checkpoint_name=ATTENDED,
            interpret=interpret,
        )


def _block_sizes(length: int, key_length: int, v4: bool) -> kernels.BlockSizes:
    block, key_block = _block(length), _block(key_length)
    largest = _LARGEST_BACKWARD_BLOCK_V4 if v4 else _LARGEST_BACKWARD_BLOCK
    return kernels.BlockSizes(
        block_q=block,
        block_kv=key_block,
        block_kv_compute=min(key_block, 512),
        block_q_dkv=block,
        block_kv_dkv=_block(key_length, largest),
        block_kv_dkv_compute=min(key_block, 512),
        # One backward kernel for all gradients recomputes the scores once instead of twice.
        use_fused_bwd_kernel=True,
    )


def _block(length: int, largest: int = _LARGEST_BLOCK) -> int:
    block = largest
    while length % block:
        block //= 2
    return block


def _for_rank(
    kernel: kernels.SplashAttentionKernel, rank: jax.Array | int, ranks: int
) -> kernels.SplashAttentionKernel:
    """Restricts the kernel's mask tables to one rank's queries."""
    if ranks == 1:
        return kernel

    def part(array: jax.Array, axis: int) -> jax.Array:
        size = array.shape[axis] // ranks
        return jax.lax.dynamic_slice_in_dim(array, rank * size, size, axis)

    def restrict(
        info: kernels.mask_info_lib.MaskInfo | None,
    ) -> kernels.mask_info_lib.MaskInfo | None:
        if info is None:
            return None
        names = ("data_next", "mask_next", "block_mask")
        tables = {
            name: part(getattr(info, name), 1) for name in names if getattr(info, name) is not None
        }
        return info._replace(**tables, q_sequence=part(info.q_sequence, 0))

    infos = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
    return kernels.SplashAttentionKernel(*(restrict(info) for info in infos), **kernel.kwargs)
