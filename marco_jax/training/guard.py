"""Skips the update of a step whose loss is not finite or far off, decided on the device.

The decision is computed from scalars that the step has anyway (the loss, the gradient's norm):
nothing is fetched to the host, no collective is added, and a step that is not skipped is
bit-identical to one without a guard.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


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


def to_json(guard: Guard) -> dict[str, Any]:
    """Plain data that `from_json` turns into the same guard, bit for bit."""
    losses, seen, skipped = jax.device_get(guard)
    return {
        "losses": [float(x) for x in losses],
        "seen": int(seen),
        "skipped": int(skipped),
    }


def from_json(value: dict[str, Any] | None, options: GuardOptions) -> Guard:
    """The guard of a checkpoint; its losses count where the window is still the same."""
    guard = options.init()
    if not value:
        return guard
    guard = guard._replace(skipped=jnp.int32(value["skipped"]))
    if options.window and len(value["losses"]) == options.window:
        losses = jnp.asarray(value["losses"], jnp.float32)
        guard = guard._replace(losses=losses, seen=jnp.int32(value["seen"]))
    return guard
