"""From fits to a mixture: the optimum under constraints, and how sure it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

from experiments.mixture_ablation.fit import Fit


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised, and what must hold.

    Attributes:
        targets: weight of each target's predicted figure, relative to the prior's.
        bounds: largest rise of a target over the prior, such as {"en": 0.01} for one per cent.
        closeness: weight of the Kullback-Leibler divergence from the prior.
        caps: largest weight of each unit.
    """

    targets: Mapping[str, float]
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    closeness: float = 0.05
    caps: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A mixture and its uncertainty.

    Attributes:
        weights: [units]; None where the fits predict nothing, and `reason` says so.
        low, high: [units], joint 95% interval of the optimum over the posterior.
        predicted: figures of the targets at `weights`; `before`, at the prior.
        reason: why there is no proposal.
    """

    weights: np.ndarray | None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    predicted: Mapping[str, float] = dataclasses.field(default_factory=dict)
    before: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""


def propose(
    fits: Mapping[str, Fit],
    prior: np.ndarray,
    objective: Objective,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Proposal:
    """The best mixture under an objective, or none where the fits cannot tell.

    Args:
        fits: by target; all that the objective names.
        prior: [units].
        objective: what is wanted.
        draws: functions from the posterior whose optima make the interval.
        seed: of the draws.
    """
    blind = [name for name in objective.targets if not fits[name].predicts]
    if len(blind) == len(objective.targets):
        errors = ", ".join(
            f"{name}: left-out error {fits[name].error:.4g}, of the mean "
            f"{fits[name].error_of_mean:.4g}, rank correlation {fits[name].rank_correlation:.2f}"
            for name in blind
        )
        return Proposal(None, reason=f"no fit predicts better than the mean ({errors})")
    # A target that cannot be predicted says nothing about where to go.
    targets = {name: w for name, w in objective.targets.items() if name not in blind}
    objective = dataclasses.replace(objective, targets=targets)
    mean = {name: fit.coefficients for name, fit in fits.items()}
    weights = _optimum(fits, mean, prior, objective, prior)
    rng = np.random.default_rng(seed)
    drawn = {name: fit.draw(draws, rng) for name, fit in fits.items()}
    optima = np.array(
        [
            _optimum(fits, {name: d[n] for name, d in drawn.items()}, prior, objective, weights)
            for n in range(draws)
        ]
    )
    # Joint: every unit's interval holds at once in 95% of the draws, about (Bonferroni).
    tail = 0.025 / len(prior)
    low, high = np.quantile(optima, [tail, 1 - tail], axis=0)
    return Proposal(
        weights,
        np.minimum(low, weights),
        np.maximum(high, weights),
        {name: float(fit.predict(weights)) for name, fit in fits.items()},
        {name: float(fit.predict(prior)) for name, fit in fits.items()},
    )


def trade_off(
    fits: Mapping[str, Fit],
    prior: np.ndarray,
    objective: Objective,
    bound: str,
    rises: Sequence[float],
) -> list[tuple[float, np.ndarray]]:
    """The optimum for each allowed rise of one target: the curve of gain against forgetting."""
    mean = {name: fit.coefficients for name, fit in fits.items()}
    curve = []
    for rise in rises:
        bounds = {**objective.bounds, bound: rise}
        asked = dataclasses.replace(objective, bounds=bounds)
        curve.append((rise, _optimum(fits, mean, prior, asked, prior)))
    return curve


def optimum_of(
    figures: Mapping[str, object], prior: np.ndarray, objective: Objective
) -> np.ndarray:
    """The optimum of known functions (weights -> figure), under the same objective."""
    return _minimise(figures, prior, objective, [prior])


def _optimum(
    fits: Mapping[str, Fit],
    coefficients: Mapping[str, np.ndarray],
    prior: np.ndarray,
    objective: Objective,
    start: np.ndarray,
) -> np.ndarray:
    functions = {
        name: (lambda w, f=fit, c=coefficients[name]: f.predict_with(c[None], w[None])[0])
        for name, fit in fits.items()
    }
    return _minimise(functions, prior, objective, [start])


def _minimise(
    functions: Mapping[str, object],
    prior: np.ndarray,
    objective: Objective,
    starts: Sequence[np.ndarray],
) -> np.ndarray:
    units = len(prior)
    before = {name: functions[name](prior) for name in {*objective.targets, *objective.bounds}}
    total = sum(objective.targets.values())

    def value(weights: np.ndarray) -> float:
        weights = np.clip(weights, 1e-9, 1.0)
        gain = sum(
            share * functions[name](weights) / before[name]
            for name, share in objective.targets.items()
        )
        return gain / total + objective.closeness * float(weights @ np.log(weights / prior))

    constraints = [{"type": "eq", "fun": lambda w: w.sum() - 1.0}]
    for name, rise in objective.bounds.items():
        limit = (1 + rise) * before[name]
        constraints.append(
            {"type": "ineq", "fun": lambda w, n=name, l=limit: 1 - functions[n](w) / l}
        )
    caps = objective.caps if len(objective.caps) else [1.0] * units
    results = [
        scipy.optimize.minimize(
            value,
            start,
            method="SLSQP",
            bounds=[(0.0, cap) for cap in caps],
            constraints=constraints,
            options={"maxiter": 200, "ftol": 1e-9},
        )
        for start in starts
    ]
    best = min(results, key=lambda result: result.fun)
    weights = np.clip(best.x, 0.0, None)
    return weights / weights.sum()
