"""Pairs of answers in packed rows: their log-probabilities, losses and figures."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.layout import Manual
from marco_jax.training.preferences import (
    Answers,
    PreferenceOptions,
    pair_figures,
    pair_losses,
)
from marco_jax.training.sums import Sums


class RowAnswers(NamedTuple):
    """The answers of the rows of a device, float32 [batch, 2 * pairs]: chosen, rejected, chosen...

    logp: log-probability. reference: that of the reference model. tokens: learnt ones, 0 where
    there is no such answer. source: the source id.
    """

    logp: jax.Array
    reference: jax.Array
    tokens: jax.Array
    source: jax.Array

    def compared_with(self, reference: jax.Array) -> RowAnswers:
        """The same answers beside other log-probabilities of the reference."""
        return self._replace(reference=reference)

    def side(self, rejected: bool) -> Answers:
        """The chosen answers, or the rejected ones: [batch, pairs]."""
        first = int(rejected)
        return Answers(
            self.logp[:, first::2], self.reference[:, first::2], self.tokens[:, first::2]
        )


def answers_of(
    losses: jax.Array, batch: Any, options: PreferenceOptions, layout: Manual
) -> RowAnswers:
    """Adds up each answer's tokens, over all the ranks that hold pieces of a row.

    Args:
        losses: float32 [batch, length], every token's cross-entropy.
        batch: a Batch, the device's.
        options: say how many pairs a row may have.
        layout: of the device.
    """
    segments = jax.nn.one_hot(batch.segment_ids - 1, 2 * options.pairs_per_row)
    columns = (-losses * batch.loss_weights, batch.reference, batch.loss_weights, batch.source_ids)
    stacked = jnp.stack([*columns, jnp.ones_like(losses)])  # [5, batch, length]
    # Whole float32 products: on a TPU the default would round every log-probability to bfloat16.
    sums = jnp.einsum("kbl,bls->kbs", stacked, segments, precision=jax.lax.Precision.HIGHEST)
    logp, reference, tokens, source, places = layout.sum_length(sums)
    return RowAnswers(logp, reference, tokens, source / jnp.maximum(places, 1.0))


def pair_sums(
    answers: RowAnswers,
    options: PreferenceOptions,
    sft: jax.Array,
    sources: int,
    layout: Manual,
) -> tuple[jax.Array, Sums]:
    """The sum of losses, to differentiate, and what there is to look at, by source.

    `sft` is the weight of a chosen token's cross-entropy, in units of a pair's loss.
    """
    chosen, rejected = answers.side(False), answers.side(True)
    there = (chosen.tokens > 0).astype(jnp.float32)  # [batch, pairs]
    losses = pair_losses(chosen, rejected, options) - sft * chosen.logp
    of_source = jax.nn.one_hot(answers.source[:, ::2].round().astype(jnp.int32), sources)
    # Ranks that share rows all see the same answers, and each counts its part of them.
    share = 1.0 / layout.sharding.ways("length")

    def by_source(values: jax.Array) -> jax.Array:
        return share * jnp.einsum("bp,bps->s", jnp.where(there > 0, values, 0.0), of_source)

    figures = pair_figures(chosen, rejected, options)
    sums = Sums(
        by_source(losses),
        by_source(there),
        by_source(chosen.tokens + rejected.tokens),
        {name: by_source(values) for name, values in figures.items()},
    )
    return jnp.where(there > 0, losses, 0.0).sum(), jax.lax.stop_gradient(sums)
