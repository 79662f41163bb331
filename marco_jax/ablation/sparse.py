"""Draws coefficients of a regression with sparse pairs: most are near zero, a few may be large.

The sampler is a Gibbs sampler: it draws coefficients given variances, then each variance given
coefficients. Coefficients of components are normal with a common variance. Coefficients of pairs
have the horseshoe prior (Carvalho et al. 2010): a common variance times a variance of each pair,
which lets few pairs be large while the common variance is small. Auxiliary variables make all
conditionals of variances inverse gamma distributions (Makalic and Schmidt 2016, arXiv 1508.03884).
With one variance for all pairs, the intervals of a few large interactions would be too narrow.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

# Steps before the first draw, and from one draw to the next.
_BURN_IN, _APART = 200, 4
# Bounds of variances, which keep the sampler finite.
_TINY, _HUGE = 1e-10, 1e10


def draw_coefficients(
    inputs: np.ndarray,
    targets: np.ndarray,
    components: int,
    count: int,
    rng: np.random.Generator,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Draws `count` times from the posterior of targets = inputs . coefficients + noise.

    Args:
        inputs: [runs, features], of which the first `components` are weights, the others pairs.
        targets: [runs], standardised.
        components: number of components.
        count: number of draws.
        rng: source of randomness.
        known: known variances of the targets, [runs], on top of a common one that is drawn, too.

    Returns:
        coefficients, [count, features].
    """
    if not count:
        return np.zeros((0, inputs.shape[1]))
    runs, features = inputs.shape
    known = np.zeros(runs) if known is None else known
    diagonal, any_known = np.diag_indices(runs), bool(known.any())
    pairs = features - components
    noise, linear, common = 0.05, 4.0, 0.1
    linear_help = common_help = 1.0
    own, own_help = np.ones(pairs), np.ones(pairs)
    drawn = []

    def inverse_gamma(shape: float | np.ndarray, rate: float | np.ndarray) -> np.ndarray:
        return np.clip(rate / rng.gamma(shape, size=np.shape(rate)), _TINY, _HUGE)

    def regress(variances: np.ndarray) -> np.ndarray:
        # A draw of coefficients given all variances, [features]: a draw from the prior is corrected
        # by the regression of the targets that remain after it and a draw of the noise. This is an
        # exact draw from the posterior, and solves a system of the size of the runs, not of the
        # features (Bhattacharya et al. 2016).
        prior = rng.standard_normal(features) * np.sqrt(variances)
        whole = noise + known
        remaining = targets + np.sqrt(whole) * rng.standard_normal(runs) - inputs @ prior
        covariance = (inputs * variances) @ inputs.T
        covariance[diagonal] += whole
        # LAPACK itself: the checks of scipy.linalg.solve take longer than the solution.
        _, solved, info = scipy.linalg.lapack.dposv(covariance, remaining)
        if info:
            solved = np.linalg.lstsq(covariance, remaining, rcond=None)[0]
        return prior + variances * (inputs.T @ solved)

    for step in range(_BURN_IN + count * _APART):
        row = regress(np.concatenate([np.full(components, linear), common * own]))
        left = targets - inputs @ row
        if any_known:
            # Draw the part of each residual that is due to the known variance; the rest informs
            # the common one.
            share = known / (known + noise)
            left = left * (1 - share) - np.sqrt(noise * share) * rng.standard_normal(runs)
        # A weak conjugate prior, which keeps the noise above about a hundredth of the deviation.
        noise = inverse_gamma(2 + runs / 2, 2e-3 + left @ left / 2)
        squares = row**2
        linear = inverse_gamma(
            (components + 1) / 2, 1 / linear_help + squares[:components].sum() / 2
        )
        linear_help = inverse_gamma(1.0, 0.1 + 1 / linear)
        own = inverse_gamma(1.0, 1 / own_help + squares[components:] / (2 * common))
        own_help = inverse_gamma(1.0, 1 + 1 / own)
        common = inverse_gamma(
            (pairs + 1) / 2, 1 / common_help + (squares[components:] / own).sum() / 2
        )
        common_help = inverse_gamma(1.0, 1 + 1 / common)
        if step >= _BURN_IN and (step - _BURN_IN) % _APART == _APART - 1:
            drawn.append(row)
    return np.array(drawn)
