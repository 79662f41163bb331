"""What a training step takes and returns: its state, a batch, metrics, and its options.

The guard in the state skips the update of a step whose loss is not finite or far off. The decision
is made on the device, from scalars that the step has anyway (the loss, the gradient's norm):
nothing is fetched to the host, no collective is added, and a step that is not skipped is
bit-identical to one without a guard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from marco_jax.model.lora import LoraOptions
from marco_jax.model.parameters import Params
from marco_jax.objectives.losses import LossOptions
from marco_jax.objectives.policy_gradient import PolicyOptions
from marco_jax.objectives.preferences import PreferenceOptions, metric_names


class Guard(NamedTuple):
    """What is carried from step to step.

    losses: float32 [window], a ring of the last losses that were not skipped; empty if spikes are
    not judged. seen: int32, losses since the ring was empty. skipped: int32, skipped steps so far.
    """

    losses: jax.Array
    seen: jax.Array
    skipped: jax.Array


@dataclasses.dataclass(frozen=True)
class GuardOptions:
    """When a step is skipped.

    Always when its loss or its gradient's norm is not finite. With `spike_sigmas` above 0 also when
    its loss is more than so many standard deviations above the mean of the last `spike_window`
    losses that were not skipped, once there are as many.
    """

    spike_sigmas: float = 0.0
    spike_window: int = 128

    def __post_init__(self) -> None:
        if self.spike_sigmas < 0 or self.spike_window < 2:
            raise ValueError(
                f"anomaly.spike_sigmas is {self.spike_sigmas} and spike_window {self.spike_window}:"
                " give 0 or more standard deviations, over 2 losses or more"
            )

    @property
    def window(self) -> int:
        """Losses that are kept."""
        return self.spike_window if self.spike_sigmas else 0

    def init(self) -> Guard:
        """Before the first step."""
        return Guard(jnp.zeros(self.window, jnp.float32), jnp.int32(0), jnp.int32(0))

    def judge(self, guard: Guard, loss: jax.Array, grad_norm: jax.Array) -> tuple[jax.Array, Guard]:
        """Whether to skip the step (a boolean scalar), and the guard after it."""
        skip = ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
        losses, seen = guard.losses, guard.seen
        if self.window:
            mean = losses.mean()
            far = loss > mean + self.spike_sigmas * jnp.sqrt(jnp.square(losses - mean).mean())
            skip = skip | (far & (seen >= self.window))
            pushed = losses.at[seen % self.window].set(loss)
            losses = jnp.where(skip, losses, pushed)
            seen = jnp.where(skip, seen, seen + 1)
        return skip, Guard(losses, seen, guard.skipped + skip.astype(jnp.int32))


def guard_to_json(guard: Guard) -> dict[str, Any]:
    """Plain data that `guard_from_json` turns into the same guard, bit for bit."""
    losses, seen, skipped = jax.device_get(guard)
    return {
        "losses": [float(x) for x in losses],
        "seen": int(seen),
        "skipped": int(skipped),
    }


def guard_from_json(value: dict[str, Any] | None, options: GuardOptions) -> Guard:
    """The guard of a checkpoint; its losses count where the window is still the same."""
    guard = options.init()
    if not value:
        return guard
    guard = guard._replace(skipped=jnp.int32(value["skipped"]))
    if options.window and len(value["losses"]) == options.window:
        losses = jnp.asarray(value["losses"], jnp.float32)
        guard = guard._replace(losses=losses, seen=jnp.int32(value["seen"]))
    return guard


class TrainState(NamedTuple):
    """Everything that a step changes. `step` counts finished steps, skipped ones included.

    `frozen` does not change and is in no checkpoint: the model that adapters adapt, or the
    reference of preferences; None where there is neither. With adapters, they are `params`.
    """

    step: jax.Array
    params: Params
    optimizer: optax.OptState
    guard: Guard
    frozen: Params | None = None

    @property
    def arrays(self) -> dict[str, Any]:
        """The pytrees of a checkpoint, by name."""
        return {"params": self.params, "optimizer": self.optimizer}

    def meta(self) -> dict[str, Any]:
        """What the meta of a checkpoint holds of the state: plain data."""
        return {"guard": guard_to_json(self.guard)}

    @classmethod
    def restored(
        cls, arrays: Mapping[str, Any], meta: Mapping[str, Any], options: GuardOptions
    ) -> TrainState:
        """The state of a checkpoint's `arrays` and meta; `frozen` is still to be set."""
        guard = guard_from_json(meta.get("guard"), options)
        return cls(jnp.int32(meta["step"]), arrays["params"], arrays["optimizer"], guard)


class Batch(NamedTuple):
    """Packed rows; all arrays are [sequences, length]. Validity is carried, never inferred.

    tokens, targets, positions, segment_ids (0: padding), source_ids: int32. loss_weights: float32.
    reference: of preferences, float32, the log-probability of an answer under the reference model,
    on one position of its segment; preferences.py has the order of segments.
    advantages, behaviour: of sampled answers, float32: the advantage of a token's answer, and the
    log-probability of the token under the policy that sampled it (policy_gradient.py).
    """

    tokens: jax.Array
    targets: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    loss_weights: jax.Array
    source_ids: jax.Array
    reference: jax.Array | None = None
    advantages: jax.Array | None = None
    behaviour: jax.Array | None = None


class StepMetrics(NamedTuple):
    """Sums over the global batch, and scalars of the update.

    loss_sums, loss_counts, token_counts: float32 [sources]; the loss is the first by the second,
    tokens or pairs; token_counts are target tokens. metrics: sums of further metrics, divided
    by the same counts. filled: float32, positions that are not padding. grad_norm: before clipping.
    skipped: boolean, whether the update was left out. skipped_steps: int32, so far in the run.
    """

    loss_sums: jax.Array
    loss_counts: jax.Array
    token_counts: jax.Array
    metrics: dict[str, jax.Array]
    filled: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    skipped: jax.Array
    skipped_steps: jax.Array


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes; but for `guard`, none of it changes the value beyond rounding.

    skip_empty: whether the last microbatches of sampled answers are not computed where they are
    empty. How many there are is then known only to the running program, not to the compiler.
    quantize: the type of the layers' matrix products (model/quantized.py).
    keep_gathered: whether the backward pass uses the weights that the forward pass gathered.
    compiler_options: names and values, of the compiler of the step.
    """

    dtype: Any = jnp.float32
    remat: str = "none"
    attention: str = "auto"
    accumulation_steps: int = 1
    loss: LossOptions = LossOptions()
    guard: GuardOptions = GuardOptions()
    preference: PreferenceOptions | None = None
    policy: PolicyOptions | None = None
    skip_empty: bool = True
    lora: LoraOptions | None = None
    keep_gathered: bool = False
    quantize: str = "none"
    compiler_options: tuple[tuple[str, bool | int | float | str], ...] = ()

    @property
    def is_frozen(self) -> bool:
        """Whether a state has parameters that do not train."""
        return self.lora is not None or self._is_live

    @property
    def model_flops(self) -> float:
        """FLOPs of a step, in units of one that trains all parameters.

        Of three products with a matrix one makes its gradient, which a frozen one has not; a live
        reference is one more pass forward.
        """
        return ((3 if self.lora is None else 2) + self._is_live) / 3

    @property
    def _is_live(self) -> bool:
        policy = self.policy is not None and self.policy.has_reference
        return policy or (self.preference is not None and self.preference.is_live)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics that a step gives besides its loss."""
        if self.policy is not None:
            return self.policy.metrics
        return metric_names(self.preference) if self.preference else ()
