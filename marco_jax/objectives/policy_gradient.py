"""Losses of policy gradients on groups of sampled answers: GRPO and what has been made of it.

An answer's tokens share its advantage A, how much better it is than the other answers to the same
prompt. With r the probability of a token over that under the policy which sampled it, a token's
loss is -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) (PPO, Schulman et al. 2017,
arXiv 1707.06347; GRPO, Shao et al. 2024, arXiv 2402.03300), plus kl times an estimate of
KL(policy || reference), q - log q - 1 with q the reference's probability over the policy's.
The estimate is weighted by r, also where r is 1: its gradient is then that of the divergence
(DeepSeek-V3.2, arXiv 2512.02556); `kl_weighted` off leaves the weight out.

- `ratio` "sequence" replaces r by its geometric mean over the answer (GSPO, Zheng et al. 2025,
  arXiv 2507.18071).
- `clip_high` above `clip_low` leaves unlikely tokens more room (DAPO, Yu et al. 2025,
  arXiv 2503.14476); `clip_most` bounds r also where A is negative.
- `surrogate` "weighted" is -sg(min(r, 1 + clip_high)) A log p, which keeps the gradient of every
  token (CISPO, MiniMax 2025, arXiv 2506.13585), sg a stop of the gradient.
- `average` says what a token counts. "sequence": one over the tokens of its answer, as GRPO has
  it, which favours short right and long wrong answers; "token": the same for all tokens of the
  batch (DAPO); "constant": one over the most tokens that an answer may have (Dr. GRPO, Liu et al.
  2025, arXiv 2503.20783); "sum": answers count by their length (LUSPO, arXiv 2602.05261).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from marco_jax.model.layout import Manual
from marco_jax.objectives.losses import Sums

RATIOS = ("token", "sequence")
SURROGATES = ("clipped", "weighted")
AVERAGES = ("sequence", "token", "constant", "sum")


@dataclasses.dataclass(frozen=True)
class PolicyOptions:
    """The loss of sampled answers; the fields of `config.grpo` that the step needs.

    Attributes:
        ratio, surrogate, clip_low, clip_high, clip_most, average, kl, kl_weighted: as above;
            clip_most 0: none.
        temperature: of sampling; probabilities are those of logits divided by it.
        most_tokens: that an answer may have.
        off_policy: whether batches have the log-probabilities of the policy that sampled. Where
            each answer is used for one update, right after sampling, r is 1.
        answers_per_row: most answers in a row of a batch.
    """

    ratio: str = "token"
    surrogate: str = "clipped"
    clip_low: float = 0.2
    clip_high: float = 0.28
    clip_most: float = 0.0
    average: str = "token"
    kl: float = 0.0
    kl_weighted: bool = True
    temperature: float = 1.0
    most_tokens: int = 1
    off_policy: bool = False
    answers_per_row: int = 1

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name, known in (("ratio", RATIOS), ("surrogate", SURROGATES), ("average", AVERAGES)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise ValueError(f"grpo.{name} is {given!r}: choose one of {', '.join(known)}")
        if not 0 < self.clip_low <= 1:
            raise ValueError(f"grpo.clip_low is {self.clip_low}: write a number above 0, up to 1")
        if self.clip_high <= 0:
            raise ValueError(f"grpo.clip_high is {self.clip_high}: it must be above zero")
        if self.clip_most and self.clip_most <= 1 + self.clip_high:
            raise ValueError(
                f"grpo.clip_most is {self.clip_most}: write 0, or more than 1 + grpo.clip_high"
            )
        if self.kl < 0:
            raise ValueError(f"grpo.kl is {self.kl}: it must be zero or more")
        if self.temperature <= 0:
            raise ValueError(f"grpo.temperature is {self.temperature}: it must be above zero")

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with the model that the run starts from."""
        return self.kl > 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that `policy_sums` gives.

        entropy: mean of -log p of the sampled tokens under the policy that sampled them, in nats,
        an unbiased estimate of its entropy. clip_share: tokens without a gradient since their ratio
        was clipped (in "weighted": tokens whose ratio was cut). kl: see above.
        """
        return ("entropy", "clip_share", *(("kl",) if self.has_reference else ()))


def policy_sums(
    logps: jax.Array,
    reference: jax.Array | None,
    batch: Any,
    options: PolicyOptions,
    sources: int,
    layout: Manual,
) -> tuple[jax.Array, Sums]:
    """The sum of losses, to differentiate, and metrics by source.

    Args:
        logps: float32 [batch, length], log-probability of each target token under the policy.
        reference: the same under the reference model; None without it.
        batch: a Batch of this device. Its loss_weights are 1 for tokens of answers, else 0; it has
            `advantages`, and `behaviour` if the options are off-policy.
        options: of the loss.
        sources: how many there are.
        layout: of the device.
    """
    mask, own = batch.loss_weights, jax.lax.stop_gradient(logps)
    before = batch.behaviour if options.off_policy else own
    log_ratio = moved = (own - before) * mask
    segments = jax.nn.one_hot(batch.segment_ids - 1, options.answers_per_row)

    def over_answers(*columns: jax.Array) -> jax.Array:
        """Sums over each answer, at all of its positions: [columns, batch, length]."""
        exact = jax.lax.Precision.HIGHEST
        sums = jnp.einsum("kbl,bls->kbs", jnp.stack(columns), segments, precision=exact)
        return jnp.einsum("kbs,bls->kbl", layout.sum_length(sums), segments, precision=exact)

    tokens, drift = over_answers(mask, log_ratio)
    tokens = jnp.maximum(tokens, 1.0)
    if options.ratio == "sequence":
        moved = drift / tokens
    # The ratio's value, with the gradient of the token's log-probability: over an answer that is
    # the gradient of its geometric mean, too.
    ratio = jnp.exp(moved + logps - own)
    losses, clipped = _token_losses(ratio, logps, batch.advantages, options)
    metrics = {"entropy": -before, "clip_share": clipped}
    if reference is not None:
        quotient = reference - logps
        divergence = jnp.exp(quotient) - quotient - 1
        weight = jnp.exp(log_ratio + logps - own) if options.kl_weighted else 1.0
        losses = losses + options.kl * weight * divergence
        metrics["kl"] = divergence
    # What a token counts in the loss, and in means over what the loss is divided by.
    by_answer = mask / tokens
    worth = {"sequence": by_answer, "constant": mask / options.most_tokens}
    counted = mask if options.average == "token" else by_answer
    losses = losses * worth.get(options.average, mask)
    of_source = jax.nn.one_hot(batch.source_ids, sources)

    def by_source(values: jax.Array) -> jax.Array:
        return jnp.einsum("bl,bls->s", values, of_source)

    sums = Sums(
        by_source(losses),
        by_source(counted),
        by_source(mask),
        {name: by_source(values * counted) for name, values in metrics.items()},
    )
    return losses.sum(), jax.lax.stop_gradient(sums)


def _token_losses(
    ratio: jax.Array, logps: jax.Array, advantages: jax.Array, options: PolicyOptions
) -> tuple[jax.Array, jax.Array]:
    """The loss of each token but for the divergence, and 1.0 where its ratio was clipped."""
    high = 1 + options.clip_high
    if options.surrogate == "weighted":
        weight = jax.lax.stop_gradient(jnp.minimum(ratio, high))
        return -weight * advantages * logps, (ratio > high).astype(jnp.float32)
    clipped = jnp.clip(ratio, 1 - options.clip_low, high)
    if options.clip_most:
        ratio = jnp.minimum(ratio, options.clip_most)
    cut = (clipped * advantages < ratio * advantages).astype(jnp.float32)
    return -jnp.minimum(ratio * advantages, clipped * advantages), cut
