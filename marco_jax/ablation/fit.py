"""From mixtures to figures: log-linear regression with what it does not know, and its test.

The figure of a mixture w is c + exp(t.w + interactions) + noise: the data mixing law (arXiv
2403.16952), with pairs of units that may help or hinder each other. Where the data says so w stands
for roots of the weights: of a language that the base has hardly seen, the first per cent teaches
more than the tenth. Coefficients have normal
priors whose sizes follow from the data (the largest marginal likelihood): where the data shows no
interactions theirs shrinks to nothing; where it cannot tell, what is not known stays.

Intervals come from draws out of the posterior, where few pairs may matter and much (sparse.py).
Resampled runs, the ordinary bootstrap, would say nothing of directions that no run has tried.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize

from marco_jax.ablation.quality import Quality, judge
from marco_jax.ablation.sparse import draw_coefficients

# Powers of the weights, and what keeps the slopes of roots finite: the least weight of a design.
_POWERS, _SHIFT = (1.0, 0.5), 0.002
# Shares of the smallest figure that the floor c may be.
_FLOORS = (0.0, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96)
# Logarithms of: size of the linear coefficients, of those of pairs, and of the noise. Where their
# weak priors lie, where the search for them begins, and its bounds.
_CENTRE, _SPREAD = np.array((1.0, -1.0, -1.5)), 2.0
_STARTS = ((1.0, -1.0, -1.5), (1.0, -4.0, -2.5), (1.0, 0.5, -2.5), (-2.0, -4.0, 0.0))
_BOUNDS = ((-6.0, 5.0), (-7.0, 5.0), (-6.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted target.

    Attributes:
        response: the estimate, a function of mixtures.
        noise: standard deviation of log(figure - c) that it leaves.
        quality: how well it predicts runs that were left out.
    """

    response: Response
    noise: float
    quality: Quality
    _models: tuple[_Model, ...]
    _chances: np.ndarray

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Figures of mixtures, [..., units] -> [...]."""
        return self.response.value(weights)

    def draw(self, count: int, rng: np.random.Generator) -> list[Response]:
        """Functions out of the posterior; see the top of the file."""
        counts = rng.multinomial(count, self._chances)
        drawn = [
            model.response(row)
            for model, own in zip(self._models, counts, strict=True)
            for row in model.draw(own, rng)
        ]
        # Draws of several targets are put side by side: their floors must not go in step.
        return [drawn[number] for number in rng.permutation(count)]

    def effects(self, prior: np.ndarray, draws: int = 400, seed: int = 0) -> np.ndarray:
        """What one point more of each unit does to the figure of a prior, in per cent.

        The point is taken from the other units in proportion.

        Returns:
            [3, units]: the estimate, and the ends of its 95% interval.
        """
        directions = 0.01 * (np.eye(len(prior)) - prior) / (1 - prior)[:, None]
        responses = [self.response, *self.draw(draws, np.random.default_rng(seed))]
        found = np.array([directions @ r.gradient(prior) / r.value(prior) for r in responses])
        return 100 * np.array([found[0], *np.quantile(found[1:], [0.025, 0.975], axis=0)])


@dataclasses.dataclass(frozen=True)
class Response:
    """floor + exp(mean + scale * (linear.x + x.pairs.x)), and its gradient.

    x are the weights, or powers of them that go from 0 to 1 as the weights do.
    """

    floor: float
    mean: float
    scale: float
    linear: np.ndarray
    pairs: np.ndarray
    power: float = 1.0

    def value(self, weights: np.ndarray) -> np.ndarray:
        """Figures of mixtures, [..., units] -> [...]."""
        x, _ = raised(weights, self.power)
        exponent = x @ self.linear + ((x @ self.pairs) * x).sum(axis=-1)
        return self.floor + np.exp(np.minimum(self.mean + self.scale * exponent, 50.0))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """Of the figure of one mixture, [units] -> [units]."""
        x, slope = raised(weights, self.power)
        slope = slope * (self.linear + 2 * self.pairs @ x)
        return (self.value(weights) - self.floor) * self.scale * slope


def raised(weights: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Powers of weights that go from 0 to 1, and their slopes, both of the weights' shape."""
    if power == 1:
        return weights, np.ones_like(weights)
    low, high = _SHIFT**power, (1 + _SHIFT) ** power
    # An optimiser may ask for a little less than nothing.
    base = np.maximum(weights, 0.0) + _SHIFT
    return (base**power - low) / (high - low), power * base ** (power - 1) / (high - low)


def features(weights: np.ndarray) -> np.ndarray:
    """Weights and products of pairs: [..., units] -> [..., units + pairs].

    Products are scaled so that a pair at a half each counts as much as a unit alone.
    """
    first, second = np.triu_indices(weights.shape[-1], 1)
    pairs = 4 * weights[..., first] * weights[..., second]
    return np.concatenate([weights, pairs], axis=-1)


def fit_target(weights: np.ndarray, figures: np.ndarray) -> Fit:
    """Fits one target.

    Args:
        weights: [runs, units], mixtures.
        figures: [runs], positive: the lower the better, such as bits per byte.

    Raises:
        ValueError: figures that are not positive numbers.
    """
    figures = np.asarray(figures, np.float64)
    if not (np.isfinite(figures).all() and figures.min() > 0):
        raise ValueError("figures must be positive numbers, one a run")
    models = tuple(
        _Model(weights, figures, share * figures.min(), power)
        for power in _POWERS
        for share in _FLOORS
    )
    evidence = np.array([model.evidence for model in models])
    chances = np.exp(evidence - evidence.max())
    best = models[int(np.argmax(evidence))]
    return Fit(
        response=best.response(best.estimate()),
        noise=float(best.scale * np.exp(best.sizes[2])),
        quality=judge(best.left_out(), figures),
        _models=models,
        _chances=chances / chances.sum(),
    )


class _Model:
    """The regression for one floor and one power."""

    def __init__(
        self, weights: np.ndarray, figures: np.ndarray, floor: float, power: float
    ) -> None:
        self.floor, self.power, self.units = floor, power, weights.shape[1]
        self.inputs, logs = features(raised(weights, power)[0]), np.log(figures - floor)
        self.mean, self.scale = logs.mean(), max(logs.std(), 1e-12)
        self.targets = (logs - self.mean) / self.scale
        linear, pairs = np.split(self.inputs, [self.units], axis=1)
        self.parts = (linear @ linear.T, pairs @ pairs.T, np.eye(len(logs)))
        options = {"method": "L-BFGS-B", "jac": True, "bounds": _BOUNDS}
        best = min(
            (scipy.optimize.minimize(self.loss, start, **options) for start in _STARTS),
            key=lambda result: result.fun,
        )
        self.sizes = best.x
        # In terms of the figures: the change of variables counts.
        self.evidence = float(-best.fun - len(logs) * np.log(self.scale) - logs.sum())

    def loss(self, sizes: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log likelihood and the weak priors of the sizes, and its gradient.

        The priors keep sizes from running away where the data does not mind.
        """
        factor = scipy.linalg.cho_factor(self.covariance(sizes), lower=True)
        solved = scipy.linalg.cho_solve(factor, self.targets)
        inverse = scipy.linalg.cho_solve(factor, self.parts[2])
        away = (np.asarray(sizes) - _CENTRE) / _SPREAD
        likelihood = 0.5 * self.targets @ solved + np.log(np.diag(factor[0])).sum()
        slopes = [
            np.exp(2 * size) * (np.sum(inverse * part) - solved @ part @ solved)
            for size, part in zip(sizes, self.parts, strict=True)
        ]
        return float(likelihood + 0.5 * np.sum(away**2)), np.array(slopes) + away / _SPREAD

    def covariance(self, sizes: np.ndarray | None = None) -> np.ndarray:
        """Of the targets, [runs, runs]; by default with the most likely sizes."""
        sizes = self.sizes if sizes is None else sizes
        return sum(np.exp(2 * size) * part for size, part in zip(sizes, self.parts, strict=True))

    def estimate(self) -> np.ndarray:
        """The most likely coefficients, [units + pairs]."""
        pairs = self.inputs.shape[1] - self.units
        variances = np.repeat(np.exp(2 * self.sizes[:2]), [self.units, pairs])
        return variances * (self.inputs.T @ np.linalg.solve(self.covariance(), self.targets))

    def left_out(self) -> np.ndarray:
        """Prediction for each run from the others, [runs]."""
        inverse = np.linalg.inv(self.covariance())
        missed = inverse @ self.targets / np.diag(inverse)
        return self.floor + np.exp(self.mean + self.scale * (self.targets - missed))

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Coefficients out of the posterior, [count, units + pairs]."""
        return draw_coefficients(self.inputs, self.targets, self.units, count, rng)

    def response(self, coefficients: np.ndarray) -> Response:
        """The function of mixtures that some coefficients make."""
        pairs = np.zeros((self.units, self.units))
        pairs[np.triu_indices(self.units, 1)] = 2 * coefficients[self.units :]
        linear = coefficients[: self.units]
        return Response(self.floor, self.mean, self.scale, linear, pairs + pairs.T, self.power)
