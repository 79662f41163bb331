"""Tests a regression: predictions of left-out runs, and an exact test for any signal at all.

The regression is that of fit.py: log(value - floor) is linear in features of the mixture, with
normal priors. Here its floor, its power of the weights and its standard deviations are averaged
over a grid by their marginal likelihoods. For a left-out run this happens without that run: were
they chosen on all runs, predictions of pure noise would look better than the mean too often.

The grid is cheap by eigenvalues. With the noise divided out, the covariance of the runs is
size * kernel + identity: one decomposition of the kernel gives the likelihoods of all sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

# Logarithms of the grid's standard deviations: of linear coefficients, of pair coefficients over
# linear ones, and of the noise; targets have a standard deviation of 1.
_LINEAR = np.linspace(-2.5, 4.0, 9)
_RATIO = np.array([-6.0, -3.0, -1.5, -0.5, 0.5, 1.5])
_NOISE = np.linspace(-6.0, 0.6, 17)
# With a known variance of each run the grid of the remaining noise may be coarser.
_EXTRA_NOISE = np.array([-6.0, -3.0, -2.0, -1.2, -0.6, 0.0])
PERMUTATIONS = 1999
# Permutations that are evaluated at once, and how many as likely as the measured order end the
# test early: by then the p-value is above any level of interest.
_BLOCK, _ENOUGH = 250, 100


@dataclasses.dataclass(frozen=True)
class Setting:
    """The grid: floors relative to the smallest value, powers, and weak priors of the sizes.

    Attributes:
        floors: candidates for the floor, as parts of the smallest value.
        inputs: features of all runs for each power, [runs, features], the components first.
        components: number of components.
        centre, spread: the normal prior of log sizes: linear, pairs, noise.
    """

    floors: Sequence[float]
    inputs: Sequence[np.ndarray]
    components: int
    centre: np.ndarray
    spread: float

    def kernels(self) -> np.ndarray:
        """Gram matrices by power and ratio of pairs to linear: [powers, ratios, runs, runs]."""
        found = []
        for inputs in self.inputs:
            linear, pairs = np.split(inputs, [self.components], axis=1)
            found.append([linear @ linear.T + np.exp(2 * r) * pairs @ pairs.T for r in _RATIO])
        return np.array(found)

    def prior(self, noise: np.ndarray) -> np.ndarray:
        """Log prior on the grid, [linear, ratios, noises]."""
        linear, ratio = _LINEAR[:, None, None], _RATIO[None, :, None]
        sizes = (linear, linear + ratio, noise[None, None, :])
        pulls = [(s - c) ** 2 for s, c in zip(sizes, self.centre, strict=True)]
        return -0.5 * sum(pulls) / self.spread**2


def predict_left_out(setting: Setting, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Predicts each run from the others, which alone choose floor, power and sizes.

    Args:
        setting: the grid.
        values: [runs], positive.
        errors: known standard errors of the values, [runs]; 0 where there are none.

    Returns:
        predictions, [runs].
    """
    kernels = setting.kernels()
    return np.array([_predict(setting, kernels, values, errors, n) for n in range(len(values))])


def _predict(
    setting: Setting, kernels: np.ndarray, values: np.ndarray, errors: np.ndarray, left: int
) -> float:
    kept = np.arange(len(values)) != left
    own = values[kept]
    floors = np.array(setting.floors) * own.min()
    logs = np.log(own - floors[:, None])
    mean, scale = logs.mean(axis=1), np.maximum(logs.std(axis=1), 1e-12)
    targets = (logs - mean[:, None]) / scale[:, None]
    grid = _EXTRA_NOISE if errors.any() else _NOISE
    known = (errors[kept] / (own - floors[:, None]) / scale[:, None]) ** 2
    noise = np.exp(2 * grid)[:, None] + known[:, None, :]
    # The Jacobian of the logarithm makes floors comparable.
    jacobian = -len(own) * np.log(scale) - logs.sum(axis=1)
    prior = setting.prior(grid)[:, :, None, :] + jacobian[:, None]
    weights, predictions = [], []
    for stack in kernels:
        inner, across = stack[:, kept][:, :, kept], stack[:, kept, left]
        found, solved = _solve(inner, targets, noise, flat=not errors.any())
        weights.append(found + prior)
        # Means of the left-out run: [linear, ratios, floors, noises].
        means = np.einsum("rn,arfcn->arfc", across, solved, optimize=True)
        exponent = np.minimum(mean[:, None] + scale[:, None] * means, 50.0)
        predictions.append(floors[:, None] + np.exp(exponent))
    chances = np.exp(np.array(weights) - np.max(weights))
    return float((chances * predictions).sum() / chances.sum())


def _solve(
    kernels: np.ndarray, targets: np.ndarray, noise: np.ndarray, *, flat: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihoods, and coefficients of the runs in predictions.

    Args:
        kernels: [ratios, n, n].
        targets: [floors, n].
        noise: variances, [floors, noises, n].
        flat: the variances are equal for all runs, so that one decomposition does for all.

    Returns:
        log likelihoods [linear, ratios, floors, noises], coefficients with another axis [n].
    """
    deviations = np.sqrt(noise)
    if flat:
        roots, vectors = np.linalg.eigh(kernels)
        roots = roots[:, None, None] / noise[..., :1]
        vectors = vectors[:, None, None]
    else:
        whitened = kernels[:, None, None] / (deviations[..., None] * deviations[..., None, :])
        roots, vectors = np.linalg.eigh(whitened)
    # [ratios, floors, noises, n]
    turned = (np.swapaxes(vectors, -1, -2) @ (targets[:, None] / deviations)[..., None])[..., 0]
    sizes = np.exp(2 * _LINEAR)[:, None, None, None, None]
    variances = sizes * np.maximum(roots, 0) + 1
    scaled = turned / variances
    likelihood = -0.5 * (scaled * turned + np.log(variances)).sum(axis=-1)
    likelihood = likelihood - np.log(deviations).sum(axis=-1)
    solved = sizes * (vectors @ scaled[..., None])[..., 0] / deviations
    return likelihood, solved


def signal_p_value(setting: Setting, values: np.ndarray, seed: int = 0) -> float:
    """The p-value of a permutation test: do the values depend on the mixtures at all?

    The statistic is the marginal likelihood, averaged over the grid, of values that are dealt out
    to the runs at random, against that of the values as measured. The test is exact whatever the
    grid and the noise: without signal all orders are equally likely. It ends early where the
    p-value is large, which leaves it valid (Besag and Clifford 1991). Values with known errors are
    given as `fit_quality.shrink` makes them: each with its own error is dealt out as one.
    """
    if np.ptp(values) <= 1e-12 * abs(values).max():
        return 1.0
    rng = np.random.default_rng(seed)
    floors = np.array(setting.floors) * values.min()
    logs = np.log(values - floors[:, None])
    scale = logs.std(axis=1)
    targets = (logs - logs.mean(axis=1, keepdims=True)) / scale[:, None]
    jacobian = -len(values) * np.log(scale) - logs.sum(axis=1)
    evidence = _evidence_of(setting, targets, jacobian)
    measured = evidence(np.arange(len(values))[None])[0]
    tried, beyond = 0, 0
    while tried < PERMUTATIONS and beyond < _ENOUGH:
        count = min(_BLOCK, PERMUTATIONS - tried)
        orders = np.array([rng.permutation(len(values)) for _ in range(count)])
        beyond += int(np.sum(evidence(orders) >= measured - 1e-9))
        tried += count
    return (beyond + 1) / (tried + 1)


def _evidence_of(
    setting: Setting, targets: np.ndarray, jacobian: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from orders of the runs [orders, n] to log marginal likelihoods [orders]."""
    noise = np.exp(2 * _NOISE)
    tables = []
    prior = setting.prior(_NOISE)
    for roots, vectors in zip(*np.linalg.eigh(setting.kernels()), strict=True):
        sizes = np.exp(2 * _LINEAR)[:, None, None, None]
        variances = sizes * np.maximum(roots, 0)[None, :, None, :] + noise[:, None]
        offset = prior - 0.5 * np.log(variances).sum(axis=-1)
        tables.append((vectors, variances, offset))

    def evidence(orders: np.ndarray) -> np.ndarray:
        rows = targets[:, orders]  # [floors, orders, n]
        found = []
        for vectors, variances, offset in tables:
            for ratio in range(len(_RATIO)):
                squares = (rows @ vectors[ratio]) ** 2
                inverse = 0.5 / variances[:, ratio].reshape(-1, rows.shape[-1])
                exponent = offset[:, ratio].reshape(-1) - squares @ inverse.T
                top = exponent.max(axis=-1)
                total = np.exp(exponent - top[..., None]).sum(axis=-1)
                found.append(top + np.log(total) + jacobian[:, None])
        stacked = np.array(found).reshape(-1, len(orders))
        top = stacked.max(axis=0)
        return top + np.log(np.exp(stacked - top).sum(axis=0))

    return evidence
