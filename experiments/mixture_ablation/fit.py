"""From mixtures to figures: log-linear regression with what it does not know, and its test.

The figure of a mixture w is c + exp(t.w + interactions) + noise: the data mixing law (arXiv
2403.16952), with pairs of units that may help or hinder each other. Weights are given normal
priors whose sizes follow from the data (the largest marginal likelihood); where the data shows no
interactions theirs shrinks to nothing, where it cannot tell, what is not known stays in the
posterior, from which functions are drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats

# Shares of the smallest figure that the floor c may be.
_FLOORS = (0.0, 0.5, 0.8, 0.9)
# A fit counts when chance would rank left-out runs as well once in a hundred times.
SIGNIFICANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted target.

    Attributes:
        floor: c.
        mean, scale: of log(figure - c) over the runs.
        coefficients: posterior mean, [units + pairs]; the first `units` are the log-linear ones.
        factor: a square root of the posterior covariance, [units + pairs, units + pairs].
        noise: standard deviation of log(figure - c) that is left.
        left_out: predictions for each run from the others, [runs].
        rank_correlation: Spearman's, of those with the figures.
        error: root mean square error of those; `error_of_mean`, of the mean of the others.
        p_value: of the rank correlation, one-sided.
    """

    floor: float
    mean: float
    scale: float
    coefficients: np.ndarray
    factor: np.ndarray
    noise: float
    left_out: np.ndarray
    rank_correlation: float
    error: float
    error_of_mean: float
    p_value: float

    @property
    def predicts(self) -> bool:
        """Whether it does better than the mean, and not by chance."""
        return self.error < self.error_of_mean and self.p_value < SIGNIFICANCE

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Figures of mixtures [..., units]."""
        return self._figure(features(weights) @ self.coefficients)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Coefficients of functions from the posterior, [count, units + pairs]."""
        normal = rng.standard_normal((count, len(self.coefficients)))
        return self.coefficients + normal @ self.factor.T

    def predict_with(self, coefficients: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Figures of a mixture each under drawn coefficients: [n, features], [n, units] -> [n]."""
        return self._figure((features(weights) * coefficients).sum(axis=-1))

    def _figure(self, value: np.ndarray) -> np.ndarray:
        return self.floor + np.exp(np.minimum(self.mean + self.scale * value, 50.0))


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

    def kernel(sizes: np.ndarray) -> np.ndarray:
        variances = np.repeat(np.exp(2 * sizes[:2]), [units, inputs.shape[1] - units])
        return (inputs * variances) @ inputs.T + np.exp(2 * sizes[2]) * np.eye(len(targets))

    def loss(sizes: np.ndarray) -> float:
        try:
            factor = scipy.linalg.cho_factor(kernel(sizes), lower=True)
        except np.linalg.LinAlgError:
            return 1e9
        # Weak priors keep sizes from running away where the data does not mind.
        penalty = 0.5 * np.sum(((sizes - (1.0, -1.0, -1.5)) / 2.0) ** 2)
        return (
            0.5 * targets @ scipy.linalg.cho_solve(factor, targets)
            + np.log(np.diag(factor[0])).sum()
            + penalty
        )

    starts = [(1.0, -1.0, -1.5), (1.0, -4.0, -2.5), (1.0, 0.5, -2.5), (-2.0, -4.0, 0.0)]
    bounds = [(-6.0, 5.0), (-7.0, 5.0), (-6.0, 1.0)]
    options = {"method": "L-BFGS-B", "bounds": bounds}
    best = min(
        (scipy.optimize.minimize(loss, start, **options) for start in starts),
        key=lambda result: result.fun,
    )
    sizes = best.x
    variances = np.repeat(np.exp(2 * sizes[:2]), [units, inputs.shape[1] - units])
    inverse = np.linalg.inv(kernel(sizes))
    solved = inverse @ targets
    gain = variances[:, None] * inputs.T
    covariance = np.diag(variances) - gain @ inverse @ gain.T
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    left_out = targets - solved / np.diag(inverse)
    predicted = floor + np.exp(mean + scale * left_out)
    others = (figures.sum() - figures) / (len(figures) - 1)
    rank, p_value = _rank_correlation(predicted, figures)
    fit = Fit(
        floor=floor,
        mean=mean,
        scale=scale,
        coefficients=gain @ solved,
        factor=vectors * np.sqrt(np.maximum(values, 0.0)),
        noise=float(scale * np.exp(sizes[2])),
        left_out=predicted,
        rank_correlation=rank,
        error=float(np.sqrt(np.mean((predicted - figures) ** 2))),
        error_of_mean=float(np.sqrt(np.mean((others - figures) ** 2))),
        p_value=p_value,
    )
    # In terms of the figures: the change of variables counts.
    return float(-best.fun - len(targets) * np.log(scale) - np.log(figures - floor).sum()), fit


def _rank_correlation(predicted: np.ndarray, figures: np.ndarray) -> tuple[float, float]:
    if np.ptp(predicted) < 1e-12 * abs(predicted).max():
        return 0.0, 1.0
    found = scipy.stats.spearmanr(predicted, figures, alternative="greater")
    return float(found.statistic), float(found.pvalue)
