"""Fits a target as a function of the mixture: log-linear Bayesian regression.

The target of a mixture w is c + exp(t.w + interactions) + noise: the data mixing law (arXiv
2403.16952), extended by interactions of pairs of components. Alternatively w stands for square
roots of the weights: in a language that the base has hardly seen, the first per cent helps more
than the tenth. Models with different floors c and powers of the weights are compared by marginal
likelihood: the best one gives the estimate, and draws come from all in proportion to it.

Within a model, log(target - c) is a linear regression with normal priors on the coefficients. The
standard deviations of linear coefficients, of pair coefficients and of the noise maximise the
marginal likelihood (empirical Bayes), so interactions that the data does not show shrink to zero.

Intervals come from posterior draws with a sparse prior of pairs (sparse.py). A bootstrap over runs
would not show the uncertainty in directions that no run has tried. Left-out runs are predicted by
the same regression with everything chosen without them (nested.py).

A value may have a known standard error, such as an accuracy on 100 items. Divided by (value -
floor), the slope of the logarithm, its square is added to that run's variance (delta method).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize
from threadpoolctl import threadpool_limits

from marco_jax.ablation.fit_quality import Quality, assess_fit, shrink
from marco_jax.ablation.nested import Setting, predict_left_out, signal_p_value
from marco_jax.ablation.sparse import draw_coefficients

# Powers of the weights. _SHIFT, a design's smallest weight, keeps the slopes of roots finite.
_POWERS, _SHIFT = (1.0, 0.5), 0.002
# Candidates for the floor c, relative to the smallest measured value.
_FLOORS = (0.0, 0.4, 0.6, 0.75, 0.85, 0.92, 0.96)
# Logarithms of the standard deviations of linear coefficients, pair coefficients and noise: mean
# and deviation of their weak priors, starts and bounds of the search.
_CENTRE, _SPREAD = np.array((1.0, -1.0, -1.5)), 2.0
_STARTS = ((1.0, -1.0, -1.5), (1.0, -4.0, -2.5), (1.0, 0.5, -2.5), (-2.0, -4.0, 0.0))
_BOUNDS = ((-6.0, 5.0), (-7.0, 5.0), (-6.0, 1.0))
# Systems of some tens of equations are many times slower where BLAS divides them among threads that
# wait for busy cores.
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted target.

    Attributes:
        response: the estimated function of mixtures.
        quality: how well the fit predicts left-out runs.
    """

    response: Response
    quality: Quality
    _models: tuple[_Model, ...]
    _chances: np.ndarray

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Predicted target of mixtures, [..., components] -> [...]."""
        return self.response.value(weights)

    def draw(self, count: int, rng: np.random.Generator) -> list[Response]:
        """Draws functions of mixtures from the posterior over all models."""
        counts = rng.multinomial(count, self._chances)
        drawn = [
            model.response(row)
            for model, own in zip(self._models, counts, strict=True)
            for row in draw_coefficients(
                model.inputs, model.targets, model.components, own, rng, model.known
            )
        ]
        # Shuffled, because callers combine draws of several targets by index: without it, draws
        # with low floors would be combined with each other.
        return [drawn[number] for number in rng.permutation(count)]

    def effects(self, prior: np.ndarray, draws: int = 400, seed: int = 0) -> np.ndarray:
        """Change of the target, in per cent, for one percentage point more of each component.

        The point is taken from the prior's other components in proportion.

        Returns:
            [3, components]: the estimate, and the ends of its 95% interval.
        """
        directions = 0.01 * (np.eye(len(prior)) - prior) / (1 - prior)[:, None]
        responses = [self.response, *self.draw(draws, np.random.default_rng(seed))]
        found = np.array([directions @ r.gradient(prior) / r.value(prior) for r in responses])
        return 100 * np.array([found[0], *np.quantile(found[1:], [0.025, 0.975], axis=0)])


@dataclasses.dataclass(frozen=True)
class Response:
    """The function floor + exp(mean + scale * (linear.x + x.pairs.x)) and its gradient.

    x are the weights, or powers of them that are scaled to range from 0 to 1.
    """

    floor: float
    mean: float
    scale: float
    linear: np.ndarray
    pairs: np.ndarray
    power: float = 1.0

    def value(self, weights: np.ndarray) -> np.ndarray:
        """Value for mixtures, [..., components] -> [...]."""
        x, _ = raised(weights, self.power)
        exponent = x @ self.linear + ((x @ self.pairs) * x).sum(axis=-1)
        return self.floor + np.exp(np.minimum(self.mean + self.scale * exponent, 50.0))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """Gradient at one mixture, [components] -> [components]."""
        x, slope = raised(weights, self.power)
        slope = slope * (self.linear + 2 * self.pairs @ x)
        return (self.value(weights) - self.floor) * self.scale * slope


def raised(weights: np.ndarray, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Powers of weights, scaled to [0, 1], and their slopes; both have the weights' shape."""
    if power == 1:
        return weights, np.ones_like(weights)
    low, high = _SHIFT**power, (1 + _SHIFT) ** power
    # An optimiser may pass slightly negative weights.
    base = np.maximum(weights, 0.0) + _SHIFT
    return (base**power - low) / (high - low), power * base ** (power - 1) / (high - low)


def features(weights: np.ndarray) -> np.ndarray:
    """Weights and products of pairs: [..., components] -> [..., components + pairs].

    Products are scaled to 1 at a half each, like a single weight of 1.
    """
    first, second = np.triu_indices(weights.shape[-1], 1)
    pairs = 4 * weights[..., first] * weights[..., second]
    return np.concatenate([weights, pairs], axis=-1)


@one_thread
def fit_target(weights: np.ndarray, values: np.ndarray, errors: np.ndarray | None = None) -> Fit:
    """Fits one target.

    Args:
        weights: [runs, components], mixtures.
        values: [runs], positive, lower is better, such as bits per byte.
        errors: known standard errors of the values, [runs], which come on top of noise that the
            fit estimates; by default 0.

    Raises:
        ValueError: a value is not a positive number, or an error is negative or not finite.
    """
    values = np.asarray(values, np.float64)
    errors = np.zeros_like(values) if errors is None else np.asarray(errors, np.float64)
    if not (np.isfinite(values).all() and values.min() > 0):
        raise ValueError("values must be positive numbers, one per run")
    if not (np.isfinite(errors).all() and errors.min() >= 0):
        raise ValueError("errors must be numbers from 0, one per run")
    models = tuple(
        _Model(weights, values, errors, share * values.min(), power)
        for power in _POWERS
        for share in _FLOORS
    )
    evidence = np.array([model.evidence for model in models])
    chances = np.exp(evidence - evidence.max())
    best = models[int(np.argmax(evidence))]
    inputs = [features(raised(weights, power)[0]) for power in _POWERS]
    setting = Setting(_FLOORS, inputs, weights.shape[1], _CENTRE, _SPREAD)
    left_out = predict_left_out(setting, values, errors)
    trust, shrunk = shrink(values, errors)
    return Fit(
        response=best.response(best.estimate()),
        quality=assess_fit(left_out, values, signal_p_value(setting, shrunk), trust),
        _models=models,
        _chances=chances / chances.sum(),
    )


class _Model:
    """The regression for one floor and one power.

    It is solved in the space of runs, as a Gaussian process: with coefficients integrated out, the
    standardised targets are normal with the covariance sum_k exp(2 * sizes[k]) * parts[k]. The
    parts are the Gram matrices of linear and pair features and the identity (noise); known
    variances of the runs come on top. `sizes` are found by gradient descent from several starts;
    coefficients follow in closed form.
    """

    def __init__(
        self,
        weights: np.ndarray,
        values: np.ndarray,
        errors: np.ndarray,
        floor: float,
        power: float,
    ) -> None:
        self.floor, self.power, self.components = floor, power, weights.shape[1]
        self.inputs, logs = features(raised(weights, power)[0]), np.log(values - floor)
        self.mean, self.scale = logs.mean(), max(logs.std(), 1e-12)
        self.targets = (logs - self.mean) / self.scale
        self.known = (errors / (values - floor) / self.scale) ** 2
        linear, pairs = np.split(self.inputs, [self.components], axis=1)
        self.parts = (linear @ linear.T, pairs @ pairs.T, np.eye(len(logs)))
        options = {"method": "L-BFGS-B", "jac": True, "bounds": _BOUNDS}
        found = [scipy.optimize.minimize(self.loss, start, **options) for start in _STARTS]
        best = min(found, key=lambda result: result.fun)
        self.sizes = best.x
        # The Jacobian of the logarithm makes models with different floors comparable.
        self.evidence = float(-best.fun - len(logs) * np.log(self.scale) - logs.sum())

    def loss(self, sizes: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log of marginal likelihood and prior of the sizes, and its gradient.

        The weak priors keep sizes finite if the data does not determine them.
        """
        factor = scipy.linalg.cho_factor(self.covariance(sizes), lower=True)
        solved = scipy.linalg.cho_solve(factor, self.targets)
        inverse = scipy.linalg.cho_solve(factor, self.parts[2])
        deviation = (np.asarray(sizes) - _CENTRE) / _SPREAD
        likelihood = 0.5 * self.targets @ solved + np.log(np.diag(factor[0])).sum()
        slopes = [
            np.exp(2 * size) * (np.sum(inverse * part) - solved @ part @ solved)
            for size, part in zip(sizes, self.parts, strict=True)
        ]
        loss = float(likelihood + 0.5 * np.sum(deviation**2))
        return loss, np.array(slopes) + deviation / _SPREAD

    def covariance(self, sizes: np.ndarray | None = None) -> np.ndarray:
        """Covariance of the targets, [runs, runs]; by default with the most likely sizes."""
        sizes = self.sizes if sizes is None else sizes
        found = sum(np.exp(2 * size) * part for size, part in zip(sizes, self.parts, strict=True))
        return found + np.diag(self.known)

    def estimate(self) -> np.ndarray:
        """The most likely coefficients, [components + pairs]."""
        pairs = self.inputs.shape[1] - self.components
        variances = np.repeat(np.exp(2 * self.sizes[:2]), [self.components, pairs])
        return variances * (self.inputs.T @ np.linalg.solve(self.covariance(), self.targets))

    def response(self, coefficients: np.ndarray) -> Response:
        """The function of mixtures with given coefficients."""
        pairs = np.zeros((self.components, self.components))
        pairs[np.triu_indices(self.components, 1)] = 2 * coefficients[self.components :]
        linear = coefficients[: self.components]
        return Response(self.floor, self.mean, self.scale, linear, pairs + pairs.T, self.power)
