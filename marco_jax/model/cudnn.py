"""Attention by cuDNN on NVIDIA GPUs: packed documents, or any mask as a dense bias.

`packed_attention` gives cuDNN the offset and the length of each segment (its "THD" layout) with a
causal mask, so that no array grows with the square of a row's length and no score between two
documents is computed. It needs a GPU of the Hopper generation or later, and whole rows.
`masked_attention` writes the mask as a bias for the rest: older GPUs, and rows that are split over
context ranks.

One call of cuDNN takes a fixed number of segments, SEGMENTS_PER_ROW for each row of the batch; they
may be distributed over the rows in any way. A loop makes as many calls as the segments of the batch
need, normally one, so that any number of segments is exact. How many are needed is known on the GPU
alone, so the host waits for it twice in each layer and pass.

The calls are bound here as JAX's own primitives rather than by its `dot_product_attention`, for
three reasons: jax 0.10.2 computes wrong offsets of keys where there are fewer KV heads than heads
(fixed by jax-ml/jax pull request 39521); the softmax statistics get a name, so that a remat policy
can keep them; and they are kept as one number for each query and head, where cuDNN has room for
whole rows per segment.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.remat import ATTENDED, named

# Segments of one call, for each row. cuDNN's statistics, and the accumulators of its backward pass,
# have room for a whole row per segment; with more segments, further calls follow.
SEGMENTS_PER_ROW = 8
_LARGEST_HEAD_DIM = 256
# The bias of a hidden key, which JAX uses as well: cuDNN does not subtract larger ones correctly.
_MASKED = -(2.0**41)
_HOPPER = 9  # the major number of its compute capability
# Parameters of a call that JAX has from 0.12 on: a function of scores.
_SCORE_PARAMETERS = ("score_mod_name", "score_mod_jaxpr")


def cudnn_variant(compute_capability: str, length: int, context_ranks: int) -> str | None:
    """Chooses `cudnn`, or `cudnn_masked` where segments cannot be packed; None: neither runs.

    Args:
        compute_capability: of the GPU, such as "9.0"; empty if it is not known.
        length: positions of a row on this device.
        context_ranks: how many devices a row is split over.
    """
    major = (compute_capability or "0").partition(".")[0]
    if not major.isdigit():  # Of another maker: "gfx942".
        return None
    if context_ranks == 1 and int(major) >= _HOPPER:
        return "cudnn"
    # The backward pass with a bias needs even lengths.
    return "cudnn_masked" if length % 2 == 0 else None


class Segments(NamedTuple):
    """The segments of a batch in the order of its tokens, row after row.

    `starts` and `lengths` have room for as many segments as there are tokens, and SEGMENTS_PER_ROW
    further entries for each row; entries behind the last segment are `tokens` and 0.
    """

    starts: jax.Array  # [tokens + room], the first token of each segment
    lengths: jax.Array  # [tokens + room]
    number: jax.Array  # [batch, length], of the segment that each token is in
    inside: jax.Array  # bool [batch, length], False at padding
    calls: jax.Array  # how many calls all segments need

    @classmethod
    def of(cls, segment_ids: jax.Array) -> Segments:
        """Finds runs of equal ids; ids of 0 are padding."""
        batch, length = segment_ids.shape
        tokens, room = segment_ids.size, batch * SEGMENTS_PER_ROW
        inside = segment_ids > 0
        edge = segment_ids[:, 1:] != segment_ids[:, :-1]
        border = jnp.ones((batch, 1), bool)
        first = inside & jnp.concatenate([border, edge], axis=1)
        last = inside & jnp.concatenate([edge, border], axis=1)
        find = functools.partial(jnp.flatnonzero, size=tokens + room)
        starts, ends = find(first, fill_value=tokens), find(last, fill_value=tokens - 1)
        return cls(
            starts=starts.astype(jnp.int32),
            lengths=(ends - starts + 1).astype(jnp.int32),
            number=(jnp.cumsum(first) - 1).reshape(batch, length).astype(jnp.int32),
            inside=inside,
            calls=(jnp.sum(first) + room - 1) // room,
        )

    def of_call(self, call: jax.Array) -> Slots:
        """The segments of one call."""
        batch, length = self.number.shape
        room = batch * SEGMENTS_PER_ROW
        starts, lengths = (
            jax.lax.dynamic_slice(x, (call * room,), (room,)) for x in (self.starts, self.lengths)
        )
        slot = self.number - call * room
        here = self.inside & (slot >= 0) & (slot < room)
        slot = jnp.clip(slot, 0, room - 1)
        token = jnp.arange(batch * length, dtype=jnp.int32).reshape(batch, length)
        return Slots(starts, lengths, slot, jnp.where(here, token - starts[slot], 0), here)


class Slots(NamedTuple):
    """The segments of one call of cuDNN."""

    starts: jax.Array  # [slots]
    lengths: jax.Array  # [slots]
    slot: jax.Array  # [batch, length], of each token
    position: jax.Array  # [batch, length], of each token in its segment
    here: jax.Array  # bool [batch, length], whether the token's segment is one of them

    def operands(self, heads: int, head_dim: int) -> tuple[jax.Array, jax.Array]:
        """Lengths [batch, m] and offsets [batch, m + 1] in elements of an array of these heads.

        cuDNN reads the first slots, or slots + 1, entries; their shape tells JAX how many there
        are. Offsets are followed by the end of the array.
        """
        batch, length = self.slot.shape
        ends = jnp.full((batch,), batch * length, jnp.int32)
        offsets = jnp.concatenate([self.starts, ends]) * (heads * head_dim)
        return self.lengths.reshape(batch, -1), offsets.reshape(batch, -1)

    def gather(self, statistics: jax.Array) -> jax.Array:
        """Statistics of tokens [batch, length, heads], of [slots, heads, length]."""
        return statistics[self.slot, :, self.position]

    def scatter(self, statistics: jax.Array) -> jax.Array:
        """The inverse of `gather`, with 0 behind the end of a segment."""
        batch, length, heads = statistics.shape
        position = jnp.arange(length, dtype=jnp.int32)
        token = jnp.minimum(self.starts[:, None] + position, batch * length - 1)
        values = statistics.reshape(-1, heads)[token]  # [slots, length, heads]
        values = jnp.where((position < self.lengths[:, None])[..., None], values, 0)
        return jnp.swapaxes(values, 1, 2)

    def put(self, new: jax.Array, old: jax.Array) -> jax.Array:
        """`new` at the tokens of this call, which are all that cuDNN has written, else `old`."""
        return jnp.where(self.here.reshape(*self.here.shape, *[1] * (new.ndim - 2)), new, old)


def packed_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """Causal attention within segments, as in `attention.attention`, in the order of the row.

    The output, which is 0 at padding, and the statistics have the name remat.ATTENDED.

    Args:
        query: [batch, length, heads, head_dim], bfloat16.
        key: [batch, length, kv_heads, head_dim].
        value: as key.
        segment_ids: int [batch, length]; the tokens of a segment stand next to each other.
    """
    _check(query)
    return _packed(query, key, value, segment_ids)


@jax.custom_vjp
def _packed(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    return _packed_forward(query, key, value, segment_ids)[0]


def _packed_forward(
    query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    segments = Segments.of(segment_ids)

    def call(number: jax.Array, done: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slots = segments.of_call(number)
        out, statistics = cudnn_forward(query, key, value, *_packing(slots, query, key))
        return slots.put(out, done[0]), slots.put(slots.gather(statistics), done[1])

    start = (jnp.zeros_like(query), jnp.zeros(query.shape[:3], jnp.float32))
    out, statistics = jax.lax.fori_loop(0, segments.calls, call, start)
    out, statistics = named(out, ATTENDED), named(statistics, ATTENDED)
    return out, (query, key, value, segment_ids, out, statistics)


def _packed_backward(
    kept: tuple[jax.Array, ...], out_grad: jax.Array
) -> tuple[jax.Array | None, ...]:
    query, key, value, segment_ids, out, statistics = kept
    segments = Segments.of(segment_ids)

    def call(number: jax.Array, done: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        slots = segments.of_call(number)
        grads = cudnn_backward(
            *(query, key, value, slots.scatter(statistics), out, out_grad),
            *_packing(slots, query, key),
        )
        return tuple(slots.put(new, old) for new, old in zip(grads, done, strict=True))

    start = tuple(jnp.zeros_like(x) for x in (query, key, value))
    return (*jax.lax.fori_loop(0, segments.calls, call, start), None)


_packed.defvjp(_packed_forward, _packed_backward)


def _packing(slots: Slots, query: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
    """Lengths and offsets of queries and keys: (q_seqlen, kv_seqlen, q_offsets, kv_offsets)."""
    query_lengths, query_offsets = slots.operands(*query.shape[2:])
    key_lengths, key_offsets = slots.operands(*key.shape[2:])
    return query_lengths, key_lengths, query_offsets, key_offsets


def masked_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, *, causal: bool
) -> jax.Array:
    """Attention under any mask, which cuDNN reads as a dense bias.

    The output and the statistics have the name remat.ATTENDED.

    Args:
        query: [batch, length, heads, head_dim], bfloat16.
        key: [batch, key_length, kv_heads, head_dim].
        value: as key.
        mask: bool [batch, length, key_length]; every query has a key.
        causal: whether no query has a key of a later index, which saves half of the work.
    """
    _check(query)
    bias = jnp.where(mask[:, None], 0, _MASKED).astype(query.dtype)
    return _masked(causal, query, key, value, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _masked(
    causal: bool, query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array
) -> jax.Array:
    return _masked_forward(causal, query, key, value, bias)[0]


def _masked_forward(
    causal: bool, query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out, statistics = cudnn_forward(query, key, value, bias=bias, causal=causal)
    out, statistics = named(out, ATTENDED), named(statistics, ATTENDED)
    return out, (query, key, value, bias, out, statistics)


def _masked_backward(
    causal: bool, kept: tuple[jax.Array, ...], out_grad: jax.Array
) -> tuple[jax.Array | None, ...]:
    query, key, value, bias, out, statistics = kept
    grads = cudnn_backward(query, key, value, statistics, out, out_grad, bias=bias, causal=causal)
    return (*grads, None)


_masked.defvjp(_masked_forward, _masked_backward)


def _check(query: jax.Array) -> None:
    """Refuses sizes that cuDNN does not have.

    Raises:
        ValueError: names the size and the remedy.
    """
    head_dim = query.shape[-1]
    if head_dim % 8 or head_dim > _LARGEST_HEAD_DIM:
        raise ValueError(
            f"model.head_dim is {head_dim}: attention by cuDNN needs a multiple of 8 up to "
            f"{_LARGEST_HEAD_DIM}; set attention=xla"
        )
    if query.size > jnp.iinfo(jnp.int32).max:
        raise ValueError(
            f"a device has {query.shape[0]} rows of {query.shape[1]} positions at once, too many "
            "for attention by cuDNN: lower batch.sequences_per_chip or raise "
            "batch.accumulation_steps"
        )


def cudnn_forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *packing: jax.Array,
    bias: jax.Array | None = None,
    causal: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Calls cuDNN's forward pass.

    With `packing` (see `_packing`) each segment is a problem of its own, with a causal mask;
    what is outside of them is not written.

    Returns:
        The output, like query, and the log of the sum of exponentials of each query's scores, in
        float32: [slots, heads, length] with packing, [batch, heads, length] without.
    """
    bind = functools.partial(
        _kernels()._dot_product_attention_fwd_p.bind,
        is_training=True,
        **_parameters(query, packing, bias, causal),
    )
    unused = jnp.zeros(0, query.dtype)
    out, statistics = _in_turn(bind)(
        *(query, key, value, unused if bias is None else bias),
        *(packing or [unused] * 4),
        *[unused] * 2,
    )
    return out, statistics


def cudnn_backward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    statistics: jax.Array,
    out: jax.Array,
    out_grad: jax.Array,
    *packing: jax.Array,
    bias: jax.Array | None = None,
    causal: bool = True,
) -> tuple[jax.Array, ...]:
    """Calls cuDNN's backward pass: the gradients of query, key and value."""
    bind = functools.partial(
        _kernels()._dot_product_attention_bwd_p.bind, **_parameters(query, packing, bias, causal)
    )
    unused = jnp.zeros(0, query.dtype)
    grads = _in_turn(bind)(
        *(query, key, value, unused if bias is None else bias),
        *(packing or [unused] * 4),
        *[unused] * 2,
        *(statistics, out, out_grad),
    )
    return tuple(grads[:3])


def _kernels() -> ModuleType:
    """JAX's module of cuDNN's calls; it is not public, so other platforms do without it."""
    from jax._src.cudnn import fused_attention_stablehlo

    return fused_attention_stablehlo


def _in_turn(bind: Callable) -> Callable:
    """Lets vmap call cuDNN for one after the other: its primitives know no further dimension."""
    return jax.custom_batching.sequential_vmap(bind)


def _parameters(
    query: jax.Array, packing: tuple[jax.Array, ...], bias: jax.Array | None, causal: bool
) -> dict[str, Any]:
    kernels = _kernels()
    masks = kernels.MaskType
    mask = masks.CAUSAL if causal else masks.NO_MASK
    parameters = {
        "scale": query.shape[-1] ** -0.5,
        "seed": 42,  # of dropout, which is off
        "dropout_rate": 0.0,
        # Whether there is a bias, and whether its gradient is wanted.
        "variadic_args": (bias is not None, False),
        "mask_type": masks.PADDING_CAUSAL if packing else mask,
        "layout": kernels.AttentionLayout.BTNH.value,
        "sliding_window_length": None,
    }
    known = inspect.signature(kernels._dot_product_attention_fwd_cuda_lowering).parameters
    return parameters | {name: None for name in known if name in _SCORE_PARAMETERS}
