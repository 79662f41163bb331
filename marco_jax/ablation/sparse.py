"""Draws from a regression whose pairs are sparse: most do nothing, some may do a lot.

Gibbs sampling. Coefficients of units are normal with a common size; those of pairs have the
horseshoe prior (Carvalho et al. 2010), in the form whose conditionals are all inverse gammas
(Makalic and Schmidt 2016, arXiv 1508.03884). With one size for all pairs, a few large interactions
among many that are nothing look surer than they are.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

# Steps before the first draw, and from one to the next.
_BURN_IN, _APART = 200, 4
_TINY, _HUGE = 1e-10, 1e10


def draw_coefficients(
    inputs: np.ndarray, targets: np.ndarray, units: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Coefficients out of the posterior of targets = inputs . coefficients + noise.

    Args:
        inputs: [runs, features], the first `units` of them weights, the others pairs.
        targets: [runs], standardised.
        units: number of units.
        count: of draws.
        rng: of the draws.

    Returns:
        [count, features].
    """
    if not count:
        return np.zeros((0, inputs.shape[1]))
    runs, features = inputs.shape
    pairs = features - units
    noise, linear, common = 0.05, 4.0, 0.1
    linear_help = common_help = 1.0
    own, own_help = np.ones(pairs), np.ones(pairs)
    drawn = []

    def inverse_gamma(shape: float | np.ndarray, rate: float | np.ndarray) -> np.ndarray:
        return np.clip(rate / rng.gamma(shape, size=np.shape(rate)), _TINY, _HUGE)

    for step in range(_BURN_IN + count * _APART):
        variances = np.concatenate([np.full(units, linear), common * own])
        row = _regress(inputs, targets, variances, noise, rng)
        left = targets - inputs @ row
        # Conjugate, with a weak prior that keeps noise above a hundredth of the spread or so.
        noise = inverse_gamma(2 + runs / 2, 2e-3 + left @ left / 2)
        squares = row**2
        linear = inverse_gamma((units + 1) / 2, 1 / linear_help + squares[:units].sum() / 2)
        linear_help = inverse_gamma(1.0, 0.1 + 1 / linear)
        own = inverse_gamma(1.0, 1 / own_help + squares[units:] / (2 * common))
        own_help = inverse_gamma(1.0, 1 + 1 / own)
        common = inverse_gamma((pairs + 1) / 2, 1 / common_help + (squares[units:] / own).sum() / 2)
        common_help = inverse_gamma(1.0, 1 + 1 / common)
        if step >= _BURN_IN and (step - _BURN_IN) % _APART == _APART - 1:
            drawn.append(row)
    return np.array(drawn)


def _regress(
    inputs: np.ndarray,
    targets: np.ndarray,
    variances: np.ndarray,
    noise: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Coefficients given all variances, [features]: a refit of perturbed targets.

    The random function that is taken off the targets and put back makes it an exact draw, at the
    cost of an equation in the runs and not in the features (Bhattacharya et al. 2016).
    """
    random = rng.standard_normal(len(variances)) * np.sqrt(variances)
    shaken = targets + np.sqrt(noise) * rng.standard_normal(len(targets)) - inputs @ random
    covariance = (inputs * variances) @ inputs.T
    covariance[np.diag_indices(len(targets))] += noise
    solved = scipy.linalg.solve(covariance, shaken, assume_a="pos", check_finite=False)
    return random + variances * (inputs.T @ solved)
