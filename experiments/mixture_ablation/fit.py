"""From mixtures to figures: log-linear regression with what it does not know, and its test.

The figure of a mixture w is c + exp(t.w + interactions) + noise: the data mixing law (arXiv
2403.16952), with pairs of units that may help or hinder each other. Coefficients have normal
priors whose sizes follow from the data (the largest marginal likelihood): where the data shows no
interactions theirs shrinks to nothing; where it cannot tell, what is not known stays.

Intervals come from a bootstrap whose draws are refits: the figures with noise of the estimated
size, against a random function of the prior (Osband et al. 2018, arXiv 1806.03335). Resampled runs
alone would say nothing of directions that no run has tried. For this model a draw has a closed
form: it is one from the posterior.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize

from experiments.mixture_ablation.quality import Quality, judge

# Shares of the smallest figure that the floor c may be.
_FLOORS = (0.0, 0.5, 0.8, 0.9)
# Logarithms of: size of the linear coefficients, of those of pairs, and of the noise. Where their
# weak priors lie, where the search for them begins, and its bounds.
_CENTRE, _SPREAD = np.array((1.0, -1.0, -1.5)), 2.0
_STARTS = ((1.0, -1.0, -1.5), (1.0, -4.0, -2.5), (1.0, 0.5, -2.5), (-2.0, -4.0, 0.0))
_BOUNDS = ((-6.0, 5.0), (-7.0, 5.0), (-6.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted target.

    Attributes:
        floor: c.
        mean, scale: of log(figure - c) over the runs.
        coefficients: posterior mean, [units + pairs]; the first `units` are the log-linear ones.
        factor: a square root of the posterior covariance, [units + pairs, units + pairs].
        noise: standard deviation of log(figure - c) that is left.
        quality: how well it predicts runs that were left out.
    """

    floor: float
    mean: float
    scale: float
    coefficients: np.ndarray
    factor: np.ndarray
    noise: float
    quality: Quality

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Figures of mixtures, [..., units] -> [...]."""
        return self.response(self.coefficients).value(weights)

    def response(self, coefficients: np.ndarray) -> Response:
        """The function of mixtures that some coefficients make."""
        units = _units_of(len(coefficients))
        pairs = np.zeros((units, units))
        pairs[np.triu_indices(units, 1)] = 2 * coefficients[units:]
        return Response(self.floor, self.mean, self.scale, coefficients[:units], pairs + pairs.T)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Coefficients of refits, [count, units + pairs]; see the top of the file."""
        normal = rng.standard_normal((count, len(self.coefficients)))
        return self.coefficients + normal @ self.factor.T

    def effects(self, prior: np.ndarray, draws: int = 400, seed: int = 0) -> np.ndarray:
        """What one point more of each unit does to the figure of a prior, in per cent.

        The point is taken from the other units in proportion.

        Returns:
            [3, units]: the estimate, and the ends of its 95% interval.
        """
        directions = 0.01 * (np.eye(len(prior)) - prior) / (1 - prior)[:, None]
        rows = [self.coefficients, *self.draw(draws, np.random.default_rng(seed))]
        responses = [self.response(row) for row in rows]
        found = np.array([directions @ r.gradient(prior) / r.value(prior) for r in responses])
        return 100 * np.array([found[0], *np.quantile(found[1:], [0.025, 0.975], axis=0)])


@dataclasses.dataclass(frozen=True)
class Response:
    """floor + exp(mean + scale * (linear.w + w.pairs.w)), and its gradient."""

    floor: float
    mean: float
    scale: float
    linear: np.ndarray
    pairs: np.ndarray

    def value(self, weights: np.ndarray) -> np.ndarray:
        """Figures of mixtures, [..., units] -> [...]."""
        exponent = weights @ self.linear + ((weights @ self.pairs) * weights).sum(axis=-1)
        return self.floor + np.exp(np.minimum(self.mean + self.scale * exponent, 50.0))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """Of the figure of one mixture, [units] -> [units]."""
        slope = self.linear + 2 * self.pairs @ weights
        return (self.value(weights) - self.floor) * self.scale * slope


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
    found = [_fit_with_floor(weights, figures, share * figures.min()) for share in _FLOORS]
    return max(found, key=lambda pair: pair[0])[1]


def _fit_with_floor(weights: np.ndarray, figures: np.ndarray, floor: float) -> tuple[float, Fit]:
    """Log marginal likelihood of the figures, and the fit."""
    units = weights.shape[1]
    inputs, logs = features(weights), np.log(figures - floor)
    mean, scale = logs.mean(), max(logs.std(), 1e-12)
    targets = (logs - mean) / scale
    kernels = _Kernels(inputs, units, targets)
    options = {"method": "L-BFGS-B", "jac": True, "bounds": _BOUNDS}
    best = min(
        (scipy.optimize.minimize(kernels.loss, start, **options) for start in _STARTS),
        key=lambda result: result.fun,
    )
    variances = np.repeat(np.exp(2 * best.x[:2]), [units, inputs.shape[1] - units])
    inverse = np.linalg.inv(kernels.covariance(best.x))
    solved = inverse @ targets
    gain = variances[:, None] * inputs.T
    covariance = np.diag(variances) - gain @ inverse @ gain.T
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    left_out = floor + np.exp(mean + scale * (targets - solved / np.diag(inverse)))
    fit = Fit(
        floor=floor,
        mean=mean,
        scale=scale,
        coefficients=gain @ solved,
        factor=vectors * np.sqrt(np.maximum(values, 0.0)),
        noise=float(scale * np.exp(best.x[2])),
        quality=judge(left_out, figures),
    )
    # In terms of the figures: the change of variables counts.
    return float(-best.fun - len(targets) * np.log(scale) - logs.sum()), fit


class _Kernels:
    """The marginal likelihood of the targets, as a function of three sizes."""

    def __init__(self, inputs: np.ndarray, units: int, targets: np.ndarray) -> None:
        linear, pairs = inputs[:, :units], inputs[:, units:]
        self.parts = (linear @ linear.T, pairs @ pairs.T, np.eye(len(targets)))
        self.targets = targets

    def covariance(self, sizes: np.ndarray) -> np.ndarray:
        """Of the targets, [runs, runs]."""
        return sum(np.exp(2 * size) * part for size, part in zip(sizes, self.parts, strict=True))

    def loss(self, sizes: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the log likelihood and the weak priors of the sizes, and its gradient.

        The priors keep sizes from running away where the data does not mind.
        """
        factor = scipy.linalg.cho_factor(self.covariance(sizes), lower=True)
        solved = scipy.linalg.cho_solve(factor, self.targets)
        inverse = scipy.linalg.cho_solve(factor, self.parts[2])
        away = (np.asarray(sizes) - _CENTRE) / _SPREAD
        value = (
            0.5 * self.targets @ solved
            + np.log(np.diag(factor[0])).sum()
            + 0.5 * np.sum(away**2)
        )
        slopes = [
            np.exp(2 * size) * (np.sum(inverse * part) - solved @ part @ solved)
            for size, part in zip(sizes, self.parts, strict=True)
        ]
        return float(value), np.array(slopes) + away / _SPREAD


def _units_of(count: int) -> int:
    """Units whose weights and pairs make so many features."""
    return int(round((np.sqrt(8 * count + 1) - 1) / 2))
