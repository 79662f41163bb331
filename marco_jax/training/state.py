"""What a training step takes and gives: its state, a batch, metrics, and how it is to compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from marco_jax.model.lora import LoraOptions
from marco_jax.model.parameters import Params
from marco_jax.training.guard import Guard, GuardOptions, from_json, to_json
from marco_jax.training.losses import LossOptions
from marco_jax.training.preferences import PreferenceOptions


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
        return {"guard": to_json(self.guard)}

    @classmethod
    def restored(
        cls, arrays: Mapping[str, Any], meta: Mapping[str, Any], options: GuardOptions
    ) -> TrainState:
        """The state of a checkpoint's `arrays` and meta; `frozen` is still to be set."""
        guard = from_json(meta.get("guard"), options)
        return cls(jnp.int32(meta["step"]), arrays["params"], arrays["optimizer"], guard)


class Batch(NamedTuple):
    """Packed rows; all arrays are [sequences, length]. Validity is carried, never inferred.

    tokens, targets, positions, segment_ids (0: padding), source_ids: int32. loss_weights: float32.
    reference: of preferences, float32, the log-probability of an answer under the reference model,
    on one position of its segment; preferences.py has the order of segments.
    """

    tokens: jax.Array
    targets: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    loss_weights: jax.Array
    source_ids: jax.Array
    reference: jax.Array | None = None


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
    """How a step computes; but for `guard`, none of it changes the value beyond rounding."""

    dtype: Any = jnp.float32
    remat: str = "none"
    attention: str = "auto"
    accumulation_steps: int = 1
    loss: LossOptions = LossOptions()
    guard: GuardOptions = GuardOptions()
    preference: PreferenceOptions | None = None
    lora: LoraOptions | None = None

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
        return self.preference is not None and self.preference.is_live
