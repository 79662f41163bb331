"""Fits targets by LightGBM, the regression of RegMix (arXiv 2407.01492), as a baseline.

Trees have no gradients and do not extrapolate: the proposal is the mean of the best among many
random mixtures. Intervals come from a bootstrap over runs. Refits to resampled runs do not show
what no run has tried, so bounds are on the estimate here, and known errors of values are not used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from marco_jax.ablation.design import cap_weights
from marco_jax.ablation.fit_quality import Quality, assess_fit
from marco_jax.ablation.propose import Objective, Problem, Proposal, propose_by
from marco_jax.extras import optional

# Number of random mixtures, and of the best ones that are averaged (RegMix: 1M and 128).
_CANDIDATES, _BEST = 20_000, 64
_BOOTSTRAP = 20
_SETTINGS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 2,
    "min_data_in_bin": 1,
    "verbosity": -1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
}
_ROUNDS = 150


@dataclasses.dataclass(frozen=True)
class TreeFit:
    """A target fitted by LightGBM, with the runs it was fitted to; compare `fit.Fit`."""

    model: Any
    weights: np.ndarray
    values: np.ndarray
    quality: Quality

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Predicted target of mixtures, [..., components] -> [...]."""
        rows = np.atleast_2d(weights)
        found = self.model.predict(rows.reshape(-1, rows.shape[-1]))
        return found.reshape(weights.shape[:-1])

    value = predict  # As `fit.Response` calls it.

    def resampled(self, rng: np.random.Generator) -> TreeFit:
        """A fit to runs drawn with replacement."""
        rows = rng.integers(len(self.values), size=len(self.values))
        model = _train(self.weights[rows], self.values[rows])
        return dataclasses.replace(self, model=model)


def fit_trees(weights: np.ndarray, values: np.ndarray, errors: np.ndarray | None = None) -> TreeFit:
    """Fits one target by LightGBM; the arguments are those of `fit.fit_target`, errors unused.

    Raises:
        MissingExtra: LightGBM is not installed.
    """
    values = np.asarray(values, np.float64)
    kept = ~np.eye(len(values), dtype=bool)
    left_out = np.array(
        [
            _train(weights[rows], values[rows]).predict(weights[n : n + 1])[0]
            for n, rows in enumerate(kept)
        ]
    )
    return TreeFit(_train(weights, values), weights, values, assess_fit(left_out, values))


def propose_by_search(
    fits: Mapping[str, TreeFit], prior: np.ndarray, objective: Objective, *, seed: int = 0
) -> Proposal:
    """Proposes the best of many random mixtures; no mixture if the fits predict nothing."""

    def search(objective: Objective) -> tuple[np.ndarray, list[dict[str, TreeFit]], np.ndarray]:
        rng = np.random.default_rng(seed)
        candidates = _draw(prior, objective, rng)
        refits = [{name: f.resampled(rng) for name, f in fits.items()} for _ in range(_BOOTSTRAP)]
        weights, *optima = (
            _best(Problem(functions, prior, objective), candidates) for functions in (fits, *refits)
        )
        return weights, refits, np.array(optima)

    return propose_by(search, fits, prior, objective, tail=0.0)


def _train(weights: np.ndarray, values: np.ndarray) -> Any:
    with optional("sweep.fit='lightgbm'"):
        import lightgbm
    data = lightgbm.Dataset(weights, values, params={"verbosity": -1, "min_data_in_bin": 1})
    return lightgbm.train(_SETTINGS, data, num_boost_round=_ROUNDS)


def _draw(prior: np.ndarray, objective: Objective, rng: np.random.Generator) -> np.ndarray:
    caps = objective.upper(len(prior))
    centre = np.sqrt(prior) / np.sqrt(prior).sum()
    strengths = np.exp(rng.uniform(np.log(0.3), np.log(20.0), _CANDIDATES)) * len(prior)
    drawn = [rng.dirichlet(np.maximum(centre * strength, 1e-3)) for strength in strengths]
    return np.array([prior, *(cap_weights(row, caps) for row in drawn)])


def _best(problem: Problem, candidates: np.ndarray) -> np.ndarray:
    """The mean of the best candidates, [components]."""
    mean = candidates[np.argsort(problem.penalised(candidates))[:_BEST]].mean(axis=0)
    return mean / mean.sum()
