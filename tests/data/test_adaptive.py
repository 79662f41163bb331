"""Weights that follow the losses."""

import json

import numpy as np
import pytest

from marco_jax.data.adaptive import Adaptive, AdaptiveOptions, learning_speed

PRIOR = {"fast": 0.5, "slow": 0.4, "small": 0.1, "none": 0.0}


def law(tokens, floor, exponent):
    return floor + 3 * (tokens / 1000) ** -exponent


def rows(count, start=1):
    """Lines of metrics: the loss of "fast" falls, the others hardly do."""
    for step in range(start, start + count):
        tokens = 1000 * step
        yield {
            "tokens": tokens,
            "loss": 2.0,
            "loss/fast": law(tokens, 0.5, 0.4),
            "tokens/fast": 500,
            "loss/slow": law(tokens, 2.0, 0.01),
            "tokens/slow": 400,
            "loss/small": law(tokens, 2.0, 0.01),
            "tokens/small": 100,
        }


def follow(adaptive, changes, start=0):
    shares = dict(PRIOR)
    for number in range(start, start + changes):
        for row in rows(10, 10 * number + 1):
            adaptive.observe(row)
        shares = adaptive.change(10 * (number + 1), PRIOR, shares)
    return shares


@pytest.mark.parametrize("exponent", [0.05, 0.2, 0.5])
def test_the_speed_is_the_slope_of_the_law(exponent):
    tokens = np.geomspace(1e4, 1e6, 12)
    points = [[t, law(t, 1.0, exponent)] for t in tokens]
    expected = exponent * 3 * (tokens[-1] / 1000) ** -exponent
    assert learning_speed(points) == pytest.approx(expected, rel=0.1)


def test_a_loss_that_rises_has_the_least_speed():
    assert learning_speed([[1e3 * n, 2 + 0.1 * n] for n in range(1, 8)]) <= 0.02


def test_the_prior_holds_until_there_are_points_enough():
    assert follow(Adaptive(AdaptiveOptions(every=10)), 3) == PRIOR


def test_what_is_learnt_fast_is_read_more_and_nothing_falls_below_its_least():
    options = AdaptiveOptions(every=10, rate=0.5, credit=0.5, least=0.3)
    shares = follow(Adaptive(options), 12)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["fast"] > 0.7 and shares["none"] == 0
    assert all(shares[source] >= 0.3 * PRIOR[source] - 1e-12 for source in PRIOR)


def test_a_restored_one_goes_on_as_the_one_that_was_saved():
    options = AdaptiveOptions(every=10)
    first, second = Adaptive(options), Adaptive(options)
    follow(first, 6)
    for row in rows(3, 61):
        first.observe(row)
    second.restore(json.loads(json.dumps(first.state())))
    for adaptive in (first, second):
        for row in rows(7, 64):
            adaptive.observe(row)
    assert first.change(70, PRIOR, PRIOR) == second.change(70, PRIOR, PRIOR)
    assert not second.due(70) and second.due(80)


@pytest.mark.parametrize("change", [{"every": -1}, {"rate": 2.0}, {"least": -0.1}])
def test_fields_without_meaning_are_refused(change):
    with pytest.raises(ValueError, match=f"mixture.adaptive.{next(iter(change))}"):
        AdaptiveOptions(**change)


def test_a_state_is_not_changed_by_what_follows():
    """A checkpoint is written while the next steps are observed."""
    adaptive = Adaptive(AdaptiveOptions(every=2))
    for row in rows(2):
        adaptive.observe(row)
    adaptive.change(2, PRIOR, PRIOR)
    kept = adaptive.state()
    before = json.dumps(kept)
    for row in rows(2, start=3):
        adaptive.observe(row)
    adaptive.change(4, PRIOR, PRIOR)
    assert json.dumps(kept) == before
