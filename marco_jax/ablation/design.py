"""Draws the mixtures of a sweep: the prior, a uniform mixture, and random ones around the prior.

Random mixtures are Dirichlet draws with strengths between 0.1 and 5 times the number of components;
weights under 0.002 become 0. Both are defaults of Olmix (arXiv 2602.12237). The draws are centred
on the normalised square root of the prior, as in RegMix (arXiv 2407.01492): centred on the prior, a
component of half a per cent would be missing from nearly all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

_STRENGTHS = (0.1, 5.0)
# Exponent of the prior in the centre of the draws.
_TEMPER = 0.5
# Maximum number of draws, including those rejected for breaking a cap.
_TRIES = 10_000


@dataclasses.dataclass(frozen=True)
class Design:
    """The mixtures of a sweep: weights [runs, components] with a name for each row."""

    names: tuple[str, ...]
    weights: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """The weights of the prior, [components]."""
        return self.weights[0]


def draw_design(
    prior: Mapping[str, float],
    runs: int,
    seed: int,
    *,
    caps: Mapping[str, float] | None = None,
    least: float = 0.002,
) -> Design:
    """Draws a design of `runs` mixtures: the prior, a uniform one, and random ones.

    Args:
        prior: weights by component; normalised to sum 1.
        runs: number of mixtures; fits need about three times the number of components.
        seed: seed of the draws.
        caps: maximum weight by component, such as the weight at a number of epochs.
        least: smaller weights become 0.

    Raises:
        ValueError: fewer than 4 runs, a weight that is not positive, or caps that are too tight.
    """
    base = np.array(list(prior.values()), np.float64)
    count = len(base)
    if runs < 4 or count < 2:
        raise ValueError(
            f"{runs} runs over {count} components: use at least 4 runs and 2 components"
        )
    if base.min() <= 0 or not np.isfinite(base).all():
        raise ValueError(f"the prior {dict(prior)} must give every component a weight above zero")
    base = base / base.sum()
    caps = caps or {}
    top = np.array([caps.get(component, 1.0) for component in prior])
    shown = {component: round(cap, 4) for component, cap in caps.items()}
    if top.sum() < 1:
        raise ValueError(
            f"the caps {shown} add up to less than 1: raise sweep.max_epochs, or lower "
            "sweep.target_tokens"
        )
    centre = base**_TEMPER / (base**_TEMPER).sum()
    rng = np.random.default_rng(np.random.SeedSequence([seed, count]))
    low, high = np.log(_STRENGTHS)
    drawn: list[np.ndarray] = []
    for _ in range(_TRIES):
        if len(drawn) == runs - 2:
            break
        strength = np.exp(rng.uniform(low, high)) * count
        weights = rng.dirichlet(np.maximum(centre * strength, 1e-3))
        weights = np.where(weights < least, 0.0, weights)
        weights = weights / weights.sum()
        if (weights <= top + 1e-12).all():
            drawn.append(weights)
    else:
        raise ValueError(f"the caps {shown} are too tight to draw {runs} mixtures")
    uniform = cap_weights(np.full(count, 1 / count), top)
    rows = np.array([cap_weights(base, top), uniform, *drawn])
    names = ("prior", "uniform", *(f"random{number:03d}" for number in range(len(drawn))))
    return Design(names, rows)


def cap_weights(weights: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Limits weights [components] to caps; the excess goes to the others in proportion.

    The result sums to 1. If the others are all 0, the excess is distributed by the room below
    their caps.
    """
    weights = np.maximum(weights, 0) / np.maximum(weights, 0).sum()
    for _ in range(len(weights)):
        if not (weights > caps).any():
            break
        excess = np.maximum(weights - caps, 0).sum()
        room = np.where(weights >= caps, 0.0, weights)
        weights = np.minimum(weights, caps)
        if not room.sum():
            room = caps - weights
        weights = weights + excess * room / room.sum()
    return weights / weights.sum()
