"""A bad metric leaves out one run of one fit, and accuracies count with their error."""

import math

import numpy as np
import pytest

from experiments.mixture_ablation.worlds import PRIOR, planted
from marco_jax.ablation.design import draw_design
from marco_jax.ablation.fit import fit_target
from marco_jax.ablation.propose import Objective, propose
from marco_jax.ablation.run_metrics import find_targets, target_errors, usable_series
from marco_jax.evaluation.results import Result

KK, NE = "bits_per_byte/bits_per_byte/kk", "bits_per_byte/bits_per_byte/ne"


def bits(code, value):
    return Result("bits_per_byte", code, 0, "bits_per_byte", value, 0.1, 9)


def accuracy(value, stderr=0.01, examples=100):
    return Result("xcopa", "kk", 0, "accuracy", value, stderr, examples)


@pytest.mark.parametrize(
    ("value", "what"),
    [(math.nan, "is nan"), (math.inf, "is inf"), (0.0, "is 0"), (None, "missing")],
)
def test_a_bad_metric_leaves_out_this_run_of_this_target(value, what):
    results = {f"run{n}": [bits("kk", 1.0 + n), bits("ne", 2.0)] for n in range(6)}
    results["run3"] = [bits("ne", 2.0)] + ([] if value is None else [bits("kk", value)])
    series, faults = usable_series([KK, NE], results)
    assert series[KK].runs == ("run0", "run1", "run2", "run4", "run5")
    assert series[KK].values.tolist() == [1, 2, 3, 5, 6]
    assert len(series[NE].runs) == 6
    (line,) = faults
    assert KK in line and "run3" in line and what in line


def test_a_target_with_few_usable_metrics_is_not_fitted():
    results = {f"run{n}": [bits("kk", 1.0 if n < 3 else math.nan)] for n in range(6)}
    series, faults = usable_series([KK], results)
    assert not series and "3 of 6 runs" in faults[-1] and "4 are needed" in faults[-1]


def test_targets_are_those_that_most_runs_have():
    runs = [{KK: 1.0, NE: 1.0}] * 4 + [{KK: 1.0}] * 5
    assert find_targets("bits_per_byte", runs) == [KK]
    assert find_targets("bits_per_byte", runs[:-2]) == [KK, NE]


def test_errors_of_accuracies():
    """Measured where there is one, by the binomial of the items otherwise, never 0."""
    name = "xcopa/accuracy/kk"
    assert target_errors([accuracy(0.7, 0.04)])[name] == pytest.approx((0.3, 0.04))
    assert target_errors([accuracy(0.7, math.nan)])[name][1] == pytest.approx(0.0456, abs=1e-4)
    for perfect, near in ((1.0, 0.5 / 101), (0.0, 100.5 / 101)):
        rate, error = target_errors([accuracy(perfect, 0.0)])[name]
        assert rate == pytest.approx(near) and 0.006 < error < 0.008
    few, many = (target_errors([accuracy(1.0, 0.0, n)])[name] for n in (10, 1000))
    assert few[0] > 50 * many[0] and few[1] > 50 * many[1]
    assert not target_errors([accuracy(math.nan), bits("kk", 1.0)])


def counted(rate, items, rng):
    """Result rows of runs whose answers are right with a probability of 1 - rate."""
    rows = []
    for chance, count in zip(rate, items, strict=True):
        right = rng.binomial(count, 1 - chance) / count
        rows.append([accuracy(right, math.sqrt(right * (1 - right) / count), int(count))])
    return dict(zip((f"run{n}" for n in range(len(rows))), rows, strict=True))


def test_binomial_counts_are_fitted_with_their_errors():
    """Half of the runs have 20 items, the others 4,000: the few items must not count as much."""
    design = draw_design(PRIOR, 32, 0)
    world = planted("log-linear", 0)
    rate = 0.2 * world["low"].value(design.weights)
    rng = np.random.default_rng(0)
    items = np.where(np.arange(32) % 2, 20, 4000)
    series, faults = usable_series(["xcopa/accuracy/kk"], counted(rate, items, rng))
    (one,) = series.values()
    assert not faults and (one.errors[1::2] > 5 * one.errors[::2].max()).all()
    weighed = fit_target(design.weights, one.values, one.errors)
    trusted = fit_target(design.weights, one.values)
    off = [np.abs(fit.predict(design.weights) / rate - 1).mean() for fit in (trusted, weighed)]
    assert off[1] < 0.02 and off[1] < 0.5 * off[0]
    drawn = np.array([r.value(design.weights) for r in weighed.draw(200, rng)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert np.mean((low <= rate) & (rate <= high)) > 0.8
    # An objective may mix tasks.
    bound = world["en"].value(design.weights)
    fits = {"xcopa/accuracy/kk": weighed, "en": fit_target(design.weights, bound)}
    found = propose(fits, design.prior, Objective({"xcopa/accuracy/kk": 1.0, "en": 0.5}), draws=20)
    before, after = (world["low"].value(w) for w in (design.prior, found.weights))
    assert after < before and not found.left_out


def test_accuracies_of_few_items_show_no_effect():
    """At 20 items a run an effect of a tenth drowns, and the fit says so."""
    design = draw_design(PRIOR, 16, 1)
    rng, passed = np.random.default_rng(1), 0
    for _ in range(5):
        rate = np.full(16, 0.4)
        results = counted(rate, np.full(16, 20), rng)
        (one,) = usable_series(["xcopa/accuracy/kk"], results)[0].values()
        passed += fit_target(design.weights, one.values, one.errors).quality.predicts()
    assert passed <= 1
