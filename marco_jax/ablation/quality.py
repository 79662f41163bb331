"""How well a fit predicts runs that it has not seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.stats

# Chance that figures without any signal pass for predicted, over all targets of an objective.
SIGNIFICANCE = 0.02


@dataclasses.dataclass(frozen=True)
class Quality:
    """Leave-one-out figures of a fit.

    Attributes:
        left_out: prediction for each run from the others, [runs].
        rank_correlation: Spearman's, of those with the figures.
        error: root mean square error of those; `error_of_mean`, of the mean of the others.
        p_value: of the rank correlation, one-sided.
    """

    left_out: np.ndarray
    rank_correlation: float
    error: float
    error_of_mean: float
    p_value: float

    def predicts(self, targets: int = 1) -> bool:
        """Whether it does better than the mean, and not by chance in one of so many targets."""
        return self.error < self.error_of_mean and self.p_value < SIGNIFICANCE / targets

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"left-out error {self.error:.4g}, of the mean {self.error_of_mean:.4g}, "
            f"rank correlation {self.rank_correlation:.2f}"
        )


def judge(left_out: np.ndarray, figures: np.ndarray) -> Quality:
    """Compares predictions for left-out runs with their figures, both [runs]."""
    others = (figures.sum() - figures) / (len(figures) - 1)
    rank, p_value = 0.0, 1.0
    if np.ptp(left_out) > 1e-12 * abs(left_out).max() and np.ptp(figures) > 0:
        found = scipy.stats.spearmanr(left_out, figures, alternative="greater")
        rank, p_value = float(found.statistic), float(found.pvalue)
    return Quality(
        left_out=left_out,
        rank_correlation=rank,
        error=float(np.sqrt(np.mean((left_out - figures) ** 2))),
        error_of_mean=float(np.sqrt(np.mean((others - figures) ** 2))),
        p_value=p_value,
    )
