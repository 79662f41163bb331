"""The mixtures of a swarm: a prior, a uniform one, and random ones around the prior.

Random mixtures are Dirichlet draws of strengths between 0.1 and 5, as many as a few times the
number of units, and weights under 0.002 are dropped: the defaults of Olmix (arXiv 2602.12237).
Their centre is the square root of the prior, scaled, as in RegMix (arXiv 2407.01492): around the
prior itself a unit of half a per cent would be left out of nearly all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from marco_jax.ablation.simplex import cap_weights

STRENGTHS = (0.1, 5.0)
LEAST_WEIGHT = 0.002
# Exponent of the prior in the centre of the draws.
_TEMPER = 0.5
# Draws that break a cap are drawn again so many times before the cap is called too tight.
_TRIES = 10_000


@dataclasses.dataclass(frozen=True)
class Design:
    """A swarm: weights [runs, units], each row a mixture, with a name a row."""

    units: tuple[str, ...]
    names: tuple[str, ...]
    weights: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """The weights of the prior, [units]."""
        return self.weights[0]


def draw_design(
    prior: Mapping[str, float],
    runs: int,
    seed: int,
    *,
    caps: Mapping[str, float] | None = None,
    least: float = LEAST_WEIGHT,
) -> Design:
    """A prior, a uniform mixture, and random ones: `runs` mixtures in all.

    Args:
        prior: weights by unit (a source, or sources that are tied to a group); scaled to sum 1.
        runs: number of mixtures; below three times the units a fit has little to go by.
        seed: of the draws.
        caps: largest weight of a unit, such as what a number of epochs of it allows.
        least: smaller weights become 0.

    Raises:
        ValueError: fewer than 4 runs, a weight that is none, or caps that leave no room.
    """
    units = tuple(prior)
    base = np.array([prior[unit] for unit in units], np.float64)
    if runs < 4 or len(units) < 2:
        raise ValueError(f"{runs} runs over {len(units)} units: take 4 runs and 2 units at least")
    if base.min() <= 0 or not np.isfinite(base).all():
        raise ValueError(f"the prior {dict(prior)} must give every unit a weight above zero")
    base = base / base.sum()
    top = np.array([(caps or {}).get(unit, 1.0) for unit in units])
    if top.sum() < 1:
        raise ValueError(
            f"the caps {_round(caps)} add up to less than a whole mixture: raise sweep.max_epochs, "
            "or lower sweep.target_tokens"
        )
    centre = base**_TEMPER / (base**_TEMPER).sum()
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(units)]))
    low, high = np.log(STRENGTHS)
    drawn: list[np.ndarray] = []
    for _ in range(_TRIES):
        if len(drawn) == runs - 2:
            break
        strength = np.exp(rng.uniform(low, high)) * len(units)
        weights = rng.dirichlet(np.maximum(centre * strength, 1e-3))
        weights = np.where(weights < least, 0.0, weights)
        weights = weights / weights.sum()
        if (weights <= top + 1e-12).all():
            drawn.append(weights)
    else:
        raise ValueError(f"the caps {_round(caps)} are too tight to draw {runs} mixtures")
    uniform = cap_weights(np.full(len(units), 1 / len(units)), top)
    rows = np.array([cap_weights(base, top), uniform, *drawn])
    names = ("prior", "uniform", *(f"random{number:03d}" for number in range(len(drawn))))
    return Design(units, names, rows)


def _round(caps: Mapping[str, float] | None) -> dict[str, float]:
    return {unit: round(cap, 4) for unit, cap in (caps or {}).items()}
