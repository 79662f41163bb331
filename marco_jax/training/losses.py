"""Losses over the vocabulary: sums over target tokens, divided by nobody but the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from marco_jax.model.qwen2 import Qwen2


def token_losses(
    model: Qwen2, hidden: jax.Array, targets: jax.Array, *, chunk_tokens: int = 0
) -> jax.Array:
    """Cross-entropy of every target in float32, padded vocabulary rows in the normaliser.

    Args:
        model: applies the head.
        hidden: [batch, length, embed].
        targets: int32 [batch, length].
        chunk_tokens: 0 holds all logits at once; otherwise the length is cut in chunks of about
            batch * chunk = chunk_tokens tokens, whose logits are recomputed in the backward pass.

    Returns:
        float32 [batch, length] in nats.
    """

    def losses(hidden: jax.Array, targets: jax.Array) -> jax.Array:
        logits = model.logits(hidden)  # [batch, chunk, vocab]
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen

    batch, length = targets.shape
    chunk = length
    while chunk_tokens and chunk % 2 == 0 and batch * chunk > chunk_tokens:
        chunk //= 2
    if chunk == length:
        return losses(hidden, targets)

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(batch, length // chunk, chunk, *x.shape[2:]), 1, 0)

    remat = jax.checkpoint(losses, prevent_cse=False)
    _, chunks = jax.lax.scan(
        lambda carry, block: (carry, remat(*block)), None, (split(hidden), split(targets))
    )
    return jnp.moveaxis(chunks, 0, 1).reshape(batch, length)
