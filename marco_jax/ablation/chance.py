"""Bounds that hold with a probability: quantiles of posterior draws of how far targets rise.

A bound on the estimate is broken half of the time that it matters, since the optimum lies on it and
the estimate errs to either side. A chance constraint asks that the bounds, all of them together,
hold in a share of the draws, such as 90%. The prior always fulfils it: its rise is 0 in every draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

from marco_jax.ablation.fit import Response, raised


class Ratios:
    """Posterior draws of one target over its value at the prior, for many draws at once."""

    def __init__(self, responses: Sequence[Response], prior: np.ndarray) -> None:
        self._groups = []
        for power in {response.power for response in responses}:
            rows = [n for n, response in enumerate(responses) if response.power == power]
            own = [responses[n] for n in rows]
            fields = ("floor", "mean", "scale", "linear", "pairs")
            arrays = {name: np.array([getattr(r, name) for r in own]) for name in fields}
            before = np.array([float(r.value(prior)) for r in own])
            self._groups.append((power, np.array(rows), arrays, before))
        self._count = len(responses)

    def at(self, weights: np.ndarray) -> np.ndarray:
        """Ratios of mixtures, [..., components] -> [..., draws]."""
        found = np.empty((*weights.shape[:-1], self._count))
        for power, rows, own, before in self._groups:
            x, _ = raised(weights, power)
            products = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], -1)
            exponent = x @ own["linear"].T + products @ own["pairs"].reshape(len(rows), -1).T
            value = np.exp(np.minimum(own["mean"] + own["scale"] * exponent, 50.0))
            found[..., rows] = (own["floor"] + value) / before
        return found

    def slopes(self, weights: np.ndarray) -> np.ndarray:
        """Gradients of the ratios of one mixture, [components] -> [draws, components]."""
        found = np.empty((self._count, len(weights)))
        for power, rows, own, before in self._groups:
            x, slope = raised(weights, power)
            pulled = own["pairs"] @ x
            exponent = own["linear"] @ x + pulled @ x
            value = np.exp(np.minimum(own["mean"] + own["scale"] * exponent, 50.0))
            factor = value * own["scale"] / before
            found[rows] = factor[:, None] * slope * (own["linear"] + 2 * pulled)
        return found


class Chance:
    """The constraint that all bounds hold together with the probability `quantile`.

    Args:
        draws: by target, two independent samples of draws. The optimiser sees the first; an
            optimum must hold in the second, too, since it is fitted to the first.
        bounds: maximum rise over the prior by target.
        quantile: probability that all bounds hold, such as 0.9.
        prior: [components].
    """

    def __init__(
        self,
        draws: Mapping[str, tuple[Sequence[Response], Sequence[Response]]],
        bounds: Mapping[str, float],
        quantile: float,
        prior: np.ndarray,
    ) -> None:
        self.bounds, self.quantile = dict(bounds), quantile
        self._samples = [
            {name: Ratios(draws[name][half], prior) for name in bounds} for half in (0, 1)
        ]
        count = len(next(iter(draws.values()))[0])
        # The estimate of a quantile by Harrell and Davis (1982) averages neighbouring order
        # statistics. It is smooth in the weights, unlike one order statistic, so that a
        # gradient method can follow it.
        ends = np.linspace(0, 1, count + 1)
        beta = scipy.stats.beta((count + 1) * quantile, (count + 1) * (1 - quantile))
        self._shares = np.diff(beta.cdf(ends))

    def with_bounds(self, bounds: Mapping[str, float]) -> Chance:
        """The same draws under other bounds, on some of the same targets."""
        other = object.__new__(Chance)
        other.__dict__.update(self.__dict__, bounds=dict(bounds))
        return other

    def _beyond(self, half: int, weights: np.ndarray) -> np.ndarray:
        """Largest excess over any bound, [..., components] -> [..., draws]; negative inside."""
        own = self._samples[half]
        parts = [own[name].at(weights) / (1 + rise) - 1 for name, rise in self.bounds.items()]
        return np.max(parts, axis=0)

    def smooth(self, weights: np.ndarray) -> float:
        """The smoothed quantile of the excess, which the optimiser keeps below 0."""
        return float(np.sort(self._beyond(0, weights)) @ self._shares)

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """The gradient of `smooth`, [components]."""
        own = self._samples[0]
        parts = [own[name].at(weights) / (1 + rise) - 1 for name, rise in self.bounds.items()]
        worst = np.argmax(parts, axis=0)
        slopes = [own[name].slopes(weights) / (1 + rise) for name, rise in self.bounds.items()]
        chosen = np.array(slopes)[worst, np.arange(len(worst))]
        return self._shares @ chosen[np.argsort(np.max(parts, axis=0))]

    def excess(self, weights: np.ndarray) -> np.ndarray:
        """How far the exact quantile of either sample lies above 0, [..., components] -> [...]."""
        options = {"axis": -1, "method": "higher"}
        halves = [
            np.quantile(self._beyond(half, weights), self.quantile, **options) for half in (0, 1)
        ]
        return np.maximum(np.max(halves, axis=0), 0.0)

    def breaks(self, weights: np.ndarray) -> dict[str, float]:
        """The share of all draws in which a mixture [components] breaks each bound."""
        return {
            name: float(
                np.mean([np.mean(own[name].at(weights) > 1 + rise) for own in self._samples])
            )
            for name, rise in self.bounds.items()
        }

    def rise(self, name: str, weights: np.ndarray) -> float:
        """The quantile of one target's rise over the prior at a mixture [components]."""
        found = [
            np.quantile(own[name].at(weights), self.quantile, method="higher")
            for own in self._samples
        ]
        return float(max(found) - 1)
