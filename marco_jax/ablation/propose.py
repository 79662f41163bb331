"""Proposes a mixture: the optimum of fitted targets under constraints, with its uncertainty.

An objective is a weighted sum of targets plus a pull to the prior, with upper bounds on other
targets and caps on weights. It is minimised by SLSQP from several starts, since interactions make
it non-convex. Bounds hold with a probability (chance.py); where a result breaks one, it is drawn
back to a mixture that does not. The same optimisation of posterior draws gives intervals of the
optimum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from marco_jax.ablation.chance import Chance
from marco_jax.ablation.design import cap_weights
from marco_jax.ablation.fit import Fit, Response, one_thread

# Random mixtures; the search starts at the best of them.
_CANDIDATES = 256
# Weights are at least this in logarithms.
_LEAST = 1e-9
# Posterior draws in each of the two samples behind the bounds.
_BOUND_DRAWS = 1000
# Random mixtures, the best, at which the search under a chance constraint starts.
_CHANCE_STARTS = 6
# Steps of the way back from a result that breaks a bound.
_STEPS_BACK = 200


@dataclasses.dataclass(frozen=True)
class Objective:
    """What to minimise, and the constraints.

    Attributes:
        targets: weight of each target; a target counts by its predicted value over the prior's.
        bounds: maximum rise of a target over the prior, such as {"en": 0.01} for one per cent.
        closeness: weight of the Kullback-Leibler divergence from the prior.
        caps: maximum weight of each component, [components]; empty for no caps.
        quantile: probability with which all bounds hold together, where fits have a posterior.
    """

    targets: Mapping[str, float]
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    closeness: float = 0.05
    caps: Sequence[float] = ()
    quantile: float = 0.9

    def upper(self, components: int) -> np.ndarray:
        """The caps as an array, [components]; 1 where there are none."""
        return np.array(self.caps if len(self.caps) else [1.0] * components)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A proposed mixture and its uncertainty.

    Attributes:
        weights: [components]; None if the fits predict nothing.
        low, high: [components], joint 95% interval of the optimum.
        predicted: predicted targets at `weights`.
        before: predicted targets at the prior.
        ranges: 95% intervals of predicted over before.
        breaks: probability that the true target breaks its bound, by bounded target.
        left_out: targets that were left out of the objective, since their fits predict nothing.
        reason: why there is no proposal; "" if there is one.
    """

    weights: np.ndarray | None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    predicted: Mapping[str, float] = dataclasses.field(default_factory=dict)
    before: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    breaks: Mapping[str, float] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    reason: str = ""

    def change(self, name: str) -> tuple[float, tuple[float, float]]:
        """Predicted change of a target from the prior, as a ratio less one, and its interval."""
        low, high = self.ranges[name]
        return self.predicted[name] / self.before[name] - 1, (low - 1, high - 1)


@one_thread
def propose(
    fits: Mapping[str, Fit],
    prior: np.ndarray,
    objective: Objective,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Proposal:
    """Finds the best mixture under an objective; no mixture if the fits predict nothing.

    The best mixture minimises the estimated targets; its bounds hold in a share of
    `objective.quantile` of posterior draws. The interval has the optima of `draws` posterior draws,
    each under the bounds as they are for that draw. `prior` is [components].
    """
    chances: list[Chance | None] = []

    def search(objective: Objective) -> tuple[np.ndarray, list[dict[str, Response]], np.ndarray]:
        chances.append(chance_of(fits, prior, objective, seed))
        weights = minimise(_responses(fits), prior, objective, chance=chances[0])
        rng = np.random.default_rng(seed)
        drawn = {name: fit.draw(draws, rng) for name, fit in fits.items()}
        functions = [{name: drawn[name][n] for name in fits} for n in range(draws)]
        optima = [minimise(sample, prior, objective, [weights]) for sample in functions]
        return weights, functions, np.array(optima)

    # A joint interval: all components lie in theirs in about 95% of the draws (Bonferroni).
    found = propose_by(search, fits, prior, objective, tail=0.025 / len(prior))
    # Nothing is searched where nothing can be predicted.
    if not chances or chances[0] is None:
        return found
    return dataclasses.replace(found, breaks=chances[0].breaks(found.weights))


def chance_of(
    fits: Mapping[str, Fit], prior: np.ndarray, objective: Objective, seed: int = 0
) -> Chance | None:
    """The objective's bounds as a chance constraint; None without bounds."""
    if not objective.bounds:
        return None
    first, second = (np.random.default_rng([seed, half]) for half in (1, 2))
    draws = {
        name: (fits[name].draw(_BOUND_DRAWS, first), fits[name].draw(_BOUND_DRAWS, second))
        for name in objective.bounds
    }
    return Chance(draws, objective.bounds, objective.quantile, prior)


def propose_by(
    search: Callable[[Objective], tuple[np.ndarray, list[dict[str, Any]], np.ndarray]],
    fits: Mapping[str, Any],
    prior: np.ndarray,
    objective: Objective,
    tail: float,
) -> Proposal:
    """Makes the proposal of a search; no mixture if the fits predict nothing.

    For an objective without unpredicted targets, `search` finds the optimum [components], sampled
    functions by target, and the optimum of each sample, [samples, components]. A part of `tail` of
    the samples' optima lies outside of either end of the interval.
    """
    predicted = _predictable(fits, objective)
    left_out = tuple(name for name in objective.targets if name not in predicted.targets)
    if not predicted.targets:
        return Proposal(None, left_out=left_out, reason=_no_target(fits, objective))
    weights, functions, optima = search(predicted)
    low, high = np.quantile(optima, [tail, 1 - tail], axis=0)
    ranges, breaks = {}, {}
    for name in fits:
        ratios = [float(f[name].value(weights) / f[name].value(prior)) for f in functions]
        ranges[name] = tuple(np.quantile(ratios, [0.025, 0.975]).tolist())
        if name in objective.bounds:
            breaks[name] = float(np.mean(np.array(ratios) > 1 + objective.bounds[name]))
    return Proposal(
        weights,
        np.minimum(low, weights),
        np.maximum(high, weights),
        {name: float(fit.predict(weights)) for name, fit in fits.items()},
        {name: float(fit.predict(prior)) for name, fit in fits.items()},
        ranges,
        breaks,
        left_out,
    )


def _no_target(fits: Mapping[str, Any], objective: Objective) -> str:
    """Why no target can be predicted, with the failure of the one that came nearest."""
    qualities = {name: fits[name].quality for name in objective.targets}
    nearest = min(qualities, key=lambda name: qualities[name].p_value)
    failure = f"{nearest}: {qualities[nearest].failure(len(qualities))}"
    if len(qualities) == 1:
        return failure
    return f"the fits predict none of {len(qualities)} targets; the nearest is {failure}"


def _predictable(fits: Mapping[str, Any], objective: Objective) -> Objective:
    """The objective without targets whose fits predict nothing."""
    count, shares = len(objective.targets), objective.targets.items()
    targets = {name: share for name, share in shares if fits[name].quality.predicts(count)}
    return dataclasses.replace(objective, targets=targets)


@one_thread
def trade_off(
    fits: Mapping[str, Fit], prior: np.ndarray, objective: Objective, bound: str, points: int = 9
) -> list[tuple[float, np.ndarray]]:
    """Optima for several bounds on one target: the curve of gain against forgetting.

    Bounds hold with the objective's probability, as those of the proposal do. They range from the
    rise at the mixture that is best for the bounded target to the rise at the optimum without this
    bound. `closeness` is 0, since the pull to the prior would hide the trade-off.

    Returns:
        (rise that is not exceeded with that probability, weights [components]) pairs; empty if the
        fits predict nothing.
    """
    objective = dataclasses.replace(_predictable(fits, objective), closeness=0.0)
    if not objective.targets:
        return []
    others = {name: rise for name, rise in objective.bounds.items() if name != bound}
    whole = chance_of(
        fits, prior, dataclasses.replace(objective, bounds={**others, bound: 0.0}), seed=1
    )
    free = dataclasses.replace(objective, bounds=others)
    least = dataclasses.replace(free, targets={bound: 1.0})
    functions = _responses(fits)
    chance = whole.with_bounds(others) if others else None
    ends = [minimise(functions, prior, problem, chance=chance) for problem in (least, free)]
    first, last = (whole.rise(bound, weights) for weights in ends)
    if last - first < 1e-6:
        return [(last, ends[1])]
    curve, starts = [], [ends[0]]
    # The curve leaves out the first end, which minimises the bounded target, not the objective.
    for rise in np.linspace(first, last, points + 1)[1:-1]:
        bounds = {**others, bound: float(rise)}
        bounded = dataclasses.replace(objective, bounds=bounds)
        chance = whole.with_bounds(bounds)
        starts.append(minimise(functions, prior, bounded, starts[-1:], chance=chance))
        curve.append((float(rise), starts[-1]))
    return [*curve, (last, ends[1])]


def _responses(fits: Mapping[str, Fit]) -> dict[str, Response]:
    return {name: fit.response for name, fit in fits.items()}


def minimise(
    functions: Mapping[str, Response],
    prior: np.ndarray,
    objective: Objective,
    starts: Sequence[np.ndarray] = (),
    *,
    chance: Chance | None = None,
) -> np.ndarray:
    """The optimum of known functions under an objective, [components].

    Interactions make several local optima, so the search starts at the best of many random
    mixtures, and at `starts`. Results that break a bound are drawn back to a mixture that breaks
    none: the last such start, otherwise the prior. Returned is the best of all mixtures found.

    Args:
        functions: by target.
        prior: [components].
        objective: what to minimise.
        starts: further mixtures to start at.
        chance: the bounds as a chance constraint, instead of bounds on the functions.
    """
    problem = Problem(functions, prior, objective, chance)
    candidates = np.array([*starts, *_candidates(prior, problem.caps)])
    penalised = problem.penalised(candidates)
    best = int(np.argmin(penalised))
    # Given starts are always used; without any, the prior, the first candidate.
    first = list(range(len(starts))) or [len(starts)]
    chosen = {*first, best}
    if chance is not None:
        chosen |= {len(starts), *np.argsort(penalised)[:_CHANCE_STARTS].tolist()}
    found = [problem.descend(candidates[n]) for n in sorted(chosen)]
    if chance is not None:
        # The optimum under bounds on the estimate is near, but outside.
        found.append(minimise(functions, prior, objective))
        found.append(problem.descend(found[-1]))
    anchors = [w for w in (prior, *starts) if problem.allows(w)]
    if anchors:
        found = [problem.draw_back(w, anchors[-1]) for w in found]
    pool = np.array([*(w for w in found if problem.allows(w)), *anchors, candidates[best]])
    return pool[int(np.argmin(problem.penalised(pool)))]


def _candidates(prior: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """The prior and random mixtures near and far from it, all within the caps."""
    rng = np.random.default_rng(0)
    strengths = np.exp(rng.uniform(np.log(0.5), np.log(50.0), _CANDIDATES))
    drawn = [rng.dirichlet(np.maximum(prior * len(prior) * s, 1e-2)) for s in strengths]
    return np.array([cap_weights(w, caps) for w in [prior, *drawn]])


class Problem:
    """Cost and constraints of an objective, with gradients where the functions have them.

    Functions are `fit.Response`, or `trees.TreeFit`, which has values only.
    """

    def __init__(
        self,
        functions: Mapping[str, Any],
        prior: np.ndarray,
        objective: Objective,
        chance: Chance | None = None,
    ) -> None:
        self.prior, self.closeness, self.chance = prior, objective.closeness, chance
        self.caps = objective.upper(len(prior))
        total = sum(objective.targets.values())
        self.targets = [
            (share / total / functions[name].value(prior), functions[name])
            for name, share in objective.targets.items()
        ]
        bounds = {} if chance is not None else objective.bounds
        self.bounds = [
            ((1 + rise) * functions[name].value(prior), functions[name])
            for name, rise in bounds.items()
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
        if self.chance is not None:
            broken.append(self.chance.excess(weights))
        return sum(broken) + np.maximum(weights - self.caps, 0).sum(axis=-1)

    def allows(self, weights: np.ndarray) -> bool:
        """Whether a mixture [components] breaks no bound and no cap."""
        return bool(self.excess(weights[None])[0] < 1e-6)

    def draw_back(self, weights: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        """The first allowed mixture on the way from `weights` to an allowed `anchor`."""
        if self.allows(weights):
            return weights
        way = np.linspace(0, 1, _STEPS_BACK + 1)[:, None]
        points = weights + way * (anchor - weights)
        return points[int(np.argmax(self.excess(points) < 1e-6))]

    def penalised(self, weights: np.ndarray) -> np.ndarray:
        """Cost with a large penalty for excess, [..., components] -> [...]."""
        return self.cost(weights) + 1e3 * self.excess(weights)

    def descend(self, start: np.ndarray) -> np.ndarray:
        """A local optimum by SLSQP, [components]."""
        constraints = [{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like}]
        for limit, function in self.bounds:
            constraints.append(
                {
                    "type": "ineq",
                    "fun": lambda w, f=function, most=limit: 1 - f.value(w) / most,
                    "jac": lambda w, f=function, most=limit: -f.gradient(w) / most,
                }
            )
        if self.chance is not None:
            chance = self.chance
            constraints.append(
                {
                    "type": "ineq",
                    "fun": lambda w: -chance.smooth(np.maximum(w, 0)),
                    "jac": lambda w: -chance.slope(np.maximum(w, 0)),
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
