"""Sampling of the next token from logits."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Temperature, top-k and top-p, applied in that order; temperature 0 is greedy.

    The default is greedy, without truncation. The generation config of Qwen2-Instruct has
    temperature 0.7, top_p 0.8 and top_k 20.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: use 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: use 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: use a share above 0 and at most 1")


def sample(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> jax.Array:
    """Draws one token per row: float32 logits [batch, vocab], keys [batch] -> int32 [batch]."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.top_k:
        kept = min(sampling.top_k, logits.shape[-1])
        threshold = jax.lax.top_k(logits, kept)[0][:, -1:]
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        # The smallest set that reaches top_p: a token stays if those above it do not reach it.
        above = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = jnp.sum(above < sampling.top_p, axis=-1, keepdims=True)
        threshold = jnp.take_along_axis(ordered, kept - 1, axis=-1)
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
