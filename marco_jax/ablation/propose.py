"""Proposes a mixture: the optimum of fitted targets under constraints, with its uncertainty.

An objective is a weighted sum of targets plus a pull to the prior, with upper bounds on other
targets and caps on weights. It is minimised by SLSQP from several starts, since interactions make
it non-convex. The same optimisation of posterior draws gives intervals of the optimum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import scipy.optimize

from marco_jax.ablation.design import cap_weights
from marco_jax.ablation.fit import Fit, Quality

# Random mixtures; the search starts at the best of them.
_CANDIDATES = 256
# Weights are at least this in logarithms.
_LEAST = 1e-9


class Fitted(Protocol):
    """A fitted target with a quality."""

    quality: Quality


class Valued(Protocol):
    """A target as a function of the mixture; lower is better."""

    def value(self, weights: np.ndarray) -> np.ndarray:
        """[..., components] -> [...]."""


class Target(Valued, Protocol):
    """A target with a gradient."""

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """[components] -> [components]."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """What to minimise, and the constraints.

    Attributes:
        targets: weight of each target; a target counts by its predicted value over the prior's.
        bounds: maximum rise of a target over the prior, such as {"en": 0.01} for one per cent.
        closeness: weight of the Kullback-Leibler divergence from the prior.
        caps: maximum weight of each component, [components]; empty for no caps.
    """

    targets: Mapping[str, float]
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    closeness: float = 0.05
    caps: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed mixture and its uncertainty.

    Attributes:
        weights: [components]; None if the fits predict nothing.
        low, high: [components], joint 95% interval of the optimum.
        predicted: predicted targets at `weights`.
        before: predicted targets at the prior.
        ranges: 95% intervals of predicted over before.
        left_out: targets that were left out of the objective, since their fits predict nothing.
        reason: why there is no proposal; "" if there is one.
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
    """Finds the best mixture under an objective; no mixture if the fits predict nothing.

    Args:
        fits: fits by target, of all targets in the objective.
        prior: [components].
        objective: what to minimise under which constraints.
        draws: number of posterior draws whose optima give the interval.
        seed: seed of the draws.
    """
    given, objective = objective, predictable(fits, objective)
    unpredicted = tuple(name for name in given.targets if name not in objective.targets)
    if not objective.targets:
        return no_proposal(fits, unpredicted)
    used = {name: fits[name] for name in {**objective.targets, **objective.bounds}}
    weights = minimise(_responses(used), prior, objective)
    rng = np.random.default_rng(seed)
    drawn = {name: fit.draw(draws, rng) for name, fit in fits.items()}
    functions = [{name: drawn[name][n] for name in fits} for n in range(draws)]
    optima = np.array([minimise(f, prior, objective, [weights]) for f in functions])
    # A joint interval: all components lie in theirs in about 95% of the draws (Bonferroni).
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
        unpredicted,
    )


def no_proposal(fits: Mapping[str, Fitted], unpredicted: Sequence[str]) -> Proposal:
    """A proposal without a mixture, whose reason gives the quality of the fits."""
    qualities = "; ".join(f"{name}: {fits[name].quality.describe()}" for name in unpredicted)
    reason = f"no fit predicts better than the mean does ({qualities})"
    return Proposal(None, left_out=tuple(unpredicted), reason=reason)


def cost_and_excess(
    functions: Mapping[str, Valued], prior: np.ndarray, objective: Objective, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cost of mixtures [..., components], and their excess over bounds and caps, both [...]."""
    problem = _Problem(functions, prior, objective)
    return problem.cost(weights), problem.excess(weights)


def predictable(fits: Mapping[str, Fitted], objective: Objective) -> Objective:
    """The objective without targets whose fits predict nothing."""
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
    """Optima for several bounds on one target: the curve of gain against forgetting.

    The bounds range from the smallest rise that is possible under the other bounds to the rise at
    the optimum without this bound. `closeness` is 0, since the pull to the prior would hide the
    trade-off.

    Returns:
        (rise, weights [components]) pairs; empty if the fits predict nothing.
    """
    objective = dataclasses.replace(predictable(fits, objective), closeness=0.0)
    if not objective.targets:
        return []
    others = {name: rise for name, rise in objective.bounds.items() if name != bound}
    free = dataclasses.replace(objective, bounds=others)
    least = dataclasses.replace(free, targets={bound: 1.0})
    functions = _responses(fits)
    ends = [minimise(functions, prior, problem) for problem in (least, free)]
    before = fits[bound].predict(prior)
    first, last = (float(fits[bound].predict(weights) / before - 1) for weights in ends)
    if last - first < 1e-6:
        return [(last, ends[1])]
    curve, starts = [], [ends[0]]
    # The curve leaves out the first end, which minimises the bounded target, not the objective.
    for rise in np.linspace(first, last, points + 1)[1:-1]:
        bounded = dataclasses.replace(objective, bounds={**others, bound: float(rise)})
        starts.append(minimise(functions, prior, bounded, starts[-1:]))
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
    """The optimum of known functions under an objective, [components].

    Interactions make several local optima, so the search starts at the best of many random
    mixtures, and at `starts`. Returned is the best among the results within all bounds and the best
    random mixture; the prior is one of the random mixtures.
    """
    problem = _Problem(functions, prior, objective)
    candidates = np.array([*starts, *_candidates(prior, problem.caps)])
    costs = problem.cost(candidates) + 1e3 * problem.excess(candidates)
    # Given starts are always used; without any, the prior, the first candidate.
    first = list(range(len(starts))) or [len(starts)]
    found = [problem.descend(candidates[n]) for n in {*first, int(np.argmin(costs))}]
    allowed = [w for w in found if problem.excess(w[None])[0] < 1e-6]
    # A fallback: the prior, among the candidates, breaks no bound.
    pool = np.array([*allowed, candidates[int(np.argmin(costs))]])
    return pool[int(np.argmin(problem.cost(pool) + 1e3 * problem.excess(pool)))]


def _candidates(prior: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """The prior and random mixtures near and far from it, all within the caps."""
    rng = np.random.default_rng(0)
    strengths = np.exp(rng.uniform(np.log(0.5), np.log(50.0), _CANDIDATES))
    drawn = [rng.dirichlet(np.maximum(prior * len(prior) * s, 1e-2)) for s in strengths]
    return np.array([cap_weights(w, caps) for w in [prior, *drawn]])


class _Problem:
    """Cost and constraints of an objective, with gradients."""

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
        """[..., components] -> [...]."""
        weights = np.clip(weights, _LEAST, 1.0)
        gain = sum(share * function.value(weights) for share, function in self.targets)
        return gain + self.closeness * (weights * np.log(weights / self.prior)).sum(axis=-1)

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """Gradient of the cost, [components] -> [components]."""
        weights = np.clip(weights, _LEAST, 1.0)
        gain = sum(share * function.gradient(weights) for share, function in self.targets)
        return gain + self.closeness * (np.log(weights / self.prior) + 1)

    def excess(self, weights: np.ndarray) -> np.ndarray:
        """Total relative excess over bounds and caps, [..., components] -> [...]."""
        broken = [np.maximum(f.value(weights) / limit - 1, 0) for limit, f in self.bounds]
        return sum(broken) + np.maximum(weights - self.caps, 0).sum(axis=-1)

    def descend(self, start: np.ndarray) -> np.ndarray:
        """A local optimum by SLSQP, [components]."""
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
