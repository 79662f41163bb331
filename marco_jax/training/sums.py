"""What a step adds up over a batch, by source."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.training.preferences import PreferenceOptions, figure_names


class Sums(NamedTuple):
    """float32 [sources] each: losses, what they are divided by, learnt tokens; sums of figures."""

    loss_sums: jax.Array
    loss_counts: jax.Array
    token_counts: jax.Array
    figures: dict[str, jax.Array]

    @classmethod
    def zeros(cls, sources: int, preference: PreferenceOptions | None) -> Sums:
        """Nothing yet."""
        names = () if preference is None else figure_names(preference)
        none = jnp.zeros(sources)
        return cls(none, none, none, dict.fromkeys(names, none))


def token_sums(losses: jax.Array, batch: Any, sources: int) -> Sums:
    """Of a loss over tokens: float32 [batch, length] losses of a Batch, weights not yet in them."""
    of_source = jax.nn.one_hot(batch.source_ids, sources)  # [batch, length, sources]
    loss_sums = jnp.einsum("bl,bls->s", losses * batch.loss_weights, of_source)
    counts = jnp.einsum("bl,bls->s", batch.loss_weights, of_source)
    return Sums(loss_sums, counts, counts, {})
