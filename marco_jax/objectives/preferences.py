"""Losses of preferences, pair by pair of a chosen and a rejected answer (DPO and variants).

Rows hold whole pairs: segments 2n - 1 and 2n of a row are the chosen and the rejected answer of its
n-th pair. With logp the sum of an answer's log-probabilities, delta the difference, chosen less
rejected, of logp less the reference's, and s the logistic function:

- sigmoid: -log s(beta delta) (Rafailov et al. 2023, arXiv 2305.18290);
- smoothed: the same with labels that are wrong with probability e, -(1 - e) log s(beta delta) -
  e log s(-beta delta) (Mitchell 2023, "conservative DPO");
- robust: (-(1 - e) log s(beta delta) + e log s(-beta delta)) / (1 - 2 e) (Chowdhury et al. 2024,
  arXiv 2403.00409), which stays unbiased under wrong labels;
- ipo: (delta' - 1 / (2 beta))^2, delta' of means over tokens (Azar et al. 2023, arXiv 2310.12036;
  the mean is the authors' own reading);
- simpo: -log s(beta d - gamma), d the difference of mean log-probabilities, without a reference
  (Meng et al. 2024, arXiv 2405.14734).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.model.layout import Manual
from marco_jax.objectives.losses import Sums

VARIANTS = ("sigmoid", "smoothed", "robust", "ipo", "simpo")
REFERENCES = ("cached", "live")


@dataclasses.dataclass(frozen=True)
class PreferenceOptions:
    """The loss of a pair; fields as in `config.dpo`."""

    variant: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.1
    simpo_gamma: float = 0.5
    sft_weight: float = 0.0
    reference: str = "cached"
    pairs_per_row: int = 16

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"dpo.variant is {self.variant!r}: choose one of {', '.join(VARIANTS)}"
            )
        if self.reference not in REFERENCES:
            raise ValueError(
                f"dpo.reference is {self.reference!r}: choose one of {', '.join(REFERENCES)}"
            )
        if self.beta <= 0:
            raise ValueError(f"dpo.beta is {self.beta}: it must be above zero")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"dpo.label_smoothing is {self.label_smoothing}: write a share below one half"
            )
        if self.pairs_per_row < 1:
            raise ValueError(f"dpo.pairs_per_row is {self.pairs_per_row}: a row needs at least one")

    @property
    def has_reference(self) -> bool:
        """Whether the variant compares with another model."""
        return self.variant != "simpo"

    @property
    def is_live(self) -> bool:
        """Whether the reference is computed at every step."""
        return self.has_reference and self.reference == "live"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Answers:
    """Sums over the target tokens of each answer; float32, all of one shape.

    logp: log-probability. reference: that of the reference model. tokens: their number.
    """

    logp: jax.Array
    reference: jax.Array
    tokens: jax.Array

    @property
    def mean(self) -> jax.Array:
        """Mean log-probability of a token."""
        return self.logp / jnp.maximum(self.tokens, 1.0)

    @property
    def log_ratio(self) -> jax.Array:
        """How much likelier than under the reference, in nats."""
        return self.logp - self.reference


def pair_losses(chosen: Answers, rejected: Answers, options: PreferenceOptions) -> jax.Array:
    """The loss of every pair, without the cross-entropy that `sft_weight` adds."""
    beta, smoothing = options.beta, options.label_smoothing
    if options.variant == "simpo":
        return -jax.nn.log_sigmoid(beta * (chosen.mean - rejected.mean) - options.simpo_gamma)
    if options.variant == "ipo":
        sides = (a.log_ratio / jnp.maximum(a.tokens, 1.0) for a in (chosen, rejected))
        return (next(sides) - next(sides) - 1 / (2 * beta)) ** 2
    delta = beta * (chosen.log_ratio - rejected.log_ratio)
    right, wrong = -jax.nn.log_sigmoid(delta), -jax.nn.log_sigmoid(-delta)
    if options.variant == "smoothed":
        return (1 - smoothing) * right + smoothing * wrong
    if options.variant == "robust":
        return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    return right


def pair_metrics(
    chosen: Answers, rejected: Answers, options: PreferenceOptions
) -> dict[str, jax.Array]:
    """Metrics of every pair besides its loss.

    reward_chosen, reward_rejected: beta times the log-ratio (for simpo, the mean log-probability).
    reward_margin: their difference. reward_accuracy: 1 where it is above zero. kl: the mean
    log-ratio of both answers in nats, which estimates KL(model || reference) where they were drawn
    from the model, and otherwise measures how far it has moved on them.
    """
    rewards = [
        options.beta * (a.log_ratio if options.has_reference else a.mean)
        for a in (chosen, rejected)
    ]
    metrics = {
        "reward_chosen": rewards[0],
        "reward_rejected": rewards[1],
        "reward_margin": rewards[0] - rewards[1],
        "reward_accuracy": (rewards[0] > rewards[1]).astype(jnp.float32),
    }
    if options.has_reference:
        metrics["kl"] = (chosen.log_ratio + rejected.log_ratio) / 2
    return metrics


def metric_names(options: PreferenceOptions) -> tuple[str, ...]:
    """The names that `pair_metrics` gives."""
    names = ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")
    return (*names, "kl") if options.has_reference else names


class RowAnswers(NamedTuple):
    """The answers of the rows of a device, float32 [batch, 2 * pairs]: chosen, rejected, chosen...

    logp: log-probability. reference: that of the reference model. tokens: target tokens, 0
    where there is no such answer. source: the source id.
    """

    logp: jax.Array
    reference: jax.Array
    tokens: jax.Array
    source: jax.Array

    def compared_with(self, reference: jax.Array) -> RowAnswers:
        """The same answers with other log-probabilities of the reference model."""
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
        options: have the number of pairs in a row.
        layout: of the device.
    """
    segments = jax.nn.one_hot(batch.segment_ids - 1, 2 * options.pairs_per_row)
    columns = (-losses * batch.loss_weights, batch.reference, batch.loss_weights, batch.source_ids)
    stacked = jnp.stack([*columns, jnp.ones_like(losses)])  # [5, batch, length]
    # Whole float32 products: on a TPU the default would round every log-probability to bfloat16.
    sums = jnp.einsum("kbl,bls->kbs", stacked, segments, precision=jax.lax.Precision.HIGHEST)
    logp, reference, tokens, source, positions = layout.sum_length(sums)
    return RowAnswers(logp, reference, tokens, source / jnp.maximum(positions, 1.0))


def pair_sums(
    answers: RowAnswers,
    options: PreferenceOptions,
    sft: jax.Array,
    sources: int,
    layout: Manual,
) -> tuple[jax.Array, Sums]:
    """The sum of losses, to differentiate, and metrics by source.

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

    metrics = pair_metrics(chosen, rejected, options)
    sums = Sums(
        by_source(losses),
        by_source(there),
        by_source(chosen.tokens + rejected.tokens),
        {name: by_source(values) for name, values in metrics.items()},
    )
    return jnp.where(there > 0, losses, 0.0).sum(), jax.lax.stop_gradient(sums)
