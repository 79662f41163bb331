"""The loss over the vocabulary: sums over target tokens, divided by nobody but the step.

Logits are made a chunk of tokens at a time and never held whole. The gradients with respect to the
hidden states and the head are computed in the same pass, so that no logit is computed twice. Where
the vocabulary is shared out over ranks, a chunk of tokens is exchanged instead of the head: a head
of 152,064 words is far larger than the tokens of a device.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.layout import Manual


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """How the loss is defined, and how it is cut.

    logits_mib: float32 logits that a device holds at once. z_loss: weight of the squared
    log-normaliser. vocab_size: rows of the head past it are left out of the normaliser; None keeps
    all rows, padding included, as `transformers` does.
    """

    logits_mib: float = 128.0
    z_loss: float = 0.0
    vocab_size: int | None = None


class _Words(NamedTuple):
    """Which words of the vocabulary lie here, and who has the others (hashable)."""

    axes: tuple[str, ...] = ()  # mesh axes whose ranks hold different words, major first
    exchange: str | None = None  # of these, the one whose ranks hold different tokens as well
    ranks: int = 1  # of `exchange`


def cross_entropy(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    options: LossOptions = LossOptions(),
    layout: Manual | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The weighted sum of losses, to differentiate, and every token's cross-entropy, to look at.

    Args:
        hidden: [batch, length, embed], after the last norm.
        head: [vocab, embed] in hidden's dtype; under a layout, what `layout.head` gives.
        targets: int32 [batch, length].
        weights: float32 [batch, length]; 0 takes a place out of the sum.
        options: definition and chunks.
        layout: inside shard_map, who holds which words.

    Returns:
        float32 scalar: sum of weights * (cross-entropy + z_loss * log-normaliser ** 2), of the
        tokens here; and float32 [batch, length], cross-entropies in nats without gradient.
    """
    words = _Words()
    if layout is not None and layout.vocab_axes:
        exchange = layout.vocab_axis
        ranks = layout.sharding.mesh.shape[exchange] if exchange else 1
        words = _Words(layout.vocab_axes, exchange, ranks)
    rows = targets.size
    chunks = _chunks(rows * words.ranks, head.shape[0], options)
    padding = -rows % chunks

    def cut(x: jax.Array) -> jax.Array:
        x = x.reshape(rows, *x.shape[2:])
        x = jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(chunks, -1, *x.shape[1:])

    total, losses = _summed(cut(hidden), head, cut(targets), cut(weights), options, words)
    return total, losses.reshape(-1)[:rows].reshape(targets.shape)


def _chunks(rows: int, words: int, options: LossOptions) -> int:
    """How many chunks keep the logits of `rows` tokens within the options' bound."""
    return min(rows, math.ceil(rows * words * 4 / (options.logits_mib * 2**20)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _summed(
    hidden: jax.Array,  # [chunks, rows, embed]
    head: jax.Array,  # [words, embed]
    targets: jax.Array,  # [chunks, rows]
    weights: jax.Array,  # [chunks, rows]
    options: LossOptions,
    words: _Words,
) -> tuple[jax.Array, jax.Array]:
    def read(total: jax.Array, chunk: tuple) -> tuple[jax.Array, jax.Array]:
        added, losses, *_ = _chunk(*chunk, head, options, words)
        return total + added, losses

    return _scan(read, jnp.float32(0), (hidden, targets, weights))


def _forward(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    options: LossOptions,
    words: _Words,
) -> tuple[tuple, tuple]:
    def read(carry: tuple, chunk: tuple) -> tuple[tuple, tuple]:
        total, head_grad = carry
        added, losses, d_logits, rows = _chunk(*chunk, head, options, words)
        d_rows = jnp.einsum("rv,ve->re", d_logits, head)
        head_grad += jnp.einsum("rv,re->ve", d_logits, rows, preferred_element_type=jnp.float32)
        if "tensor" in words.axes:
            d_rows = jax.lax.psum(d_rows, "tensor")
        if words.exchange:
            d_rows = jax.lax.psum_scatter(d_rows, words.exchange, tiled=True)
        return (total + added, head_grad), (losses, d_rows)

    start = (jnp.float32(0), jnp.zeros(head.shape, jnp.float32))
    (total, head_grad), (losses, grads) = _scan(read, start, (hidden, targets, weights))
    return (total, losses), (grads, head_grad.astype(head.dtype))


def _backward(options: LossOptions, words: _Words, grads: tuple, cotangents: tuple) -> tuple:
    scale, _ = cotangents  # the losses to look at have no gradient
    hidden, head = (grad * scale.astype(grad.dtype) for grad in grads)
    return hidden, head, None, None


_summed.defvjp(_forward, _backward)


def _chunk(
    hidden: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    head: jax.Array,
    options: LossOptions,
    words: _Words,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """One chunk: the sum here, the losses here, and for the gradient d_logits and its rows.

    Under an exchange the rows are those of all its ranks, [ranks * rows, embed].
    """
    here = hidden.shape[0]
    if words.exchange:
        gather = functools.partial(jax.lax.all_gather, axis_name=words.exchange, tiled=True)
        hidden, targets, weights = gather(hidden), gather(targets), gather(weights)
    logits = jnp.einsum("re,ve->rv", hidden, head, preferred_element_type=jnp.float32)
    first = _rank(words) * head.shape[0]
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) + first
    if options.vocab_size is not None:
        logits = jnp.where(column < options.vocab_size, logits, -jnp.inf)
    largest = logits.max(axis=1)
    if words.axes:
        largest = jax.lax.pmax(largest, words.axes)
    chosen = column == targets[:, None]
    exponentials = jnp.exp(logits - largest[:, None])
    sums = jnp.stack([exponentials.sum(axis=1), jnp.where(chosen, logits, 0).sum(axis=1)])
    if words.axes:
        sums = jax.lax.psum(sums, words.axes)
    normaliser = largest + jnp.log(sums[0])
    losses = normaliser - sums[1]
    total = losses + options.z_loss * normaliser**2
    slope = weights * (1 + 2 * options.z_loss * normaliser) / sums[0]
    d_logits = exponentials * slope[:, None] - jnp.where(chosen, weights[:, None], 0)
    if words.exchange:
        start = jax.lax.axis_index(words.exchange) * here
        mine = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=here)
        losses, total, weights = mine(losses), mine(total), mine(weights)
    return (weights * total).sum(), losses, d_logits.astype(hidden.dtype), hidden


def _rank(words: _Words) -> jax.Array | int:
    return jax.lax.axis_index(words.axes) if words.axes else 0


def _scan(body, carry, xs):  # noqa: ANN001, ANN202
    """A scan, or the body alone where there is one chunk."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, xs)
    carry, ys = body(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda y: y[None], ys)
