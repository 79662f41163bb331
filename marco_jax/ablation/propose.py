"""From fits to a mixture: the optimum under constraints, and how sure it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import scipy.optimize

from marco_jax.ablation.fit import Fit
from marco_jax.ablation.quality import Quality
from marco_jax.ablation.simplex import cap_weights

# Mixtures among which a search begins at the best.
_CANDIDATES = 256
_LEAST = 1e-9


class Fitted(Protocol):
    """A fitted target, of which the quality is known."""

    quality: Quality


class Valued(Protocol):
    """A figure as a function of a mixture: lower is better."""

    def value(self, weights: np.ndarray) -> np.ndarray:
        """[..., units] -> [...]."""


class Target(Valued, Protocol):
    """One that has slopes."""

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """[units] -> [units]."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is minimised, and what must hold.

    Attributes:
        targets: weight of each target's predicted figure, relative to the prior's.
        bounds: largest rise of a target over the prior, such as {"en": 0.01} for one per cent.
        closeness: weight of the Kullback-Leibler divergence from the prior.
        caps: largest weight of each unit, [units]; empty: none.
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
        low, high: [units], joint 95% interval of the optimum.
        predicted: figures of the targets at `weights`; `before`, at the prior.
        ranges: 95% intervals of the ratio of the two.
        left_out: targets that no fit predicts, which the objective goes without.
        reason: why there is no proposal.
    """

    weights: np.ndarray | None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    predicted: Mapping[str, float] = dataclasses.field(default_factory=dict)
    before: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
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
        draws: refits whose optima make the interval.
        seed: of the draws.
    """
    asked, objective = objective, predictable(fits, objective)
    blind = tuple(name for name in asked.targets if name not in objective.targets)
    if not objective.targets:
        return no_proposal(fits, blind)
    used = {name: fits[name] for name in {**objective.targets, **objective.bounds}}
    weights = minimise(_responses(used), prior, objective)
    rng = np.random.default_rng(seed)
    drawn = {name: fit.draw(draws, rng) for name, fit in fits.items()}
    functions = [{name: drawn[name][n] for name in fits} for n in range(draws)]
    optima = np.array([minimise(f, prior, objective, [weights]) for f in functions])
    # Joint: every unit's interval holds at once in 95% of the draws, about (Bonferroni).
    tail = 0.025 / len(prior)
    low, high = np.quantile(optima, [tail, 1 - tail], axis=0)
    ratios = {
        name: [float(f[name].value(weights) / f[name].value(prior)) for f in functions]
        for name in fits
    }
    return Proposal(
        weights,
        np.minimum(low, weights),
        np.maximum(high, weights),
        {name: float(fit.predict(weights)) for name, fit in fits.items()},
        {name: float(fit.predict(prior)) for name, fit in fits.items()},
        {name: tuple(np.quantile(r, [0.025, 0.975]).tolist()) for name, r in ratios.items()},
        blind,
    )


def no_proposal(fits: Mapping[str, Fitted], blind: Sequence[str]) -> Proposal:
    """Why there is none: how far from predicting anything the fits of `blind` are."""
    said = "; ".join(f"{name}: {fits[name].quality.describe()}" for name in blind)
    reason = f"no fit predicts better than the mean does ({said})"
    return Proposal(None, left_out=tuple(blind), reason=reason)


def cost_and_excess(
    functions: Mapping[str, Valued], prior: np.ndarray, objective: Objective, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What an objective makes of mixtures [..., units]: cost and broken bounds, both [...]."""
    problem = _Problem(functions, prior, objective)
    return problem.cost(weights), problem.excess(weights)


def predictable(fits: Mapping[str, Fitted], objective: Objective) -> Objective:
    """The objective without targets that no fit predicts: they say nothing about where to go."""
    count = len(objective.targets)
    targets = {
        name: share
        for name, share in objective.targets.items()
        if fits[name].quality.predicts(count)
    }
    return dataclasses.replace(objective, targets=targets)


def trade_off(
    fits: Mapping[str, Fit], prior: np.ndarray, objective: Objective, bound: str, points: int = 9
) -> list[tuple[float, np.ndarray]]:
    """The optimum for each allowed rise of one target: the curve of gain against forgetting.

    It runs from the least rise that the other bounds leave open to the rise at which this bound no
    longer holds anything back. Without the pull to the prior, which would hide what is gained and
    lost.

    Returns:
        (rise, weights [units]) pairs; none where no fit predicts.
    """
    objective = dataclasses.replace(predictable(fits, objective), closeness=0.0)
    if not objective.targets:
        return []
    others = {name: rise for name, rise in objective.bounds.items() if name != bound}
    free = dataclasses.replace(objective, bounds=others)
    least = dataclasses.replace(free, targets={bound: 1.0})
    functions = _responses(fits)
    ends = [minimise(functions, prior, asked) for asked in (least, free)]
    before = fits[bound].predict(prior)
    first, last = (float(fits[bound].predict(weights) / before - 1) for weights in ends)
    if last - first < 1e-6:
        return [(last, ends[1])]
    curve, starts = [], [ends[0]]
    # The first end need not be an optimum of the objective: every rise but that has room.
    for rise in np.linspace(first, last, points + 1)[1:-1]:
        asked = dataclasses.replace(objective, bounds={**others, bound: float(rise)})
        starts.append(minimise(functions, prior, asked, starts[-1:]))
        curve.append((float(rise), starts[-1]))
    return [*curve, (last, ends[1])]


def _responses(fits: Mapping[str, Fit]) -> dict[str, Target]:
    return {name: fit.response for name, fit in fits.items()}


def minimise(
    functions: Mapping[str, Target],
    prior: np.ndarray,
    objective: Objective,
    starts: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """The optimum of known functions under an objective, [units].

    Figures of interacting units have more than one valley: the search begins at the best of many
    mixtures, and at `starts`.
    """
    problem = _Problem(functions, prior, objective)
    candidates = np.array([*starts, *_candidates(prior, problem.caps)])
    costs = problem.cost(candidates) + 1e3 * problem.excess(candidates)
    # A given start is tried whatever it costs.
    first = list(range(len(starts))) or [len(starts)]
    found = [problem.descend(candidates[n]) for n in {*first, int(np.argmin(costs))}]
    allowed = [w for w in found if problem.excess(w[None])[0] < 1e-6]
    # The prior itself breaks no bound.
    pool = np.array([*allowed, candidates[int(np.argmin(costs))]])
    return pool[int(np.argmin(problem.cost(pool) + 1e3 * problem.excess(pool)))]


def _candidates(prior: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """The prior and mixtures around it, near and far, all within the caps."""
    rng = np.random.default_rng(0)
    strengths = np.exp(rng.uniform(np.log(0.5), np.log(50.0), _CANDIDATES))
    drawn = [rng.dirichlet(np.maximum(prior * len(prior) * s, 1e-2)) for s in strengths]
    return np.array([cap_weights(w, caps) for w in [prior, *drawn]])


class _Problem:
    """Cost and constraints of mixtures, and their gradients."""

    def __init__(
        self, functions: Mapping[str, Valued], prior: np.ndarray, objective: Objective
    ) -> None:
        self.prior, self.closeness = prior, objective.closeness
        self.caps = np.array(objective.caps if len(objective.caps) else [1.0] * len(prior))
        before = {name: functions[name].value(prior) for name in functions}
        total = sum(objective.targets.values())
        self.targets = [
            (share / total / before[name], functions[name])
            for name, share in objective.targets.items()
        ]
        self.bounds = [
            ((1 + rise) * before[name], functions[name]) for name, rise in objective.bounds.items()
        ]

    def cost(self, weights: np.ndarray) -> np.ndarray:
        """[..., units] -> [...]."""
        weights = np.clip(weights, _LEAST, 1.0)
        gain = sum(share * function.value(weights) for share, function in self.targets)
        return gain + self.closeness * (weights * np.log(weights / self.prior)).sum(axis=-1)

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """Gradient of the cost, [units] -> [units]."""
        weights = np.clip(weights, _LEAST, 1.0)
        gain = sum(share * function.gradient(weights) for share, function in self.targets)
        return gain + self.closeness * (np.log(weights / self.prior) + 1)

    def excess(self, weights: np.ndarray) -> np.ndarray:
        """By how much bounds and caps are broken in all, [..., units] -> [...]."""
        broken = [np.maximum(f.value(weights) / limit - 1, 0) for limit, f in self.bounds]
        return sum(broken) + np.maximum(weights - self.caps, 0).sum(axis=-1)

    def descend(self, start: np.ndarray) -> np.ndarray:
        """A local optimum."""
        constraints = [
            {"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones_like(w)}
        ]
        for limit, function in self.bounds:
            constraints.append(
                {
                    "type": "ineq",
                    "fun": lambda w, f=function, most=limit: 1 - f.value(w) / most,
                    "jac": lambda w, f=function, most=limit: -f.gradient(w) / most,
                }
            )
        result = scipy.optimize.minimize(
            self.cost,
            start,
            jac=self.slope,
            method="SLSQP",
            bounds=[(0.0, cap) for cap in self.caps],
            constraints=constraints,
            options={"maxiter": 200, "ftol": 1e-9},
        )
        weights = np.clip(result.x, 0.0, None)
        return weights / weights.sum()
