"""Planted worlds: what the fit and the proposal find, and what they leave alone."""

import itertools

import numpy as np
import pytest

from experiments.mixture_ablation.worlds import KINDS, OBJECTIVE, PRIOR, planted, try_world
from marco_jax.ablation.design import cap_weights, draw_design
from marco_jax.ablation.fit import Response, features, fit_target
from marco_jax.ablation.fit_quality import Quality, assess_fit, shrink
from marco_jax.ablation.nested import Setting, signal_p_value
from marco_jax.ablation.propose import Objective, chance_of, minimise, propose, trade_off


def test_a_design_is_seeded_and_keeps_its_caps():
    caps = {"a": 0.4, "h": 0.05}
    first = draw_design(PRIOR, 20, seed=3, caps=caps)
    again = draw_design(PRIOR, 20, seed=3, caps=caps)
    other = draw_design(PRIOR, 20, seed=4, caps=caps)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.weights != other.weights).any()
    np.testing.assert_allclose(first.weights.sum(axis=1), 1)
    assert first.weights[:, 0].max() <= 0.4 + 1e-9 and first.weights[:, 7].max() <= 0.05 + 1e-9
    assert first.names[:2] == ("prior", "uniform")
    drawn = first.weights[2:]
    assert drawn[drawn > 0].min() >= 0.002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 3}, "4 runs"),
        ({"caps": dict.fromkeys(PRIOR, 0.1)}, "less than 1"),
        ({"prior": {"a": 1.0, "b": 0.0}}, "above zero"),
    ],
)
def test_a_design_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw_design(**({"prior": PRIOR, "runs": 20, "seed": 0} | change))


def test_capped_weights_give_the_rest_to_the_others_in_proportion():
    capped = cap_weights(np.array([0.7, 0.2, 0.1]), np.array([0.4, 1.0, 1.0]))
    np.testing.assert_allclose(capped, [0.4, 0.4, 0.2])


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_response_has_its_gradient(power):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(4, 4))
    response = Response(0.3, 0.1, 0.7, rng.normal(size=4), pairs + pairs.T, power)
    point = rng.dirichlet(np.ones(4))
    steps = 1e-6 * np.eye(4)
    numeric = [(response.value(point + s) - response.value(point - s)) / 2e-6 for s in steps]
    np.testing.assert_allclose(response.gradient(point), numeric, rtol=1e-6)


def test_left_out_predictions_are_those_of_fits_without_the_run():
    """A run's own value must not matter to its prediction, by no choice of floor or power."""
    design, world = draw_design(PRIOR, 24, 0), planted("log-linear", 0)["low"]
    values = world.value(design.weights)
    first = fit_target(design.weights, values).quality.left_out
    assert abs(first / values - 1).max() < 0.05
    values[5] *= 0.6
    second = fit_target(design.weights, values).quality.left_out
    assert second[5] == pytest.approx(first[5], rel=1e-9)
    assert abs(second / first - 1).max() > 0.01


def test_known_errors_keep_noisy_runs_from_the_fit():
    design, world = draw_design(PRIOR, 24, 0), planted("log-linear", 0)["low"]
    exact = world.value(design.weights)
    errors = np.zeros(24)
    errors[3:9] = 0.3 * exact[3:9]
    values = exact + errors * np.random.default_rng(0).standard_normal(24)
    trusted = fit_target(design.weights, values)
    weighed = fit_target(design.weights, values, errors)
    off = [abs(fit.predict(design.weights) / exact - 1).mean() for fit in (trusted, weighed)]
    assert off[1] < 0.01 < off[0]
    spread = [
        np.std([r.value(design.prior) for r in fit.draw(100, np.random.default_rng(0))])
        for fit in (trusted, weighed)
    ]
    assert spread[1] < spread[0]


def test_values_are_trusted_as_far_as_runs_differ_by_more_than_their_errors():
    rng = np.random.default_rng(0)
    errors = np.repeat([0.001, 0.1], 200)
    values = 1 + rng.normal(0, 0.02, 400) + errors * rng.standard_normal(400)
    trust, shrunk = shrink(values, errors)
    assert trust[0] > 0.99 and trust[-1] == pytest.approx(0.04 / 1.04, rel=0.3)
    assert abs(shrunk[200:] - 1).max() < 0.03 < abs(values[200:] - 1).max()
    trust, shrunk = shrink(values, np.zeros(400))
    assert (trust == 1).all() and (shrunk == values).all()
    # Runs that differ by less than their errors: trust is still relative.
    trust, _ = shrink(np.full(4, 0.5), np.array([0.1, 0.1, 0.2, 0.2]))
    assert trust[0] > 2 * trust[2] > 0


def test_a_test_of_pure_noise_is_exact():
    rng, p_values = np.random.default_rng(0), []
    design = draw_design(PRIOR, 16, 0)
    for _ in range(20):
        inputs = [features(design.weights)]
        setting = Setting((0.0, 0.9), inputs, len(PRIOR), np.array((1.0, -1.0, -1.5)), 2.0)
        p_values.append(signal_p_value(setting, rng.normal(1, 0.01, 16)))
    assert min(p_values) > 0.02 and 0.3 < np.mean(p_values) < 0.7


@pytest.mark.parametrize(
    ("runs", "p_value", "targets", "message"),
    [
        (10, 0.023, 2, "too few runs to tell: p=0.023, 0.01 needed; about 14 runs would do"),
        (32, 0.4, 1, "32 runs show no effect of the mixture (p=0.4, 0.02 needed)"),
        (32, 0.9, 1, "32 runs show no effect"),
        (32, 0.001, 1, "left-out runs are predicted worse than by the mean"),
    ],
)
def test_a_fit_that_is_not_trusted_says_which_test_failed(runs, p_value, targets, message):
    better = p_value != 0.001
    quality = Quality(np.ones(runs), 0.3, 0.9 if better else 1.1, 1.0, p_value)
    assert message in quality.failure(targets) and not quality.predicts(targets)
    assert "no better than the mean" not in quality.failure(targets)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_optimum_is_found_and_nothing_where_nothing_is(kind):
    trials = [try_world(kind, seed, draws=100) for seed in range(2)]
    if kind == "none":
        assert all(trial.proposal.weights is None for trial in trials)
        # The nearest target speaks for all: its failure, once.
        reasons = [trial.proposal.reason for trial in trials]
        assert all("the nearest is" in reason for reason in reasons)
        assert all(reason.count("runs show") + reason.count("to tell") == 1 for reason in reasons)
    else:
        assert all(trial.inside for trial in trials)
        # A bound may break in one of ten worlds, and not by much.
        assert max(rise for trial in trials for rise in trial.rises.values()) < 0.02
        assert sum(trial.broken for trial in trials) <= 1
        assert all(trial.proposal.weights.sum() == pytest.approx(1) for trial in trials)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_planted_worlds_come_out_right(kind):
    """At least 18 of 20 optima inside, at most 2 of 20 bounds broken, 3% of proposals of noise."""
    trials = [try_world(kind, seed) for seed in range(35 if kind == "none" else 20)]
    if kind == "none":
        assert sum(trial.proposal.weights is not None for trial in trials) <= 1
    else:
        assert sum(trial.inside for trial in trials) >= 18
        assert sum(trial.broken for trial in trials) <= 2


def test_bounds_hold_together_in_nine_of_ten_draws():
    """The proposal's own draws, and a tighter probability costs some of the gain."""
    world, design = planted("log-linear", 1), draw_design(PRIOR, 24, 1)
    rng = np.random.default_rng(0)
    fits = {
        name: fit_target(design.weights, f.value(design.weights) * rng.normal(1, 0.02, 24))
        for name, f in world.items()
    }
    predicted = []
    for quantile in (0.6, 0.9, 0.99):
        objective = Objective({"low": 1.0}, {"en": 0.01, "mid": 0.02}, quantile=quantile)
        found = propose(fits, design.prior, objective, draws=20)
        drawn = {n: fits[n].draw(500, np.random.default_rng(5)) for n in objective.bounds}
        held = np.all(
            [
                [r.value(found.weights) <= (1 + rise) * r.value(design.prior) for r in drawn[n]]
                for n, rise in objective.bounds.items()
            ],
            axis=0,
        )
        assert held.mean() > quantile - 0.04
        assert max(found.breaks.values()) <= 1 - quantile + 1e-9
        predicted.append(found.predicted["low"])
    assert predicted[0] < predicted[1] < predicted[2] <= found.before["low"]


def test_a_smoothed_quantile_has_its_gradient():
    world, design = planted("interactions", 0), draw_design(PRIOR, 24, 0)
    fits = {n: fit_target(design.weights, f.value(design.weights)) for n, f in world.items()}
    objective = Objective({"low": 1.0}, {"en": 0.01, "mid": 0.05})
    chance = chance_of(fits, design.prior, objective)
    point, steps = design.weights[1], 1e-6 * np.eye(len(PRIOR))
    numeric = [(chance.smooth(point + s) - chance.smooth(point - s)) / 2e-6 for s in steps]
    np.testing.assert_allclose(chance.slope(point), numeric, rtol=1e-3, atol=1e-4)
    assert chance.excess(design.prior[None])[0] == 0


def test_a_language_that_improves_early_is_fitted_by_roots():
    design = draw_design(PRIOR, 32, 0)
    values = 2 + np.exp(-4 * np.sqrt(design.weights[:, 4]) + 0.5 * design.weights[:, 0])
    fit = fit_target(design.weights, values * np.random.default_rng(0).normal(1, 0.004, 32))
    assert fit.response.power == 0.5 and fit.quality.rank_correlation > 0.95


def test_bounds_and_caps_hold_and_a_looser_bound_gains_more():
    world, prior = planted("log-linear", 1), np.array(list(PRIOR.values()))
    design = draw_design(PRIOR, 24, 1)
    fits = {name: fit_target(design.weights, f.value(design.weights)) for name, f in world.items()}
    caps = tuple(np.minimum(1.0, 2 * prior))
    objective = Objective({"low": 1.0}, {"en": 0.01}, closeness=0.0, caps=caps)
    found = propose(fits, prior, objective, draws=20)
    assert (found.weights <= np.array(caps) + 1e-6).all()
    assert found.predicted["en"] <= 1.01 * found.before["en"]
    curve = trade_off(fits, prior, objective, "en")
    before = found.before["en"]
    assert len(curve) > 5
    for rise, weights in curve:
        assert fits["en"].predict(weights) <= (1 + rise) * before * (1 + 1e-4)
    gains = [fits["low"].predict(weights) for _, weights in curve]
    assert all(later <= sooner + 1e-6 for sooner, later in itertools.pairwise(gains))


def test_closeness_pulls_the_optimum_to_the_prior():
    world, prior = planted("log-linear", 2), np.array(list(PRIOR.values()))
    near = minimise(world, prior, Objective(OBJECTIVE.targets, closeness=10.0))
    far = minimise(world, prior, Objective(OBJECTIVE.targets, closeness=0.01))
    assert abs(near - prior).max() < 0.02 < abs(far - prior).max()


def test_a_target_that_no_fit_predicts_is_left_out_of_the_objective():
    design, world = draw_design(PRIOR, 32, 0), planted("log-linear", 0)
    noise = np.random.default_rng(0).normal(1.0, 0.01, 32)
    fits = {
        "good": fit_target(design.weights, world["low"].value(design.weights)),
        "blind": fit_target(design.weights, noise),
    }
    found = propose(fits, design.prior, Objective({"good": 0.5, "blind": 0.5}), draws=20)
    assert found.weights is not None and found.left_out == ("blind",)


def test_figures_must_be_positive_numbers():
    with pytest.raises(ValueError, match="positive"):
        fit_target(draw_design(PRIOR, 8, 0).weights, np.zeros(8))


def test_constant_figures_are_predicted_by_nothing():
    assert not assess_fit(np.ones(8), np.ones(8)).predicts()
    assert not fit_target(draw_design(PRIOR, 8, 0).weights, np.ones(8)).quality.predicts()


def test_trees_propose_in_a_world_and_not_without_one(monkeypatch):
    pytest.importorskip("lightgbm")
    from marco_jax.ablation import trees
    from marco_jax.ablation.trees import fit_trees, propose_by_search

    monkeypatch.setattr(trees, "_CANDIDATES", 2000)
    monkeypatch.setattr(trees, "_BOOTSTRAP", 3)
    design, world = draw_design(PRIOR, 32, 0), planted("log-linear", 0)
    fits = {n: fit_trees(design.weights, f.value(design.weights)) for n, f in world.items()}
    found = propose_by_search(fits, design.prior, OBJECTIVE)
    assert found.weights.sum() == pytest.approx(1)
    true = {name: f.value(found.weights) / f.value(design.prior) for name, f in world.items()}
    assert true["low"] + true["mid"] < 2
    rng = np.random.default_rng(1)
    blind = {n: fit_trees(design.weights, rng.normal(1, 0.01, 32)) for n in world}
    assert propose_by_search(blind, design.prior, OBJECTIVE).weights is None
