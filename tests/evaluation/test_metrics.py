"""Figures by hand, and standard errors against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from marco_jax.evaluation import metrics


def test_mean_of_binary_examples():
    estimate = metrics.mean([1, 0, 0, 1])
    assert estimate.value == 0.5
    # Sample variance 4 * 0.25 / 3, over 4 examples.
    assert estimate.stderr == pytest.approx(math.sqrt(1 / 3 / 4))


def test_one_example_has_no_standard_error():
    single = [metrics.mean([1.0]), metrics.ratio([8.0], [4.0]), metrics.chrf(["same"], ["same"])]
    assert [estimate.value for estimate in single] == [1, 2, 100]
    assert all(math.isnan(estimate.stderr) for estimate in single)


def test_ratio_is_of_sums_not_of_ratios():
    assert metrics.ratio([10.0, 90.0], [10, 30]).value == 100 / 40


def test_ratio_of_proportional_documents_has_no_error():
    assert metrics.ratio([2.0, 4.0, 6.0], [1, 2, 3]).stderr == 0


def test_ratio_error_agrees_with_simulation():
    random = np.random.default_rng(0)
    sizes = random.integers(50, 500, (2000, 60))
    bits = sizes * random.normal(2, 0.3, sizes.shape)
    estimates = [metrics.ratio(*draw) for draw in zip(bits, sizes, strict=True)]
    spread = np.std([estimate.value for estimate in estimates])
    claimed = np.mean([estimate.stderr for estimate in estimates])
    # Linearisation and 2,000 draws leave a few percent.
    assert claimed == pytest.approx(spread, rel=0.08)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_ratio_over_equal_sizes_is_the_mean(values):
    ratio, mean = metrics.ratio(values, [1] * len(values)), metrics.mean(values)
    # Sums in another order round differently.
    assert ratio.value == pytest.approx(mean.value, abs=1e-12)
    assert ratio.stderr == pytest.approx(mean.stderr, abs=1e-9)


def test_macro_mean_combines_errors():
    both = metrics.macro_mean([metrics.Estimate(1.0, 0.3), metrics.Estimate(3.0, 0.4)])
    assert both.value == 2.0
    assert both.stderr == pytest.approx(0.25)
    assert math.isnan(metrics.macro_mean([both, metrics.Estimate(0.0, math.nan)]).stderr)


def test_chrf_is_sacrebleus():
    hypotheses = ["the cat sat", "on a red mat", "", "कस्तो छ"]
    references = ["the cat sits", "on the red mat", "quietly", "तिमीलाई कस्तो छ"]
    estimate = metrics.chrf(hypotheses, references)
    assert estimate.value == CHRF(word_order=2).corpus_score(hypotheses, [references]).score
    assert 0 < estimate.stderr < 50


def test_chrf_error_is_seeded_and_near_sacrebleus_interval():
    random = np.random.default_rng(1)
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    references = [" ".join(random.choice(words, 6)) for _ in range(80)]
    hypotheses = [
        " ".join(word if random.random() < 0.6 else "noise" for word in line.split())
        for line in references
    ]
    estimate = metrics.chrf(hypotheses, references, seed=3)
    assert estimate == metrics.chrf(hypotheses, references, seed=3)
    theirs = CHRF(word_order=2).corpus_score(hypotheses, [references], n_bootstrap=1000)
    # Half of a 95 % interval is 1.96 standard errors; both are bootstraps of limited size.
    assert estimate.stderr == pytest.approx(theirs._ci / 1.96, rel=0.2)


def test_chrf_signature_names_the_metric_and_version():
    signature = metrics.signature(metrics.CHRF)
    assert "nw:2" in signature and "version:" in signature
