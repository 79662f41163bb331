"""Rotary positions: the phases of queries and keys by their position."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.qwen2_config import Qwen2Config


class Rotary(NamedTuple):
    """Cosines and sines of the rotary phase, float32 [batch, length, 1, head_dim / 2]."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def at(cls, positions: jax.Array, config: Qwen2Config) -> Rotary:
        """Phases of integer positions [batch, length], in float32 (bf16 rounds 257 to 256)."""
        half = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
        frequencies = 1.0 / (config.rope_theta**half)
        phase = positions.astype(jnp.float32)[..., None, None] * frequencies
        return cls(jnp.cos(phase), jnp.sin(phase))

    def rotate(self, x: jax.Array) -> jax.Array:
        """Rotates [batch, length, heads, head_dim] like `rotate_half` of `transformers`."""
        first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        rotated = (
            first * self.cos - second * self.sin,
            second * self.cos + first * self.sin,
        )
        return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
