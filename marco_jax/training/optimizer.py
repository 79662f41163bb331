"""AdamW, clipping, and learning-rate schedules that run through stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import optax

from marco_jax.model.lora import LoraOptions, adapter_tree
from marco_jax.model.parameters import Params, parameter_tree
from marco_jax.model.qwen2_config import Qwen2Config

SCHEDULES = ("constant", "cosine", "linear", "wsd")


@dataclasses.dataclass(frozen=True)
class StageSchedule:
    """The learning rate of one stage.

    `shape` after the warm-up: constant; cosine or linear down to `final_share` of the peak; wsd
    keeps the peak and falls linearly over the last fifth. Marco-LLM states the peaks of its two
    stages (1e-5, then 6e-6; Table 3) and neither warm-up nor shape.
    """

    steps: int
    peak: float
    shape: str = "cosine"
    warmup_steps: int = 0
    final_share: float = 0.1

    def __post_init__(self) -> None:
        if self.shape not in SCHEDULES:
            raise ValueError(f"schedule is {self.shape!r}: choose one of {', '.join(SCHEDULES)}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(
                f"warm-up of {self.warmup_steps} steps does not fit a stage of {self.steps}"
            )

    def build(self) -> optax.Schedule:
        """Learning rate by step within the stage."""
        rest = max(1, self.steps - self.warmup_steps)
        final = self.peak * self.final_share
        if self.shape == "constant":
            body = optax.constant_schedule(self.peak)
        elif self.shape == "cosine":
            body = optax.cosine_decay_schedule(self.peak, rest, alpha=self.final_share)
        elif self.shape == "linear":
            body = optax.linear_schedule(self.peak, final, rest)
        else:
            decay = max(1, rest // 5)
            fall = optax.linear_schedule(self.peak, final, decay)
            body = optax.join_schedules([optax.constant_schedule(self.peak), fall], [rest - decay])
        if not self.warmup_steps:
            return body
        # Step 0 of n already has 1/n of the peak.
        first = self.peak / self.warmup_steps
        warmup = optax.linear_schedule(first, self.peak, max(1, self.warmup_steps - 1))
        return optax.join_schedules([warmup, body], [self.warmup_steps])


def join_stages(stages: Sequence[StageSchedule]) -> optax.Schedule:
    """One schedule over the global step; each stage starts its own warm-up."""
    boundaries = [sum(stage.steps for stage in stages[: i + 1]) for i in range(len(stages) - 1)]
    return optax.join_schedules([stage.build() for stage in stages], boundaries)


def create_optimizer(
    config: Qwen2Config,
    schedule: optax.Schedule,
    *,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    clip_norm: float,
    lora: LoraOptions | None = None,
) -> optax.GradientTransformation:
    """AdamW after a clip of the global norm; norms and biases do not decay.

    A `clip_norm` of 0 clips nothing. With `lora` the adapters are optimized.

    Raises:
        ValueError: a negative clip_norm.
    """
    if not clip_norm >= 0:
        raise ValueError(f"optimizer.clip_norm is {clip_norm}: write 0 (no clipping) or more")
    if lora is None:
        mask = parameter_tree(config, lambda row: row.decays)
    else:
        mask = adapter_tree(config, lora, lambda row: row.decays)
    adamw = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, adamw)


def optimizer_shardings(
    optimizer: optax.GradientTransformation,
    params: Params,
    shardings: Params,
    replicated: jax.sharding.Sharding,
) -> optax.OptState:
    """Shardings of the optimizer state: moments as their parameters, scalars replicated."""
    state = jax.eval_shape(optimizer.init, params)
    return optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        state,
        shardings,
        transform_non_params=lambda _: replicated,
    )
