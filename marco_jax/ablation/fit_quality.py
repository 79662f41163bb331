"""Says whether a fit may be trusted: by predictions of left-out runs, and a test for any signal."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.optimize
import scipy.stats

from marco_jax.ablation.nested import PERMUTATIONS

# Significance level of `Quality.predicts`, over all targets of an objective together.
SIGNIFICANCE = 0.02
# No stricter level can be reached by a permutation test. Only objectives of more than 39 targets
# would ask for one; with 60 of them, noise gets a proposal in 3% of sweeps instead of 2%.
_STRICTEST = 1.01 / (PERMUTATIONS + 1)
# `needed_runs` gives no number beyond so many times the runs there are.
_MOST_TIMES = 10


@dataclasses.dataclass(frozen=True)
class Quality:
    """How well a fit predicts runs that it was not fitted to (leave-one-out).

    Attributes:
        left_out: prediction for each run from the others, [runs].
        rank_correlation: Spearman's correlation of predictions and measured values.
        error: root mean square error of the predictions; runs with large known errors count less.
        error_of_mean: the same if each run is predicted by the mean of the others.
        p_value: of the test whether the target depends on the mixture at all; see `assess_fit`.
    """

    left_out: np.ndarray
    rank_correlation: float
    error: float
    error_of_mean: float
    p_value: float

    def predicts(self, targets: int = 1) -> bool:
        """Whether the fit is better than the mean, significantly among so many targets."""
        return not self.failure(targets)

    def failure(self, targets: int = 1) -> str:
        """Which test the fit fails, with numbers and a remedy; "" if it fails none."""
        level, runs = max(SIGNIFICANCE / targets, _STRICTEST), len(self.left_out)
        if not self.p_value < level:
            test = f"p={self.p_value:.2g}, {level:.2g} needed"
            needed = needed_runs(runs, self.p_value, level)
            if needed is None:
                return (
                    f"{runs} runs show no effect of the mixture ({test}): far more runs, longer "
                    "ones or mixtures that differ more would be needed"
                )
            return f"too few runs to tell: {test}; about {needed} runs would do"
        if not self.error < self.error_of_mean:
            return (
                f"the mixture has an effect (p={self.p_value:.2g}), but left-out runs are predicted"
                f" worse than by the mean of the others (error {self.error:.4g}, of the mean "
                f"{self.error_of_mean:.4g}): add runs"
            )
        return ""


def needed_runs(runs: int, p_value: float, level: float) -> int | None:
    """The number of runs at which an effect of the size seen would be significant.

    A test's normal score z, for which `p_value` is the upper tail, grows with the root of the
    number of runs if the effect stays the same. The number is runs * (z(level) / z(p_value))^2: at
    it the test passes every other time, since the effect seen may be too large or too small.

    Returns:
        None where the number would be more than ten times the runs, so that it means nothing.
    """
    if p_value < level:
        return runs
    if p_value >= 0.5:
        return None
    ratio = (scipy.stats.norm.isf(level) / scipy.stats.norm.isf(p_value)) ** 2
    return max(runs + 1, math.ceil(runs * ratio)) if ratio <= _MOST_TIMES else None


def shrink(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each value may be trusted, and the values drawn to their mean as far as they may not.

    The trust in a value is s^2 / (s^2 + error^2) with the variance s^2 of runs beyond their errors,
    for which the squared deviations over s^2 + error^2 add up to the runs less one (Paule and
    Mandel 1982). s^2 is at least a tenth of the median squared error, so that trust stays relative
    where runs differ less than by their errors.

    Args:
        values: [runs].
        errors: known standard errors, [runs].

    Returns:
        trust from 0 to 1, [runs], and shrunk values, [runs]; 1 and the values where no error is
        known.
    """
    known = errors**2
    if not errors.any():
        return np.ones_like(values), values

    def excess(between: float) -> float:
        weights = 1 / (between + known)
        mean = np.average(values, weights=weights)
        return float(np.sum(weights * (values - mean) ** 2) - len(values) + 1)

    low, high = max(0.1 * np.median(known), 1e-6 * known.max()), max(values.var(), known.max())
    between = low
    if high > low and excess(low) > 0:
        while excess(high) > 0:
            high *= 2
        between = scipy.optimize.brentq(excess, low, high)
    trust = between / (between + known)
    mean = np.average(values, weights=trust)
    return trust, mean + trust * (values - mean)


def assess_fit(
    left_out: np.ndarray,
    values: np.ndarray,
    p_value: float | None = None,
    trust: np.ndarray | None = None,
) -> Quality:
    """Compares predictions for left-out runs with the measured values, both [runs].

    `p_value` is that of a test for any dependence on the mixture; by default the one-sided test of
    the rank correlation. `trust`, [runs], weighs the squared errors and the mean; by default 1.
    """
    trust = np.ones(len(values)) if trust is None else trust
    others = ((trust * values).sum() - trust * values) / (trust.sum() - trust)
    rank, own = 0.0, 1.0
    if np.ptp(left_out) > 1e-12 * abs(left_out).max() and np.ptp(values) > 0:
        found = scipy.stats.spearmanr(left_out, values, alternative="greater")
        rank, own = float(found.statistic), float(found.pvalue)
    errors = [np.average((one - values) ** 2, weights=trust) for one in (left_out, others)]
    return Quality(
        left_out=left_out,
        rank_correlation=rank,
        error=float(np.sqrt(errors[0])),
        error_of_mean=float(np.sqrt(errors[1])),
        p_value=own if p_value is None else p_value,
    )
