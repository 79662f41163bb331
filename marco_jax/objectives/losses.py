"""Cross-entropy over the vocabulary, summed over target tokens; the step divides by their count.

Logits are computed a chunk of tokens at a time, and only one chunk is ever in memory. `_summed` has
a custom VJP: its forward pass computes the logits of a chunk, and from them at once the gradients
of the loss by the hidden states of the chunk and by the head, which it accumulates. The backward
pass only scales these gradients, so that no logit is computed twice. `_apart` returns one loss a
token instead; what each is worth is known only in the backward pass, which computes the logits
again. Where the vocabulary is split over ranks, they exchange a chunk of tokens instead of the
head: a head of 152,064 rows is far larger than the tokens of a device.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.cpu import LOGITS_MIB, on_cpu, target_logits
from marco_jax.model.layout import Manual


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """How the loss is defined, and in which chunks it is computed.

    logits_mib: float32 logits that a device holds at once. z_loss: weight of the squared
    log-normaliser. vocab_size: rows of the head past it are left out of the normaliser; None keeps
    all rows, padding included, as `transformers` does. frozen_head: the output matrix has no
    gradient.
    """

    logits_mib: float = 128.0
    z_loss: float = 0.0
    vocab_size: int | None = None
    frozen_head: bool = False


def default_logits_mib(platform: str) -> float:
    """LossOptions.logits_mib for a platform."""
    return LOGITS_MIB if platform == "cpu" else LossOptions.logits_mib


def cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    options: LossOptions = LossOptions(),
    layout: Manual | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The weighted sum of losses, to differentiate, and every token's cross-entropy, for metrics.

    Args:
        hidden: [batch, length, embed], after the last norm.
        table: float32 [vocab, embed], the output matrix; under a layout, this device's shard.
        targets: int32 [batch, length].
        weights: float32 [batch, length]; 0 leaves a token out of the sum.
        options: definition and chunks.
        layout: inside shard_map, which rank holds which vocabulary rows and which tokens.

    Returns:
        float32 scalar: sum of weights * (cross-entropy + z_loss * log-normaliser ** 2) over this
        device's tokens; and float32 [batch, length], cross-entropies in nats without gradient.
    """
    cut = _cutter(targets.size, table, options, layout)
    total, losses = _summed(cut(hidden), table, cut(targets), cut(weights), options, layout)
    return total, losses.reshape(-1)[: targets.size].reshape(targets.shape)


def token_losses(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    options: LossOptions = LossOptions(),
    layout: Manual | None = None,
) -> jax.Array:
    """Every token's cross-entropy, each of which may be differentiated; else as `cross_entropy`.

    The backward pass computes the logits again. There is no z_loss.

    Returns:
        float32 [batch, length], in nats.
    """
    options = dataclasses.replace(options, z_loss=0.0)
    cut = _cutter(targets.size, table, options, layout)
    losses = _apart(cut(hidden), table, cut(targets), options, layout)
    return losses.reshape(-1)[: targets.size].reshape(targets.shape)


def _cutter(
    rows: int, table: jax.Array, options: LossOptions, layout: Manual | None
) -> Callable[[jax.Array], jax.Array]:
    """Cuts arrays of [batch, length, ...] into chunks of tokens, [chunks, tokens, ...]."""
    together, vocab = rows, table.shape[0]
    if layout is not None:
        together, vocab = rows * layout.exchange_ranks, layout.head_entries(vocab)
    chunks = _chunks(rows, together * vocab * 4 / 2**20 / options.logits_mib)
    padding = -rows % chunks

    def cut(x: jax.Array) -> jax.Array:
        x = x.reshape(rows, *x.shape[2:])
        x = jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(chunks, -1, *x.shape[1:])

    return cut


def _chunks(rows: int, least: float) -> int:
    """How many chunks to cut `rows` into: a divisor if there is one near `least`."""
    least = max(1, math.ceil(least))
    divisors = (count for count in range(least, min(rows, 2 * least) + 1) if rows % count == 0)
    return min(rows, next(divisors, least))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _summed(
    hidden: jax.Array,  # [chunks, rows, embed]
    table: jax.Array,  # [vocab, embed] or a shard of it
    targets: jax.Array,  # [chunks, rows]
    weights: jax.Array,  # [chunks, rows]
    options: LossOptions,
    layout: Manual | None,
) -> tuple[jax.Array, jax.Array]:
    head = _head(table, hidden.dtype, layout)

    def read(total: jax.Array, chunk: tuple) -> tuple[jax.Array, jax.Array]:
        added, losses, *_ = _chunk(*chunk, head, options, layout)
        return total + added, losses

    return _scan(read, jnp.float32(0), (hidden, targets, weights))


def _forward(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    options: LossOptions,
    layout: Manual | None,
) -> tuple[tuple, tuple]:
    # The barrier keeps the head from being gathered before the layers are done: it is large.
    hidden, table = jax.lax.optimization_barrier((hidden, table))
    head, scatter = jax.vjp(lambda table: _head(table, hidden.dtype, layout), table)

    def read(carry: tuple, chunk: tuple) -> tuple[tuple, tuple]:
        total, head_grad = carry
        added, losses, d_logits, rows = _chunk(*chunk, head, options, layout)
        d_rows = jnp.einsum("rv,ev->re", d_logits, head)
        if not options.frozen_head:
            head_grad += jnp.einsum("re,rv->ev", rows, d_logits, preferred_element_type=jnp.float32)
        if layout is not None and "tensor" in layout.vocab_axes:
            d_rows = jax.lax.psum(d_rows, "tensor")
        if layout is not None and layout.vocab_axis:
            d_rows = jax.lax.psum_scatter(d_rows, layout.vocab_axis, tiled=True)
        return (total + added, head_grad), (losses, d_rows)

    held = (1,) if options.frozen_head else head.shape
    start = (jnp.float32(0), jnp.zeros(held, jnp.float32))
    (total, head_grad), (losses, grads) = _scan(read, start, (hidden, targets, weights))
    if options.frozen_head:
        return (total, losses), (grads, None)
    (table_grad,) = scatter(head_grad.astype(head.dtype))
    # The backward pass starts after the head's gradient is scattered, and the gathered head freed.
    return (total, losses), jax.lax.optimization_barrier((grads, table_grad))


def _backward(
    options: LossOptions, layout: Manual | None, grads: tuple, cotangents: tuple
) -> tuple:
    scale, _ = cotangents  # losses for metrics have no gradient
    hidden, table = jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads)
    return hidden, table, None, None


_summed.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _apart(
    hidden: jax.Array,  # [chunks, rows, embed]
    table: jax.Array,  # [vocab, embed] or a shard of it
    targets: jax.Array,  # [chunks, rows]
    options: LossOptions,
    layout: Manual | None,
) -> jax.Array:
    weights = jnp.ones(targets.shape, jnp.float32)
    return _summed(hidden, table, targets, weights, options, layout)[1]


def _apart_forward(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    options: LossOptions,
    layout: Manual | None,
) -> tuple[jax.Array, tuple]:
    return _apart(hidden, table, targets, options, layout), (hidden, table, targets)


def _apart_backward(
    options: LossOptions, layout: Manual | None, kept: tuple, cotangents: jax.Array
) -> tuple:
    _, grads = _forward(*kept, cotangents, options, layout)
    return (*grads, None)


_apart.defvjp(_apart_forward, _apart_backward)


def _head(table: jax.Array, dtype: jnp.dtype, layout: Manual | None) -> jax.Array:
    """The vocabulary rows that this device scores, [embed, vocab]."""
    return table.astype(dtype).T if layout is None else layout.head(table, dtype)


def _chunk(
    hidden: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    head: jax.Array,
    options: LossOptions,
    layout: Manual | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """One chunk: its sum, its losses, and for the gradient d_logits and the hidden states.

    Where ranks exchange tokens, the hidden states are those of all ranks, [ranks * rows, embed].
    """
    axes = layout.vocab_axes if layout is not None else ()
    exchange = layout.vocab_axis if layout is not None else None
    here = hidden.shape[0]
    if exchange:
        gather = functools.partial(jax.lax.all_gather, axis_name=exchange, tiled=True)
        hidden, targets, weights = gather(hidden), gather(targets), gather(weights)
    logits = jnp.einsum("re,ev->rv", hidden, head, preferred_element_type=jnp.float32)
    first = jax.lax.axis_index(axes) * head.shape[1] if axes else 0
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) + first
    if options.vocab_size is not None:
        logits = jnp.where(column < options.vocab_size, logits, -jnp.inf)
    largest = logits.max(axis=1)
    if axes:
        largest = jax.lax.pmax(largest, axes)
    chosen = column == targets[:, None]
    exponentials = jnp.exp(logits - largest[:, None])
    sums = jnp.stack([exponentials.sum(axis=1), _chosen(logits, chosen, targets - first, layout)])
    if axes:
        sums = jax.lax.psum(sums, axes)
    normaliser = largest + jnp.log(sums[0])
    losses = normaliser - sums[1]
    total = losses + options.z_loss * normaliser**2
    slope = weights * (1 + 2 * options.z_loss * normaliser) / sums[0]
    d_logits = exponentials * slope[:, None] - jnp.where(chosen, weights[:, None], 0)
    if exchange:
        start = jax.lax.axis_index(exchange) * here
        mine = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=here)
        losses, total, weights = mine(losses), mine(total), mine(weights)
    return (weights * total).sum(), losses, d_logits.astype(hidden.dtype), hidden


def _chosen(
    logits: jax.Array, chosen: jax.Array, columns: jax.Array, layout: Manual | None
) -> jax.Array:
    """Every row's logit of its target, [rows]; 0 where another rank has it.

    A TPU sums over `chosen` while it reads the logits.
    """
    if layout is not None and on_cpu(layout.sharding):
        return target_logits(logits, columns)
    return jnp.where(chosen, logits, 0).sum(axis=1)


def _scan(body, carry, xs):  # noqa: ANN001, ANN202
    """A scan, or the body alone where there is one chunk."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, xs)
    carry, ys = body(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], ys)


class Sums(NamedTuple):
    """What a step adds up over a batch, by source; float32 [sources] each.

    loss_sums: losses. loss_counts: what the loss is divided by, target tokens or pairs.
    token_counts: target tokens. metrics: sums of further metrics, divided by the same counts.
    """

    loss_sums: jax.Array
    loss_counts: jax.Array
    token_counts: jax.Array
    metrics: dict[str, jax.Array]

    @classmethod
    def zeros(cls, sources: int, names: Sequence[str] = ()) -> Sums:
        """All zero, with metrics of these names."""
        none = jnp.zeros(sources)
        return cls(none, none, none, dict.fromkeys(names, none))


def token_sums(losses: jax.Array, batch: Any, sources: int) -> Sums:
    """Sums of a loss over tokens.

    Args:
        losses: float32 [batch, length], before they are multiplied by the loss weights.
        batch: a Batch.
        sources: how many there are.
    """
    of_source = jax.nn.one_hot(batch.source_ids, sources)  # [batch, length, sources]
    loss_sums = jnp.einsum("bl,bls->s", losses * batch.loss_weights, of_source)
    counts = jnp.einsum("bl,bls->s", batch.loss_weights, of_source)
    return Sums(loss_sums, counts, counts, {})
